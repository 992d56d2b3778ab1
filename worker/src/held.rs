//! What operators have paused for everybody, as this process last read it: asked between pages, so it must cost no call.

use std::sync::RwLock;
use std::time::Duration;

use contacts::holds::{self, Holds, Scope};
use contacts::work::Pause;
use contacts::{Lane, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::deps::Deps;

/// Time between two reads: a running slice stops within it and the page in hand.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Held(RwLock<Holds>);

impl Held {
    /// What holds work of a connector in a lane back.
    pub fn by(&self, connector: &str, lane: Lane) -> Option<(Scope, Pause)> {
        let holds = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        holds.of(connector, lane).map(|(scope, pause)| (scope, pause.clone()))
    }

    pub fn is_empty(&self) -> bool {
        let holds = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        holds.is_empty()
    }

    pub async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        let now = holds::load(store).await?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
        Ok(())
    }
}

/// Keeps what is held up to date. Returns once it was read for the first time, so that no job of a paused connector is
/// begun after a restart.
pub(crate) async fn watch(deps: &Deps, stop: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
    while let Err(error) = deps.held.refresh(&*deps.store).await {
        tracing::warn!(%error, "what is paused cannot be read; no job is taken until then");
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    let deps = deps.clone();
    Some(tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = deps.held.refresh(&*deps.store).await {
                tracing::debug!(%error, "what is paused could not be read again");
            }
        }
    }))
}
