//! Asks CRMs for their webhooks: a timer looks at the subscriptions that are due. A first one is due when the first full pass
//! has ended, a known one once per reconcile and in time before it ends. What is done is decided by
//! [`contacts::subscription::plan`]; every worker process does this, and an account is one process's at a time.
//!
//! Settings change with a start only, so a process that starts goes once over all that is known and looks at once at what its settings
//! want otherwise: another `http.public_url`, `subscribe`, or other topics. It looks itself, as a process of the time before
//! would find everything in order. Once, so that two processes whose settings differ for good do not undo each other's work all day.
//!
//! A refusal is the subscription's own: refreshes go on, and so do polls, which find whatever no webhook told of.

use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::ports::DocKind;
use contacts::subscription::{self, Held, SUBSCRIBE, Step, Subscription, Wanted};
use contacts::{AccountId, ErrorKind, Shard, StoreError, work};
use crm::{Client, CrmError, Fate, Hook, Subscribed};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::deps::{Deps, jittered};
use crate::source::Subscribing;

/// Subscriptions looked at per shard and round; the rest comes with the next.
const PER_SHARD: usize = 50;
/// Subscriptions that a process that started compares with its settings per round.
const REVIEWED: usize = 50;

pub async fn run(deps: Deps, stop: CancellationToken) {
    let mut review = Review::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            looked = once(&deps) => {
                if let Err(error) = looked {
                    tracing::warn!(%error, "the subscriptions that are due could not be read");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            gone_on = review.go_on(&deps) => {
                if let Err(error) = gone_on {
                    tracing::warn!(%error, "the subscriptions of the time before could not be read");
                }
            }
        }
        let spread = rand::Rng::random_range(&mut rand::rng(), 0.8..1.2);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(deps.policy.sweep.mul_f64(spread)) => {}
        }
    }
}

/// Looks at all that are due, some at a time.
pub async fn once(deps: &Deps) -> Result<(), StoreError> {
    let due = deps.store.index_until(SUBSCRIBE, deps.clock.now(), PER_SHARD).await?;
    let mut looks = JoinSet::new();
    for (member, _) in due {
        let Ok(account) = member.parse::<AccountId>() else {
            continue;
        };
        if looks.len() >= deps.policy.slots {
            looks.join_next().await;
        }
        let deps = deps.clone();
        looks.spawn(async move {
            if let Err(error) = look(&deps, &account).await {
                // The claim runs out by itself, and the list comes first again.
                tracing::warn!(%account, %error, "the store failed while a webhook was asked for");
            }
        });
    }
    while looks.join_next().await.is_some() {}
    Ok(())
}

/// How far a process that started has compared what is known with its settings.
pub struct Review {
    shards: Vec<Shard>,
    after: Option<String>,
}

impl Default for Review {
    fn default() -> Review {
        Review {
            shards: Shard::all().collect(),
            after: None,
        }
    }
}

impl Review {
    /// Compares the next ones, and brings about what differs. Nothing is left to do once it has met all.
    pub async fn go_on(&mut self, deps: &Deps) -> Result<(), StoreError> {
        let mut left = REVIEWED;
        while left > 0 {
            let Some(shard) = self.shards.last().copied() else {
                return Ok(());
            };
            let page = deps
                .store
                .list(DocKind::Subscription, shard, self.after.as_deref(), left)
                .await?;
            for id in page.iter().filter_map(|id| id.parse().ok()) {
                compare(deps, &id).await?;
            }
            if page.len() < left {
                self.shards.pop();
                self.after = None;
            } else {
                self.after = page.last().cloned();
            }
            left -= page.len();
        }
        Ok(())
    }
}

async fn compare(deps: &Deps, id: &AccountId) -> Result<(), StoreError> {
    let Some(account) = accounts::get(&*deps.store, id).await? else {
        return Ok(());
    };
    let Some(Subscribing { wanted, by_hand, .. }) = deps.sources.subscribing(&account) else {
        return Ok(());
    };
    let now = deps.clock.now();
    let differs = subscription::update(&*deps.store, id, |known| {
        let differs = !known.fits(wanted.as_ref(), by_hand.as_deref());
        if differs {
            known.due = known.due.min(now);
        }
        differs
    })
    .await?;
    match differs {
        Some(true) => look(deps, id).await,
        _ => Ok(()),
    }
}

/// The account's first full pass has ended: from now on it has a subscription to look at, if it may have one.
pub async fn expect(deps: &Deps, account: &Account) {
    if deps.sources.subscribing(account).is_none() {
        return;
    }
    if let Err(error) = subscription::expect(&*deps.store, &account.id, deps.clock.now()).await {
        // The next full pass expects it again.
        tracing::warn!(account = %account.id, %error, "a subscription could not be noted");
    }
}

