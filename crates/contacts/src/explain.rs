//! Why a contact is, or is not, delivered: what the CRM says of it now, put to the rules that workers write by
//! ([`record::judge`]). For operators; it names no values.

use std::time::Duration;

use serde::Serialize;

use crate::ids::{Kind, Position};
use crate::record::{self, Known, Removal, Row, Verdict};
use crate::runs::Run;
use crate::time::Micros;

/// What the CRM said of a contact when it was asked just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there and wanted: what a worker would write.
    Wanted(Row),
    /// What a worker would remove: the CRM no longer has it, its row says that it is archived, or the integration does not
    /// want it.
    Gone(Removal),
    /// It makes no contact, or was not returned, which proves nothing: a worker would leave the snapshot as it is.
    Unusable,
    /// The CRM was not asked, or did not answer.
    Unasked,
}

/// How the snapshot stands to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The snapshot holds what the CRM has.
    Current,
    /// It is written by an earlier mapping, and its turn to take on the changed one has not come.
    Waits,
    /// The CRM has another version, which the next look brings.
    Behind,
    /// The CRM has it and the snapshot does not, until the next look.
    ToCome,
    /// The snapshot holds it until the next look takes it out.
    ToGo,
    /// The snapshot knows of something newer than what the CRM shows, and keeps that.
    Newer,
    /// The snapshot keeps an earlier version, as nothing proves that it is gone.
    Kept,
    /// Neither the snapshot nor Talkdesk gets it as it is.
    LeftOut,
    /// Not in the CRM, and not in the snapshot.
    Gone,
    /// An operator erased it, and it is kept out ([`crate::erased`]). [`standing`] does not know of that.
    Erased,
    /// The snapshot holds it; the CRM was not asked.
    Unconfirmed,
    /// The snapshot does not hold it; the CRM was not asked.
    Unknown,
}

impl Standing {
    /// A look at the CRM would change the snapshot.
    pub fn is_due(self) -> bool {
        matches!(self, Standing::Behind | Standing::ToCome | Standing::ToGo)
    }
}

/// What would come of `seen` if a worker wrote it now.
pub fn standing(seen: &Seen, known: Option<&Known>) -> Standing {
    let lives = known.is_some_and(|known| !known.is_tombstone());
    match seen {
        Seen::Wanted(row) => match (record::judge(known, row), lives) {
            (Verdict::Write, false) => Standing::ToCome,
            (Verdict::Write, true) => Standing::Behind,
            (Verdict::Same, _) if known.is_some_and(|known| known.hash != row.hash) => Standing::Waits,
            (Verdict::Same, _) => Standing::Current,
            (Verdict::Stale, _) => Standing::Newer,
        },
        Seen::Gone(removal) => match (lives, record::judge_removal(known, removal)) {
            (false, _) => Standing::Gone,
            (true, true) => Standing::ToGo,
            (true, false) => Standing::Newer,
        },
        Seen::Unusable if lives => Standing::Kept,
        Seen::Unusable => Standing::LeftOut,
        Seen::Unasked if lives => Standing::Unconfirmed,
        Seen::Unasked => Standing::Unknown,
    }
}

/// How far the store's clock, by which positions are given, may be from the workers', by which runs are noted.
const CLOCKS: Duration = Duration::from_secs(1);

