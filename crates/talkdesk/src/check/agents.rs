//! Agent sync (Talkdesk agent sync).

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use url::Url;

use super::Check;
use super::call::{Ask, Stop};
use super::rules::{
    AGENTS_ANSWERS, AGENTS_ARRAY, AGENTS_CREDENTIALS, AGENTS_EMAILS, AGENTS_FIELDS, AGENTS_FIRST, AGENTS_LAST,
    AGENTS_META_ABSENT, AGENTS_OFFSET, AGENTS_PAGING, AGENTS_UNIQUE, Rule,
};
use super::shape::{kind, quoted};

/// Agents by id, as far as they have one, and how the list goes on.
struct AgentPage {
    ids: Vec<String>,
    next: Option<i64>,
}

/// What has come so far: each id once, and whose each email is.
#[derive(Default)]
struct Known {
    ids: HashSet<String>,
    emails: HashMap<String, String>,
}

impl Check {
    pub(super) async fn agents(&mut self, url: &Url) -> Result<(), Stop> {
        let first = self.agent_list(url).await?;
        if let Some(first) = first {
            for (rule, what, body) in [
                (&AGENTS_FIRST, "without an offset", json!({"meta": {}})),
                (&AGENTS_META_ABSENT, "without `meta`", json!({})),
            ] {
                self.same_agents(url, &first, rule, what, body).await?;
            }
        }
        self.refuses_wrong(url, &json!({"meta": {"offset": null}}), &AGENTS_CREDENTIALS)
            .await?;
        Ok(())
    }

    /// The whole list; the ids of its first page, if there is one.
    async fn agent_list(&mut self, url: &Url) -> Result<Option<Vec<String>>, Stop> {
        let limits = self.plan.limits.clone();
        let mut known = Known::default();
        let (mut first, mut offset, mut used, mut idle) = (None, None, HashSet::new(), 0);
        for number in 1..=limits.patience.pages {
            let place = format!("agents, page {number}");
            let body = json!({"auth": self.auth, "meta": {"offset": offset}});
            let answer = self.ask(url, &Ask::json(&body), &place).await?;
            let Some(json) = answer.json.as_ref().filter(|_| answer.is_success()) else {
                self.findings
                    .add(&AGENTS_ANSWERS, format!("{place}: {}", answer.told()));
                return Ok(first);
            };
            let Some(page) = self.agent_page(json, &place) else {
                return Ok(first);
            };
            let news = self.new_agents(json, &mut known, &place);
            idle = if news { 0 } else { idle + 1 };
            first.get_or_insert(page.ids);
            let Some(next) = page.next else {
                return Ok(first);
            };
            if !used.insert(next) || Some(next) == offset {
                self.findings
                    .add(&AGENTS_PAGING, format!("{place}: offset {next} was used before"));
                return Ok(first);
            }
            if idle >= limits.idle_pages {
                let seen = format!("{place}: no new agent on {idle} pages in a row (--idle-pages)");
                self.findings.add(&AGENTS_PAGING, seen);
                return Ok(first);
            }
            offset = Some(next);
        }
        let limit = limits.patience.pages;
        Err(Stop::Unfit(format!(
            "the list did not end within {limit} pages (--pages)"
        )))
    }

    fn agent_page(&mut self, json: &Value, place: &str) -> Option<AgentPage> {
        let Some(agents) = json.get("agents").and_then(Value::as_array) else {
            let seen = format!("{place}: {}", kind(json.get("agents")));
            self.findings.add(&AGENTS_ARRAY, seen);
            return None;
        };
        let next = match json.get("next_offset") {
            None => None,
            Some(Value::Null) => {
                self.findings.add(&AGENTS_LAST, format!("{place}: null"));
                None
            }
            Some(value) => {
                if value.as_i64().is_none() {
                    self.findings
                        .add(&AGENTS_OFFSET, format!("{place}: {}", kind(Some(value))));
                }
                // An integer's text is as good to go on with.
                let text = value.as_str().and_then(|text| text.parse().ok());
                value.as_i64().or(text)
            }
        };
        let ids = agents.iter().filter_map(|agent| agent.get("id"));
        let ids = ids.filter_map(Value::as_str).map(str::to_owned).collect();
        Some(AgentPage { ids, next })
    }

    /// Looks at a page's agents; whether any of them is new.
    fn new_agents(&mut self, json: &Value, known: &mut Known, place: &str) -> bool {
        let mut news = false;
        let agents = json.get("agents").and_then(Value::as_array).into_iter().flatten();
        for (index, agent) in agents.enumerate() {
            let place = format!("{place}, agent {}", index + 1);
            if !agent.is_object() {
                self.findings
                    .add(&AGENTS_ARRAY, format!("{place}: {}", kind(Some(agent))));
                continue;
            }
            for key in ["id", "name", "email"] {
                let value = agent.get(key);
                if value.and_then(Value::as_str).is_none_or(|text| text.trim().is_empty()) {
                    self.findings
                        .add(&AGENTS_FIELDS, format!("{place}: `{key}` is {}", kind(value)));
                }
            }
            let Some(id) = agent.get("id").and_then(Value::as_str) else {
                continue;
            };
            if known.ids.insert(id.to_owned()) {
                news = true;
            } else {
                self.findings
                    .add(&AGENTS_UNIQUE, format!("{place}: id {} again", quoted(id)));
            }
            let email = agent.get("email").and_then(Value::as_str).unwrap_or_default();
            let email = email.trim().to_lowercase();
            if !email.is_empty() {
                let owner = known.emails.entry(email).or_insert_with(|| id.to_owned());
                if owner != id {
                    let (one, two) = (quoted(owner), quoted(id));
                    self.findings
                        .add(&AGENTS_EMAILS, format!("{place}: {one} and {two} have the same"));
                }
            }
        }
        news
    }

    async fn same_agents(
        &mut self,
        url: &Url,
        first: &[String],
        rule: &'static Rule,
        what: &str,
        mut body: Value,
    ) -> Result<(), Stop> {
        body["auth"] = self.auth.clone().into();
        let answer = self.ask(url, &Ask::json(&body), what).await?;
        let agents = answer.json.as_ref().and_then(|json| json.get("agents"));
        let Some(agents) = agents.and_then(Value::as_array).filter(|_| answer.is_success()) else {
            self.findings.add(rule, format!("{what}: {}", answer.told()));
            return Ok(());
        };
        let ids: HashSet<&str> = agents.iter().filter_map(|agent| agent.get("id")?.as_str()).collect();
        if let Some(id) = first.iter().find(|id| !ids.contains(id.as_str())) {
            self.findings
                .add(rule, format!("{what}: lacks agent {} of page 1", quoted(id)));
        }
        Ok(())
    }
}
