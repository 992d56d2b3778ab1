//! Whose snapshot a request may see: from `auth` to an account.
//!
//! Known credentials are served without a CRM call for as long as the CRM's last acceptance is young. Unknown, aged-out
//! and rejected ones are validated live: one call for any number of parallel requests, budgeted per locator, failures
//! remembered, so that the bridge is no tool for guessing passwords.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contacts::accounts::{self, Account, Refusal, Sealed};
use contacts::keys::{Fingerprint, Identity};
use contacts::ledger::Class;
use contacts::{AccountId, ErrorKind, Kind, Lane};
use parking_lot::Mutex;

use super::Front;
use super::error::{ApiError, ApiResult};
use crate::integrations::{CheckError, Integration};
use worker::Sources as _;

/// How a request's credentials must have been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A young acceptance by the CRM will do.
    Young,
    /// By a call now: the user has just entered them.
    Live,
}

/// What a live check came to; shared by all who waited for it.
#[derive(Clone, Debug)]
pub enum Checked {
    Good(Box<Account>),
    /// Kind and what to tell.
    Bad(ErrorKind, String),
    Store(String),
    /// The locator's checks of this minute are used up.
    TooMany,
}

/// How often notes about an account are renewed.
const NOTES_EVERY: Duration = Duration::from_secs(60);

impl Front {
    /// The account behind `auth`, entitled now.
    pub async fn identify(
        &self,
        integration: &Arc<Integration>,
        auth: &BTreeMap<String, String>,
        proof: Proof,
    ) -> ApiResult<Account> {
        let nothing_beside = std::future::ready::<AccountId>;
        let (account, _) = self.identify_beside(integration, auth, proof, nothing_beside).await?;
        Ok(account)
    }

    /// The account behind `auth`, entitled now. `beside` runs while a known account is looked up; what it finds must not
    /// be shown before this says yes. `None`: it did not run, or the CRM was asked since.
    pub async fn identify_beside<T, B: Future<Output = T>>(
        &self,
        integration: &Arc<Integration>,
        auth: &BTreeMap<String, String>,
        proof: Proof,
        beside: impl FnOnce(AccountId) -> B,
    ) -> ApiResult<(Account, Option<T>)> {
        let now = self.clock.now();
        if let Some(field) = integration.missing_field(auth) {
            let title = integration
                .connector
                .fields()
                .get(field)
                .and_then(|field| field.title.as_deref());
            let title = title.map(|title| format!(" ({title})")).unwrap_or_default();
            return Err(ApiError::credentials(format!(
                "The field {field}{title} is missing or empty"
            )));
        }
        let canonical = integration.connector.canonical(auth);
        let fingerprint = self.keys.fingerprint(&integration.name, &canonical.fingerprint_input);

        let known = accounts::by_fingerprint(&*self.store, &fingerprint, now).await?;
        let mut stale = None;
        if let Some(known) = known {
            let age = now.since(known.verified);
            let young = age <= self.policy.credentials.revocation_window;
            let account = accounts::get(&*self.store, &known.account);
            let (account, found) = if proof == Proof::Young && young {
                let (account, found) = tokio::join!(account, beside(known.account.clone()));
                (account?, Some(found))
            } else {
                (account.await?, None)
            };
            // Missing although its fingerprint is known: the store lost it, so it must be registered anew.
            if let Some(account) = account {
                if let Some(found) = found
                    && !self.must_prove(&account, &fingerprint).await?
                {
                    accounts::touch(&*self.store, &account, Some(now), None, NOTES_EVERY).await?;
                    return Ok((account, Some(found)));
                }
                stale = Some((account, age));
            }
        }

        let refusal = accounts::refusal(&*self.store, &fingerprint, now).await?;
        if let Some(refusal) = &refusal
            && !self.may_recheck(refusal).await?
        {
            return Err(refused(integration));
        }
        let owner = stale.as_ref().map(|(account, _)| account.id.clone());
        let owner = owner.or(refusal.and_then(|refusal| refusal.account));
        let checking = || self.check(integration, auth, &fingerprint, &canonical.locator, owner.as_ref());
        let checked = self.checks.join(&fingerprint, checking).await;
        match checked {
            Checked::Good(account) => Ok((*account, None)),
            Checked::TooMany => Err(ApiError::new(
                axum::http::StatusCode::TOO_MANY_REQUESTS,
                "too_many_checks",
                "Too many credential checks for this CRM account; try again in a minute",
            )
            .retry_after(Duration::from_secs(60))),
            Checked::Store(cause) => Err(ApiError::crm(ErrorKind::StoreDown, &integration.title, now).cause(cause)),
            Checked::Bad(kind, cause) => match (kind, stale) {
                (ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::BadReply, Some((account, age)))
                    if proof == Proof::Young && age <= self.policy.credentials.unreachable_window =>
                {
                    tracing::warn!(account = %account.id, %cause, "the CRM cannot be asked; known credentials are served");
                    Ok((account, None))
                }
                _ => Err(ApiError::crm(kind, &integration.title, now).cause(cause)),
            },
        }
    }

