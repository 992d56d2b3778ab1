//! Auth validation (Talkdesk authorization validation).

use serde_json::{Value, json};
use url::Url;

use super::Check;
use super::call::{Ask, Stop};
use super::rules::{VALIDATE_ACCEPTS, VALIDATE_FIELDS, VALIDATE_REFUSES, VALIDATE_STATUS, VALIDATE_UNAUTHORIZED};
use super::shape::kind;

/// Words of an answer that are meant for people or programs, and would become credentials.
const DIAGNOSTICS: [&str; 9] = [
    "code",
    "error",
    "message",
    "ok",
    "result",
    "status",
    "success",
    "valid",
    "validated",
];

impl Check {
    /// Fields of the answer go along in `auth` from here on, as Talkdesk sends them.
    pub(super) async fn validation(&mut self, url: &Url) -> Result<(), Stop> {
        let ask = Ask::json(&json!({"auth": self.auth}));
        let answer = self.ask(url, &ask, "auth validation").await?;
        if !answer.is_success() {
            self.findings.add(&VALIDATE_ACCEPTS, answer.told());
        } else {
            if answer.status != 200 {
                self.findings
                    .add(&VALIDATE_STATUS, format!("answered {}", answer.status));
            }
            if !answer.is_empty {
                self.stored_fields(answer.json.as_ref());
            }
        }
        let refused = self.refuses_wrong(url, &json!({}), &VALIDATE_REFUSES).await?;
        if let Some(refused) = refused.filter(|answer| !answer.is_success() && !matches!(answer.status, 401 | 429)) {
            let seen = format!("wrong credentials: {}", refused.told());
            self.findings.add(&VALIDATE_UNAUTHORIZED, seen);
        }
        Ok(())
    }

    fn stored_fields(&mut self, json: Option<&Value>) {
        let Some(Value::Object(fields)) = json else {
            self.findings.add(&VALIDATE_FIELDS, "the body is not a JSON object");
            return;
        };
        for (name, value) in fields {
            if DIAGNOSTICS.contains(&name.to_ascii_lowercase().as_str()) {
                self.findings
                    .add(&VALIDATE_FIELDS, format!("`{name}` would be stored as a credential"));
            } else if value.is_array() || value.is_object() {
                self.findings
                    .add(&VALIDATE_FIELDS, format!("`{name}` is {}", kind(Some(value))));
            } else if !value.is_null() {
                if let Some(text) = value.as_str().filter(|text| text.len() > 3) {
                    self.findings.keep_secret(text);
                }
                self.auth.insert(name.clone(), value.clone());
                if let Some(wrong) = &mut self.wrong
                    && !wrong.contains_key(name)
                {
                    wrong.insert(name.clone(), value.clone());
                }
            }
        }
    }
}
