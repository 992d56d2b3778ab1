//! Takes deliveries, runs their slices, settles them.

use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::dead::{self, DeadLetter};
use contacts::outcome::{self, Outcome};
use contacts::queue::{Delivery, QueueResult, Settle, Unreadable};
use contacts::runs::{self, Run, Tally};
use contacts::work::{self, Begin, End, Failure, Finished};
use contacts::{ErrorKind, Fence, Job, JobId, Kind, Lane, Micros, StoreError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::crash;
use crate::deps::{Deps, after_event, jittered, next_poll};
use crate::drain::Drain;
use crate::slice::{Ended, Polled, Slice, SliceError};

/// How long a body that a newer version wrote is put off.
const NEWER_WAIT: Duration = Duration::from_secs(30);

/// How long a worker whose stop grace is over may take to hand over what it abandons.
const HAND_OVER: Duration = Duration::from_secs(1);

/// What a slice in hand must heed.
#[derive(Clone, Default)]
struct Halt {
    /// End at the next page.
    stop: CancellationToken,
    /// Give up the page in hand, too, and hand over.
    abandon: CancellationToken,
    /// Not even that: the delivery comes again, to somebody else, and the lease runs out.
    leave: CancellationToken,
}

/// Runs a worker until `stop`: consumer, sweep, and the drain of the queue's dead jobs. Returns when the slices in hand
/// have ended; the pages that outlast the stop grace are abandoned, and whoever goes on reads them again.
pub async fn run(deps: Deps, stop: CancellationToken) -> QueueResult<()> {
    let Some(holding) = crate::held::watch(&deps, &stop).await else {
        return Ok(());
    };
    let mut consumer = deps.queue.consume(&Lane::ALL, deps.policy.slots).await?;
    let sweeping = tokio::spawn(crate::sweep::run(deps.clone(), stop.clone()));
    let subscribing = tokio::spawn(crate::subscriptions::run(deps.clone(), stop.clone()));
    let slices = TaskTracker::new();
    let halt = Halt {
        stop: stop.clone(),
        ..Halt::default()
    };
    loop {
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            delivery = consumer.next() => delivery,
        };
        let Some(delivery) = delivery else { break };
        let (deps, halt) = (deps.clone(), halt.clone());
        slices.spawn(async move {
            let _in_flight = InFlight::new();
            tokio::select! {
                () = halt.leave.cancelled() => {}
                () = handle(&deps, delivery, &halt) => {}
            }
        });
    }
    consumer.stop().await;
    slices.close();
    if tokio::time::timeout(deps.policy.stop_grace, slices.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            slices = slices.len(),
            "slices did not end within the stop grace; their pages are abandoned"
        );
        halt.abandon.cancel();
        if tokio::time::timeout(HAND_OVER, slices.wait()).await.is_err() {
            tracing::warn!(
                slices = slices.len(),
                "slices could not be handed over; they go on when their leases run out"
            );
            halt.leave.cancel();
            slices.wait().await;
        }
    }
    sweeping.abort();
    holding.abort();
    subscribing.abort();
    Ok(())
}

/// Counts a delivery in hand, also if its task panics.
struct InFlight;

impl InFlight {
    fn new() -> InFlight {
        metrics::gauge!("snapbridge_in_flight").increment(1.0);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("snapbridge_in_flight").decrement(1.0);
    }
}

async fn handle(deps: &Deps, delivery: Delivery, halt: &Halt) {
    let how = match delivery.job() {
        Err(Unreadable::Newer(version)) => {
            tracing::warn!(version, "a job of a newer version is put off");
            Settle::PutOff { after: NEWER_WAIT }
        }
        Err(Unreadable::Broken(error)) => match bury_unreadable(deps, delivery.body(), error.clone()).await {
            Ok(()) => Settle::Ack,
            Err(_) => Settle::PutOff {
                after: deps.policy.busy_wait,
            },
        },
        Ok(job) => {
            let job = job.clone();
            let span = tracing::info_span!("job", account = %job.account, kind = %job.kind, lane = job.lane.as_str());
            crate::trace::adopt(&span, job.trace.as_deref());
            match take(deps, &job, halt).instrument(span).await {
                // What it goes on with belongs to the same trace.
                Settle::Later { job: next, after } => Settle::Later {
                    job: Job {
                        trace: job.trace,
                        ..next
                    },
                    after,
                },
                how => how,
            }
        }
    };
    crash::point("before_ack");
    if let Err(error) = delivery.settle(&how).await {
        // It comes again; the marker or the lease tells the next taker what is still to be done.
        tracing::warn!(%error, "a delivery could not be settled and comes again");
    }
}

