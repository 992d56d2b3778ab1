//! The checker: plays Talkdesk against any bridge and says which rules of the contract it breaks.
//!
//! Order, checkpoints and offsets are opaque from outside, so what is tested is their meaning: whatever page a run is
//! broken off at, the next one delivers the rest, and little else (Talkdesk contact sync, steps 4 to 6). A CRM changes
//! under the check: what looks like a loss or a repeat counts only if a second look, with fresh data, sees it too.

mod actions;
mod agents;
mod call;
mod cli;
mod credentials;
mod forms;
mod http;
mod interactions;
mod meaning;
mod report;
mod rules;
mod runs;
mod shape;
mod sync;
#[cfg(test)]
mod tests;
mod validation;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Map, Value};
use url::Url;

pub use cli::{Cli, CliError, run};
pub use report::{Finding, NotChecked, Report, Verdict};
pub use rules::{RULES, Rule, Severity, rule};

use crate::player::{Patience, is_local};
use crate::wire::Auth;
use call::{Answer, Ask, Caller, Stop};
use report::Findings;
use rules::{CONTENT_TYPE, HTTPS, SLOW};

/// What is checked, with which credentials.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The contact sync endpoint.
    pub url: Url,
    /// Credentials that the bridge accepts.
    pub auth: Auth,
    /// Fields that make them wrong; where empty, those that look secret are altered.
    pub wrong: Auth,
    pub validate: Option<Url>,
    pub agents: Option<Url>,
    pub interactions: Option<Url>,
    /// Types to ask interactions of; where empty, all.
    pub interaction_types: Vec<String>,
    pub action: Option<Url>,
    /// Inputs of the action, sent with `write` only.
    pub data: BTreeMap<String, String>,
    /// Execute the action once. Without it, it is only sent what must be refused.
    pub write: bool,
    /// Ids of rules that are no finding.
    pub ignore: BTreeSet<&'static str>,
    pub limits: Limits,
}

/// How far a check goes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of single requests and runs, as the player has it.
    pub patience: Patience,
    /// Time of the whole check.
    pub time: Duration,
    /// Requests of the whole check.
    pub calls: u64,
    /// Pages in a row without a new contact before a run counts as endless.
    pub idle_pages: u64,
    /// Pages of the initial sync from whose checkpoints a run is made, spread evenly.
    pub starts: usize,
    /// Contacts delivered last that may come again from a checkpoint: those of its own moment, or of an overlap.
    pub ties: usize,
    /// Bytes of a body that must be refused.
    pub oversize: usize,
    /// Time after which an answer counts as slow.
    pub slow: Duration,
    /// Contacts whose interactions are asked for.
    pub samples: usize,
}

impl Plan {
    fn urls(&self) -> impl Iterator<Item = &Url> {
        let others = [&self.validate, &self.agents, &self.interactions, &self.action];
        [&self.url].into_iter().chain(others.into_iter().flatten())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Patience {
                attempts: 4,
                longest_pause: Duration::from_secs(60),
                // A bridge that holds each for 15 s may build for ten minutes.
                empty_pages: 40,
                pages: 1_000,
                body_limit: 16 << 20,
                ..Patience::default()
            },
            time: Duration::from_secs(15 * 60),
            calls: 10_000,
            idle_pages: 20,
            starts: 10,
            ties: 1_000,
            oversize: 4 << 20,
            // What proxies commonly allow.
            slow: Duration::from_secs(30),
            samples: 5,
        }
    }
}

/// Checks one bridge. `http`: [`crate::player::client`] makes a fitting one.
pub async fn check(plan: Plan, http: Client) -> Report {
    let bridge = address(&plan.url);
    let mut check = Check::new(plan, http);
    // What is final has been told among the others.
    let _ = check.everything().await;
    let (calls, spent) = (check.caller.calls(), check.caller.spent());
    let could_not_run = (!check.stopped.is_empty()).then(|| check.stopped.join("; "));
    Report {
        bridge,
        could_not_run,
        contacts: check.contacts,
        pages: check.pages,
        calls,
        total_ms: u64::try_from(spent.as_millis()).unwrap_or(u64::MAX),
        ..check.findings.into_report()
    }
}

struct Check {
    plan: Plan,
    auth: Map<String, Value>,
    /// `None` where there is nothing to be wrong in.
    wrong: Option<Map<String, Value>>,
    caller: Caller,
    findings: Findings,
    stopped: Vec<String>,
    /// Contacts of the first run, to ask interactions of.
    samples: Vec<Value>,
    contacts: u64,
    pages: u64,
}

