#![doc = include_str!("../README.md")]

mod account;
mod api;
mod cli;
mod clock;
mod control;
mod data;
mod execute;
mod history;
mod knobs;
mod limits;
mod needles;
mod oauth;
mod profile;
mod rng;
mod select;
mod server;
mod state;
mod stats;
mod updates;
mod vendors;
mod webhooks;
mod wire;
mod writes;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::limits::AtAddress;

pub use crate::api::Op;
pub use crate::cli::{Cli, run};
pub use crate::control::{Action, Change, Control, ControlReply, Create, Done, Merge, Refusal, RefusalCode, Users};
pub use crate::data::{Address, Fields, Row, Ticket, User, UserFields, Web1on1Link, owner};
pub use crate::history::{Edit, NEVER};
pub use crate::knobs::{BadRateLimit, EditsPerPage, EndlessCursor, Knobs, RateLimit};
pub use crate::limits::LimitStats;
pub use crate::oauth::{OauthKnobs, OauthServer, OauthStats, Viewer};
pub use crate::profile::Profile;
pub use crate::stats::{Stats, WebhookStats, Window};
pub use crate::updates::UpdateContact;
pub use crate::webhooks::{SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, signature};
pub use crate::writes::{LoggedCall, MadeNote, MadeTicket};

/// What the CRM is made of. The same options make the same contacts, stamps included.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub accounts: Vec<AccountOptions>,
}

#[derive(Clone)]
pub struct AccountOptions {
    /// In the house's path: `/api/{name}/…`. Unique.
    pub name: String,
    pub profile: Profile,
    /// The account whose people these are, too, as both were at the start: two systems that know the same ones.
    pub like: Option<String>,
    pub token: String,
    pub contacts: usize,
    pub users: usize,
    /// Of the house. The other profiles have their vendors' limits, which the knob `limits` changes.
    pub limit: Option<RateLimit>,
    /// Calls at the same time.
    pub concurrency: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            accounts: vec![AccountOptions::default()],
        }
    }
}

impl Default for AccountOptions {
    fn default() -> AccountOptions {
        AccountOptions {
            name: "demo".to_owned(),
            profile: Profile::House,
            like: None,
            token: "demo-token".to_owned(),
            contacts: 10_000,
            users: 12,
            limit: Some(RateLimit {
                max: 100,
                window: Duration::from_secs(1),
            }),
            concurrency: None,
        }
    }
}

/// The token stays out of it.
impl fmt::Debug for AccountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountOptions")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .field("contacts", &self.contacts)
            .field("users", &self.users)
            .field("limit", &self.limit)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// The CRM. Clones are the same CRM; it can be served several times, also one after the other with its state kept.
#[derive(Clone)]
pub struct FakeCrm {
    inner: Arc<Inner>,
}

struct Inner {
    first: String,
    order: Vec<Arc<Account>>,
    accounts: HashMap<String, Arc<Account>>,
}

impl FakeCrm {
    /// # Panics
    /// Without an account, or with two of one name.
    pub fn new(options: Options) -> FakeCrm {
        let first = options.accounts.first().expect("a CRM needs an account").name.clone();
        let mut accounts = HashMap::new();
        let mut order = Vec::new();
        let mut at_address: HashMap<Profile, Arc<Mutex<AtAddress>>> = HashMap::new();
        for account in options.accounts {
            let name = account.name.clone();
            let of_profile = at_address.entry(account.profile).or_default().clone();
            let account = Account::new(options.seed, account, of_profile);
            order.push(account.clone());
            let replaced = accounts.insert(name.clone(), account);
            assert!(replaced.is_none(), "two accounts are called `{name}`");
        }
        FakeCrm {
            inner: Arc::new(Inner { first, order, accounts }),
        }
    }

    pub fn router(&self) -> axum::Router {
        server::router(self.clone())
    }

    /// Serves until `stop`, then closes idle connections at once and gives calls that are under way one second; frozen
    /// and dripping ones take longer and are left behind.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: tokio::net::TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        const GRACE: Duration = Duration::from_secs(1);
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = async { server.await } => Ok(served?),
            () = too_long => Ok(()),
        }
    }

    /// Takes the access tokens of an authorization server, too, for the accounts that they are for.
    pub fn trust(&self, server: &OauthServer) {
        for account in self.inner.accounts.values() {
            account.lock().issuer = Some(server.clone());
        }
    }

    /// Carries out one control, as `POST /_control` does.
    pub fn control(&self, control: Control) -> ControlReply {
        let account = match self.account_or_first(control.account.as_deref()) {
            Ok(account) => account,
            Err(refusal) => return ControlReply::Error(refusal),
        };
        match execute::execute(&account, control.action) {
            Ok(done) => ControlReply::Ok(done),
            Err(refusal) => ControlReply::Error(refusal),
        }
    }

    /// Changes knobs in process, without going through JSON. The values are taken as they are.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn knobs(&self, account: &str, change: impl FnOnce(&mut Knobs)) {
        let account = self.known(account);
        change(&mut account.lock().knobs);
        account.changed();
    }

    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn stats(&self, account: &str) -> Stats {
        self.known(account).lock().stats()
    }

    /// The live contacts (not deleted, not archived) in their newest versions, by id, including edits that readers do
    /// not see yet.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn truth(&self, account: &str) -> Vec<Row> {
        truth_of(&self.known(account))
    }

    /// The users who are there, active or not, by age.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn users(&self, account: &str) -> Vec<User> {
        self.known(account).lock().users().collect()
    }

    /// The webhooks that are subscribed to, by the vendor's ids; the operator's own is `1`.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn hooks(&self, account: &str) -> BTreeMap<String, Webhook> {
        let account = self.known(account);
        let state = account.lock();
        let hooks = state.outbox.subscriptions.iter();
        hooks.map(|(id, known)| (id.clone(), known.webhook.clone())).collect()
    }

    /// The tickets that were made through the API, in their order.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn tickets(&self, account: &str) -> Vec<MadeTicket> {
        self.known(account).lock().made.tickets.clone()
    }

    /// The calls that were logged through the API, in their order.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn calls(&self, account: &str) -> Vec<LoggedCall> {
        self.known(account).lock().made.calls.clone()
    }

    /// The notes that were written through the API, in their order.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn notes(&self, account: &str) -> Vec<MadeNote> {
        self.known(account).lock().made.notes.clone()
    }

    /// Every version of every contact, first the generated ones by id, then the edits in the order they were made.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn history(&self, account: &str) -> Vec<Edit> {
        self.known(account).lock().contacts.history.all()
    }

    pub(crate) fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.inner.accounts.get(name).cloned()
    }

    pub(crate) fn account_or_first(&self, name: Option<&str>) -> Result<Arc<Account>, Refusal> {
        let name = name.unwrap_or(&self.inner.first);
        self.account(name)
            .ok_or_else(|| Refusal::missing(format!("no account is called `{name}`")))
    }

    #[track_caller]
    fn known(&self, name: &str) -> Arc<Account> {
        self.account(name)
            .unwrap_or_else(|| panic!("no account is called `{name}`"))
    }
}

fn truth_of(account: &Account) -> Vec<Row> {
    let state = account.lock();
    state.contacts.truth(state.knobs.whole_second_stamps).collect()
}
