//! Local pacing: slots are taken from the shared ledger at most a second ahead and used evenly. No slot, no call; store
//! gone, no call.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::ledger::{Ask, Charge, Class, LeaseId, Ledger, Limit, LimitKind, LimitScope, Scopes, Taken, Times};
use contacts::ports::{Documents, StoreResult};
use contacts::{Clock, ErrorKind, Micros};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

use crate::error::{CrmError, CrmResult};
use crate::reply::Hold;

/// The shared ledger, as the pacer uses it.
#[async_trait]
pub trait Budgets: Send + Sync {
    async fn take(&self, scope: &str, ask: &Ask<'_>, now: Micros) -> StoreResult<Taken>;
    async fn finish(&self, scope: &str, lease: LeaseId, calls: u32, now: Micros) -> StoreResult<()>;
    async fn give_back(&self, scope: &str, lease: LeaseId, slots: u32, now: Micros) -> StoreResult<()>;
    async fn cost_more(&self, scope: &str, limit: &Limit, extra: u32, now: Micros) -> StoreResult<()>;
    async fn hold(&self, scope: &str, limit: &str, until: Micros, quota: bool) -> StoreResult<()>;
    async fn none_left(&self, scope: &str, limit: &Limit, asked_at: Micros, until: Micros) -> StoreResult<bool>;
}

#[async_trait]
impl<D: Documents + ?Sized> Budgets for Ledger<D> {
    async fn take(&self, scope: &str, ask: &Ask<'_>, now: Micros) -> StoreResult<Taken> {
        Ledger::take(self, scope, ask, now).await
    }

    async fn finish(&self, scope: &str, lease: LeaseId, calls: u32, now: Micros) -> StoreResult<()> {
        Ledger::finish(self, scope, lease, calls, now).await
    }

    async fn give_back(&self, scope: &str, lease: LeaseId, slots: u32, now: Micros) -> StoreResult<()> {
        Ledger::give_back(self, scope, lease, slots, now).await
    }

    async fn cost_more(&self, scope: &str, limit: &Limit, extra: u32, now: Micros) -> StoreResult<()> {
        Ledger::cost_more(self, scope, limit, extra, now).await
    }

    async fn hold(&self, scope: &str, limit: &str, until: Micros, quota: bool) -> StoreResult<()> {
        Ledger::hold(self, scope, limit, until, quota).await
    }

    async fn none_left(&self, scope: &str, limit: &Limit, asked_at: Micros, until: Micros) -> StoreResult<bool> {
        Ledger::none_left(self, scope, limit, asked_at, until).await
    }
}

/// How long a caller waits for a slot before it is told to come back.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A worker's slice goes on to other work instead of waiting long.
    pub bulk: Duration,
    /// Somebody waits, but not for ever.
    pub interactive: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            bulk: Duration::from_secs(3),
            interactive: Duration::from_secs(5),
        }
    }
}

/// Gives out slots for the calls of one account.
#[derive(Clone)]
pub struct Pacer {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    budgets: Arc<dyn Budgets>,
    scopes: Scopes,
    class: Class,
    patience: Patience,
    times: Times,
    waiter: String,
    clock: Arc<dyn Clock>,
    limiters: Mutex<HashMap<String, Arc<DefaultDirectRateLimiter>>>,
    spare: Mutex<HashMap<String, Spare>>,
}

/// Slots taken ahead for one set of charges.
struct Spare {
    scope: LimitScope,
    lease: LeaseId,
    left: u32,
    send_by: Micros,
}

/// A call may be sent now. Settle it when the reply is in.
#[must_use]
pub(crate) struct Slot {
    leases: Vec<(LimitScope, LeaseId)>,
}

impl std::fmt::Debug for Pacer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacer")
            .field("class", &self.inner.as_ref().map(|inner| inner.class))
            .finish_non_exhaustive()
    }
}