impl Check {
    fn new(plan: Plan, http: Client) -> Self {
        let auth: Map<String, Value> = plan
            .auth
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let wrong = credentials::wrong(&plan.auth, &plan.wrong);
        let findings = Findings::new(plan.ignore.clone(), secrets(&plan, wrong.as_ref()));
        Self {
            auth,
            wrong,
            caller: Caller::new(http, plan.limits.clone()),
            findings,
            stopped: Vec::new(),
            samples: Vec::new(),
            contacts: 0,
            pages: 0,
            plan,
        }
    }

    async fn everything(&mut self) -> Result<(), Stop> {
        self.https();
        if let Some(url) = self.plan.validate.clone() {
            let result = self.validation(&url).await;
            self.go_on("auth validation", result)?;
        }
        let result = self.contact_sync().await;
        self.go_on("contact sync", result)?;
        if let Some(url) = self.plan.agents.clone() {
            let result = self.agents(&url).await;
            self.go_on("agent sync", result)?;
        }
        if let Some(url) = self.plan.interactions.clone() {
            let result = self.interactions(&url).await;
            self.go_on("interactions", result)?;
        }
        if let Some(url) = self.plan.action.clone() {
            let result = self.action(&url).await;
            self.go_on("action", result)?;
        }
        Ok(())
    }

    async fn contact_sync(&mut self) -> Result<(), Stop> {
        let walk = self.reference().await?;
        self.meaning(&walk).await?;
        self.forms(&walk).await?;
        self.http().await?;
        self.contact_credentials(&walk).await
    }

    /// Another endpoint may still be checked where one could not.
    fn go_on(&mut self, what: &str, result: Result<(), Stop>) -> Result<(), Stop> {
        let Err(stop) = result else { return Ok(()) };
        let told = self.findings.plain(&format!("{what}: {stop}"));
        self.stopped.push(told);
        if stop.is_final() { Err(stop) } else { Ok(()) }
    }

    fn https(&mut self) {
        let plain = |url: &&Url| url.scheme() == "http" && !is_local(url);
        let hosts: BTreeSet<String> = self.plan.urls().filter(plain).map(address).collect();
        for host in hosts {
            self.findings.add(&HTTPS, format!("plain http is used with {host}"));
        }
    }

    /// Sends what should be answered with success, and looks at what all answers have in common.
    async fn ask(&mut self, url: &Url, ask: &Ask, place: &str) -> Result<Answer, Stop> {
        let answer = self.caller.ask(url, ask).await?;
        if answer.is_success() && answer.json.is_some() {
            let name = answer.content_type.as_deref().unwrap_or("no Content-Type");
            let essence = name.split(';').next().unwrap_or_default().trim();
            if !essence.eq_ignore_ascii_case("application/json") {
                self.findings.add(&CONTENT_TYPE, format!("{place}: {name}"));
            }
        }
        if answer.time >= self.plan.limits.slow {
            let seconds = answer.time.as_secs_f64();
            self.findings.add(&SLOW, format!("{place}: {seconds:.1} s"));
        }
        Ok(answer)
    }

    /// Sends what should be refused: a broken connection is tried again, a busy answer is an answer.
    async fn ask_refusal(&mut self, url: &Url, ask: &Ask) -> Result<Answer, Stop> {
        match self.caller.try_once(url, ask).await? {
            Ok(answer) => Ok(answer),
            Err(_) => self.caller.ask(url, ask).await,
        }
    }
}

/// Host and port: the rest of a URL may hold secrets.
fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// What a bridge could repeat and we must not.
fn secrets(plan: &Plan, wrong: Option<&Map<String, Value>>) -> Vec<String> {
    let values = plan.auth.iter().chain(plan.wrong.iter());
    let mut secrets: Vec<String> = values
        .filter(|(name, value)| credentials::looks_secret(name) || value.len() > 3)
        .map(|(_, value)| value.clone())
        .collect();
    let altered = wrong.into_iter().flat_map(Map::values).filter_map(Value::as_str);
    secrets.extend(altered.filter(|value| value.len() > 3).map(str::to_owned));
    for url in plan.urls() {
        // A path secret, as a bridge would name it in "nothing at …" or alone.
        secrets.push(url.path().to_owned());
        secrets.extend(
            url.path_segments()
                .into_iter()
                .flatten()
                .map(str::to_owned)
                .filter(|part| part.len() > 15),
        );
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.extend(url.password().map(str::to_owned));
    }
    secrets.retain(|secret| secret.len() > 1);
    // The longest first: one may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}
