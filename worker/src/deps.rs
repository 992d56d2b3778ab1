//! What a worker is built from, and its policy.

use std::sync::Arc;
use std::time::Duration;

use contacts::keys::Keys;
use contacts::life::Ages;
use contacts::outcome::RetryPolicy;
use contacts::work::WorkTimes;
use contacts::{AccountId, Clock, Micros, Queue, Store};

use crate::held::Held;
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
    pub held: Arc<Held>,
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
    /// Time between two looks at work whose connector or lane is paused.
    pub held_look: Duration,
    /// Time over which contacts take on a changed mapping.
    pub remap_within: Duration,
    /// When accounts end that Talkdesk no longer calls for.
    pub life: Ages,
    /// Accounts that one sweep looks at for that.
    pub walk: usize,
    /// Audit entries kept.
    pub audit: usize,
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
            held_look: Duration::from_secs(30),
            remap_within: Duration::from_secs(7 * 24 * 3600),
            life: Ages::default(),
            walk: 50,
            audit: 500,
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

/// How much earlier than the last webhook the noted one may be (`requests`).
pub(crate) const NOTED_WITHIN: Duration = Duration::from_secs(1);
/// How far the CRM's clock, as it is noted, may run behind the true one: `Date` headers are cut to whole seconds.
const CLOCK_CUT: Duration = Duration::from_secs(1);

/// When a poll that a webhook led to is due once more. The window of a poll that began at `started` ended `lag` before
/// that, so a change that a webhook told of less than `lag` earlier may lie behind its end. `None`: the window held it.
pub fn after_event(event: Option<Micros>, started: Micros, lag: Duration) -> Option<Micros> {
    let at = event?.plus(lag + NOTED_WITHIN + CLOCK_CUT);
    (at > started).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::Progress;

    proptest! {
        #[test]
        fn invariant_9_a_change_that_a_webhook_told_of_lies_within_a_poll_that_is_due(
            changed in 10_000_000..20_000_000u64,
            delivery in 0..5_000_000u64,
            unnoted in 0..1_000_000u64,
            wait in 0..90_000_000u64,
            late in 0..5_000_000u64,
            cut in -1_000_000..=0i64,
            lag in 0..60_000_000u64,
        ) {
            // The last webhook came at `told`; the one that was noted may be a little older.
            let told = changed + delivery;
            let noted = Some(Micros(told - unnoted));
            let lag = Duration::from_micros(lag);
            let progress = Progress { skew: cut, ..Progress::default() };
            let started = Micros(told + wait);
            let first = progress.window(started, lag, Duration::ZERO);
            match after_event(noted, started, lag) {
                None => prop_assert!(first.until.0 >= changed, "it is told of and no poll is due"),
                Some(at) => {
                    prop_assert!(at > started);
                    let started = at.plus(Duration::from_micros(late));
                    let second = progress.window(started, lag, Duration::ZERO);
                    prop_assert!(second.until.0 >= changed, "the second poll misses it too");
                    prop_assert_eq!(after_event(noted, started, lag), None, "polls without end");
                }
            }
        }
    }

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
