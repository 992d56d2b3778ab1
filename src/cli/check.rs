//! `config check`, `talkdesk urls`, `talkdesk check`.

use std::path::Path;
use std::sync::Arc;

use contacts::SystemClock;
use process::settings::Settings;
use store::MemoryStore;
use talkdesk::check::Verdict;

use super::{Failure, USAGE, print, settings};
use crate::integrations::Integrations;
use crate::tls::Tls;

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
