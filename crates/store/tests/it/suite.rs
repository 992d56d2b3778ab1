//! The behaviour suite on every backend.

use std::sync::Arc;

use contacts::{Store, SystemClock};
use parking_lot::Mutex;
use store::{MemoryStore, SqliteStore, suite};

use crate::server::Shared;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_what_every_store_must() {
    suite::run_all(async || Arc::new(MemoryStore::new()) as Arc<dyn Store>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_does_what_every_store_must() {
    let folders = Mutex::new(Vec::new());
    suite::run_all(async || {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap();
        folders.lock().push(dir);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_does_what_every_store_must() {
    Shared::with(async |redis| suite::run_all(async || redis.store().await).await).await;
}
