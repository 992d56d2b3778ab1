//! Webhooks: events of one account, signed, in batches, with the faults a sender has.

mod sender;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::time::Instant;

use crate::clock;
use crate::rng::Rng;
use crate::state::Record;
use crate::stats::WebhookStats;
use crate::vendors::Vendor;

pub(crate) use self::sender::dispatch;

pub const TIMESTAMP_HEADER: &str = "x-fake-timestamp";
pub const SIGNATURE_HEADER: &str = "x-fake-signature";

/// The one subscription of an account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// Key of the signatures, as text.
    pub secret: String,
    /// The header that carries the secret, for vendors whose people choose one (Dataverse, Freshdesk).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Off: events are not kept for later.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Events per call, 1 to 100.
    #[serde(default = "hundred")]
    pub batch: usize,
    /// Every n-th event is lost; 0: none.
    #[serde(default)]
    pub drop_every: u64,
    /// Every n-th event is sent twice, with the same event id; 0: none.
    #[serde(default)]
    pub duplicate_every: u64,
    /// Events that wait are sent in random order.
    #[serde(default)]
    pub shuffle: bool,
    /// Every n-th event is sent `late_ms` after its time, behind those that were made later; 0: none.
    #[serde(default)]
    pub late_every: u64,
    #[serde(default)]
    pub late_ms: u64,
    /// Events leave with the edit, before a late or held edit can be read.
    #[serde(default)]
    pub early: bool,
    /// Calls on the way at the same time.
    #[serde(default = "one")]
    pub parallel: usize,
    /// How often one call is tried; then its events are given up.
    #[serde(default = "four")]
    pub attempts: u32,
    /// Before the second attempt; doubles with each further one.
    #[serde(default = "backoff_ms")]
    pub backoff_ms: u64,
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn hundred() -> usize {
    100
}
fn four() -> u32 {
    4
}
fn backoff_ms() -> u64 {
    200
}
fn timeout_ms() -> u64 {
    5_000
}

