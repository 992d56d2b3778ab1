//! `migrate`, `status`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use contacts::queue::Depths;
use contacts::{Clock, Store, SystemClock};
use jobs::rabbitmq::State;
use process::settings::Settings;
use store::StepState;

use super::{Failure, print, settings};
use crate::wiring::{Defaults, rabbit_settings, redis_settings};

pub async fn migrate(config: Option<&Path>, dry_run: bool, status: bool) -> Result<(), Failure> {
    let (settings, _) = settings(config)?;
    let defaults = Defaults::Distributed;
    let url = defaults.store(&settings)?;
    let only_look = dry_run || status;
    let steps = store::migrate(&url, &settings.store.namespace, only_look)
        .await
        .with_context(|| format!("the store at {url}"))?;
    for step in steps {
        let state = match step.state {
            StepState::Done => "done",
            StepState::Applied => "applied now",
            StepState::Pending => "to be done",
        };
        print(&format!(
            "store  {:>3} {state:<12} {}: {}",
            step.number, step.name, step.description
        ));
    }
    let queue_url = defaults.queue(&settings);
    if queue_url.starts_with("sqlite:") {
        print("queue  sqlite: makes itself when it is opened");
        return Ok(());
    }
    let reports = jobs::migrate(&queue_url, &settings.queue.namespace, only_look)
        .await
        .context("the queue")?;
    let mut differs = false;
    for report in reports {
        print(&format!("queue  {:>3} {report}", report.step));
        differs |= matches!(report.state, State::Differs(_));
    }
    if differs {
        let problem =
            anyhow::anyhow!("the queue is not laid out as recorded; move its jobs aside and delete what differs");
        return Err(problem.into());
    }
    Ok(())
}

pub async fn status(
    config: Option<&Path>,
    json: bool,
    data: PathBuf,
    accounts: usize,
    watch: Option<u64>,
) -> Result<(), Failure> {
    let (settings, _) = settings(config)?;
    let clock = Arc::new(SystemClock);
    let defaults = if settings.store.url.is_none() {
        Defaults::Embedded(data)
    } else {
        Defaults::Distributed
    };
    let read = || async {
        let (store, depths) = open(&settings, &defaults, clock.clone()).await?;
        let status = crate::status::read(&*store, depths, clock.now(), accounts)
            .await
            .context("the store")?;
        Ok::<_, Failure>(match json {
            true => serde_json::to_string(&status).context("the status")?,
            false => status.text(),
        })
    };
    match watch {
        Some(seconds) => super::ops::watch(Duration::from_secs(seconds), read).await,
        None => {
            print(&read().await?);
            Ok(())
        }
    }
}

/// The embedded store is opened for reading only, beside the process that uses it.
pub(super) async fn open(
    settings: &Settings,
    defaults: &Defaults,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Arc<dyn Store>, Option<Depths>)> {
    let url = defaults.store(settings)?;
    let store: Arc<dyn Store> = match &url {
        store::StoreUrl::Sqlite(dir) => Arc::new(
            store::SqliteStore::open_read_only(dir.clone())
                .await
                .with_context(|| format!("there is no readable store in {}", dir.display()))?,
        ),
        store::StoreUrl::Redis(_) => {
            store::connect(&url, &settings.store.namespace, redis_settings(settings), clock.clone())
                .await
                .with_context(|| format!("the store at {url}"))?
        }
    };
    let queue_url = defaults.queue(settings);
    let depths = match queue_url.strip_prefix("sqlite:") {
        Some(dir) => jobs::SqliteQueue::open_read_only(dir)
            .and_then(|queue| queue.depth(clock.now()))
            .ok(),
        None => {
            let queue = jobs::connect(&queue_url, &settings.queue.namespace, rabbit_settings(settings), clock).await?;
            tokio::time::timeout(Duration::from_secs(5), queue.depth())
                .await
                .ok()
                .and_then(Result::ok)
        }
    };
    Ok((store, depths))
}
