//! The model: plain maps behind a lock that run the pure rules of [`contacts::record`] directly. The other backends are
//! compared with it, and tests above the store use it where speed matters. It forgets everything when dropped.

mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contacts::ports::{
    Commit, Committed, Dirty, DirtyId, Doc, DocKey, DocKind, Documents, Head, IndexChange, IndexSummary, Marked, Page,
    Probe, Scratch, Slice, Snapshots, StoreErrorKind, StoreResult,
};
use contacts::record::Known;
use contacts::{AccountId, Fence, Generation, Micros, Shard, StoreError, Stream};
use parking_lot::{Mutex, MutexGuard};

use snapshot::Snapshot;

/// Cheap to clone; clones share their content.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    documents: BTreeMap<(DocKind, Shard, String), Doc>,
    indexes: HashMap<String, BTreeMap<(Shard, String), Micros>>,
    snapshots: HashMap<(AccountId, Stream), Snapshot>,
    dirty: HashMap<AccountId, BTreeMap<String, u64>>,
    last_mark: u64,
    scratch: HashMap<String, (Vec<u8>, Micros)>,
    refuse_next: Option<StoreErrorKind>,
    lose_next_answer: bool,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// The next call does nothing and fails so.
    pub fn fail_next(&self, kind: StoreErrorKind) {
        self.inner.lock().refuse_next = Some(kind);
    }

    /// The next call does its work, and its answer is lost on the way ([`StoreErrorKind::Unavailable`]).
    pub fn lose_next_answer(&self) {
        self.inner.lock().lose_next_answer = true;
    }

    /// Loses everything, as a store does that restarts empty.
    pub fn wipe(&self) {
        *self.inner.lock() = Inner::default();
    }

    fn run<T>(&self, act: impl FnOnce(&mut MutexGuard<'_, Inner>) -> StoreResult<T>) -> StoreResult<T> {
        let mut inner = self.inner.lock();
        if let Some(kind) = inner.refuse_next.take() {
            return Err(StoreError::new(kind, "a fault was injected"));
        }
        let lose = std::mem::take(&mut inner.lose_next_answer);
        let answer = act(&mut inner)?;
        if lose {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the answer was lost by an injected fault",
            ));
        }
        Ok(answer)
    }

    fn snapshot<T>(
        &self,
        account: &AccountId,
        stream: Stream,
        act: impl FnOnce(&mut Snapshot) -> StoreResult<T>,
    ) -> StoreResult<Option<T>> {
        self.run(|inner| inner.snapshots.get_mut(&(account.clone(), stream)).map(act).transpose())
    }
}

pub(crate) fn no_snapshot() -> StoreError {
    StoreError::new(
        StoreErrorKind::NoSnapshot,
        "there is no snapshot: it was never opened or it was lost",
    )
}

pub(crate) fn fenced(ours: Fence, seen: Fence) -> StoreError {
    let message = format!(
        "a newer lease holds the account: fence {} was seen, this one is {}",
        seen.0, ours.0
    );
    StoreError::new(StoreErrorKind::Fenced, message)
}

/// Whether a commit was made for this snapshot, by the holder of its newest lease.
pub(crate) fn admit(commit: &Commit, (generation, fence): (Generation, Fence)) -> StoreResult<()> {
    if generation != commit.generation {
        return Err(StoreError::new(
            StoreErrorKind::Fenced,
            "the snapshot was lost and begun anew since it was opened",
        ));
    }
    if fence > commit.fence {
        return Err(fenced(commit.fence, fence));
    }
    Ok(())
}

#[async_trait]
impl Documents for MemoryStore {
    async fn load(&self, key: &DocKey) -> StoreResult<Option<Doc>> {
        self.run(|inner| Ok(inner.documents.get(&(key.kind, key.shard, key.id.clone())).cloned()))
    }

    async fn swap(
        &self,
        key: &DocKey,
        expected: u64,
        body: Option<&[u8]>,
        changes: &[IndexChange],
    ) -> StoreResult<bool> {
        self.run(|inner| {
            let place = (key.kind, key.shard, key.id.clone());
            if inner.documents.get(&place).map_or(0, |doc| doc.version) != expected {
                return Ok(false);
            }
            match body {
                Some(body) => {
                    inner.documents.insert(
                        place,
                        Doc {
                            version: expected + 1,
                            body: body.to_vec(),
                        },
                    );
                }
                None => {
                    inner.documents.remove(&place);
                }
            }
            for change in changes {
                let index = inner.indexes.entry(change.index.clone()).or_default();
                let member = (key.shard, change.member.clone());
                match change.at {
                    Some(at) => index.insert(member, at),
                    None => index.remove(&member),
                };
            }
            Ok(true)
        })
    }

