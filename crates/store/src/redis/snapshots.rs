//! Snapshots. [`super::commit`] has how they are written.

use async_trait::async_trait;
use bytes::Bytes;
use contacts::ports::{Commit, Committed, Head, Page, Slice, Snapshots, StoreResult};
use contacts::record::Known;
use contacts::{AccountId, Fence, Generation, Micros, Position, Stream};
use redis::Value;

use super::RedisStore;
use super::error::unreadable;
use super::frame::Reply;
use super::lookups;
use super::packed::{self, JSON_AT, from_hex, hex};
use crate::memory::{fenced, no_snapshot};
use crate::page::{Builder, Offered};

/// Ids of one call, so that none holds the server for long.
const PIECE: usize = 500;
/// The same for scripts that carry bodies.
const BODIES: usize = 100;

/// The fields of a head in the order in which they are asked for.
const HEAD: [&str; 9] = [
    "generation",
    "fence",
    "position",
    "ready",
    "watermark",
    "count",
    "progress",
    "committed",
    "fresh",
];

#[async_trait]
impl Snapshots for RedisStore {
    async fn head(&self, account: &AccountId, stream: Stream) -> StoreResult<Option<Head>> {
        let mut script = self.scripts.head.prepare_invoke();
        script.key(&self.keys.snapshot(account, stream).counted()).arg(&HEAD);
        let fields: Option<Vec<Option<Bytes>>> = self.reads.script("read a snapshot's head", &script).await?;
        fields.map_or(Ok(None), |fields| head(&fields))
    }

    async fn open(&self, account: &AccountId, stream: Stream, fence: Fence, fresh: Generation) -> StoreResult<Head> {
        let mut open = self.scripts.open.prepare_invoke();
        open.key(self.keys.snapshot(account, stream).all())
            .arg(hex(fence.0))
            .arg(hex(fresh.0))
            .arg(&HEAD);
        let answer: Vec<Value> = self.writes.script("open a snapshot", &open).await?;
        match answer.as_slice() {
            [status, seen] if text(status) == b"fenced" => Err(fenced(fence, Fence(from_hex(text(seen))?))),
            [_, fields] => {
                let fields: Vec<Option<Bytes>> =
                    redis::from_redis_value_ref(fields).map_err(|_| unreadable("a snapshot's head"))?;
                head(&fields)?.ok_or_else(|| unreadable("a snapshot's head"))
            }
            _ => Err(unreadable("a snapshot's head")),
        }
    }

