//! Budgets: which calls may be sent to a CRM, over all processes.
//!
//! A call needs a **slot**. Slots are taken from a [`Budget`] (one document per budget scope, changed by pure functions),
//! used at once, and finished when the reply is in:
//!
//! 1. [`Ledger::take`] with the limits that the call counts against → [`Taken::Slots`] or [`Taken::Wait`] until a time.
//! 2. Send each call before `send_by`. A slot that will not be used goes back with [`Ledger::give_back`].
//! 3. [`Ledger::finish`] when the reply (or the failure) is in.
//! 4. A 429 or a used-up quota becomes [`Ledger::hold`], a "remaining: 0" header [`Ledger::none_left`].
//!
//! Why a limit is never exceeded, whatever the network does: the CRM counts a call somewhere between our sending it and
//! our having its reply. A slot of a window is free again only one window length after the *reply*, so any stretch of
//! that length at the CRM holds at most `max` arrivals. A slot whose taker died counts as if its reply had come at the
//! last moment it could have been sent, plus a grace.
//!
//! Interactive calls go first: one that has to wait leaves a **want**, and bulk takes no slot while a want stands. Bulk
//! is paced over long windows so that slots come free evenly and a want is served soon.

mod pace;
mod shared;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::pace::Pace;
pub use self::shared::Ledger;
use crate::time::{Micros, micros};

/// A limit of a CRM, with the share that is left to others already taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Unique within the connector.
    pub name: String,
    pub kind: LimitKind,
    pub scope: LimitScope,
}

/// Whose calls count against a limit: of each there is a budget of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitScope {
    /// All calls that one host sees coming from our address, whoever makes them.
    Ip,
    /// All calls of our application, for whatever account.
    App,
    /// All calls of one account at the CRM, whoever makes them.
    #[default]
    Account,
    /// The calls of one user of the CRM.
    User,
}

/// The keys of the budgets that calls count against. `None`: nobody knows yet whose calls they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    pub ip: Option<String>,
    pub app: Option<String>,
    pub account: Option<String>,
    pub user: Option<String>,
}

impl Scopes {
    pub fn key(&self, scope: LimitScope) -> Option<&str> {
        let key = match scope {
            LimitScope::Ip => &self.ip,
            LimitScope::App => &self.app,
            LimitScope::Account => &self.account,
            LimitScope::User => &self.user,
        };
        key.as_deref()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// At most `max` calls in any stretch of `length`.
    Window { length: Duration, max: u32 },
    /// At most `max` calls at once.
    Concurrency { max: u32 },
    /// At most `max` (calls times cost) per period; periods start at `offset` past multiples of `period` since 1970.
    Quota {
        period: Duration,
        offset: Duration,
        max: u64,
    },
    /// At most `max` (calls times cost) in any stretch of `period`; spent as it comes, and once it is gone, gone for long.
    Rolling { period: Duration, max: u64 },
}

impl LimitKind {
    /// How much it lets through: calls times their cost.
    pub fn max(self) -> u64 {
        match self {
            LimitKind::Window { max, .. } | LimitKind::Concurrency { max } => u64::from(max),
            LimitKind::Quota { max, .. } | LimitKind::Rolling { max, .. } => max,
        }
    }

    /// Whether one that is used up is waited for by doing other work.
    fn is_quota(self) -> bool {
        matches!(self, LimitKind::Quota { .. } | LimitKind::Rolling { .. })
    }

    /// The stretch of time whose calls are remembered one by one.
    fn logged(self) -> Option<Duration> {
        match self {
            LimitKind::Window { length, .. } => Some(length),
            LimitKind::Rolling { period, .. } => Some(period),
            LimitKind::Concurrency { .. } | LimitKind::Quota { .. } => None,
        }
    }
}

/// What one call costs against one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub limit: Limit,
    pub cost: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Somebody waits for the answer: live checks, interactions, actions.
    Interactive,
    /// Everything a worker does.
    Bulk,
}

