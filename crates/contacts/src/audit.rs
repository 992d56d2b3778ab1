//! What operators did, newest last, in one document: operators are few, and their last deeds are what one asks for.

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;

/// One deed of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Micros,
    /// The name they gave; only the role is proven.
    pub by: String,
    pub role: String,
    pub action: String,
    /// An account id, or what else it was done to.
    pub target: String,
    /// What came of it, or why it was done.
    #[serde(default)]
    pub detail: String,
}

fn key() -> DocKey {
    DocKey::by_id(DocKind::Audit, "operators")
}

/// Appends; of more than `keep` entries the oldest are dropped.
pub async fn note(docs: &(impl Documents + ?Sized), entry: &Entry, keep: usize) -> StoreResult<()> {
    docs::update(docs, &key(), |known: Option<Vec<Entry>>| {
        let mut entries = known.unwrap_or_default();
        entries.push(entry.clone());
        let surplus = entries.len().saturating_sub(keep.max(1));
        entries.drain(..surplus);
        (Change::Put(entries), Vec::new(), ())
    })
    .await
}

/// Adds what another store has noted, in the order of time; of more than `keep` the oldest are dropped.
pub async fn bring(docs: &(impl Documents + ?Sized), brought: &[Entry], keep: usize) -> StoreResult<()> {
    docs::update(docs, &key(), |known: Option<Vec<Entry>>| {
        let known = known.unwrap_or_default();
        let mut entries = known.clone();
        entries.extend(brought.iter().filter(|entry| !known.contains(entry)).cloned());
        entries.sort_by_key(|entry| entry.at);
        let surplus = entries.len().saturating_sub(keep.max(1));
        entries.drain(..surplus);
        match entries == known {
            true => (Change::Keep, Vec::new(), ()),
            false => (Change::Put(entries), Vec::new(), ()),
        }
    })
    .await
}

/// Newest first.
pub async fn list(docs: &(impl Documents + ?Sized)) -> StoreResult<Vec<Entry>> {
    let mut entries: Vec<Entry> = docs::load(docs, &key()).await?.unwrap_or_default();
    entries.reverse();
    Ok(entries)
}
