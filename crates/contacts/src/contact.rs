//! Talkdesk's contact: the eleven keys of the contract and nothing else.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A contact as Talkdesk takes it (Talkdesk contact sync, response reference). `id` and `name` are always filled.
/// Empty scalars are left out of the JSON; `emails` and `phones` are always there, so that a removed one is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The CRM's id as text, stable for ever: Talkdesk sends it back as `contact_external_id`.
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default)]
    pub emails: Vec<String>,
    /// E.164.
    #[serde(default)]
    pub phones: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photo_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub websites: Vec<String>,
    /// The user name, without `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twitter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Contact {
    /// The finished JSON that pages are put together from. Compact: it holds no raw line break.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and string lists has no way to fail; an empty body would mean "deleted" to nobody.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The content hash of a finished record. `mapping` is the version of the mapping that made it: when that changes, a
/// contact counts as changed only if its bytes do, so the version is not part of the hash.
pub fn content_hash(body: &[u8]) -> u64 {
    let digest = Sha256::digest(body);
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// An agent as Talkdesk takes it (Talkdesk agent sync): all three fields are mandatory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub id: String,
    pub name: String,
    pub email: String,
}

impl Agent {
    /// The finished JSON that pages are put together from.
    pub fn to_json(&self) -> Vec<u8> {
        // As with contacts: strings have no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What two agents may not have in common: Talkdesk knows its own agents by their e-mail address.
    pub fn email_key(&self) -> String {
        self.email.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contract_keys_are_written_and_empty_lists_of_numbers_stay() {
        let contact = Contact {
            id: "7".into(),
            name: "Bo\nLund".into(),
            ..Contact::default()
        };
        let json = contact.to_json();
        assert_eq!(
            std::str::from_utf8(&json).unwrap(),
            r#"{"id":"7","name":"Bo\nLund","emails":[],"phones":[]}"#
        );
        assert!(!json.contains(&b'\n'));
    }

    #[test]
    fn the_hash_follows_the_content() {
        assert_eq!(content_hash(b"a"), content_hash(b"a"));
        assert_ne!(content_hash(b"a"), content_hash(b"b"));
    }
}
