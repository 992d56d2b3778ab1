//! Webhooks: events of one account, signed, in batches, with the faults a sender has.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::account::Account;
use crate::clock;
use crate::rng::Rng;
use crate::stats::WebhookStats;

pub const TIMESTAMP_HEADER: &str = "x-fake-timestamp";
pub const SIGNATURE_HEADER: &str = "x-fake-signature";

/// The one subscription of an account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// Key of the signatures, as text.
    pub secret: String,
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
            enabled: yes(),
            batch: hundred(),
            drop_every: 0,
            duplicate_every: 0,
            shuffle: false,
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
}

#[derive(Debug, Clone, Serialize)]
struct Event {
    event_id: String,
    account: String,
    #[serde(rename = "type")]
    kind: EventKind,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<String>,
    at: i64,
}

/// Events on their way out.
#[derive(Default)]
pub(crate) struct Outbox {
    pub webhook: Option<Webhook>,
    pub stats: WebhookStats,
    made: u64,
    waiting: VecDeque<Event>,
    retries: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
}

pub(crate) struct Delivery {
    webhook: Webhook,
    events: Vec<Event>,
    attempt: u32,
}

impl Outbox {
    pub(crate) fn add(&mut self, account: &str, news: Vec<News>, rng: &mut Rng) {
        let Some(webhook) = self.webhook.as_ref().filter(|webhook| webhook.enabled) else {
            return;
        };
        let every = |n: u64, count: u64| n > 0 && count.is_multiple_of(n);
        for News {
            kind,
            id,
            merged_into,
            at,
        } in news
        {
            self.made += 1;
            self.stats.events += 1;
            let event = Event {
                event_id: format!("e-{account}-{}", self.made),
                account: account.to_owned(),
                kind,
                id: id.to_string(),
                merged_into: merged_into.map(|id| id.to_string()),
                at,
            };
            if every(webhook.drop_every, self.made) {
                self.stats.dropped += 1;
                continue;
            }
            if every(webhook.duplicate_every, self.made) {
                self.stats.duplicated += 1;
                self.waiting.push_back(event.clone());
                self.stats.waiting += 1;
            }
            self.waiting.push_back(event);
            self.stats.waiting += 1;
        }
        if webhook.shuffle {
            rng.shuffle(self.waiting.make_contiguous());
        }
    }

    /// Without a subscription what waits has nowhere to go.
    pub(crate) fn subscribe(&mut self, webhook: Option<Webhook>) {
        if webhook.is_none() {
            self.stats.waiting -= self.waiting.len() as u64;
            self.waiting.clear();
        }
        self.webhook = webhook;
    }

    pub(crate) fn reset(&mut self) {
        self.stats = WebhookStats {
            waiting: self.stats.waiting,
            ..WebhookStats::default()
        };
    }

    fn next(&mut self, now: Instant) -> Option<Delivery> {
        if let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= now
        {
            return Some(entry.remove());
        }
        let webhook = self.webhook.clone()?;
        let count = webhook.batch.min(self.waiting.len());
        (count > 0).then(|| Delivery {
            webhook,
            events: self.waiting.drain(..count).collect(),
            attempt: 1,
        })
    }

