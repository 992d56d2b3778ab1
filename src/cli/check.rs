//! `connector check`, `connector list`, `config check`, `talkdesk check`.

use std::path::Path;
use std::sync::Arc;

use contacts::SystemClock;
use crm::Connector;
use process::settings::Settings;
use store::MemoryStore;
use talkdesk::check::Verdict;

use super::{Failure, USAGE, print, settings};
use crate::integrations::{Integrations, connector_source, role_name};
use crate::tls::Tls;

pub fn connectors(names: &[String]) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for name in names {
        let (source, file) = match connector_source(name, Path::new("")) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match Connector::load(&source, &file) {
            Ok(connector) => print(&summary(&connector, &file)),
            Err(found) => problems.extend(found.iter().map(ToString::to_string)),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Usage(problems))
    }
}

fn summary(connector: &Connector, file: &str) -> String {
    let deletions = connector.deletions();
    let yes = |name: &'static str, has: bool| has.then_some(name);
    let can: Vec<&str> = [
        yes("full pass", true),
        yes("change pass", connector.has_changes()),
        yes("fetch by id", connector.has_get_many()),
        yes("deletions by flag", deletions.flag),
        yes("deletions by list", deletions.list),
        yes("reconcile by ids", deletions.ids),
        yes("agents", connector.has_agents()),
        yes("webhooks", connector.webhook().is_some()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let fields: Vec<String> = connector
        .fields()
        .iter()
        .map(|(name, field)| format!("{name} ({})", role_name(field.role)))
        .collect();
    format!(
        "{file}: ok\n  {} ({})\n  can: {}\n  fields: {}",
        connector.title(),
        connector.id(),
        can.join(", "),
        fields.join(", ")
    )
}

pub fn list() -> Result<(), Failure> {
    for id in Connector::shipped_ids() {
        let source = Connector::shipped(id).unwrap_or_default();
        let connector = Connector::load(source, id)
            .map_err(|problems| Failure::Usage(problems.iter().map(ToString::to_string).collect()))?;
        print(&format!("{id:<12} {}", connector.title()));
    }
    Ok(())
}

/// Loads everything that can be loaded without a store: settings, connectors, hosts.
pub async fn config(config: Option<&Path>) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let mut problems = match loaded(&settings, &folder) {
        Ok(_) => Vec::new(),
        Err(Failure::Usage(problems)) => problems,
        Err(failure) => return Err(failure),
    };
    if let Err(error) = Tls::load(&settings, &folder).await {
        problems.push(process::chain(error.as_ref()));
    }
    if !problems.is_empty() {
        return Err(Failure::Usage(problems));
    }
    print(&settings.masked());
    Ok(())
}

/// What Talkdesk's integration configuration wants to know of each integration.
pub fn urls(config: Option<&Path>) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let Some(base) = crate::urls::base(&settings) else {
        let problem = "http.public_url is not set: it is the URL under which Talkdesk reaches this bridge";
        return Err(Failure::Usage(vec![problem.to_owned()]));
    };
    let integrations = loaded(&settings, &folder)?;
    for integration in integrations.iter() {
        print(&format!("[{}]", integration.name));
        for (name, url) in crate::urls::of(&base, integration) {
            print(&format!("  {name:<34} {url}"));
        }
    }
    Ok(())
}

/// Whether every integration of the settings could be run.
pub(super) fn loaded(settings: &Settings, folder: &Path) -> Result<Integrations, Failure> {
    let store = Arc::new(MemoryStore::new());
    let keys = crate::wiring::throwaway_keys()?;
    Integrations::load(settings, folder, store, keys, Arc::new(SystemClock), "check".into()).map_err(Failure::Usage)
}

/// A report speaks for itself, whatever it says.
pub async fn bridge(args: talkdesk::check::Cli) -> Result<(), Failure> {
    match talkdesk::check::run(args).await {
        Ok(Verdict::Passed) => Ok(()),
        Ok(Verdict::Failed) => Err(Failure::Told(1)),
        Ok(Verdict::CouldNotRun) => Err(Failure::Told(USAGE)),
        Err(error) => Err(Failure::Usage(vec![process::chain(&error)])),
    }
}
