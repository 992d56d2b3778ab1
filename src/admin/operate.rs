//! What operators do: each deed checked against the grant, carried out, and noted in the audit. The page and the API share it.

pub mod doctor;
pub mod explain;
pub mod keys;
pub mod life;
pub mod links;
pub mod token;
pub mod webhook;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use contacts::accounts::Account;
use contacts::dead::DeadLetter;
use contacts::holds::{self, Scope};
use contacts::inbox;
use contacts::work;
use contacts::{AccountId, Clock, JobId, Kind, Lane, Store, StoreError, accounts, audit, dead};
use serde::{Deserialize, Serialize};
use worker::Requests;
use worker::requests::RequestError;

use super::access::{Grant, Operator};
use crate::front::Front;
use crate::integrations::Integrations;

/// What can be done to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pause,
    Resume,
    /// A poll now.
    Refresh,
    /// A full pass now, which deletes what the CRM no longer has.
    Full,
    /// A full pass when nothing more urgent waits.
    Reconcile,
    /// The list of the CRM's users now.
    Agents,
    Forget,
}

impl Action {
    pub const ALL: [Action; 7] = [
        Action::Refresh,
        Action::Full,
        Action::Reconcile,
        Action::Agents,
        Action::Pause,
        Action::Resume,
        Action::Forget,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Refresh => "refresh",
            Action::Full => "full",
            Action::Reconcile => "reconcile",
            Action::Agents => "agents",
            Action::Forget => "forget",
        }
    }

    pub fn needs(self) -> Grant {
        match self {
            Action::Forget => Grant::Admin,
            _ => Grant::Operate,
        }
    }
}

impl FromStr for Action {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Action, Refusal> {
        let known = Action::ALL.into_iter().find(|action| action.as_str() == text);
        known.ok_or_else(|| {
            let all: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
            Refusal::BadRequest(format!("`{text}` is no action; there are: {}", all.join(", ")))
        })
    }
}

/// Why nothing was done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this needs a token for `{}`, and yours is for `{}`", .needs.as_str(), .has.as_str())]
    NotGranted { needs: Grant, has: Grant },
    #[error(
        "no token may open the operators' API; set ops.read, ops.operate or ops.admin (`snapbridge keys hash --new`)"
    )]
    Closed,
    #[error("{0}")]
    NotProven(&'static str),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Which dead letters are meant; all that are given must hold, and at least one must be given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    pub ids: Vec<String>,
    pub account: Option<String>,
    pub kind: Option<String>,
    /// Part of the reason or the detail, in whatever case.
    pub text: Option<String>,
    pub all: bool,
}

impl Which {
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty() && self.account.is_none() && self.kind.is_none() && self.text.is_none()
    }

    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let text = |part: &String| {
            let part = part.to_lowercase();
            letter.reason.to_lowercase().contains(&part) || letter.detail.to_lowercase().contains(&part)
        };
        (self.ids.is_empty() || self.ids.contains(&letter.id.0))
            && self
                .account
                .as_ref()
                .is_none_or(|id| letter.account.as_ref().is_some_and(|of| of.as_str() == id))
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| letter.kind.is_some_and(|of| of.as_str() == kind))
            && self.text.as_ref().is_none_or(text)
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.ids.is_empty() {
            words.push(self.ids.join(" "));
        }
        words.extend(self.account.as_ref().map(|id| format!("account {id}")));
        words.extend(self.kind.as_ref().map(|kind| format!("kind {kind}")));
        words.extend(self.text.as_ref().map(|text| format!("text {text:?}")));
        if words.is_empty() {
            "all".to_owned()
        } else {
            words.join(", ")
        }
    }
}

/// Dead letters that one deed looks at; the rest needs another.
pub const LETTERS: usize = 5_000;

/// What came of the dead letters that were meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settled {
    pub done: usize,
    /// Why the others stay, one line each.
    pub stay: Vec<String>,
}

pub struct Operate {
    pub store: Arc<dyn Store>,
    pub requests: Arc<Requests>,
    pub clock: Arc<dyn Clock>,
    /// What a worker of this process has; for the CRM calls that end an account's webhook.
    pub worker: worker::Deps,
    pub integrations: Arc<Integrations>,
    /// What a front of this process has; for accounts that are added by hand.
    pub front: Arc<Front>,
    pub key_file: std::path::PathBuf,
    /// Time since the last token of a key was met before it may go.
    pub token_grace: Duration,
    /// Audit entries kept.
    pub audit: usize,
    pub forget_wait: Duration,
    /// How long a webhook that is tried is followed.
    pub try_wait: Duration,
    /// Accounts whose credentials are put to their CRM by one look of `doctor`.
    pub doctor_accounts: usize,
}

