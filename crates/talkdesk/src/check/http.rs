//! What any endpoint should do with requests that are none (recommendations).

use serde_json::{Value, json};

use super::Check;
use super::call::{Ask, Stop};
use super::rules::{CREDENTIALS_MISSING, ERROR_MESSAGE, MALFORMED, METHOD, OVERSIZE};

impl Check {
    pub(super) async fn http(&mut self) -> Result<(), Stop> {
        self.method().await?;
        self.malformed().await?;
        self.oversize().await
    }

    async fn method(&mut self) -> Result<(), Stop> {
        let url = self.plan.url.clone();
        let answer = self.ask_refusal(&url, &Ask::get()).await?;
        let allows = |allow: &str| {
            allow
                .split(',')
                .any(|method| method.trim().eq_ignore_ascii_case("POST"))
        };
        if answer.status != 405 {
            self.findings.add(&METHOD, format!("GET: {}", answer.told()));
        } else if !answer.allow.as_deref().is_some_and(allows) {
            self.findings.add(&METHOD, "GET: answered 405 without Allow: POST");
        }
        let contacts = answer.json.as_ref().and_then(|json| json.get("contacts"));
        if contacts
            .and_then(Value::as_array)
            .is_some_and(|contacts| !contacts.is_empty())
        {
            self.findings
                .add(&CREDENTIALS_MISSING, "GET, without credentials: it shows contacts");
        }
        Ok(())
    }

    async fn malformed(&mut self) -> Result<(), Stop> {
        let url = self.plan.url.clone();
        let auth = &self.auth;
        let bodies = [
            ("an empty body", String::new()),
            ("half a JSON object", "{\"auth\": {".to_owned()),
            ("a JSON array", "[]".to_owned()),
            ("`auth` that is a number", json!({"auth": 7, "meta": {}}).to_string()),
            ("`meta` that is a number", json!({"auth": auth, "meta": 7}).to_string()),
            (
                "an offset that is an object",
                json!({"auth": auth, "meta": {"offset": {}}}).to_string(),
            ),
        ];
        for (what, body) in bodies {
            let answer = self.ask_refusal(&url, &Ask::raw(body)).await?;
            if !answer.is_refusal() {
                self.findings.add(&MALFORMED, format!("{what}: {}", answer.told()));
            } else if !answer.has_message() {
                self.findings.add(&ERROR_MESSAGE, format!("{what}: {}", answer.told()));
            }
        }
        Ok(())
    }

    async fn oversize(&mut self) -> Result<(), Stop> {
        let url = self.plan.url.clone();
        let size = self.plan.limits.oversize;
        let mut body = self.body(&json!({}));
        body["snapbridge_check"] = "x".repeat(size).into();
        // A server may refuse by hanging up before it has read everything.
        let Ok(answer) = self.caller.try_once(&url, &Ask::json(&body)).await? else {
            return Ok(());
        };
        if !answer.is_refusal() {
            self.findings
                .add(&OVERSIZE, format!("a body of {size} bytes: {}", answer.told()));
        }
        Ok(())
    }
}
