//! A few connections that only read, used on blocking threads. In WAL mode they never wait for the writer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contacts::StoreError;
use contacts::ports::{StoreErrorKind, StoreResult};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::error::failed;

/// Reads at a time. More would only queue up for the processor.
const READERS: usize = 4;

pub(super) struct Readers {
    shared: Arc<Shared>,
    permits: Semaphore,
}

struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Readers {
        let shared = Shared {
            path,
            idle: Mutex::new(Vec::new()),
        };
        Readers {
            shared: Arc::new(shared),
            permits: Semaphore::new(READERS),
        }
    }

    /// Runs `act` on one state of the file.
    pub async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let stopped = || StoreError::new(StoreErrorKind::Unavailable, "the readers of the store have stopped");
        let permit = self.permits.acquire().await.map_err(|_| stopped())?;
        let shared = Arc::clone(&self.shared);
        let answer = tokio::task::spawn_blocking(move || {
            let idle = shared.idle.lock().pop();
            let db = idle.map_or_else(|| open_to_read(&shared.path), Ok)?;
            db.execute_batch("BEGIN").map_err(failed("begin a read"))?;
            let answer = act(&db);
            // A connection that cannot end its read is dropped, and closed with it.
            if db.execute_batch("COMMIT").is_ok() {
                shared.idle.lock().push(db);
            }
            answer
        });
        let answer = answer.await.map_err(|_| stopped())?;
        drop(permit);
        answer
    }
}

pub(super) fn open_to_read(path: &PathBuf) -> StoreResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed("open the store to read"))?;
    db.busy_timeout(Duration::from_secs(2))
        .map_err(failed("open the store to read"))?;
    db.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192")
        .map_err(failed("open the store to read"))?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}
