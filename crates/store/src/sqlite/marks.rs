//! Dirty ids and scratch values.

use std::time::Duration;

use async_trait::async_trait;
use contacts::ports::{Dirty, DirtyId, Marked, Scratch, StoreResult};
use contacts::{AccountId, Micros};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::SqliteStore;
use super::error::failed;
use super::number::{from_time, limit as rows, time};

#[async_trait]
impl Dirty for SqliteStore {
    async fn mark(&self, account: &AccountId, ids: &[String], now: Micros, limit: usize) -> StoreResult<Marked> {
        let (account, ids) = (account.clone(), ids.to_vec());
        let act = move |db: &Connection| mark(db, &account, &ids, now, limit);
        self.store
            .writer()?
            .write(move |db| act(db).map_err(failed("mark ids dirty")))
            .await
    }

    async fn dirty(&self, account: &AccountId, limit: usize) -> StoreResult<Vec<DirtyId>> {
        let account = account.clone();
        let act = move |db: &Connection| -> Result<Vec<DirtyId>> {
            let mut ids = db.prepare_cached("SELECT id, mark FROM dirty WHERE account = ?1 ORDER BY mark LIMIT ?2")?;
            let found = ids.query_map(params![account.as_str(), rows(limit)], |row| {
                Ok(DirtyId {
                    id: row.get(0)?,
                    mark: from_time(row.get(1)?),
                })
            })?;
            found.collect()
        };
        self.store
            .readers
            .read(move |db| act(db).map_err(failed("read dirty ids")))
            .await
    }

    async fn clear(&self, account: &AccountId, fetched: &[DirtyId]) -> StoreResult<u64> {
        let (account, fetched) = (account.clone(), fetched.to_vec());
        let act = move |db: &Connection| {
            let mut clear = db.prepare_cached("DELETE FROM dirty WHERE account = ?1 AND id = ?2 AND mark = ?3")?;
            for done in &fetched {
                clear.execute(params![account.as_str(), done.id, time(done.mark)])?;
            }
            waiting(db, &account)
        };
        self.store
            .writer()?
            .write(move |db| act(db).map_err(failed("clear dirty ids")))
            .await
    }
}

fn waiting(db: &Connection, account: &AccountId) -> Result<u64> {
    db.prepare_cached("SELECT count(*) FROM dirty WHERE account = ?1")?
        .query_row([account.as_str()], |row| row.get(0).map(from_time))
}

fn mark(db: &Connection, account: &AccountId, ids: &[String], now: Micros, limit: usize) -> Result<Marked> {
    let mut waiting = waiting(db, account)?;
    let mut last = db
        .prepare_cached("SELECT last FROM dirty_mark")?
        .query_row([], |row| row.get(0).map(from_time))?;
    let mut overflow = false;
    let mut again = db.prepare_cached("UPDATE dirty SET mark = ?3 WHERE account = ?1 AND id = ?2")?;
    let mut insert = db.prepare_cached("INSERT INTO dirty (account, id, mark) VALUES (?1, ?2, ?3)")?;
    for id in ids {
        let next = (last + 1).max(now.0);
        if again.execute(params![account.as_str(), id, time(next)])? == 0 {
            if waiting >= limit as u64 {
                overflow = true;
                continue;
            }
            insert.execute(params![account.as_str(), id, time(next)])?;
            waiting += 1;
        }
        last = next;
    }
    db.prepare_cached("UPDATE dirty_mark SET last = ?1")?
        .execute([time(last)])?;
    Ok(Marked { waiting, overflow })
}

#[async_trait]
impl Scratch for SqliteStore {
    async fn get(&self, key: &str, now: Micros) -> StoreResult<Option<Vec<u8>>> {
        let key = key.to_owned();
        let act = move |db: &Connection| {
            db.prepare_cached("SELECT value FROM scratch WHERE key = ?1 AND expires > ?2")?
                .query_row(params![key, time(now.0)], |row| row.get(0))
                .optional()
        };
        self.budget
            .readers
            .read(move |db| act(db).map_err(failed("read a scratch value")))
            .await
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        let (key, value, expires) = (key.to_owned(), value.to_vec(), time(now.plus(ttl).0));
        let act = move |db: &Connection| put(db, &key, &value, expires);
        self.budget
            .writer()?
            .write(move |db| act(db).map_err(failed("write a scratch value")))
            .await
    }

    async fn claim(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<bool> {
        let (key, value, expires) = (key.to_owned(), value.to_vec(), time(now.plus(ttl).0));
        let act = move |db: &Connection| -> Result<bool> {
            let living = "SELECT 1 FROM scratch WHERE key = ?1 AND expires > ?2";
            if db.prepare_cached(living)?.exists(params![key, time(now.0)])? {
                return Ok(false);
            }
            put(db, &key, &value, expires)?;
            Ok(true)
        };
        self.budget
            .writer()?
            .write(move |db| act(db).map_err(failed("claim a scratch value")))
            .await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let key = key.to_owned();
        let act = move |db: &Connection| -> Result<()> {
            db.prepare_cached("DELETE FROM scratch WHERE key = ?1")?
                .execute([key.as_str()])?;
            Ok(())
        };
        self.budget
            .writer()?
            .write(move |db| act(db).map_err(failed("delete a scratch value")))
            .await
    }

    async fn there(&self, keys: &[String], now: Micros) -> StoreResult<Vec<bool>> {
        let keys = keys.to_vec();
        let act = move |db: &Connection| -> Result<Vec<bool>> {
            let mut living = db.prepare_cached("SELECT 1 FROM scratch WHERE key = ?1 AND expires > ?2")?;
            keys.iter()
                .map(|key| living.exists(params![key, time(now.0)]))
                .collect()
        };
        self.budget
            .readers
            .read(move |db| act(db).map_err(failed("look for scratch values")))
            .await
    }

    async fn put_all(&self, keys: &[String], value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        let (keys, value, expires) = (keys.to_vec(), value.to_vec(), time(now.plus(ttl).0));
        let act = move |db: &Connection| keys.iter().try_for_each(|key| put(db, key, &value, expires));
        self.budget
            .writer()?
            .write(move |db| act(db).map_err(failed("write scratch values")))
            .await
    }
}

fn put(db: &Connection, key: &str, value: &[u8], expires: i64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO scratch (key, value, expires) VALUES (?1, ?2, ?3)")?
        .execute(params![key, value, expires])?;
    Ok(())
}
