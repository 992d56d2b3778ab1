//! What a commit changes, worked out without IO: the rules of [`contacts::record`] over what was read of the records it
//! touches, then the difference between before and after.

use std::collections::HashMap;

use contacts::ports::{Commit, Committed};
use contacts::record::{Known, Removal, Row, Verdict, judge, judge_removal, tombstone};
use contacts::{Micros, Position};

use super::lookups::Changes;

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

    /// What becomes of the lookup keys of the records.
    pub fn lookups(&self) -> Changes {
        let mut changes = Changes::default();
        for record in &self.records {
            let [before, after] = [&record.before, &record.after]
                .map(|known| known.as_ref().map_or(&[][..], |known| known.keys.as_slice()));
            if before != after {
                for key in before.iter().filter(|key| !after.contains(key)) {
                    changes.remove(*key, record.id);
                }
                for key in after.iter().filter(|key| !before.contains(key)) {
                    changes.add(*key, record.id);
                }
            }
        }
        changes
    }
}
