//! Standing still: parked, because the CRM refused the credentials, or paused, because an operator said so. The two are
//! apart: new credentials do not end a pause, and a resumed account that is parked stays parked. Or suspended, because Talkdesk
//! no longer calls for it, until it does.

use std::time::Duration;

use super::{Lease, Park, Pause, Work, WorkTimes};
use crate::ids::{Fence, JobId, Kind};
use crate::time::Micros;

impl Work {
    /// Stops all work of the account until [`Work::unpark`].
    pub fn park(&mut self, message: String, now: Micros) {
        if self.park.is_none() {
            self.park = Some(Park {
                since: now,
                message,
                handed_back: false,
                rechecked: now,
            });
        }
        for task in self.tasks.values_mut() {
            task.marker = None;
        }
    }

    /// Talkdesk came with credentials that the CRM has refused. Whether they may be put to the CRM once more: at most
    /// once in `after`, whoever asks. An account that is not parked has got others since: always.
    pub fn recheck(&mut self, after: Duration, now: Micros) -> bool {
        let Some(park) = &mut self.park else {
            return true;
        };
        park.handed_back = true;
        let may = now.since(park.rechecked) >= after;
        if may {
            park.rechecked = now;
        }
        may
    }

    /// The credentials are good again: returns the kinds that are due and must be rung for.
    pub fn unpark(&mut self, now: Micros) -> Vec<Kind> {
        self.park = None;
        self.tasks
            .iter_mut()
            .filter_map(|(kind, task)| {
                task.not_before = None;
                if task
                    .last_error
                    .as_ref()
                    .is_some_and(|failure| failure.kind == "credentials")
                {
                    task.last_error = None;
                }
                task.due.is_some_and(|due| due <= now).then_some(*kind)
            })
            .collect()
    }

    pub fn is_held(&self) -> bool {
        self.park.is_some() || self.pause.is_some() || self.suspended.is_some()
    }

    /// An operator stops all work of the account until [`Work::resume`]: a running slice ends at its next page. `false`: it
    /// was paused already, and stays paused by whom it was.
    pub fn pause(&mut self, by: String, now: Micros) -> bool {
        if self.pause.is_some() {
            return false;
        }
        self.pause = Some(Pause { since: now, by });
        for task in self.tasks.values_mut() {
            task.marker = None;
        }
        true
    }

    /// Ends a pause. Returns the kinds that are due and must be rung for, or `None`: it was not paused.
    pub fn resume(&mut self, now: Micros) -> Option<Vec<Kind>> {
        self.pause.take()?;
        let due = |(kind, task): (&Kind, &super::Task)| task.due.is_some_and(|due| due <= now).then_some(*kind);
        Some(self.tasks.iter().filter_map(due).collect())
    }

    /// Talkdesk no longer calls for the account: its work stops until [`Work::unsuspend`]. `false`: it had already.
    pub fn suspend(&mut self, now: Micros) -> bool {
        if self.suspended.is_some() {
            return false;
        }
        self.suspended = Some(now);
        for task in self.tasks.values_mut() {
            task.marker = None;
        }
        true
    }

    /// Talkdesk has called again. Returns the kinds that are due and must be rung for, or `None`: it was not suspended.
    pub fn unsuspend(&mut self, now: Micros) -> Option<Vec<Kind>> {
        self.suspended.take()?;
        let due = |(kind, task): (&Kind, &super::Task)| task.due.is_some_and(|due| due <= now).then_some(*kind);
        Some(self.tasks.iter().filter_map(due).collect())
    }

    /// Takes the lease of the contacts for a deed that no job asked for, also of an account that stands still. `None`: a worker has it.
    pub fn seize(&mut self, owner: &str, now: Micros, times: &WorkTimes) -> Option<Fence> {
        if self.lease.as_ref().is_some_and(|lease| lease.until > now) {
            return None;
        }
        self.fence = now.0.max(self.fence + 1);
        let fence = Fence(self.fence);
        self.lease = Some(Lease {
            owner: owner.to_owned(),
            fence,
            kind: Kind::Ids,
            until: now.plus(times.lease),
        });
        Some(fence)
    }

    /// Ends [`Work::seize`].
    pub fn let_go(&mut self, fence: Fence) {
        self.lease.take_if(|lease| lease.fence == fence);
    }

    /// A worker took `job`, whose connector or lane is held: it is looked at again at `look`, and nobody else's until then.
    pub fn hold_back(&mut self, kind: Kind, job: &JobId, look: Micros) {
        if let Some(task) = self.tasks.get_mut(&kind)
            && task.marker.as_ref().is_some_and(|marker| marker.job == *job)
        {
            task.marker = None;
            task.not_before = task.not_before.max(Some(look));
        }
    }
}