    async fn commit(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed> {
        self.write(account, stream, commit).await
    }

    async fn page(&self, account: &AccountId, stream: Stream, slice: &Slice) -> StoreResult<Page> {
        let keys = self.keys.snapshot(account, stream);
        let until = slice
            .until
            .map_or_else(|| "+".to_owned(), |until| format!("({}g", until.hex()));
        let mut page = Builder::new(slice);
        loop {
            let wanted = page.worth_fetching();
            let mut asked = redis::pipe();
            // `g` follows every hex digit: all members of a position lie before it.
            let range = asked
                .cmd("ZRANGE")
                .arg(&keys.bodies)
                .arg(format!("({}g", page.after().hex()))
                .arg(&until);
            range.arg("BYLEX").arg("LIMIT").arg(0).arg(wanted);
            // Asked after the bodies: a snapshot that was lost before them is not taken for an empty one.
            asked.exists(&keys.head);
            let [members, there] = self.pages.ask("read a page", &asked).await?;
            if there != Reply::Other(Value::Int(1)) {
                return Err(no_snapshot());
            }
            let Reply::Strings(members) = members else {
                return Err(unreadable("a page"));
            };
            let end = members.len() < wanted;
            for member in members {
                let (position, updated) = packed::member(&member)?;
                let length = member.len() - JSON_AT;
                // Not copied: a part of what came from the server.
                let body = || member.slice(JSON_AT..);
                if page.offer(position, updated, length, body) == Offered::Full {
                    return Ok(page.finish());
                }
            }
            if end {
                return Ok(page.finish());
            }
        }
    }

    async fn known(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Known>>> {
        let key = self.keys.snapshot(account, stream).ids;
        let mut known = Vec::with_capacity(ids.len());
        for piece in ids.chunks(PIECE) {
            let get = redis::cmd("HMGET").arg(&key).arg(piece).clone();
            let found: Vec<Option<Bytes>> = self.reads.query("read what is known", &get).await?;
            for packed in found {
                known.push(packed.as_deref().map(packed::known).transpose()?);
            }
        }
        Ok(known)
    }

    async fn unseen(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        cursor: &str,
        limit: usize,
    ) -> StoreResult<(Vec<String>, Option<String>)> {
        // HSCAN promises what the port does: whatever is there all along is returned, some of it twice.
        let cursor = if cursor.is_empty() { "0" } else { cursor };
        let key = self.keys.snapshot(account, stream).ids;
        let scan = redis::cmd("HSCAN")
            .arg(key)
            .arg(cursor)
            .arg("COUNT")
            .arg(limit.max(1))
            .clone();
        let (next, found): (String, Vec<(String, Bytes)>) = self.reads.query("look for unseen records", &scan).await?;
        let mut unseen = Vec::new();
        for (id, packed) in found {
            let known = packed::known(&packed)?;
            if !known.is_tombstone() && known.observed < before {
                unseen.push(id);
            }
        }
        Ok((unseen, (next != "0").then_some(next)))
    }

    async fn find(&self, account: &AccountId, stream: Stream, key: u64) -> StoreResult<Vec<String>> {
        let bucket = self.keys.snapshot(account, stream).bucket(lookups::bucket_of(key));
        let get = redis::cmd("GET").arg(bucket).clone();
        let bucket: Option<Bytes> = self.reads.query("look up a key", &get).await?;
        lookups::carriers(&bucket.unwrap_or_default(), key)
    }

    async fn bodies(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Bytes>>> {
        let keys = self.keys.snapshot(account, stream);
        let mut bodies = Vec::with_capacity(ids.len());
        for piece in ids.chunks(BODIES) {
            let mut script = self.scripts.bodies.prepare_invoke();
            script.key(&keys.bodies).key(&keys.ids).arg(piece);
            let found: Vec<Option<Bytes>> = self.reads.script("read bodies", &script).await?;
            bodies.extend(found);
        }
        Ok(bodies)
    }

    async fn sweep_tombstones(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        limit: usize,
    ) -> StoreResult<u64> {
        let keys = self.keys.snapshot(account, stream);
        let mut swept = 0;
        while swept < limit {
            let piece = (limit - swept).min(PIECE);
            let mut sweep = self.scripts.sweep.prepare_invoke();
            sweep.key(&keys.ids).key(&keys.stones).arg(hex(before.0)).arg(piece);
            let found: usize = self.writes.script("sweep tombstones", &sweep).await?;
            swept += found;
            if found < piece {
                break;
            }
        }
        Ok(swept as u64)
    }

    async fn drop_snapshot(&self, account: &AccountId, stream: Stream) -> StoreResult<()> {
        let unlink = redis::cmd("UNLINK")
            .arg(self.keys.snapshot(account, stream).all())
            .clone();
        let _: u64 = self.writes.query("drop a snapshot", &unlink).await?;
        Ok(())
    }
}

fn text(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        _ => b"",
    }
}

/// `None`: there is no snapshot.
fn head(fields: &[Option<Bytes>]) -> StoreResult<Option<Head>> {
    let [
        generation,
        fence,
        position,
        ready,
        watermark,
        count,
        progress,
        committed,
        fresh,
    ] = fields
    else {
        return Err(unreadable("a snapshot's head"));
    };
    let Some(generation) = generation else { return Ok(None) };
    let number = |field: &Option<Bytes>| from_hex(field.as_deref().unwrap_or_default());
    let count = count
        .as_deref()
        .and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    Ok(Some(Head {
        generation: Generation(from_hex(generation)?),
        fence: Fence(number(fence)?),
        position: Position(number(position)?),
        ready: ready.as_deref() == Some(b"1"),
        watermark: Micros(number(watermark)?),
        count: count.ok_or_else(|| unreadable("a snapshot's head"))?,
        progress: progress.as_deref().unwrap_or_default().to_vec(),
        committed: Micros(number(committed)?),
        fresh: Micros(number(fresh)?),
    }))
}
