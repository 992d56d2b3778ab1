//! The embedded store: a folder with `store.db`, where a commit waits for the disk, and `budget.db`, where it does not.
//! One thread writes each file, a few connections read it. The folder belongs to one process at a time.

mod documents;
mod error;
mod layout;
mod marks;
mod number;
mod readers;
mod reading;
mod snapshots;
mod tidy;
mod writer;

use std::fs::{self, File as DiskFile};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::ports::{Probe, StoreErrorKind, StoreResult};
use contacts::{Clock, StoreError};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::layout::{StepReport, StepState, applied, require_complete};
use error::failed;
use layout::File;
use readers::Readers;
use writer::{Tidy, Writer};

/// An open folder. Dropping it waits for the writes that were queued.
pub struct SqliteStore {
    dir: PathBuf,
    store: OneFile,
    budget: OneFile,
    // Held until both writers have closed their files: fields drop in this order.
    _lock: Option<DiskFile>,
}

struct OneFile {
    readers: Readers,
    /// `None`: opened to read only.
    writer: Option<Writer>,
}

impl SqliteStore {
    /// Opens a folder, creates it if it is missing, and brings its layout up to date. Refused while another process has
    /// it open, and when its layout is newer than this build.
    pub async fn open(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> StoreResult<SqliteStore> {
        let dir = dir.into();
        blocking(move || {
            let lock = take_folder(&dir)?;
            let store = OneFile::open(&dir, File::Store, Box::new(tidy::store))?;
            let budget = OneFile::open(&dir, File::Budget, Box::new(move |db| tidy::budget(db, clock.now())))?;
            Ok(SqliteStore {
                dir,
                store,
                budget,
                _lock: Some(lock),
            })
        })
        .await
    }

    /// Opens a folder beside the process that owns it. Every write is refused.
    pub async fn open_read_only(dir: impl Into<PathBuf>) -> StoreResult<SqliteStore> {
        let dir = dir.into();
        blocking(move || {
            for file in [File::Store, File::Budget] {
                let path = path(&dir, file);
                if !path.exists() {
                    let message = format!("{} does not exist: nothing has run in this folder yet", path.display());
                    return Err(StoreError::new(StoreErrorKind::Unavailable, message));
                }
                require_complete(&layout::known(), &layout::recorded(&readers::open_to_read(&path)?)?)?;
            }
            let only_readers = |file| OneFile {
                readers: Readers::new(path(&dir, file)),
                writer: None,
            };
            Ok(SqliteStore {
                store: only_readers(File::Store),
                budget: only_readers(File::Budget),
                dir,
                _lock: None,
            })
        })
        .await
    }

    /// Wakes whoever waits when something was written to `store.db`: the count of write groups. A store that is open to
    /// read only never changes it.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.store
            .writer
            .as_ref()
            .map_or_else(|| watch::channel(0).1, Writer::changed)
    }

    fn file(&self, file: File) -> &OneFile {
        match file {
            File::Store => &self.store,
            File::Budget => &self.budget,
        }
    }
}

impl OneFile {
    fn open(dir: &Path, file: File, tidy: Tidy) -> StoreResult<OneFile> {
        let path = path(dir, file);
        let db = open_to_write(&path, file)?;
        layout::bring_up_to_date(&db, file)?;
        let name = match file {
            File::Store => "store-writer",
            File::Budget => "budget-writer",
        };
        let writer = Writer::start(name, db, tidy).map_err(|error| {
            StoreError::because(
                StoreErrorKind::Unavailable,
                "the thread that writes could not be started",
                error,
            )
        })?;
        Ok(OneFile {
            readers: Readers::new(path),
            writer: Some(writer),
        })
    }

    fn writer(&self) -> StoreResult<&Writer> {
        let read_only = || StoreError::new(StoreErrorKind::Unavailable, "the store is open to read only");
        self.writer.as_ref().ok_or_else(read_only)
    }
}

/// Applies the steps a folder lacks (`dry_run`: only names them).
pub(crate) async fn migrate(dir: &Path, dry_run: bool) -> StoreResult<Vec<StepReport>> {
    let dir = dir.to_owned();
    blocking(move || {
        let known = layout::known();
        if !dry_run {
            let _lock = take_folder(&dir)?;
            let store = layout::bring_up_to_date(&open_to_write(&path(&dir, File::Store), File::Store)?, File::Store)?;
            layout::bring_up_to_date(&open_to_write(&path(&dir, File::Budget), File::Budget)?, File::Budget)?;
            return Ok(store);
        }
        let mut have = known.len();
        for file in [File::Store, File::Budget] {
            let path = path(&dir, file);
            let recorded = match path.exists() {
                true => layout::recorded(&readers::open_to_read(&path)?)?,
                false => Vec::new(),
            };
            have = have.min(applied(&known, &recorded)?);
        }
        Ok(layout::reports(&known, have, StepState::Pending))
    })
    .await
}

fn path(dir: &Path, file: File) -> PathBuf {
    dir.join(match file {
        File::Store => "store.db",
        File::Budget => "budget.db",
    })
}

/// Two writers would overtake each other's decisions. The lock ends with the process, however that ends.
fn take_folder(dir: &Path) -> StoreResult<DiskFile> {
    let unusable = |error| {
        let message = format!("the folder {} cannot be used", dir.display());
        StoreError::because(StoreErrorKind::Unavailable, message, error)
    };
    create_private(dir).map_err(unusable)?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("store.lock"));
    let lock = lock.map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::new(
            StoreErrorKind::Unavailable,
            format!(
                "another process has the folder {} open: stop it first, or use another folder",
                dir.display()
            ),
        )),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The folder holds contacts: nobody but its owner may read it.
fn create_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn open_to_write(path: &Path, file: File) -> StoreResult<Connection> {
    let setup = || {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(5))?;
        // Pages of 8 KiB keep bodies of up to 2 KiB in one place. Only a new file takes the size.
        db.pragma_update(None, "page_size", 8192)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", if file == File::Store { "FULL" } else { "NORMAL" })?;
        db.pragma_update(None, "cache_size", -16384)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    };
    setup().map_err(failed("open the store"))
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> StoreResult<T> + Send + 'static) -> StoreResult<T> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        Err(StoreError::because(
            StoreErrorKind::Unavailable,
            "opening the store was interrupted",
            error,
        ))
    })
}

#[async_trait]
impl Probe for SqliteStore {
    fn describe(&self) -> String {
        let how = if self.store.writer.is_some() { "" } else { ", read only" };
        format!("sqlite in {}{how}", self.dir.display())
    }

    async fn ping(&self) -> StoreResult<()> {
        for file in [File::Store, File::Budget] {
            let read = |db: &Connection| db.query_row("SELECT max(step) FROM layout", [], |_| Ok(()));
            self.file(file)
                .readers
                .read(move |db| read(db).map_err(failed("read the store")))
                .await?;
        }
        Ok(())
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        Ok(Vec::new())
    }
}
