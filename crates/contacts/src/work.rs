//! The work of an account: what is due, which job waits, who holds the lease, why it stands still. One document per
//! account, changed by the pure functions here; the sweep finds it through the index [`LOOK`].
//!
//! A task (one per [`Kind`]) goes round like this: **rung** (due now, a job with the marker's id waits in the queue) →
//! **begun** (a worker took the lease, the marker is gone; a ring from now on means another round) → **finished** (done,
//! continued, retried, due later, parked, dead). A job whose id is not the marker's is superseded. Whatever is lost on
//! the way (a job, a worker, the queue) costs time only: [`Work::look_at`] says when the sweep must ring again.

mod held;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::{AccountId, Fence, JobId, Kind, Lane, Stream};
use crate::outcome::Outcome;
use crate::ports::{DocKey, DocKind, Documents, IndexChange, StoreResult};
use crate::queue::{Job, body_version};
use crate::time::Micros;

/// Index of when the sweep must look at a task. Members: `account|kind`.
pub const LOOK: &str = "look";
/// Index of parked accounts, by when they were parked. Members: account ids.
pub const PARKED: &str = "parked";
/// Index of paused accounts.
pub const PAUSED: &str = "paused";
/// Index of suspended accounts.
pub const SUSPENDED: &str = "suspended";
/// Index of when accounts were last refreshed: the oldest is the stalest snapshot. Members: account ids.
pub const FRESH: &str = "fresh";

/// Index of when the tasks of a lane are or became due: backlog and oldest age. Members: `account|kind`.
pub fn due_index(lane: Lane) -> String {
    format!("due:{lane}")
}

/// Work that is due within this time waits in the queue; what is due later is rung for by the sweep.
const SOON: Duration = Duration::from_secs(600);

/// How long leases and markers last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkTimes {
    /// A worker that does not renew within this time has lost the account.
    pub lease: Duration,
    /// A job that no worker took within this time is rung for again.
    pub marker: Duration,
}

impl Default for WorkTimes {
    fn default() -> WorkTimes {
        WorkTimes {
            lease: Duration::from_secs(30),
            marker: Duration::from_secs(120),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Who refreshes the contacts.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Who refreshes the agents. Streams share nothing but the fences, so a build of hours keeps no agent waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_lease: Option<Lease>,
    /// The highest fencing token ever given, whatever the stream.
    #[serde(default)]
    pub fence: u64,
    #[serde(default)]
    pub tasks: BTreeMap<Kind, Task>,
    #[serde(default)]
    pub park: Option<Park>,
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Since when it stands still because Talkdesk no longer calls for it ([`crate::life`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Micros>,
    /// The last webhook that led to a ring.
    #[serde(default)]
    pub last_event: Option<Micros>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub owner: String,
    pub fence: Fence,
    pub kind: Kind,
    pub until: Micros,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// When it is, or was, to be looked at; kept while it waits and runs, so that its age shows. `None`: never.
    #[serde(default)]
    pub due: Option<Micros>,
    #[serde(default)]
    pub lane: Option<Lane>,
    /// The newest fence when somebody asked for it last (a webhook, a user, an operator; not the sweep).
    #[serde(default)]
    pub asked: Fence,
    /// The fence under which it was done last.
    #[serde(default)]
    pub done: Fence,
    #[serde(default)]
    pub marker: Option<Marker>,
    /// Nothing runs before this, whoever rings.
    #[serde(default)]
    pub not_before: Option<Micros>,
    /// Failed attempts since the last success.
    #[serde(default)]
    pub failed: u32,
    #[serde(default)]
    pub last_done: Option<Micros>,
    #[serde(default)]
    pub last_error: Option<Failure>,
    /// The last webhook that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Micros>,
}

/// A job waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub job: JobId,
    /// When it could be taken first.
    pub since: Micros,
    /// A worker took the job and had to put it off, because another kind held the lease.
    #[serde(default)]
    pub turned_away: bool,
}

impl Marker {
    fn new(job: JobId, since: Micros) -> Marker {
        Marker {
            job,
            since,
            turned_away: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: Micros,
    /// [`crate::ErrorKind::as_str`].
    pub kind: String,
    /// The error's own words, without secrets or contact data.
    pub message: String,
    /// When it will be tried again, if that is known.
    #[serde(default)]
    pub again: Option<Micros>,
}

/// The account's work stands still until its credentials are renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    pub since: Micros,
    pub message: String,
    /// Talkdesk has come with the refused credentials and was told, so that it is its turn now.
    pub handed_back: bool,
    /// When the refused credentials were last put to the CRM.
    pub rechecked: Micros,
}

/// An operator stopped the account's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub since: Micros,
    pub by: String,
}

/// What a ring leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Publish this job; if that fails, the sweep rings again.
    Publish(Job),
    /// A job waits already.
    Waiting,
    /// Parked or paused: it stays due and is rung for when that ends.
    Held,
}

/// What a worker that took a job may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It holds the lease under this fence.
    Started {
        fence: Fence,
        failed: u32,
        /// What was begun under a later fence than this and is complete need not be done again: its worker died, or lost
        /// the store, before it could say so.
        wanted_after: Fence,
    },
    /// Another job took this one's place: ack it.
    Superseded,
    /// Somebody holds the lease, or it is too early: put the job off. `leased`: it is the lease that lasts until then, and
    /// its holder lets go of it sooner, as a rule.
    Busy { until: Micros, leased: bool },
    /// Parked or paused: ack it.
    Held,
}

/// What a worker must do after it finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Ack.
    Settled,
    /// Ack and publish this, no earlier than `after`.
    Publish { job: Job, after: Duration },
    /// The lease was lost meanwhile: ack, somebody else has the account.
    Lost,
}