/// Most slots taken ahead.
const MOST_AHEAD: u32 = 10;
/// One of these parts of a window may be taken ahead by one process.
const WINDOW_PARTS: u32 = 200;
/// A slot is not used in the last moment before it lapses.
const MARGIN: Duration = Duration::from_millis(50);
/// An interactive waiter asks again this often, so that its want stands.
const RENEW: Duration = Duration::from_millis(200);

impl Pacer {
    /// `waiter` names the process or request, so that its want in the ledger is renewed instead of doubled.
    pub fn new(
        budgets: Arc<dyn Budgets>,
        scopes: Scopes,
        class: Class,
        patience: Patience,
        times: Times,
        waiter: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Pacer {
        let inner = Inner {
            budgets,
            scopes,
            class,
            patience,
            times,
            waiter: waiter.into(),
            clock,
            limiters: Mutex::default(),
            spare: Mutex::default(),
        };
        Pacer {
            inner: Some(Arc::new(inner)),
        }
    }

    /// No budget at all: for trying a connector out by hand.
    pub fn unlimited() -> Pacer {
        Pacer { inner: None }
    }

    /// Waits for a slot.
    pub(crate) async fn slot(&self, charges: &[Charge]) -> CrmResult<Slot> {
        let Some(inner) = &self.inner else {
            return Ok(Slot { leases: Vec::new() });
        };
        let patience = match inner.class {
            Class::Bulk => inner.patience.bulk,
            Class::Interactive => inner.patience.interactive,
        };
        let give_up = inner.clock.now().plus(patience);
        let parts = inner.parts(charges);
        inner.space(charges).await;
        loop {
            let now = inner.clock.now();
            match inner.take(&parts, now).await? {
                Given::Slot(slot) => return Ok(slot),
                Given::Wait {
                    until,
                    limit,
                    quota: true,
                } => {
                    let message = format!("the quota `{limit}` is used up");
                    return Err(CrmError::new(ErrorKind::Quota { until }, message));
                }
                Given::Wait {
                    until,
                    limit,
                    quota: false,
                } => {
                    if until > give_up || now >= give_up {
                        let message = format!("no call is left of the limit `{limit}`");
                        return Err(CrmError::new(ErrorKind::NoBudget { until: until.max(now) }, message));
                    }
                    let wait = until.since(now).min(RENEW).max(Duration::from_millis(1));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// The call of a slot was answered or has failed.
    pub(crate) async fn settle(&self, slot: Slot) {
        let Some(inner) = &self.inner else { return };
        for (key, lease) in inner.keyed(slot) {
            // If the store is gone, the ledger counts the slot as its latest possible arrival by itself.
            if let Err(error) = inner.budgets.finish(key, lease, 1, inner.clock.now()).await {
                tracing::debug!(%error, "a finished call could not be told to the ledger");
            }
        }
    }

    /// The call of a slot was never sent.
    pub(crate) async fn give_back(&self, slot: Slot) {
        let Some(inner) = &self.inner else { return };
        inner.give_back(slot).await;
    }

    /// The CRM said that a call with these charges has cost so much in truth.
    pub(crate) async fn really_cost(&self, charges: &[Charge], cost: u32) -> CrmResult<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let dearer = |charge: &&Charge| charge.cost > 0 && charge.cost < cost;
        if charges.iter().any(|charge| dearer(&charge)) {
            // What was taken ahead was taken at the lower price.
            self.rest().await;
        }
        for charge in charges.iter().filter(dearer) {
            let Some(key) = inner.scopes.key(charge.limit.scope) else {
                continue;
            };
            let extra = cost - charge.cost;
            inner
                .budgets
                .cost_more(key, &charge.limit, extra, inner.clock.now())
                .await
                .map_err(store_down)?;
        }
        Ok(())
    }

    /// The CRM said that calls must stop.
    pub(crate) async fn hold(&self, hold: &Hold) -> CrmResult<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        // What was taken ahead was taken before the CRM said so.
        self.rest().await;
        let Some(key) = inner.scopes.key(hold.scope) else {
            return Ok(());
        };
        inner
            .budgets
            .hold(key, &hold.limit, hold.until, hold.quota)
            .await
            .map_err(store_down)
    }

    /// A reply to a call with these charges, sent at `asked_at`, said that nothing is left of a limit.
    pub(crate) async fn none_left(&self, hold: &Hold, charges: &[Charge], asked_at: Micros) -> CrmResult<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let Some(charge) = charges.iter().find(|charge| charge.limit.name == hold.limit) else {
            return self.hold(hold).await;
        };
        let Some(key) = inner.scopes.key(charge.limit.scope) else {
            return Ok(());
        };
        let held = inner
            .budgets
            .none_left(key, &charge.limit, asked_at, hold.until)
            .await
            .map_err(store_down)?;
        if held {
            self.rest().await;
        }
        Ok(())
    }

    /// Gives back what was taken ahead and not used. Call it when the work is over; otherwise it lapses by itself.
    pub async fn rest(&self) {
        let Some(inner) = &self.inner else { return };
        let spare: Vec<Spare> = inner.spare.lock().drain().map(|(_, spare)| spare).collect();
        for spare in spare {
            inner.return_spare(&spare).await;
        }
    }
}

fn store_down(error: contacts::StoreError) -> CrmError {
    CrmError::because(
        ErrorKind::StoreDown,
        "the ledger of budgets is out of reach, so the CRM is not called",
        error,
    )
}

fn named(charges: &[Charge]) -> String {
    charges
        .iter()
        .map(|charge| format!("{}={} ", charge.limit.name, charge.cost))
        .collect()
}

/// What was given to one who asked for a slot.
enum Given {
    Slot(Slot),
    /// As [`Taken::Wait`].
    Wait {
        until: Micros,
        limit: String,
        quota: bool,
    },
}

impl Inner {
    /// The charges by whose budget they go to, each scope with calls of more others first. Charges to what nobody knows
    /// yet are left out.
    fn parts(&self, charges: &[Charge]) -> Vec<(LimitScope, Vec<Charge>)> {
        let mut parts: BTreeMap<LimitScope, Vec<Charge>> = BTreeMap::new();
        for charge in charges
            .iter()
            .filter(|charge| self.scopes.key(charge.limit.scope).is_some())
        {
            parts.entry(charge.limit.scope).or_default().push(charge.clone());
        }
        if self.scopes.account.is_some() {
            // What counts against no limit of the account still heeds a hold of everything.
            parts.entry(LimitScope::Account).or_default();
        }
        parts.into_iter().collect()
    }

    /// A slot of every budget, or of none. Ahead is taken only where one budget decides.
    async fn take(&self, parts: &[(LimitScope, Vec<Charge>)], now: Micros) -> CrmResult<Given> {
        if let [(_, charges)] = parts
            && let Some(slot) = self.spare_slot(charges).await
        {
            return Ok(Given::Slot(slot));
        }
        let mut slot = Slot { leases: Vec::new() };
        for (scope, charges) in parts {
            let Some(key) = self.scopes.key(*scope) else { continue };
            let ask = Ask {
                charges,
                slots: if parts.len() == 1 { self.ahead(charges) } else { 1 },
                class: self.class,
                waiter: &self.waiter,
                times: self.times,
            };
            match self.budgets.take(key, &ask, now).await {
                Ok(Taken::Slots { lease, slots, send_by }) => {
                    slot.leases.push((*scope, lease));
                    if slots > 1 {
                        let spare = Spare {
                            scope: *scope,
                            lease,
                            left: slots - 1,
                            send_by,
                        };
                        self.spare.lock().insert(named(charges), spare);
                    }
                }
                Ok(Taken::Wait { until, limit, quota }) => {
                    self.give_back(slot).await;
                    return Ok(Given::Wait { until, limit, quota });
                }
                Err(error) => {
                    self.give_back(slot).await;
                    return Err(store_down(error));
                }
            }
        }
        Ok(Given::Slot(slot))
    }

    fn keyed(&self, slot: Slot) -> impl Iterator<Item = (&str, LeaseId)> {
        let leases = slot.leases.into_iter();
        leases.filter_map(|(scope, lease)| Some((self.scopes.key(scope)?, lease)))
    }

    async fn give_back(&self, slot: Slot) {
        for (key, lease) in self.keyed(slot) {
            if let Err(error) = self.budgets.give_back(key, lease, 1, self.clock.now()).await {
                tracing::debug!(%error, "an unused slot could not be given back to the ledger");
            }
        }
    }

    /// A slot that was taken before, if one is left and still good.
    async fn spare_slot(&self, charges: &[Charge]) -> Option<Slot> {
        let now = self.clock.now();
        let key = named(charges);
        let lapsed = {
            let mut spare = self.spare.lock();
            let found = spare.get_mut(&key)?;
            if found.send_by > now.plus(MARGIN) {
                found.left -= 1;
                let leases = vec![(found.scope, found.lease)];
                if found.left == 0 {
                    spare.remove(&key);
                }
                return Some(Slot { leases });
            }
            spare.remove(&key)
        };
        if let Some(lapsed) = lapsed {
            self.return_spare(&lapsed).await;
        }
        None
    }

    async fn return_spare(&self, spare: &Spare) {
        let Some(key) = self.scopes.key(spare.scope) else {
            return;
        };
        let given = self.budgets.give_back(key, spare.lease, spare.left, self.clock.now());
        if let Err(error) = given.await {
            tracing::debug!(%error, "unused slots could not be given back to the ledger");
        }
    }

    /// How many slots to take at once. What lies here unused is missing elsewhere, and a process that dies takes it along
    /// for seconds: a small part of a window, and one at a time where that is less than one.
    fn ahead(&self, charges: &[Charge]) -> u32 {
        if self.class == Class::Interactive {
            return 1;
        }
        let most = charges
            .iter()
            .filter(|charge| charge.cost > 0)
            .map(|charge| match charge.limit.kind {
                LimitKind::Concurrency { .. } => 1,
                LimitKind::Quota { .. } | LimitKind::Rolling { .. } => MOST_AHEAD,
                LimitKind::Window { max, .. } => max / charge.cost.max(1) / WINDOW_PARTS,
            });
        most.min().unwrap_or(1).clamp(1, MOST_AHEAD)
    }

    /// Spreads bulk calls of this process over each window instead of spending it in one burst.
    async fn space(&self, charges: &[Charge]) {
        for charge in charges.iter().filter(|charge| charge.cost > 0) {
            let LimitKind::Window { length, max } = charge.limit.kind else {
                continue;
            };
            let Some(limiter) = self.limiter(&charge.limit.name, length, max, charge.cost) else {
                continue;
            };
            let cost = NonZeroU32::new(charge.cost).unwrap_or(NonZeroU32::MIN);
            while let Ok(Err(wait)) = limiter.check_n(cost) {
                if self.class == Class::Interactive {
                    break;
                }
                tokio::time::sleep(wait.wait_time_from(DefaultClock::default().now())).await;
            }
        }
    }

    fn limiter(&self, name: &str, length: Duration, max: u32, cost: u32) -> Option<Arc<DefaultDirectRateLimiter>> {
        let mut limiters = self.limiters.lock();
        if let Some(limiter) = limiters.get(name) {
            return Some(limiter.clone());
        }
        let period = length.checked_div(max.max(1)).filter(|period| !period.is_zero())?;
        let burst = NonZeroU32::new(cost.max(1))?;
        let limiter = Arc::new(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)));
        limiters.insert(name.to_owned(), limiter.clone());
        Some(limiter)
    }
}
