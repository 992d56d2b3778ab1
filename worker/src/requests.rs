//! Asking for work: mark contacts dirty and ring, park and unpark. Used by the front (webhooks, first calls), the worker
//! and the sweep.
//!
//! The order is what keeps promises: first the store knows of the work, then the queue is rung. Whatever fails after
//! the first step is made good by the sweep.

use std::sync::Arc;
use std::time::Duration;

use contacts::queue::Confirmed;
use contacts::work::{self, Ring, WorkTimes};
use contacts::{AccountId, Clock, Job, JobId, Kind, Lane, Micros, Queue, QueueError, Store, StoreError};

use crate::crash;
use crate::deps::NOTED_WITHIN;

pub struct Requests {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    clock: Arc<dyn Clock>,
    times: WorkTimes,
    dirty_limit: usize,
}

/// Why work could not be asked for. What the store had already taken stays there and is rung for by the sweep.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the work could not be stored")]
    Store(#[from] StoreError),
    #[error("the work is stored, but the queue did not confirm its job")]
    Queue(#[from] QueueError),
}

/// What a ring led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    Published,
    /// A job waits already.
    Waiting,
    /// The account is parked or paused.
    Held,
}

/// A webhook this soon after a noted one is not noted itself while a job waits: a storm writes no document per event.
/// When a poll is due again hangs on the time ([`crate::deps::after_event`]), so there it must be nearly true.
fn noted_within(kind: Kind) -> Duration {
    match kind {
        Kind::Changes => NOTED_WITHIN,
        _ => Duration::from_secs(60),
    }
}