    fn settle(&mut self, delivery: Delivery, result: Result<u16, &'static str>, now: Instant) {
        let label = result.map_or_else(str::to_owned, |status| status.to_string());
        *self.stats.attempts.entry(label).or_default() += 1;
        let events = delivery.events.len() as u64;
        if result.is_ok_and(|status| (200..300).contains(&status)) {
            self.stats.delivered += events;
            self.stats.waiting -= events;
        } else if delivery.attempt >= delivery.webhook.attempts {
            self.stats.given_up += events;
            self.stats.waiting -= events;
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

/// Sends the events of one account until nobody holds the account any more.
pub(crate) async fn dispatch(account: Weak<Account>) {
    let client = client();
    let mut running = JoinSet::new();
    loop {
        let (wake, next_at) = {
            let Some(account) = account.upgrade() else {
                return;
            };
            let mut state = account.lock();
            let now = Instant::now();
            let parallel = state.outbox.webhook.as_ref().map_or(1, |webhook| webhook.parallel);
            while running.len() < parallel
                && let Some(delivery) = state.outbox.next(now)
            {
                running.spawn(send(client.clone(), delivery));
            }
            let visible_in = state
                .contacts
                .next_due()
                .map(|due| (due - clock::now_ms()).max(1).unsigned_abs());
            let visible_at = visible_in.map(|ms| now + Duration::from_millis(ms));
            // With all senders busy a retry that is due has to wait for one of them, not for its time.
            let retry_at = state
                .outbox
                .retries
                .keys()
                .next()
                .map(|key| key.0)
                .filter(|_| running.len() < parallel);
            (account.wake.clone(), visible_at.into_iter().chain(retry_at).min())
        };
        tokio::select! {
            () = wake.notified() => {}
            Some(sent) = running.join_next() => {
                if let (Ok((delivery, result)), Some(account)) = (sent, account.upgrade()) {
                    account.lock().outbox.settle(delivery, result, Instant::now());
                }
            }
            () = sleep_until(next_at) => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn send(client: reqwest::Client, delivery: Delivery) -> (Delivery, Result<u16, &'static str>) {
    let timestamp = clock::now_ms().to_string();
    let body = serde_json::to_vec(&delivery.events).unwrap_or_default();
    let request = client
        .post(&delivery.webhook.url)
        .timeout(Duration::from_millis(delivery.webhook.timeout_ms))
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(SIGNATURE_HEADER, signature(&delivery.webhook.secret, &timestamp, &body))
        .header(TIMESTAMP_HEADER, timestamp)
        .body(body);
    let result = match request.send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) if error.is_timeout() => Err("timeout"),
        Err(error) => {
            tracing::debug!(%error, "webhook was not delivered");
            Err("unreachable")
        }
    };
    (delivery, result)
}

fn client() -> reqwest::Client {
    // Err: a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client without settings that could be wrong")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn outbox(change: impl FnOnce(&mut Webhook), events: u64) -> Outbox {
        let mut webhook = Webhook::new("http://127.0.0.1:1/", "s");
        change(&mut webhook);
        let mut outbox = Outbox {
            webhook: Some(webhook),
            ..Outbox::default()
        };
        let news = (1..=events)
            .map(|id| News {
                kind: EventKind::Updated,
                id,
                merged_into: None,
                at: 5,
            })
            .collect();
        outbox.add("demo", news, &mut Rng::of(1, Purpose::Choices, 0));
        outbox
    }

    fn ids(delivery: &Delivery) -> Vec<&str> {
        delivery.events.iter().map(|event| event.id.as_str()).collect()
    }

    #[test]
    fn the_signature_is_over_timestamp_and_body() {
        // printf '1700000000000.[]' | openssl dgst -sha256 -hmac s3cret
        assert_eq!(
            signature("s3cret", "1700000000000", b"[]"),
            "6b8c4a573afa62becd696b4e3fff9f5f432b76aaf7fc6e909e139caff3fdbe1e"
        );
    }

    #[test]
    fn batches_drops_and_duplicates() {
        let mut outbox = outbox(
            |webhook| {
                webhook.batch = 3;
                webhook.drop_every = 4;
                webhook.duplicate_every = 3;
            },
            8,
        );
        let now = Instant::now();
        let mut all = Vec::new();
        while let Some(delivery) = outbox.next(now) {
            assert!(delivery.events.len() <= 3);
            all.extend(ids(&delivery).into_iter().map(str::to_owned));
            outbox.settle(delivery, Ok(204), now);
        }
        assert_eq!(all, ["1", "2", "3", "3", "5", "6", "6", "7"]);
        let stats = &outbox.stats;
        assert_eq!(
            (
                stats.events,
                stats.dropped,
                stats.duplicated,
                stats.delivered,
                stats.waiting
            ),
            (8, 2, 2, 8, 0)
        );
    }

    #[test]
    fn shuffled_events_are_the_same_events() {
        let mut outbox = outbox(|webhook| webhook.shuffle = true, 50);
        let delivery = outbox.next(Instant::now()).expect("one batch");
        let mut numbers: Vec<u64> = ids(&delivery).iter().map(|id| id.parse().expect("number")).collect();
        assert_ne!(numbers, (1..=50).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn a_failed_call_is_tried_again_later_and_given_up_in_the_end() {
        let mut outbox = outbox(|webhook| webhook.attempts = 3, 2);
        let start = Instant::now();
        let mut now = start;
        for wait in [200, 400] {
            let delivery = outbox.next(now).expect("due");
            outbox.settle(delivery, Ok(503), now);
            assert!(outbox.next(now).is_none(), "not before its time");
            now += Duration::from_millis(wait);
        }
        let delivery = outbox.next(now).expect("third");
        assert_eq!(ids(&delivery), ["1", "2"]);
        outbox.settle(delivery, Err("timeout"), now);
        assert_eq!((outbox.stats.given_up, outbox.stats.waiting), (2, 0));
        assert_eq!(
            outbox.stats.attempts,
            BTreeMap::from([("503".into(), 2), ("timeout".into(), 1)])
        );
    }

    #[test]
    fn nothing_is_kept_while_it_is_off() {
        let mut outbox = outbox(|webhook| webhook.enabled = false, 5);
        assert!(outbox.next(Instant::now()).is_none());
        assert_eq!(outbox.stats, WebhookStats::default());
    }
}
