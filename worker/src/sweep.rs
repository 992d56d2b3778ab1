//! The sweep: a timer that rings for what is due, whatever was lost on the way, and takes in the jobs that the queue gave
//! up on. Every worker process runs one; ringing is idempotent, so they need no leader.

use std::error::Error;

use async_trait::async_trait;
use contacts::Job;
use contacts::dead::{self, DeadLetter};
use contacts::inbox;
use contacts::queue::DeadSink;
use contacts::work::{self, LOOK};
use tokio_util::sync::CancellationToken;

use crate::consume::bury_unreadable;
use crate::deps::Deps;

/// Tasks rung for per shard and sweep; the rest comes with the next.
const PER_SHARD: usize = 200;

pub async fn run(deps: Deps, stop: CancellationToken) {
    let mut walk = crate::life::Walk::default();
    loop {
        match once(&deps).await {
            Ok(rung) if rung > 0 => tracing::debug!(rung, "the sweep rang"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the sweep could not finish"),
        }
        if let Err(error) = deps.queue.drain_dead(&Undertaker(&deps)).await {
            tracing::warn!(%error, "the queue's dead jobs could not be taken in");
        }
        if let Err(error) = walk.go_on(&deps).await {
            tracing::warn!(%error, "the walk over the accounts could not go on");
        }
        // Jitter, so that several processes do not look at the same moment.
        let pause = deps
            .policy
            .sweep
            .mul_f64(rand::Rng::random_range(&mut rand::rng(), 0.8..1.2));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One sweep; returns how many jobs were published.
pub async fn once(deps: &Deps) -> Result<u64, crate::requests::RequestError> {
    let now = deps.clock.now();
    let mut rung = 0;
    for (member, _) in deps.store.index_until(LOOK, now, PER_SHARD).await? {
        let Some((account, kind)) = work::parse_member(&member) else {
            continue;
        };
        if deps.requests.ring_due(&account, kind).await? == crate::requests::Rung::Published {
            rung += 1;
        }
    }
    // What lies in an inbox although its front died before it rang, and what is to be tried again.
    for account in inbox::due(&*deps.store, now, PER_SHARD).await? {
        if deps.requests.drain_due(&account).await? == crate::requests::Rung::Published {
            rung += 1;
        }
    }
    metrics::counter!("snapbridge_sweep_rings_total").increment(rung);
    Ok(rung)
}

/// Puts what the broker gave up on into the store's dead letters.
struct Undertaker<'a>(&'a Deps);

#[async_trait]
impl DeadSink for Undertaker<'_> {
    async fn put(&self, body: &[u8], reason: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        let job = match Job::read(body) {
            Ok(job) => job,
            Err(error) => return Ok(bury_unreadable(self.0, body, error.to_string()).await?),
        };
        let letter = DeadLetter {
            id: job.id,
            account: Some(job.account),
            kind: Some(job.kind),
            lane: Some(job.lane),
            reason: format!("the queue gave up on it: {reason}"),
            detail: String::new(),
            attempts: job.attempt,
            at: self.0.clock.now(),
            ids: Vec::new(),
            payload: None,
        };
        tracing::error!(kind = ?letter.kind, reason, "the queue gave up on a job; it is kept as a dead letter");
        Ok(dead::put(&*self.0.store, &letter).await?)
    }
}