impl Requests {
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        clock: Arc<dyn Clock>,
        times: WorkTimes,
        dirty_limit: usize,
    ) -> Requests {
        Requests {
            store,
            queue,
            clock,
            times,
            dirty_limit,
        }
    }

    /// How long leases and markers last here.
    pub fn times(&self) -> WorkTimes {
        self.times
    }

    /// A webhook named these contacts: they will be fetched by a call that starts later (invariant 9). `by_id`: the
    /// connector can fetch by id; else a poll must find them.
    pub async fn changed(&self, account: &AccountId, ids: &[String], by_id: bool) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        self.fetch(account, ids, by_id, Lane::Refresh, Some(now)).await
    }

    /// An action made this contact, and somebody is about to look for it.
    pub async fn made(&self, account: &AccountId, id: &str, by_id: bool) -> Result<Rung, RequestError> {
        self.fetch(account, &[id.to_owned()], by_id, Lane::Build, None).await
    }

    async fn fetch(
        &self,
        account: &AccountId,
        ids: &[String],
        by_id: bool,
        lane: Lane,
        event: Option<Micros>,
    ) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        let mut kind = Kind::Changes;
        if by_id && !ids.is_empty() {
            let marked = self.store.mark(account, ids, now, self.dirty_limit).await?;
            crash::point("between_dirty_and_ring");
            if marked.overflow {
                metrics::counter!("snapbridge_dirty_overflow_total").increment(1);
                self.ring(account, Kind::Changes, lane, event).await?;
            }
            kind = Kind::Ids;
        }
        self.ring(account, kind, lane, event).await
    }

    /// Makes a task due now and publishes a job, unless one waits. `event`: when a webhook asked for it.
    pub async fn ring(
        &self,
        account: &AccountId,
        kind: Kind,
        lane: Lane,
        event: Option<Micros>,
    ) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        // The store had the work before this read; a worker clears the marker before it reads the work. So a marker
        // seen here means that its job will see the work.
        if let Some(event) = event {
            let known = work::load(&*self.store, account).await?;
            let waits = known.tasks.get(&kind).is_some_and(|task| {
                task.due.is_some_and(|due| due <= now)
                    && task
                        .marker
                        .as_ref()
                        .is_some_and(|marker| now < marker.since.plus(self.times.marker))
            });
            let noted = known
                .tasks
                .get(&kind)
                .and_then(|task| task.event)
                .is_some_and(|at| event.since(at) < noted_within(kind));
            if waits && noted {
                return Ok(Rung::Waiting);
            }
        }
        self.ring_by(account, |work| {
            if let Some(event) = event {
                work.note_event(kind, event);
            }
            work.ring(account, kind, lane, JobId::random(), now, &self.times)
        })
        .await
    }

    /// Rings for a task whose time has come. For the sweep.
    pub async fn ring_due(&self, account: &AccountId, kind: Kind) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        self.ring_by(account, |work| {
            work.ring_due(account, kind, JobId::random(), now, &self.times)
        })
        .await
    }

    /// Something was put into the account's inbox.
    pub async fn drain(&self, account: &AccountId) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        // As in `ring`: the inbox had it before this read, and a worker that clears the marker reads the inbox afterwards.
        let known = work::load(&*self.store, account).await?;
        let waits = known.tasks.get(&Kind::Link).is_some_and(|task| {
            task.not_before.is_none_or(|at| at <= now)
                && task
                    .marker
                    .as_ref()
                    .is_some_and(|marker| now < marker.since.plus(self.times.marker))
        });
        match waits {
            true => Ok(Rung::Waiting),
            false => self.ring(account, Kind::Link, Lane::Refresh, None).await,
        }
    }

    /// The inbox holds something that is due. For the sweep: what waits or runs already is left alone.
    pub async fn drain_due(&self, account: &AccountId) -> Result<Rung, RequestError> {
        let now = self.clock.now();
        self.ring_by(account, |work| {
            let put_off = work
                .tasks
                .get(&Kind::Link)
                .and_then(|task| task.not_before)
                .is_some_and(|at| at > now);
            match put_off || work.is_under_way(Kind::Link, now) && work.look_at(Kind::Link, &self.times) > Some(now) {
                true => Ring::Waiting,
                false => work.ring(account, Kind::Link, Lane::Refresh, JobId::random(), now, &self.times),
            }
        })
        .await
    }

    async fn ring_by(
        &self,
        account: &AccountId,
        mut decide: impl FnMut(&mut work::Work) -> Ring,
    ) -> Result<Rung, RequestError> {
        let mut decided = None;
        let rung = work::update(&*self.store, account, &self.times, |work| {
            let ring = decide(work);
            decided = Some(ring.clone());
            ring
        })
        .await;
        match (rung, decided) {
            (Ok(ring), _) => self.publish(account, ring).await,
            (Err(error), Some(Ring::Publish(job))) => {
                // The store may have taken the marker and only its answer is lost; a marker without a job would hold up
                // the task until it runs out. If it has not, the job is superseded.
                if let Err(error) = self.queue.publish(&job).await {
                    tracing::warn!(%account, kind = %job.kind, %error, "a marker without a job stays until it runs out");
                }
                Err(error.into())
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn publish(&self, account: &AccountId, ring: Ring) -> Result<Rung, RequestError> {
        let job = match ring {
            Ring::Publish(job) => Job {
                trace: crate::trace::current(),
                ..job
            },
            Ring::Waiting => return Ok(Rung::Waiting),
            Ring::Held => return Ok(Rung::Held),
        };
        let kind = job.kind;
        crash::point("between_marker_and_publish");
        match self.queue.publish(&job).await {
            Ok(Confirmed) => Ok(Rung::Published),
            Err(error) => {
                // So that the next event tries again at once. If this fails too, the marker runs out by itself.
                let unrung = work::update(&*self.store, account, &self.times, |work| work.unring(kind, &job.id)).await;
                if let Err(error) = unrung {
                    tracing::warn!(%account, %kind, %error, "a marker without a job stays until it runs out");
                }
                Err(error.into())
            }
        }
    }

    /// The CRM no longer takes the account's credentials: its work stands still.
    pub async fn park(&self, account: &AccountId, message: &str) -> Result<(), RequestError> {
        let now = self.clock.now();
        work::update(&*self.store, account, &self.times, |work| {
            work.park(message.to_owned(), now)
        })
        .await?;
        Ok(())
    }

    /// Talkdesk came with refused credentials of this account: whether they may be put to the CRM once more
    /// ([`work::Work::recheck`]).
    pub async fn recheck(&self, account: &AccountId, after: Duration) -> Result<bool, StoreError> {
        let now = self.clock.now();
        work::update(&*self.store, account, &self.times, |work| work.recheck(after, now)).await
    }

    /// The credentials are good again: what is due is rung for.
    pub async fn unpark(&self, account: &AccountId) -> Result<(), RequestError> {
        let now = self.clock.now();
        self.go_on(account, |work| Some(work.unpark(now))).await.map(|_| ())
    }

    /// Talkdesk has called for a suspended account again: what is due is rung for. `false`: it was not suspended.
    pub async fn unsuspend(&self, account: &AccountId) -> Result<bool, RequestError> {
        let now = self.clock.now();
        self.go_on(account, |work| work.unsuspend(now)).await
    }

    /// An operator stops the account's work. `false`: it was paused already.
    pub async fn pause(&self, account: &AccountId, by: &str) -> Result<bool, RequestError> {
        let now = self.clock.now();
        Ok(work::update(&*self.store, account, &self.times, |work| {
            work.pause(by.to_owned(), now)
        })
        .await?)
    }

    /// An operator ends a pause: what is due is rung for. `false`: it was not paused.
    pub async fn resume(&self, account: &AccountId) -> Result<bool, RequestError> {
        let now = self.clock.now();
        self.go_on(account, |work| work.resume(now)).await
    }

    /// `decide`: which kinds are due; `None`: nothing was changed.
    async fn go_on(
        &self,
        account: &AccountId,
        mut decide: impl FnMut(&mut work::Work) -> Option<Vec<Kind>>,
    ) -> Result<bool, RequestError> {
        let due = work::update(&*self.store, account, &self.times, |work| {
            let lane = |work: &work::Work, kind| work.tasks.get(&kind).and_then(|task| task.lane);
            let kinds = decide(work)?;
            let with_lane = |kind| (kind, lane(work, kind).unwrap_or(Lane::Refresh));
            Some(kinds.into_iter().map(with_lane).collect::<Vec<_>>())
        })
        .await?;
        let Some(due) = due else { return Ok(false) };
        for (kind, lane) in due {
            self.ring(account, kind, lane, None).await?;
        }
        Ok(true)
    }
}