/// How a renewal went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    Kept,
    /// Paused or parked: stop at the next page.
    Stop,
    /// Somebody else has the account: stop now.
    Lost,
}

/// The end of a slice.
#[derive(Clone, Debug)]
pub struct End<'a> {
    pub kind: Kind,
    pub fence: Fence,
    pub outcome: &'a Outcome,
    pub failure: Option<Failure>,
    /// When and in which lane the task is due next once it is done or dead. `None`: when somebody rings.
    pub next: Option<(Micros, Lane)>,
    /// The id for a continuation or a retry.
    pub job: JobId,
    /// How long a continuation waits so that a job that was turned away goes first.
    pub give_way: Duration,
}

impl Work {
    /// Makes a task due now, and says whether a job must be published for it.
    pub fn ring(
        &mut self,
        account: &AccountId,
        kind: Kind,
        lane: Lane,
        job: JobId,
        now: Micros,
        times: &WorkTimes,
    ) -> Ring {
        let task = self.tasks.entry(kind).or_default();
        if task.due.is_none_or(|due| due > now) {
            task.due = Some(now);
        }
        task.lane = Some(lane);
        task.asked = Fence(self.fence);
        self.publish(account, kind, job, now, times)
    }

    /// A webhook asks for a task, which is to be rung for next.
    pub fn note_event(&mut self, kind: Kind, at: Micros) {
        self.last_event = self.last_event.max(Some(at));
        let task = self.tasks.entry(kind).or_default();
        task.event = task.event.max(Some(at));
    }

    /// Rings for a task whose time has come, on behalf of whoever wanted it. For the sweep: what a worker finished since
    /// the sweep looked is left alone.
    pub fn ring_due(&mut self, account: &AccountId, kind: Kind, job: JobId, now: Micros, times: &WorkTimes) -> Ring {
        if !self.is_held() && self.look_at(kind, times).is_none_or(|at| at > now) {
            return Ring::Waiting;
        }
        self.publish(account, kind, job, now, times)
    }

    fn publish(&mut self, account: &AccountId, kind: Kind, job: JobId, now: Micros, times: &WorkTimes) -> Ring {
        if self.is_held() {
            return Ring::Held;
        }
        let task = self.tasks.entry(kind).or_default();
        if task
            .marker
            .as_ref()
            .is_some_and(|marker| now < marker.since.plus(times.marker))
        {
            return Ring::Waiting;
        }
        task.marker = Some(Marker::new(job.clone(), now));
        Ring::Publish(task.job(account, kind, job, now))
    }