impl Operate {
    /// Returns what was done, in a sentence.
    pub async fn account(&self, who: &Operator, id: &str, action: Action) -> Result<String, Refusal> {
        allow(who, action.needs())?;
        let no_account = || Refusal::NotFound(format!("there is no account `{id}`"));
        let id: AccountId = id.parse().map_err(|_| no_account())?;
        let account = accounts::get(&*self.store, &id).await?.ok_or_else(no_account)?;
        let said = match action {
            Action::Pause => match self.requests.pause(&id, &who.name).await? {
                true => "Paused: no CRM call is made until it is resumed; its snapshot goes on being served",
                false => "It was paused already",
            },
            Action::Resume => match self.requests.resume(&id).await? {
                true => "Resumed: what was due meanwhile is run now",
                false => "It was not paused",
            },
            Action::Refresh => self.ring(&id, Kind::Changes, Lane::Refresh).await?,
            Action::Full => self.ring(&id, Kind::Full, Lane::Refresh).await?,
            Action::Reconcile => self.ring(&id, Kind::Full, Lane::Reconcile).await?,
            Action::Agents => self.ring(&id, Kind::Agents, Lane::Refresh).await?,
            Action::Forget => {
                let said = self.forget(who, &account).await?;
                self.note(who, action.as_str(), id.as_str(), &said).await?;
                return Ok(said);
            }
        };
        self.note(who, action.as_str(), id.as_str(), said).await?;
        Ok(said.to_owned())
    }

