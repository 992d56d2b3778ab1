//! What a commit changes, worked out without IO: the rules of [`contacts::record`] over what was read of the records it
//! touches, then the difference between before and after.

use std::collections::HashMap;

use contacts::ports::{Commit, Committed};
use contacts::record::{Known, Removal, Row, Verdict, judge, judge_removal, tombstone};
use contacts::{Micros, Position};

/// A record that a commit touches.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub id: &'a str,
    pub before: Option<Known>,
    pub after: Option<Known>,
    /// Where the body comes from if it is to be written.
    pub content: Option<&'a Row>,
}

impl Record<'_> {
    /// The position whose body is to go.
    pub fn leaves(&self) -> Option<Position> {
        let before = living(self.before.as_ref())?;
        let stays = self.content.is_none() && self.after.as_ref().map(|known| known.position) == Some(before.position);
        (!stays).then_some(before.position)
    }

    pub fn changed(&self) -> Option<&Known> {
        self.after.as_ref().filter(|after| self.before.as_ref() != Some(*after))
    }

    /// The times under which the record's tombstone is to go, and to come.
    pub fn stones(&self) -> (Option<Micros>, Option<Micros>) {
        let stone = |known: &Option<Known>| {
            let known = known.as_ref().filter(|known| known.is_tombstone())?;
            Some(known.observed)
        };
        match (stone(&self.before), stone(&self.after)) {
            (before, after) if before == after => (None, None),
            both => both,
        }
    }
}

fn living(known: Option<&Known>) -> Option<&Known> {
    known.filter(|known| !known.is_tombstone())
}

/// The records of a commit in the order in which they were touched.
pub(super) struct Plan<'a> {
    pub records: Vec<Record<'a>>,
    pub done: Committed,
    /// Living records afterwards.
    pub count: u64,
}

/// The ids of a commit, each once, and where its rows and removals stand among them.
pub(super) struct Touched<'a> {
    pub ids: Vec<&'a str>,
    rows: Vec<usize>,
    removals: Vec<usize>,
}

impl<'a> Touched<'a> {
    pub fn by(commit: &'a Commit) -> Touched<'a> {
        let all = commit.rows.len() + commit.removals.len();
        let (mut ids, mut known) = (Vec::with_capacity(all), HashMap::with_capacity(all));
        let mut place = |id: &'a str| {
            *known.entry(id).or_insert_with(|| {
                ids.push(id);
                ids.len() - 1
            })
        };
        let rows = commit.rows.iter().map(|row| place(&row.id)).collect();
        let removals = commit.removals.iter().map(|removal| place(&removal.id)).collect();
        Touched { ids, rows, removals }
    }
}

/// `known`: of each id touched. `last` and `count`: of the head. `clock`: the store's.
pub(super) fn plan<'a>(
    commit: &'a Commit,
    touched: &Touched<'a>,
    known: Vec<Option<Known>>,
    last: Position,
    count: u64,
    clock: Micros,
) -> Plan<'a> {
    let record = |(id, before): (&&'a str, Option<Known>)| Record {
        id,
        after: before.clone(),
        before,
        content: None,
    };
    let done = Committed {
        position: last,
        ..Committed::default()
    };
    let records = touched.ids.iter().zip(known).map(record).collect();
    let mut plan = Plan { records, done, count };
    for (at, row) in touched.rows.iter().zip(&commit.rows) {
        plan.write(*at, row, clock);
    }
    for (at, removal) in touched.removals.iter().zip(&commit.removals) {
        plan.remove(*at, removal);
    }
    plan
}

impl<'a> Plan<'a> {
    fn write(&mut self, at: usize, row: &'a Row, clock: Micros) {
        let record = &mut self.records[at];
        match (judge(record.after.as_ref(), row), &mut record.after) {
            (Verdict::Stale, _) => self.done.stale += 1,
            (Verdict::Same, Some(known)) => {
                self.done.same += 1;
                if known.updated != row.updated {
                    // The time stands beside the body.
                    record.content = Some(row);
                }
                (known.updated, known.observed) = (row.updated, row.observed);
            }
            (Verdict::Same | Verdict::Write, after) => {
                self.done.written += 1;
                self.done.position = self.done.position.next(clock);
                self.count += u64::from(living(after.as_ref()).is_none());
                *after = Some(Known {
                    position: self.done.position,
                    updated: row.updated,
                    observed: row.observed,
                    hash: row.hash,
                    keys: row.keys.clone(),
                });
                record.content = Some(row);
            }
        }
    }

    fn remove(&mut self, at: usize, removal: &Removal) {
        let record = &mut self.records[at];
        let known = record.after.as_ref();
        if !judge_removal(known, removal) {
            self.done.stale += 1;
            return;
        }
        if living(known).is_some() {
            self.done.removed += 1;
            self.count = self.count.saturating_sub(1);
        }
        record.after = Some(tombstone(known, removal));
        record.content = None;
    }

    pub fn lookups(&self) -> Lookups<'a> {
        let (mut dropped, mut added) = (Vec::new(), Vec::new());
        for record in &self.records {
            let [before, after] = [&record.before, &record.after]
                .map(|known| known.as_ref().map_or(&[][..], |known| known.keys.as_slice()));
            if before != after {
                let pair = |key: &u64| (*key, record.id);
                dropped.extend(before.iter().filter(|key| !after.contains(key)).map(pair));
                added.extend(after.iter().filter(|key| !before.contains(key)).map(pair));
            }
        }
        Lookups::new(dropped, added)
    }
}

