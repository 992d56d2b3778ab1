//! Interaction retrieval and actions: requests as they come, answers as the contract has them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::request::{auth, bad, meta, object, text};
use super::{Auth, BadRequest};

/// A request for the interactions of a contact (Talkdesk interaction retriever, request). Every field is optional: a
/// contact that this bridge did not sync comes with phones and e-mail addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InteractionRequest {
    pub auth: Auth,
    /// In the caller's spelling, each once whatever its case. Empty: all that there are.
    pub types: Vec<String>,
    pub contact: Option<String>,
    pub name: Option<String>,
    pub emails: Vec<String>,
    pub phones: Vec<String>,
}

/// A request to execute an action (Talkdesk action executor, request).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionRequest {
    pub auth: Auth,
    /// Only if the action is about a contact that was synced through this bridge.
    pub contact: Option<String>,
    /// Only if the agent who acts was synced.
    pub agent: Option<String>,
    /// The inputs by key, as they came.
    pub data: Map<String, Value>,
}

/// One interaction as Talkdesk takes it (Talkdesk interaction retriever, response).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interaction {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// `2012-11-21 17:53:51 UTC`
    pub date: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// `none`, `low`, `normal`, `high` or `urgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub priority: Option<String>,
    /// `new`, `open`, `pending`, `solved` or `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<String>,
}

/// The answer to an action that was done (Talkdesk action executor, response).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionReply {
    pub message: String,
    /// Id of what was created, unless it is a contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub contact_external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub contact_external_type: Option<String>,
    /// Talkdesk's contact pop needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub contact_external_url: Option<String>,
}

/// The answer to an interaction request: a bare array.
pub fn interactions(found: &[Interaction]) -> Bytes {
    // A list of texts has no way to fail.
    serde_json::to_vec(found).unwrap_or_else(|_| b"[]".to_vec()).into()
}

impl ActionReply {
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec()).into()
    }
}

impl InteractionRequest {
    /// As [`super::SyncRequest::parse`]. Single texts are taken for lists of one.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let mut request = object(body)?;
        let auth = auth(&mut request)?;
        let mut meta = meta(&mut request)?;
        let mut data = data(&mut request)?;
        let mut types: Vec<String> = Vec::new();
        for kind in texts(
            "malformed_meta",
            "meta.interaction_types",
            meta.remove("interaction_types"),
        )? {
            let known = types.iter().any(|other| other.to_lowercase() == kind.to_lowercase());
            if !known {
                types.push(kind);
            }
        }
        let data_texts = |name: &str, value| texts("malformed_data", &format!("data.{name}"), value);
        Ok(Self {
            auth,
            types,
            contact: scalar(
                "malformed_data",
                "data.contact_external_id",
                data.remove("contact_external_id"),
            )?,
            name: scalar("malformed_data", "data.contact_name", data.remove("contact_name"))?,
            emails: data_texts("contact_emails", data.remove("contact_emails"))?,
            phones: data_texts("contact_phones", data.remove("contact_phones"))?,
        })
    }
}

impl ActionRequest {
    /// As [`super::SyncRequest::parse`]. What the inputs are worth is for their declarations to say.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let mut request = object(body)?;
        let auth = auth(&mut request)?;
        let mut meta = meta(&mut request)?;
        let mut id = |name: &str| scalar("malformed_meta", &format!("meta.{name}"), meta.remove(name));
        Ok(Self {
            auth,
            contact: id("contact_external_id")?,
            agent: id("agent_external_id")?,
            data: data(&mut request)?,
        })
    }
}

fn data(request: &mut Map<String, Value>) -> Result<Map<String, Value>, BadRequest> {
    match request.remove("data") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(data)) => Ok(data),
        Some(_) => bad("malformed_data", "`data` must be an object"),
    }
}

/// A text, number or boolean as trimmed text; what is missing, null or blank is nothing.
fn scalar(code: &'static str, name: &str, value: Option<Value>) -> Result<Option<String>, BadRequest> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_) | Value::Object(_)) => bad(code, format!("`{name}` must be a string")),
        Some(value) => Ok(text(value)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())),
    }
}

