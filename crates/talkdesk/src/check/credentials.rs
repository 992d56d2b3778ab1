//! Credentials that a bridge must refuse.

use serde_json::{Map, Value, json};
use url::Url;

use super::Check;
use super::call::{Answer, Ask, Stop};
use super::rules::{CREDENTIALS_MISSING, CREDENTIALS_STATUS, CREDENTIALS_WRONG, ERROR_MESSAGE, Rule};
use super::sync::{Meta, Walk};
use crate::wire::Auth;

/// Whether a field of this name holds a secret.
pub(super) fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "pass", "pin", "pwd", "secret", "token"]
        .iter()
        .any(|word| name.contains(word))
}

/// The credentials with `given` in the place of theirs; where nothing is given, with every field altered that looks
/// secret, or else with every field. `None`: they would be the same.
pub(super) fn wrong(auth: &Auth, given: &Auth) -> Option<Map<String, Value>> {
    let any_secret = auth.keys().any(|name| looks_secret(name));
    let mut wrong = Map::new();
    for (name, value) in auth.iter() {
        let alter = given.is_empty() && (looks_secret(name) || !any_secret);
        let value = if alter { altered(value) } else { value.clone() };
        wrong.insert(name.clone(), value.into());
    }
    wrong.extend(given.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    let same = wrong.len() == auth.len() && auth.iter().all(|(name, value)| wrong[name] == *value);
    (!same).then_some(wrong)
}

/// The same length and kind, but for the last character.
fn altered(value: &str) -> String {
    let mut altered = value.to_owned();
    let last = altered.pop();
    altered.push(if last == Some('1') { '2' } else { '1' });
    altered
}

impl Check {
    pub(super) async fn contact_credentials(&mut self, reference: &Walk) -> Result<(), Stop> {
        let url = self.plan.url.clone();
        if let Some(wrong) = self.wrong.clone() {
            for (what, meta) in situations(reference) {
                let body = json!({"auth": wrong, "meta": meta.json()});
                let answer = self.ask_refusal(&url, &Ask::json(&body)).await?;
                self.wrong_answer(&answer, &format!("wrong credentials, {what}"));
            }
        }
        if self.auth.is_empty() {
            let why = "there are no credentials (--auth)";
            self.findings.skip("wrong and missing credentials", why);
            return Ok(());
        }
        for (what, body) in [
            ("no `auth`", json!({"meta": {}})),
            ("a null `auth`", json!({"auth": null, "meta": {}})),
            ("an empty `auth`", json!({"auth": {}, "meta": {}})),
        ] {
            let answer = self.ask_refusal(&url, &Ask::json(&body)).await?;
            if answer.is_success() {
                self.findings
                    .add(&CREDENTIALS_MISSING, format!("{what}: {}", delivered(&answer)));
            }
        }
        Ok(())
    }

    fn wrong_answer(&mut self, answer: &Answer, place: &str) {
        if answer.is_success() {
            self.findings
                .add(&CREDENTIALS_WRONG, format!("{place}: {}", delivered(answer)));
            return;
        }
        // 429: refused before they were looked at.
        if !matches!(answer.status, 401 | 429) {
            self.findings
                .add(&CREDENTIALS_STATUS, format!("{place}: {}", answer.told()));
        }
        if !answer.has_message() {
            self.findings.add(&ERROR_MESSAGE, format!("{place}: {}", answer.told()));
        }
    }

    /// Sends wrong credentials to another endpoint; success breaks `rule`. The answer, if there are such credentials.
    pub(super) async fn refuses_wrong(
        &mut self,
        url: &Url,
        more: &Value,
        rule: &'static Rule,
    ) -> Result<Option<Answer>, Stop> {
        let Some(wrong) = self.wrong.clone() else {
            return Ok(None);
        };
        let mut body = more.clone();
        body["auth"] = wrong.into();
        let answer = self.ask_refusal(url, &Ask::json(&body)).await?;
        if answer.is_success() {
            self.findings.add(rule, format!("wrong credentials: {}", answer.told()));
        }
        Ok(Some(answer))
    }
}

/// One request for each situation of the contract, as far as the bridge has shown what to ask for.
fn situations(reference: &Walk) -> Vec<(&'static str, Meta)> {
    let offset = reference.pages.iter().find_map(|page| page.next.clone());
    let checkpoint = reference.last_checkpoint().map(str::to_owned);
    let meta = |checkpoint: Option<&String>, offset: Option<&String>| Meta {
        checkpoint: checkpoint.cloned(),
        offset: offset.cloned(),
        context: None,
    };
    let (c, o) = (checkpoint.as_ref(), offset.as_ref());
    let mut all = vec![("initial sync", meta(None, None))];
    if o.is_some() {
        all.push(("initial sync, page 2", meta(None, o)));
    }
    if c.is_some() {
        all.push(("next run", meta(c, None)));
    }
    if c.is_some() && o.is_some() {
        all.push(("next run, page 2", meta(c, o)));
    }
    all
}

fn delivered(answer: &Answer) -> String {
    let contacts = answer.json.as_ref().and_then(|json| json.get("contacts"));
    let count = contacts.and_then(Value::as_array).map_or(0, Vec::len);
    format!("{} with {count} contacts", answer.told())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(fields: &[(&str, &str)]) -> Auth {
        fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn secrets_are_altered_or_everything_or_what_is_given() {
        let made =
            |fields: &[(&str, &str)], given: &[(&str, &str)]| wrong(&auth(fields), &auth(given)).map(Value::from);
        let account = [("account", "acme"), ("api_token", "t-1")];
        assert_eq!(
            made(&account, &[]),
            Some(json!({"account": "acme", "api_token": "t-2"}))
        );
        assert_eq!(
            made(&[("user", "u"), ("site", "")], &[]),
            Some(json!({"user": "1", "site": "1"}))
        );
        assert_eq!(
            made(&account, &[("api_token", "no"), ("more", "x")]),
            Some(json!({"account": "acme", "api_token": "no", "more": "x"}))
        );
        assert_eq!(made(&account, &[("account", "acme")]), None);
        assert_eq!(made(&[], &[]), None);
    }
}
