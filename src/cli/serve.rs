//! `up`, `serve`, `worker`.

use std::path::{Path, PathBuf};

use process::lock::FolderLock;
use process::telemetry::{self, Metrics};
use tokio_util::sync::CancellationToken;

use super::{Failure, settings};
use crate::starting::Starting;
use crate::wiring::{self, Defaults, Listeners, Parts, Role};

pub async fn up(config: Option<&Path>, data: PathBuf) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    if settings.integrations.is_empty() {
        return Err(Failure::Usage(vec![
            "no integration is configured. Put one into snapbridge.toml, say\n\n    [integrations.crm]\n    connector = \"odoo\"\n\n\
             `snapbridge config reference` prints every setting; `snapbridge demo` needs none"
                .into(),
        ]));
    }
    telemetry::init_logs(settings.log.format, &settings.log.level).map_err(anyhow::Error::from)?;
    std::fs::create_dir_all(&data)
        .map_err(|error| anyhow::Error::from(error).context(format!("the folder {} cannot be made", data.display())))?;
    let _lock = FolderLock::take(&data).map_err(anyhow::Error::from)?;
    role(settings, Defaults::Embedded(data), &folder, Role::Both).await
}

pub async fn distributed(config: Option<&Path>, which: Role) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    telemetry::init_logs(settings.log.format, &settings.log.level).map_err(anyhow::Error::from)?;
    role(settings, Defaults::Distributed, &folder, which).await
}

async fn role(settings: process::Settings, defaults: Defaults, folder: &Path, which: Role) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    process::stop::on_signals(stop.clone()).map_err(anyhow::Error::from)?;
    let metrics = Metrics::install().map_err(anyhow::Error::from)?;
    let listeners = Listeners::bind(&settings, which, folder).await?;
    let starting = Starting::serve(&listeners, &settings, which).map_err(anyhow::Error::from)?;
    let parts = wiring::until_ready(|| Parts::build(settings.clone(), &defaults, folder), &stop).await;
    starting.end().await;
    let Some(parts) = parts? else { return Ok(()) };
    Ok(wiring::run(parts, which, listeners, metrics, stop).await?)
}
