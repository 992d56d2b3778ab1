//! `connector check`, `connector test`, `connector new`, `connector list`, `connector schema`.

mod new;
mod test;

use std::path::Path;

use crm::Connector;
use serde::Serialize;

use super::{Failure, print};
use crate::integrations::{connector_source, renewals, role_name};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Checks connector files: every problem at once, with file and line
    Check {
        /// Ids of shipped connectors or paths of files
        #[arg(required = true, value_name = "ID|FILE")]
        connectors: Vec<String>,
    },
    /// Tries a connector against a CRM: credentials, then the first contacts as Talkdesk would get them
    ///
    /// Reads only. Says which requests were made, what they cost of each limit, and what was repaired or dropped. Nothing
    /// is stored. Exit code 1: the CRM refused, or could not be understood.
    Test(Box<test::Args>),
    /// Writes a commented file to start a new connector from
    New(new::Args),
    /// Lists the shipped connectors and what they can
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of connector files, for editors
    Schema,
}

/// Drawn from the reader of connector files by a test of the crate `crm`.
const SCHEMA: &str = include_str!("../../connectors/connector.schema.json");

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { connectors } => check(&connectors),
        Command::Test(args) => test::run(*args).await,
        Command::New(args) => new::run(&args),
        Command::List { json } => list(json),
        Command::Schema => {
            print(SCHEMA);
            Ok(())
        }
    }
}

/// A connector by its id or file, or what is wrong with it.
fn load(name: &str) -> Result<(Connector, String), Vec<String>> {
    let (source, file) = connector_source(name, Path::new("")).map_err(|problem| vec![problem])?;
    let connector = Connector::load(&source, &file)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok((connector, file))
}

fn check(names: &[String]) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for name in names {
        match load(name) {
            Ok((connector, file)) => print(&summary(&connector, &file)),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Usage(problems))
    }
}

fn summary(connector: &Connector, file: &str) -> String {
    let fields: Vec<String> = connector
        .fields()
        .iter()
        .map(|(name, field)| format!("{name} ({})", role_name(field.role)))
        .collect();
    let mut text = format!(
        "{file}: ok\n  {} ({})\n  can: {}\n  fields: {}",
        connector.title(),
        connector.id(),
        abilities(connector).join(", "),
        fields.join(", ")
    );
    let steps = connector.webhook().map(|hooks| hooks.manual_steps().to_vec());
    let lines = renewals(connector)
        .into_iter()
        .map(|sentence| ("renew", sentence))
        .chain(steps.into_iter().flatten().map(|step| ("webhook by hand", step)));
    for (what, line) in lines {
        text.push_str(&format!("\n  {what}: {line}"));
    }
    text
}

/// What a connector can do, in the words of the format's reference.
fn abilities(connector: &Connector) -> Vec<String> {
    let deletions = connector.deletions();
    let yes = |name: &str, has: bool| has.then(|| name.to_owned());
    let mut can: Vec<String> = [
        yes("full pass", true),
        yes("change pass", connector.has_changes()),
        yes("fetch by id", connector.has_get_many()),
        yes("deletions by flag", deletions.flag),
        yes("deletions by list", deletions.list),
        yes("reconcile by ids", deletions.ids),
        yes("agents", connector.has_agents()),
        yes(
            "webhooks (asked for)",
            connector.webhook().is_some_and(|hooks| hooks.can_subscribe()),
        ),
        yes(
            "webhooks (by hand)",
            connector.webhook().is_some_and(|hooks| !hooks.can_subscribe()),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let named = |what: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{what} ({})", names.join(", ")));
    can.extend(named("interactions", connector.interaction_types().collect()));
    can.extend(named("actions", connector.actions().collect()));
    can
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    title: &'a str,
    can: Vec<String>,
    /// Fields of `auth` that Talkdesk collects.
    auth: Vec<&'a str>,
    /// Fields that the settings of an integration give.
    connection: Vec<&'a str>,
    /// What a person does at the CRM for its webhook.
    webhook_steps: &'a [String],
    /// Fields whose values end at the CRM, one sentence each.
    renewals: Vec<String>,
}

fn list(json: bool) -> Result<(), Failure> {
    let mut connectors = Vec::new();
    for id in Connector::shipped_ids() {
        connectors.push(load(id).map_err(Failure::Usage)?.0);
    }
    let rows: Vec<Listed<'_>> = connectors.iter().map(listed).collect();
    if json {
        print(&serde_json::to_string(&rows).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    for row in rows {
        print(&format!(
            "{:<12} {}\n{:<12} {}",
            row.id,
            row.title,
            "",
            row.can.join(", ")
        ));
    }
    Ok(())
}

fn listed(connector: &Connector) -> Listed<'_> {
    let from = |source: crm::FieldSource| {
        let fields = connector.fields().iter();
        fields
            .filter(|(_, field)| field.source == source)
            .map(|(name, _)| name.as_str())
            .collect()
    };
    Listed {
        id: connector.id(),
        title: connector.title(),
        can: abilities(connector),
        auth: from(crm::FieldSource::Auth),
        connection: from(crm::FieldSource::Integration),
        webhook_steps: connector.webhook().map_or(&[], |hooks| hooks.manual_steps()),
        renewals: renewals(connector),
    }
}
