//! The write rule: which observation of a contact replaces which. Invariants 1, 5 and 13 rest on these functions; every
//! store runs them, and the behaviour suite compares what comes of it.

use serde::{Deserialize, Serialize};

use crate::ids::Position;
use crate::time::Micros;

/// One observation of a record on its way into a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    /// When the CRM says it was modified; 0 if the CRM has no such time.
    pub updated: Micros,
    /// Our clock just before the request that returned it was sent.
    pub observed: Micros,
    /// Read through something that may lag behind the truth (a search index): such a row never revives a contact unless
    /// its CRM time is newer than the deletion.
    pub indexed: bool,
    /// Its turn to take on a changed mapping has not come ([`crate::remap`]): other content under the same CRM time is no
    /// news.
    pub waits: bool,
    /// [`crate::contact::content_hash`] of `body`.
    pub hash: u64,
    /// Finished Talkdesk JSON, never empty.
    pub body: Vec<u8>,
    /// Keyed hashes of phones, emails and aliases ([`crate::keys::Keys::lookup_key`]).
    pub keys: Vec<u64>,
}

/// Proof that a record is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub id: String,
    /// The CRM's time of the deletion or of the row that carried the flag; 0 if it gave none (absence from a listing, a
    /// fetch that found nothing).
    pub updated: Micros,
    /// Our clock just before the request that proved it was sent.
    pub observed: Micros,
}

/// What a store knows of a record without its body. `position` is [`Position::START`] for a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub position: Position,
    pub updated: Micros,
    pub observed: Micros,
    pub hash: u64,
    pub keys: Vec<u64>,
}

impl Known {
    pub fn is_tombstone(&self) -> bool {
        self.position == Position::START
    }
}

/// What becomes of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known before, changed, or revived: it gets a new position.
    Write,
    /// The content is unchanged: it keeps its position, and (`updated`, `observed`) move to the newer pair.
    Same,
    /// Something newer is known: nothing changes.
    Stale,
}

/// Judges an observation of a living record. Versions are ordered by (CRM time, fetch start).
pub fn judge(known: Option<&Known>, row: &Row) -> Verdict {
    let Some(known) = known else {
        return Verdict::Write;
    };
    if known.is_tombstone() {
        let newer = row.observed > known.observed && (!row.indexed || row.updated > known.updated);
        return if newer { Verdict::Write } else { Verdict::Stale };
    }
    let no_news = row.waits && row.updated == known.updated && row.updated > Micros::ZERO;
    match (row.updated, row.observed) > (known.updated, known.observed) {
        true if row.hash == known.hash || no_news => Verdict::Same,
        true => Verdict::Write,
        false => Verdict::Stale,
    }
}

/// Whether a removal takes effect. A removal that carries a CRM time is a version like any other; one that proves mere
/// absence needs to have been asked for after the record was last seen.
pub fn judge_removal(known: Option<&Known>, removal: &Removal) -> bool {
    let Some(known) = known else { return true };
    if known.is_tombstone() {
        return removal.observed > known.observed;
    }
    if removal.updated == Micros::ZERO {
        removal.observed > known.observed
    } else {
        (removal.updated, removal.observed) > (known.updated, known.observed)
    }
}

/// The tombstone a removal leaves: no content, no keys, the newer of both times.
pub fn tombstone(known: Option<&Known>, removal: &Removal) -> Known {
    let (updated, observed) = known.map_or((Micros::ZERO, Micros::ZERO), |known| (known.updated, known.observed));
    Known {
        position: Position::START,
        updated: updated.max(removal.updated),
        observed: observed.max(removal.observed),
        hash: 0,
        keys: Vec::new(),
    }
}

