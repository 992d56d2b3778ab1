//! The APIs of the vendors, each in a file of its own: what a call asks for, what it is answered, how a refusal looks, and
//! how an event is told. All of them show the same contacts, and know nothing of faults and counting, which `server` does.
//!
//! A module's first lines say where its facts come from. What stands in no document of the vendor and is told from memory
//! is marked **recalled** there.

pub(crate) mod dataverse;
pub(crate) mod espocrm;
pub(crate) mod freshdesk;
pub(crate) mod house;
pub(crate) mod hubspot;
pub(crate) mod intercom;
pub(crate) mod odoo;
pub(crate) mod pipedrive;
pub(crate) mod salesforce;
pub(crate) mod shapes;
mod soql;
pub(crate) mod twenty;
pub(crate) mod web1on1;
pub(crate) mod zendesk;
pub(crate) mod zoho;

use http::StatusCode;

use crate::account::State;
use crate::api::{ApiError, Op};
use crate::knobs::Knobs;
use crate::limits::{Charge, LimitSpec};
use crate::webhooks::{Event, EventKind, Webhook};
use crate::wire::{Reply, Request};

pub(crate) trait Vendor: Send + Sync {
    /// Whether this vendor has the called path, so that the call may be for one of its accounts.
    fn claims(&self, account: &str, request: &Request) -> bool {
        let _ = account;
        self.route(request).is_some()
    }

    /// What a call asks for.
    fn route(&self, request: &Request) -> Option<Op>;

    /// Whether the call brings credentials that the account accepts. Sets whose call it is, if the credentials tell.
    fn admits(&self, state: &mut State, request: &Request) -> bool {
        state.accepts(request.bearer())
    }

    /// The secret of a call, whether it is good or not.
    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.bearer()
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError>;

    fn refuse(&self, state: &State, request: &Request, refused: &Refused) -> Reply;

    /// Puts what the vendor tells of its limits on an answer.
    fn stamp(&self, state: &State, reply: Reply, charges: &[Charge]) -> Reply {
        let _ = (state, charges);
        reply
    }

    /// How the vendor misbehaves by nature.
    fn knobs(&self, knobs: &mut Knobs) {
        let _ = knobs;
    }

    fn limits(&self) -> &'static [LimitSpec] {
        &[]
    }

    /// Those that count the calls for all accounts together, as they come from one address.
    fn limits_per_address(&self) -> &'static [LimitSpec] {
        &[]
    }

    /// It keeps no fractions of seconds.
    fn whole_seconds(&self) -> bool {
        false
    }

    /// An event leaves with its edit, though a search that lags does not show it yet.
    fn tells_at_once(&self) -> bool {
        false
    }

    /// A command line that shows the first answer.
    fn example(&self, base: &str, account: &str, token: &str) -> String;

    fn contact_id(&self, id: u64) -> String {
        id.to_string()
    }

    /// The contact that the vendor's id means; `None` for what can be none.
    fn contact_of(&self, id: &str) -> Option<u64> {
        id.parse().ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        ordinal.to_string()
    }

    /// One delivery of events.
    fn hook(&self, hook: &Hook) -> Outgoing;

    /// Events per delivery at most.
    fn hook_batch(&self) -> usize {
        1
    }

    /// A delivery holds events of one kind only.
    fn hook_one_kind(&self) -> bool {
        false
    }

    /// How often a delivery is tried at most.
    fn hook_attempts(&self) -> u32 {
        u32::MAX
    }

    /// How long a subscriber has for its answer at most.
    fn hook_timeout_ms(&self) -> u64 {
        u64::MAX
    }

    /// Whether an answer with this status, which is no good one, is worth another attempt. No answer always is.
    fn hook_retries(&self, status: u16) -> bool {
        let _ = status;
        true
    }

    /// Whether the vendor tells of such an event at all.
    fn tells(&self, kind: EventKind) -> bool {
        let _ = kind;
        true
    }

    /// Whether its webhooks tell of users, too.
    fn tells_of_users(&self) -> bool {
        false
    }

    /// The id of a contact's conversation, where the vendor has that.
    fn conversation_id(&self, contact: u64) -> Option<String> {
        let _ = contact;
        None
    }

    /// How the vendor calls an account.
    fn organization_id(&self, account: &str) -> String {
        account.to_owned()
    }

    /// A new subscriber is greeted before anything is told to it.
    fn greets(&self) -> bool {
        false
    }

    /// What a new subscriber is asked first, if anything.
    fn greeting(&self, hook: &Hook) -> Option<Outgoing> {
        let _ = hook;
        None
    }
}

/// Why a call is not let through.
pub(crate) enum Refused<'a> {
    Unauthorized {
        /// What was sent.
        given: Option<&'a str>,
    },
    NoOperation,
    Throttled {
        why: Throttle,
        /// The limit that was exceeded; the first one where nothing was (knob `burst_429`).
        charge: Option<&'a Charge>,
        seconds: u64,
    },
    Broken(StatusCode),
    Failed(&'a ApiError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    Window,
    Concurrency,
    Burst,
}

/// What a vendor has to tell a subscriber.
pub(crate) struct Hook<'a> {
    pub state: &'a State,
    /// The subscription's own id.
    pub id: &'a str,
    pub webhook: &'a Webhook,
    pub events: &'a [Event],
    /// 1 at first.
    pub attempt: u32,
    /// Real milliseconds.
    pub now_ms: i64,
}

/// A request to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// GET instead of POST.
    pub get: bool,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub named: Option<(String, String)>,
    pub body: Vec<u8>,
    /// What an answer has to hold beside its 2xx.
    pub expects: Option<String>,
}

impl Outgoing {
    pub(crate) fn json(hook: &Hook, body: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing {
            get: false,
            url: hook.webhook.url.clone(),
            headers: vec![("content-type", "application/json".to_owned())],
            named: None,
            body: body.into(),
            expects: None,
        }
    }

    /// The secret in the header that the subscription names.
    #[must_use]
    pub(crate) fn secret(self, hook: &Hook) -> Outgoing {
        let name = hook
            .webhook
            .header
            .clone()
            .unwrap_or_else(|| "x-webhook-key".to_owned());
        Outgoing {
            named: Some((name, hook.webhook.secret.clone())),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Outgoing {
        self.headers.push((name, value.to_string()));
        self
    }
}