    /// The job of a ring could not be published: the next ring tries again instead of relying on it.
    pub fn unring(&mut self, kind: Kind, job: &JobId) {
        if let Some(task) = self.tasks.get_mut(&kind)
            && task.marker.as_ref().is_some_and(|marker| marker.job == *job)
        {
            task.marker = None;
        }
    }

    /// Makes a task due at a time, without ringing; the sweep does. Never later than it already is.
    pub fn due_at(&mut self, kind: Kind, lane: Lane, at: Micros) {
        let task = self.tasks.entry(kind).or_default();
        if task.due.is_none_or(|due| due > at) {
            task.due = Some(at);
            task.lane = Some(lane);
        }
    }

    /// A worker took `job` and wants the lease.
    pub fn begin(&mut self, kind: Kind, job: &JobId, owner: &str, now: Micros, times: &WorkTimes) -> Begin {
        let held = self.is_held();
        let busy = self
            .lease_of(kind)
            .filter(|lease| lease.until > now)
            .map(|lease| lease.until);
        let Some(task) = self.tasks.get_mut(&kind) else {
            return Begin::Superseded;
        };
        if task.marker.as_ref().is_none_or(|marker| marker.job != *job) {
            return Begin::Superseded;
        }
        if held {
            task.marker = None;
            return Begin::Held;
        }
        if let Some(until) = busy.max(task.not_before.filter(|at| *at > now)) {
            // It goes on waiting, so its marker must not run out meanwhile.
            task.marker = Some(Marker {
                turned_away: busy.is_some(),
                ..Marker::new(job.clone(), now)
            });
            return Begin::Busy {
                until,
                leased: busy == Some(until),
            };
        }
        task.marker = None;
        // Shaped by the clock, like positions: a store that was lost begins a new document, and a worker of the time before
        // must not hold a fence that it gives again, or a newer one.
        self.fence = now.0.max(self.fence + 1);
        let fence = Fence(self.fence);
        let failed = task.failed;
        let wanted_after = task.asked.max(task.done);
        *self.lease_slot(kind) = Some(Lease {
            owner: owner.to_owned(),
            fence,
            kind,
            until: now.plus(times.lease),
        });
        Begin::Started {
            fence,
            failed,
            wanted_after,
        }
    }

    /// The holder goes on.
    pub fn renew(&mut self, fence: Fence, now: Micros, times: &WorkTimes) -> Renewed {
        let held = self.is_held();
        let mut leases = [&mut self.lease, &mut self.agents_lease].into_iter().flatten();
        match leases.find(|lease| lease.fence == fence) {
            Some(lease) => {
                lease.until = now.plus(times.lease);
                if held { Renewed::Stop } else { Renewed::Kept }
            }
            None => Renewed::Lost,
        }
    }

