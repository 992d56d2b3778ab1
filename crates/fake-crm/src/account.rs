//! One account of the CRM: everything it holds, behind one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::AccountOptions;
use crate::api::Op;
use crate::clock;
use crate::data::{self, User, UserFields};
use crate::history::NEVER;
use crate::knobs::Knobs;
use crate::limits::{Arrival, AtAddress, Charge, Limiter};
use crate::oauth::OauthServer;
use crate::profile::Profile;
use crate::rng::Rng;
use crate::state::{Contacts, Moment};
use crate::stats::{Meter, Stats};
use crate::vendors::salesforce::Locator;
use crate::webhooks::{self, News, Outbox, Subscription};
use crate::writes::Made;

pub(crate) struct Account {
    pub name: String,
    pub profile: Profile,
    started: Instant,
    state: Mutex<State>,
    /// Follows the knob, for the answers that wait for it.
    frozen: watch::Sender<bool>,
    /// There may be something to send.
    pub wake: Arc<Notify>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct State {
    pub contacts: Contacts,
    pub users: Vec<UserRecord>,
    pub tokens: Vec<String>,
    pub issuer: Option<OauthServer>,
    /// The user whose call is being answered, if its token tells.
    pub viewer: Option<usize>,
    pub knobs: Knobs,
    pub meter: Meter,
    pub limiter: Limiter,
    /// Shared by all accounts of the profile.
    pub at_address: Arc<Mutex<AtAddress>>,
    pub outbox: Outbox,
    pub made: Made,
    /// Makes the tokens of an endless list differ.
    pub lap: u64,
    pub account: String,
    pub profile: Profile,
    /// Access tokens that the account's own token endpoint has made, with the real time of their end.
    pub sessions: BTreeMap<String, i64>,
    /// Queries whose later pages can be asked for (Salesforce).
    pub locators: VecDeque<Locator>,
    /// Notes and tasks that no contact has yet (Twenty), by id.
    pub drafts: BTreeMap<String, serde_json::Value>,
    /// How many subscriptions there were, the operator's included.
    hooks_made: u64,
    wake: Arc<Notify>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserRecord {
    pub revision: u32,
    pub active: bool,
    pub deleted: bool,
    pub fields: UserFields,
}

impl UserRecord {
    pub(crate) fn new() -> UserRecord {
        UserRecord {
            revision: 0,
            active: true,
            deleted: false,
            fields: UserFields::default(),
        }
    }
}

/// Stamps and visibility of the rows of one control call.
pub(crate) struct Transaction {
    stamp: Option<i64>,
    lag: Lag,
    knobs: Knobs,
}

enum Lag {
    Held,
    /// All rows at this real time.
    Until(i64),
    Each,
}

impl Account {
    pub(crate) fn new(seed: u64, options: AccountOptions, at_address: Arc<Mutex<AtAddress>>) -> Arc<Account> {
        let seed = Rng::account_seed(seed, options.like.as_deref().unwrap_or(&options.name));
        let vendor = options.profile.vendor();
        let mut knobs = Knobs {
            // The limits of the other profiles are their vendors'.
            limit: options.limit.filter(|_| options.profile == Profile::House),
            concurrency: options.concurrency,
            ..Knobs::default()
        };
        vendor.knobs(&mut knobs);
        let wake = Arc::<Notify>::default();
        let state = State {
            contacts: Contacts::new(seed, options.contacts as u64, vendor.whole_seconds()),
            users: vec![UserRecord::new(); options.users],
            tokens: vec![options.token],
            issuer: None,
            viewer: None,
            knobs,
            meter: Meter::default(),
            limiter: Limiter::default(),
            at_address,
            outbox: Outbox::default(),
            made: Made::default(),
            lap: 0,
            account: options.name.clone(),
            profile: options.profile,
            sessions: BTreeMap::new(),
            locators: VecDeque::new(),
            drafts: BTreeMap::new(),
            hooks_made: 1,
            wake: wake.clone(),
        };
        Arc::new(Account {
            name: options.name,
            profile: options.profile,
            started: Instant::now(),
            state: Mutex::new(state),
            frozen: watch::Sender::new(false),
            wake,
            dispatcher: Mutex::default(),
        })
    }

    /// The state as it is now: what has become visible by now is visible.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let news = state.contacts.settle(clock::now_ms());
        state.publish(news);
        state
    }

    /// After anything that may have changed knobs or made events.
    pub(crate) fn changed(self: &Arc<Account>) {
        let (frozen, sends) = {
            let state = self.state.lock();
            (state.knobs.frozen, state.outbox.has_subscribers())
        };
        self.frozen.send_replace(frozen);
        if sends {
            self.ensure_dispatcher();
        }
        self.wake.notify_one();
    }

    /// Returns once the account is not frozen.
    pub(crate) async fn thawed(&self) {
        // Err would mean that the sender is gone, and it lives in `self`.
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// For calls that come while nobody runs the dispatcher any more: the runtime it ran on may be gone.
    pub(crate) fn ensure_dispatcher_if_needed(self: &Arc<Account>) {
        if self.state.lock().outbox.has_subscribers() {
            self.ensure_dispatcher();
        }
    }

    /// Tasks need a runtime, and tests bring and drop theirs: the task is started by the first call inside of one, and
    /// again when the runtime it ran on is gone.
    pub(crate) fn ensure_dispatcher(self: &Arc<Account>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut dispatcher = self.dispatcher.lock();
        if dispatcher.as_ref().is_none_or(JoinHandle::is_finished) {
            *dispatcher = Some(runtime.spawn(webhooks::dispatch(Arc::downgrade(self))));
        }
    }

    pub(crate) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl State {
    pub(crate) fn crm_now(&self) -> i64 {
        clock::now_ms() + self.knobs.clock_skew_ms
    }

    pub(crate) fn publish(&mut self, news: Vec<News>) {
        if !news.is_empty() {
            let vendor = self.profile.vendor();
            let news = news.into_iter().filter(|news| vendor.tells(news.kind)).collect();
            self.outbox.add(&self.account, news, &mut self.contacts.rng);
            self.wake.notify_one();
        }
    }

    /// Counts a call that was let in, under the house's limit and those of the vendor.
    pub(crate) fn count_call(&mut self, op: Option<Op>, since_start: Duration) -> Vec<Charge> {
        let now_ms = clock::now_ms();
        let charge = self.meter.count(self.knobs.limit, since_start, now_ms);
        let at = Arrival {
            since_start,
            now_ms,
            zone: self.knobs.zone(),
        };
        let mut charges: Vec<Charge> = charge.into_iter().collect();
        if let Some(op) = op {
            let (vendor, changed) = (self.profile.vendor(), &self.knobs.limits);
            charges.extend(self.limiter.charge(vendor.limits(), changed, op, &at));
            let mut shared = self.at_address.lock();
            let at = Arrival {
                since_start: shared.started.elapsed(),
                ..at
            };
            charges.extend(shared.limiter.charge(vendor.limits_per_address(), changed, op, &at));
        }
        self.meter.stats.over_limit += u64::from(charges.iter().any(|charge| charge.over));
        charges
    }

    /// Adds a subscription under an id of the vendor's making.
    pub(crate) fn add_hook(&mut self, id: impl FnOnce(u64) -> String, subscription: Subscription) -> String {
        self.hooks_made += 1;
        let id = id(self.hooks_made);
        self.outbox.subscriptions.insert(id.clone(), subscription);
        self.wake.notify_one();
        id
    }

    /// An access token of the account's own token endpoint, and how many seconds it lives.
    pub(crate) fn mint(&mut self) -> (String, u64) {
        let life_ms = self.knobs.access_life_ms;
        let token = format!("access-{}-{:016x}", self.account, self.contacts.rng.next());
        let until = clock::now_ms().saturating_add(i64::try_from(life_ms).unwrap_or(i64::MAX));
        self.sessions.insert(token.clone(), until);
        (token, life_ms / 1000)
    }

    /// Whether somebody may call with this token. Notes whose call it is.
    pub(crate) fn accepts(&mut self, token: Option<&str>) -> bool {
        let issued = token.and_then(|token| self.issuer.as_ref()?.accepts(token));
        self.viewer = issued
            .filter(|viewer| viewer.account == self.account)
            .map(|viewer| viewer.user);
        let Some(token) = token else { return false };
        let now = clock::now_ms().saturating_add_unsigned(self.knobs.access_age_ms);
        self.viewer.is_some()
            || self.tokens.iter().any(|valid| valid == token)
            || self.sessions.get(token).is_some_and(|&until| now < until)
    }

    pub(crate) fn stats(&self) -> Stats {
        let (vendor, changed) = (self.profile.vendor(), &self.knobs.limits);
        let mut limits = self.limiter.read(vendor.limits(), changed);
        limits.extend(
            self.at_address
                .lock()
                .limiter
                .read(vendor.limits_per_address(), changed),
        );
        Stats {
            contacts: self.contacts.live(),
            webhooks: self.outbox.stats.clone(),
            made: self.made.counts(),
            limits,
            ..self.meter.read(self.knobs.limit)
        }
    }

    /// `None` where there is none (any more).
    pub(crate) fn user(&self, ordinal: usize) -> Option<User> {
        let record = self.users.get(ordinal.checked_sub(1)?)?;
        let seed = self.contacts.seed;
        let user = data::user(seed, ordinal as u64, record.revision, record.active, &record.fields);
        Some(user).filter(|_| !record.deleted)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = User> {
        (1..=self.users.len()).filter_map(|ordinal| self.user(ordinal))
    }

    /// `stamp_ms` replaces the CRM's clock; `one_stamp` gives all rows the same stamp whatever the knobs say.
    pub(crate) fn begin(&mut self, hold: bool, stamp_ms: Option<i64>, one_stamp: bool) -> Transaction {
        let knobs = self.knobs.clone();
        let one = one_stamp || knobs.equal_stamps;
        let start = clock::now_ms();
        let lag = match (hold, one) {
            (true, _) => Lag::Held,
            (_, true) => Lag::Until(start + draw_lag(&knobs, &mut self.contacts.rng)),
            _ => Lag::Each,
        };
        Transaction {
            stamp: stamp_ms.or_else(|| one.then_some(start + knobs.clock_skew_ms)),
            lag,
            knobs,
        }
    }

    /// Edits by others while somebody pages (knob `edits_per_page`).
    pub(crate) fn move_rows(&mut self) {
        let wanted = self.knobs.edits_per_page;
        if wanted == Default::default() {
            return;
        }
        let transaction = self.begin(false, None, false);
        let mut news = Vec::new();
        for id in self.contacts.pick(wanted.edits as usize, false) {
            let at = self.moment(&transaction);
            self.contacts
                .update(id, at, webhooks::EventKind::Updated, &mut news, |record| {
                    record.revision += 1
                });
        }
        for id in self.contacts.pick(wanted.deletes as usize, false) {
            let at = self.moment(&transaction);
            self.contacts.delete(id, at, None, &mut news);
        }
        for _ in 0..wanted.adds {
            let at = self.moment(&transaction);
            self.contacts.create(None, at, &mut news);
        }
        self.publish(news);
    }

    pub(crate) fn moment(&mut self, transaction: &Transaction) -> Moment {
        let early = self.outbox.is_early() || self.profile.vendor().tells_at_once();
        Moment {
            news_at_once: early,
            ..transaction.moment(&mut self.contacts.rng)
        }
    }
}

impl Transaction {
    fn moment(&self, rng: &mut Rng) -> Moment {
        let now = clock::now_ms();
        let skew = self.knobs.clock_skew_ms;
        let exact = self.stamp.unwrap_or(now + skew);
        let modified = if self.knobs.whole_second_columns {
            exact.div_euclid(1000) * 1000
        } else {
            exact
        };
        let due = match self.lag {
            Lag::Held => {
                return Moment {
                    modified,
                    visible: NEVER,
                    due: NEVER,
                    now,
                    skew,
                    news_at_once: false,
                    by_api: false,
                };
            }
            Lag::Until(due) => due,
            Lag::Each => now + draw_lag(&self.knobs, rng),
        };
        Moment {
            modified,
            visible: due + skew,
            due,
            now,
            skew,
            news_at_once: false,
            by_api: false,
        }
    }
}

fn draw_lag(knobs: &Knobs, rng: &mut Rng) -> i64 {
    let most = knobs.visibility_lag_ms;
    let lag = if knobs.visibility_lag_random {
        rng.below(most.saturating_add(1))
    } else {
        most
    };
    i64::try_from(lag).unwrap_or(i64::MAX / 4)
}
