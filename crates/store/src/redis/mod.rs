//! The store on Redis 7 or newer. Truth that must outlive a crash needs an append-only file; `warnings` says when there
//! is none, and a server that evicts keys is refused.

mod commit;
mod documents;
mod error;
mod frame;
mod keys;
mod layout;
mod link;
mod lookups;
mod marks;
mod packed;
mod plan;
mod pool;
mod probe;
mod snapshots;
mod target;

use std::sync::Arc;
use std::time::Duration;

use contacts::StoreError;
use redis::{Client, Script};
use tokio::task::AbortHandle;

use crate::layout::StepReport;
use error::failed;
use keys::Keys;
use link::Link;
use pool::Pool;

pub use target::RedisTarget;

/// Limits in time. Pages, commits, other reads and other writes have connections of their own, so that a slow script delays
/// no page, and a page nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub ping_every: Duration,
    /// Pings in a row without an answer until a connection is replaced.
    pub ping_misses: u32,
}

impl Default for RedisSettings {
    fn default() -> RedisSettings {
        RedisSettings {
            read_timeout: Duration::from_millis(500),
            write_timeout: Duration::from_secs(2),
            ping_every: Duration::from_secs(2),
            ping_misses: 3,
        }
    }
}

/// A namespace on a server.
pub struct RedisStore {
    target: RedisTarget,
    keys: Keys,
    reads: Arc<Link>,
    writes: Arc<Link>,
    pages: Pool,
    commits: Pool,
    scripts: Scripts,
    watchdog: AbortHandle,
}

struct Scripts {
    swap: Script,
    head: Script,
    open: Script,
    bodies: Script,
    sweep: Script,
    mark: Script,
    clear: Script,
}

impl RedisStore {
    /// Connects and checks: the layout must be this build's ([`crate::migrate`]), and the server must not evict keys.
    pub async fn connect(
        target: &RedisTarget,
        namespace: &str,
        settings: RedisSettings,
    ) -> Result<RedisStore, StoreError> {
        let keys = Keys::new(namespace)?;
        let client = client(target)?;
        let reads = Arc::new(Link::open("read", client.clone(), settings.read_timeout).await?);
        let writes = Arc::new(Link::open("write", client, settings.write_timeout).await?);
        probe::refuse_eviction(&reads).await?;
        layout::check(&reads, &keys).await?;
        let links = [Arc::clone(&reads), Arc::clone(&writes)];
        let watch = link::watch(links, settings.ping_every, settings.read_timeout, settings.ping_misses);
        let watchdog = tokio::spawn(watch).abort_handle();
        Ok(RedisStore {
            target: target.clone(),
            keys,
            reads,
            writes,
            pages: Pool::new("page", target.connection_info(), settings.read_timeout),
            commits: Pool::new("commit", target.connection_info(), settings.write_timeout),
            scripts: Scripts::new(),
            watchdog,
        })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

impl Scripts {
    fn new() -> Scripts {
        Scripts {
            swap: Script::new(include_str!("swap.lua")),
            head: Script::new(include_str!("head.lua")),
            open: Script::new(include_str!("open.lua")),
            bodies: Script::new(include_str!("bodies.lua")),
            sweep: Script::new(include_str!("sweep.lua")),
            mark: Script::new(include_str!("mark.lua")),
            clear: Script::new(include_str!("clear.lua")),
        }
    }
}

fn client(target: &RedisTarget) -> Result<Client, StoreError> {
    Client::open(target.connection_info()).map_err(|error| failed("be reached", error))
}

/// Applies the steps a namespace lacks (`dry_run`: only names them).
pub(crate) async fn migrate(
    target: &RedisTarget,
    namespace: &str,
    dry_run: bool,
) -> Result<Vec<StepReport>, StoreError> {
    let keys = Keys::new(namespace)?;
    let link = Link::open("migrate", client(target)?, RedisSettings::default().write_timeout).await?;
    probe::refuse_eviction(&link).await?;
    layout::bring_up_to_date(&link, &keys, dry_run).await
}
