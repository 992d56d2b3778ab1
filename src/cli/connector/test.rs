//! `connector test`.

use std::path::PathBuf;
use std::time::Duration;

use crm::{Adjustments, AllowHosts};

use super::load;
use crate::cli::typed::{Typed, pairs};
use crate::cli::{Failure, print};
use crate::trial::{self, Plan};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of a shipped connector or path of a file
    #[arg(value_name = "ID|FILE")]
    connector: String,
    /// Field of `auth`, as Talkdesk would send it; repeat for more. KEY=@FILE takes the value from a file
    #[arg(long, value_name = "KEY=VALUE")]
    auth: Vec<Typed>,
    /// Field that an integration's settings would give; repeat for more
    #[arg(long, value_name = "KEY=VALUE")]
    connection: Vec<Typed>,
    /// Two-letter country code whose national phone numbers are assumed
    #[arg(long, value_name = "CC")]
    region: Option<String>,
    /// A host beside the connector's own, as in allow_hosts of an integration; repeat for more
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// Which contacts are wanted, as `filter` of an integration
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Expression in the place of the connector's for a field of a contact, as [map] of an integration; repeat for more
    #[arg(long, value_name = "FIELD=EXPRESSION")]
    map: Vec<Typed>,
    /// Further field to ask the CRM for, as `props` of an integration; repeat for more
    #[arg(long, value_name = "NAME")]
    prop: Vec<String>,
    /// Pages of contacts to read
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pages: u32,
    /// Longest time a call may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Writes the contacts into FILE, one JSON object per line, as Talkdesk would get them
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let auth = pairs("--auth", &args.auth, &mut problems).into_iter().collect();
    let fixed = pairs("--connection", &args.connection, &mut problems)
        .into_iter()
        .collect();
    let adjustments = Adjustments {
        map: pairs("--map", &args.map, &mut problems).into_iter().collect(),
        props: args.prop,
        filter: args.filter,
    };
    let allow = AllowHosts::parse(&args.allow_host).map_err(|error| problems.push(format!("--allow-host: {error}")));
    let loaded = load(&args.connector).map_err(|found| problems.extend(found));
    let (Ok(allow), Ok((mut connector, _)), true) = (allow, loaded, problems.is_empty()) else {
        return Err(Failure::Usage(problems));
    };
    connector.adjust(&adjustments).map_err(Failure::Usage)?;
    let plan = Plan {
        connector,
        auth,
        fixed,
        region: args.region,
        allow,
        pages: args.pages,
        call_timeout: Duration::from_secs(args.timeout),
    };
    plan.problems().map_err(Failure::Usage)?;
    let trial = trial::run(plan).await;
    if let Some(file) = &args.out {
        let written = std::fs::write(file, trial.json_lines());
        written.map_err(|error| anyhow::Error::new(error).context(format!("{} cannot be written", file.display())))?;
    }
    if args.json {
        print(&serde_json::to_string(&trial).map_err(anyhow::Error::from)?);
    } else {
        print(&trial.text());
    }
    match trial.error {
        None => Ok(()),
        Some(_) => Err(Failure::Told(1)),
    }
}
