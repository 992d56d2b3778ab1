use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde_json::{Map, Value};

/// A contact sync request (Talkdesk contact sync, request reference).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncRequest {
    pub auth: Auth,
    /// Absent on the initial sync. Whatever JSON it is, it is passed on as text and never refused: nobody can edit what
    /// Talkdesk has stored, so a refusal would end an account's syncs for good.
    pub checkpoint: Option<String>,
    /// Absent on the first page of a run.
    pub offset: Option<String>,
    /// What the last page's answer gave, any JSON but null.
    pub context: Option<Value>,
}

/// An auth_validation request, or any other of which only the credentials count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthRequest {
    pub auth: Auth,
}

/// An agent sync request (Talkdesk agent sync, request reference).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRequest {
    pub auth: Auth,
    /// The integer of the last answer, which some callers send as text; absent on the first page.
    pub offset: Option<u64>,
}

/// The configured authentication fields by name; numbers and booleans as text, fields that are null left out. `Debug`
/// shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth(pub BTreeMap<String, String>);

/// Why a request cannot be read; answered 400. Holds no value of `auth`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// `malformed_json`, `malformed_auth`, `malformed_meta`, `malformed_data` or `malformed_offset`.
    pub code: &'static str,
    pub message: String,
}

impl SyncRequest {
    /// Reads a body of which the caller has bounded the size; serde_json bounds the depth (128). The content type does
    /// not count, unknown keys are ignored.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let mut request = object(body)?;
        let auth = auth(&mut request)?;
        let mut meta = meta(&mut request)?;
        Ok(Self {
            auth,
            checkpoint: meta
                .remove("synchronization_checkpoint")
                .and_then(text)
                .filter(|text| !text.is_empty()),
            offset: match meta.remove("offset") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
                Some(Value::Number(number)) => Some(number.to_string()),
                Some(_) => return bad("malformed_offset", "`meta.offset` must be a string"),
            },
            context: meta.remove("context").filter(|context| !context.is_null()),
        })
    }
}

impl AuthRequest {
    /// As [`SyncRequest::parse`]; `meta` is not looked at.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        Ok(Self {
            auth: auth(&mut object(body)?)?,
        })
    }
}

impl AgentRequest {
    /// As [`SyncRequest::parse`].
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let mut request = object(body)?;
        let auth = auth(&mut request)?;
        let offset = match meta(&mut request)?.remove("offset") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(value) => match text(value).and_then(|text| text.parse().ok()) {
                Some(offset) => Some(offset),
                None => return bad("malformed_offset", "`meta.offset` must be an integer"),
            },
        };
        Ok(Self { auth, offset })
    }
}

impl Deref for Auth {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

impl FromIterator<(String, String)> for Auth {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

pub(super) fn bad<T>(code: &'static str, message: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest {
        code,
        message: message.into(),
    })
}

pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, BadRequest> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => bad("malformed_json", "the body must be a JSON object"),
        // Only the place: the error's own text is not ours to vouch for.
        Err(error) => bad(
            "malformed_json",
            format!("the body is not JSON: line {}, column {}", error.line(), error.column()),
        ),
    }
}

pub(super) fn auth(request: &mut Map<String, Value>) -> Result<Auth, BadRequest> {
    let fields = match request.remove("auth") {
        None | Some(Value::Null) => return Ok(Auth::default()),
        Some(Value::Object(fields)) => fields,
        Some(_) => return bad("malformed_auth", "`auth` must be an object"),
    };
    let mut auth = BTreeMap::new();
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Array(_) | Value::Object(_) => {
                // A name is the caller's text: short and plain before it is repeated.
                let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                return bad(
                    "malformed_auth",
                    format!("`auth.{name}` must be a string, a number or a boolean"),
                );
            }
            scalar => {
                if let Some(text) = text(scalar) {
                    auth.insert(name, text);
                }
            }
        }
    }
    Ok(Auth(auth))
}

pub(super) fn meta(request: &mut Map<String, Value>) -> Result<Map<String, Value>, BadRequest> {
    match request.remove("meta") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(meta)) => Ok(meta),
        Some(_) => bad("malformed_meta", "`meta` must be an object"),
    }
}

