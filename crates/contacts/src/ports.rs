//! The ports of the store. Two backends implement them (Redis, SQLite) and pass one behaviour suite.
//!
//! State that must change as a whole (an account, its work, a budget, a dead letter) is a **document**: it is loaded,
//! changed by a pure function and swapped if nobody else swapped it meanwhile. So the truth of work and budgets is plain
//! Rust, tested without a store, and a backend only has to compare versions. What is too large or too hot for that has
//! a port of its own: snapshots, dirty sets, and scratch values that expire.

use std::time::Duration;

use async_trait::async_trait;

use crate::ids::{AccountId, Fence, Generation, Position, Shard, Stream};
use crate::record::{Known, Removal, Row};
use crate::time::Micros;

/// Everything a process needs of a store.
pub trait Store: Documents + Snapshots + Dirty + Scratch + Probe {}

impl<T: Documents + Snapshots + Dirty + Scratch + Probe> Store for T {}

/// Why a store said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Out of reach or too slow; nothing is known about the write.
    Unavailable,
    /// Reads work, writes are refused (memory or disk used up).
    Full,
    /// A newer lease exists: the caller has lost the account and must stop.
    Fenced,
    /// The snapshot was never opened or was lost.
    NoSnapshot,
    /// What is stored cannot be read by this version, or is damaged.
    Unreadable,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> StoreError {
        StoreError {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub fn because(
        kind: StoreErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }
}

pub type StoreResult<T> = Result<T, StoreError>;

/// The kinds of documents. The text is part of stored keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocKind {
    /// [`crate::accounts::Account`], by account id.
    Account,
    /// [`crate::work::Work`], by account id.
    Work,
    /// [`crate::ledger::Budget`], by budget scope.
    Budget,
    /// The accounts behind one name that an app-level webhook uses, by `integration|name`.
    Route,
    /// [`crate::dead::DeadLetter`], by its id.
    DeadLetter,
    /// [`crate::runs::Run`]s of an account, by account id.
    Runs,
    /// [`crate::audit::Entry`]s of all operators, one document.
    Audit,
    /// [`crate::holds::Holds`], one document.
    Holds,
    /// [`crate::subscription::Subscription`], by account id.
    Subscription,
    /// [`crate::erased::Erased`] contacts, by account id.
    Erased,
    /// A drawer of an account's [`crate::inbox`], by `account|drawer`.
    Inbox,
    /// What is known of a record that is to be linked ([`crate::linking::records`]), by `account|side|id`.
    Link,
    /// [`crate::rotation::Keyring`], one document.
    Keyring,
}

impl DocKind {
    pub const ALL: [DocKind; 13] = [
        DocKind::Account,
        DocKind::Work,
        DocKind::Budget,
        DocKind::Route,
        DocKind::DeadLetter,
        DocKind::Runs,
        DocKind::Audit,
        DocKind::Holds,
        DocKind::Subscription,
        DocKind::Erased,
        DocKind::Inbox,
        DocKind::Link,
        DocKind::Keyring,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            DocKind::Account => "account",
            DocKind::Work => "work",
            DocKind::Budget => "budget",
            DocKind::Route => "route",
            DocKind::DeadLetter => "dead",
            DocKind::Runs => "runs",
            DocKind::Audit => "audit",
            DocKind::Holds => "holds",
            DocKind::Subscription => "subscription",
            DocKind::Erased => "erased",
            DocKind::Inbox => "inbox",
            DocKind::Link => "link",
            DocKind::Keyring => "keyring",
        }
    }
}

/// Names a document. `shard` decides where it lies; documents of one account share the account's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocKey {
    pub kind: DocKind,
    pub shard: Shard,
    pub id: String,
}

impl DocKey {
    pub fn of_account(kind: DocKind, account: &AccountId) -> DocKey {
        DocKey {
            kind,
            shard: account.shard(),
            id: account.as_str().to_owned(),
        }
    }

    pub fn by_id(kind: DocKind, id: impl Into<String>) -> DocKey {
        let id = id.into();
        DocKey {
            kind,
            shard: Shard::of(&id),
            id,
        }
    }
}

/// A stored document. Versions start at 1 and grow by 1 with each swap; 0 stands for "absent".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doc {
    pub version: u64,
    pub body: Vec<u8>,
}

