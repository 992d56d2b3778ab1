//! What the demo says.

use std::time::Duration;

use fake_crm::Stats;
use serde::Serialize;
use talkdesk::player::RunSummary;

use super::compare::Copy;
use super::operations::Operations;

/// Tells the story on stdout; with `--json` on stderr, so that stdout holds the summary last.
pub struct Narrator {
    json: bool,
}

/// The summary. `page_ms` figures are those of pages that held contacts.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Contacts Talkdesk's side holds (those deleted at the CRM stay there: the contract has no deletion).
    pub contacts: usize,
    /// Living contacts of the CRM that it lacks or holds in an older version.
    pub missing: usize,
    pub pages: u64,
    pub empty_pages: u64,
    pub page_ms_p50: f64,
    pub page_ms_p99: f64,
    /// Time spent waiting for contacts that the CRM's limit had not let through yet.
    pub wait_ms: u64,
    /// From the edits to the newest version on Talkdesk's side.
    pub edits_ms: u64,
    pub runs: usize,
    pub crm_calls: u64,
    pub crm_calls_over_limit: u64,
    pub webhooks_delivered: u64,
    pub operations: Operations,
    /// Agents that an agent sync delivered.
    pub agents: usize,
    /// Those that are missing, too many, or not as the CRM has them.
    pub agents_wrong: usize,
}

impl Narrator {
    pub fn new(json: bool) -> Narrator {
        Narrator { json }
    }

    pub fn is_quiet(&self) -> bool {
        self.json
    }

    #[expect(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "the demo tells its story to whoever started it"
    )]
    pub fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    pub fn step(&self, text: &str) {
        self.say(&format!("\n{text}"));
    }

    #[expect(clippy::print_stdout, reason = "the summary is what --json asks for")]
    pub fn result(&self, report: &Report) {
        println!("{}", serde_json::to_string(report).unwrap_or_default());
    }
}

impl Report {
    pub fn new(
        runs: &[RunSummary],
        copy: &Copy,
        difference: Option<usize>,
        crm: &Stats,
        edits: Duration,
        operations: Operations,
    ) -> Report {
        let first = runs.first();
        Report {
            contacts: copy.len(),
            missing: difference.unwrap_or(0),
            pages: runs.iter().map(|run| run.pages).sum(),
            empty_pages: runs.iter().map(|run| run.empty_pages).sum(),
            page_ms_p50: first.map_or(0.0, |run| run.page_ms.p50),
            page_ms_p99: first.map_or(0.0, |run| run.page_ms.p99),
            wait_ms: runs.iter().map(|run| run.wait_ms).sum(),
            edits_ms: u64::try_from(edits.as_millis()).unwrap_or(u64::MAX),
            runs: runs.len(),
            crm_calls: crm.counted,
            crm_calls_over_limit: crm.over_limit,
            webhooks_delivered: crm.webhooks.delivered,
            operations,
            agents: 0,
            agents_wrong: 0,
        }
    }

    pub fn is_good(&self) -> bool {
        self.missing == 0 && self.agents > 0 && self.agents_wrong == 0 && self.operations.is_good()
    }

    pub fn text(&self) -> String {
        let verdict = match self.missing {
            0 => "Talkdesk's side holds every contact of the CRM, each in its newest version.".to_owned(),
            missing => format!("{missing} contacts are missing or out of date on Talkdesk's side."),
        };
        let wrong = match self.agents_wrong {
            0 => String::new(),
            wrong => format!(", and {wrong} of the list are not as the CRM has them"),
        };
        format!(
            "\n{verdict}\n\
             \x20 contacts at Talkdesk  {}\n\
             \x20 pages                 {} (half within {:.1} ms, 99 % within {:.1} ms)\n\
             \x20 calls to the CRM      {}, of which over its limit: {}\n\
             \x20 webhooks delivered    {}\n\
             \x20 edit → Talkdesk       {:.1} s\n\
             \x20 agents at Talkdesk    {}{wrong}\n\
             \x20 an agent's actions    {}",
            self.contacts,
            self.pages,
            self.page_ms_p50,
            self.page_ms_p99,
            self.crm_calls,
            self.crm_calls_over_limit,
            self.webhooks_delivered,
            self.edits_ms as f64 / 1e3,
            self.agents,
            self.operations,
        )
    }
}
