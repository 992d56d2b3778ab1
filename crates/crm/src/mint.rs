//! Minted access tokens: one call to a token endpoint for any number of callers. Within a process the callers of one
//! token queue up behind a lock; between processes the token lies in a keep, and who finds none there takes turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::minted::{Minted, Vault};
use contacts::ports::{Scratch, StoreResult};
use contacts::{Clock, ErrorKind, Micros, StoreError};
use parking_lot::Mutex;
use secrecy::SecretString;

use crate::error::{CrmError, CrmResult};

/// Where minted tokens lie between processes.
#[async_trait]
pub trait TokenKeep: Send + Sync {
    async fn load(&self, key: &str, now: Micros) -> StoreResult<Option<Minted>>;
    async fn keep(&self, key: &str, minted: &Minted, now: Micros) -> StoreResult<()>;
    async fn forget(&self, key: &str) -> StoreResult<()>;
    /// Whether it is the caller's turn to ask for the next token.
    async fn claim(&self, key: &str, life: Duration, now: Micros) -> StoreResult<bool>;
    async fn release(&self, key: &str) -> StoreResult<()>;
}

#[async_trait]
impl<S: Scratch + ?Sized> TokenKeep for Vault<S> {
    async fn load(&self, key: &str, now: Micros) -> StoreResult<Option<Minted>> {
        Vault::load(self, key, now).await
    }

    async fn keep(&self, key: &str, minted: &Minted, now: Micros) -> StoreResult<()> {
        Vault::keep(self, key, minted, now).await
    }

    async fn forget(&self, key: &str) -> StoreResult<()> {
        Vault::forget(self, key).await
    }

    async fn claim(&self, key: &str, life: Duration, now: Micros) -> StoreResult<bool> {
        Vault::claim(self, key, life, now).await
    }

    async fn release(&self, key: &str) -> StoreResult<()> {
        Vault::release(self, key).await
    }
}

/// How often a process whose turn it is not looks for the other's token.
const LOOK: Duration = Duration::from_millis(100);
/// Tokens held in memory; beyond this those that are over go.
const CELLS: usize = 5_000;

type Cell = Arc<tokio::sync::Mutex<Option<Minted>>>;

/// The tokens of a process. All clients of the process share one.
pub struct Mint {
    keep: Option<Arc<dyn TokenKeep>>,
    clock: Arc<dyn Clock>,
    /// How long the process whose turn it is may take before others go on without it.
    turn: Duration,
    cells: Mutex<HashMap<String, Cell>>,
}

/// A token to be used.
pub(crate) struct Token {
    pub token: SecretString,
    /// It was minted for this caller, just now: if the CRM refuses it, another one would not do better.
    pub fresh: bool,
}

impl Mint {
    /// `turn`: the longest a token call may take.
    pub fn new(keep: Arc<dyn TokenKeep>, clock: Arc<dyn Clock>, turn: Duration) -> Mint {
        Mint {
            keep: Some(keep),
            clock,
            turn,
            cells: Mutex::default(),
        }
    }

    /// Tokens stay in this process: for trying a connector out by hand.
    pub fn alone(clock: Arc<dyn Clock>) -> Mint {
        Mint {
            keep: None,
            clock,
            turn: Duration::ZERO,
            cells: Mutex::default(),
        }
    }

    fn cell(&self, key: &str) -> Cell {
        let mut cells = self.cells.lock();
        if cells.len() >= CELLS && !cells.contains_key(key) {
            let now = self.clock.now();
            cells.retain(|_, cell| {
                let used = Arc::strong_count(cell) > 1;
                used || cell
                    .try_lock()
                    .is_ok_and(|held| held.as_ref().is_some_and(|minted| minted.is_good(now)))
            });
        }
        cells.entry(key.to_owned()).or_default().clone()
    }

    /// The token of `key`: the one in use, or the one that `mint` asks for.
    pub(crate) async fn token<F: Future<Output = CrmResult<Minted>>>(
        &self,
        key: &str,
        mint: impl FnOnce() -> F,
    ) -> CrmResult<Token> {
        let cell = self.cell(key);
        let mut held = cell.lock().await;
        if let Some(minted) = held.as_ref().filter(|minted| minted.is_good(self.clock.now())) {
            return Ok(known(minted));
        }
        *held = None;
        let Some(keep) = &self.keep else {
            let minted = mint().await?;
            return Ok(fresh(held.insert(minted)));
        };
        if let Some(minted) = self.await_turn(&**keep, key).await? {
            return Ok(known(held.insert(minted)));
        }
        let minted = mint().await;
        if let Ok(minted) = &minted
            && let Err(error) = keep.keep(key, minted, self.clock.now()).await
        {
            tracing::debug!(%error, "a minted token could not be kept; other processes mint their own");
        }
        if let Err(error) = keep.release(key).await {
            tracing::debug!(%error, "the turn to mint a token ends by itself");
        }
        Ok(fresh(held.insert(minted?)))
    }

    /// The token that another process has minted; or `None`: it is the caller's turn.
    async fn await_turn(&self, keep: &dyn TokenKeep, key: &str) -> CrmResult<Option<Minted>> {
        let give_up = self.clock.now().plus(self.turn);
        loop {
            let now = self.clock.now();
            if let Some(minted) = keep.load(key, now).await.map_err(store_down)? {
                return Ok(Some(minted));
            }
            if now >= give_up || keep.claim(key, self.turn, now).await.map_err(store_down)? {
                // The other one may have kept its token between the look and the claim.
                return keep.load(key, now).await.map_err(store_down);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The CRM refused `token`. One that was minted since is left alone.
    pub(crate) async fn drop_token(&self, key: &str, token: &SecretString) -> CrmResult<()> {
        let cell = self.cell(key);
        let mut held = cell.lock().await;
        if held.as_ref().is_some_and(|minted| minted.is(token)) {
            *held = None;
        }
        let Some(keep) = &self.keep else { return Ok(()) };
        let kept = keep.load(key, self.clock.now()).await.map_err(store_down)?;
        if kept.is_some_and(|minted| minted.is(token)) {
            keep.forget(key).await.map_err(store_down)?;
        }
        Ok(())
    }
}

fn known(minted: &Minted) -> Token {
    Token {
        token: minted.token.clone(),
        fresh: false,
    }
}

fn fresh(minted: &Minted) -> Token {
    Token {
        token: minted.token.clone(),
        fresh: true,
    }
}

fn store_down(error: StoreError) -> CrmError {
    CrmError::because(
        ErrorKind::StoreDown,
        "the store that keeps minted tokens is out of reach, so none is minted",
        error,
    )
}
