//! Gauges that no index of the store answers: a walk over all accounts, a few in each step, told once it has been round.
//! Labels are bounded: integrations, states, connectors, limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::accounts::{self, Account};
use contacts::ports::DocKind;
use contacts::work::{self, Work};
use contacts::{AccountId, Clock, Micros, Shard, Store, StoreError, Stream};
use worker::Sources;

use crate::integrations::Integrations;
use crate::status::{self, State};

/// Accounts that one step looks at: three or four reads each.
const STEP: usize = 50;

pub struct Census {
    store: Arc<dyn Store>,
    integrations: Arc<Integrations>,
    clock: Arc<dyn Clock>,
    shards: Vec<Shard>,
    after: Option<String>,
    counted: Counted,
}

/// What the walk has met since it began.
#[derive(Default)]
struct Counted {
    states: BTreeMap<(String, State), u64>,
    /// Seconds, by integration.
    freshness: BTreeMap<String, f64>,
    /// Seconds, by integration.
    quota_wait: BTreeMap<String, f64>,
    /// Share that is left, by connector and limit.
    budget: BTreeMap<(String, String), f64>,
}

impl Census {
    pub fn new(store: Arc<dyn Store>, integrations: Arc<Integrations>, clock: Arc<dyn Clock>) -> Census {
        Census {
            store,
            integrations,
            clock,
            shards: Shard::all().collect(),
            after: None,
            counted: Counted::default(),
        }
    }

    /// Goes on, and sets the gauges when every account has been met. After an error the walk begins anew.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        let walked = self.walk().await;
        if !matches!(walked, Ok(false)) {
            self.shards = Shard::all().collect();
            self.after = None;
            let counted = std::mem::take(&mut self.counted);
            if walked.is_ok() {
                self.tell(&counted);
            }
        }
        walked.map(drop)
    }

    /// `true`: it has been round.
    async fn walk(&mut self) -> Result<bool, StoreError> {
        let mut left = STEP;
        while left > 0 {
            let Some(shard) = self.shards.last().copied() else {
                return Ok(true);
            };
            let page = self
                .store
                .list(DocKind::Account, shard, self.after.as_deref(), left)
                .await?;
            for id in page.iter().filter_map(|id| id.parse().ok()) {
                self.count(&id).await?;
            }
            if page.len() < left {
                self.shards.pop();
                self.after = None;
            } else {
                self.after = page.last().cloned();
            }
            left -= page.len();
        }
        Ok(self.shards.is_empty())
    }

    async fn count(&mut self, id: &AccountId) -> Result<(), StoreError> {
        let Some(account) = accounts::get(&*self.store, id).await? else {
            return Ok(());
        };
        if self.integrations.get(&account.integration).is_none()
            && self.integrations.linking(&account.integration).is_none()
        {
            return Ok(());
        }
        let work = work::load(&*self.store, id).await?;
        let head = self.store.head(id, Stream::Contacts).await?;
        let now = self.clock.now();
        let described = status::describe(&account, &work, head.as_ref(), now);
        self.counted
            .add(&account, described.state, described.fresh_seconds, wait(&work, now));
        for (connector, limits) in self.integrations.budgets_left(&account).await? {
            for left in limits {
                let share = left.left as f64 / (left.max as f64).max(1.0);
                let known = self
                    .counted
                    .budget
                    .entry((connector.clone(), left.limit))
                    .or_insert(share);
                *known = known.min(share);
            }
        }
        Ok(())
    }

    fn tell(&self, counted: &Counted) {
        let linking = self.integrations.all_linking().map(|linking| &linking.name);
        for name in self
            .integrations
            .iter()
            .map(|integration| &integration.name)
            .chain(linking)
        {
            for state in State::ALL {
                let count = counted.states.get(&(name.clone(), state)).copied().unwrap_or_default();
                metrics::gauge!("snapbridge_accounts", "integration" => name.clone(), "state" => state.as_str())
                    .set(count as f64);
            }
            let of = |seconds: &BTreeMap<String, f64>| seconds.get(name).copied().unwrap_or_default();
            metrics::gauge!("snapbridge_freshness_seconds", "integration" => name.clone()).set(of(&counted.freshness));
            metrics::gauge!("snapbridge_quota_wait_seconds", "integration" => name.clone())
                .set(of(&counted.quota_wait));
            if let Some(pace) = self.integrations.pace(name) {
                metrics::gauge!("snapbridge_poll_seconds", "integration" => name.clone()).set(pace.poll.as_secs_f64());
            }
        }
        for ((connector, limit), share) in &counted.budget {
            metrics::gauge!("snapbridge_budget_left", "connector" => connector.clone(), "limit" => limit.clone())
                .set(*share);
        }
    }
}

impl Counted {
    fn add(&mut self, account: &Account, state: State, fresh: Option<u64>, wait: f64) {
        let raise = |seconds: &mut BTreeMap<String, f64>, by: f64| {
            let known = seconds.entry(account.integration.clone()).or_default();
            *known = known.max(by);
        };
        *self.states.entry((account.integration.clone(), state)).or_default() += 1;
        raise(&mut self.quota_wait, wait);
        // Nothing refreshes an account that is held, which its state tells.
        if !matches!(state, State::Parked | State::Paused | State::Suspended) {
            raise(&mut self.freshness, fresh.unwrap_or_default() as f64);
        }
    }
}

/// Seconds until the CRM, or the account's own budget, lets its work go on; 0: it does.
fn wait(work: &Work, now: Micros) -> f64 {
    let failures = work.tasks.values().filter_map(|task| task.last_error.as_ref());
    let until = failures
        .filter(|failure| status::is_wait(failure))
        .filter_map(|failure| failure.again)
        .max();
    match until {
        Some(until) if !work.is_held() => until.since(now).as_secs_f64(),
        _ => 0.0,
    }
}