/// Pairs of lookup key and id that a commit takes away and brings.
///
/// A key's first id **holds** it, in a hash; all others that carry it **share** it, in a sorted set. So the common case, a
/// key of one id, costs a place in a hash, and a key that thousands carry (a switchboard's number) no more than before. When
/// a holder lets go of a key, those who share it stay where they are: readers look in both places.
#[derive(Debug)]
pub(super) struct Lookups<'a> {
    dropped: Vec<(u64, &'a str)>,
    added: Vec<(u64, &'a str)>,
    /// Whose holders must be known, in ascending order.
    pub keys: Vec<u64>,
}

/// What is to be done in the hash of holders and in the sorted set of those who share a key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves<'a> {
    pub held: Vec<(u64, &'a str)>,
    pub free: Vec<u64>,
    pub shared: Vec<(u64, &'a str)>,
    pub unshared: Vec<(u64, &'a str)>,
}

impl<'a> Lookups<'a> {
    fn new(dropped: Vec<(u64, &'a str)>, added: Vec<(u64, &'a str)>) -> Lookups<'a> {
        let mut keys: Vec<u64> = dropped.iter().chain(&added).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        Lookups { dropped, added, keys }
    }

    /// `holders`: of each of the keys.
    pub fn moves(&self, holders: &[Option<String>]) -> Moves<'a> {
        #[derive(Clone, Copy)]
        struct Place<'s, 'a> {
            before: Option<&'s str>,
            kept: bool,
            after: Option<&'a str>,
        }
        let place = |at: usize| {
            let before = holders.get(at).and_then(Option::as_deref);
            let kept = before.is_some();
            let after = None;
            Place { before, kept, after }
        };
        let mut places: Vec<Place<'_, 'a>> = (0..self.keys.len()).map(place).collect();
        let mut moves = Moves::default();
        for (key, id) in &self.dropped {
            let place = self.keys.binary_search(key).map(|at| &mut places[at]);
            match place {
                Ok(place) if place.kept && place.before == Some(*id) => place.kept = false,
                _ => moves.unshared.push((*key, *id)),
            }
        }
        for (key, id) in &self.added {
            let place = self.keys.binary_search(key).map(|at| &mut places[at]);
            match place {
                Ok(place) if place.kept && place.before == Some(*id) => {}
                Ok(place) if !place.kept && place.after.is_none_or(|holder| holder == *id) => place.after = Some(*id),
                _ => moves.shared.push((*key, *id)),
            }
        }
        for (key, place) in self.keys.iter().zip(places) {
            match place.after {
                Some(id) => moves.held.push((*key, id)),
                None if place.before.is_some() && !place.kept => moves.free.push(*key),
                None => {}
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// What Redis holds of lookup keys.
    #[derive(Default)]
    struct Places {
        holders: BTreeMap<u64, String>,
        shared: BTreeSet<(u64, String)>,
    }

    impl Places {
        fn take(&mut self, lookups: &Lookups<'_>) {
            let holders: Vec<Option<String>> = lookups.keys.iter().map(|key| self.holders.get(key).cloned()).collect();
            let moves = lookups.moves(&holders);
            for key in moves.free {
                assert!(self.holders.remove(&key).is_some(), "nobody held it");
            }
            for (key, id) in moves.held {
                self.holders.insert(key, id.to_owned());
            }
            for (key, id) in moves.unshared {
                self.shared.remove(&(key, id.to_owned()));
            }
            for (key, id) in moves.shared {
                self.shared.insert((key, id.to_owned()));
            }
        }
    }

    proptest! {
        /// From what step 1 of the layout left, too: there all pairs are shared.
        #[test]
        fn each_pair_lies_in_one_of_both_places(
            old in prop::collection::btree_set((0..4_u64, 0..4_usize), 0..8),
            commits in prop::collection::vec(
                prop::collection::btree_map(0..4_usize, prop::collection::vec(0..4_u64, 0..4), 1..4), 1..20)
        ) {
            const IDS: [&str; 4] = ["a", "b", "c", "d"];
            let mut expected: BTreeSet<(u64, String)> = old.iter().map(|(key, id)| (*key, IDS[*id].to_owned())).collect();
            let mut places = Places { shared: expected.clone(), ..Places::default() };
            for commit in commits {
                let (mut dropped, mut added) = (Vec::new(), Vec::new());
                for (id, keys) in commit {
                    let id = IDS[id];
                    let before: Vec<u64> = (0..4).filter(|key| expected.contains(&(*key, id.to_owned()))).collect();
                    dropped.extend(before.iter().filter(|key| !keys.contains(key)).map(|key| (*key, id)));
                    added.extend(keys.iter().filter(|key| !before.contains(key)).map(|key| (*key, id)));
                    expected.retain(|(_, other)| other != id);
                    expected.extend(keys.iter().map(|key| (*key, id.to_owned())));
                }
                places.take(&Lookups::new(dropped, added));
                let held: BTreeSet<(u64, String)> = places.holders.clone().into_iter().collect();
                prop_assert!(held.is_disjoint(&places.shared));
                let all: BTreeSet<(u64, String)> = held.union(&places.shared).cloned().collect();
                prop_assert_eq!(&all, &expected);
            }
        }
    }
}