/// A change of an index entry that happens together with a swap, in the document's shard. An index is a set of members
/// with a time each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexChange {
    /// Made of a-z, `:` and digits; say `look:refresh`.
    pub index: String,
    pub member: String,
    /// `None` removes the member.
    pub at: Option<Micros>,
}

/// Size and oldest time of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexSummary {
    pub count: u64,
    pub oldest: Option<Micros>,
}

#[async_trait]
pub trait Documents: Send + Sync {
    async fn load(&self, key: &DocKey) -> StoreResult<Option<Doc>>;

    /// Replaces the document (`None` deletes it) and changes index entries in one step, if its version still is
    /// `expected` (0: if it is absent). `false`: somebody else was faster, nothing happened.
    async fn swap(
        &self,
        key: &DocKey,
        expected: u64,
        body: Option<&[u8]>,
        changes: &[IndexChange],
    ) -> StoreResult<bool>;

    /// Ids of a kind in one shard, in ascending order, after `after`. At most `limit`.
    async fn list(&self, kind: DocKind, shard: Shard, after: Option<&str>, limit: usize) -> StoreResult<Vec<String>>;

    /// Members of an index with a time ≤ `until`, over all shards, oldest first within a shard, at most `limit` a shard.
    async fn index_until(&self, index: &str, until: Micros, limit: usize) -> StoreResult<Vec<(String, Micros)>>;

    /// Number and oldest time of the members of an index with a time ≤ `until`, over all shards.
    async fn index_summary(&self, index: &str, until: Micros) -> StoreResult<IndexSummary>;
}

/// The state of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub generation: Generation,
    /// The highest position ever given.
    pub position: Position,
    /// The highest fencing token seen.
    pub fence: Fence,
    /// The first build has ended: the snapshot holds every contact of the CRM.
    pub ready: bool,
    /// Every version with a CRM time ≤ this has been read (design: watermark). 0: none.
    pub watermark: Micros,
    /// Living records.
    pub count: u64,
    /// The worker's own progress ([`crate::ports::HeadChange::progress`]); empty at first.
    pub progress: Vec<u8>,
    /// When something was last committed (store clock).
    pub committed: Micros,
    /// When the worker last completed a poll or a full pass: what freshness is measured from. 0: never.
    pub fresh: Micros,
}

/// Changes of the head that move with a commit. `None` leaves a field alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadChange {
    pub ready: Option<bool>,
    pub watermark: Option<Micros>,
    pub progress: Option<Vec<u8>>,
    pub fresh: Option<Micros>,
}

/// One atomic write into a snapshot. At most 100 rows and removals, so that none holds the store for long.
#[derive(Clone, Debug)]
pub struct Commit {
    pub fence: Fence,
    /// Of the snapshot as it was opened. One that was lost and begun anew meanwhile is refused as [`StoreErrorKind::Fenced`]:
    /// its fence may come from a clock that runs behind, and progress must not claim pages that it never got.
    pub generation: Generation,
    /// Our clock; a store with a clock of its own (Redis) uses its own for positions.
    pub now: Micros,
    /// Positions are given in this order ([`crate::record::in_commit_order`]).
    pub rows: Vec<Row>,
    pub removals: Vec<Removal>,
    pub head: HeadChange,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub written: u32,
    pub same: u32,
    pub stale: u32,
    pub removed: u32,
    pub position: Position,
}

/// Which records a page read wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Exclusive.
    pub after: Position,
    /// Inclusive; `None`: up to the end.
    pub until: Option<Position>,
    /// Records at most.
    pub rows: usize,
    /// Bytes of bodies after which no further record is added; one record is always returned.
    pub bytes: usize,
    /// Only records with a CRM time later than this; the others are passed over, and `rows` bounds what is scanned.
    pub newer_than: Option<Micros>,
}

/// Records in ascending position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Finished JSON bodies, or whole member bytes cut to the body; never parsed.
    pub bodies: Vec<bytes::Bytes>,
    /// The position of the last record looked at (also if it was passed over); `None`: none in the slice.
    pub last: Option<Position>,
    /// Records remain in the slice after `last`.
    pub more: bool,
}

#[async_trait]
pub trait Snapshots: Send + Sync {
    /// `None`: no snapshot (never opened, or lost).
    async fn head(&self, account: &AccountId, stream: Stream) -> StoreResult<Option<Head>>;

