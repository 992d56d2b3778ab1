//! A DMS that tells a bridge of its contacts: `POST /updatecontact` for each one that is made or changed, and for all of them
//! when the dealer begins (Web1on1's recipe on contact synchronisation).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::account::State;
use crate::vendors::shapes::{Person, sha256};
use crate::vendors::{Hook, Outgoing};
use crate::webhooks::{EventKind, News, Subscription, UPDATES, Webhook};

/// Where the DMS calls, and how.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateContact {
    /// The bridge's `/updatecontact`.
    pub url: String,
    /// Web1on1's id of the dealer.
    pub organization: String,
    /// Key of an HMAC-SHA256 over the raw body, which goes as hex in `header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    #[serde(default = "header")]
    pub header: String,
    /// Sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Tells of every contact now, not of new and changed ones only.
    #[serde(default)]
    pub all: bool,
    /// Every n-th call comes twice; 0: none.
    #[serde(default)]
    pub duplicate_every: u64,
    /// Calls that wait go in random order.
    #[serde(default)]
    pub shuffle: bool,
    /// Calls on the way at the same time.
    #[serde(default = "parallel")]
    pub parallel: usize,
    /// How often one call is tried before it is given up: all but a 2xx is tried again.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Before the second attempt; doubles with each further one.
    #[serde(default = "backoff_ms")]
    pub backoff_ms: u64,
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn header() -> String {
    "x-signature".to_owned()
}
fn parallel() -> usize {
    4
}
fn attempts() -> u32 {
    12
}
fn backoff_ms() -> u64 {
    200
}
fn timeout_ms() -> u64 {
    10_000
}

/// Secret and token stay out of it.
impl fmt::Debug for UpdateContact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateContact")
            .field("url", &self.url)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

impl UpdateContact {
    /// Without a proof of who calls; the rest as it is by default.
    pub fn new(url: impl Into<String>, organization: impl Into<String>) -> UpdateContact {
        UpdateContact {
            url: url.into(),
            organization: organization.into(),
            secret: None,
            header: header(),
            token: None,
            all: false,
            duplicate_every: 0,
            shuffle: false,
            parallel: parallel(),
            attempts: attempts(),
            backoff_ms: backoff_ms(),
            timeout_ms: timeout_ms(),
        }
    }

    fn webhook(&self) -> Webhook {
        Webhook {
            header: Some(self.header.clone()),
            batch: 1,
            duplicate_every: self.duplicate_every,
            shuffle: self.shuffle,
            parallel: self.parallel,
            attempts: self.attempts,
            backoff_ms: self.backoff_ms,
            timeout_ms: self.timeout_ms,
            ..Webhook::new(&self.url, self.secret.clone().unwrap_or_default())
        }
    }
}

/// The account calls from now on; `None` ends it.
///
/// # Errors
/// A sentence that names what is wrong.
pub(crate) fn subscribe(state: &mut State, update: Option<&UpdateContact>) -> Result<(), String> {
    let Some(update) = update else {
        state.outbox.unsubscribe(UPDATES);
        return Ok(());
    };
    let webhook = update.webhook();
    webhook.check()?;
    let known = state.outbox.subscriptions.entry(UPDATES.to_owned());
    let subscription = known.or_insert_with(|| Subscription::new(webhook.clone()));
    subscription.webhook = webhook;
    subscription.kinds = vec![EventKind::Created, EventKind::Updated];
    subscription.made_of = json!({"organization": update.organization, "token": update.token});
    if update.all {
        let live = state.contacts.newest_after(0);
        let live = live.filter(|(_, record)| !record.archived).map(|(id, record)| News {
            kind: EventKind::Updated,
            id,
            merged_into: None,
            at: record.modified,
            by_api: false,
            user: false,
            record: None,
        });
        let news: Vec<News> = live.collect();
        state
            .outbox
            .add_for(UPDATES, &state.account, news, &mut state.contacts.rng);
    }
    Ok(())
}

/// One call, with the contact as it is now. `None`: it is gone, or has nothing to be found by.
pub(crate) fn call(hook: &Hook) -> Option<Outgoing> {
    let state = hook.state;
    let event = hook.events.first()?;
    let person = Person::new(state, event.contact, state.contacts.newest(event.contact)?);
    let (email, phone) = (person.any_email(), person.any_phone());
    if email.is_none() && phone.is_none() {
        return None;
    }
    let told = &state.outbox.subscriptions.get(UPDATES)?.made_of;
    let body = json!({
        "id": state.profile.vendor().contact_id(event.contact), "organization": told["organization"],
        "email": email, "telephone": phone,
    })
    .to_string();
    let mut outgoing = Outgoing::json(hook, body.clone());
    if !hook.webhook.secret.is_empty() {
        let name = hook.webhook.header.clone().unwrap_or_else(header);
        outgoing.named = Some((name, hex::encode(sha256(&hook.webhook.secret, &[body.as_bytes()]))));
    }
    match told["token"].as_str() {
        Some(token) => Some(outgoing.header("authorization", format!("Bearer {token}"))),
        None => Some(outgoing),
    }
}
