//! The port of snapshots on SQLite; its reads.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use contacts::ports::{Commit, Committed, Head, Page, Slice, Snapshots, StoreResult};
use contacts::record::Known;
use contacts::{AccountId, Fence, Generation, Micros, Position, Stream};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::SqliteStore;
use super::error::failed;
use super::number::{bits, from_time, limit as rows, micros, time};
use super::snapshots::{self, find};
use crate::memory::no_snapshot;
use crate::page::{Builder, Offered};

/// Bytes of bodies that are read into one piece of memory.
const PIECE: usize = 64 << 10;

impl SqliteStore {
    /// Reads from a snapshot by its number. `None`: there is no snapshot.
    async fn read_snapshot<T: Send + 'static>(
        &self,
        account: &AccountId,
        stream: Stream,
        doing: &'static str,
        act: impl FnOnce(&Connection, i64) -> Result<T> + Send + 'static,
    ) -> StoreResult<Option<T>> {
        let account = account.clone();
        let read = move |db: &Connection| {
            find(db, &account, stream)?
                .map(|found| act(db, found.number))
                .transpose()
        };
        self.store.readers.read(move |db| read(db).map_err(failed(doing))).await
    }
}

#[async_trait]
impl Snapshots for SqliteStore {
    async fn head(&self, account: &AccountId, stream: Stream) -> StoreResult<Option<Head>> {
        let account = account.clone();
        let read = move |db: &Connection| Ok(find(db, &account, stream)?.map(|found| found.head));
        self.store
            .readers
            .read(move |db| read(db).map_err(failed("read a snapshot's head")))
            .await
    }

    async fn open(&self, account: &AccountId, stream: Stream, fence: Fence, fresh: Generation) -> StoreResult<Head> {
        let account = account.clone();
        self.store
            .writer()?
            .write(move |db| snapshots::open(db, &account, stream, fence, fresh))
            .await
    }

    async fn commit(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed> {
        let (account, commit) = (account.clone(), commit.clone());
        self.store
            .writer()?
            .write(move |db| snapshots::commit(db, &account, stream, commit))
            .await
    }

    async fn page(&self, account: &AccountId, stream: Stream, slice: &Slice) -> StoreResult<Page> {
        let slice = *slice;
        let page = self
            .read_snapshot(account, stream, "read a page", move |db, number| {
                page(db, number, &slice)
            })
            .await?;
        page.ok_or_else(no_snapshot)
    }

    async fn known(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Known>>> {
        let (ids, asked) = (ids.to_vec(), ids.len());
        let act = move |db: &Connection, number| ids.iter().map(|id| snapshots::known(db, number, id)).collect();
        let known = self.read_snapshot(account, stream, "read what is known", act).await?;
        Ok(known.unwrap_or_else(|| vec![None; asked]))
    }

    async fn unseen(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        cursor: &str,
        limit: usize,
    ) -> StoreResult<(Vec<String>, Option<String>)> {
        let cursor = cursor.to_owned();
        let act = move |db: &Connection, number: i64| -> Result<Vec<String>> {
            let mut unseen = db.prepare_cached(
                "SELECT id FROM record
                 WHERE snapshot = ?1 AND id > ?2 AND position <> 0 AND observed < ?3 ORDER BY id LIMIT ?4",
            )?;
            unseen
                .query_map(params![number, cursor, time(before.0), rows(limit)], |row| row.get(0))?
                .collect()
        };
        let found = self
            .read_snapshot(account, stream, "look for unseen records", act)
            .await?
            .unwrap_or_default();
        let next = if found.len() < limit {
            None
        } else {
            found.last().cloned()
        };
        Ok((found, next))
    }

    async fn find(&self, account: &AccountId, stream: Stream, key: u64) -> StoreResult<Vec<String>> {
        let act = move |db: &Connection, number: i64| {
            let mut ids = db.prepare_cached("SELECT id FROM lookup WHERE snapshot = ?1 AND key = ?2 ORDER BY id")?;
            ids.query_map(params![number, bits(key)], |row| row.get(0))?.collect()
        };
        Ok(self
            .read_snapshot(account, stream, "look up a key", act)
            .await?
            .unwrap_or_default())
    }

    async fn bodies(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Bytes>>> {
        let (ids, asked) = (ids.to_vec(), ids.len());
        let act = move |db: &Connection, number: i64| {
            let mut body = db.prepare_cached(
                "SELECT json FROM record JOIN body USING (snapshot, position) WHERE record.snapshot = ?1 AND id = ?2",
            )?;
            let json = |id| {
                body.query_row(params![number, id], |row| row.get::<_, Vec<u8>>(0))
                    .optional()
            };
            ids.iter().map(json).map(|found| Ok(found?.map(Bytes::from))).collect()
        };
        let bodies = self.read_snapshot(account, stream, "read bodies", act).await?;
        Ok(bodies.unwrap_or_else(|| vec![None; asked]))
    }

    async fn sweep_tombstones(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        limit: usize,
    ) -> StoreResult<u64> {
        let account = account.clone();
        let act = move |db: &Connection| match find(db, &account, stream)? {
            Some(found) => snapshots::sweep_tombstones(db, found.number, before, limit),
            None => Ok(0),
        };
        self.store
            .writer()?
            .write(move |db| act(db).map_err(failed("sweep tombstones")))
            .await
    }

    async fn drop_snapshot(&self, account: &AccountId, stream: Stream) -> StoreResult<()> {
        let account = account.clone();
        let act = move |db: &Connection| snapshots::drop_snapshot(db, &account, stream);
        self.store
            .writer()?
            .write(move |db| act(db).map_err(failed("drop a snapshot")))
            .await
    }
}

fn page(db: &Connection, number: i64, slice: &Slice) -> Result<Page> {
    let mut bodies = db.prepare_cached(
        "SELECT position, updated, json FROM body
         WHERE snapshot = ?1 AND position > ?2 AND position <= ?3 ORDER BY position",
    )?;
    let until = slice.until.map_or(i64::MAX, |until| time(until.0));
    let mut found = bodies.query(params![number, time(slice.after.0), until])?;
    let mut page = Builder::new(slice);
    let mut buffer = BytesMut::new();
    while let Some(row) = found.next()? {
        let json = row.get_ref(2)?.as_blob()?;
        let position = Position(from_time(row.get(0)?));
        let body = || {
            // Many bodies share one piece of memory.
            if buffer.capacity() < json.len() {
                buffer = BytesMut::with_capacity(json.len().max(PIECE));
            }
            buffer.extend_from_slice(json);
            buffer.split().freeze()
        };
        if page.offer(position, micros(row.get(1)?), json.len(), body) == Offered::Full {
            break;
        }
    }
    Ok(page.finish())
}
