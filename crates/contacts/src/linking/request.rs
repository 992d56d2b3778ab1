//! What a DMS says of one of its contacts: `POST /updatecontact` (Web1on1 recipe "Contact Synchronization").

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A contact of the DMS that was made or changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The DMS's id of it.
    pub id: String,
    /// Web1on1's id of the dealer.
    pub organization: String,
    /// As it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// As it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The DMS no longer has it (ours beyond the recipe): its links are taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// Personal data stays out of logs.
impl std::fmt::Debug for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Update")
            .field("organization", &self.organization)
            .finish_non_exhaustive()
    }
}

/// Why an update is refused; the sentences are for people and repeat nothing that was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpdate {
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} must be a text or a number")]
    NotAText(&'static str),
    #[error("deleted must be true or false")]
    NotABool,
    #[error("{field} must have at most {most} characters, and no control characters")]
    Unusable { field: &'static str, most: usize },
    #[error("email or telephone is needed; neither is there in a form that can be looked for")]
    NobodyToFind,
}

const LONGEST_ID: usize = 255;
/// Of a path and a domain (RFC 5321, 4.5.3.1).
const LONGEST_EMAIL: usize = 254;
const LONGEST_PHONE: usize = 40;

impl Update {
    /// The dealer that a body names, whatever else is wrong with it: who sent it is to be proven first.
    pub fn organization(body: &[u8]) -> Result<String, BadUpdate> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| BadUpdate::NotAnObject)?;
        identifier(&body, "organization")
    }

    /// Of an e-mail address and a phone number, what can be looked for counts: a DMS is full of `n/a`, and such a contact
    /// is still found by the other one.
    pub fn read(body: &[u8]) -> Result<Update, BadUpdate> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| BadUpdate::NotAnObject)?;
        let id = identifier(&body, "id")?;
        let organization = identifier(&body, "organization")?;
        let email = text(&body, "email")?.filter(|text| email(text).is_some());
        // The recipe's code takes `phone` where `telephone` is empty.
        let phone = match text(&body, "telephone")?.and_then(|text| phone(&text)) {
            Some(phone) => Some(phone),
            None => text(&body, "phone")?.and_then(|text| phone(&text)),
        };
        let deleted = match body.get("deleted") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(deleted)) => *deleted,
            Some(_) => return Err(BadUpdate::NotABool),
        };
        if email.is_none() && phone.is_none() && !deleted {
            return Err(BadUpdate::NobodyToFind);
        }
        Ok(Update {
            id,
            organization,
            email,
            phone,
            deleted,
        })
    }
}

/// `None`: absent, null or empty.
fn text(body: &Map<String, Value>, field: &'static str) -> Result<Option<String>, BadUpdate> {
    let text = match body.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(BadUpdate::NotAText(field)),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn identifier(body: &Map<String, Value>, field: &'static str) -> Result<String, BadUpdate> {
    let id = text(body, field)?.ok_or(BadUpdate::Missing(field))?;
    if id.chars().count() > LONGEST_ID || id.chars().any(char::is_control) {
        let most = LONGEST_ID;
        return Err(BadUpdate::Unusable { field, most });
    }
    Ok(id)
}

/// An address in the form in which addresses are compared; `None`: it is none.
pub(super) fn email(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ';' | '<' | '>' | '"');
    let good = !local.is_empty() && !domain.is_empty() && text.len() <= LONGEST_EMAIL && !text.chars().any(odd);
    good.then(|| text.to_lowercase())
}

