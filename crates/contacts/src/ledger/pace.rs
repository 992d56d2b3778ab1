//! Bulk work is spread over long windows: evenly, because what comes in bursts comes free in bursts a window later, and an
//! interactive call would find the window full until then.
//!
//! A schedule gives each unit of cost its time (the generic cell rate algorithm). It is a little faster than the limit, so
//! that what nobody asked for can still be used, and what was late by less than [`EARLY`] is not lost at all.

use std::time::Duration;

use crate::time::{Micros, micros};

/// Windows up to this length are not paced: what is used up comes free soon enough.
const SHORT: Duration = Duration::from_secs(1);
/// How far ahead of the schedule calls may be.
const EARLY: Duration = Duration::from_millis(100);
/// The schedule is faster than the limit by one part in so many.
const FASTER: u64 = 40;

/// The pace of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Microseconds of the schedule that a unit of cost takes.
    every: u64,
    early: u64,
}

impl Pace {
    /// `None`: the window is not paced.
    pub fn of(length: Duration, max: u32) -> Option<Pace> {
        if length <= SHORT || max == 0 {
            return None;
        }
        let even = micros(length) / u64::from(max);
        let every = (even - even / FASTER).max(1);
        Some(Pace {
            every,
            early: micros(EARLY).max(every),
        })
    }

    /// Units that may be taken now, and when there will be `cost` if there are fewer. `next`: when the schedule has the
    /// next unit. Once that has come one call is let through whatever it costs, as it would never fit else.
    pub fn free(self, next: u64, cost: u64, now: Micros) -> (u64, Micros) {
        let ahead = next.saturating_sub(now.0);
        let free = self.early.saturating_sub(ahead) / self.every;
        if ahead == 0 {
            return (free.max(cost), now);
        }
        let may_be_ahead = self.early.saturating_sub(self.of_cost(cost));
        (free, Micros(next - may_be_ahead.min(next)))
    }

    /// When the schedule has its next unit, once `cost` were taken now.
    pub fn after(self, next: u64, cost: u64, now: Micros) -> u64 {
        next.max(now.0).saturating_add(self.of_cost(cost))
    }

    /// Microseconds of the schedule that `cost` take.
    pub fn of_cost(self, cost: u64) -> u64 {
        cost.saturating_mul(self.every)
    }
}