    /// Whether credentials of young acceptance must be proven nonetheless: the account is parked, so they may be the ones
    /// that resume it. The stored credentials were rejected when it was parked, so for them it is enough to look now and
    /// then, in case that went wrong half-way.
    async fn must_prove(&self, account: &Account, fingerprint: &Fingerprint) -> ApiResult<bool> {
        if account.fingerprint == *fingerprint && self.clock.now().since(account.called) < NOTES_EVERY {
            return Ok(false);
        }
        let work = contacts::work::load(&*self.store, &account.id).await?;
        Ok(work.park.is_some() || work.suspended.is_some())
    }

    /// Whether credentials that the CRM has refused may be put to it again. Those that an account had are, once in a
    /// while, as the refusal may have been a mistake; those that never opened one wait until the refusal is forgotten.
    async fn may_recheck(&self, refusal: &Refusal) -> ApiResult<bool> {
        let Some(account) = &refusal.account else {
            return Ok(false);
        };
        let after = self.policy.credentials.recheck_after;
        let young = self.clock.now().since(refusal.at) < after;
        // Asked even then: it notes that Talkdesk was told.
        let after = if young { Duration::MAX } else { after };
        Ok(self.requests.recheck(account, after).await? && !young)
    }

    /// Asks the CRM, registers the account if it says yes, and starts its build.
    async fn check(
        &self,
        integration: &Arc<Integration>,
        auth: &BTreeMap<String, String>,
        fingerprint: &Fingerprint,
        locator: &str,
        owner: Option<&AccountId>,
    ) -> Checked {
        let per_minute = match locator {
            "" => self.policy.credentials.token_checks_per_minute,
            _ => self.policy.credentials.checks_per_minute,
        };
        if !self
            .guesses
            .allow(&format!("{}|{locator}", integration.name), per_minute)
        {
            return Checked::TooMany;
        }
        let began = Instant::now();
        let deadline = self.policy.credentials.check_timeout;
        let checking = integration.check(auth, Class::Interactive);
        let result = match tokio::time::timeout(deadline, checking).await {
            Ok(result) => result,
            Err(_) => Err(CheckError {
                kind: ErrorKind::Timeout,
                message: "the live check timed out".into(),
            }),
        };
        let label = result.as_ref().map_or_else(|error| error.kind.as_str(), |_| "good");
        metrics::counter!("snapbridge_live_checks_total", "result" => label).increment(1);
        metrics::histogram!("snapbridge_live_check_seconds").record(began.elapsed().as_secs_f64());
        match result {
            Ok(learned) => match self.register(integration, auth, fingerprint, learned).await {
                Ok(account) => Checked::Good(Box::new(account)),
                Err(error) => Checked::Store(error.cause.unwrap_or(error.message)),
            },
            Err(error) => {
                if error.kind == ErrorKind::Credentials
                    && let Err(error) = self.remember_refusal(fingerprint, owner, &error.message).await
                {
                    return Checked::Store(error.cause.unwrap_or(error.message));
                }
                Checked::Bad(error.kind, error.message)
            }
        }
    }

    /// Remembers a refusal. If the refused credentials are the ones that the account's workers use, they stop at once.
    async fn remember_refusal(
        &self,
        fingerprint: &Fingerprint,
        owner: Option<&AccountId>,
        message: &str,
    ) -> ApiResult<()> {
        let now = self.clock.now();
        let Some(owner) = owner else {
            let memory = self.policy.credentials.failure_memory;
            return Ok(accounts::refuse(&*self.store, fingerprint, None, memory, now).await?);
        };
        accounts::refuse(&*self.store, fingerprint, Some(owner), accounts::REFUSAL_LIFE, now).await?;
        let account = accounts::get(&*self.store, owner).await?;
        if account.is_some_and(|account| account.fingerprint == *fingerprint) {
            self.asked(self.requests.park(owner, message).await)?;
            self.requests.recheck(owner, Duration::MAX).await?;
        }
        Ok(())
    }

