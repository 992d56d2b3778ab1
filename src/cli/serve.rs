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
    let _telling = tell(&settings)?;
    std::fs::create_dir_all(&data)
        .map_err(|error| anyhow::Error::from(error).context(format!("the folder {} cannot be made", data.display())))?;
    let _lock = FolderLock::take(&data).map_err(anyhow::Error::from)?;
    role(settings, Defaults::Embedded(data), &folder, Role::Both).await
}

pub async fn distributed(config: Option<&Path>, which: Role) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let _telling = tell(&settings)?;
    role(settings, Defaults::Distributed, &folder, which).await
}

/// Log lines, and traces where they are set. What is returned sends the last spans when it is dropped.
fn tell(settings: &process::Settings) -> Result<Telling, Failure> {
    let log = &settings.log;
    #[cfg(feature = "otel")]
    if let Some(endpoint) = &settings.telemetry.otlp_endpoint {
        let version = env!("CARGO_PKG_VERSION");
        let traces =
            process::otel::Traces::start(&settings.telemetry, endpoint, version).map_err(anyhow::Error::from)?;
        telemetry::init_with_traces(log.format, &log.level, &traces).map_err(anyhow::Error::from)?;
        worker::trace::install(worker::trace::Tracer {
            current: process::otel::current,
            adopt: process::otel::adopt,
            link: process::otel::link,
        });
        return Ok(Telling(Some(traces)));
    }
    #[cfg(not(feature = "otel"))]
    if settings.telemetry.otlp_endpoint.is_some() {
        let why = "telemetry.otlp_endpoint is set, and this build sends no traces; build it with `--features otel`";
        return Err(Failure::Usage(vec![why.to_owned()]));
    }
    telemetry::init_logs(log.format, &log.level).map_err(anyhow::Error::from)?;
    Ok(Telling::default())
}

#[derive(Default)]
struct Telling(#[cfg(feature = "otel")] Option<process::otel::Traces>);

#[cfg(feature = "otel")]
impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(traces) = &self.0 {
            traces.end();
        }
    }
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
