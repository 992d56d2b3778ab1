//! Where contacts come from, as the worker sees it: one account's CRM behind its connector.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::accounts::Account;
use contacts::subscription::Wanted;
use contacts::{AccountId, ErrorKind, Micros};
use crm::{AgentsPage, Client, Connector, CrmError, CrmResult, DeletedPage, Delta, Hook, IdsPage, Many, Page, Window};
use serde_json::Value;

/// One account's CRM.
#[async_trait]
pub trait Source: Send + Sync {
    fn traits(&self) -> &Traits;

    /// A page of all contacts, from the start (`None`) or where the last page pointed.
    async fn full_page(&self, cursor: Option<&Value>) -> CrmResult<Page>;

    /// A page of the contacts modified in the window, or since the delta token.
    async fn changes_page(&self, window: Window, token: Option<&Value>, cursor: Option<&Value>) -> CrmResult<Page>;

    /// Contacts by id, at most [`Traits::get_many`] of them.
    async fn get_many(&self, ids: &[String]) -> CrmResult<Many>;

    /// A page of what was deleted since.
    async fn deleted_page(&self, since: Micros, cursor: Option<&Value>) -> CrmResult<DeletedPage>;

    /// A page of the ids of all living contacts.
    async fn ids_page(&self, cursor: Option<&Value>) -> CrmResult<IdsPage>;

    /// A page of the CRM's users.
    async fn agents_page(&self, cursor: Option<&Value>) -> CrmResult<AgentsPage>;

    /// Asks the CRM whether it takes the credentials at all.
    async fn check(&self) -> CrmResult<()>;

    /// The slice is over: slots that were taken ahead go back.
    async fn rest(&self);

    /// Who can ask the CRM for its webhook.
    fn subscriber(&self) -> Option<&Client> {
        None
    }
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    Done,
    /// Nothing failed, but it is too early: again at that time.
    Later(Micros),
}

/// Does the payload work of one account.
#[async_trait]
pub trait Linker: Send + Sync {
    /// One payload, which may come again: what an earlier attempt did of it is found done. `came`: when it was taken in.
    async fn handle(&self, payload: &[u8], came: Micros) -> CrmResult<Handled>;

    /// Whether the systems take the credentials at all, and answer: then a failure is the payload's own.
    async fn check(&self) -> CrmResult<()>;

    /// The slice is over: slots that were taken ahead go back.
    async fn rest(&self);
}

/// Hands out the source of an account.
#[async_trait]
pub trait Sources: Send + Sync {
    /// [`contacts::ErrorKind::Missing`]: its integration is not configured any more.
    async fn source(&self, account: &Account) -> CrmResult<Arc<dyn Source>>;

    /// How often an account of this integration is refreshed. `None`: it is not configured any more.
    fn pace(&self, integration: &str) -> Option<Pace>;

    /// The account has no credentials any more: nothing made of them is kept.
    fn forget(&self, _account: &AccountId) {}

    /// Who does what lies in an account's inbox.
    async fn linker(&self, account: &Account) -> CrmResult<Arc<dyn Linker>> {
        let message = format!("the integration {} links nothing", account.integration);
        Err(CrmError::new(ErrorKind::Missing, message))
    }

    /// The settings name the account: it stays however long nobody calls for it.
    fn keeps(&self, _account: &Account) -> bool {
        false
    }

    /// What is wanted of an account's webhook. `None`: it cannot have one of its own.
    fn subscribing(&self, _account: &Account) -> Option<Subscribing> {
        None
    }
}

/// What is wanted of an account's webhook.
#[derive(Clone, Debug)]
pub struct Subscribing {
    /// `None`: nothing is asked for, and what was is ended.
    pub wanted: Option<Wanted>,
    /// Why a person sets the webhook up.
    pub by_hand: Option<String>,
    pub hook: Hook,
}

/// How often an account is refreshed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub poll: Duration,
    pub reconcile: Duration,
    /// Part of the period by which accounts are spread, 0 to 0.9.
    pub jitter: f64,
    /// Webhooks that have been silent for this long make polls more frequent.
    pub silence: Duration,
    /// How often the list of agents is read; `None`: the CRM has none.
    pub agents: Option<Duration>,
}

/// What a connector can do and how far it can be trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Traits {
    /// It can list what changed in a window of time.
    pub changes: bool,
    /// The change pass reads an index that may lag behind the truth.
    pub changes_indexed: bool,
    /// So does the full pass.
    pub full_indexed: bool,
    /// Never ask for changes up to now, but up to this long ago.
    pub lag: Duration,
    /// How much of the last window is read again.
    pub overlap: Duration,
    /// Ids per fetch; 0: it cannot fetch by id.
    pub get_many: usize,
    /// It lists deletions.
    pub deleted_list: bool,
    /// It lists ids of living contacts.
    pub ids_list: bool,
    /// Its change pass goes by delta tokens.
    pub delta: Option<Delta>,
    /// It lists users.
    pub agents: bool,
    /// The version of the mapping.
    pub mapping: u32,
    /// A user may slip from page to page unseen, so that one list proves nobody's absence.
    pub agents_may_slip: bool,
}

impl Traits {
    /// What a connector says of itself; `lag` and `overlap` of the integration win.
    pub fn of(connector: &Connector, mapping: u32, lag: Option<Duration>, overlap: Option<Duration>) -> Traits {
        let deletions = connector.deletions();
        Traits {
            changes: connector.has_changes(),
            changes_indexed: connector.changes_are_indexed(),
            full_indexed: connector.full_is_indexed(),
            lag: lag.unwrap_or(connector.lag()),
            overlap: overlap.unwrap_or(connector.overlap()),
            get_many: connector.get_many_max(),
            deleted_list: deletions.list,
            ids_list: deletions.ids,
            delta: connector.delta(),
            agents: connector.has_agents(),
            mapping,
            agents_may_slip: connector.agents_may_slip(),
        }
    }
}

/// A CRM behind its connector.
pub struct CrmSource {
    pub client: Client,
    pub traits: Traits,
}

#[async_trait]
impl Source for CrmSource {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    async fn full_page(&self, cursor: Option<&Value>) -> CrmResult<Page> {
        self.client.full_page(cursor).await
    }

    async fn changes_page(&self, window: Window, token: Option<&Value>, cursor: Option<&Value>) -> CrmResult<Page> {
        self.client.changes_page(window, token, cursor).await
    }

    async fn get_many(&self, ids: &[String]) -> CrmResult<Many> {
        self.client.get_many(ids).await
    }

    async fn deleted_page(&self, since: Micros, cursor: Option<&Value>) -> CrmResult<DeletedPage> {
        self.client.deleted_page(since, cursor).await
    }

    async fn ids_page(&self, cursor: Option<&Value>) -> CrmResult<IdsPage> {
        self.client.ids_page(cursor).await
    }

    async fn agents_page(&self, cursor: Option<&Value>) -> CrmResult<AgentsPage> {
        self.client.agents_page(cursor).await
    }

    async fn check(&self) -> CrmResult<()> {
        self.client.check().await.map(drop)
    }

    async fn rest(&self) {
        self.client.rest().await;
    }

    fn subscriber(&self) -> Option<&Client> {
        let hooks = self.client.connector().webhook()?;
        hooks.can_subscribe().then_some(&self.client)
    }
}