/// Whether it is a number of some country is for who knows the region to say; here it only must be able to be one.
fn phone(text: &str) -> Option<String> {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let good = text.len() <= LONGEST_PHONE && digits >= 3 && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Update, BadUpdate> {
        Update::read(body.to_string().as_bytes())
    }

    #[test]
    fn the_recipe_s_own_fields_are_read() {
        let update = read(&json!({"id": 46, "organization": "5c13", "email": " Ines@Nordlys.Example ", "telephone": "+47 22 33 44 55", "more": [1]})).unwrap();
        assert_eq!((update.id.as_str(), update.organization.as_str()), ("46", "5c13"));
        assert_eq!(update.email.as_deref(), Some("Ines@Nordlys.Example"));
        assert_eq!(update.phone.as_deref(), Some("+47 22 33 44 55"));
        let second = read(&json!({"id": "a", "organization": "b", "telephone": "", "phone": "12345"})).unwrap();
        assert_eq!(second.phone.as_deref(), Some("12345"));
    }

    #[test]
    fn what_cannot_be_looked_for_counts_only_if_there_is_nothing_else() {
        let beside = read(&json!({"id": "a", "organization": "b", "email": "n/a", "phone": "+4722334455"})).unwrap();
        assert_eq!(beside.email, None);
        for alone in [
            json!({"id": "a", "organization": "b", "email": "n/a", "telephone": "-"}),
            json!({"id": "a", "organization": "b", "email": "a@b, c@d"}),
            json!({"id": "a", "organization": "b", "email": null}),
            json!({"id": "a", "organization": "b"}),
        ] {
            assert_eq!(read(&alone), Err(BadUpdate::NobodyToFind), "{alone}");
        }
    }

    #[test]
    fn a_deleted_one_needs_nothing_to_be_found_by() {
        let gone = read(&json!({"id": "a", "organization": "b", "deleted": true})).unwrap();
        assert!(gone.deleted && gone.email.is_none());
        assert_eq!(
            read(&json!({"id": "a", "organization": "b", "deleted": false})),
            Err(BadUpdate::NobodyToFind)
        );
        assert_eq!(
            read(&json!({"id": "a", "organization": "b", "deleted": "yes"})),
            Err(BadUpdate::NotABool)
        );
    }

    #[test]
    fn bad_input_is_refused_by_name_and_not_repeated() {
        let long = "canary".repeat(50);
        for (body, why) in [
            (json!([]), BadUpdate::NotAnObject),
            (json!({"organization": "b", "email": "a@b"}), BadUpdate::Missing("id")),
            (
                json!({"id": " ", "organization": "b", "email": "a@b"}),
                BadUpdate::Missing("id"),
            ),
            (json!({"id": "a", "email": "a@b"}), BadUpdate::Missing("organization")),
            (json!({"id": {}, "organization": "b"}), BadUpdate::NotAText("id")),
            (
                json!({"id": "a", "organization": "b", "email": ["a@b"]}),
                BadUpdate::NotAText("email"),
            ),
            (
                json!({"id": long, "organization": "b", "email": "a@b"}),
                BadUpdate::Unusable { field: "id", most: 255 },
            ),
            (
                json!({"id": "a\u{7}", "organization": "b", "email": "a@b"}),
                BadUpdate::Unusable { field: "id", most: 255 },
            ),
        ] {
            assert_eq!(read(&body), Err(why.clone()), "{body}");
            assert!(!why.to_string().contains("canary"));
        }
        assert_eq!(Update::read(b"\xff{"), Err(BadUpdate::NotAnObject));
    }

    #[test]
    fn invariant_12_debug_output_holds_no_personal_data() {
        let update = read(&json!({"id": "canary-1", "organization": "b", "email": "canary@b", "phone": "canary 123"}));
        assert!(!format!("{update:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Update::read(&body);
        }

        #[test]
        fn what_was_read_is_read_again_as_it_is(id in "[a-z0-9]{1,20}", email in "[a-zA-Z]{1,9}@[a-z]{1,9}", phone in "\\+[0-9]{3,15}") {
            let update = read(&json!({"id": id, "organization": "o", "email": email, "phone": phone})).unwrap();
            let again = read(&serde_json::to_value(&update).unwrap());
            prop_assert_eq!(again, Ok(update));
        }
    }
}