/// Ends what the CRM holds for an account that is about to be forgotten, and forgets that. Returns why the CRM still delivers,
/// if it does.
pub async fn end(deps: &Deps, account: &Account) -> Result<Option<String>, StoreError> {
    let now = deps.clock.now();
    let taken = subscription::update(&*deps.store, &account.id, |known| {
        known.claim = None;
        known.due = now;
        known.begin(&deps.owner, now, deps.policy.times.marker);
        known.held.clone()
    })
    .await?;
    let ended = match taken.unwrap_or_default().as_slice() {
        [] => Ok(()),
        held => end_all(deps, account, held).await,
    };
    subscription::forget(&*deps.store, &account.id).await?;
    match ended {
        Ok(()) => Ok(None),
        Err(Trouble::Store(error)) => Err(error),
        Err(Trouble::Lost) => Ok(Some("a worker is at its webhook".to_owned())),
        Err(Trouble::Crm(error)) => Ok(Some(crate::consume::chain(&error))),
    }
}

async fn end_all(deps: &Deps, account: &Account, held: &[Held]) -> Result<(), Trouble> {
    let (Some(Subscribing { mut hook, .. }), Some(first)) = (deps.sources.subscribing(account), held.first()) else {
        return Ok(());
    };
    hook.url.clone_from(&first.url);
    let source = deps.sources.source(account).await?;
    let Some(client) = source.subscriber() else {
        return Ok(());
    };
    let asking = Asking {
        deps,
        account,
        client,
        hook,
    };
    let asked = asking.all(None, held).await;
    client.rest().await;
    asked
}

/// What a look came to.
enum Looked {
    /// All is as it should be. `by_hand`: a person's business, and why.
    Well {
        by_hand: Option<String>,
        renew_before: Option<Duration>,
    },
    Failed(ErrorKind, String),
    /// Parked, paused, or nobody's account any more.
    NotNow,
    /// Another process has it by now.
    Lost,
}

/// Why a look ended early.
enum Trouble {
    Store(StoreError),
    Crm(CrmError),
    Lost,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl From<CrmError> for Trouble {
    fn from(error: CrmError) -> Trouble {
        Trouble::Crm(error)
    }
}

async fn look(deps: &Deps, id: &AccountId) -> Result<(), StoreError> {
    let (now, life) = (deps.clock.now(), deps.policy.times.marker);
    let begun = subscription::update(&*deps.store, id, |known| known.begin(&deps.owner, now, life)).await?;
    if begun != Some(true) {
        return Ok(());
    }
    let account = accounts::get(&*deps.store, id).await?;
    let looked = match &account {
        None => Looked::NotNow,
        Some(account) => match bring_about(deps, account).await {
            Ok(looked) => looked,
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::Lost) => Looked::Lost,
            Err(Trouble::Crm(error)) => failed(&error),
        },
    };
    let now = deps.clock.now();
    let pace = account.and_then(|account| deps.sources.pace(&account.integration));
    let every = pace.map_or(deps.policy.retry.max, |pace| jittered(pace.reconcile, pace.jitter, id));
    if let Looked::Failed(kind, message) = &looked {
        tracing::warn!(account = %id, error = kind.as_str(), %message, "the CRM's webhook could not be brought about");
    }
    subscription::update(&*deps.store, id, |known| {
        let due = match &looked {
            Looked::Lost => return,
            Looked::NotNow => now.plus(deps.policy.retry.max),
            Looked::Failed(kind, message) => known.failed(*kind, message.clone(), now, &deps.policy.retry),
            Looked::Well { by_hand, renew_before } => {
                known.succeeded(by_hand.clone());
                // Settings change with a restart; to look whether they did costs no call.
                let every = if by_hand.is_some() {
                    every.min(deps.policy.retry.max)
                } else {
                    every
                };
                known.next(*renew_before, every, now)
            }
        };
        known.rest(&deps.owner, due);
    })
    .await?;
    Ok(())
}

/// Who may not subscribe still has good credentials: their refusal is not the account's.
fn failed(error: &CrmError) -> Looked {
    let message = crate::consume::chain(error);
    match (error.kind, error.fate()) {
        (ErrorKind::Credentials, Fate::Refused) => {
            let message = message.replacen("refused the credentials", "does not let this user subscribe", 1);
            Looked::Failed(ErrorKind::Rejected, message)
        }
        (kind, _) => Looked::Failed(kind, message),
    }
}