    async fn register(
        &self,
        integration: &Arc<Integration>,
        auth: &BTreeMap<String, String>,
        fingerprint: &Fingerprint,
        learned: crate::integrations::Learned,
    ) -> ApiResult<Account> {
        let now = self.clock.now();
        let id = self.keys.account_id(&Identity {
            integration: &integration.name,
            site: &learned.site,
            org: &learned.org,
            principal: &learned.principal,
        });
        let account = Account {
            credentials: Sealed::seal(&self.keys, &id, &integration.kept(auth)),
            id: id.clone(),
            integration: integration.name.clone(),
            connector: integration.connector.id().to_owned(),
            // A check that names no account of the CRM has none but the integration's.
            budget: learned.budgets.account.or(learned.budgets.app).unwrap_or_default(),
            user_budget: learned.budgets.user,
            dealer: None,
            created: now,
            fingerprint: fingerprint.clone(),
            learned: learned.values,
            route: learned.route,
            called: now,
            verified: now,
            tokens: Default::default(),
        };
        let registered = accounts::register(&*self.store, &account).await?;
        accounts::accept(&*self.store, fingerprint, &id, now).await?;
        if registered.new {
            tracing::info!(account = %id, integration = %integration.name, "account registered");
        }
        let work = contacts::work::load(&*self.store, &id).await?;
        if work.suspended.is_some() {
            tracing::info!(account = %id, "Talkdesk calls for a suspended account again, its work goes on");
            self.asked(self.requests.unsuspend(&id).await.map(drop))?;
            if self.integrations.subscribing(&account).is_some() {
                contacts::subscription::expect(&*self.store, &id, now).await?;
            }
            self.poll_behind(&id).await?;
        }
        if work.park.is_some() {
            tracing::info!(account = %id, "the credentials are good again, the account's work goes on");
            self.asked(self.requests.unpark(&id).await)?;
            // What this call serves is the snapshot as it is; the poll runs right behind it.
            self.poll_behind(&id).await?;
        }
        self.ensure_building(&account).await?;
        if integration.connector.has_agents() {
            self.ensure_read(&account, Kind::Agents).await?;
        }
        Ok(account)
    }

    /// Polls the account now instead of at its time.
    pub async fn poll_behind(&self, account: &AccountId) -> ApiResult<()> {
        let rung = self.requests.ring(account, Kind::Changes, Lane::Refresh, None).await;
        self.asked(rung.map(drop))
    }

    /// Sees to it that an account without a complete snapshot is being built.
    pub async fn ensure_building(&self, account: &Account) -> ApiResult<()> {
        self.ensure_read(account, Kind::Full).await
    }

    /// Sees to it that a snapshot that was never complete is being read by this kind of work.
    pub(super) async fn ensure_read(&self, account: &Account, kind: Kind) -> ApiResult<()> {
        let ready = self
            .store
            .head(&account.id, kind.stream())
            .await?
            .is_some_and(|head| head.ready);
        if !ready {
            let work = contacts::work::load(&*self.store, &account.id).await?;
            let started = work.tasks.get(&kind).is_some_and(|task| task.due.is_some());
            if !started
                || work
                    .look_at(kind, &self.requests.times())
                    .is_some_and(|at| at <= self.clock.now())
            {
                self.asked(self.requests.ring(&account.id, kind, Lane::Build, None).await.map(drop))?;
            }
        }
        Ok(())
    }

    /// A queue that does not answer does not fail a read: the store has the work, and the sweep rings.
    pub(super) fn asked(&self, result: Result<(), worker::requests::RequestError>) -> ApiResult<()> {
        match result {
            Ok(()) => Ok(()),
            Err(worker::requests::RequestError::Queue(error)) => {
                tracing::warn!(
                    error = process::chain(&error),
                    "the queue did not take a job; the sweep will ring"
                );
                Ok(())
            }
            Err(worker::requests::RequestError::Store(error)) => Err(error.into()),
        }
    }
}

fn refused(integration: &Integration) -> ApiError {
    ApiError::rejected(&integration.title)
}

/// Live checks per minute and locator.
#[derive(Default)]
pub struct Guesses {
    windows: Mutex<HashMap<String, (Instant, u32)>>,
}

impl Guesses {
    fn allow(&self, locator: &str, per_minute: u32) -> bool {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut windows = self.windows.lock();
        if windows.len() > 10_000 {
            windows.retain(|_, (since, _)| now.duration_since(*since) < minute);
        }
        let (since, count) = windows.entry(locator.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= minute {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= per_minute
    }
}
