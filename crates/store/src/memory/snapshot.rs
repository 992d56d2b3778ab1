//! One snapshot of the model.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use contacts::ports::{Commit, Committed, Head, Page, Slice, StoreResult};
use contacts::record::{Known, Removal, Row, Verdict, judge, judge_removal, tombstone};
use contacts::{Fence, Generation, Micros, Position};

use super::admit;
use crate::page::{Builder, Offered};

pub(super) struct Snapshot {
    pub head: Head,
    pub records: BTreeMap<String, Known>,
    bodies: BTreeMap<Position, (Micros, Bytes)>,
}

impl Snapshot {
    pub fn new(generation: Generation, fence: Fence) -> Snapshot {
        let head = Head {
            generation,
            position: Position::START,
            fence,
            ready: false,
            watermark: Micros::ZERO,
            count: 0,
            progress: Vec::new(),
            committed: Micros::ZERO,
            fresh: Micros::ZERO,
        };
        Snapshot {
            head,
            records: BTreeMap::new(),
            bodies: BTreeMap::new(),
        }
    }

    pub fn commit(&mut self, commit: &Commit) -> StoreResult<Committed> {
        admit(commit, (self.head.generation, self.head.fence))?;
        self.head.fence = commit.fence;
        let mut done = Committed::default();
        for row in &commit.rows {
            self.write(row, commit.now, &mut done);
        }
        for removal in &commit.removals {
            self.remove(removal, &mut done);
        }
        let change = commit.head.clone();
        self.head.ready = change.ready.unwrap_or(self.head.ready);
        self.head.watermark = change.watermark.unwrap_or(self.head.watermark);
        self.head.fresh = change.fresh.unwrap_or(self.head.fresh);
        if let Some(progress) = change.progress {
            self.head.progress = progress;
        }
        self.head.committed = commit.now;
        self.head.count = self.bodies.len() as u64;
        done.position = self.head.position;
        Ok(done)
    }

    fn write(&mut self, row: &Row, now: Micros, done: &mut Committed) {
        let known = self.records.get(&row.id);
        match judge(known, row) {
            Verdict::Stale => done.stale += 1,
            Verdict::Same => {
                done.same += 1;
                if let Some(known) = self.records.get_mut(&row.id) {
                    (known.updated, known.observed) = (row.updated, row.observed);
                    if let Some((updated, _)) = self.bodies.get_mut(&known.position) {
                        *updated = row.updated;
                    }
                }
            }
            Verdict::Write => {
                done.written += 1;
                if let Some(known) = known {
                    self.bodies.remove(&known.position);
                }
                self.head.position = self.head.position.next(now);
                let known = Known {
                    position: self.head.position,
                    updated: row.updated,
                    observed: row.observed,
                    hash: row.hash,
                    keys: row.keys.clone(),
                };
                self.records.insert(row.id.clone(), known);
                self.bodies
                    .insert(self.head.position, (row.updated, Bytes::from(row.body.clone())));
            }
        }
    }

    fn remove(&mut self, removal: &Removal, done: &mut Committed) {
        let known = self.records.get(&removal.id);
        if !judge_removal(known, removal) {
            done.stale += 1;
            return;
        }
        let stone = tombstone(known, removal);
        if let Some(known) = known.filter(|known| !known.is_tombstone()) {
            done.removed += 1;
            self.bodies.remove(&known.position);
        }
        self.records.insert(removal.id.clone(), stone);
    }

    pub fn page(&self, slice: &Slice) -> Page {
        let mut page = Builder::new(slice);
        for (position, (updated, body)) in self.bodies.range((Bound::Excluded(slice.after), Bound::Unbounded)) {
            if slice.until.is_some_and(|until| *position > until)
                || page.offer(*position, *updated, body.len(), || body.clone()) == Offered::Full
            {
                break;
            }
        }
        page.finish()
    }

    pub fn unseen(&self, before: Micros, cursor: &str, limit: usize) -> (Vec<String>, Option<String>) {
        let found: Vec<String> = self
            .records
            .iter()
            .filter(|(id, known)| id.as_str() > cursor && !known.is_tombstone() && known.observed < before)
            .map(|(id, _)| id.clone())
            .take(limit)
            .collect();
        let next = if found.len() < limit {
            None
        } else {
            found.last().cloned()
        };
        (found, next)
    }

    pub fn body(&self, id: &str) -> Option<Bytes> {
        self.bodies
            .get(&self.records.get(id)?.position)
            .map(|(_, body)| body.clone())
    }

    pub fn sweep_tombstones(&mut self, before: Micros, limit: usize) -> u64 {
        let old = self
            .records
            .iter()
            .filter(|(_, known)| known.is_tombstone() && known.observed < before);
        let mut old: Vec<(Micros, String)> = old.map(|(id, known)| (known.observed, id.clone())).collect();
        old.sort();
        old.truncate(limit);
        for (_, id) in &old {
            self.records.remove(id);
        }
        old.len() as u64
    }
}
