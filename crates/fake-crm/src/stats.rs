//! What the CRM counted: calls, its own rate windows, concurrency.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::knobs::RateLimit;
use crate::limits::{Charge, LimitStats};

/// What one account's CRM has seen since its start or the last `reset`. Times are real milliseconds since the epoch
/// (the clock skew knob does not touch them).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Vendor calls by operation (`contacts.list`, …), whatever they were answered.
    pub calls: BTreeMap<String, u64>,
    pub statuses: BTreeMap<u16, u64>,
    /// Calls with an accepted token; only these count against the rate limit.
    pub counted: u64,
    /// Calls that exceeded a limit. All of them were refused.
    pub over_limit: u64,
    /// Calls that were one too many at the same time. All of them were answered 429.
    pub over_concurrency: u64,
    /// The house's limit (knob `limit`), which the windows below are of.
    pub limit: Option<RateLimit>,
    /// The vendor's limits by name.
    pub limits: BTreeMap<String, LimitStats>,
    /// The fixed windows that had calls, oldest first; the newest 10,000 of them.
    pub windows: Vec<Window>,
    pub max_in_window: u32,
    /// The most calls within any interval as long as the limit's window (1 s without a limit), by arrival.
    pub max_sliding: u32,
    pub in_flight: u32,
    pub max_concurrent: u32,
    pub first_call_ms: Option<i64>,
    pub last_call_ms: Option<i64>,
    /// Contacts that readers see and that are not archived.
    pub contacts: u64,
    pub webhooks: WebhookStats,
    /// What was made through the API since the start, by kind: `contacts`, `tickets`, `calls`. A `reset` leaves it
    /// alone, as what was made stays.
    pub made: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start_ms: i64,
    pub calls: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStats {
    /// Events made, before any was dropped or doubled.
    pub events: u64,
    pub dropped: u64,
    pub duplicated: u64,
    /// Attempts by result: a status such as `204`, or `timeout`, `unreachable`.
    pub attempts: BTreeMap<String, u64>,
    /// Greetings of new subscribers (a challenge, a ping) by result, as `attempts`.
    pub greetings: BTreeMap<String, u64>,
    /// Events inside of attempts that were answered 2xx.
    pub delivered: u64,
    /// Events whose last attempt failed too.
    pub given_up: u64,
    /// Events that wait for an attempt or are in one.
    pub waiting: u64,
}

impl Stats {
    /// Calls counted, as a share of what the limit would have allowed between the first and the last of them (at least
    /// one window). 0 without a limit or a call. Fixed windows let two full ones meet, so short runs may exceed 1.
    pub fn used_ratio(&self) -> f64 {
        let (Some(limit), Some(first), Some(last)) = (self.limit, self.first_call_ms, self.last_call_ms) else {
            return 0.0;
        };
        let windows = (last - first) as f64 / (limit.window.as_secs_f64() * 1000.0);
        let capacity = f64::from(limit.max) * windows.max(1.0);
        if capacity == 0.0 {
            0.0
        } else {
            self.counted as f64 / capacity
        }
    }

    /// Calls of one operation.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or_default()
    }

    /// Things of one kind that were made through the API.
    pub fn made_of(&self, kind: &str) -> u64 {
        self.made.get(kind).copied().unwrap_or_default()
    }

    /// Calls answered with one status.
    pub fn answered(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }
}

const WINDOWS_KEPT: usize = 10_000;
/// Length of the sliding interval while there is no limit.
const DEFAULT_WINDOW: Duration = Duration::from_secs(1);

/// The rate limiter and the counters around it. `since_start` is monotonic, so the skew knob cannot stretch a window.
#[derive(Default)]
pub(crate) struct Meter {
    pub stats: Stats,
    limit: Option<RateLimit>,
    windows: VecDeque<Window>,
    current: u64,
    used: u32,
    recent: VecDeque<Duration>,
}

