//! Writing snapshots: the pure rules of [`contacts::record`] between reads and writes of one savepoint.

use contacts::ports::{Commit, Committed, Head, StoreResult};
use contacts::record::{Known, Removal, Row, Verdict, judge, judge_removal, tombstone};
use contacts::{AccountId, Fence, Generation, Micros, Position, Stream};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::error::failed;
use super::number::{bits, from_bits, from_time, limit as rows, micros, time};
use crate::memory::{admit, fenced, no_snapshot};

/// A snapshot and the number that its rows carry.
pub(super) struct Numbered {
    pub number: i64,
    pub head: Head,
}

pub(super) fn find(db: &Connection, account: &AccountId, stream: Stream) -> Result<Option<Numbered>> {
    db.prepare_cached(
        "SELECT number, generation, position, fence, ready, watermark, count, progress, committed, fresh
         FROM snapshot WHERE account = ?1 AND stream = ?2",
    )?
    .query_row(params![account.as_str(), stream.as_str()], |row| {
        let head = Head {
            generation: Generation(from_bits(row.get(1)?)),
            position: Position(from_time(row.get(2)?)),
            fence: Fence(from_bits(row.get(3)?)),
            ready: row.get(4)?,
            watermark: micros(row.get(5)?),
            count: from_time(row.get(6)?),
            progress: row.get(7)?,
            committed: micros(row.get(8)?),
            fresh: micros(row.get(9)?),
        };
        Ok(Numbered {
            number: row.get(0)?,
            head,
        })
    })
    .optional()
}

pub(super) fn open(
    db: &Connection,
    account: &AccountId,
    stream: Stream,
    fence: Fence,
    fresh: Generation,
) -> StoreResult<Head> {
    let found = find(db, account, stream).map_err(failed("read a snapshot's head"))?;
    let Some(Numbered { number, mut head }) = found else {
        let head = Head {
            generation: fresh,
            position: Position::START,
            fence,
            ready: false,
            watermark: Micros::ZERO,
            count: 0,
            progress: Vec::new(),
            committed: Micros::ZERO,
            fresh: Micros::ZERO,
        };
        let insert = || {
            db.prepare_cached(
                "INSERT INTO snapshot (account, stream, generation, position, fence, ready, watermark, count, progress,
                                       committed, fresh)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, 0, 0, x'', 0, 0)",
            )?
            .execute(params![account.as_str(), stream.as_str(), bits(fresh.0), bits(fence.0)])
        };
        insert().map_err(failed("create a snapshot"))?;
        return Ok(head);
    };
    if fence < head.fence {
        return Err(fenced(fence, head.fence));
    }
    head.fence = fence;
    save(db, number, &head).map_err(failed("open a snapshot"))?;
    Ok(head)
}

fn save(db: &Connection, number: i64, head: &Head) -> Result<()> {
    db.prepare_cached(
        "UPDATE snapshot SET position = ?2, fence = ?3, ready = ?4, watermark = ?5, count = ?6, progress = ?7,
                committed = ?8, fresh = ?9
         WHERE number = ?1",
    )?
    .execute(params![
        number,
        time(head.position.0),
        bits(head.fence.0),
        head.ready,
        time(head.watermark.0),
        time(head.count),
        head.progress,
        time(head.committed.0),
        time(head.fresh.0),
    ])?;
    Ok(())
}

pub(super) fn commit(db: &Connection, account: &AccountId, stream: Stream, commit: Commit) -> StoreResult<Committed> {
    let found = find(db, account, stream).map_err(failed("read a snapshot's head"))?;
    let Some(Numbered { number, mut head }) = found else {
        return Err(no_snapshot());
    };
    admit(&commit, (head.generation, head.fence))?;
    head.fence = commit.fence;
    let mut writing = Writing {
        db,
        number,
        head,
        now: commit.now,
        done: Committed::default(),
    };
    for row in &commit.rows {
        writing.write(row).map_err(failed("write a record"))?;
    }
    for removal in &commit.removals {
        writing.remove(removal).map_err(failed("remove a record"))?;
    }
    let Writing { mut head, mut done, .. } = writing;
    let change = commit.head;
    head.ready = change.ready.unwrap_or(head.ready);
    head.watermark = change.watermark.unwrap_or(head.watermark);
    head.fresh = change.fresh.unwrap_or(head.fresh);
    head.progress = change.progress.unwrap_or(head.progress);
    head.committed = commit.now;
    done.position = head.position;
    save(db, number, &head).map_err(failed("write a snapshot's head"))?;
    Ok(done)
}

struct Writing<'a> {
    db: &'a Connection,
    number: i64,
    head: Head,
    now: Micros,
    done: Committed,
}

