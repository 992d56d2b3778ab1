//! Dirty ids and scratch values.

use std::time::Duration;

use async_trait::async_trait;
use contacts::ports::{Dirty, DirtyId, Marked, Scratch, StoreResult};
use contacts::{AccountId, Micros};

use super::RedisStore;

/// Ids of one script call, so that none holds the server for long.
const PIECE: usize = 500;

#[async_trait]
impl Dirty for RedisStore {
    async fn mark(&self, account: &AccountId, ids: &[String], _now: Micros, limit: usize) -> StoreResult<Marked> {
        let mut marked = Marked::default();
        // Also without ids: the answer holds how many wait.
        let pieces: Vec<&[String]> = if ids.is_empty() {
            vec![&[]]
        } else {
            ids.chunks(PIECE).collect()
        };
        for piece in pieces {
            let mut mark = self.scripts.mark.prepare_invoke();
            mark.key(self.keys.dirty(account))
                .key(self.keys.last_mark(account))
                .arg(limit)
                .arg(piece);
            let (waiting, overflow): (u64, bool) = self.writes.script("mark ids dirty", &mark).await?;
            marked = Marked {
                waiting,
                overflow: marked.overflow || overflow,
            };
        }
        Ok(marked)
    }

    async fn dirty(&self, account: &AccountId, limit: usize) -> StoreResult<Vec<DirtyId>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let range = redis::cmd("ZRANGE")
            .arg(self.keys.dirty(account))
            .arg(0)
            // Redis counts in i64.
            .arg(i64::try_from(limit - 1).unwrap_or(i64::MAX))
            .arg("WITHSCORES")
            .clone();
        let found: Vec<(String, f64)> = self.reads.query("read dirty ids", &range).await?;
        Ok(found
            .into_iter()
            .map(|(id, mark)| DirtyId { id, mark: mark as u64 })
            .collect())
    }

    async fn clear(&self, account: &AccountId, fetched: &[DirtyId]) -> StoreResult<u64> {
        let mut waiting = 0;
        let pieces: Vec<&[DirtyId]> = if fetched.is_empty() {
            vec![&[]]
        } else {
            fetched.chunks(PIECE).collect()
        };
        for piece in pieces {
            let mut clear = self.scripts.clear.prepare_invoke();
            clear.key(self.keys.dirty(account));
            for done in piece {
                clear.arg(&done.id).arg(done.mark);
            }
            waiting = self.writes.script("clear dirty ids", &clear).await?;
        }
        Ok(waiting)
    }
}

#[async_trait]
impl Scratch for RedisStore {
    async fn get(&self, key: &str, _now: Micros) -> StoreResult<Option<Vec<u8>>> {
        self.reads
            .query("read a scratch value", redis::cmd("GET").arg(self.keys.scratch(key)))
            .await
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration, _now: Micros) -> StoreResult<()> {
        let set = redis::cmd("SET")
            .arg(self.keys.scratch(key))
            .arg(value)
            .arg("PX")
            .arg(millis(ttl))
            .clone();
        self.writes.query("write a scratch value", &set).await
    }

    async fn claim(&self, key: &str, value: &[u8], ttl: Duration, _now: Micros) -> StoreResult<bool> {
        let set = redis::cmd("SET")
            .arg(self.keys.scratch(key))
            .arg(value)
            .arg("NX")
            .arg("PX")
            .arg(millis(ttl))
            .clone();
        let done: Option<redis::Value> = self.writes.query("claim a scratch value", &set).await?;
        Ok(done.is_some())
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let _: u64 = self
            .writes
            .query("delete a scratch value", redis::cmd("DEL").arg(self.keys.scratch(key)))
            .await?;
        Ok(())
    }

    async fn there(&self, keys: &[String], _now: Micros) -> StoreResult<Vec<bool>> {
        let mut asked = redis::pipe();
        for key in keys {
            asked.exists(self.keys.scratch(key));
        }
        match keys {
            [] => Ok(Vec::new()),
            _ => self.reads.pipeline("look for scratch values", &asked).await,
        }
    }

    async fn put_all(&self, keys: &[String], value: &[u8], ttl: Duration, _now: Micros) -> StoreResult<()> {
        let mut set = redis::pipe();
        for key in keys {
            let set = set.cmd("SET").arg(self.keys.scratch(key)).arg(value);
            set.arg("PX").arg(millis(ttl)).ignore();
        }
        match keys {
            [] => Ok(()),
            _ => self.writes.pipeline("write scratch values", &set).await,
        }
    }
}

/// Redis refuses a life of 0 ms, and one that ends beyond its own range of times.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}
