//! Budgets that processes share.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Ask, Budget, LeaseId, Left, Limit, LimitScope, Scopes, Taken};
use crate::docs::{self, Change};
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;

/// Budgets in a store. Takings of one process on one scope queue up here instead of racing for the document.
pub struct Ledger<D: ?Sized> {
    turns: Turns,
    docs: Arc<D>,
}

impl<D: Documents + ?Sized> Ledger<D> {
    pub fn new(docs: Arc<D>) -> Ledger<D> {
        Ledger {
            turns: Turns::default(),
            docs,
        }
    }

    pub async fn take(&self, scope: &str, ask: &Ask<'_>, now: Micros) -> StoreResult<Taken> {
        self.change(scope, |budget| budget.take(ask, now)).await
    }

    pub async fn finish(&self, scope: &str, lease: LeaseId, calls: u32, now: Micros) -> StoreResult<()> {
        self.change(scope, |budget| budget.finish(lease, calls, now)).await
    }

    pub async fn give_back(&self, scope: &str, lease: LeaseId, slots: u32, now: Micros) -> StoreResult<()> {
        self.change(scope, |budget| budget.give_back(lease, slots, now)).await
    }

    /// See [`Budget::cost_more`].
    pub async fn cost_more(&self, scope: &str, limit: &Limit, extra: u32, now: Micros) -> StoreResult<()> {
        self.change(scope, |budget| budget.cost_more(limit, extra, now)).await
    }

    pub async fn hold(&self, scope: &str, limit: &str, until: Micros, quota: bool) -> StoreResult<()> {
        self.change(scope, |budget| budget.hold(limit, until, quota)).await
    }

    /// See [`Budget::none_left`].
    pub async fn none_left(&self, scope: &str, limit: &Limit, asked_at: Micros, until: Micros) -> StoreResult<bool> {
        self.change(scope, |budget| budget.none_left(limit, asked_at, until))
            .await
    }

    /// What is left of each limit now, in their order.
    pub async fn left(&self, scopes: &Scopes, limits: &[Limit], now: Micros) -> StoreResult<Vec<Left>> {
        let mut budgets: BTreeMap<LimitScope, Budget> = BTreeMap::new();
        for limit in limits {
            if let Entry::Vacant(place) = budgets.entry(limit.scope) {
                let budget = match scopes.key(limit.scope) {
                    Some(key) => docs::load(&*self.docs, &DocKey::by_id(DocKind::Budget, key)).await?,
                    None => None,
                };
                place.insert(budget.unwrap_or_default());
            }
        }
        let left = |limit: &Limit| budgets[&limit.scope].left(std::slice::from_ref(limit), now);
        Ok(limits.iter().flat_map(left).collect())
    }

    async fn change<R>(&self, scope: &str, mut change: impl FnMut(&mut Budget) -> R) -> StoreResult<R> {
        let _turn = self.turns.take(scope).await;
        docs::update(
            &*self.docs,
            &DocKey::by_id(DocKind::Budget, scope),
            |budget: Option<Budget>| {
                let before = budget.unwrap_or_default();
                let mut after = before.clone();
                let result = change(&mut after);
                let what = if after == before {
                    Change::Keep
                } else {
                    Change::Put(after)
                };
                (what, Vec::new(), result)
            },
        )
        .await
    }
}

/// One turn per scope at a time, within this process.
#[derive(Default)]
struct Turns(std::sync::Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn take(&self, scope: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if turns.len() > 10_000 {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(scope.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
