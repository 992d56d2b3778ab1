//! The ports of [`contacts::ports`] on Redis, on SQLite and in memory, one behaviour suite for all three, and the steps
//! that bring a stored layout up to date.

mod layout;
mod page;
mod url;

pub mod memory;
pub mod redis;
pub mod sqlite;

pub mod suite;

use std::sync::Arc;

use contacts::{Clock, Store, StoreError};

pub use layout::{StepReport, StepState};
pub use memory::MemoryStore;
pub use redis::{RedisSettings, RedisStore};
pub use sqlite::SqliteStore;
pub use url::{NotAStoreUrl, StoreUrl};

/// Opens the store that a URL names. An embedded store brings its own layout up to date; a Redis one is refused until
/// [`migrate`] has run. `namespace` and `settings` matter to Redis only.
pub async fn connect(
    url: &StoreUrl,
    namespace: &str,
    settings: RedisSettings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match url {
        StoreUrl::Sqlite(dir) => Arc::new(SqliteStore::open(dir, clock).await?),
        StoreUrl::Redis(target) => Arc::new(RedisStore::connect(target, namespace, settings).await?),
    })
}

/// Applies the steps that are missing, in order; `dry_run` only says which. Safe to run twice and beside itself.
/// Refused when the layout is newer than this build.
pub async fn migrate(url: &StoreUrl, namespace: &str, dry_run: bool) -> Result<Vec<StepReport>, StoreError> {
    match url {
        StoreUrl::Sqlite(dir) => sqlite::migrate(dir, dry_run).await,
        StoreUrl::Redis(target) => redis::migrate(target, namespace, dry_run).await,
    }
}

/// Which steps have been applied, without changing anything.
pub async fn migration_status(url: &StoreUrl, namespace: &str) -> Result<Vec<StepReport>, StoreError> {
    migrate(url, namespace, true).await
}
