//! The limits that a vendor has beside each other, each with a name, a window of its own and a cost per call.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::Op;
use crate::knobs::RateLimit;

/// How a window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Whatever lies within the last window's length; calls that were refused do not count.
    Rolling,
    /// One after the other, from the start of the CRM; refused calls count.
    Fixed,
    /// As `Fixed`, and with a length of 24 h it turns at midnight in the account's time zone.
    Daily,
}

/// A limit as the vendor documents it.
pub(crate) struct LimitSpec {
    pub name: &'static str,
    pub limit: RateLimit,
    pub turn: Turn,
    /// What a call costs; 0: the limit does not know it.
    pub cost: fn(Op) -> u64,
}

impl LimitSpec {
    pub(crate) const fn new(name: &'static str, max: u32, window: Duration, turn: Turn, cost: fn(Op) -> u64) -> Self {
        LimitSpec {
            name,
            limit: RateLimit { max, window },
            turn,
            cost,
        }
    }
}

/// Every call costs one, but those for tokens nothing.
pub(crate) fn each_call(op: Op) -> u64 {
    u64::from(op != Op::Token)
}

/// What the CRM counted under one of its limits since the start or the last `reset`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitStats {
    /// As it is now; `None` while it is switched off.
    pub limit: Option<RateLimit>,
    pub calls: u64,
    /// What these calls cost, in the limit's own unit.
    pub cost: u64,
    /// Calls that exceeded it. All of them were refused.
    pub over_limit: u64,
    /// The highest cost within one window.
    pub max_in_window: u64,
    /// Real milliseconds since the epoch.
    pub first_call_ms: Option<i64>,
    pub last_call_ms: Option<i64>,
}

impl LimitStats {
    /// Cost as a share of what was allowed between the first and the last call (at least one window). 0 without a limit
    /// or a call.
    pub fn used_ratio(&self) -> f64 {
        let (Some(limit), Some(first), Some(last)) = (self.limit, self.first_call_ms, self.last_call_ms) else {
            return 0.0;
        };
        let windows = (last - first) as f64 / (limit.window.as_secs_f64() * 1000.0);
        let capacity = f64::from(limit.max) * windows.max(1.0);
        if capacity > 0.0 {
            self.cost as f64 / capacity
        } else {
            0.0
        }
    }
}

/// What one call did to one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub name: &'static str,
    pub limit: RateLimit,
    pub cost: u64,
    pub remaining: u64,
    /// Until the window turns or, when rolling, until the oldest call falls out of it.
    pub reset: Duration,
    pub over: bool,
    /// Calls in a row that were refused, this one included.
    pub refused: u64,
}

impl Charge {
    /// Whole seconds until the window turns, at least 1.
    pub(crate) fn reset_seconds(&self) -> u64 {
        (self.reset.as_millis().div_ceil(1000) as u64).max(1)
    }
}

/// When a call comes.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// Monotonic, so that nothing stretches a window.
    pub since_start: Duration,
    /// Real milliseconds.
    pub now_ms: i64,
    pub zone: TimeZone,
}

#[derive(Default)]
pub(crate) struct Limiter {
    counters: BTreeMap<&'static str, Counter>,
}

/// What all accounts of a profile share, as their calls come from one address. A clock of its own, as each account began
/// when its contacts were made.
pub(crate) struct AtAddress {
    pub started: Instant,
    pub limiter: Limiter,
}

impl Default for AtAddress {
    fn default() -> AtAddress {
        AtAddress {
            started: Instant::now(),
            limiter: Limiter::default(),
        }
    }
}

#[derive(Default)]
struct Counter {
    limit: Option<RateLimit>,
    stats: LimitStats,
    window: i64,
    used: u64,
    refused: u64,
    recent: VecDeque<(Duration, u64)>,
}

impl Limiter {
    /// Counts a call under every limit that knows it. `changed`: what the knobs say of limits, by name.
    pub(crate) fn charge(
        &mut self,
        specs: &[LimitSpec],
        changed: &BTreeMap<String, Option<RateLimit>>,
        op: Op,
        at: &Arrival,
    ) -> Vec<Charge> {
        let mut charges = Vec::new();
        for spec in specs {
            let limit = changed.get(spec.name).copied().unwrap_or(Some(spec.limit));
            let counter = self.counters.entry(spec.name).or_default();
            counter.change(limit);
            let cost = (spec.cost)(op);
            if cost > 0 {
                charges.extend(counter.count(spec, cost, at));
            }
        }
        charges
    }

    pub(crate) fn reset(&mut self) {
        for counter in self.counters.values_mut() {
            counter.stats = LimitStats {
                limit: counter.limit,
                ..LimitStats::default()
            };
        }
    }

    pub(crate) fn read(
        &self,
        specs: &[LimitSpec],
        changed: &BTreeMap<String, Option<RateLimit>>,
    ) -> BTreeMap<String, LimitStats> {
        let read = |spec: &LimitSpec| {
            let counted = self.counters.get(spec.name).map(|counter| counter.stats.clone());
            let limit = changed.get(spec.name).copied().unwrap_or(Some(spec.limit));
            let stats = LimitStats {
                limit,
                ..counted.unwrap_or_default()
            };
            (spec.name.to_owned(), stats)
        };
        specs.iter().map(read).collect()
    }
}

impl Counter {
    /// Another window length: the old windows say nothing about the new ones.
    fn change(&mut self, limit: Option<RateLimit>) {
        if limit != self.limit {
            self.limit = limit;
            self.used = 0;
            self.recent.clear();
        }
    }

