//! Dead letters: work that was given up, kept in the store with its reason until an operator redrives or discards it.

use serde::{Deserialize, Serialize};

use crate::docs;
use crate::ids::{AccountId, JobId, Kind, Lane};
use crate::inbox::Kept;
use crate::keys::Keys;
use crate::ports::{DocKey, DocKind, Documents, IndexChange, StoreResult};
use crate::time::Micros;

/// The index of all dead letters, by the time they died.
pub const INDEX: &str = "dead";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: JobId,
    /// `None`: the body could not be read.
    pub account: Option<AccountId>,
    pub kind: Option<Kind>,
    pub lane: Option<Lane>,
    pub reason: String,
    /// The error's own words, without secrets or contact data.
    pub detail: String,
    pub attempts: u32,
    pub at: Micros,
    /// Contact ids that the work was about, at most a few hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// What lay in the account's inbox, still sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Kept>,
}

/// Keeps a dead letter. The same id again replaces it.
pub async fn put(docs: &(impl Documents + ?Sized), letter: &DeadLetter) -> StoreResult<()> {
    docs::update(docs, &key(&letter.id), |_: Option<DeadLetter>| {
        let entry = IndexChange {
            index: INDEX.into(),
            member: letter.id.0.clone(),
            at: Some(letter.at),
        };
        (docs::Change::Put(letter.clone()), vec![entry], ())
    })
    .await
}

pub async fn get(docs: &(impl Documents + ?Sized), id: &JobId) -> StoreResult<Option<DeadLetter>> {
    docs::load(docs, &key(id)).await
}

/// Removes a dead letter. `false`: it was not there.
pub async fn remove(docs: &(impl Documents + ?Sized), id: &JobId) -> StoreResult<bool> {
    docs::update(docs, &key(id), |known: Option<DeadLetter>| match known {
        Some(_) => {
            let entry = IndexChange {
                index: INDEX.into(),
                member: id.0.clone(),
                at: None,
            };
            (docs::Change::Delete, vec![entry], true)
        }
        None => (docs::Change::Keep, Vec::new(), false),
    })
    .await
}

/// Seals the payload with the key `to`, while it seals. `false`: it does not, there is none, it is already, or no key opens it.
pub async fn reseal(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str, id: &JobId) -> StoreResult<bool> {
    docs::update(docs, &key(id), |known: Option<DeadLetter>| {
        let Some(mut letter) = known else {
            return (docs::Change::Keep, Vec::new(), false);
        };
        let resealed = match (&letter.account, &mut letter.payload) {
            (Some(account), Some(payload)) => payload.reseal(keys, to, account),
            _ => false,
        };
        match resealed {
            true => (docs::Change::Put(letter), Vec::new(), true),
            false => (docs::Change::Keep, Vec::new(), false),
        }
    })
    .await
}

fn key(id: &JobId) -> DocKey {
    DocKey::by_id(DocKind::DeadLetter, id.0.clone())
}

/// Dead letters, oldest first; about `limit`.
pub async fn list(docs: &(impl Documents + ?Sized), limit: usize) -> StoreResult<Vec<DeadLetter>> {
    let mut members = docs.index_until(INDEX, Micros(u64::MAX >> 1), limit).await?;
    members.sort_by_key(|(_, at)| *at);
    let mut letters = Vec::new();
    for (id, _) in members.into_iter().take(limit) {
        letters.extend(docs::load(docs, &key(&JobId(id))).await?);
    }
    Ok(letters)
}

/// How many there are, and since when.
pub async fn summary(docs: &(impl Documents + ?Sized)) -> StoreResult<crate::ports::IndexSummary> {
    docs.index_summary(INDEX, Micros(u64::MAX >> 1)).await
}
