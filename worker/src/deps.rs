//! What a worker is built from, and its policy.

use std::sync::Arc;
use std::time::Duration;

use contacts::keys::Keys;
use contacts::outcome::RetryPolicy;
use contacts::work::WorkTimes;
use contacts::{AccountId, Clock, Micros, Queue, Store};

use crate::requests::Requests;
use crate::source::Sources;

/// Everything a worker needs, shared by its tasks.
#[derive(Clone)]
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub keys: Arc<Keys>,
    pub clock: Arc<dyn Clock>,
    pub sources: Arc<dyn Sources>,
    pub requests: Arc<Requests>,
    pub policy: Policy,
    /// Names this process in leases.
    pub owner: String,
}

/// The settings a worker runs by.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Jobs run at once; also the prefetch.
    pub slots: usize,
    pub slice: Plan,
    pub retry: RetryPolicy,
    pub times: WorkTimes,
    /// Time between two looks of the sweep.
    pub sweep: Duration,
    /// Rows and removals per commit.
    pub commit_rows: usize,
    /// How long a stopping worker may finish the page in hand.
    pub stop_grace: Duration,
    pub brake: Brake,
    /// How long a job that meets a busy account is put off.
    pub busy_wait: Duration,
    /// How long tombstones are kept.
    pub tombstones: Duration,
    /// Ids that may wait in a dirty set.
    pub dirty_limit: usize,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            slots: 4,
            slice: Plan::default(),
            retry: RetryPolicy::default(),
            times: WorkTimes::default(),
            sweep: Duration::from_secs(15),
            commit_rows: 100,
            stop_grace: Duration::from_secs(8),
            brake: Brake::default(),
            busy_wait: Duration::from_secs(5),
            tombstones: Duration::from_secs(30 * 24 * 3600),
            dirty_limit: 500,
        }
    }
}

/// How much one slice does before it lets others go.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub time: Duration,
    pub pages: u32,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            time: Duration::from_secs(20),
            pages: 50,
        }
    }
}

/// How many contacts a full pass may delete without a second pass that agrees.
#[derive(Clone, Copy, Debug)]
pub struct Brake {
    /// Share of the living contacts.
    pub ratio: f64,
    /// Never brakes at or below this many.
    pub min: u64,
    /// Always brakes above this many.
    pub max: u64,
}

impl Default for Brake {
    fn default() -> Brake {
        Brake {
            ratio: 0.2,
            min: 20,
            max: 1_000,
        }
    }
}

impl Brake {
    /// The most deletions that go through at once, of `living` contacts.
    pub fn limit(&self, living: u64) -> u64 {
        let share = (living as f64 * self.ratio) as u64;
        share.max(self.min).min(self.max)
    }
}

/// Spreads a period over accounts: the same account always gets the same part of ±`jitter`, so that not all of them are
/// due at once.
pub fn jittered(period: Duration, jitter: f64, account: &AccountId) -> Duration {
    let spread = account
        .as_str()
        .bytes()
        .fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let part = f64::from(spread % 1_000) / 500.0 - 1.0;
    period.mul_f64((1.0 + jitter.clamp(0.0, 0.9) * part).max(0.05))
}

/// When to poll next: at the usual pace while webhooks arrive or there are none; twice as often when they have fallen
/// silent, because then the poll is all there is.
pub fn next_poll(
    period: Duration,
    jitter: f64,
    account: &AccountId,
    last_event: Option<Micros>,
    silence: Duration,
    now: Micros,
) -> Micros {
    let silent = last_event.is_some_and(|at| now.since(at) > silence);
    let period = if silent { period / 2 } else { period };
    now.plus(jittered(period, jitter, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_13_the_brake_bites_between_its_bounds() {
        let brake = Brake::default();
        for (living, limit) in [
            (0, 20),
            (50, 20),
            (100, 20),
            (1_000, 200),
            (5_000, 1_000),
            (1_000_000, 1_000),
        ] {
            assert_eq!(brake.limit(living), limit, "{living} living");
        }
    }

    #[test]
    fn periods_are_spread_and_shorter_in_silence() {
        let account: AccountId = "abcdefghijklmnopqrstuvwx23".parse().unwrap();
        let period = Duration::from_secs(600);
        let spread = jittered(period, 0.1, &account);
        assert!(spread >= period.mul_f64(0.9) && spread <= period.mul_f64(1.1));
        assert_eq!(jittered(period, 0.0, &account), period);

        let now = Micros::from_secs(100_000);
        let silence = Duration::from_secs(3600);
        let at = |event| next_poll(period, 0.0, &account, event, silence, now).since(now);
        assert_eq!(at(None), period);
        assert_eq!(at(Some(now)), period);
        assert_eq!(at(Some(now.minus(silence * 2))), period / 2);
    }
}
