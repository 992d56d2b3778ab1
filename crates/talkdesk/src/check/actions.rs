//! Actions (Talkdesk action execution). Without `write`, only what must be refused is sent, and never an input.

use serde_json::json;
use url::Url;

use super::Check;
use super::call::{Answer, Ask, Stop};
use super::rules::{
    ACTION_ANSWER, ACTION_CONTACT_URL, ACTION_CREDENTIALS, ACTION_MALFORMED, ACTION_MESSAGE, ACTION_SUCCESS,
    ACTION_UNKNOWN,
};
use super::shape::kind;

const NO_SUCH_ACTION: &str = "snapbridge_check_no_such_action";

impl Check {
    pub(super) async fn action(&mut self, url: &Url) -> Result<(), Stop> {
        for (what, body) in [
            ("an empty body", ""),
            ("half a JSON object", "{\"auth\": {"),
            ("a JSON array", "[]"),
            ("`auth` that is a number", "{\"auth\": 7, \"data\": {}, \"meta\": {}}"),
        ] {
            let answer = self.ask_refusal(url, &Ask::raw(body)).await?;
            if answer.is_success() {
                self.findings
                    .add(&ACTION_MALFORMED, format!("{what}: {}", answer.told()));
            }
        }
        let nothing = json!({"data": {}, "meta": {}});
        let refused = self.refuses_wrong(url, &nothing, &ACTION_CREDENTIALS).await?;
        if let Some(refused) = refused.filter(|answer| answer.is_refusal() && !answer.has_message()) {
            let seen = format!("wrong credentials: {}", refused.told());
            self.findings.add(&ACTION_MESSAGE, seen);
        }
        self.unknown_action(url).await?;
        if self.plan.write {
            self.execute(url).await?;
        }
        Ok(())
    }

    async fn unknown_action(&mut self, url: &Url) -> Result<(), Stop> {
        let mut other = url.clone();
        if let Ok(mut path) = other.path_segments_mut() {
            path.pop_if_empty().pop().push(NO_SUCH_ACTION);
        }
        let body = json!({"auth": self.auth, "data": {}, "meta": {}});
        let answer = self.ask_refusal(&other, &Ask::json(&body)).await?;
        if answer.is_success() {
            self.findings
                .add(&ACTION_UNKNOWN, format!("{NO_SUCH_ACTION}: {}", answer.told()));
        }
        Ok(())
    }

    /// Once only: an action that failed on the way may have been executed.
    async fn execute(&mut self, url: &Url) -> Result<(), Stop> {
        let body = json!({"auth": self.auth, "data": self.plan.data, "meta": {}});
        match self.caller.try_once(url, &Ask::json(&body)).await? {
            Ok(answer) if answer.status == 201 => self.action_answer(&answer),
            Ok(answer) => self.findings.add(&ACTION_SUCCESS, answer.told()),
            Err(error) => {
                let why = crate::player::chain(&error);
                return Err(Stop::Unfit(format!(
                    "no answer to the action, which may have been executed: {why}"
                )));
            }
        }
        Ok(())
    }

    fn action_answer(&mut self, answer: &Answer) {
        let Some(json) = &answer.json else {
            if !answer.is_empty {
                self.findings.add(&ACTION_ANSWER, answer.told());
            }
            return;
        };
        for key in [
            "message",
            "external_id",
            "contact_external_id",
            "contact_external_type",
            "contact_external_url",
        ] {
            if let Some(value) = json.get(key).filter(|value| !value.is_string()) {
                self.findings
                    .add(&ACTION_ANSWER, format!("`{key}` is {}", kind(Some(value))));
            }
        }
        let has = |key: &str| json.get(key).is_some_and(|value| !value.is_null() && value != "");
        if has("contact_external_id") && !has("contact_external_url") {
            self.findings
                .add(&ACTION_CONTACT_URL, "it has a `contact_external_id` alone");
        }
    }
}
