//! The queue's port on RabbitMQ and on SQLite, and the behaviour suite that both pass.
//!
//! [`connect`] picks the backend by the URL; [`migrate`] lays out what has to be there beforehand. The queue is a
//! doorbell: the store knows what is to be done, so a job that is lost or comes twice costs time and nothing else.

use std::sync::Arc;
use std::time::Duration;

use contacts::Clock;
use contacts::queue::{Queue, QueueError, QueueErrorKind, QueueResult};

pub mod memory;
pub mod rabbitmq;
pub mod sqlite;
pub mod suite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use rabbitmq::{RabbitQueue, RabbitSettings, migrate};
pub use sqlite::SqliteQueue;

/// How often a job may be delivered without being settled, after its first delivery, before it goes to the dead jobs.
pub const DELIVERY_LIMIT: u32 = 20;

/// Opens the queue that `url` names: `amqp://user:password@host:5672/vhost` or `sqlite:DIR` (a folder; its `queue.db`).
///
/// A broker that is away is no error here: the queue connects as soon as it is there. The namespace keeps several
/// installations on one broker apart; a SQLite folder is a namespace of its own.
pub async fn connect(
    url: &str,
    namespace: &str,
    settings: RabbitSettings,
    clock: Arc<dyn Clock>,
) -> QueueResult<Arc<dyn Queue>> {
    match url.split_once(':') {
        Some(("sqlite", dir)) => Ok(Arc::new(SqliteQueue::open(folder(dir), clock)?)),
        Some(("amqp" | "amqps", _)) => Ok(Arc::new(RabbitQueue::connect(url, namespace, settings).await?)),
        _ => Err(QueueError::new(
            QueueErrorKind::Unavailable,
            "the queue's URL must start with amqp:// (RabbitMQ) or sqlite: (a folder)",
        )),
    }
}

/// `sqlite:DIR` and `sqlite://DIR` mean the same folder.
fn folder(rest: &str) -> &std::path::Path {
    std::path::Path::new(rest.strip_prefix("//").unwrap_or(rest))
}

/// How long a delivery that was dropped unsettled is held back: `base`, doubled with each further time, at most 15 s.
/// Without it a job that fails at once would use up [`DELIVERY_LIMIT`] within milliseconds of a fault that lasts seconds.
pub(crate) fn redelivery_delay(base: Duration, earlier: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(15);
    base.saturating_mul(1 << earlier.min(10)).min(LONGEST)
}

/// An error and its source in one line, for logs: an error's own text never repeats its source.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_delivery_is_held_back_longer_each_time() {
        let base = Duration::from_secs(1);
        let secs: Vec<u64> = [0, 1, 2, 3, 4, 19, u32::MAX]
            .map(|n| redelivery_delay(base, n).as_secs())
            .to_vec();
        assert_eq!(secs, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn both_spellings_of_a_folder_are_read() {
        assert_eq!(folder("data"), std::path::Path::new("data"));
        assert_eq!(folder("///var/lib/x"), std::path::Path::new("/var/lib/x"));
        assert_eq!(folder("/var/lib/x"), std::path::Path::new("/var/lib/x"));
    }

    #[tokio::test]
    async fn the_url_picks_the_backend() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().display());
        let clock = Arc::new(contacts::SystemClock);
        let queue = connect(&url, "n", RabbitSettings::default(), clock).await.unwrap();
        assert!(queue.describe().starts_with("sqlite "), "{}", queue.describe());
        assert!(dir.path().join("queue.db").exists());
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_without_repeating_the_url() {
        let clock = Arc::new(contacts::SystemClock);
        let error = connect("http://u:hunter2@h/", "n", RabbitSettings::default(), clock)
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("amqp://") && !error.to_string().contains("hunter2"));
    }
}
