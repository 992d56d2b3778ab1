//! What a test or a person does to the CRM, in process or through `POST /_control`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::data::{Fields, UserFields};
use crate::history::Edit;
use crate::knobs::Knobs;
use crate::updates::UpdateContact;
use crate::webhooks::Webhook;

/// One action on one account. As JSON the action is a key beside the account, and there is exactly one:
/// `{"account": "demo", "edit": {"count": 10}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Left out in JSON: the first account.
    pub account: Option<String>,
    pub action: Action,
}

/// What to do. [`Control`] has a short constructor for each.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Knobs by name; those not named stay, `null` switches one off.
    Set(Map<String, Value>),
    Create(Create),
    /// New content, or the given fields.
    Edit(Change),
    /// New stamps and versions, all stamps the same, content as it was.
    Touch(Change),
    Delete(Change),
    Archive(Change),
    Unarchive(Change),
    Merge(Merge),
    /// Makes all held edits visible now.
    Commit {},
    /// The tokens that are accepted from now on; all others are refused.
    Tokens(Vec<String>),
    /// The account's subscription; null ends it.
    Webhook(Option<Webhook>),
    /// Whom the account tells of its contacts by `/updatecontact`; null ends it.
    #[serde(rename = "updatecontact")]
    UpdateContact(Option<UpdateContact>),
    Users(Users),
    /// Counters back to zero.
    Reset {},
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Create {
    pub count: usize,
    pub fields: Option<Fields>,
    pub hold: bool,
    pub stamp_ms: Option<i64>,
}

/// Which contacts: either `ids` or `count` random ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    pub ids: Vec<String>,
    pub count: Option<usize>,
    /// Only for `edit`.
    pub fields: Option<Fields>,
    /// A transaction that stays open: stamped now, visible at `commit`.
    pub hold: bool,
    /// The stamp of all rows instead of the CRM's clock.
    pub stamp_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Goes, and leaves its id in `merged_ids` of the other.
    pub from: String,
    pub into: String,
    #[serde(default)]
    pub hold: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Users {
    pub add: usize,
    /// Ids (`u-3`) that get another name.
    pub edit: Vec<String>,
    /// The given values, by id.
    pub set: BTreeMap<String, UserFields>,
    pub deactivate: Vec<String>,
    pub activate: Vec<String>,
    /// For good.
    pub delete: Vec<String>,
}

/// What came of a [`Control`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use = "a control that was refused did nothing"]
pub enum ControlReply {
    Ok(Done),
    Error(Refusal),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Every version that was written, in order. For `users`: empty.
    pub edits: Vec<Edit>,
    /// The knobs as they are now, after `set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knobs: Option<Box<Knobs>>,
    /// How many held edits `commit` made visible.
    #[serde(default)]
    pub committed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    BadControl,
    NotFound,
}

impl ControlReply {
    /// # Errors
    /// The refusal, which says what was wrong.
    pub fn into_result(self) -> Result<Done, Refusal> {
        match self {
            ControlReply::Ok(done) => Ok(done),
            ControlReply::Error(refusal) => Err(refusal),
        }
    }

    /// For tests.
    ///
    /// # Panics
    /// When the control was refused.
    #[track_caller]
    pub fn done(self) -> Done {
        match self {
            ControlReply::Ok(done) => done,
            ControlReply::Error(refusal) => panic!("control refused: {refusal}"),
        }
    }
}

impl Done {
    /// The contacts concerned, in order of their edits.
    pub fn ids(&self) -> Vec<String> {
        self.edits.iter().map(|edit| edit.id.clone()).collect()
    }
}

impl Refusal {
    pub(crate) fn bad(message: impl Into<String>) -> Refusal {
        Refusal {
            code: RefusalCode::BadControl,
            message: message.into(),
        }
    }

    pub(crate) fn missing(message: impl Into<String>) -> Refusal {
        Refusal {
            code: RefusalCode::NotFound,
            message: message.into(),
        }
    }
}

impl Change {
    pub fn ids<T: ToString>(ids: impl IntoIterator<Item = T>) -> Change {
        Change {
            ids: ids.into_iter().map(|id| id.to_string()).collect(),
            ..Change::default()
        }
    }

    pub fn random(count: usize) -> Change {
        Change {
            count: Some(count),
            ..Change::default()
        }
    }

    #[must_use]
    pub fn held(self) -> Change {
        Change { hold: true, ..self }
    }

    #[must_use]
    pub fn stamped(self, stamp_ms: i64) -> Change {
        Change {
            stamp_ms: Some(stamp_ms),
            ..self
        }
    }

    #[must_use]
    pub fn with(self, fields: Fields) -> Change {
        Change {
            fields: Some(fields),
            ..self
        }
    }
}

impl Control {
    pub fn new(account: &str, action: Action) -> Control {
        Control {
            account: Some(account.to_owned()),
            action,
        }
    }

    /// Knobs as a JSON object; anything else is refused when it is carried out.
    pub fn set(account: &str, knobs: Value) -> Control {
        let knobs = match knobs {
            Value::Object(map) => map,
            other => Map::from_iter([(other.to_string(), Value::Null)]),
        };
        Control::new(account, Action::Set(knobs))
    }

    pub fn create(account: &str, count: usize) -> Control {
        Control::new(
            account,
            Action::Create(Create {
                count,
                ..Create::default()
            }),
        )
    }