async fn bring_about(deps: &Deps, account: &Account) -> Result<Looked, Trouble> {
    if work::load(&*deps.store, &account.id).await?.is_held() {
        return Ok(Looked::NotNow);
    }
    let Some(Subscribing {
        wanted,
        by_hand,
        mut hook,
    }) = deps.sources.subscribing(account)
    else {
        return Ok(Looked::NotNow);
    };
    let known = subscription::load(&*deps.store, &account.id).await?.unwrap_or_default();
    let renew_before = wanted.as_ref().and_then(|wanted| wanted.renew_before);
    let well = Looked::Well { by_hand, renew_before };
    if wanted.is_none() {
        let Some(held) = known.held.first() else {
            return Ok(well);
        };
        hook.url.clone_from(&held.url);
    }
    let source = deps.sources.source(account).await?;
    let Some(client) = source.subscriber() else {
        // Another connector than before, which cannot end what that one made.
        hold(deps, account, Vec::new()).await?;
        return Ok(well);
    };
    let asking = Asking {
        deps,
        account,
        client,
        hook,
    };
    let asked = asking.all(wanted.as_ref(), &known.held).await;
    client.rest().await;
    asked.map(|()| well)
}

async fn hold(deps: &Deps, account: &Account, held: Vec<Held>) -> Result<(), Trouble> {
    change(deps, account, |known| known.held.clone_from(&held)).await
}

/// Changes what is held, as long as the account is ours.
async fn change(deps: &Deps, account: &Account, mut change: impl FnMut(&mut Subscription)) -> Result<(), Trouble> {
    let (now, life) = (deps.clock.now(), deps.policy.times.marker);
    let changed = subscription::update(&*deps.store, &account.id, |known| {
        let ours = known.go_on(&deps.owner, now, life);
        if ours {
            change(known);
        }
        ours
    })
    .await?;
    if changed == Some(true) {
        Ok(())
    } else {
        Err(Trouble::Lost)
    }
}

/// The calls for one account.
struct Asking<'a> {
    deps: &'a Deps,
    account: &'a Account,
    client: &'a Client,
    hook: Hook,
}

impl Asking<'_> {
    async fn all(&self, wanted: Option<&Wanted>, known: &[Held]) -> Result<(), Trouble> {
        let listed = self.client.subscriptions(&self.hook).await?;
        let plan = subscription::plan(wanted, known, &listed, self.deps.clock.now());
        if plan.held != known {
            hold(self.deps, self.account, plan.held).await?;
        }
        for step in plan.steps {
            self.carry_out(&step).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, step: &Step) -> Result<(), Trouble> {
        // Before a call, so that nobody else takes the account while it is on its way.
        self.note(|_| {}).await?;
        match step {
            Step::Delete { id } => self.client.unsubscribe(&self.hook, id).await?,
            Step::Renew { id } => self.renew(id).await?,
            Step::Ask { id } => self.ask(id).await?,
            Step::Create { topic } => self.create(topic).await?,
        }
        tracing::info!(account = %self.account.id, integration = self.account.integration, ?step, "the CRM's webhook was seen to");
        Ok(())
    }

    async fn note(&self, note: impl FnMut(&mut Subscription)) -> Result<(), Trouble> {
        change(self.deps, self.account, note).await
    }

    async fn create(&self, topic: &str) -> Result<(), Trouble> {
        let made = self.client.subscribe(&self.hook, topic).await?;
        let held = Held {
            topic: topic.to_owned(),
            url: self.hook.url.clone(),
            secret: self.sealed(&made),
            created: self.deps.clock.now(),
            expires: made.expires,
            id: made.id,
        };
        let wants_secret = held.secret.is_none();
        let id = held.id.clone();
        self.note(|known| {
            known.held.retain(|other| other.id != held.id);
            known.held.push(held.clone());
        })
        .await?;
        if wants_secret && self.client.secret_is_asked_for() {
            self.ask(&id).await?;
        }
        Ok(())
    }

    async fn renew(&self, id: &str) -> Result<(), Trouble> {
        let known = subscription::load(&*self.deps.store, &self.account.id)
            .await?
            .unwrap_or_default();
        let topic = known
            .held
            .iter()
            .find(|held| held.id == id)
            .map(|held| held.topic.as_str());
        let made = self
            .client
            .renew_subscription(&self.hook, topic.unwrap_or_default(), id)
            .await?;
        let secret = self.sealed(&made);
        self.note(|known| {
            for held in known.held.iter_mut().filter(|held| held.id == id) {
                held.id.clone_from(&made.id);
                held.expires = made.expires;
                if secret.is_some() {
                    held.secret.clone_from(&secret);
                }
            }
        })
        .await
    }

    async fn ask(&self, id: &str) -> Result<(), Trouble> {
        let secret = self.client.subscription_secret(&self.hook, id).await?;
        let sealed = subscription::seal(&self.deps.keys, &self.account.id, id, &secret);
        self.note(|known| {
            for held in known.held.iter_mut().filter(|held| held.id == id) {
                held.secret = Some(sealed.clone());
            }
        })
        .await
    }

    fn sealed(&self, made: &Subscribed) -> Option<contacts::accounts::Sealed> {
        let secret = made.secret.as_ref()?;
        Some(subscription::seal(&self.deps.keys, &self.account.id, &made.id, secret))
    }
}