fn texts(code: &'static str, name: &str, value: Option<Value>) -> Result<Vec<String>, BadRequest> {
    let items = match value {
        Some(Value::Array(items)) => items,
        Some(Value::Object(_)) => return bad(code, format!("`{name}` must be a list of strings")),
        other => other.into_iter().collect(),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        if item.is_array() || item.is_object() {
            return bad(code, format!("`{name}` must be a list of strings"));
        }
        texts.extend(scalar(code, name, Some(item))?);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked(body: Value) -> Result<InteractionRequest, BadRequest> {
        InteractionRequest::parse(body.to_string().as_bytes())
    }

    fn ordered(body: Value) -> Result<ActionRequest, BadRequest> {
        ActionRequest::parse(body.to_string().as_bytes())
    }

    #[test]
    fn what_the_contract_shows_is_read() {
        let request = asked(json!({
            "auth": {"account": "acme"},
            "meta": {"interaction_types": ["Ticket", "case", "TICKET"]},
            "data": {"contact_external_id": 1002, "contact_name": " Ines ", "contact_emails": ["i@x.test", null, ""],
                     "contact_phones": "+4722334455"},
        }))
        .unwrap();
        assert_eq!(request.types, ["Ticket", "case"]);
        assert_eq!(request.contact.as_deref(), Some("1002"));
        assert_eq!(request.name.as_deref(), Some("Ines"));
        assert_eq!(
            (request.emails, request.phones),
            (vec!["i@x.test".to_owned()], vec!["+4722334455".to_owned()])
        );
        let request = ordered(json!({
            "meta": {"contact_external_id": "c-1", "agent_external_id": 17}, "data": {"subject": "s", "n": 5},
        }))
        .unwrap();
        assert_eq!(
            (request.contact.as_deref(), request.agent.as_deref()),
            (Some("c-1"), Some("17"))
        );
        assert_eq!(request.data["n"], 5);
    }

    #[test]
    fn what_is_missing_null_or_blank_is_absent() {
        for body in [
            json!({}),
            json!({"auth": null, "meta": null, "data": null}),
            json!({"meta": {"interaction_types": null}, "data": {"contact_external_id": " ", "contact_phones": [null]}}),
            json!({"meta": {"interaction_types": [], "agent_external_id": ""}, "data": {"contact_emails": ""}}),
        ] {
            assert_eq!(asked(body.clone()).unwrap(), InteractionRequest::default(), "{body}");
            let request = ordered(body.clone()).unwrap();
            assert_eq!((request.contact, request.agent), (None, None), "{body}");
        }
    }

    #[test]
    fn other_shapes_are_refused_by_name_alone() {
        for (body, code, named) in [
            (json!({"data": ["canary"]}), "malformed_data", "`data`"),
            (
                json!({"data": {"contact_phones": {"a": "canary"}}}),
                "malformed_data",
                "contact_phones",
            ),
            (
                json!({"data": {"contact_emails": [["canary"]]}}),
                "malformed_data",
                "contact_emails",
            ),
            (
                json!({"data": {"contact_external_id": ["canary"]}}),
                "malformed_data",
                "contact_external_id",
            ),
            (
                json!({"meta": {"interaction_types": {"canary": 1}}}),
                "malformed_meta",
                "interaction_types",
            ),
            (json!({"meta": "canary"}), "malformed_meta", "meta"),
        ] {
            let error = asked(body).unwrap_err();
            assert_eq!(error.code, code);
            assert!(
                error.message.contains(named) && !error.message.contains("canary"),
                "{error}"
            );
        }
        let error = ordered(json!({"meta": {"agent_external_id": {}}})).unwrap_err();
        assert_eq!(error.code, "malformed_meta");
    }

    #[test]
    fn answers_leave_out_what_there_is_not() {
        let ticket = Interaction {
            id: "t-1".into(),
            kind: "Ticket".into(),
            subject: "s".into(),
            description: None,
            date: "2024-05-13 16:02:00 UTC".into(),
            url: None,
            priority: Some("high".into()),
            status: None,
        };
        assert_eq!(
            &interactions(&[ticket])[..],
            br#"[{"id":"t-1","type":"Ticket","subject":"s","date":"2024-05-13 16:02:00 UTC","priority":"high"}]"#
        );
        assert_eq!(&interactions(&[])[..], b"[]");
        let reply = ActionReply {
            message: "done".into(),
            ..ActionReply::default()
        };
        assert_eq!(&reply.to_bytes()[..], br#"{"message":"done"}"#);
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(text in r#"[\[\]{}",:a-z0-9 ]{0,80}"#, number in any::<f64>()) {
            let _ = InteractionRequest::parse(text.as_bytes());
            let _ = ActionRequest::parse(text.as_bytes());
            let body = json!({"meta": {"interaction_types": number}, "data": {"contact_phones": [number, true]}});
            prop_assert_eq!(asked(body).unwrap().phones.len(), 2 - usize::from(!number.is_finite()));
        }
    }
}
