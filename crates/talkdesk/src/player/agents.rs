//! Agent sync, played: every run is the whole list (Talkdesk agent sync).

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use url::Url;

use super::cli::{AuthField, CliError, fields};
use super::run::Tally;
use super::{PlayError, Player, client};
use crate::wire::Agent;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsRun {
    /// In the order of delivery. One may come twice, if it changed meanwhile: the later one counts.
    pub agents: Vec<Agent>,
    pub pages: u64,
}

/// The offset is null on the first page, as in the contract's sample.
#[derive(Serialize)]
struct Meta {
    offset: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    agents: Vec<Agent>,
    #[serde(default)]
    next_offset: Option<u64>,
}

impl Player {
    /// Plays one run against an agent sync URL.
    pub async fn agents(&mut self) -> Result<AgentsRun, PlayError> {
        let mut tally = Tally::default();
        let mut run = AgentsRun::default();
        let mut meta = Meta { offset: None };
        loop {
            let limit = self.patience.pages;
            if run.pages >= limit {
                return Err(PlayError::EndlessPages { limit });
            }
            let (body, _) = self.page(&meta, &mut tally).await?;
            run.pages += 1;
            tally.progress.pages = run.pages;
            // The error's own text could repeat what stands there.
            let page: Page = serde_json::from_slice(&body).map_err(|error| PlayError::Garbage {
                page: run.pages,
                why: format!("line {}, column {}", error.line(), error.column()),
            })?;
            run.agents.extend(page.agents);
            let Some(next) = page.next_offset else {
                return Ok(run);
            };
            if meta.offset.is_some_and(|before| before >= next) {
                return Err(PlayError::StuckOffset { page: run.pages });
            }
            meta.offset = Some(next);
        }
    }
}

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentsCli {
    /// Agent sync URL of any bridge, such as http://127.0.0.1:8080/acme/agent_sync
    pub url: Url,

    /// Field of `auth`; repeat for more. KEY=@FILE takes the value from a file
    #[arg(long = "auth", value_name = "KEY=VALUE")]
    pub auth: Vec<AuthField>,
}

/// Plays one run and prints every agent on stdout, one JSON object per line.
pub async fn run_agents(cli: AgentsCli) -> Result<(), CliError> {
    if !matches!(cli.url.scheme(), "http" | "https") {
        return Err(CliError::Url);
    }
    let auth = fields("--auth", &cli.auth)?;
    let http = client(&cli.url).map_err(CliError::Client)?;
    let run = Player::new(cli.url, auth, http)
        .agents()
        .await
        .map_err(CliError::Play)?;
    print(&run).map_err(CliError::Print)
}

fn print(run: &AgentsRun) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for agent in &run.agents {
        serde_json::to_writer(&mut out, agent)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
