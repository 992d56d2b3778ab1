//! Documents and their indexes.

use async_trait::async_trait;
use contacts::ports::{Doc, DocKey, DocKind, Documents, IndexChange, IndexSummary, StoreResult};
use contacts::{Micros, Shard};

use super::RedisStore;
use super::error::unreadable;
use super::packed::{from_hex, hex};

/// Sorted sets keep times as floating point numbers, which are exact up to here (the year 2255).
const LATEST: u64 = 1 << 53;

#[async_trait]
impl Documents for RedisStore {
    async fn load(&self, key: &DocKey) -> StoreResult<Option<Doc>> {
        let get = redis::cmd("GET").arg(self.keys.document(key)).clone();
        let stored: Option<Vec<u8>> = self.reads.query("load a document", &get).await?;
        stored.map(document).transpose()
    }

    async fn swap(
        &self,
        key: &DocKey,
        expected: u64,
        body: Option<&[u8]>,
        changes: &[IndexChange],
    ) -> StoreResult<bool> {
        let mut swap = self.scripts.swap.prepare_invoke();
        swap.key(self.keys.document(key))
            .key(self.keys.list(key.kind, key.shard));
        swap.arg(if expected == 0 { String::new() } else { hex(expected) });
        let replacement = body.map(|body| [hex(expected.saturating_add(1)).as_bytes(), body].concat());
        swap.arg(replacement.unwrap_or_default()).arg(&key.id);
        for change in changes {
            swap.key(self.keys.index(&change.index, key.shard)).arg(&change.member);
            swap.arg(change.at.map_or_else(String::new, |at| at.0.min(LATEST).to_string()));
        }
        self.writes.script("swap a document", &swap).await
    }

    async fn list(&self, kind: DocKind, shard: Shard, after: Option<&str>, limit: usize) -> StoreResult<Vec<String>> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let range = redis::cmd("ZRANGE")
            .arg(self.keys.list(kind, shard))
            .arg(from)
            .arg("+")
            .arg("BYLEX")
            .arg("LIMIT")
            .arg(0)
            .arg(limit)
            .clone();
        self.reads.query("list documents", &range).await
    }

    async fn index_until(&self, index: &str, until: Micros, limit: usize) -> StoreResult<Vec<(String, Micros)>> {
        let mut ranges = redis::Pipeline::with_capacity(usize::from(contacts::ids::SHARDS));
        for shard in Shard::all() {
            let range = ranges
                .cmd("ZRANGE")
                .arg(self.keys.index(index, shard))
                .arg("-inf")
                .arg(until.0.min(LATEST));
            range.arg("BYSCORE").arg("LIMIT").arg(0).arg(limit).arg("WITHSCORES");
        }
        let due: Vec<Vec<(String, f64)>> = self.reads.pipeline("read an index", &ranges).await?;
        Ok(due
            .into_iter()
            .flatten()
            .map(|(member, at)| (member, Micros(at as u64)))
            .collect())
    }

    async fn index_summary(&self, index: &str, until: Micros) -> StoreResult<IndexSummary> {
        let mut asked = redis::Pipeline::with_capacity(2 * usize::from(contacts::ids::SHARDS));
        for shard in Shard::all() {
            let key = self.keys.index(index, shard);
            asked.cmd("ZCOUNT").arg(&key).arg("-inf").arg(until.0.min(LATEST));
            asked.cmd("ZRANGE").arg(&key).arg(0).arg(0).arg("WITHSCORES");
        }
        let answers: Vec<redis::Value> = self.reads.pipeline("read an index", &asked).await?;
        let mut sum = IndexSummary::default();
        let (pairs, _) = answers.as_chunks::<2>();
        for [count, first] in pairs {
            let count: u64 = redis::from_redis_value_ref(count).map_err(|_| unreadable("an index"))?;
            let first: Vec<(String, f64)> = redis::from_redis_value_ref(first).map_err(|_| unreadable("an index"))?;
            sum.count += count;
            let oldest = first.first().filter(|_| count > 0).map(|(_, at)| Micros(*at as u64));
            sum.oldest = [sum.oldest, oldest].into_iter().flatten().min();
        }
        Ok(sum)
    }
}

fn document(mut stored: Vec<u8>) -> StoreResult<Doc> {
    let version = stored.get(..16).ok_or_else(|| unreadable("a document"))?;
    let version = from_hex(version)?;
    stored.drain(..16);
    Ok(Doc { version, body: stored })
}