    async fn ring(&self, id: &AccountId, kind: Kind, lane: Lane) -> Result<&'static str, Refusal> {
        use worker::requests::Rung;
        Ok(match self.requests.ring(id, kind, lane, None).await? {
            Rung::Published => "Asked for: a worker takes it next",
            Rung::Waiting => "It waits for a worker already",
            Rung::Held => "Noted: the account stands still, and it is run when that ends",
        })
    }

    /// Everything that is kept of an account. Talkdesk's next call makes a new one.
    async fn forget(&self, who: &Operator, account: &Account) -> Result<String, Refusal> {
        let id = &account.id;
        // A slice that is running writes until its next page.
        self.requests.pause(id, &who.name).await?;
        let began = self.clock.now();
        loop {
            let work = work::load(&*self.store, id).await?;
            let now = self.clock.now();
            let leases = [&work.lease, &work.agents_lease].into_iter().flatten();
            if leases.into_iter().all(|lease| lease.until <= now) {
                break;
            }
            if now.since(began) >= self.forget_wait {
                return Err(Refusal::Conflict(
                    "a worker still runs a slice of it and stops at its next page. The account is paused; try again in a minute"
                        .into(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let still = worker::life::forget(&self.worker, account).await?;
        let mut said =
            "Forgotten: credentials, snapshots, work and history are gone. Talkdesk's next call would register it anew"
                .to_owned();
        if let Some(why) = still {
            said = format!("{said}. The CRM still delivers webhooks, to be removed there by hand: {why}");
        }
        Ok(said)
    }

    /// Pauses (`on`) or resumes a connector or a lane.
    pub async fn hold(&self, who: &Operator, scope: &Scope, on: bool) -> Result<String, Refusal> {
        allow(who, Grant::Operate)?;
        let now = self.clock.now();
        let changed = holds::update(&*self.store, |holds| match on {
            true => holds.pause(scope, who.name.clone(), now),
            false => holds.resume(scope),
        })
        .await?;
        let said = match (on, changed) {
            (true, true) => "Paused: running slices end at their next page",
            (true, false) => "It was paused already",
            (false, true) => "Resumed: what is due goes on within refresh.held_look",
            (false, false) => "It was not paused",
        };
        let action = if on { "pause" } else { "resume" };
        self.note(who, action, &scope.to_string(), said).await?;
        Ok(said.to_owned())
    }

    /// Dead letters that are meant, oldest first.
    pub async fn letters(&self, which: &Which) -> Result<Vec<DeadLetter>, Refusal> {
        let kinds = Kind::ALL.map(Kind::as_str);
        if let Some(kind) = which.kind.as_deref().filter(|kind| !kinds.contains(kind)) {
            let kinds = kinds.join(", ");
            return Err(Refusal::BadRequest(format!(
                "no work is of the kind {kind:?}; there are {kinds}"
            )));
        }
        let mut letters = dead::list(&*self.store, LETTERS).await?;
        letters.retain(|letter| which.matches(letter));
        Ok(letters)
    }

    /// Asks for the work of dead letters again, and removes them.
    pub async fn redrive(&self, who: &Operator, which: &Which) -> Result<Settled, Refusal> {
        allow(who, Grant::Operate)?;
        let mut settled = Settled::default();
        for letter in self.meant(which).await? {
            let id = letter.id.0.clone();
            match self.redrive_one(&letter).await {
                Ok(()) => settled.done += 1,
                Err(Refusal::Conflict(why)) => settled.stay.push(format!("{id}: {why}")),
                Err(error) => {
                    self.note_settled(who, "redrive", which, &settled, "").await?;
                    return Err(error);
                }
            }
        }
        self.note_settled(who, "redrive", which, &settled, "").await?;
        Ok(settled)
    }

    /// First the work, then the letter: what dies in between is done twice, not lost.
    async fn redrive_one(&self, letter: &DeadLetter) -> Result<(), Refusal> {
        let (Some(account), Some(kind)) = (&letter.account, letter.kind) else {
            return Err(Refusal::Conflict("its body cannot be read; discard it".into()));
        };
        if accounts::get(&*self.store, account).await?.is_none() {
            return Err(Refusal::Conflict("its account is gone; discard it".into()));
        }
        let mut kind = kind;
        if !letter.ids.is_empty() {
            let marked = self
                .store
                .mark(account, &letter.ids, self.clock.now(), self.worker.policy.dirty_limit)
                .await?;
            if marked.overflow {
                kind = Kind::Changes;
            }
        }
        if let Some(payload) = &letter.payload
            && !inbox::restore(&*self.store, account, payload, self.clock.now()).await?
        {
            let why = "something newer of the same contact waits in the inbox; discard it";
            return Err(Refusal::Conflict(why.into()));
        }
        let lane = letter.lane.unwrap_or(Lane::Refresh);
        self.requests.ring(account, kind, lane, None).await?;
        dead::remove(&*self.store, &letter.id).await?;
        Ok(())
    }

    /// Removes dead letters for good, with a reason.
    pub async fn discard(&self, who: &Operator, which: &Which, reason: &str) -> Result<Settled, Refusal> {
        allow(who, Grant::Admin)?;
        let reason = reason.trim();
        if reason.is_empty() {
            return Err(Refusal::BadRequest("say why: the audit keeps the reason".into()));
        }
        let mut settled = Settled::default();
        for letter in self.meant(which).await? {
            settled.done += usize::from(dead::remove(&*self.store, &letter.id).await?);
        }
        self.note_settled(who, "discard", which, &settled, reason).await?;
        Ok(settled)
    }

    async fn meant(&self, which: &Which) -> Result<Vec<DeadLetter>, Refusal> {
        if which.is_empty() {
            return Err(Refusal::BadRequest(
                "say which dead letters: ids, an account, a kind, a text, or all".into(),
            ));
        }
        let mut letters = match (which.ids.as_slice(), which.all) {
            ([], _) => return self.letters(which).await,
            (ids, _) => {
                let mut letters = Vec::new();
                for id in ids {
                    letters.extend(dead::get(&*self.store, &JobId(id.clone())).await?);
                }
                letters
            }
        };
        letters.retain(|letter| which.matches(letter));
        if letters.is_empty() {
            return Err(Refusal::NotFound("there is no such dead letter".into()));
        }
        Ok(letters)
    }

    async fn note_settled(
        &self,
        who: &Operator,
        action: &str,
        which: &Which,
        settled: &Settled,
        reason: &str,
    ) -> Result<(), Refusal> {
        let mut detail = format!("{} done, {} stay", settled.done, settled.stay.len());
        if !reason.is_empty() {
            detail = format!("{detail}; {reason}");
        }
        self.note(who, action, &format!("dead letters: {}", which.words()), &detail)
            .await
    }

    async fn note(&self, who: &Operator, action: &str, target: &str, detail: &str) -> Result<(), Refusal> {
        tracing::info!(
            by = who.name,
            grant = who.grant.as_str(),
            action,
            target,
            detail,
            "an operator acted"
        );
        let short = |text: &str, most| text.chars().take(most).collect::<String>();
        let entry = audit::Entry {
            at: self.clock.now(),
            by: who.name.clone(),
            role: who.grant.as_str().to_owned(),
            action: action.to_owned(),
            target: short(target, 300),
            detail: short(detail, 300),
        };
        Ok(audit::note(&*self.store, &entry, self.audit).await?)
    }
}

fn allow(who: &Operator, needs: Grant) -> Result<(), Refusal> {
    match who.grant >= needs {
        true => Ok(()),
        false => Err(Refusal::NotGranted { needs, has: who.grant }),
    }
}

/// Reads `connector/NAME` or `lane/NAME`.
pub fn scope(kind: &str, name: &str) -> Result<Scope, Refusal> {
    match kind {
        "connector" => Ok(Scope::Connector(name.to_owned())),
        "lane" => {
            let lane = Lane::ALL.into_iter().find(|lane| lane.as_str() == name);
            lane.map(Scope::Lane).ok_or_else(|| {
                Refusal::NotFound(format!(
                    "there is no lane `{name}`; there are build, refresh, reconcile"
                ))
            })
        }
        _ => Err(Refusal::NotFound(format!(
            "`{kind}` cannot be paused; accounts, connectors and lanes can"
        ))),
    }
}