impl Meter {
    pub(crate) fn count(&mut self, limit: Option<RateLimit>, since_start: Duration, now_ms: i64) -> Option<Charge> {
        if limit != self.limit {
            // Another window length: the old windows say nothing about the new ones.
            self.limit = limit;
            self.windows.clear();
            self.recent.clear();
            self.used = 0;
        }
        let length = limit.map_or(DEFAULT_WINDOW, |limit| limit.window);
        let index = (since_start.as_nanos() / length.as_nanos()) as u64;
        let into = Duration::from_nanos((since_start.as_nanos() % length.as_nanos()) as u64);
        if index != self.current || self.windows.is_empty() {
            self.used = if index == self.current { self.used } else { 0 };
            self.current = index;
            if self.windows.len() == WINDOWS_KEPT {
                self.windows.pop_front();
            }
            self.windows.push_back(Window {
                start_ms: now_ms - into.as_millis() as i64,
                calls: 0,
            });
        }
        self.used += 1;
        if let Some(window) = self.windows.back_mut() {
            window.calls += 1;
        }
        self.recent.push_back(since_start);
        while self.recent.front().is_some_and(|&first| since_start - first >= length) {
            self.recent.pop_front();
        }
        let stats = &mut self.stats;
        stats.counted += 1;
        stats.max_in_window = stats.max_in_window.max(self.used);
        stats.max_sliding = stats.max_sliding.max(self.recent.len() as u32);
        stats.first_call_ms.get_or_insert(now_ms);
        stats.last_call_ms = Some(now_ms);
        let limit = limit?;
        Some(Charge {
            name: "calls",
            limit,
            cost: 1,
            remaining: u64::from(limit.max.saturating_sub(self.used)),
            reset: length - into,
            over: self.used > limit.max,
            refused: u64::from(self.used.saturating_sub(limit.max)),
        })
    }

    pub(crate) fn enter(&mut self) {
        self.stats.in_flight += 1;
        self.stats.max_concurrent = self.stats.max_concurrent.max(self.stats.in_flight);
    }

    pub(crate) fn leave(&mut self) {
        self.stats.in_flight -= 1;
    }

    /// Counters go back to zero. The current window stays used: a reset must not hand out calls.
    pub(crate) fn reset(&mut self) {
        let in_flight = self.stats.in_flight;
        self.stats = Stats {
            in_flight,
            max_concurrent: in_flight,
            ..Stats::default()
        };
        self.windows.clear();
    }

    pub(crate) fn read(&self, limit: Option<RateLimit>) -> Stats {
        Stats {
            limit,
            windows: self.windows.iter().copied().collect(),
            ..self.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<RateLimit> = Some(RateLimit {
        max: 3,
        window: Duration::from_secs(1),
    });

    fn calls(meter: &mut Meter, times_ms: &[u64]) -> Vec<bool> {
        times_ms
            .iter()
            .map(|&ms| {
                meter
                    .count(LIMIT, Duration::from_millis(ms), 1_000_000 + ms as i64)
                    .expect("limited")
                    .over
            })
            .collect()
    }

    #[test]
    fn refused_exactly_past_the_limit_and_allowed_when_the_window_turns() {
        let mut meter = Meter::default();
        assert_eq!(
            calls(&mut meter, &[900, 950, 999, 999, 1000, 1001, 1002, 1003]),
            [false, false, false, true, false, false, false, true]
        );
        let stats = meter.read(LIMIT);
        assert_eq!((stats.counted, stats.max_in_window), (8, 4));
        assert_eq!(
            stats.max_sliding, 8,
            "two windows that meet are one burst to a sliding eye"
        );
        assert_eq!(
            stats.windows,
            [
                Window {
                    start_ms: 1_000_000,
                    calls: 4
                },
                Window {
                    start_ms: 1_001_000,
                    calls: 4
                }
            ]
        );
    }

    #[test]
    fn a_steady_pace_stays_within_every_interval() {
        let mut meter = Meter::default();
        let times: Vec<u64> = (0..100).map(|n| n * 334).collect();
        assert!(calls(&mut meter, &times).iter().all(|over| !over));
        let stats = meter.read(LIMIT);
        assert_eq!(stats.max_sliding, 3);
        assert!((0.95..=1.05).contains(&stats.used_ratio()), "{}", stats.used_ratio());
    }

    #[test]
    fn the_quota_says_what_is_left_and_for_how_long() {
        let mut meter = Meter::default();
        let quota = meter.count(LIMIT, Duration::from_millis(1_250), 0).expect("limited");
        assert_eq!((quota.limit.max, quota.remaining, quota.over), (3, 2, false));
        assert_eq!(quota.reset, Duration::from_millis(750));
        assert_eq!(quota.reset_seconds(), 1);
    }

    #[test]
    fn a_reset_hands_out_no_calls() {
        let mut meter = Meter::default();
        calls(&mut meter, &[0, 1, 2]);
        meter.reset();
        assert_eq!(calls(&mut meter, &[3]), [true]);
        assert_eq!(meter.read(LIMIT).counted, 1);
    }
}
