//! The port of the queue. The queue is a doorbell: a job says "look at this account", never the news itself, so a lost
//! or doubled job is harmless.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ids::{AccountId, JobId, Kind, Lane};
use crate::time::Micros;

/// The newest version of [`Job`] this build reads. A body of a newer version is put off, never dropped: during a rolling
/// deploy old and new processes share the queue. A body carries the oldest version that reads it ([`body_version`]).
pub const JOB_VERSION: u32 = 3;

/// The first version that knows the kind: to an older process its jobs are those of a newer version, not broken ones.
pub fn body_version(kind: Kind) -> u32 {
    match kind {
        Kind::Ids | Kind::Changes | Kind::Full => 1,
        Kind::Agents => 2,
        Kind::Link => 3,
    }
}

/// A job's body. Holds no ids, credentials or contact data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub v: u32,
    pub id: JobId,
    pub kind: Kind,
    pub account: AccountId,
    pub lane: Lane,
    /// Counts from 1.
    pub attempt: u32,
    /// When the work was first asked for.
    pub at: Micros,
    /// The trace that it belongs to, a `traceparent`. Processes that know nothing of it pass over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Job {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a body from the queue.
    pub fn read(body: &[u8]) -> Result<Job, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let broken = |error: serde_json::Error| Unreadable::Broken(error.to_string());
        let Version { v } = serde_json::from_slice(body).map_err(broken)?;
        if v > JOB_VERSION {
            return Err(Unreadable::Newer(v));
        }
        serde_json::from_slice(body).map_err(broken)
    }
}

/// Why a body is no job for this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("written by a newer version (body version {0}, this build reads {JOB_VERSION})")]
    Newer(u32),
    #[error("not a job body: {0}")]
    Broken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueErrorKind {
    /// Out of reach, too slow, or blocked by an alarm. Whether a publish arrived is not known.
    Unavailable,
    /// The broker refused the message (queue full).
    Refused,
    /// A queue differs from what is recorded, or is missing and may not be declared.
    Topology,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    pub kind: QueueErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl QueueError {
    pub fn new(kind: QueueErrorKind, message: impl Into<String>) -> QueueError {
        QueueError {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub fn because(
        kind: QueueErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> QueueError {
        QueueError {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }
}

pub type QueueResult<T> = Result<T, QueueError>;

/// The queue has the job, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Confirmed;

/// How deep one lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub lane: Lane,
    /// Jobs ready for a worker.
    pub ready: u64,
}

/// Depth of the whole queue, as the broker counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    pub lanes: Vec<Depth>,
    /// Jobs in the wait queues.
    pub waiting: u64,
    /// Jobs whose consumers died again and again, not yet drained into the store's dead letters.
    pub dead: u64,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Publishes and waits for the confirmation. An error means "not known to be there": the caller leaves its mark in
    /// the store, and the sweep rings again.
    async fn publish(&self, job: &Job) -> QueueResult<Confirmed>;

    /// Starts to consume. At most `slots` deliveries are out at once. The consumer reconnects by itself for as long as
    /// it lives.
    async fn consume(&self, lanes: &[Lane], slots: usize) -> QueueResult<Box<dyn Consumer>>;

    async fn depth(&self) -> QueueResult<Depths>;

    /// Takes jobs that the broker gave up on, for the store's dead letters. `sink` is called for each body; one for
    /// which it returns an error stays.
    async fn drain_dead(&self, sink: &dyn DeadSink) -> QueueResult<u64>;

    /// One line for logs: which backend, where (without secrets), which namespace.
    fn describe(&self) -> String;

    /// Fails if nothing can be published now.
    async fn ping(&self) -> QueueResult<()>;

    /// True while the broker blocks publishers (memory or disk alarm).
    fn is_blocked(&self) -> bool;
}

#[async_trait]
pub trait DeadSink: Send + Sync {
    async fn put(&self, body: &[u8], reason: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. Waits while there is none, and while the broker is away; `None` once [`Consumer::stop`] ran.
    async fn next(&mut self) -> Option<Delivery>;

    /// Takes no further deliveries. Those that are out can still be settled.
    async fn stop(&mut self);
}

/// A delivered body that must be settled. One that is dropped unsettled comes again.
#[must_use = "an unsettled delivery comes again"]
pub struct Delivery {
    job: Result<Job, Unreadable>,
    body: Vec<u8>,
    settler: Box<dyn Settler>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done with (also: superseded, or kept in the dead letters).
    Ack,
    /// The given job comes instead, no earlier than `after` (a confirmed copy, then the ack).
    Later { job: Job, after: Duration },
    /// The same body comes again, no earlier than `after`.
    PutOff { after: Duration },
}

/// A backend's side of a delivery.
#[async_trait]
pub trait Settler: Send {
    async fn settle(self: Box<Self>, body: &[u8], how: &Settle) -> QueueResult<()>;
}

impl Delivery {
    pub fn new(body: Vec<u8>, settler: Box<dyn Settler>) -> Delivery {
        Delivery {
            job: Job::read(&body),
            body,
            settler,
        }
    }

    pub fn job(&self) -> Result<&Job, &Unreadable> {
        self.job.as_ref()
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// On an error the delivery counts as unsettled and comes again.
    pub async fn settle(self, how: &Settle) -> QueueResult<()> {
        self.settler.settle(&self.body, how).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_body_version_is_read_for_ever() {
        let body = br#"{"v":1,"id":"00","kind":"contacts.ids","account":"abcdefghijklmnopqrstuvwx23","lane":"refresh","attempt":1,"at":5}"#;
        let job = Job::read(body).unwrap();
        assert_eq!((job.kind, job.lane, job.attempt), (Kind::Ids, Lane::Refresh, 1));
        assert_eq!(job.to_json(), body);
    }

    #[test]
    fn a_kind_that_came_later_has_the_body_version_it_came_with() {
        for (kind, version, word) in [(Kind::Agents, 2, "agents"), (Kind::Link, 3, "link")] {
            let body = format!(
                r#"{{"v":{version},"id":"00","kind":"{word}","account":"abcdefghijklmnopqrstuvwx23","lane":"build","attempt":1,"at":5}}"#
            );
            let job = Job::read(body.as_bytes()).unwrap();
            assert_eq!((job.kind, job.v), (kind, body_version(kind)));
            assert_eq!(job.to_json(), body.as_bytes());
        }
    }

    #[test]
    fn newer_and_broken_bodies_are_told_apart() {
        assert_eq!(Job::read(br#"{"v":4,"shape":"new"}"#), Err(Unreadable::Newer(4)));
        for body in [&b""[..], b"{}", b"{\"v\":1}", b"\xff", b"[]"] {
            assert!(matches!(Job::read(body), Err(Unreadable::Broken(_))), "{body:?}");
        }
    }
}
