//! What becomes of a piece of work that ended: a pure function of (kind of error, attempt).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// Why a call to a CRM, a store or a queue failed, as far as it decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ErrorKind {
    /// The CRM refused the credentials.
    Credentials,
    /// The CRM asked us to slow down until then.
    Throttled { until: Micros },
    /// A quota is used up until then.
    Quota { until: Micros },
    /// Our own budget has no call left until then.
    NoBudget { until: Micros },
    /// The CRM could not be reached, or answered 5xx.
    Unavailable,
    /// The CRM did not answer in time.
    Timeout,
    /// The reply was no complete, well-formed answer: cut off, not JSON, a login page, another shape.
    BadReply,
    /// The CRM refused the request itself; repeating it will not help.
    Rejected,
    /// A page cursor that does not move, or pages without end.
    CursorStuck,
    /// The host is not one that this connector may call.
    HostRefused,
    /// What was asked for is not there.
    Missing,
    /// Our store is out of reach: no budget, so no call.
    StoreDown,
}

impl ErrorKind {
    /// One word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Credentials => "credentials",
            ErrorKind::Throttled { .. } => "throttled",
            ErrorKind::Quota { .. } => "quota",
            ErrorKind::NoBudget { .. } => "no_budget",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::BadReply => "bad_reply",
            ErrorKind::Rejected => "rejected",
            ErrorKind::CursorStuck => "cursor_stuck",
            ErrorKind::HostRefused => "host_refused",
            ErrorKind::Missing => "missing",
            ErrorKind::StoreDown => "store_down",
        }
    }
}

/// What becomes of a job's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Progress was made and there is more: publish the continuation.
    Continue,
    /// Try again after this long; uses up an attempt.
    Retry {
        after: Duration,
    },
    /// Look again at that time; uses up no attempt.
    Due {
        at: Micros,
    },
    /// Stop the account's work until its cause is gone: the CRM no longer takes the credentials.
    Park,
    /// Give up, with the reason on record.
    Dead {
        reason: &'static str,
    },
}

/// How often and how patiently work is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts before a dead letter.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 8,
            first: Duration::from_secs(5),
            max: Duration::from_secs(3600),
        }
    }
}

impl RetryPolicy {
    /// The wait after attempt number `attempt` (the first is 1).
    pub fn wait(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// Judges a failure. `attempt` counts from 1.
pub fn judge(kind: ErrorKind, attempt: u32, now: Micros, policy: &RetryPolicy) -> Outcome {
    let retry = |reason| {
        if attempt >= policy.attempts {
            Outcome::Dead { reason }
        } else {
            Outcome::Retry {
                after: policy.wait(attempt),
            }
        }
    };
    match kind {
        ErrorKind::Credentials => Outcome::Park,
        ErrorKind::Throttled { until } | ErrorKind::Quota { until } | ErrorKind::NoBudget { until } => Outcome::Due {
            at: until.max(now.plus(Duration::from_millis(1))),
        },
        ErrorKind::StoreDown => Outcome::Due {
            at: now.plus(policy.first),
        },
        ErrorKind::Unavailable => retry("the CRM stayed out of reach"),
        ErrorKind::Timeout => retry("the CRM kept timing out"),
        ErrorKind::BadReply => retry("the CRM kept answering with something that is no complete reply"),
        ErrorKind::Missing => retry("the CRM kept saying that what was asked for is not there"),
        ErrorKind::CursorStuck => retry("the CRM's page cursor does not move"),
        ErrorKind::Rejected => Outcome::Dead {
            reason: "the CRM refused the request itself",
        },
        ErrorKind::HostRefused => Outcome::Dead {
            reason: "the connector may not call this host",
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: [ErrorKind; 12] = [
        ErrorKind::Credentials,
        ErrorKind::Throttled { until: Micros(50) },
        ErrorKind::Quota { until: Micros(50) },
        ErrorKind::NoBudget { until: Micros(50) },
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::BadReply,
        ErrorKind::Rejected,
        ErrorKind::CursorStuck,
        ErrorKind::HostRefused,
        ErrorKind::Missing,
        ErrorKind::StoreDown,
    ];

    proptest! {
        #[test]
        fn invariant_14_each_failure_ends_waiting_parked_or_dead_with_a_reason(
            which in 0..EVERY.len(), attempt in 1..40u32, now in 0..100u64,
        ) {
            let policy = RetryPolicy::default();
            match judge(EVERY[which], attempt, Micros(now), &policy) {
                Outcome::Retry { after } => {
                    prop_assert!(attempt < policy.attempts);
                    prop_assert!(after >= policy.first && after <= policy.max);
                }
                Outcome::Due { at } => prop_assert!(at > Micros(now)),
                Outcome::Dead { reason } => prop_assert!(!reason.is_empty()),
                Outcome::Park => prop_assert_eq!(EVERY[which], ErrorKind::Credentials),
                Outcome::Done | Outcome::Continue => prop_assert!(false, "a failure is not done"),
            }
        }
    }

    #[test]
    fn waiting_for_a_quota_uses_up_no_attempt() {
        let policy = RetryPolicy::default();
        let outcome = judge(ErrorKind::Quota { until: Micros(9_000) }, 99, Micros(1), &policy);
        assert_eq!(outcome, Outcome::Due { at: Micros(9_000) });
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy::default();
        let waits: Vec<u64> = (1..=12).map(|attempt| policy.wait(attempt).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    }
}
