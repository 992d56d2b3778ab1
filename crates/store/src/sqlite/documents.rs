//! Documents and their indexes. Budgets lie in a file of their own.

use async_trait::async_trait;
use contacts::ports::{Doc, DocKey, DocKind, Documents, IndexChange, IndexSummary, StoreResult};
use contacts::{Micros, Shard};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::SqliteStore;
use super::error::failed;
use super::layout::File;
use super::number::{from_time, limit as rows, micros, time};

fn file_of(kind: DocKind) -> File {
    match kind {
        DocKind::Budget => File::Budget,
        DocKind::Account
        | DocKind::Work
        | DocKind::Route
        | DocKind::DeadLetter
        | DocKind::Runs
        | DocKind::Audit
        | DocKind::Holds
        | DocKind::Subscription
        | DocKind::Erased
        | DocKind::Inbox
        | DocKind::Link
        | DocKind::Keyring => File::Store,
    }
}

#[async_trait]
impl Documents for SqliteStore {
    async fn load(&self, key: &DocKey) -> StoreResult<Option<Doc>> {
        let file = self.file(file_of(key.kind));
        let key = key.clone();
        file.readers
            .read(move |db| load(db, &key).map_err(failed("load a document")))
            .await
    }

    async fn swap(
        &self,
        key: &DocKey,
        expected: u64,
        body: Option<&[u8]>,
        changes: &[IndexChange],
    ) -> StoreResult<bool> {
        let writer = self.file(file_of(key.kind)).writer()?;
        let (key, body, changes) = (key.clone(), body.map(<[u8]>::to_vec), changes.to_vec());
        let act = move |db: &Connection| swap(db, &key, expected, body.as_deref(), &changes);
        writer.write(move |db| act(db).map_err(failed("swap a document"))).await
    }

    async fn list(&self, kind: DocKind, shard: Shard, after: Option<&str>, limit: usize) -> StoreResult<Vec<String>> {
        let after = after.map(str::to_owned);
        let act = move |db: &Connection| -> Result<Vec<String>> {
            let mut ids = db.prepare_cached(
                "SELECT id FROM document WHERE kind = ?1 AND shard = ?2 AND (?3 IS NULL OR id > ?3) ORDER BY id LIMIT ?4",
            )?;
            ids.query_map(params![kind.as_str(), shard.0, after, rows(limit)], |row| row.get(0))?
                .collect()
        };
        self.file(file_of(kind))
            .readers
            .read(move |db| act(db).map_err(failed("list documents")))
            .await
    }

    async fn index_until(&self, index: &str, until: Micros, limit: usize) -> StoreResult<Vec<(String, Micros)>> {
        let mut due = Vec::new();
        for file in [File::Store, File::Budget] {
            let index = index.to_owned();
            let act = move |db: &Connection| index_until(db, &index, until, limit);
            due.extend(
                self.file(file)
                    .readers
                    .read(move |db| act(db).map_err(failed("read an index")))
                    .await?,
            );
        }
        Ok(due)
    }

    async fn index_summary(&self, index: &str, until: Micros) -> StoreResult<IndexSummary> {
        let mut sum = IndexSummary::default();
        for file in [File::Store, File::Budget] {
            let index = index.to_owned();
            let act = move |db: &Connection| index_summary(db, &index, until);
            let one = self
                .file(file)
                .readers
                .read(move |db| act(db).map_err(failed("read an index")))
                .await?;
            sum.count += one.count;
            sum.oldest = [sum.oldest, one.oldest].into_iter().flatten().min();
        }
        Ok(sum)
    }
}

fn load(db: &Connection, key: &DocKey) -> Result<Option<Doc>> {
    db.prepare_cached("SELECT version, body FROM document WHERE kind = ?1 AND shard = ?2 AND id = ?3")?
        .query_row(params![key.kind.as_str(), key.shard.0, key.id], |row| {
            Ok(Doc {
                version: from_time(row.get(0)?),
                body: row.get(1)?,
            })
        })
        .optional()
}

fn swap(db: &Connection, key: &DocKey, expected: u64, body: Option<&[u8]>, changes: &[IndexChange]) -> Result<bool> {
    let version = db
        .prepare_cached("SELECT version FROM document WHERE kind = ?1 AND shard = ?2 AND id = ?3")?
        .query_row(params![key.kind.as_str(), key.shard.0, key.id], |row| {
            row.get(0).map(from_time)
        })
        .optional()?;
    if version.unwrap_or(0) != expected {
        return Ok(false);
    }
    match body {
        Some(body) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO document (kind, shard, id, version, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                key.kind.as_str(),
                key.shard.0,
                key.id,
                time(expected + 1),
                body
            ])?,
        None => db
            .prepare_cached("DELETE FROM document WHERE kind = ?1 AND shard = ?2 AND id = ?3")?
            .execute(params![key.kind.as_str(), key.shard.0, key.id])?,
    };
    for change in changes {
        match change.at {
            Some(at) => db
                .prepare_cached("INSERT OR REPLACE INTO index_entry (name, shard, member, at) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![change.index, key.shard.0, change.member, time(at.0)])?,
            None => db
                .prepare_cached("DELETE FROM index_entry WHERE name = ?1 AND shard = ?2 AND member = ?3")?
                .execute(params![change.index, key.shard.0, change.member])?,
        };
    }
    Ok(true)
}

fn index_until(db: &Connection, index: &str, until: Micros, limit: usize) -> Result<Vec<(String, Micros)>> {
    // Shard by shard, so that a shard with very many due members costs no more than `limit`.
    let mut due = db.prepare_cached(
        "SELECT member, at FROM index_entry WHERE name = ?1 AND shard = ?2 AND at <= ?3 ORDER BY at, member LIMIT ?4",
    )?;
    let mut found = Vec::new();
    for shard in Shard::all() {
        let of_shard = due.query_map(params![index, shard.0, time(until.0), rows(limit)], |row| {
            Ok((row.get(0)?, micros(row.get(1)?)))
        })?;
        for member in of_shard {
            found.push(member?);
        }
    }
    Ok(found)
}

fn index_summary(db: &Connection, index: &str, until: Micros) -> Result<IndexSummary> {
    db.prepare_cached("SELECT count(*), min(at) FROM index_entry WHERE name = ?1 AND at <= ?2")?
        .query_row(params![index, time(until.0)], |row| {
            let oldest: Option<i64> = row.get(1)?;
            Ok(IndexSummary {
                count: from_time(row.get(0)?),
                oldest: oldest.map(micros),
            })
        })
}