/// A wish for slots.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The limits that each call counts against.
    pub charges: &'a [Charge],
    /// Slots wanted; fewer may be given. At least 1.
    pub slots: u32,
    pub class: Class,
    /// Names the waiter, so that asking again renews its want instead of adding another. Interactive only.
    pub waiter: &'a str,
    pub times: Times,
}

/// How long slots live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A slot must be sent within this time.
    pub send_within: Duration,
    /// How long after `send_within` a call can still reach the CRM: what an unanswered call is counted at.
    pub arrive_within: Duration,
    /// The longest a call takes: when a concurrency slot that nobody finished is free again.
    pub call_timeout: Duration,
    /// How long a want stands after its last renewal.
    pub want: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            send_within: Duration::from_secs(1),
            arrive_within: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            want: Duration::from_millis(500),
        }
    }
}

/// Slots of one taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// `slots` calls may be sent before `send_by`.
    Slots {
        lease: LeaseId,
        slots: u32,
        send_by: Micros,
    },
    /// None before `until`; ask again then. `limit` names what stands in the way; `quota` says that it is a quota.
    Wait { until: Micros, limit: String, quota: bool },
}

/// The name in [`Taken::Wait`] when a want stands in the way.
pub const WANT: &str = "an interactive call goes first";
/// Holds everything of a scope.
pub const EVERYTHING: &str = "*";

/// A window's log is kept in steps of this fraction of its length.
const STEPS: u64 = 500;
/// How much longer than its window a finished call stays in the log, at most: a reply says what the window held when
/// the CRM worked it out, which is a while ago when it is read.
const MEMORY: Duration = Duration::from_secs(5);