    /// For the holder of a lease, at the start of a slice: creates the snapshot under `fresh` if there is none, and
    /// makes the store refuse every older fence from now on. [`StoreErrorKind::Fenced`] if a newer one was seen.
    async fn open(&self, account: &AccountId, stream: Stream, fence: Fence, fresh: Generation) -> StoreResult<Head>;

    /// [`StoreErrorKind::Fenced`]: a newer lease exists. [`StoreErrorKind::NoSnapshot`]: lost since `open`. Nothing is
    /// written in either case.
    async fn commit(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed>;

    async fn page(&self, account: &AccountId, stream: Stream, slice: &Slice) -> StoreResult<Page>;

    /// What is known of each id, tombstones included.
    async fn known(&self, account: &AccountId, stream: Stream, ids: &[String]) -> StoreResult<Vec<Option<Known>>>;

    /// Living records last observed before `before`: the deletion candidates of a full pass. `cursor`: empty at first,
    /// then what the last call returned; `None` in the answer: the end. May repeat ids, and never leaves out one that
    /// was there all along.
    async fn unseen(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        cursor: &str,
        limit: usize,
    ) -> StoreResult<(Vec<String>, Option<String>)>;

    /// Ids of living records that carry a lookup key.
    async fn find(&self, account: &AccountId, stream: Stream, key: u64) -> StoreResult<Vec<String>>;

    /// Finished JSON of living records.
    async fn bodies(
        &self,
        account: &AccountId,
        stream: Stream,
        ids: &[String],
    ) -> StoreResult<Vec<Option<bytes::Bytes>>>;

    /// Forgets tombstones last touched before `before`; at most `limit`, returns how many.
    async fn sweep_tombstones(
        &self,
        account: &AccountId,
        stream: Stream,
        before: Micros,
        limit: usize,
    ) -> StoreResult<u64>;

    /// Forgets the snapshot whole.
    async fn drop_snapshot(&self, account: &AccountId, stream: Stream) -> StoreResult<()>;
}

/// A dirty id with the number of the mark that made it dirty last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyId {
    pub id: String,
    pub mark: u64,
}

/// What marking did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Ids in the set now.
    pub waiting: u64,
    /// The set is full: what did not fit needs a poll.
    pub overflow: bool,
}

/// The ids that webhooks named and that no fetch has covered since.
#[async_trait]
pub trait Dirty: Send + Sync {
    /// Marks ids dirty; each mark gets a new number, so that one arriving during a fetch outlives it. At most `limit`
    /// ids wait; of more, `overflow` is returned and those beyond are not kept.
    async fn mark(&self, account: &AccountId, ids: &[String], now: Micros, limit: usize) -> StoreResult<Marked>;

    /// Up to `limit` dirty ids, without removing them.
    async fn dirty(&self, account: &AccountId, limit: usize) -> StoreResult<Vec<DirtyId>>;

    /// Removes ids whose mark is still the given one. Returns how many ids remain.
    async fn clear(&self, account: &AccountId, fetched: &[DirtyId]) -> StoreResult<u64>;
}

/// Small values that may expire: fingerprints, remembered failures, replay guards.
#[async_trait]
pub trait Scratch: Send + Sync {
    async fn get(&self, key: &str, now: Micros) -> StoreResult<Option<Vec<u8>>>;

    async fn put(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()>;

    /// Puts if absent (or expired); `false`: it was there.
    async fn claim(&self, key: &str, value: &[u8], ttl: Duration, now: Micros) -> StoreResult<bool>;

    async fn delete(&self, key: &str) -> StoreResult<()>;

    /// Which of the keys are there, in one trip. In their order.
    async fn there(&self, keys: &[String], now: Micros) -> StoreResult<Vec<bool>>;

    /// Puts one value under all of the keys, in one trip.
    async fn put_all(&self, keys: &[String], value: &[u8], ttl: Duration, now: Micros) -> StoreResult<()>;
}

/// How a backend describes and checks itself.
#[async_trait]
pub trait Probe: Send + Sync {
    /// One line for logs: which backend, where (without secrets), which namespace.
    fn describe(&self) -> String;

    /// Fails if the store cannot serve reads now.
    async fn ping(&self) -> StoreResult<()>;

    /// What an operator should know of the store's set-up: "append-only file is off", "policy evicts keys". Empty: fine.
    async fn warnings(&self) -> StoreResult<Vec<String>>;
}
