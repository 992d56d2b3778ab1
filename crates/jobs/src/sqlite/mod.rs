//! The queue in a file: `queue.db` of a folder, for one process.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::queue::{
    Confirmed, Consumer, DeadSink, Delivery, Depths, Job, Queue, QueueError, QueueErrorKind, QueueResult, Settle,
    Settler,
};
use contacts::{Clock, Lane, Micros};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use self::table::Claimed;
use self::writer::{Writer, failed};
use crate::{redelivery_delay, with_source};

mod table;
mod writer;

const FILE: &str = "queue.db";

/// Jobs in `queue.db`. What `publish` confirms has been synced to the disk.
#[derive(Clone)]
pub struct SqliteQueue {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Writer,
    /// Rung when a job becomes ready sooner than a waiting consumer knows.
    news: Notify,
    clock: Arc<dyn Clock>,
    place: String,
    redelivery: Duration,
    /// A waiting consumer looks at least this often: the clock may be set, or be a test's.
    poll: Duration,
    /// Held for as long as the queue lives; see [`lock`].
    _lock: Option<File>,
}

impl SqliteQueue {
    /// Opens or creates `queue.db` in `dir` and frees what a process that died had claimed.
    ///
    /// # Errors
    /// `Topology` if the file was written by a newer build; `Unavailable` if another process has the folder, or the
    /// file cannot be read.
    pub fn open(dir: impl AsRef<Path>, clock: Arc<dyn Clock>) -> QueueResult<SqliteQueue> {
        SqliteQueue::open_with(dir, clock, Duration::from_secs(1))
    }

    /// Like [`SqliteQueue::open`]; a delivery that is dropped unsettled for the first time comes again after `redelivery`.
    pub fn open_with(dir: impl AsRef<Path>, clock: Arc<dyn Clock>, redelivery: Duration) -> QueueResult<SqliteQueue> {
        let dir = dir.as_ref();
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        let place = format!("sqlite {}", path.display());
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        prepare(&mut connection)?;
        SqliteQueue::start(connection, clock, place, redelivery, Duration::from_secs(1), Some(lock))
    }

    /// Nothing on disk: what it holds goes with the process. For tests.
    pub(crate) fn in_memory(clock: Arc<dyn Clock>) -> QueueResult<SqliteQueue> {
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        prepare(&mut connection)?;
        SqliteQueue::start(
            connection,
            clock,
            "memory".to_owned(),
            Duration::ZERO,
            Duration::from_millis(10),
            None,
        )
    }

    fn start(
        connection: Connection,
        clock: Arc<dyn Clock>,
        place: String,
        redelivery: Duration,
        poll: Duration,
        lock: Option<File>,
    ) -> QueueResult<SqliteQueue> {
        let writer = Writer::start(connection).map_err(|error| {
            QueueError::because(
                QueueErrorKind::Unavailable,
                "the thread that writes queue.db did not start",
                error,
            )
        })?;
        let shared = Shared {
            writer,
            news: Notify::new(),
            clock,
            place,
            redelivery,
            poll,
            _lock: lock,
        };
        Ok(SqliteQueue {
            shared: Arc::new(shared),
        })
    }

    /// For `status` beside a running process: reads, never writes, takes no lock.
    pub fn open_read_only(dir: impl AsRef<Path>) -> QueueResult<ReadOnly> {
        let path = dir.as_ref().join(FILE);
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        Ok(ReadOnly { connection })
    }

    /// The bodies that wait for a consumer, oldest first.
    pub(crate) async fn bodies(&self) -> QueueResult<Vec<Vec<u8>>> {
        self.shared.writer.call(|db| table::bodies(db)).await
    }

    /// Puts any bytes into a lane, due now.
    pub(crate) async fn publish_body(&self, lane: Lane, body: Vec<u8>) -> QueueResult<Confirmed> {
        let now = self.shared.clock.now();
        self.shared
            .writer
            .call(move |db| table::add(db, lane.as_str(), &body, now))
            .await?;
        self.shared.news.notify_waiters();
        Ok(Confirmed)
    }
}

