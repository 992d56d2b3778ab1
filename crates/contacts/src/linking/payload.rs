//! What lies in the inbox of a dealer. Part of stored bytes: fields are added, never changed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::records::Side;
use super::{Event, Update};
use crate::time::Micros;

/// One piece of linking work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The DMS told of a record.
    Update(Update),
    /// Web1on1 told of a contact.
    Event(Event),
    /// All records of the DMS are to be linked.
    Seed(Seed),
    /// Links are to be taken away.
    Remove(Remove),
    /// Links of records that the DMS no longer has are to be taken away: it does not always tell.
    Tidy(Tidy),
    /// What stood against linking a record may be gone.
    Look(Look),
}

/// How far a seeding has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    pub began: Micros,
    /// The page it is at; `None`: the first one.
    #[serde(default)]
    pub cursor: Option<Value>,
    /// The last record of that page that is in the inbox already.
    #[serde(default)]
    pub last: Option<String>,
    /// Records so far.
    #[serde(default)]
    pub seen: u64,
}

/// How far a removal has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The record of the DMS; `None`: all of the dealer.
    #[serde(default)]
    pub record: Option<String>,
    /// Of all: the last one that is done.
    #[serde(default)]
    pub after: Option<String>,
}

/// How far a tidying has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tidy {
    /// The last record of the DMS that was looked at.
    #[serde(default)]
    pub after: Option<String>,
}

/// A record that is to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub side: Side,
    pub id: String,
}

impl Payload {
    /// What it is about: another payload under the same key takes its place. Of updates of one record the last to come counts, as
    /// each is a reason to look at the record as it is then. Events are news by their own times, and each is judged by itself.
    pub fn key(&self) -> String {
        match self {
            Payload::Update(update) => format!("dms|{}", update.id),
            Payload::Event(event) => format!("event|{}", event.dedupe()),
            Payload::Seed(_) => "seed".to_owned(),
            Payload::Remove(Remove { record: Some(id), .. }) => format!("remove|{id}"),
            Payload::Remove(_) => "remove".to_owned(),
            Payload::Tidy(_) => "tidy".to_owned(),
            Payload::Look(look) => format!("look|{:?}|{}", look.side, look.id),
        }
    }

    /// For metrics and messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Payload::Update(_) => "update",
            Payload::Event(_) => "event",
            Payload::Seed(_) => "seed",
            Payload::Remove(_) => "remove",
            Payload::Tidy(_) => "tidy",
            Payload::Look(_) => "look",
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Structs of texts and numbers have no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None`: it was written by a newer version, or damaged.
    pub fn read(bytes: &[u8]) -> Option<Payload> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_stored_is_read_again_and_keys_tell_what_it_is_about() {
        let update = Update::read(
            json!({"id": "7", "organization": "o", "email": "a@b"})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        let look = |side| Payload::Look(Look { side, id: "7".into() });
        let payloads = [
            Payload::Update(update),
            Payload::Tidy(Tidy::default()),
            Payload::Seed(Seed {
                cursor: Some(json!({"page": 2})),
                last: Some("3".into()),
                ..Seed::default()
            }),
            Payload::Remove(Remove::default()),
            Payload::Remove(Remove {
                record: Some("7".into()),
                after: None,
            }),
            look(Side::Dms),
            look(Side::Web1on1),
        ];
        let mut keys = std::collections::BTreeSet::new();
        for payload in payloads {
            assert_eq!(Payload::read(&payload.to_bytes()).as_ref(), Some(&payload));
            assert!(keys.insert(payload.key()), "{payload:?}");
        }
        assert_eq!(Payload::read(br#"{"later": 1}"#), None);
    }
}
