//! The checker as a command.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use indicatif::ProgressBar;
use url::Url;

use super::{Limits, Plan, RULES, Report, Rule, Severity, Verdict, check, rule};
use crate::player::{self, AuthField, Patience, client, fields};

/// Arguments of the checker.
#[derive(Clone, Debug, clap::Args)]
pub struct Cli {
    /// Contact sync URL of any bridge, such as http://127.0.0.1:8080/acme/contact_sync
    #[arg(required_unless_present = "list_rules")]
    pub url: Option<Url>,

    /// Field of `auth`; repeat for more. KEY=@FILE takes the value from a file
    #[arg(long = "auth", value_name = "KEY=VALUE")]
    pub auth: Vec<AuthField>,

    /// Field that makes `auth` wrong; repeat for more [default: fields that look secret, altered]
    #[arg(long = "wrong", value_name = "KEY=VALUE")]
    pub wrong: Vec<AuthField>,

    /// Auth validation URL; what it returns goes along in `auth`, as Talkdesk does it
    #[arg(long, value_name = "URL")]
    pub validate: Option<Url>,

    /// Agent sync URL
    #[arg(long, value_name = "URL")]
    pub agents: Option<Url>,

    /// Interaction retrieval URL
    #[arg(long, value_name = "URL")]
    pub interactions: Option<Url>,

    /// Type of interactions to ask for; repeat for more [default: all]
    #[arg(long = "interaction-type", value_name = "TYPE")]
    pub interaction_types: Vec<String>,

    /// URL of an action. Without --write it is only sent what must be refused
    #[arg(long, value_name = "URL")]
    pub action: Option<Url>,

    /// Executes the action, once
    #[arg(long, requires = "action")]
    pub write: bool,

    /// Input of the action; repeat for more
    #[arg(long = "data", value_name = "KEY=VALUE", requires = "write")]
    pub data: Vec<AuthField>,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Warnings fail too (exit code 1)
    #[arg(long)]
    pub strict: bool,

    /// Rule that is no finding; repeat for more
    #[arg(long, value_name = "RULE", value_parser = known_rule)]
    pub ignore: Vec<&'static str>,

    /// Print the rules and check nothing
    #[arg(long)]
    pub list_rules: bool,

    #[command(flatten)]
    pub bounds: Bounds,
}

/// Limits, as options.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Bounds {
    /// Seconds the whole check may take
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
    pub time_limit: u64,

    /// Requests of the whole check
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,

    /// Seconds one answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub page_timeout: u64,

    /// Attempts per request while the bridge is busy or away
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,

    /// Longest pause, in seconds, that the bridge may ask for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub longest_pause: u64,

    /// Bytes of one answer
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub body_limit: usize,

    /// Pages of one run
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub pages: u64,

    /// Empty pages in a row that say "more to come"
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pub empty_pages: u64,

    /// Pages in a row without a new contact
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_pages: u64,

    /// Pages from whose checkpoint a run is made, spread evenly
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub starts: usize,

    /// Contacts that may come again from a checkpoint, as they share its moment
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub ties: usize,

    /// Bytes of the body that must be refused
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub oversize: usize,

    /// Seconds from which on an answer is slow
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub slow: u64,

    /// Contacts whose interactions are asked for
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub samples: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Fields(#[from] player::CliError),
    #[error("a URL must begin with http:// or https://")]
    Url,
    #[error("no HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("the report cannot be printed")]
    Print(#[source] io::Error),
}

/// Checks one bridge and prints the report on stdout.
pub async fn run(cli: Cli) -> Result<Verdict, CliError> {
    let Some(url) = cli.url.clone().filter(|_| !cli.list_rules) else {
        print(cli.json, &RULES, rules_text)?;
        return Ok(Verdict::Passed);
    };
    let (json, strict) = (cli.json, cli.strict);
    let plan = plan(cli, url)?;
    let http = client(&plan.url).map_err(CliError::Client)?;
    // On stderr, and only where that is a terminal.
    let spinner = ProgressBar::new_spinner().with_message("checking");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let report = check(plan, http).await;
    spinner.finish_and_clear();
    print(json, &report, Report::text)?;
    Ok(report.verdict(strict))
}

fn plan(cli: Cli, url: Url) -> Result<Plan, CliError> {
    let plan = Plan {
        url,
        auth: fields("--auth", &cli.auth)?,
        wrong: fields("--wrong", &cli.wrong)?,
        validate: cli.validate,
        agents: cli.agents,
        interactions: cli.interactions,
        interaction_types: cli.interaction_types,
        action: cli.action,
        data: fields("--data", &cli.data)?.0,
        write: cli.write,
        ignore: cli.ignore.into_iter().collect::<BTreeSet<_>>(),
        limits: Limits::from(cli.bounds),
    };
    if plan.urls().all(|url| matches!(url.scheme(), "http" | "https")) {
        Ok(plan)
    } else {
        Err(CliError::Url)
    }
}

impl From<Bounds> for Limits {
    fn from(bounds: Bounds) -> Self {
        Self {
            patience: Patience {
                attempts: bounds.attempts,
                longest_pause: Duration::from_secs(bounds.longest_pause),
                page_timeout: Duration::from_secs(bounds.page_timeout),
                empty_pages: bounds.empty_pages,
                pages: bounds.pages,
                body_limit: bounds.body_limit,
                ..Patience::default()
            },
            time: Duration::from_secs(bounds.time_limit),
            calls: bounds.calls,
            idle_pages: bounds.idle_pages,
            starts: bounds.starts,
            ties: bounds.ties,
            oversize: bounds.oversize,
            slow: Duration::from_secs(bounds.slow),
            samples: bounds.samples,
        }
    }
}

fn known_rule(id: &str) -> Result<&'static str, String> {
    match rule(id) {
        Some(rule) => Ok(rule.id),
        None => Err("there is no such rule; --list-rules prints them".into()),
    }
}

