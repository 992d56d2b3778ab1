//! The player: acts as Talkdesk's synchronizer against any contact sync URL, and any agent sync URL.
//!
//! It follows `next_offset` at once, echoes `context`, sends the run's own checkpoint with every page, repeats what is
//! worth repeating, and keeps a page's checkpoint for the next run (Talkdesk contact sync, steps 2 to 6).

mod agents;
mod cli;
mod page;
pub(crate) mod patience;
mod run;
mod state;
mod summary;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use reqwest::Client;
use url::Url;

pub use agents::{AgentsCli, AgentsRun, run_agents};
pub use cli::{AuthField, Cli, CliError, run};
pub(crate) use cli::{chain, fields};
pub use patience::Patience;
pub(crate) use run::message_of;
pub use state::{CheckpointFile, PlayerState, StateError};
pub use summary::{Ended, PageMillis, RunSummary};

use crate::wire::Auth;

/// Plays one bridge, with one set of credentials.
pub struct Player {
    url: Url,
    auth: Auth,
    http: Client,
    patience: Patience,
    keep: Keep,
    on_progress: Option<OnProgress>,
    new_auth: Option<NewAuth>,
    out: Option<Box<dyn io::Write + Send + Sync>>,
}

type OnProgress = Box<dyn Fn(&Progress) + Send + Sync>;
type NewAuth = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Auth>> + Send>> + Send + Sync>;

/// Which page's checkpoint is kept for the next run. The contract leaves it open which one Talkdesk keeps; a bridge
/// must be right under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// The last page's, once the run is complete.
    #[default]
    Last,
    /// The first page's, once the run is complete.
    First,
    /// Every page's as it comes; a run that fails leaves the last one it saw.
    Every,
}

/// Where a run stands, told after each answer and before each wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub contacts: u64,
    pub pages: u64,
    pub empty_pages: u64,
    pub retries: u64,
    /// The wait that begins now, if one does.
    pub waiting: Option<Duration>,
}

/// Why a run ended before its last page. Holds no value of `auth`; a bridge's own message is repeated, clipped.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("page {page}: the bridge returned an offset that this run has used already; it would go on for ever")]
    StuckOffset { page: u64 },
    #[error("the run did not end within {limit} pages")]
    EndlessPages { limit: u64 },
    #[error("{limit} empty pages in a row; the bridge keeps saying that more is to come")]
    EmptyPages { limit: u64 },
    #[error("page {page}: the bridge refused the credentials (401{})", said(message))]
    Unauthorized { page: u64, message: String },
    #[error("page {page}: the bridge answered {status}{}", said(message))]
    Refused { page: u64, status: u16, message: String },
    #[error(
        "page {page}: no page after {attempts} attempts; the last answer was {status}{}",
        said(message)
    )]
    GaveUp {
        page: u64,
        attempts: u32,
        status: u16,
        message: String,
    },
    #[error("page {page}: the bridge wants a pause of {} s, more than the {} s allowed", asked.as_secs(), allowed.as_secs())]
    PauseTooLong {
        page: u64,
        asked: Duration,
        allowed: Duration,
    },
    #[error("page {page}: the answer is not a page of the contract: {why}")]
    Garbage { page: u64, why: String },
    #[error("page {page}: the answer is larger than {limit} bytes")]
    TooLarge { page: u64, limit: usize },
    #[error("page {page}: no answer after {attempts} attempts")]
    Unreachable {
        page: u64,
        attempts: u32,
        #[source]
        source: reqwest::Error,
    },
    #[error("the contacts cannot be written")]
    Out(#[source] io::Error),
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl Player {
    /// `http`: [`client`] makes a fitting one.
    pub fn new(url: Url, auth: Auth, http: Client) -> Self {
        Self {
            url,
            auth,
            http,
            patience: Patience::default(),
            keep: Keep::default(),
            on_progress: None,
            new_auth: None,
            out: None,
        }
    }

    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    pub fn on_progress(mut self, tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Asked for new credentials when an answer is 401, as Talkdesk refreshes an OAuth token; the same request is then
    /// repeated, once. `None` from it: the 401 stands.
    pub fn on_unauthorized<F>(mut self, new_auth: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Auth>> + Send + 'static,
    {
        self.new_auth = Some(Box::new(move || Box::pin(new_auth())));
        self
    }

    /// Takes every contact as one line of JSON, in the order of delivery. A contact may come more than once over time:
    /// its latest line counts.
    pub fn out(mut self, out: impl io::Write + Send + Sync + 'static) -> Self {
        self.out = Some(Box::new(out));
        self
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a path secret.
        let host = self.url.host_str().unwrap_or_default();
        f.debug_struct("Player")
            .field("host", &host)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// A client as a synchronizer would have: no redirects, no proxy on the way to this machine itself.
pub fn client(url: &Url) -> reqwest::Result<Client> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // reqwest is built without a provider of its own and panics where none is installed. Lost only against another
        // thread that installs the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = Client::builder()
        .user_agent(concat!("snapbridge-player/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none());
    if is_local(url) { builder.no_proxy() } else { builder }.build()
}

/// Whether the URL is of this machine.
pub(crate) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