    fn count(&mut self, spec: &LimitSpec, cost: u64, at: &Arrival) -> Option<Charge> {
        let stats = &mut self.stats;
        stats.limit = self.limit;
        stats.calls += 1;
        stats.cost += cost;
        stats.first_call_ms.get_or_insert(at.now_ms);
        stats.last_call_ms = Some(at.now_ms);
        let limit = self.limit?;
        let max = u64::from(limit.max);
        let (used, over, reset) = if spec.turn == Turn::Rolling {
            while let Some(&(first, cost)) = self.recent.front()
                && at.since_start - first >= limit.window
            {
                self.used -= cost;
                self.recent.pop_front();
            }
            let over = self.used + cost > max;
            let tried = self.used + cost;
            if !over {
                self.used = tried;
                self.recent.push_back((at.since_start, cost));
            }
            let oldest = self.recent.front().map_or(at.since_start, |&(first, _)| first);
            (tried, over, limit.window.saturating_sub(at.since_start - oldest))
        } else {
            let (window, reset) = window(spec.turn, limit.window, at);
            if window != self.window {
                self.window = window;
                self.used = 0;
            }
            self.used += cost;
            (self.used, self.used > max, reset)
        };
        self.stats.max_in_window = self.stats.max_in_window.max(used);
        self.stats.over_limit += u64::from(over);
        self.refused = if over { self.refused + 1 } else { 0 };
        Some(Charge {
            refused: self.refused,
            name: spec.name,
            limit,
            cost,
            remaining: max.saturating_sub(self.used),
            reset,
            over,
        })
    }
}

/// Which window it is, and how long it still lasts.
fn window(turn: Turn, length: Duration, at: &Arrival) -> (i64, Duration) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    if turn == Turn::Daily && length == DAY {
        let now = jiff::Timestamp::from_millisecond(at.now_ms).unwrap_or_default();
        let today = now.to_zoned(at.zone.clone());
        let midnight = today
            .date()
            .tomorrow()
            .ok()
            .and_then(|date| date.to_zoned(at.zone.clone()).ok());
        let left = midnight.map_or(DAY, |midnight| midnight.timestamp().duration_since(now).unsigned_abs());
        let day = today.date().duration_since(jiff::civil::date(1970, 1, 1)).as_hours();
        return (day, left);
    }
    let (elapsed, length) = (at.since_start.as_nanos(), length.as_nanos().max(1));
    let left = Duration::from_nanos((length - elapsed % length) as u64);
    ((elapsed / length) as i64, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Arrival {
        Arrival {
            since_start: Duration::from_millis(ms),
            now_ms: 1_700_000_000_000 + ms as i64,
            zone: TimeZone::UTC,
        }
    }

    fn over(limiter: &mut Limiter, specs: &[LimitSpec], times: &[u64]) -> Vec<bool> {
        let changed = BTreeMap::new();
        let mut one = |&ms: &u64| limiter.charge(specs, &changed, Op::List, &at(ms))[0].over;
        times.iter().map(&mut one).collect()
    }

    #[test]
    fn a_rolling_window_never_holds_more_than_the_limit_and_a_fixed_one_turns() {
        let rolling = [LimitSpec::new("r", 2, Duration::from_secs(1), Turn::Rolling, each_call)];
        let fixed = [LimitSpec::new("f", 2, Duration::from_secs(1), Turn::Fixed, each_call)];
        let times = [800, 900, 950, 1000, 1799, 1800, 1801];
        let mut limiter = Limiter::default();
        assert_eq!(
            over(&mut limiter, &rolling, &times),
            [false, false, true, true, true, false, true]
        );
        assert_eq!(
            over(&mut limiter, &fixed, &times),
            [false, false, true, false, false, true, true]
        );
        let read = limiter.read(&rolling, &BTreeMap::new());
        assert_eq!(
            (read["r"].calls, read["r"].over_limit, read["r"].max_in_window),
            (7, 4, 3)
        );
    }

    #[test]
    fn calls_cost_what_the_limit_says_and_knobs_change_it() {
        let cost = |op| if op == Op::List { 10 } else { 0 };
        let specs = [LimitSpec::new("tokens", 30, Duration::from_secs(60), Turn::Daily, cost)];
        let mut limiter = Limiter::default();
        let none = BTreeMap::new();
        assert!(limiter.charge(&specs, &none, Op::Check, &at(0)).is_empty());
        let left: Vec<u64> = (0..3)
            .map(|ms| limiter.charge(&specs, &none, Op::List, &at(ms))[0].remaining)
            .collect();
        assert_eq!(left, [20, 10, 0]);
        assert!(limiter.charge(&specs, &none, Op::List, &at(5))[0].over);
        let off = BTreeMap::from([("tokens".to_owned(), None)]);
        assert!(limiter.charge(&specs, &off, Op::List, &at(6)).is_empty());
        let read = &limiter.read(&specs, &off)["tokens"];
        assert_eq!((read.calls, read.cost, read.over_limit, read.limit), (5, 50, 1, None));
    }

    #[test]
    fn a_day_ends_at_midnight_of_the_account() {
        // 2023-11-14T22:13:20Z
        let at = Arrival {
            zone: TimeZone::fixed(jiff::tz::offset(1)),
            ..at(0)
        };
        let (_, left) = window(Turn::Daily, Duration::from_secs(86_400), &at);
        assert_eq!(left, Duration::from_secs(46 * 60 + 40));
    }
}
