//! One thread owns the connection and commits what has gathered meanwhile in one transaction, so that one fsync serves
//! many callers.

use std::sync::mpsc;
use std::thread::JoinHandle;

use contacts::queue::{QueueError, QueueErrorKind, QueueResult};
use parking_lot::Mutex;
use rusqlite::{Connection, Savepoint, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

/// The most pieces of work that share one commit; bounds how long the first of them waits.
const GROUP: usize = 256;

/// Called once the commit is through (`None`) or has failed (`Some(why)`).
type Reply = Box<dyn FnOnce(Option<&str>) + Send>;
type Work = Box<dyn FnOnce(&mut Transaction<'_>) -> Reply + Send>;

pub(super) struct Writer {
    work: Mutex<Option<mpsc::Sender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> std::io::Result<Writer> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || run(connection, &receiver))?;
        Ok(Writer {
            work: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in the next commit and returns what it returned, once that is durable. If the caller goes away
    /// meanwhile, `work` still runs and its value is dropped.
    pub(super) async fn call<T, F>(&self, work: F) -> QueueResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Savepoint<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel::<QueueResult<T>>();
        self.send(Box::new(move |transaction| {
            let done = within_savepoint(transaction, work);
            Box::new(move |commit_failed| {
                let result = match (commit_failed, done) {
                    (Some(why), _) => Err(QueueError::new(
                        QueueErrorKind::Unavailable,
                        format!("queue.db did not commit: {why}"),
                    )),
                    (None, Err(error)) => Err(failed(error)),
                    (None, Ok(value)) => Ok(value),
                };
                // A caller that went away leaves the value to be dropped here.
                drop(sender.send(result));
            })
        }));
        let gone = |_| {
            QueueError::new(
                QueueErrorKind::Unavailable,
                "queue.db could not be written; the log says why",
            )
        };
        receiver.await.map_err(gone)?
    }

    /// Runs `work` in the next commit; nobody waits for it.
    pub(super) fn post<F>(&self, work: F)
    where
        F: FnOnce(&Savepoint<'_>) -> rusqlite::Result<()> + Send + 'static,
    {
        self.send(Box::new(move |transaction| {
            let done = within_savepoint(transaction, work);
            Box::new(move |commit_failed| {
                let why = commit_failed
                    .map(str::to_owned)
                    .or(done.err().map(|error| error.to_string()));
                if let Some(why) = why {
                    tracing::error!(error = why, "a change of queue.db was lost");
                }
            })
        }));
    }

    fn send(&self, work: Work) {
        if let Some(sender) = &*self.work.lock() {
            // It fails only when the thread is gone; the work's reply then drops with it, which the caller sees.
            drop(sender.send(work));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.work.lock().take());
        // A reply that nobody waits for any more can be the last to hold the queue; then this is the thread itself.
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes queue.db panicked");
        }
    }
}

fn within_savepoint<T>(
    transaction: &mut Transaction<'_>,
    work: impl FnOnce(&Savepoint<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let savepoint = transaction.savepoint()?;
    let value = work(&savepoint)?;
    savepoint.commit()?;
    Ok(value)
}

fn run(mut connection: Connection, work: &mpsc::Receiver<Work>) {
    while let Ok(first) = work.recv() {
        let group = std::iter::once(first).chain(work.try_iter().take(GROUP - 1));
        let mut replies = Vec::new();
        let committed = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|mut transaction| {
                replies.extend(group.map(|work| work(&mut transaction)));
                transaction.commit()
            });
        let why = committed.err().map(|error| error.to_string());
        if let Some(why) = &why {
            tracing::error!(error = why, "queue.db did not commit");
        }
        for reply in replies {
            reply(why.as_deref());
        }
    }
}

pub(super) fn failed(error: rusqlite::Error) -> QueueError {
    let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
    let (kind, message) = if full {
        (QueueErrorKind::Refused, "queue.db cannot grow: the disk is full")
    } else {
        (QueueErrorKind::Unavailable, "queue.db could not be read or written")
    };
    QueueError::because(kind, message, error)
}
