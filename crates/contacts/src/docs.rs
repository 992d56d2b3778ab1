//! Drives a pure change of a document to the store: load, change, swap, and again if somebody else was faster.

use std::time::Duration;

use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ports::{DocKey, Documents, IndexChange, StoreError, StoreErrorKind, StoreResult};

/// Swaps that lost before giving up. Losing means that somebody else won, so the work as a whole goes on.
const TRIES: u32 = 200;

/// What a change wants done with the document.
pub enum Change<T> {
    /// Nothing changed: no write.
    Keep,
    Put(T),
    Delete,
}

/// Loads a document as `T`.
pub async fn load<T: DeserializeOwned>(docs: &(impl Documents + ?Sized), key: &DocKey) -> StoreResult<Option<T>> {
    docs.load(key).await?.map(|doc| decode(key, &doc.body)).transpose()
}

/// Applies `change` to the document, as one step. `change` may run several times and must do nothing but compute. It
/// returns what to do with the document, the index entries that change with it, and the result.
pub async fn update<T, R>(
    docs: &(impl Documents + ?Sized),
    key: &DocKey,
    mut change: impl FnMut(Option<T>) -> (Change<T>, Vec<IndexChange>, R),
) -> StoreResult<R>
where
    T: Serialize + DeserializeOwned,
{
    for attempt in 0..TRIES {
        let doc = docs.load(key).await?;
        let version = doc.as_ref().map_or(0, |doc| doc.version);
        let current = doc.map(|doc| decode(key, &doc.body)).transpose()?;
        let (what, index, result) = change(current);
        let body = match what {
            Change::Keep => return Ok(result),
            Change::Delete => None,
            Change::Put(new) => Some(encode(key, &new)?),
        };
        if docs.swap(key, version, body.as_deref(), &index).await? {
            return Ok(result);
        }
        if attempt > 2 {
            let longest = 1u64 << attempt.min(5);
            let pause = rand::rng().random_range(0..=longest);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    Err(StoreError::new(
        StoreErrorKind::Unavailable,
        format!(
            "a {} document was changed by others {TRIES} times in a row",
            key.kind.as_str()
        ),
    ))
}

fn decode<T: DeserializeOwned>(key: &DocKey, body: &[u8]) -> StoreResult<T> {
    serde_json::from_slice(body).map_err(|error| {
        StoreError::because(
            StoreErrorKind::Unreadable,
            format!("a stored {} document cannot be read by this version", key.kind.as_str()),
            error,
        )
    })
}

fn encode<T: Serialize>(key: &DocKey, value: &T) -> StoreResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        StoreError::because(
            StoreErrorKind::Unreadable,
            format!("a {} document cannot be written", key.kind.as_str()),
            error,
        )
    })
}