/// Any JSON as text, a string as itself; null is nothing.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sync(body: Value) -> Result<SyncRequest, BadRequest> {
        SyncRequest::parse(body.to_string().as_bytes())
    }

    #[test]
    fn the_sample_of_the_contract_is_read() {
        let request = sync(json!({
            "auth": {"username": "u@example.com", "password": "605b32dd"},
            "meta": {"offset": "2", "synchronization_checkpoint": "2012-11-20 23:01:00 UTC", "context": null},
        }))
        .unwrap();
        assert_eq!(request.auth["password"], "605b32dd");
        assert_eq!(request.checkpoint.as_deref(), Some("2012-11-20 23:01:00 UTC"));
        assert_eq!(request.offset.as_deref(), Some("2"));
        assert_eq!(request.context, None);
    }

    #[test]
    fn what_is_missing_null_or_empty_is_absent() {
        for body in [
            json!({}),
            json!({"auth": null, "meta": null}),
            json!({"auth": {}, "meta": {}}),
            json!({"auth": {}, "meta": {"offset": null, "synchronization_checkpoint": null, "context": null}}),
            json!({"auth": {"token": null}, "meta": {"offset": "", "synchronization_checkpoint": ""}, "more": [1]}),
        ] {
            assert_eq!(sync(body.clone()).unwrap(), SyncRequest::default(), "{body}");
        }
    }

    #[test]
    fn scalars_of_auth_become_text_and_others_are_refused_by_name_alone() {
        let request = sync(json!({"auth": {"account": 4711, "sandbox": true, "rate": 1.5, "key": "k"}})).unwrap();
        let fields: Vec<_> = request.auth.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            fields,
            [("account", "4711"), ("key", "k"), ("rate", "1.5"), ("sandbox", "true")]
        );
        for value in [json!({"deep": "canary"}), json!(["canary"])] {
            let error = sync(json!({"auth": {"token": value, "a": "canary"}})).unwrap_err();
            assert_eq!(error.code, "malformed_auth");
            assert!(
                error.message.contains("auth.token") && !error.message.contains("canary"),
                "{error}"
            );
        }
    }

    #[test]
    fn offsets_may_be_numbers_and_checkpoints_anything() {
        let meta = |meta: Value| sync(json!({"meta": meta}));
        assert_eq!(meta(json!({"offset": 3})).unwrap().offset.as_deref(), Some("3"));
        assert_eq!(meta(json!({"offset": true})).unwrap_err().code, "malformed_offset");
        assert_eq!(meta(json!({"offset": ["3"]})).unwrap_err().code, "malformed_offset");
        let checkpoint = |value| meta(json!({"synchronization_checkpoint": value})).unwrap().checkpoint;
        assert_eq!(checkpoint(json!(17)).as_deref(), Some("17"));
        assert_eq!(checkpoint(json!({"a": 1})).as_deref(), Some(r#"{"a":1}"#));
    }

    #[test]
    fn context_is_any_json() {
        for context in [
            json!(0),
            json!(false),
            json!(""),
            json!([]),
            json!({"run": "r", "page": 2}),
        ] {
            assert_eq!(
                sync(json!({"meta": {"context": context.clone()}})).unwrap().context,
                Some(context)
            );
        }
    }

    #[test]
    fn bodies_that_are_no_object_are_refused_without_repeating_them() {
        for body in [
            "",
            "null",
            "[]",
            "\"canary\"",
            "{\"auth\": {\"password\": \"canary\"",
            "\u{0}canary",
        ] {
            let error = SyncRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, "malformed_json", "{body}");
            assert!(!error.message.contains("canary"), "{error}");
        }
        assert_eq!(sync(json!({"auth": "canary"})).unwrap_err().code, "malformed_auth");
        assert_eq!(sync(json!({"meta": ["canary"]})).unwrap_err().code, "malformed_meta");
        let deep = format!("{}{}", "{\"a\":".repeat(500), "1");
        assert_eq!(SyncRequest::parse(deep.as_bytes()).unwrap_err().code, "malformed_json");
        assert!(SyncRequest::parse("\u{feff}{}".as_bytes()).is_ok());
    }

    #[test]
    fn agent_offsets_are_integers_or_numeric_text() {
        let parse = |body: Value| AgentRequest::parse(body.to_string().as_bytes()).map(|request| request.offset);
        assert_eq!(parse(json!({})), Ok(None));
        assert_eq!(parse(json!({"meta": {"offset": null}})), Ok(None));
        assert_eq!(parse(json!({"meta": {"offset": 100}})), Ok(Some(100)));
        assert_eq!(parse(json!({"meta": {"offset": "100"}})), Ok(Some(100)));
        for wrong in [json!(-1), json!(1.5), json!("x"), json!({})] {
            assert_eq!(
                parse(json!({"meta": {"offset": wrong}})).unwrap_err().code,
                "malformed_offset"
            );
        }
    }

    #[test]
    fn debug_shows_names_of_fields_only() {
        let request = AuthRequest::parse(br#"{"auth": {"token": "canary"}, "meta": 3}"#).unwrap();
        let debug = format!("{request:?}");
        assert!(debug.contains("token") && !debug.contains("canary"), "{debug}");
    }
}