/// The order in which the rows of one commit get their positions: CRM time, then id.
pub fn in_commit_order(rows: &mut [Row]) {
    rows.sort_by(|a, b| (a.updated, &a.id).cmp(&(b.updated, &b.id)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(updated: u64, observed: u64, hash: u64, indexed: bool) -> Row {
        Row {
            id: "1".into(),
            updated: Micros(updated),
            observed: Micros(observed),
            indexed,
            waits: false,
            hash,
            body: vec![b'x'],
            keys: vec![],
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Row(u64, u64, u64, bool),
        Removal(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..6u64, 0..12u64, 0..3u64, any::<bool>()).prop_map(|(u, o, h, i)| Step::Row(u, o, h, i)),
            1 => (0..6u64, 0..12u64).prop_map(|(u, o)| Step::Removal(u, o)),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn invariant_5_and_13_versions_never_go_back_and_nothing_older_revives(steps in steps()) {
            let mut known: Option<Known> = None;
            let mut clock = 0;
            for step in steps {
                clock += 1;
                let before = known.clone();
                match step {
                    Step::Row(u, o, h, indexed) => {
                        let row = row(u, o, h, indexed);
                        match judge(known.as_ref(), &row) {
                            Verdict::Write => {
                                if let Some(before) = &before {
                                    if before.is_tombstone() {
                                        prop_assert!(row.observed > before.observed, "an older observation revived");
                                    } else {
                                        prop_assert!((row.updated, row.observed) > (before.updated, before.observed));
                                        prop_assert_ne!(row.hash, before.hash);
                                    }
                                }
                                known = Some(Known {
                                    position: Position(clock), updated: row.updated, observed: row.observed,
                                    hash: row.hash, keys: vec![],
                                });
                            }
                            Verdict::Same => {
                                let before = before.expect("only a known record can be the same");
                                prop_assert_eq!(row.hash, before.hash);
                                prop_assert!(!before.is_tombstone());
                                known = Some(Known { updated: row.updated, observed: row.observed, ..before });
                            }
                            Verdict::Stale => prop_assert!(before.is_some()),
                        }
                    }
                    Step::Removal(u, o) => {
                        let removal = Removal { id: "1".into(), updated: Micros(u), observed: Micros(o) };
                        if judge_removal(known.as_ref(), &removal) {
                            let stone = tombstone(known.as_ref(), &removal);
                            if let Some(before) = &before {
                                prop_assert!(stone.observed >= before.observed && stone.updated >= before.updated);
                            }
                            known = Some(stone);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_waits_for_its_turn_keeps_its_content_until_the_crm_has_news() {
        let known = Known {
            position: Position(1),
            updated: Micros(5),
            observed: Micros(7),
            hash: 1,
            keys: vec![],
        };
        let waits = |updated, observed| Row {
            waits: true,
            ..row(updated, observed, 2, false)
        };
        assert_eq!(judge(Some(&known), &waits(5, 8)), Verdict::Same);
        assert_eq!(judge(Some(&known), &row(5, 8, 2, false)), Verdict::Write);
        assert_eq!(judge(Some(&known), &waits(6, 8)), Verdict::Write);
        assert_eq!(judge(Some(&known), &waits(4, 8)), Verdict::Stale);
        assert_eq!(judge(None, &waits(5, 8)), Verdict::Write);
        // A CRM without times has no way to say that there is no news.
        let timeless = Known {
            updated: Micros::ZERO,
            ..known
        };
        assert_eq!(judge(Some(&timeless), &waits(0, 8)), Verdict::Write);
    }

    #[test]
    fn a_row_of_a_lagging_index_does_not_revive_but_a_direct_read_does() {
        let stone = tombstone(
            None,
            &Removal {
                id: "1".into(),
                updated: Micros(5),
                observed: Micros(10),
            },
        );
        assert_eq!(judge(Some(&stone), &row(4, 11, 1, true)), Verdict::Stale);
        assert_eq!(judge(Some(&stone), &row(6, 11, 1, true)), Verdict::Write);
        assert_eq!(judge(Some(&stone), &row(4, 11, 1, false)), Verdict::Write);
        assert_eq!(judge(Some(&stone), &row(9, 10, 1, false)), Verdict::Stale);
    }

    #[test]
    fn a_second_edit_within_one_second_of_the_crms_clock_is_written() {
        let known = Known {
            position: Position(1),
            updated: Micros(5),
            observed: Micros(10),
            hash: 1,
            keys: vec![],
        };
        assert_eq!(judge(Some(&known), &row(5, 11, 2, false)), Verdict::Write);
        assert_eq!(judge(Some(&known), &row(5, 10, 2, false)), Verdict::Stale);
    }
}