impl Webhook {
    pub fn new(url: impl Into<String>, secret: impl Into<String>) -> Webhook {
        Webhook {
            url: url.into(),
            secret: secret.into(),
            header: None,
            enabled: yes(),
            batch: hundred(),
            drop_every: 0,
            duplicate_every: 0,
            shuffle: false,
            late_every: 0,
            late_ms: 0,
            early: false,
            parallel: one(),
            attempts: four(),
            backoff_ms: backoff_ms(),
            timeout_ms: timeout_ms(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if let Err(error) = reqwest::Url::parse(&self.url) {
            return Err(format!("webhook url: {error}"));
        }
        for (name, ok) in [
            (
                "header must be the name of a header",
                self.header
                    .as_deref()
                    .is_none_or(|name| http::HeaderName::from_bytes(name.as_bytes()).is_ok()),
            ),
            ("batch must be 1 to 100", (1..=100).contains(&self.batch)),
            ("parallel must be at least 1", self.parallel > 0),
            ("attempts must be at least 1", self.attempts > 0),
        ] {
            if !ok {
                return Err(format!("webhook {name}"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// `X-Fake-Signature` of a body: hex HMAC-SHA256 over timestamp, a dot, and the raw body.
pub fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum EventKind {
    #[serde(rename = "contact.created")]
    Created,
    #[serde(rename = "contact.updated")]
    Updated,
    #[serde(rename = "contact.deleted")]
    Deleted,
    #[serde(rename = "contact.merged")]
    Merged,
    #[serde(rename = "contact.archived")]
    Archived,
}

/// Something that a subscriber wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub kind: EventKind,
    pub id: u64,
    pub merged_into: Option<u64>,
    pub at: i64,
    /// It came through the vendor's API.
    pub by_api: bool,
    /// It is about a user, whose ordinal the id is.
    pub user: bool,
    /// What it made of a contact.
    pub record: Option<Record>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    event_id: String,
    account: String,
    #[serde(rename = "type")]
    pub kind: EventKind,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<String>,
    pub at: i64,
    #[serde(skip)]
    pub number: u64,
    #[serde(skip)]
    pub contact: u64,
    #[serde(skip)]
    pub into: Option<u64>,
    #[serde(skip)]
    pub by_api: bool,
    #[serde(skip)]
    pub user: bool,
    #[serde(skip)]
    pub record: Option<Record>,
}

/// Who is told of events.
pub(crate) struct Subscription {
    pub webhook: Webhook,
    /// Of which events; empty: of all.
    pub kinds: Vec<EventKind>,
    /// Real milliseconds after which it is as if it were not there.
    pub until: Option<i64>,
    /// What the vendor remembers of the call that made it.
    pub made_of: serde_json::Value,
    /// An answer of 410 ends it.
    pub ends_when_gone: bool,
    pub greeting: Greeting,
    pub waiting: VecDeque<Event>,
}

impl Subscription {
    pub(crate) fn new(webhook: Webhook) -> Subscription {
        Subscription {
            webhook,
            kinds: Vec::new(),
            until: None,
            made_of: serde_json::Value::Null,
            ends_when_gone: false,
            greeting: Greeting::Done,
            waiting: VecDeque::new(),
        }
    }
}

/// What a new subscriber has to answer before it is told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    Due,
    /// On its way, or to be tried again.
    Sent,
    Done,
}

/// The id of the subscription that the operator makes.
pub(crate) const BY_HAND: &str = "1";
/// Of a bridge that is told by `/updatecontact`.
pub(crate) const UPDATES: &str = "updatecontact";

/// Events on their way out.
#[derive(Default)]
pub(crate) struct Outbox {
    /// By id.
    pub subscriptions: BTreeMap<String, Subscription>,
    pub stats: WebhookStats,
    made: u64,
    retries: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
}

pub(crate) struct Delivery {
    /// The subscription's.
    id: String,
    webhook: Webhook,
    /// None: a greeting.
    events: Vec<Event>,
    attempt: u32,
}

impl Delivery {
    /// A call of `/updatecontact` is no webhook of the vendor's, and knows none of its bounds.
    fn is_the_vendors(&self) -> bool {
        self.id != UPDATES
    }

    fn attempts(&self, vendor: &dyn Vendor) -> u32 {
        let bound = if self.is_the_vendors() {
            vendor.hook_attempts()
        } else {
            u32::MAX
        };
        self.webhook.attempts.min(bound)
    }

    fn timeout_ms(&self, vendor: &dyn Vendor) -> u64 {
        let bound = if self.is_the_vendors() {
            vendor.hook_timeout_ms()
        } else {
            u64::MAX
        };
        self.webhook.timeout_ms.min(bound)
    }
}

impl Outbox {
    pub(crate) fn has_subscribers(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    pub(crate) fn is_early(&self) -> bool {
        self.subscriptions.values().any(|known| known.webhook.early)
    }

    pub(crate) fn add(&mut self, account: &str, news: Vec<News>, rng: &mut Rng) {
        self.add_to(|_| true, account, news, rng);
    }

    /// For one subscription alone.
    pub(crate) fn add_for(&mut self, id: &str, account: &str, news: Vec<News>, rng: &mut Rng) {
        self.add_to(|known| known == id, account, news, rng);
    }

    fn add_to(&mut self, whom: impl Fn(&str) -> bool, account: &str, news: Vec<News>, rng: &mut Rng) {
        let now = clock::now_ms();
        let live = |(id, known): &(&String, &mut Subscription)| {
            whom(id) && known.webhook.enabled && known.until.is_none_or(|until| now < until)
        };
        let mut live: Vec<_> = self.subscriptions.iter_mut().filter(live).collect();
        if live.is_empty() {
            return;
        }
        let every = |n: u64, count: u64| n > 0 && count.is_multiple_of(n);
        for news in news {
            let mut event: Option<Event> = None;
            let wanted = live
                .iter_mut()
                .filter(|(_, known)| known.kinds.is_empty() || (known.kinds.contains(&news.kind) && !news.user));
            for (id, subscription) in wanted {
                let event = event.get_or_insert_with(|| {
                    self.made += 1;
                    news.event(account, self.made)
                });
                self.stats.events += 1;
                if every(subscription.webhook.drop_every, self.made) {
                    self.stats.dropped += 1;
                    continue;
                }
                if every(subscription.webhook.duplicate_every, self.made) {
                    self.stats.duplicated += 1;
                    subscription.waiting.push_back(event.clone());
                    self.stats.waiting += 1;
                }
                self.stats.waiting += 1;
                let webhook = &subscription.webhook;
                // A subscriber that was not greeted yet is told nothing.
                if every(webhook.late_every, self.made) && subscription.greeting == Greeting::Done {
                    self.sequence += 1;
                    let due = Instant::now() + Duration::from_millis(webhook.late_ms);
                    let late = Delivery {
                        id: id.to_string(),
                        webhook: webhook.clone(),
                        events: vec![event.clone()],
                        attempt: 1,
                    };
                    self.retries.insert((due, self.sequence), late);
                } else {
                    subscription.waiting.push_back(event.clone());
                }
            }
        }
        for (_, subscription) in live.into_iter().filter(|(_, known)| known.webhook.shuffle) {
            rng.shuffle(subscription.waiting.make_contiguous());
        }
    }

    /// The operator's own subscription. Without it what waits has nowhere to go.
    pub(crate) fn subscribe(&mut self, webhook: Option<Webhook>, greet: bool) {
        let Some(webhook) = webhook else {
            self.unsubscribe(BY_HAND);
            return;
        };
        match self.subscriptions.get_mut(BY_HAND) {
            Some(known) => known.webhook = webhook,
            None => {
                let greeting = if greet { Greeting::Due } else { Greeting::Done };
                let new = Subscription {
                    greeting,
                    ..Subscription::new(webhook)
                };
                self.subscriptions.insert(BY_HAND.to_owned(), new);
            }
        }
    }

    /// False where there was none.
    pub(crate) fn unsubscribe(&mut self, id: &str) -> bool {
        let gone = self.subscriptions.remove(id);
        if let Some(gone) = &gone {
            self.stats.waiting -= gone.waiting.len() as u64;
        }
        gone.is_some()
    }

    pub(crate) fn reset(&mut self) {
        self.stats = WebhookStats {
            waiting: self.stats.waiting,
            ..WebhookStats::default()
        };
    }

    /// There is nothing to be sent any more.
    fn pass_over(&mut self, delivery: &Delivery) {
        let events = delivery.events.len() as u64;
        self.stats.dropped += events;
        self.stats.waiting -= events;
    }

    fn next(&mut self, now: Instant, most: usize, one_kind: bool) -> Option<Delivery> {
        if let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= now
        {
            return Some(entry.remove());
        }
        for (id, subscription) in &mut self.subscriptions {
            let webhook = subscription.webhook.clone();
            let first = |events| Delivery {
                id: id.clone(),
                webhook,
                events,
                attempt: 1,
            };
            match subscription.greeting {
                Greeting::Due => {
                    subscription.greeting = Greeting::Sent;
                    return Some(first(Vec::new()));
                }
                Greeting::Sent => continue,
                Greeting::Done => {}
            }
            let mut count = subscription.webhook.batch.min(most).min(subscription.waiting.len());
            if one_kind {
                let kind = subscription.waiting.front().map(|event| event.kind);
                let same = subscription.waiting.iter().take_while(|event| Some(event.kind) == kind);
                count = count.min(same.count());
            }
            if count > 0 {
                return Some(first(subscription.waiting.drain(..count).collect()));
            }
        }
        None
    }

    fn settle(&mut self, delivery: Delivery, result: Result<u16, &'static str>, vendor: &dyn Vendor, now: Instant) {
        let label = result.map_or_else(str::to_owned, |status| status.to_string());
        let greeting = delivery.events.is_empty();
        let counts = if greeting {
            &mut self.stats.greetings
        } else {
            &mut self.stats.attempts
        };
        *counts.entry(label).or_default() += 1;
        let events = delivery.events.len() as u64;
        let good = result.is_ok_and(|status| (200..300).contains(&status));
        let ends = result == Ok(410)
            && self
                .subscriptions
                .get(&delivery.id)
                .is_some_and(|known| known.ends_when_gone);
        if ends {
            self.unsubscribe(&delivery.id);
        }
        if good {
            if let Some(known) = self.subscriptions.get_mut(&delivery.id).filter(|_| greeting) {
                known.greeting = Greeting::Done;
            }
            self.stats.delivered += events;
            self.stats.waiting -= events;
        } else if ends
            || delivery.attempt >= delivery.attempts(vendor)
            || result.is_ok_and(|status| delivery.is_the_vendors() && !vendor.hook_retries(status))
        {
            self.stats.given_up += events;
            self.stats.waiting -= events;
            if greeting {
                self.unsubscribe(&delivery.id);
            }
        } else {
            let factor = 1 << (delivery.attempt - 1).min(10);
            let after = Duration::from_millis(delivery.webhook.backoff_ms.saturating_mul(factor));
            self.sequence += 1;
            let again = Delivery {
                attempt: delivery.attempt + 1,
                ..delivery
            };
            self.retries.insert((now + after, self.sequence), again);
        }
    }
}

impl News {
    fn event(&self, account: &str, number: u64) -> Event {
        Event {
            event_id: format!("e-{account}-{number}"),
            account: account.to_owned(),
            kind: self.kind,
            id: self.id.to_string(),
            merged_into: self.merged_into.map(|id| id.to_string()),
            at: self.at,
            number,
            contact: self.id,
            into: self.merged_into,
            by_api: self.by_api,
            user: self.user,
            record: self.record.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
