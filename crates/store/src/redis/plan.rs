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

/// The ids of a commit, each once.
pub(super) fn ids(commit: &Commit) -> Vec<&str> {
    let rows = commit.rows.iter().map(|row| row.id.as_str());
    let mut ids: Vec<&str> = rows
        .chain(commit.removals.iter().map(|removal| removal.id.as_str()))
        .collect();
    let mut seen = std::collections::HashSet::with_capacity(ids.len());
    ids.retain(|id| seen.insert(*id));
    ids
}

/// `known`: of each of [`ids`], in that order. `last` and `count`: of the head. `clock`: the store's.
pub(super) fn plan<'a>(
    commit: &'a Commit,
    known: Vec<(&'a str, Option<Known>)>,
    last: Position,
    count: u64,
    clock: Micros,
) -> Plan<'a> {
    let mut at = HashMap::with_capacity(known.len());
    let mut records = Vec::with_capacity(known.len());
    for (id, before) in known {
        at.insert(id, records.len());
        records.push(Record {
            id,
            after: before.clone(),
            before,
            content: None,
        });
    }
    let done = Committed {
        position: last,
        ..Committed::default()
    };
    let mut plan = Plan { records, done, count };
    for row in &commit.rows {
        if let Some(at) = at.get(row.id.as_str()) {
            plan.write(*at, row, clock);
        }
    }
    for removal in &commit.removals {
        if let Some(at) = at.get(removal.id.as_str()) {
            plan.remove(*at, removal);
        }
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
            self.count -= 1;
        }
        record.after = Some(tombstone(known, removal));
        record.content = None;
    }

    pub fn lookups(&self) -> Lookups<'a> {
        let mut lookups = Lookups::default();
        for record in &self.records {
            let keys = |known: &Option<Known>| known.as_ref().map_or(Vec::new(), |known| known.keys.clone());
            let (before, after) = (keys(&record.before), keys(&record.after));
            if before != after {
                let only = |these: &[u64], others: &[u64]| -> Vec<(u64, &'a str)> {
                    let missing = these.iter().filter(|key| !others.contains(key));
                    missing.map(|key| (*key, record.id)).collect()
                };
                lookups.dropped.extend(only(&before, &after));
                lookups.added.extend(only(&after, &before));
            }
        }
        lookups
    }
}

/// Pairs of lookup key and id that a commit takes away and brings.
///
/// A key's first id **holds** it, in a hash; all others that carry it **share** it, in a sorted set. So the common case, a
/// key of one id, costs a place in a hash, and a key that thousands carry (a switchboard's number) no more than before. When
/// a holder lets go of a key, those who share it stay where they are: readers look in both places.
#[derive(Debug, Default)]
pub(super) struct Lookups<'a> {
    dropped: Vec<(u64, &'a str)>,
    added: Vec<(u64, &'a str)>,
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
    /// Whose holders must be known, each once.
    pub fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.dropped.iter().chain(&self.added).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// `holders`: of each of [`Lookups::keys`], in that order.
    pub fn moves(&self, holders: &[Option<String>]) -> Moves<'a> {
        struct Place<'s, 'a> {
            before: Option<&'s str>,
            kept: bool,
            after: Option<&'a str>,
        }
        let keys = self.keys();
        let mut places: HashMap<u64, Place<'_, 'a>> = HashMap::with_capacity(keys.len());
        for (key, before) in keys.iter().zip(holders.iter().map(Option::as_deref)) {
            let kept = before.is_some();
            let after = None;
            places.insert(*key, Place { before, kept, after });
        }
        let mut moves = Moves::default();
        for (key, id) in &self.dropped {
            match places.get_mut(key) {
                Some(place) if place.kept && place.before == Some(*id) => place.kept = false,
                _ => moves.unshared.push((*key, *id)),
            }
        }
        for (key, id) in &self.added {
            match places.get_mut(key) {
                Some(place) if place.kept && place.before == Some(*id) => {}
                Some(place) if !place.kept && place.after.is_none_or(|holder| holder == *id) => place.after = Some(*id),
                _ => moves.shared.push((*key, *id)),
            }
        }
        for key in keys {
            match places.get(&key) {
                Some(Place { after: Some(id), .. }) => moves.held.push((key, *id)),
                Some(Place {
                    before: Some(_),
                    kept: false,
                    ..
                }) => moves.free.push(key),
                _ => {}
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
            let holders: Vec<Option<String>> = lookups
                .keys()
                .iter()
                .map(|key| self.holders.get(key).cloned())
                .collect();
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
                let mut lookups = Lookups::default();
                for (id, keys) in commit {
                    let id = IDS[id];
                    let before: Vec<u64> = (0..4).filter(|key| expected.contains(&(*key, id.to_owned()))).collect();
                    lookups.dropped.extend(before.iter().filter(|key| !keys.contains(key)).map(|key| (*key, id)));
                    lookups.added.extend(keys.iter().filter(|key| !before.contains(key)).map(|key| (*key, id)));
                    expected.retain(|(_, other)| other != id);
                    expected.extend(keys.iter().map(|key| (*key, id.to_owned())));
                }
                places.take(&lookups);
                let held: BTreeSet<(u64, String)> = places.holders.clone().into_iter().collect();
                prop_assert!(held.is_disjoint(&places.shared));
                let all: BTreeSet<(u64, String)> = held.union(&places.shared).cloned().collect();
                prop_assert_eq!(&all, &expected);
            }
        }
    }
}