    /// The holder ends its slice and lets go of the lease.
    pub fn finish(&mut self, account: &AccountId, end: End<'_>, now: Micros) -> Finished {
        if self.lease_of(end.kind).is_none_or(|lease| lease.fence != end.fence) {
            return Finished::Lost;
        }
        *self.lease_slot(end.kind) = None;
        let held = self.is_held();
        let turned_away = self
            .tasks
            .iter()
            .filter(|(kind, _)| kind.stream() == end.kind.stream())
            .any(|(_, task)| task.marker.as_ref().is_some_and(|marker| marker.turned_away));
        let task = self.tasks.entry(end.kind).or_default();
        // A marker now means: rung during the slice, so there is another round whatever came of this one.
        let rung = task.marker.as_ref().map(|marker| marker.since);
        if let Some(failure) = end.failure {
            task.last_error = Some(failure);
        }
        match end.outcome {
            Outcome::Done => {
                task.failed = 0;
                task.not_before = None;
                task.last_done = Some(now);
                task.done = end.fence;
                task.last_error = None;
                task.due_next(rung, end.next);
                Finished::Settled
            }
            Outcome::Dead { .. } => {
                task.failed = 0;
                task.not_before = None;
                task.due_next(rung, end.next);
                Finished::Settled
            }
            Outcome::Continue => {
                task.failed = 0;
                task.not_before = None;
                task.last_error = None;
                if rung.is_some() || held {
                    return Finished::Settled;
                }
                // It would take the lease again before the other job is back, slice after slice.
                let after = if turned_away { end.give_way } else { Duration::ZERO };
                task.marker = Some(Marker::new(end.job.clone(), now.plus(after)));
                Finished::Publish {
                    job: task.job(account, end.kind, end.job, now),
                    after,
                }
            }
            Outcome::Retry { after } => {
                task.failed += 1;
                let again = now.plus(*after);
                task.not_before = Some(again);
                if held {
                    return Finished::Settled;
                }
                task.marker = Some(Marker::new(end.job.clone(), again));
                Finished::Publish {
                    job: task.job(account, end.kind, end.job, now),
                    after: *after,
                }
            }
            Outcome::Due { at } => {
                task.due = Some(*at);
                task.not_before = Some(*at);
                task.marker = None;
                let after = at.since(now);
                if held || after > SOON {
                    return Finished::Settled;
                }
                task.marker = Some(Marker::new(end.job.clone(), *at));
                Finished::Publish {
                    job: task.job(account, end.kind, end.job, now),
                    after,
                }
            }
            Outcome::Park => {
                task.marker = None;
                let message = task
                    .last_error
                    .as_ref()
                    .map(|failure| failure.message.clone())
                    .unwrap_or_default();
                self.park(message, now);
                Finished::Settled
            }
        }
    }

    /// When the sweep must look at a task: nothing may wait for ever because a job, a worker or a queue was lost.
    pub fn look_at(&self, kind: Kind, times: &WorkTimes) -> Option<Micros> {
        if self.is_held() {
            return None;
        }
        let task = self.tasks.get(&kind)?;
        let mut at = task.due?.max(task.not_before.unwrap_or_default());
        if let Some(marker) = &task.marker {
            at = at.max(marker.since.plus(times.marker));
        }
        if let Some(lease) = self.lease_of(kind).filter(|lease| lease.kind == kind) {
            at = at.max(lease.until);
        }
        Some(at)
    }

    /// A job of this kind waits, or a worker has it in hand.
    pub fn is_under_way(&self, kind: Kind, now: Micros) -> bool {
        let waits = self.tasks.get(&kind).is_some_and(|task| task.marker.is_some());
        let runs = self
            .lease_of(kind)
            .is_some_and(|lease| lease.kind == kind && lease.until > now);
        waits || runs
    }

    /// Whether work of this kind rests, and was tried last so long ago that it may be done because somebody asks for what
    /// it brings.
    pub fn is_stale(&self, kind: Kind, age: Duration, now: Micros) -> bool {
        let Some(task) = self.tasks.get(&kind) else {
            return false;
        };
        let tried = task.last_done.max(task.last_error.as_ref().map(|failure| failure.at));
        self.park.is_none()
            && !self.is_under_way(kind, now)
            && task.not_before.is_none_or(|at| at <= now)
            && tried.is_some_and(|at| now.since(at) >= age)
    }

    /// The lease that work of this kind needs.
    pub fn lease_of(&self, kind: Kind) -> Option<&Lease> {
        match kind.stream() {
            Stream::Contacts => self.lease.as_ref(),
            Stream::Agents => self.agents_lease.as_ref(),
        }
    }

    fn lease_slot(&mut self, kind: Kind) -> &mut Option<Lease> {
        match kind.stream() {
            Stream::Contacts => &mut self.lease,
            Stream::Agents => &mut self.agents_lease,
        }
    }