    async fn list(&self, kind: DocKind, shard: Shard, after: Option<&str>, limit: usize) -> StoreResult<Vec<String>> {
        self.run(|inner| {
            let ids = inner
                .documents
                .keys()
                .filter(|(k, s, id)| *k == kind && *s == shard && after.is_none_or(|after| id.as_str() > after));
            Ok(ids.map(|(_, _, id)| id.clone()).take(limit).collect())
        })
    }

    async fn index_until(&self, index: &str, until: Micros, limit: usize) -> StoreResult<Vec<(String, Micros)>> {
        self.run(|inner| {
            let mut due: Vec<_> = inner
                .indexes
                .get(index)
                .into_iter()
                .flatten()
                .filter(|(_, at)| **at <= until)
                .map(|((shard, member), at)| (*shard, *at, member.clone()))
                .collect();
            due.sort();
            let of_shard = due.chunk_by(|a, b| a.0 == b.0);
            Ok(of_shard
                .flat_map(|shard| shard.iter().take(limit))
                .map(|(_, at, member)| (member.clone(), *at))
                .collect())
        })
    }

    async fn index_summary(&self, index: &str, until: Micros) -> StoreResult<IndexSummary> {
        self.run(|inner| {
            let due = inner
                .indexes
                .get(index)
                .into_iter()
                .flat_map(|index| index.values())
                .filter(|at| **at <= until);
            let (count, oldest) = (due.clone().count() as u64, due.min().copied());
            Ok(IndexSummary { count, oldest })
        })
    }
}

#[async_trait]
impl Snapshots for MemoryStore {
    async fn head(&self, account: &AccountId, stream: Stream) -> StoreResult<Option<Head>> {
        self.snapshot(account, stream, |snapshot| Ok(snapshot.head.clone()))
    }

    async fn open(&self, account: &AccountId, stream: Stream, fence: Fence, fresh: Generation) -> StoreResult<Head> {
        self.run(|inner| {
            let snapshot = inner
                .snapshots
                .entry((account.clone(), stream))
                .or_insert_with(|| Snapshot::new(fresh, fence));
            if fence < snapshot.head.fence {
                return Err(fenced(fence, snapshot.head.fence));
            }
            snapshot.head.fence = fence;
            Ok(snapshot.head.clone())
        })
    }