/// Begins a job and runs its slice.
async fn take(deps: &Deps, job: &Job, halt: &Halt) -> Settle {
    let now = deps.clock.now();
    let times = &deps.policy.times;
    match hold_back(deps, job).await {
        Ok(false) => {}
        Ok(true) => {
            count(job.kind, "held");
            return Settle::Ack;
        }
        Err(error) => {
            tracing::warn!(account = %job.account, kind = %job.kind, %error, "a job could not be begun");
            return Settle::PutOff {
                after: deps.policy.busy_wait,
            };
        }
    }
    let begun = work::update(&*deps.store, &job.account, times, |work| {
        work.begin(job.kind, &job.id, &deps.owner, now, times)
    })
    .await;
    match begun {
        Ok(Begin::Started {
            fence,
            failed,
            wanted_after,
        }) => {
            crash::point("after_begin");
            count(job.kind, "started");
            slice(deps, job, fence, failed + 1, wanted_after, halt).await
        }
        Ok(Begin::Superseded) => {
            count(job.kind, "superseded");
            Settle::Ack
        }
        Ok(Begin::Held) => {
            count(job.kind, "held");
            Settle::Ack
        }
        Ok(Begin::Busy { until, leased }) => {
            count(job.kind, "busy");
            let wait = until.since(now).min(times.marker / 2).max(Duration::from_millis(1));
            Settle::PutOff {
                after: if leased { wait.min(deps.policy.busy_wait) } else { wait },
            }
        }
        Err(error) => {
            tracing::warn!(account = %job.account, kind = %job.kind, %error, "a job could not be begun");
            Settle::PutOff {
                after: deps.policy.busy_wait,
            }
        }
    }
}

/// Whether an operator has paused the job's connector or lane. Then it is looked at again in a while.
async fn hold_back(deps: &Deps, job: &Job) -> Result<bool, StoreError> {
    if deps.held.is_empty() {
        return Ok(false);
    }
    let Some(account) = accounts::get(&*deps.store, &job.account).await? else {
        return Ok(false);
    };
    if deps.held.by(&account.connector, job.lane).is_none() {
        return Ok(false);
    }
    let look = deps.clock.now().plus(deps.policy.held_look);
    work::update(&*deps.store, &job.account, &deps.policy.times, |work| {
        work.hold_back(job.kind, &job.id, look);
    })
    .await?;
    Ok(true)
}

async fn slice(deps: &Deps, job: &Job, fence: Fence, attempt: u32, wanted_after: Fence, halt: &Halt) -> Settle {
    let account = match accounts::get(&*deps.store, &job.account).await {
        Ok(account) => account,
        Err(error) => return store_failed(deps, job, error),
    };
    let began = deps.clock.now();
    let (result, reached) = match &account {
        Some(account) if job.kind == Kind::Link => run_drain(deps, account, job, fence, halt).await,
        Some(account) => run_slice(deps, account, job, fence, wanted_after, halt).await,
        // Its document is gone, so is its work: an unknown account costs no calls.
        None => (Ok(Ended::Done), Reached::default()),
    };
    let now = deps.clock.now();
    let (outcome, failure) = match &result {
        Ok(Ended::Done) => (Outcome::Done, None),
        Ok(Ended::More) => (Outcome::Continue, None),
        Err(error) => {
            let Some(kind) = error.kind() else {
                count(job.kind, "lost");
                return Settle::Ack;
            };
            let mut outcome = outcome::judge(kind, attempt, now, &deps.policy.retry);
            // Payloads die one by one; what keeps all of them waiting is waited for.
            if let (Kind::Link, Outcome::Dead { .. }) = (job.kind, &outcome) {
                outcome = Outcome::Retry {
                    after: deps.policy.retry.wait(attempt),
                };
            }
            if outcome == Outcome::Park && credentials_are_newer(deps, account.as_ref()).await {
                outcome = Outcome::Due {
                    at: now.plus(Duration::from_millis(1)),
                };
            }
            (outcome, Some((kind, chain(error))))
        }
    };
    count(job.kind, name(&outcome));
    if let Some((kind, message)) = &failure {
        tracing::warn!(
            account = %job.account, kind = %job.kind, attempt, error = kind.as_str(), %message,
            outcome = name(&outcome), "a slice failed"
        );
    }
    if let (Some(account), Some((ErrorKind::Credentials, _)), Outcome::Park) = (&account, &failure, &outcome)
        && let Err(error) = accounts::refuse(
            &*deps.store,
            &account.fingerprint,
            Some(&account.id),
            accounts::REFUSAL_LIFE,
            now,
        )
        .await
    {
        return store_failed(deps, job, error);
    }
    if let Outcome::Dead { reason } = &outcome {
        let detail = failure.as_ref().map(|(_, message)| message.clone()).unwrap_or_default();
        if let Err(error) = bury(deps, job, attempt, reason, detail).await {
            return store_failed(deps, job, error);
        }
    }
    if account.is_some() {
        let run = Run {
            kind: job.kind,
            lane: job.lane,
            began,
            ended: now,
            outcome: name(&outcome).to_owned(),
            error: failure.as_ref().map(|(_, message)| message.clone()),
            times: 1,
            tally: reached.tally.clone(),
        };
        if let Err(error) = runs::note(&*deps.store, &job.account, &run).await {
            tracing::debug!(%error, "a run could not be noted");
        }
    }
    let failure = failure.map(|(kind, message)| {
        let again = match &outcome {
            Outcome::Retry { after } => Some(now.plus(*after)),
            Outcome::Due { at } => Some(*at),
            _ => None,
        };
        Failure {
            at: now,
            kind: kind.as_str().to_owned(),
            message,
            again,
        }
    });
    if let (Some(account), Kind::Full, true) = (&account, job.kind, reached.ready) {
        crate::subscriptions::expect(deps, account).await;
    }
    crash::point("before_finish");
    let settled = finish(deps, job, account.as_ref(), fence, reached, &outcome, failure).await;
    match settled {
        Ok(Finished::Settled | Finished::Lost) => Settle::Ack,
        Ok(Finished::Publish { job, after }) => Settle::Later { job, after },
        Err((error, None)) => store_failed(deps, job, error),
        // The store may know of this job and only its answer is lost. If not, the job is superseded, as the one in hand
        // would be.
        Err((error, Some((next, after)))) => {
            store_failed(deps, job, error);
            Settle::Later { job: next, after }
        }
    }
}