    fn index(&self, account: &AccountId, times: &WorkTimes) -> BTreeMap<(String, String), Micros> {
        let mut entries = BTreeMap::new();
        for (kind, task) in &self.tasks {
            let member = format!("{account}|{kind}");
            if let Some(at) = self.look_at(*kind, times) {
                entries.insert((LOOK.to_owned(), member.clone()), at);
            }
            if let (Some(due), false) = (task.due, self.is_held()) {
                entries.insert((due_index(task.lane.unwrap_or(Lane::Refresh)), member), due);
            }
        }
        if let Some(park) = &self.park {
            entries.insert((PARKED.to_owned(), account.to_string()), park.since);
        }
        let fresh = [Kind::Changes, Kind::Full]
            .iter()
            .filter_map(|kind| self.tasks.get(kind)?.last_done)
            .max();
        // Nobody waits for a suspended one.
        if let (Some(fresh), None) = (fresh, self.suspended) {
            entries.insert((FRESH.to_owned(), account.to_string()), fresh);
        }
        if let Some(since) = self.suspended {
            entries.insert((SUSPENDED.to_owned(), account.to_string()), since);
        }
        if let Some(pause) = &self.pause {
            entries.insert((PAUSED.to_owned(), account.to_string()), pause.since);
        }
        entries
    }
}

impl Task {
    /// `rung`: somebody asked again meanwhile, so it is due at once and stays in its lane.
    fn due_next(&mut self, rung: Option<Micros>, next: Option<(Micros, Lane)>) {
        self.due = rung.or(next.map(|(at, _)| at));
        if let (None, Some((_, lane))) = (rung, next) {
            self.lane = Some(lane);
        }
    }

    fn job(&self, account: &AccountId, kind: Kind, id: JobId, now: Micros) -> Job {
        Job {
            v: body_version(kind),
            id,
            kind,
            account: account.clone(),
            lane: self.lane.unwrap_or(Lane::Refresh),
            attempt: self.failed + 1,
            at: self.due.unwrap_or(now).min(now),
            trace: None,
        }
    }
}

/// Reads an index member `account|kind`.
pub fn parse_member(member: &str) -> Option<(AccountId, Kind)> {
    let (account, kind) = member.split_once('|')?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some((account.parse().ok()?, kind))
}

/// Changes the work of an account as one step, index entries included. `change` may run several times.
pub async fn update<R>(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    times: &WorkTimes,
    mut change: impl FnMut(&mut Work) -> R,
) -> StoreResult<R> {
    docs::update(
        docs,
        &DocKey::of_account(DocKind::Work, account),
        |known: Option<Work>| {
            let before = known.unwrap_or_default();
            let mut after = before.clone();
            let result = change(&mut after);
            if after == before {
                return (Change::Keep, Vec::new(), result);
            }
            let changes = index_changes(&before.index(account, times), &after.index(account, times));
            (Change::Put(after), changes, result)
        },
    )
    .await
}

pub async fn load(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Work> {
    Ok(docs::load(docs, &DocKey::of_account(DocKind::Work, account))
        .await?
        .unwrap_or_default())
}

/// Forgets the work of an account, index entries and runs included.
pub async fn forget(docs: &(impl Documents + ?Sized), account: &AccountId, times: &WorkTimes) -> StoreResult<()> {
    docs::update(
        docs,
        &DocKey::of_account(DocKind::Work, account),
        |known: Option<Work>| {
            let changes = known.map(|known| index_changes(&known.index(account, times), &BTreeMap::new()));
            (docs::Change::<Work>::Delete, changes.unwrap_or_default(), ())
        },
    )
    .await?;
    let runs = DocKey::of_account(DocKind::Runs, account);
    docs::update(docs, &runs, |_: Option<serde_json::Value>| {
        (docs::Change::<serde_json::Value>::Delete, Vec::new(), ())
    })
    .await
}

fn index_changes(
    before: &BTreeMap<(String, String), Micros>,
    after: &BTreeMap<(String, String), Micros>,
) -> Vec<IndexChange> {
    let change = |(index, member): &(String, String), at| IndexChange {
        index: index.clone(),
        member: member.clone(),
        at,
    };
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .map(|key| change(key, None));
    let put = after
        .iter()
        .filter(|(key, at)| before.get(*key) != Some(at))
        .map(|(key, at)| change(key, Some(*at)));
    gone.chain(put).collect()
}

#[cfg(test)]
mod tests;