/// Refuses a second process (or a second queue in this one): it would free claims that are alive.
fn lock(dir: &Path) -> QueueResult<File> {
    let unavailable =
        |message: String| move |error: std::io::Error| QueueError::because(QueueErrorKind::Unavailable, message, error);
    std::fs::create_dir_all(dir).map_err(unavailable(format!("the folder {} cannot be made", dir.display())))?;
    let path = dir.join("queue.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(unavailable(format!("{} cannot be opened", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(QueueError::new(
            QueueErrorKind::Unavailable,
            format!(
                "another process has the queue in {}; stop it first, or use another folder",
                dir.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(unavailable(format!("{} cannot be locked", path.display()))(error)),
    }
}

fn prepare(connection: &mut Connection) -> QueueResult<()> {
    if let Err(version) = table::upgrade(connection).map_err(failed)? {
        let message =
            format!("queue.db has version {version}, written by a newer build; start that build, or another folder");
        return Err(QueueError::new(QueueErrorKind::Topology, message));
    }
    let freed = table::release_all(connection).map_err(failed)?;
    if freed > 0 {
        tracing::info!(
            jobs = freed,
            "jobs that the previous process had not settled come again"
        );
    }
    Ok(())
}

/// A view of another process's queue.
pub struct ReadOnly {
    connection: Connection,
}

impl ReadOnly {
    pub fn depth(&self, now: Micros) -> QueueResult<Depths> {
        table::depths(&self.connection, now).map_err(failed)
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn publish(&self, job: &Job) -> QueueResult<Confirmed> {
        self.publish_body(job.lane, job.to_json()).await
    }

    async fn consume(&self, lanes: &[Lane], slots: usize) -> QueueResult<Box<dyn Consumer>> {
        let slots = Arc::new(Semaphore::new(slots.max(1)));
        Ok(Box::new(SqliteConsumer {
            shared: self.shared.clone(),
            lanes: lanes.to_vec(),
            slots,
            stopped: false,
        }))
    }

    async fn depth(&self) -> QueueResult<Depths> {
        let now = self.shared.clock.now();
        self.shared.writer.call(move |db| table::depths(db, now)).await
    }

    async fn drain_dead(&self, sink: &dyn DeadSink) -> QueueResult<u64> {
        let (mut drained, mut after) = (0, 0);
        while let Some(dead) = self.shared.writer.call(move |db| table::dead_after(db, after)).await? {
            after = dead.seq;
            match sink.put(&dead.body, &dead.reason).await {
                Ok(()) => {
                    self.shared.writer.call(move |db| table::bury(db, dead.seq)).await?;
                    drained += 1;
                }
                Err(error) => tracing::warn!(
                    error = with_source(&*error),
                    "a dead job stays in the queue: it could not be stored"
                ),
            }
        }
        Ok(drained)
    }

    fn describe(&self) -> String {
        self.shared.place.clone()
    }

    async fn ping(&self) -> QueueResult<()> {
        self.shared.writer.call(|_| Ok(())).await
    }

    fn is_blocked(&self) -> bool {
        false
    }
}

struct SqliteConsumer {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    slots: Arc<Semaphore>,
    stopped: bool,
}

#[async_trait]
impl Consumer for SqliteConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        if self.stopped || self.lanes.is_empty() {
            return None;
        }
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        loop {
            // Enabled before the look, so that news between look and wait are not missed.
            let mut news = std::pin::pin!(self.shared.news.notified());
            news.as_mut().enable();
            let wait = match self.shared.claim(&self.lanes).await {
                Ok(Found::Claim(claim)) => return Some(claim.deliver(slot)),
                Ok(Found::DueIn(wait)) => wait,
                Err(error) => {
                    tracing::error!(error = with_source(&error), "no job can be claimed; trying again");
                    self.shared.poll
                }
            };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
    }
}

enum Found {
    Claim(Claim),
    DueIn(Duration),
}

impl Shared {
    async fn claim(self: &Arc<Shared>, lanes: &[Lane]) -> QueueResult<Found> {
        let now = self.clock.now();
        let lanes = lanes.to_vec();
        let shared = self.clone();
        let found = self.writer.call(move |db| {
            let Some(row) = table::claim(db, &lanes, now)? else {
                return Ok(Err(table::next_due(db, &lanes)?));
            };
            Ok(Ok(Unseen { row: Some(row), shared }))
        });
        Ok(match found.await? {
            Ok(mut unseen) => match unseen.row.take() {
                Some(row) => Found::Claim(Claim {
                    row,
                    shared: self.clone(),
                    settled: false,
                }),
                None => Found::DueIn(self.poll),
            },
            Err(due) => Found::DueIn(
                due.map_or(self.poll, |due| due.since(now))
                    .clamp(Duration::from_millis(1), self.poll),
            ),
        })
    }
}

/// A claim on its way to its consumer. It is given back if the consumer stopped waiting.
struct Unseen {
    row: Option<Claimed>,
    shared: Arc<Shared>,
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            self.shared.writer.post(move |db| table::unclaim(db, row.seq));
            self.shared.news.notify_waiters();
        }
    }
}

/// A claim that its consumer holds. Dropped unsettled, it comes again.
struct Claim {
    row: Claimed,
    shared: Arc<Shared>,
    settled: bool,
}

impl Claim {
    fn deliver(mut self, slot: OwnedSemaphorePermit) -> Delivery {
        let body = std::mem::take(&mut self.row.body);
        Delivery::new(
            body,
            Box::new(SqliteSettler {
                claim: self,
                _slot: slot,
            }),
        )
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let delay = redelivery_delay(self.shared.redelivery, self.row.deliveries.saturating_sub(1));
        let (seq, due) = (self.row.seq, self.shared.clock.now().plus(delay));
        self.shared.writer.post(move |db| table::give_back(db, seq, due));
        self.shared.news.notify_waiters();
    }
}

struct SqliteSettler {
    claim: Claim,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Settler for SqliteSettler {
    async fn settle(mut self: Box<Self>, body: &[u8], how: &Settle) -> QueueResult<()> {
        let (seq, now) = (self.claim.row.seq, self.claim.shared.clock.now());
        let instead = match how {
            Settle::Ack => None,
            Settle::Later { job, after } => Some((job.lane.as_str().to_owned(), job.to_json(), now.plus(*after))),
            Settle::PutOff { after } => Some((self.claim.row.lane.clone(), body.to_vec(), now.plus(*after))),
        };
        let settle = self.claim.shared.writer.call(move |db| {
            let held = table::remove(db, seq)?;
            if let (true, Some((lane, body, due))) = (held, instead) {
                table::add(db, &lane, &body, due)?;
            }
            Ok(())
        });
        settle.await?;
        self.claim.settled = true;
        self.claim.shared.news.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