/// Whether the account has got other credentials since the slice began: a refusal of the old ones parks nothing.
async fn credentials_are_newer(deps: &Deps, used: Option<&Account>) -> bool {
    let Some(used) = used else { return false };
    let now = accounts::get(&*deps.store, &used.id).await.ok().flatten();
    now.is_some_and(|now| now.fingerprint != used.fingerprint)
}

/// Where a slice left the snapshot.
#[derive(Clone, Default)]
struct Reached {
    /// The first build has ended.
    ready: bool,
    polled: Option<Polled>,
    /// When the next payload of the inbox is due.
    next_payload: Option<Micros>,
    tally: Tally,
}

async fn run_drain(
    deps: &Deps,
    account: &Account,
    job: &Job,
    fence: Fence,
    halt: &Halt,
) -> (Result<Ended, SliceError>, Reached) {
    let mut drain = match Drain::open(deps, account, job, fence, &halt.stop).await {
        Ok(drain) => drain,
        Err(error) => return (Err(error), Reached::default()),
    };
    let result = tokio::select! {
        result = drain.run() => result,
        () = halt.abandon.cancelled() => Ok(Ended::More),
    };
    drain.rest().await;
    let reached = Reached {
        next_payload: drain.next(),
        tally: drain.tally(),
        ..Reached::default()
    };
    (result, reached)
}

async fn run_slice(
    deps: &Deps,
    account: &Account,
    job: &Job,
    fence: Fence,
    wanted_after: Fence,
    halt: &Halt,
) -> (Result<Ended, SliceError>, Reached) {
    let mut slice = match Slice::open(deps, account, (job.kind.stream(), job.lane), fence, &halt.stop).await {
        Ok(slice) => slice,
        Err(error) => return (Err(error), Reached::default()),
    };
    let result = tokio::select! {
        result = slice.run(job.kind, wanted_after) => result,
        () = halt.abandon.cancelled() => Ok(Ended::More),
    };
    slice.rest().await;
    let reached = Reached {
        ready: slice.is_ready(),
        polled: slice.polled(),
        tally: slice.tally(),
        ..Reached::default()
    };
    (result, reached)
}