/// The kept run that gave this position, if it is still kept: positions are times.
pub fn writer(position: Position, runs: &[Run]) -> Option<&Run> {
    let at = Micros(position.0);
    let gave = |run: &&Run| {
        run.kind != Kind::Agents
            && run.tally.written > 0
            && run.began.minus(CLOCKS) <= at
            && at <= run.ended.plus(CLOCKS)
    };
    let off = |run: &&Run| run.began.since(at) + at.since(run.ended);
    runs.iter().filter(gave).min_by_key(off)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Lane;
    use crate::runs::Tally;

    fn known() -> impl Strategy<Value = Option<Known>> {
        let one = (0..3u64, 0..6u64, 0..12u64, 0..3u64).prop_map(|(position, updated, observed, hash)| Known {
            position: Position(position),
            updated: Micros(updated),
            observed: Micros(observed),
            hash,
            keys: Vec::new(),
        });
        prop::option::of(one)
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            (0..6u64, 0..12u64, 0..3u64, any::<bool>(), any::<bool>()).prop_map(
                |(updated, observed, hash, indexed, waits)| {
                    Seen::Wanted(Row {
                        id: "1".into(),
                        updated: Micros(updated),
                        observed: Micros(observed),
                        indexed,
                        waits,
                        hash,
                        body: vec![b'x'],
                        keys: Vec::new(),
                    })
                }
            ),
            (0..6u64, 0..12u64).prop_map(|(updated, observed)| {
                Seen::Gone(Removal {
                    id: "1".into(),
                    updated: Micros(updated),
                    observed: Micros(observed),
                })
            }),
            Just(Seen::Unusable),
            Just(Seen::Unasked),
        ]
    }

    /// What a commit makes of it.
    fn written(seen: &Seen, known: Option<Known>) -> Option<Known> {
        match seen {
            Seen::Wanted(row) => match record::judge(known.as_ref(), row) {
                Verdict::Stale => known,
                Verdict::Same | Verdict::Write => {
                    let same = record::judge(known.as_ref(), row) == Verdict::Same;
                    let kept = known.filter(|_| same);
                    Some(Known {
                        position: kept.as_ref().map_or(Position(9), |known| known.position),
                        updated: row.updated,
                        observed: row.observed,
                        hash: kept.map_or(row.hash, |known| known.hash),
                        keys: Vec::new(),
                    })
                }
            },
            Seen::Gone(removal) if record::judge_removal(known.as_ref(), removal) => {
                Some(record::tombstone(known.as_ref(), removal))
            }
            Seen::Gone(_) | Seen::Unusable | Seen::Unasked => known,
        }
    }

    fn content(known: Option<&Known>) -> Option<(Position, u64)> {
        let living = known.filter(|known| !known.is_tombstone());
        living.map(|known| (known.position, known.hash))
    }

    proptest! {
        #[test]
        fn what_is_said_to_be_due_is_what_a_commit_would_change(seen in seen(), known in known()) {
            let told = standing(&seen, known.as_ref());
            let after = written(&seen, known.clone());
            prop_assert_eq!(told.is_due(), content(known.as_ref()) != content(after.as_ref()), "{:?}", told);
            prop_assert!(!standing(&seen, after.as_ref()).is_due(), "and then it is done");
            let lives = known.is_some_and(|known| !known.is_tombstone());
            let absent = matches!(told, Standing::ToCome | Standing::LeftOut | Standing::Gone | Standing::Unknown);
            prop_assert!(told == Standing::Newer || absent != lives, "{:?} of a record that lives: {}", told, lives);
        }

        #[test]
        fn the_writer_of_a_position_is_a_run_that_wrote_at_that_time(
            spans in prop::collection::vec((0..60u64, 0..10u64, 0..3u32), 0..8), at in 0..70u64,
        ) {
            let runs: Vec<Run> = spans.iter().map(|(began, took, written)| run(*began, began + took, *written)).collect();
            let position = Position(Micros::from_secs(at).0);
            let within = |run: &&Run| {
                run.tally.written > 0 && run.began <= Micros(position.0) && Micros(position.0) <= run.ended
            };
            match writer(position, &runs) {
                Some(found) => {
                    prop_assert!(found.tally.written > 0);
                    prop_assert!(within(&found) || !runs.iter().any(|run| within(&run)), "one nearby before the one that was");
                }
                None => prop_assert!(!runs.iter().any(|run| within(&run))),
            }
        }
    }

    fn run(began: u64, ended: u64, written: u32) -> Run {
        Run {
            kind: Kind::Changes,
            lane: Lane::Refresh,
            began: Micros::from_secs(began),
            ended: Micros::from_secs(ended),
            outcome: "done".into(),
            error: None,
            times: 1,
            tally: Tally {
                written,
                ..Tally::default()
            },
        }
    }
}
