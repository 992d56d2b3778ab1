//! `connector check`, `connector list`, `config check`.

use std::path::Path;
use std::sync::Arc;

use contacts::SystemClock;
use crm::Connector;
use process::settings::Settings;
use store::MemoryStore;

use super::{Failure, print, settings};
use crate::integrations::{Integrations, connector_source, role_name};

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
    integrations(&settings, &folder)?;
    print(&settings.masked());
    Ok(())
}

/// Whether every integration of the settings could be run.
pub(super) fn integrations(settings: &Settings, folder: &Path) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new());
    let keys = crate::wiring::throwaway_keys()?;
    Integrations::load(settings, folder, store, keys, clock, "check".into()).map_err(Failure::Usage)?;
    Ok(())
}
