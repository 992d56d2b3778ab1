//! A changed mapping gives contacts another content although nothing happened at the CRM. They take it on in turns, so that
//! Talkdesk is not sent everybody at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contact::content_hash;
use crate::time::{Micros, micros};

/// By which version of the mapping a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    pub version: u32,
    /// Since when; 0: from the snapshot's beginning.
    pub since: Micros,
}

impl Mapped {
    /// What holds from now on for a snapshot that was written by `before`. `built`: it has contacts already.
    pub fn on(before: Option<Mapped>, version: u32, built: bool, now: Micros) -> Mapped {
        match before {
            Some(before) if before.version == version => before,
            Some(_) if built => Mapped { version, since: now },
            // A snapshot from before this was noted counts as written by the mapping that is there.
            _ => Mapped {
                version,
                since: Micros::ZERO,
            },
        }
    }

    /// Whether a contact takes on a new content that its CRM has no news of. Its turn comes at a time of its own within
    /// `within` of the change, and stays.
    pub fn turn_of(&self, id: &str, now: Micros, within: Duration) -> bool {
        let elapsed = now.0.saturating_sub(self.since.0);
        let place = u128::from(content_hash(id.as_bytes()) >> 32);
        u128::from(elapsed) << 32 >= place * u128::from(micros(within))
    }

    /// Contacts may still be waiting for their turn.
    pub fn is_under_way(&self, now: Micros, within: Duration) -> bool {
        self.since > Micros::ZERO && now < self.since.plus(within)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    proptest! {
        #[test]
        fn a_turn_that_came_stays_and_comes_in_time(
            id in "[a-z0-9]{1,12}", since in 0..4_000_000_000_000_000u64, hours in prop::collection::vec(0..400u32, 1..20), days in 0..10u32
        ) {
            let mapped = Mapped { version: 1, since: Micros(since) };
            let within = DAY * days;
            let mut hours = hours;
            hours.sort_unstable();
            let turns: Vec<bool> = hours
                .iter()
                .map(|hour| mapped.turn_of(&id, mapped.since.plus(Duration::from_secs(3_600) * *hour), within))
                .collect();
            prop_assert!(turns.is_sorted());
            prop_assert!(mapped.turn_of(&id, mapped.since.plus(within), within));
            prop_assert!(mapped.turn_of(&id, mapped.since, Duration::ZERO));
        }
    }

    #[test]
    fn turns_are_spread_evenly() {
        let mapped = Mapped {
            version: 1,
            since: Micros::from_secs(1_000_000),
        };
        for day in 0..=7u32 {
            let now = mapped.since.plus(DAY * day);
            let came = (0..10_000).filter(|id| mapped.turn_of(&id.to_string(), now, 7 * DAY));
            let share = came.count() as f64 / 10_000.0;
            assert!((share - f64::from(day) / 7.0).abs() < 0.02, "{share} after {day} days");
        }
        assert!(mapped.is_under_way(mapped.since.plus(DAY), 7 * DAY));
        assert!(!mapped.is_under_way(mapped.since.plus(7 * DAY), 7 * DAY));
    }

    #[test]
    fn only_a_change_of_what_was_built_is_spread() {
        let now = Micros::from_secs(9);
        let on = |before, built| Mapped::on(before, 2, built, now).since;
        assert_eq!(on(None, false), Micros::ZERO);
        assert_eq!(on(None, true), Micros::ZERO);
        let old = Some(Mapped {
            version: 1,
            since: Micros(7),
        });
        assert_eq!(on(old, true), now);
        assert_eq!(on(old, false), Micros::ZERO);
        let same = Some(Mapped {
            version: 2,
            since: Micros(7),
        });
        assert_eq!(on(same, true), Micros(7));
    }
}