    pub fn edit(account: &str, change: Change) -> Control {
        Control::new(account, Action::Edit(change))
    }

    pub fn touch(account: &str, change: Change) -> Control {
        Control::new(account, Action::Touch(change))
    }

    pub fn delete(account: &str, change: Change) -> Control {
        Control::new(account, Action::Delete(change))
    }

    pub fn archive(account: &str, change: Change) -> Control {
        Control::new(account, Action::Archive(change))
    }

    pub fn unarchive(account: &str, change: Change) -> Control {
        Control::new(account, Action::Unarchive(change))
    }

    pub fn merge(account: &str, from: &str, into: &str) -> Control {
        let merge = Merge {
            from: from.to_owned(),
            into: into.to_owned(),
            hold: false,
        };
        Control::new(account, Action::Merge(merge))
    }

    pub fn commit(account: &str) -> Control {
        Control::new(account, Action::Commit {})
    }

    pub fn tokens(account: &str, tokens: &[&str]) -> Control {
        Control::new(
            account,
            Action::Tokens(tokens.iter().map(|&token| token.to_owned()).collect()),
        )
    }

    pub fn webhook(account: &str, webhook: Option<Webhook>) -> Control {
        Control::new(account, Action::Webhook(webhook))
    }

    pub fn update_contact(account: &str, update: Option<UpdateContact>) -> Control {
        Control::new(account, Action::UpdateContact(update))
    }

    pub fn users(account: &str, users: Users) -> Control {
        Control::new(account, Action::Users(users))
    }

    pub fn reset(account: &str) -> Control {
        Control::new(account, Action::Reset {})
    }
}

/// Tokens and secrets stay out of it.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Set(knobs) => f.debug_tuple("Set").field(knobs).finish(),
            Action::Create(create) => create.fmt(f),
            Action::Edit(change) => f.debug_tuple("Edit").field(change).finish(),
            Action::Touch(change) => f.debug_tuple("Touch").field(change).finish(),
            Action::Delete(change) => f.debug_tuple("Delete").field(change).finish(),
            Action::Archive(change) => f.debug_tuple("Archive").field(change).finish(),
            Action::Unarchive(change) => f.debug_tuple("Unarchive").field(change).finish(),
            Action::Merge(merge) => merge.fmt(f),
            Action::Commit {} => f.write_str("Commit"),
            Action::Tokens(tokens) => write!(f, "Tokens({} hidden)", tokens.len()),
            Action::Webhook(webhook) => webhook.fmt(f),
            Action::UpdateContact(update) => update.fmt(f),
            Action::Users(users) => users.fmt(f),
            Action::Reset {} => f.write_str("Reset"),
        }
    }
}

impl Serialize for Control {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            account: &'a Option<String>,
            #[serde(flatten)]
            action: &'a Action,
        }
        Flat {
            account: &self.account,
            action: &self.action,
        }
        .serialize(serializer)
    }
}

// By hand, because serde's `flatten` cannot refuse unknown keys.
impl<'de> Deserialize<'de> for Control {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Control, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        let account = match map.remove("account") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(other) => {
                return Err(D::Error::custom(format!("`account` is a name, not {other}")));
            }
        };
        if map.len() != 1 {
            let found: Vec<&str> = map.keys().map(String::as_str).collect();
            return Err(D::Error::custom(format!(
                "give exactly one action beside `account`, not [{}]",
                found.join(", ")
            )));
        }
        let name = map.keys().next().cloned().unwrap_or_default();
        let action =
            Action::deserialize(Value::Object(map)).map_err(|error| D::Error::custom(format!("{name}: {error}")))?;
        Ok(Control { account, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_control_reads_as_it_is_written() {
        for control in [
            json!({"account": "demo", "edit": {
                "ids": ["1"], "count": null, "fields": {"first_name": "Eva"}, "hold": true, "stamp_ms": 5
            }}),
            json!({"reset": {}}),
            json!({"account": "demo", "webhook": null}),
            json!({"account": "demo", "tokens": ["a", "b"]}),
            json!({"account": "demo", "set": {"slow_ms": 5}}),
            json!({"account": "demo", "updatecontact": null}),
        ] {
            let read: Control = serde_json::from_value(control.clone()).expect("control");
            assert_eq!(serde_json::to_value(&read).expect("json"), control);
        }
    }

    #[test]
    fn bad_input_gets_one_clear_sentence() {
        for (control, says) in [
            (json!({"account": "demo"}), "exactly one action"),
            (json!({"edit": {"count": 1}, "reset": {}}), "[edit, reset]"),
            (json!({"account": 7, "reset": {}}), "`account` is a name"),
            (json!({"explode": {}}), "unknown variant `explode`"),
            (json!({"edit": {"cuont": 1}}), "edit: unknown field `cuont`"),
            (json!({"reset": {"all": true}}), "unknown field `all`"),
            (json!({"webhook": {"url": "http://x/"}}), "missing field `secret`"),
            (json!([1]), "expected a map"),
        ] {
            let error = serde_json::from_value::<Control>(control).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Control::tokens("demo", &["hush"]),
            Control::webhook("demo", Some(Webhook::new("http://h/", "hush"))),
            Control::update_contact(
                "demo",
                Some(UpdateContact {
                    secret: Some("hush".into()),
                    token: Some("hush".into()),
                    ..UpdateContact::new("http://h/", "o")
                })
            )
        );
        assert!(!shown.contains("hush"), "{shown}");
    }
}