/// What became of the slice; if the store does not say, the job that it may have been told of.
async fn finish(
    deps: &Deps,
    job: &Job,
    account: Option<&Account>,
    fence: Fence,
    reached: Reached,
    outcome: &Outcome,
    failure: Option<Failure>,
) -> Result<Finished, (StoreError, Option<(Job, Duration)>)> {
    let now = deps.clock.now();
    let times = &deps.policy.times;
    let pace = account.and_then(|account| deps.sources.pace(&account.integration));
    // Ids that were marked just before their front died: nobody rang for them, so the end of a poll does.
    let left_dirty = match (job.kind, outcome) {
        (Kind::Changes, Outcome::Done) => {
            let dirty = deps.store.dirty(&job.account, 1).await;
            !dirty.map_err(|error| (error, None))?.is_empty()
        }
        _ => false,
    };
    let mut decided = None;
    let finished = work::update(&*deps.store, &job.account, times, |work| {
        let poll_at =
            pace.map(|pace| next_poll(pace.poll, pace.jitter, &job.account, work.last_event, pace.silence, now));
        let next = match (job.kind, pace, poll_at) {
            (Kind::Link, ..) => reached.next_payload.map(|at| (at, Lane::Refresh)),
            (Kind::Ids, ..) | (_, None, _) | (_, _, None) => None,
            (Kind::Changes, Some(_), Some(at)) => {
                let event = work.tasks.get(&Kind::Changes).and_then(|task| task.event);
                let again = reached
                    .polled
                    .and_then(|polled| after_event(event, polled.started, polled.lag));
                Some((again.map_or(at, |again| again.min(at)), Lane::Refresh))
            }
            (Kind::Full, Some(pace), _) if reached.ready => Some((
                now.plus(jittered(pace.reconcile, pace.jitter, &job.account)),
                Lane::Reconcile,
            )),
            (Kind::Full, Some(_), _) => Some((now.plus(deps.policy.retry.max), Lane::Build)),
            // Also if they could never be read: Talkdesk's next call asks again.
            (Kind::Agents, Some(pace), _) => pace
                .agents
                .map(|period| (now.plus(jittered(period, pace.jitter, &job.account)), Lane::Reconcile)),
        };
        if let (Kind::Full, true, Some(at)) = (job.kind, reached.ready, poll_at) {
            work.due_at(Kind::Changes, Lane::Refresh, at);
        }
        if left_dirty {
            work.due_at(Kind::Ids, Lane::Refresh, now);
        }
        // An account from before its connector had agents.
        let agents = pace.is_some_and(|pace| pace.agents.is_some());
        if agents
            && !matches!(job.kind, Kind::Agents | Kind::Link)
            && work.tasks.get(&Kind::Agents).is_none_or(|task| task.due.is_none())
        {
            work.due_at(Kind::Agents, Lane::Build, now);
        }
        let end = End {
            kind: job.kind,
            fence,
            outcome,
            failure: failure.clone(),
            next,
            job: JobId::random(),
            give_way: deps.policy.busy_wait,
        };
        let finished = work.finish(&job.account, end, now);
        decided = Some(finished.clone());
        finished
    })
    .await;
    finished.map_err(|error| match decided {
        Some(Finished::Publish { job, after }) => (error, Some((job, after))),
        _ => (error, None),
    })
}

/// The lease runs out by itself and the sweep rings again; meanwhile nothing is lost.
fn store_failed(deps: &Deps, job: &Job, error: StoreError) -> Settle {
    tracing::warn!(account = %job.account, kind = %job.kind, %error, "the store failed at the end of a slice");
    count(job.kind, "store_failed");
    Settle::PutOff {
        after: deps.policy.busy_wait,
    }
}

/// Keeps a dead letter. Contact ids that could not be fetched move from the dirty set into it.
async fn bury(deps: &Deps, job: &Job, attempts: u32, reason: &str, detail: String) -> Result<(), StoreError> {
    let dirty = match job.kind {
        Kind::Ids => deps.store.dirty(&job.account, deps.policy.dirty_limit).await?,
        Kind::Changes | Kind::Full | Kind::Agents | Kind::Link => Vec::new(),
    };
    let letter = DeadLetter {
        id: job.id.clone(),
        account: Some(job.account.clone()),
        kind: Some(job.kind),
        lane: Some(job.lane),
        reason: reason.to_owned(),
        detail,
        attempts,
        at: deps.clock.now(),
        ids: dirty.iter().map(|dirty| dirty.id.clone()).collect(),
        payload: None,
    };
    dead::put(&*deps.store, &letter).await?;
    deps.store.clear(&job.account, &dirty).await?;
    metrics::counter!("snapbridge_dead_letters_total", "kind" => job.kind.as_str()).increment(1);
    Ok(())
}

/// Keeps a body that is no job.
pub(crate) async fn bury_unreadable(deps: &Deps, body: &[u8], error: String) -> Result<(), StoreError> {
    let letter = DeadLetter {
        id: JobId::random(),
        account: None,
        kind: None,
        lane: None,
        reason: "the job's body cannot be read".to_owned(),
        detail: format!("{error} ({} bytes)", body.len()),
        attempts: 0,
        at: deps.clock.now(),
        ids: Vec::new(),
        payload: None,
    };
    tracing::error!(%error, "a job's body cannot be read; it is kept as a dead letter");
    metrics::counter!("snapbridge_dead_letters_total", "kind" => "unreadable").increment(1);
    dead::put(&*deps.store, &letter).await
}

fn count(kind: Kind, outcome: &'static str) {
    metrics::counter!("snapbridge_jobs_total", "kind" => kind.as_str(), "outcome" => outcome).increment(1);
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Continue => "continued",
        Outcome::Retry { .. } => "retried",
        Outcome::Due { .. } => "due",
        Outcome::Park => "parked",
        Outcome::Dead { .. } => "dead",
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