impl Writing<'_> {
    fn write(&mut self, row: &Row) -> Result<()> {
        let known = known(self.db, self.number, &row.id)?;
        match (judge(known.as_ref(), row), known) {
            (Verdict::Stale, _) => self.done.stale += 1,
            (Verdict::Same, known) => {
                self.done.same += 1;
                let position = known.map_or(0, |known| time(known.position.0));
                self.db
                    .prepare_cached("UPDATE record SET updated = ?3, observed = ?4 WHERE snapshot = ?1 AND id = ?2")?
                    .execute(params![self.number, row.id, time(row.updated.0), time(row.observed.0)])?;
                self.db
                    .prepare_cached(
                        "UPDATE body SET updated = ?3 WHERE snapshot = ?1 AND position = ?2 AND updated <> ?3",
                    )?
                    .execute(params![self.number, position, time(row.updated.0)])?;
            }
            (Verdict::Write, before) => {
                self.done.written += 1;
                self.forget_content(&row.id, before.as_ref())?;
                self.head.position = self.head.position.next(self.now);
                self.head.count += 1;
                let known = Known {
                    position: self.head.position,
                    updated: row.updated,
                    observed: row.observed,
                    hash: row.hash,
                    keys: row.keys.clone(),
                };
                self.db
                    .prepare_cached("INSERT INTO body (snapshot, position, updated, json) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![
                        self.number,
                        time(known.position.0),
                        time(row.updated.0),
                        row.body
                    ])?;
                let mut lookup = self
                    .db
                    .prepare_cached("INSERT OR IGNORE INTO lookup (snapshot, key, id) VALUES (?1, ?2, ?3)")?;
                for key in &known.keys {
                    lookup.execute(params![self.number, bits(*key), row.id])?;
                }
                self.remember(&row.id, &known)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, removal: &Removal) -> Result<()> {
        let known = known(self.db, self.number, &removal.id)?;
        if !judge_removal(known.as_ref(), removal) {
            self.done.stale += 1;
            return Ok(());
        }
        let stone = tombstone(known.as_ref(), removal);
        if known.as_ref().is_some_and(|known| !known.is_tombstone()) {
            self.done.removed += 1;
            self.forget_content(&removal.id, known.as_ref())?;
        }
        self.remember(&removal.id, &stone)
    }

    /// Removes body and lookup keys of a living record.
    fn forget_content(&mut self, id: &str, known: Option<&Known>) -> Result<()> {
        let Some(known) = known.filter(|known| !known.is_tombstone()) else {
            return Ok(());
        };
        self.head.count = self.head.count.saturating_sub(1);
        self.db
            .prepare_cached("DELETE FROM body WHERE snapshot = ?1 AND position = ?2")?
            .execute(params![self.number, time(known.position.0)])?;
        let mut lookup = self
            .db
            .prepare_cached("DELETE FROM lookup WHERE snapshot = ?1 AND key = ?2 AND id = ?3")?;
        for key in &known.keys {
            lookup.execute(params![self.number, bits(*key), id])?;
        }
        Ok(())
    }

    fn remember(&self, id: &str, known: &Known) -> Result<()> {
        let keys: Vec<u8> = known.keys.iter().flat_map(|key| key.to_be_bytes()).collect();
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO record (snapshot, id, position, updated, observed, hash, keys)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                self.number,
                id,
                time(known.position.0),
                time(known.updated.0),
                time(known.observed.0),
                bits(known.hash),
                keys,
            ])?;
        Ok(())
    }
}

pub(super) fn known(db: &Connection, number: i64, id: &str) -> Result<Option<Known>> {
    db.prepare_cached("SELECT position, updated, observed, hash, keys FROM record WHERE snapshot = ?1 AND id = ?2")?
        .query_row(params![number, id], |row| {
            let keys = row
                .get_ref(4)?
                .as_blob()?
                .as_chunks::<8>()
                .0
                .iter()
                .map(|key| u64::from_be_bytes(*key))
                .collect();
            Ok(Known {
                position: Position(from_time(row.get(0)?)),
                updated: micros(row.get(1)?),
                observed: micros(row.get(2)?),
                hash: from_bits(row.get(3)?),
                keys,
            })
        })
        .optional()
}

pub(super) fn sweep_tombstones(db: &Connection, number: i64, before: Micros, limit: usize) -> Result<u64> {
    let swept = db
        .prepare_cached(
            "DELETE FROM record WHERE snapshot = ?1 AND id IN
                 (SELECT id FROM record WHERE snapshot = ?1 AND position = 0 AND observed < ?2 ORDER BY observed LIMIT ?3)",
        )?
        .execute(params![number, time(before.0), rows(limit)])?;
    Ok(swept as u64)
}

/// The rows go later, in pieces: nothing finds them any more once their number is forgotten.
pub(super) fn drop_snapshot(db: &Connection, account: &AccountId, stream: Stream) -> Result<()> {
    let name = params![account.as_str(), stream.as_str()];
    db.prepare_cached(
        "INSERT INTO dropped_snapshot (number) SELECT number FROM snapshot WHERE account = ?1 AND stream = ?2",
    )?
    .execute(name)?;
    db.prepare_cached("DELETE FROM snapshot WHERE account = ?1 AND stream = ?2")?
        .execute(name)?;
    Ok(())
}
