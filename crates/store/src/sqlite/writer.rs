//! One thread writes a file. It takes what has queued up, runs each write in a savepoint of its own, waits for the disk
//! once for all of them, and answers only then: a write that was answered survives the process, and (in `store.db`) the
//! power.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use contacts::StoreError;
use contacts::ports::{StoreErrorKind, StoreResult};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::error::failed;

/// Writes that share one wait for the disk at most.
const GROUP: usize = 256;
/// Between two looks for what may be tidied up.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// The same, while there is more to tidy.
const TIDY_ON: Duration = Duration::from_millis(20);

/// Removes a bounded piece of what nobody needs; `true`: there is more.
pub(super) type Tidy = Box<dyn Fn(&Connection) -> StoreResult<bool> + Send>;

pub(super) struct Writer {
    queue: Option<Sender<Box<dyn Task>>>,
    thread: Option<JoinHandle<()>>,
    changed: watch::Receiver<u64>,
}

impl Writer {
    pub fn start(name: &str, db: Connection, tidy: Tidy) -> std::io::Result<Writer> {
        let (queue, tasks) = channel();
        let (bell, changed) = watch::channel(0);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&db, &tasks, &bell, &tidy))?;
        Ok(Writer {
            queue: Some(queue),
            thread: Some(thread),
            changed,
        })
    }

    /// Runs `act` in a transaction and answers when it is on disk. An error undoes what `act` did, and nothing else.
    pub async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        let task = Write {
            act: Some(act),
            result: None,
            answer,
        };
        let stopped = || StoreError::new(StoreErrorKind::Unavailable, "the writer of the store has stopped");
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Box::new(task)).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Counts groups of writes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

impl Drop for Writer {
    /// Waits until everything queued is on disk and the file is closed.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

trait Task: Send {
    /// `false`: it failed, and what it did must be undone.
    fn act(&mut self, db: &Connection) -> bool;
    /// Answers with what `act` returned, or with the failure of the group.
    fn answer(self: Box<Self>, group: Result<(), StoreError>);
}

struct Write<T, F> {
    act: Option<F>,
    result: Option<StoreResult<T>>,
    answer: oneshot::Sender<StoreResult<T>>,
}

impl<T: Send, F: FnOnce(&Connection) -> StoreResult<T> + Send> Task for Write<T, F> {
    fn act(&mut self, db: &Connection) -> bool {
        self.result = self.act.take().map(|act| act(db));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, group: Result<(), StoreError>) {
        let result = match (self.result, group) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(group)) => Err(group),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::new(StoreErrorKind::Unavailable, "the write was not run")),
        };
        // Nobody waits any more when the caller was cancelled.
        let _ = self.answer.send(result);
    }
}

fn run(db: &Connection, tasks: &Receiver<Box<dyn Task>>, bell: &watch::Sender<u64>, tidy: &Tidy) {
    let mut tidy_at = Instant::now();
    loop {
        match tasks.recv_timeout(tidy_at.saturating_duration_since(Instant::now())) {
            Ok(first) => {
                let mut group = vec![first];
                group.extend(tasks.try_iter().take(GROUP - 1));
                write_group(db, group);
                bell.send_modify(|count| *count += 1);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= tidy_at {
            let more = tidy(db).unwrap_or_else(|error| {
                tracing::warn!(error = %error, "tidying up the store failed; it will be tried again");
                false
            });
            tidy_at = Instant::now() + if more { TIDY_ON } else { TIDY_EVERY };
        }
    }
}

fn write_group(db: &Connection, group: Vec<Box<dyn Task>>) {
    let mut open: Vec<Box<dyn Task>> = Vec::with_capacity(group.len());
    for mut task in group {
        if open.is_empty()
            && let Err(error) = db.execute_batch("BEGIN IMMEDIATE").map_err(failed("begin a write"))
        {
            task.answer(Err(error));
            continue;
        }
        let done = savepoint(db, task.as_mut());
        // A full disk and some I/O errors end the whole transaction: what was in it is gone with it.
        if db.is_autocommit() {
            let lost = || {
                StoreError::new(
                    StoreErrorKind::Unavailable,
                    "the write was undone with another that failed",
                )
            };
            for earlier in open.drain(..) {
                earlier.answer(Err(lost()));
            }
            task.answer(done.and(Err(lost())));
            continue;
        }
        match done {
            Ok(()) => open.push(task),
            Err(error) => {
                task.answer(Err(error));
                if open.is_empty() {
                    let _ = db.execute_batch("ROLLBACK");
                }
            }
        }
    }
    if open.is_empty() {
        return;
    }
    match db.execute_batch("COMMIT").map_err(failed("commit a write")) {
        Ok(()) => open.into_iter().for_each(|task| task.answer(Ok(()))),
        Err(error) => {
            let _ = db.execute_batch("ROLLBACK");
            for task in open {
                task.answer(Err(StoreError::new(error.kind, error.message.clone())));
            }
        }
    }
}

fn savepoint(db: &Connection, task: &mut dyn Task) -> StoreResult<()> {
    db.execute_batch("SAVEPOINT one").map_err(failed("begin a write"))?;
    let undo = if task.act(db) {
        "RELEASE one"
    } else {
        "ROLLBACK TO one; RELEASE one"
    };
    if db.is_autocommit() {
        return Ok(());
    }
    db.execute_batch(undo).map_err(failed("end a write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(setup: &str) -> Writer {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (x TEXT UNIQUE)").unwrap();
        db.execute_batch(setup).unwrap();
        Writer::start("test", db, Box::new(|_| Ok(false))).unwrap()
    }

    fn insert(x: String) -> impl FnOnce(&Connection) -> StoreResult<()> + Send + 'static {
        move |db| {
            db.execute("INSERT INTO t VALUES (?1)", [x])
                .map(drop)
                .map_err(failed("insert"))
        }
    }

    async fn count(writer: &Writer) -> i64 {
        let count = |db: &Connection| {
            db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .map_err(failed("count"))
        };
        writer.write(count).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_write_undoes_itself_and_not_its_neighbours() {
        let writer = writer("");
        let half = |db: &Connection| -> StoreResult<()> {
            insert("half".into())(db)?;
            Err(StoreError::new(StoreErrorKind::Fenced, "no"))
        };
        let (a, b, c) = tokio::join!(
            writer.write(insert("a".into())),
            writer.write(half),
            writer.write(insert("c".into()))
        );
        assert!(a.is_ok() && c.is_ok());
        assert_eq!(b.unwrap_err().kind, StoreErrorKind::Fenced);
        assert_eq!(count(&writer).await, 2);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_and_says_so_while_what_is_there_stays() {
        let writer = writer("PRAGMA max_page_count = 40");
        let mut stored = 0;
        let error = loop {
            match writer.write(insert(format!("{stored}{}", "x".repeat(3000)))).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, StoreErrorKind::Full, "{error:?}");
        assert!(stored > 0);
        assert_eq!(count(&writer).await, stored);
    }

    #[tokio::test]
    async fn many_writers_are_all_answered() {
        let writer = writer("");
        let writes = (0..1000).map(|n| writer.write(insert(n.to_string())));
        let answers = futures::future::join_all(writes).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(count(&writer).await, 1000);
    }
}
