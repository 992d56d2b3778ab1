//! Contacts that were erased and are kept out until that is lifted: passes of the CRM would bring them back. Kept as keyed hashes, so
//! that the list names nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::AccountId;
use crate::keys::Keys;
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;

/// The erased contacts of an account: since when, by keyed hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Erased(BTreeMap<String, Micros>);

impl Erased {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Since when a contact is kept out. `None`: it is not.
    pub fn since(&self, keys: &Keys, account: &AccountId, id: &str) -> Option<Micros> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&hash(keys, account, id)).copied()
    }

    fn add(&mut self, hash: &str, now: Micros) -> bool {
        if self.0.contains_key(hash) {
            return false;
        }
        self.0.insert(hash.to_owned(), now).is_none()
    }

    /// `false`: nothing of `other` was missing.
    fn merge(&mut self, other: &Erased) -> bool {
        let before = self.0.len();
        for (hash, since) in &other.0 {
            self.0.entry(hash.clone()).or_insert(*since);
        }
        self.0.len() > before
    }

    fn lift(&mut self, hash: &str) -> bool {
        self.0.remove(hash).is_some()
    }
}

fn hash(keys: &Keys, account: &AccountId, id: &str) -> String {
    format!("{:016x}", keys.lookup_key(account, &format!("erased:{id}")))
}

fn key(account: &AccountId) -> DocKey {
    DocKey::of_account(DocKind::Erased, account)
}

pub async fn load(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Erased> {
    Ok(docs::load(docs, &key(account)).await?.unwrap_or_default())
}

/// `false`: it was kept out already.
pub async fn add(
    docs: &(impl Documents + ?Sized),
    keys: &Keys,
    account: &AccountId,
    id: &str,
    now: Micros,
) -> StoreResult<bool> {
    let hash = hash(keys, account, id);
    update(docs, account, |erased| erased.add(&hash, now)).await
}

/// Keeps out those whom another store kept out, too.
pub async fn bring(docs: &(impl Documents + ?Sized), account: &AccountId, brought: &Erased) -> StoreResult<bool> {
    update(docs, account, |erased| erased.merge(brought)).await
}

/// `false`: it was not kept out.
pub async fn lift(docs: &(impl Documents + ?Sized), keys: &Keys, account: &AccountId, id: &str) -> StoreResult<bool> {
    let hash = hash(keys, account, id);
    update(docs, account, |erased| erased.lift(&hash)).await
}

async fn update(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    mut change: impl FnMut(&mut Erased) -> bool,
) -> StoreResult<bool> {
    docs::update(docs, &key(account), |known: Option<Erased>| {
        let mut erased = known.unwrap_or_default();
        match (change(&mut erased), erased.is_empty()) {
            (false, _) => (Change::Keep, Vec::new(), false),
            (true, true) => (Change::Delete, Vec::new(), true),
            (true, false) => (Change::Put(erased), Vec::new(), true),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Identity, test_keys};

    proptest! {
        #[test]
        fn who_was_erased_and_not_lifted_is_kept_out_and_nobody_else(
            deeds in prop::collection::vec((any::<bool>(), 0..6u32), 0..30),
        ) {
            let keys = test_keys(1);
            let of = |org| keys.account_id(&Identity { integration: "demo", site: "", org, principal: "" });
            let (mine, yours) = (of("a"), of("b"));
            let mut erased = Erased::default();
            let mut model: BTreeMap<u32, Micros> = BTreeMap::new();
            for (at, (add, id)) in deeds.into_iter().enumerate() {
                let hash = hash(&keys, &mine, &id.to_string());
                let now = Micros::from_secs(at as u64 + 1);
                let known = model.contains_key(&id);
                if add {
                    prop_assert_eq!(erased.add(&hash, now), !known);
                    model.entry(id).or_insert(now);
                } else {
                    prop_assert_eq!(erased.lift(&hash), known);
                    model.remove(&id);
                }
            }
            for id in 0..6u32 {
                prop_assert_eq!(erased.since(&keys, &mine, &id.to_string()), model.get(&id).copied());
                prop_assert_eq!(erased.since(&keys, &yours, &id.to_string()), None);
            }
        }
    }

    #[test]
    fn the_list_names_nobody() {
        let keys = test_keys(1);
        let account: AccountId = "abcdefghijklmnopqrstuvwx23".parse().unwrap();
        let mut erased = Erased::default();
        erased.add(&hash(&keys, &account, "ada@example.com"), Micros::from_secs(1));
        let stored = serde_json::to_string(&erased).unwrap();
        assert!(!stored.contains("ada"), "{stored}");
        assert_eq!(serde_json::from_str::<Erased>(&stored).unwrap(), erased);
    }
}
