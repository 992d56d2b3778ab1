//! The end of accounts that Talkdesk no longer calls for: first suspended (no CRM call any more, its credentials wiped), later dropped
//! with all its data. A call of Talkdesk in between revives it.

use std::time::Duration;

use crate::accounts::Account;
use crate::time::Micros;
use crate::work::Work;

/// After which silence of Talkdesk what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    pub suspend: Duration,
    /// Not shorter than `suspend`.
    pub drop: Duration,
}

impl Default for Ages {
    fn default() -> Ages {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Ages {
            suspend: days(30),
            drop: days(90),
        }
    }
}

/// What is to be done about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Its work stops, and then it is to be wiped.
    Suspend,
    /// It is suspended: its webhook at the CRM ends and its credentials go.
    Wipe,
    /// Talkdesk has brought credentials since it was suspended.
    Revive,
    /// All its data goes.
    Drop,
}

/// When Talkdesk last had to do with the account: an account that was added by hand waits for its first call.
pub fn last_call(account: &Account) -> Micros {
    account.called.max(account.created)
}

/// Judges an account. One that an operator has paused is the operator's.
pub fn judge(account: &Account, work: &Work, ages: &Ages, now: Micros) -> Step {
    if work.pause.is_some() {
        return Step::Rest;
    }
    let idle = now.since(last_call(account));
    let wiped = account.credentials.is_none();
    match work.suspended {
        None if idle >= ages.suspend => Step::Suspend,
        None => Step::Rest,
        Some(_) if idle < ages.suspend && !wiped => Step::Revive,
        // First what the CRM holds for it ends, which needs the credentials.
        Some(_) if !wiped => Step::Wipe,
        Some(_) if idle >= ages.drop.max(ages.suspend) && !is_written(work, now) => Step::Drop,
        Some(_) => Step::Rest,
    }
}

fn is_written(work: &Work, now: Micros) -> bool {
    let leases = [&work.lease, &work.agents_lease].into_iter().flatten();
    leases.into_iter().any(|lease| lease.until > now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::accounts::Sealed;
    use crate::ids::{Fence, Kind};
    use crate::keys::Fingerprint;
    use crate::work::Lease;

    fn account(created: u64, called: u64, wiped: bool) -> Account {
        let sealed = Sealed {
            kid: "k".into(),
            data: "x".into(),
        };
        Account {
            id: "abcdefghijklmnopqrstuvwx23".parse().unwrap(),
            integration: "demo".into(),
            connector: "demo".into(),
            budget: "b".into(),
            user_budget: None,
            dealer: None,
            created: Micros::from_secs(created),
            credentials: if wiped { Sealed::none() } else { sealed },
            fingerprint: Fingerprint("f".into()),
            learned: BTreeMap::new(),
            route: None,
            called: Micros::from_secs(called),
            verified: Micros::ZERO,
            tokens: Default::default(),
        }
    }

    const AGES: Ages = Ages {
        suspend: Duration::from_secs(30),
        drop: Duration::from_secs(90),
    };

    proptest! {
        #[test]
        fn nobody_loses_anything_before_its_time_and_everybody_comes_to_rest(
            created in 0..200u64, called in prop::option::of(0..200u64), now in 200..400u64,
            paused: bool, suspended: bool, wiped: bool, leased: bool,
        ) {
            let mut account = account(created, called.unwrap_or(0), wiped && suspended);
            let at = Micros::from_secs(now);
            let mut work = Work::default();
            if paused {
                work.pause("Ann".into(), at);
            }
            work.suspended = suspended.then_some(at);
            work.lease = leased.then(|| Lease {
                owner: "w".into(), fence: Fence(1), kind: Kind::Full, until: at.plus(Duration::from_secs(1)),
            });
            let idle = at.since(last_call(&account));
            let mut dropped = false;
            let mut steps = 0;
            loop {
                let step = judge(&account, &work, &AGES, at);
                prop_assert!(!paused || step == Step::Rest, "an operator's pause holds");
                match step {
                    Step::Rest => break,
                    Step::Suspend => {
                        prop_assert!(idle >= AGES.suspend);
                        prop_assert!(work.suspend(at));
                    }
                    Step::Wipe => {
                        prop_assert!(idle >= AGES.suspend && work.is_held(), "no worker uses what is wiped");
                        account.credentials = Sealed::none();
                    }
                    Step::Revive => {
                        prop_assert!(idle < AGES.suspend && !account.credentials.is_none());
                        prop_assert!(work.unsuspend(at).is_some());
                    }
                    Step::Drop => {
                        prop_assert!(idle >= AGES.drop && account.credentials.is_none() && !leased);
                        dropped = true;
                        break;
                    }
                }
                steps += 1;
                prop_assert!(steps < 4, "it goes round");
            }
            prop_assert!(dropped || paused || leased || idle < AGES.drop, "it would stay for ever");
            if !paused && !dropped && idle >= AGES.suspend {
                prop_assert!(work.is_held() && account.credentials.is_none());
            }
        }
    }
}