    async fn commit(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed> {
        self.snapshot(account, stream, |snapshot| snapshot.commit(commit))?
            .ok_or_else(no_snapshot)
    }

    async fn page(&self, account: &AccountId, stream: Stream, slice: &Slice) -> StoreResult<Page> {
        self.snapshot(account, stream, |snapshot| Ok(snapshot.page(slice)))?
            .ok_or_else(no_snapshot)
    }

    async fn known(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Known>>> {
        let known = self.snapshot(account, stream, |snapshot| {
            Ok(ids.iter().map(|id| snapshot.records.get(id).cloned()).collect())
        })?;
        Ok(known.unwrap_or_else(|| vec![None; ids.len()]))
    }

    async fn unseen(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        cursor: &str,
        limit: usize,
    ) -> StoreResult<(Vec<String>, Option<String>)> {
        let found = self.snapshot(account, stream, |snapshot| Ok(snapshot.unseen(before, cursor, limit)))?;
        Ok(found.unwrap_or_default())
    }

    async fn find(&self, account: &AccountId, stream: Stream, key: u64) -> StoreResult<Vec<String>> {
        let found = self.snapshot(account, stream, |snapshot| {
            let with_key = snapshot.records.iter().filter(|(_, known)| known.keys.contains(&key));
            Ok(with_key.map(|(id, _)| id.clone()).collect())
        })?;
        Ok(found.unwrap_or_default())
    }

    async fn bodies(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Bytes>>> {
        let bodies = self.snapshot(account, stream, |snapshot| {
            Ok(ids.iter().map(|id| snapshot.body(id)).collect())
        })?;
        Ok(bodies.unwrap_or_else(|| vec![None; ids.len()]))
    }

    async fn sweep_tombstones(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        limit: usize,
    ) -> StoreResult<u64> {
        let swept = self.snapshot(account, stream, |snapshot| Ok(snapshot.sweep_tombstones(before, limit)))?;
        Ok(swept.unwrap_or_default())
    }

    async fn drop_snapshot(&self, account: &AccountId, stream: Stream) -> StoreResult<()> {
        self.run(|inner| {
            inner.snapshots.remove(&(account.clone(), stream));
            Ok(())
        })
    }
}

#[async_trait]
impl Dirty for MemoryStore {
    async fn mark(&self, account: &AccountId, ids: &[String], now: Micros, limit: usize) -> StoreResult<Marked> {
        self.run(|inner| {
            let mut last = inner.last_mark;
            let waiting = inner.dirty.entry(account.clone()).or_default();
            let mut overflow = false;
            for id in ids {
                if waiting.len() >= limit && !waiting.contains_key(id) {
                    overflow = true;
                    continue;
                }
                last = (last + 1).max(now.0);
                waiting.insert(id.clone(), last);
            }
            let waiting = waiting.len() as u64;
            inner.last_mark = last;
            Ok(Marked { waiting, overflow })
        })
    }

    async fn dirty(&self, account: &AccountId, limit: usize) -> StoreResult<Vec<DirtyId>> {
        self.run(|inner| {
            let waiting = inner.dirty.get(account).into_iter().flatten();
            let mut ids: Vec<_> = waiting
                .map(|(id, mark)| DirtyId {
                    id: id.clone(),
                    mark: *mark,
                })
                .collect();
            ids.sort_by_key(|dirty| dirty.mark);
            ids.truncate(limit);
            Ok(ids)
        })
    }

    async fn clear(&self, account: &AccountId, fetched: &[DirtyId]) -> StoreResult<u64> {
        self.run(|inner| {
            let waiting = inner.dirty.entry(account.clone()).or_default();
            for done in fetched {
                if waiting.get(&done.id) == Some(&done.mark) {
                    waiting.remove(&done.id);
                }
            }
            Ok(waiting.len() as u64)
        })
    }
}

#[async_trait]
impl Scratch for MemoryStore {
    async fn get(&self, key: &str, now: Micros) -> StoreResult<Option<Vec<u8>>> {
        self.run(|inner| {
            let living = inner.scratch.get(key).filter(|(_, expires)| *expires > now);
            Ok(living.map(|(value, _)| value.clone()))
        })
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        self.run(|inner| {
            inner.scratch.insert(key.to_owned(), (value.to_vec(), now.plus(ttl)));
            Ok(())
        })
    }

    async fn claim(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<bool> {
        self.run(|inner| {
            if inner.scratch.get(key).is_some_and(|(_, expires)| *expires > now) {
                return Ok(false);
            }
            inner.scratch.insert(key.to_owned(), (value.to_vec(), now.plus(ttl)));
            Ok(true)
        })
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.run(|inner| {
            inner.scratch.remove(key);
            Ok(())
        })
    }

    async fn there(&self, keys: &[String], now: Micros) -> StoreResult<Vec<bool>> {
        self.run(|inner| {
            let living = |key| inner.scratch.get(key).is_some_and(|(_, expires)| *expires > now);
            Ok(keys.iter().map(living).collect())
        })
    }

    async fn put_all(&self, keys: &[String], value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        self.run(|inner| {
            let each = keys.iter().map(|key| (key.clone(), (value.to_vec(), now.plus(ttl))));
            inner.scratch.extend(each);
            Ok(())
        })
    }
}

#[async_trait]
impl Probe for MemoryStore {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn ping(&self) -> StoreResult<()> {
        self.run(|_| Ok(()))
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        self.run(|_| {
            Ok(vec![
                "the store is kept in memory only and ends with the process".into(),
            ])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn faults_hit_one_call_each() {
        let store = MemoryStore::new();
        let key = DocKey::by_id(DocKind::Work, "1");
        store.fail_next(StoreErrorKind::Full);
        assert_eq!(
            store.swap(&key, 0, Some(b"a"), &[]).await.unwrap_err().kind,
            StoreErrorKind::Full
        );
        assert_eq!(store.load(&key).await.unwrap(), None, "a refused call does nothing");
        store.lose_next_answer();
        assert_eq!(
            store.swap(&key, 0, Some(b"a"), &[]).await.unwrap_err().kind,
            StoreErrorKind::Unavailable
        );
        assert_eq!(
            store.load(&key).await.unwrap().unwrap().body,
            b"a",
            "a lost answer leaves the work done"
        );
        store.wipe();
        assert_eq!(store.load(&key).await.unwrap(), None);
    }
}
