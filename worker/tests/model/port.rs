//! The store as one process sees it: calls take time, fail before or after they took effect, and stop with the process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contacts::ports::{
    Commit, Committed, Dirty, DirtyId, Doc, DocKey, DocKind, Documents, Head, IndexChange, IndexSummary, Marked, Page,
    Probe, Scratch, Slice, Snapshots, StoreErrorKind, StoreResult,
};
use contacts::record::Known;
use contacts::{AccountId, Fence, Generation, Micros, Shard, Stream};
use store::memory::MemoryStore;

use crate::machine::Process;
use crate::source::Net;
use crate::witness::Witness;

#[derive(Clone)]
pub struct Port {
    pub inner: MemoryStore,
    pub net: Arc<Net>,
    pub witness: Arc<Witness>,
    pub process: Process,
}

impl Port {
    async fn before(&self) {
        self.process.pass().await;
        let faults = *self.net.faults.lock();
        let dice = &self.net.dice;
        if dice.chance(faults.store_dawdles) {
            tokio::time::sleep(dice.millis(1, 60)).await;
            self.process.pass().await;
        }
        if dice.chance(faults.store_refuses) {
            self.inner
                .fail_next(*dice.pick(&[StoreErrorKind::Unavailable, StoreErrorKind::Full]));
        } else if dice.chance(faults.store_mumbles) {
            self.inner.lose_next_answer();
        }
    }

    /// The work of a store in memory is done in one go when it is first polled, so a fault hits the call it was meant for.
    async fn through<T>(&self, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.before().await;
        let result = call.await;
        self.process.pass().await;
        result
    }
}

#[async_trait]
impl Documents for Port {
    async fn load(&self, key: &DocKey) -> StoreResult<Option<Doc>> {
        self.through(self.inner.load(key)).await
    }

    async fn swap(
        &self,
        key: &DocKey,
        expected: u64,
        body: Option<&[u8]>,
        changes: &[IndexChange],
    ) -> StoreResult<bool> {
        self.before().await;
        if self.net.dice.chance(self.net.faults.lock().swap_mumbles) {
            self.inner.lose_next_answer();
        }
        let result = self.inner.swap(key, expected, body, changes).await;
        self.process.pass().await;
        result
    }

    async fn list(&self, kind: DocKind, shard: Shard, after: Option<&str>, limit: usize) -> StoreResult<Vec<String>> {
        self.through(self.inner.list(kind, shard, after, limit)).await
    }

    async fn index_until(&self, index: &str, until: Micros, limit: usize) -> StoreResult<Vec<(String, Micros)>> {
        self.through(self.inner.index_until(index, until, limit)).await
    }

    async fn index_summary(&self, index: &str, until: Micros) -> StoreResult<IndexSummary> {
        self.through(self.inner.index_summary(index, until)).await
    }
}

#[async_trait]
impl Snapshots for Port {
    async fn head(&self, account: &AccountId, stream: Stream) -> StoreResult<Option<Head>> {
        self.through(self.inner.head(account, stream)).await
    }

    async fn open(&self, account: &AccountId, stream: Stream, fence: Fence, fresh: Generation) -> StoreResult<Head> {
        self.before().await;
        let result = self.inner.open(account, stream, fence, fresh).await;
        self.witness.opened(account, fence, &result);
        self.process.pass().await;
        result
    }

    async fn commit(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed> {
        // The looks before and after must not use up the fault.
        self.process.pass().await;
        let before = self.witness.look(&self.inner, &self.net, account).await;
        self.before_commit();
        let result = self.inner.commit(account, stream, commit).await;
        let after = self.witness.look(&self.inner, &self.net, account).await;
        self.witness
            .committed(&self.net, account, commit, &result, (&before, &after));
        self.process.pass().await;
        result
    }

    async fn page(&self, account: &AccountId, stream: Stream, slice: &Slice) -> StoreResult<Page> {
        self.through(self.inner.page(account, stream, slice)).await
    }

    async fn known(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Known>>> {
        self.through(self.inner.known(account, stream, ids)).await
    }

    async fn unseen(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        cursor: &str,
        limit: usize,
    ) -> StoreResult<(Vec<String>, Option<String>)> {
        self.through(self.inner.unseen(account, stream, before, cursor, limit))
            .await
    }

    async fn find(&self, account: &AccountId, stream: Stream, key: u64) -> StoreResult<Vec<String>> {
        self.through(self.inner.find(account, stream, key)).await
    }

    async fn bodies(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Bytes>>> {
        self.through(self.inner.bodies(account, stream, ids)).await
    }

    async fn sweep_tombstones(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        limit: usize,
    ) -> StoreResult<u64> {
        self.through(self.inner.sweep_tombstones(account, stream, before, limit))
            .await
    }

    async fn drop_snapshot(&self, account: &AccountId, stream: Stream) -> StoreResult<()> {
        self.through(self.inner.drop_snapshot(account, stream)).await
    }
}

impl Port {
    fn before_commit(&self) {
        let faults = *self.net.faults.lock();
        if self.net.dice.chance(faults.store_refuses) {
            self.inner.fail_next(StoreErrorKind::Full);
        } else if self.net.dice.chance(faults.store_mumbles) {
            self.inner.lose_next_answer();
        }
    }
}

#[async_trait]
impl Dirty for Port {
    async fn mark(&self, account: &AccountId, ids: &[String], now: Micros, limit: usize) -> StoreResult<Marked> {
        self.through(self.inner.mark(account, ids, now, limit)).await
    }

    async fn dirty(&self, account: &AccountId, limit: usize) -> StoreResult<Vec<DirtyId>> {
        self.through(self.inner.dirty(account, limit)).await
    }

    async fn clear(&self, account: &AccountId, fetched: &[DirtyId]) -> StoreResult<u64> {
        self.through(self.inner.clear(account, fetched)).await
    }
}

#[async_trait]
impl Scratch for Port {
    async fn get(&self, key: &str, now: Micros) -> StoreResult<Option<Vec<u8>>> {
        self.through(self.inner.get(key, now)).await
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        self.through(self.inner.put(key, value, ttl, now)).await
    }

    async fn claim(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<bool> {
        self.through(self.inner.claim(key, value, ttl, now)).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.through(self.inner.delete(key)).await
    }

    async fn there(&self, keys: &[String], now: Micros) -> StoreResult<Vec<bool>> {
        self.through(self.inner.there(keys, now)).await
    }

    async fn put_all(&self, keys: &[String], value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()> {
        self.through(self.inner.put_all(keys, value, ttl, now)).await
    }
}

#[async_trait]
impl Probe for Port {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn ping(&self) -> StoreResult<()> {
        self.through(self.inner.ping()).await
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        self.through(self.inner.warnings()).await
    }
}
