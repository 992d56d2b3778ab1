//! Interactions of a contact (Talkdesk interaction retrieval).

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Value, json};
use url::Url;

use super::Check;
use super::call::{Answer, Ask, Stop};
use super::rules::{
    INTERACTIONS_ANSWERS, INTERACTIONS_ARRAY, INTERACTIONS_CREDENTIALS, INTERACTIONS_DATE, INTERACTIONS_FIELDS,
    INTERACTIONS_OPTIONAL, INTERACTIONS_STRANGER, INTERACTIONS_TYPE, INTERACTIONS_UNIQUE, INTERACTIONS_UNKNOWN,
};
use super::shape::{kind, quoted};

const PRIORITIES: [&str; 5] = ["none", "low", "normal", "high", "urgent"];
const STATUSES: [&str; 5] = ["new", "open", "pending", "solved", "closed"];

impl Check {
    pub(super) async fn interactions(&mut self, url: &Url) -> Result<(), Stop> {
        if self.samples.is_empty() {
            self.findings.skip("interactions of contacts", "no contact is known");
        }
        for contact in self.samples.clone() {
            let id = contact.get("id").and_then(Value::as_str).unwrap_or_default();
            let place = format!("contact {}", quoted(id));
            let body = self.interactions_body(&json!({
                "contact_external_id": id,
                "contact_name": contact.get("name"),
                "contact_emails": contact.get("emails").cloned().unwrap_or(json!([])),
                "contact_phones": contact.get("phones").cloned().unwrap_or(json!([])),
            }));
            let answer = self.ask(url, &Ask::json(&body), &place).await?;
            match answer.json.as_ref().filter(|_| answer.is_success()) {
                Some(json) => self.interaction_list(json, &place),
                None => self
                    .findings
                    .add(&INTERACTIONS_ANSWERS, format!("{place}: {}", answer.told())),
            }
        }
        self.unknown_contact(url).await?;
        let data = json!({"contact_external_id": first_id(&self.samples)});
        let body = self.interactions_body(&data);
        self.refuses_wrong(url, &body, &INTERACTIONS_CREDENTIALS).await?;
        Ok(())
    }

    fn interactions_body(&self, data: &Value) -> Value {
        json!({"auth": self.auth, "meta": {"interaction_types": self.plan.interaction_types}, "data": data})
    }

    async fn unknown_contact(&mut self, url: &Url) -> Result<(), Stop> {
        // A reserved domain (RFC 2606) and a number kept for fiction: nobody has them.
        let body = self.interactions_body(&json!({
            "contact_external_id": "snapbridge-check-nobody",
            "contact_name": "Nobody Of That Name",
            "contact_emails": ["nobody@snapbridge-check.invalid"],
            "contact_phones": ["+12025550123"],
        }));
        let answer = self.ask(url, &Ask::json(&body), "unknown contact").await?;
        match found(&answer) {
            Some(0) if answer.status == 200 => {}
            Some(count) if count > 0 => {
                self.findings
                    .add(&INTERACTIONS_STRANGER, format!("unknown contact: {count} interactions"));
            }
            _ => self
                .findings
                .add(&INTERACTIONS_UNKNOWN, format!("unknown contact: {}", answer.told())),
        }
        Ok(())
    }

    fn interaction_list(&mut self, json: &Value, place: &str) {
        let Some(list) = json.as_array() else {
            self.findings
                .add(&INTERACTIONS_ARRAY, format!("{place}: {}", kind(Some(json))));
            return;
        };
        let mut ids = HashSet::new();
        for (index, interaction) in list.iter().enumerate() {
            let place = format!("{place}, interaction {}", index + 1);
            if !interaction.is_object() {
                self.findings
                    .add(&INTERACTIONS_ARRAY, format!("{place}: {}", kind(Some(interaction))));
                continue;
            }
            if let Some(id) = interaction.get("id").and_then(Value::as_str)
                && !ids.insert(id)
            {
                self.findings
                    .add(&INTERACTIONS_UNIQUE, format!("{place}: id {} again", quoted(id)));
            }
            self.interaction_fields(interaction, &place);
        }
    }

    fn interaction_fields(&mut self, interaction: &Value, place: &str) {
        let text = |key: &str| interaction.get(key).and_then(Value::as_str);
        for key in ["id", "subject", "date", "type"] {
            if text(key).is_none_or(|text| text.trim().is_empty()) {
                let seen = format!("{place}: `{key}` is {}", kind(interaction.get(key)));
                self.findings.add(&INTERACTIONS_FIELDS, seen);
            }
        }
        for key in ["description", "url", "priority", "status"] {
            let known: &[&str] = match key {
                "priority" => &PRIORITIES,
                "status" => &STATUSES,
                _ => &[],
            };
            let fits = match interaction.get(key) {
                None => true,
                Some(value) => value
                    .as_str()
                    .is_some_and(|text| known.is_empty() || known.contains(&text)),
            };
            if !fits {
                let seen = format!("{place}: `{key}` is {}", kind(interaction.get(key)));
                self.findings.add(&INTERACTIONS_OPTIONAL, seen);
            }
        }
        let types = &self.plan.interaction_types;
        if let Some(given) = text("type").filter(|text| !text.trim().is_empty())
            && !types.is_empty()
            && !types.iter().any(|asked| asked.eq_ignore_ascii_case(given))
        {
            self.findings
                .add(&INTERACTIONS_TYPE, format!("{place}: {}", quoted(given)));
        }
        if text("date").is_some_and(|date| !date.trim().is_empty() && !is_date(date)) {
            self.findings.add(&INTERACTIONS_DATE, format!("{place}: another form"));
        }
    }
}

/// How many interactions an answer holds; `None`: it is no list.
fn found(answer: &Answer) -> Option<usize> {
    let list = answer.json.as_ref().filter(|_| answer.is_success())?.as_array()?;
    Some(list.len())
}

fn first_id(contacts: &[Value]) -> Option<&str> {
    contacts.first()?.get("id")?.as_str()
}

fn is_date(text: &str) -> bool {
    let sample = text.strip_suffix(" UTC").map(str::parse::<DateTime>);
    sample.is_some_and(|date| date.is_ok()) || text.parse::<Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_two_forms() {
        for date in [
            "2012-11-21 17:53:51 UTC",
            "2012-11-21T17:53:51Z",
            "2012-11-21T17:53:51.5+02:00",
        ] {
            assert!(is_date(date), "{date}");
        }
        for other in [
            "",
            "UTC",
            "21.11.2012",
            "2012-11-21 17:53:51",
            "1353520431",
            "2012-13-21 17:53:51 UTC",
        ] {
            assert!(!is_date(other), "{other}");
        }
    }
}