/// The state of one budget scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    #[serde(default)]
    limits: BTreeMap<String, Used>,
    #[serde(default)]
    leases: Vec<Lease>,
    #[serde(default)]
    wants: BTreeMap<String, Micros>,
    #[serde(default)]
    holds: BTreeMap<String, Hold>,
    #[serde(default)]
    last_lease: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Used {
    /// Finished calls: (when the reply was in, rounded up to the step; cost).
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    log: VecDeque<(u64, u32)>,
    /// When the pace has its next unit.
    #[serde(default)]
    next: u64,
    /// The quota period this counts, and what is used of it.
    #[serde(default)]
    period: u64,
    #[serde(default)]
    used: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lease {
    id: u64,
    slots: u32,
    /// Cost of one slot per limit, with the length of its window (0: no window).
    costs: Vec<(String, u32, u64)>,
    /// What one slot took of the schedules, in microseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paced: Vec<(String, u64)>,
    /// When calls of it have surely arrived: counted then if nobody finished them.
    counts_at: Micros,
    /// Counted already; only concurrency still holds it.
    counted: bool,
    /// When concurrency lets go of it.
    ends: Micros,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Hold {
    until: Micros,
    quota: bool,
}

/// What of a limit is in use, for `status` and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    pub limit: String,
    pub max: u64,
    pub left: u64,
    /// When a quota begins anew, or the CRM's own pause ends. `None`: it flows back all the time.
    #[serde(skip)]
    pub resets: Option<Micros>,
}

impl Budget {
    /// Takes up to `ask.slots` slots. A waiting interactive asker leaves a want.
    pub fn take(&mut self, ask: &Ask<'_>, now: Micros) -> Taken {
        self.settle_expired(now);
        self.wants.retain(|_, until| *until > now);
        self.holds.retain(|_, hold| hold.until > now);

        if let Some((limit, hold)) = self.hold_over(ask) {
            return Taken::Wait {
                until: hold.until,
                limit,
                quota: hold.quota,
            };
        }
        if ask.class == Class::Bulk && !self.wants.is_empty() {
            let until = self.wants.values().copied().min().unwrap_or(now);
            return Taken::Wait {
                until: until.min(now.plus(Duration::from_millis(50))),
                limit: WANT.into(),
                quota: false,
            };
        }

        let mut slots = ask.slots.max(1);
        let mut wait: Option<(Micros, String, bool)> = None;
        for charge in ask.charges.iter().filter(|charge| charge.cost > 0) {
            let (free, next) = self.free(charge, ask.class, now);
            let fits = u32::try_from(free / u64::from(charge.cost)).unwrap_or(u32::MAX);
            slots = slots.min(fits);
            if fits == 0 && wait.as_ref().is_none_or(|(until, ..)| next > *until) {
                let quota = charge.limit.kind.is_quota();
                wait = Some((next, charge.limit.name.clone(), quota));
            }
        }
        if let Some((until, limit, quota)) = wait {
            if ask.class == Class::Interactive && !quota {
                self.wants.insert(ask.waiter.to_owned(), now.plus(ask.times.want));
            }
            return Taken::Wait {
                until: until.max(Micros(now.0 + 1)),
                limit,
                quota,
            };
        }

        self.wants.remove(ask.waiter);
        self.last_lease += 1;
        let send_by = now.plus(ask.times.send_within);
        let mut paced = Vec::new();
        for charge in ask.charges {
            let used = self.limits.entry(charge.limit.name.clone()).or_default();
            let cost = charge.cost.saturating_mul(slots);
            match charge.limit.kind {
                LimitKind::Window { length, max } => {
                    if let Some(pace) = Pace::of(length, max) {
                        used.next = pace.after(used.next, cost.into(), now);
                        paced.push((charge.limit.name.clone(), pace.of_cost(charge.cost.into())));
                    }
                }
                LimitKind::Quota { period, offset, .. } => {
                    let current = period_of(now, period, offset);
                    if used.period != current {
                        (used.period, used.used) = (current, 0);
                    }
                    used.used += u64::from(cost);
                }
                LimitKind::Concurrency { .. } | LimitKind::Rolling { .. } => {}
            }
        }
        self.leases.push(Lease {
            id: self.last_lease,
            slots,
            costs: ask
                .charges
                .iter()
                .map(|charge| {
                    let length = charge.limit.kind.logged().map_or(0, micros);
                    (charge.limit.name.clone(), charge.cost, length)
                })
                .collect(),
            paced,
            counts_at: send_by.plus(ask.times.arrive_within),
            counted: false,
            ends: send_by.plus(ask.times.call_timeout.max(ask.times.arrive_within)),
        });
        Taken::Slots {
            lease: LeaseId(self.last_lease),
            slots,
            send_by,
        }
    }

    /// `calls` calls of a lease have been answered, or have failed for good.
    pub fn finish(&mut self, lease: LeaseId, calls: u32, now: Micros) {
        self.settle_expired(now);
        let Some(index) = self.leases.iter().position(|other| other.id == lease.0) else {
            return;
        };
        let calls = calls.min(self.leases[index].slots);
        if !self.leases[index].counted {
            let costs = self.leases[index].costs.clone();
            self.count(&costs, calls, now);
        }
        self.shrink(index, calls);
    }

    /// `slots` slots of a lease will not be used.
    pub fn give_back(&mut self, lease: LeaseId, slots: u32, now: Micros) {
        self.settle_expired(now);
        let Some(index) = self.leases.iter().position(|other| other.id == lease.0) else {
            return;
        };
        let slots = slots.min(self.leases[index].slots);
        if !self.leases[index].counted {
            for (name, cost, length) in self.leases[index].costs.clone() {
                if let (Some(used), 0) = (self.limits.get_mut(&name), length) {
                    used.used = used.used.saturating_sub(u64::from(cost) * u64::from(slots));
                }
            }
            for (name, schedule) in self.leases[index].paced.clone() {
                if let Some(used) = self.limits.get_mut(&name) {
                    used.next = used.next.saturating_sub(schedule * u64::from(slots));
                }
            }
        }
        self.shrink(index, slots);
    }

    /// A call that was answered at `now` cost `extra` more than it was taken for: the CRM said so afterwards.
    pub fn cost_more(&mut self, limit: &Limit, extra: u32, now: Micros) {
        match limit.kind {
            LimitKind::Concurrency { .. } => {}
            LimitKind::Quota { period, offset, .. } => {
                let used = self.limits.entry(limit.name.clone()).or_default();
                let current = period_of(now, period, offset);
                if used.period != current {
                    (used.period, used.used) = (current, 0);
                }
                used.used = used.used.saturating_add(u64::from(extra));
            }
            LimitKind::Window { .. } | LimitKind::Rolling { .. } => {
                let length = limit.kind.logged().map_or(0, micros);
                self.count(&[(limit.name.clone(), extra, length)], 1, now);
            }
        }
    }

    /// No slot of `limit` ([`EVERYTHING`]: of the scope) before `until`: the CRM said so.
    pub fn hold(&mut self, limit: &str, until: Micros, quota: bool) {
        let hold = self.holds.entry(limit.to_owned()).or_insert(Hold { until, quota });
        if until > hold.until {
            *hold = Hold { until, quota };
        }
    }

    /// The reply to a call sent at `asked_at` said that nothing is left of a limit before `until`. If the calls counted
    /// here fill the window, that is no news, and the log knows to the millisecond when the next one is free, while
    /// headers speak in whole seconds. Otherwise others have used it up: hold it. Says whether it is held.
    pub fn none_left(&mut self, limit: &Limit, asked_at: Micros, until: Micros) -> bool {
        let (explained, quota) = match limit.kind {
            LimitKind::Window { length, max } => {
                let ours = self.counted(&limit.name, asked_at.minus(length)) + self.out(&limit.name, false);
                (ours >= u64::from(max), false)
            }
            LimitKind::Concurrency { .. } => (false, false),
            LimitKind::Quota { .. } | LimitKind::Rolling { .. } => (false, true),
        };
        if !explained {
            self.hold(&limit.name, until, quota);
        }
        !explained
    }

    /// What is left of each limit now.
    pub fn left(&self, limits: &[Limit], now: Micros) -> Vec<Left> {
        limits
            .iter()
            .map(|limit| {
                let held = [limit.name.as_str(), EVERYTHING]
                    .iter()
                    .filter_map(|name| self.holds.get(*name))
                    .map(|hold| hold.until)
                    .filter(|until| *until > now)
                    .max();
                let charge = Charge {
                    limit: limit.clone(),
                    cost: 1,
                };
                let (free, next) = self.free(&charge, Class::Interactive, now);
                let quota = matches!(limit.kind, LimitKind::Quota { .. }).then_some(next);
                Left {
                    limit: limit.name.clone(),
                    max: limit.kind.max(),
                    left: if held.is_some() { 0 } else { free },
                    resets: held.or(quota),
                }
            })
            .collect()
    }

    fn hold_over(&self, ask: &Ask<'_>) -> Option<(String, Hold)> {
        let named = |name: &str| self.holds.get(name).map(|hold| (name.to_owned(), hold.clone()));
        ask.charges
            .iter()
            .filter_map(|charge| named(&charge.limit.name))
            .chain(named(EVERYTHING))
            .max_by_key(|(_, hold)| hold.until)
    }

    /// How much of a limit is free now, and if it is not enough for one call, when to look again.
    fn free(&self, charge: &Charge, class: Class, now: Micros) -> (u64, Micros) {
        let cost = u64::from(charge.cost);
        let used = self.limits.get(&charge.limit.name);
        let out = self.out(
            &charge.limit.name,
            matches!(charge.limit.kind, LimitKind::Concurrency { .. }),
        );
        match charge.limit.kind {
            LimitKind::Concurrency { max } => (u64::from(max).saturating_sub(out), now.plus(Duration::from_millis(10))),
            LimitKind::Quota { period, offset, max } => {
                let current = period_of(now, period, offset);
                let spent = used.filter(|used| used.period == current).map_or(0, |used| used.used);
                (
                    max.saturating_sub(spent),
                    Micros((current + 1) * micros(period) + micros(offset)),
                )
            }
            LimitKind::Rolling { period, max } => self.free_in(charge, period, max, out, now),
            LimitKind::Window { length, max } => {
                let (mut free, mut next) = self.free_in(charge, length, u64::from(max), out, now);
                if class == Class::Bulk
                    && let Some(pace) = Pace::of(length, max)
                {
                    let (paced, then) = pace.free(used.map_or(0, |used| used.next), cost, now);
                    if paced < cost {
                        next = if free < cost { next.max(then) } else { then };
                    }
                    free = free.min(paced);
                }
                (free, next)
            }
        }
    }

    /// What is free of `max` in the stretch of `length` that ends now, and when there is enough for one call.
    fn free_in(&self, charge: &Charge, length: Duration, max: u64, out: u64, now: Micros) -> (u64, Micros) {
        let cost = u64::from(charge.cost);
        let from = now.0.saturating_sub(micros(length));
        let counted = self.counted(&charge.limit.name, Micros(from));
        let mut free = max.saturating_sub(counted + out);
        // A call that costs more than the whole limit would wait for ever: it goes when the window is empty.
        if counted + out == 0 {
            free = free.max(cost);
        }
        let mut next = now.plus(length / 50).min(now.plus(Duration::from_millis(20)));
        if free < cost {
            let mut missing = cost - free;
            let log = self.limits.get(&charge.limit.name).map(|used| &used.log);
            for (at, cost) in log.into_iter().flatten().filter(|(at, _)| *at > from) {
                next = Micros(at + micros(length));
                missing = missing.saturating_sub(u64::from(*cost));
                if missing == 0 {
                    break;
                }
            }
        }
        (free, next)
    }

    /// What was answered after `from`.
    fn counted(&self, limit: &str, from: Micros) -> u64 {
        let log = self.limits.get(limit).into_iter().flat_map(|used| &used.log);
        log.filter(|(at, _)| *at > from.0)
            .map(|(_, cost)| u64::from(*cost))
            .sum()
    }

    /// What is taken and not answered yet; `ever`: also what counts as answered although nobody finished it.
    fn out(&self, limit: &str, ever: bool) -> u64 {
        self.leases
            .iter()
            .filter(|lease| ever || !lease.counted)
            .flat_map(|lease| lease.costs.iter().map(|cost| (lease.slots, cost)))
            .filter(|(_, (name, ..))| name == limit)
            .map(|(slots, (_, cost, _))| u64::from(slots) * u64::from(*cost))
            .sum()
    }

    /// Counts `calls` calls as answered at `at`.
    fn count(&mut self, costs: &[(String, u32, u64)], calls: u32, at: Micros) {
        for (name, cost, length) in costs {
            if *length == 0 || calls == 0 {
                continue;
            }
            let step = (length / STEPS).max(1);
            // Rounded up: an entry may stay a step too long, never too short.
            let rounded = at.0.div_ceil(step) * step;
            let cost = cost.saturating_mul(calls);
            let log = &mut self.limits.entry(name.clone()).or_default().log;
            let from = at.0.saturating_sub(*length + (*length).min(micros(MEMORY)));
            while log.front().is_some_and(|(at, _)| *at <= from) {
                log.pop_front();
            }
            match log.iter_mut().rev().find(|(at, _)| *at == rounded) {
                Some((_, sum)) => *sum = sum.saturating_add(cost),
                None => {
                    let place = log.partition_point(|(at, _)| *at < rounded);
                    log.insert(place, (rounded, cost));
                }
            }
        }
    }

    fn settle_expired(&mut self, now: Micros) {
        for index in 0..self.leases.len() {
            let lease = &self.leases[index];
            if !lease.counted && lease.counts_at <= now {
                let (costs, slots, at) = (lease.costs.clone(), lease.slots, lease.counts_at);
                self.count(&costs, slots, at);
                self.leases[index].counted = true;
            }
        }
        self.leases.retain(|lease| !(lease.counted && lease.ends <= now));
    }

    fn shrink(&mut self, index: usize, slots: u32) {
        self.leases[index].slots -= slots;
        if self.leases[index].slots == 0 {
            self.leases.remove(index);
        }
    }
}

fn period_of(now: Micros, period: Duration, offset: Duration) -> u64 {
    now.minus(offset).0 / micros(period).max(1)
}

#[cfg(test)]
mod tests;