fn print<T: serde::Serialize>(json: bool, what: &T, text: impl Fn(&T) -> String) -> Result<(), CliError> {
    let text = if json {
        serde_json::to_string_pretty(what).map_err(|error| CliError::Print(error.into()))? + "\n"
    } else {
        text(what)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has gone (`| head`) has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Print(error)),
        _ => Ok(()),
    }
}

fn rules_text(rules: &&[&Rule]) -> String {
    rules
        .iter()
        .map(|rule| {
            let severity = match rule.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            format!(
                "{severity:<8} {} ({})\n         {}\n",
                rule.id, rule.source, rule.description
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        cli: Cli,
    }

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Line::try_parse_from([&["check"], arguments].concat()).map(|line| line.cli)
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        Line::command().debug_assert();
        let cli = parse(&["http://localhost/contact_sync", "--auth", "token=canary"]).unwrap();
        assert!(!format!("{cli:?}").contains("canary"));
        let given = Limits::from(cli.bounds);
        assert_eq!(format!("{given:?}"), format!("{:?}", Limits::default()));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        const URL: &str = "http://localhost/contact_sync";
        assert!(parse(&[]).is_err() && parse(&["--list-rules"]).is_ok());
        assert!(parse(&[URL, "--ignore", "no.such"]).is_err() && parse(&[URL, "--ignore", "page.last"]).is_ok());
        assert!(parse(&[URL, "--write"]).is_err(), "there is nothing to write to");
        assert!(parse(&[URL, "--starts", "0"]).is_err(), "a check of nothing");
        assert!(
            parse(&[URL, "--action", URL, "--data", "a=b"]).is_err(),
            "dry runs send no input"
        );
        let made = |arguments: &[&str]| {
            let cli = parse(&[&[URL], arguments].concat()).unwrap();
            let url = cli.url.clone().unwrap();
            plan(cli, url).map_err(|error| error.to_string())
        };
        assert_eq!(
            made(&["--agents", "file:///etc/passwd"]).unwrap_err(),
            CliError::Url.to_string()
        );
        let error = made(&["--wrong", "canary"]).unwrap_err();
        assert!(
            error.starts_with("--wrong number 1") && !error.contains("canary"),
            "{error}"
        );
    }

    #[test]
    fn the_rules_can_be_listed() {
        let text = rules_text(&RULES);
        assert_eq!(text.lines().count(), 2 * RULES.len());
        assert!(text.starts_with("error    http.https ("), "{text}");
    }
}
