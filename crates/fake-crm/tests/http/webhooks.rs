//! Webhooks as their receiver sees them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use fake_crm::{Change, Control, SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, signature};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{Served, served, wait_until};

const SECRET: &str = "hook-secret";

#[derive(Clone)]
struct Receiver {
    url: String,
    status: Arc<AtomicU16>,
    calls: Arc<Mutex<Vec<Vec<Value>>>>,
}

impl Receiver {
    async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("address"));
        let receiver = Receiver {
            url,
            status: Arc::new(AtomicU16::new(204)),
            calls: Arc::default(),
        };
        let app = axum::Router::new()
            .route("/hook", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    fn events(&self) -> Vec<Value> {
        self.calls.lock().iter().flatten().cloned().collect()
    }

    fn types(&self) -> Vec<String> {
        self.events()
            .iter()
            .map(|event| event["type"].as_str().expect("type").to_owned())
            .collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if text(SIGNATURE_HEADER) != signature(SECRET, text(TIMESTAMP_HEADER), &body) {
        return StatusCode::FORBIDDEN;
    }
    receiver
        .calls
        .lock()
        .push(serde_json::from_slice(&body).expect("an array of events"));
    StatusCode::from_u16(receiver.status.load(Ordering::SeqCst)).expect("status")
}

async fn subscribed(change: impl FnOnce(&mut Webhook)) -> (Served, Receiver) {
    let (crm, receiver) = (served(200).await, Receiver::start().await);
    let mut webhook = Webhook {
        backoff_ms: 1,
        ..Webhook::new(&receiver.url, SECRET)
    };
    change(&mut webhook);
    crm.crm.control(Control::webhook("demo", Some(webhook))).done();
    (crm, receiver)
}

async fn drained(crm: &Served) {
    wait_until("all events are settled", || crm.crm.stats("demo").webhooks.waiting == 0).await;
}

#[tokio::test]
async fn every_kind_of_edit_is_told_signed() {
    let (crm, receiver) = subscribed(|_| {}).await;
    for control in [
        Control::create("demo", 1),
        Control::edit("demo", Change::ids([1])),
        Control::archive("demo", Change::ids([2])),
        Control::delete("demo", Change::ids([3])),
        Control::merge("demo", "4", "5"),
    ] {
        crm.crm.control(control).done();
        drained(&crm).await;
    }
    let kinds = ["created", "updated", "archived", "deleted", "merged", "updated"];
    assert_eq!(receiver.types(), kinds.map(|kind| format!("contact.{kind}")));
    let events = receiver.events();
    assert_eq!(
        (&events[0]["id"], &events[0]["account"]),
        (&"201".into(), &"demo".into())
    );
    assert_eq!(
        (&events[4]["id"], &events[4]["merged_into"]),
        (&"4".into(), &"5".into())
    );
    assert!(events[0].get("merged_into").is_none());
    let last = crm.crm.history("demo").pop().expect("edit");
    assert_eq!(events[5]["at"], last.modified_at_ms);
    let distinct: BTreeSet<&str> = events
        .iter()
        .map(|event| event["event_id"].as_str().expect("id"))
        .collect();
    assert_eq!(distinct.len(), 6);
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!((stats.events, stats.delivered, stats.attempts["204"]), (6, 6, 5));
}

#[tokio::test]
async fn batches_hold_at_most_what_was_asked_for() {
    let (crm, receiver) = subscribed(|webhook| webhook.batch = 1).await;
    crm.crm.control(Control::edit("demo", Change::random(7))).done();
    drained(&crm).await;
    assert_eq!(receiver.calls.lock().iter().map(Vec::len).collect::<Vec<_>>(), [1; 7]);
    let (crm, receiver) = subscribed(|_| {}).await;
    crm.crm.control(Control::edit("demo", Change::random(200))).done();
    drained(&crm).await;
    assert_eq!(
        receiver.calls.lock().iter().map(Vec::len).collect::<Vec<_>>(),
        [100, 100]
    );
}

#[tokio::test]
async fn a_receiver_in_trouble_is_tried_again() {
    let (crm, receiver) = subscribed(|_| {}).await;
    receiver.status.store(503, Ordering::SeqCst);
    crm.crm.control(Control::edit("demo", Change::ids([1]))).done();
    wait_until("a failed attempt", || !receiver.calls.lock().is_empty()).await;
    drained(&crm).await;
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!((stats.attempts["503"], stats.given_up, stats.delivered), (4, 1, 0));
    let ids: BTreeSet<String> = receiver
        .events()
        .iter()
        .map(|event| event["event_id"].to_string())
        .collect();
    assert_eq!((receiver.events().len(), ids.len()), (4, 1), "the same event each time");
}

#[tokio::test]
async fn unreachable_and_wrongly_keyed_receivers_count_as_failures() {
    let (crm, _receiver) = subscribed(|webhook| {
        webhook.attempts = 1;
        webhook.secret = "another".to_owned();
    })
    .await;
    crm.crm.control(Control::edit("demo", Change::ids([1]))).done();
    drained(&crm).await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("address");
    let webhook = Webhook {
        attempts: 1,
        ..Webhook::new(format!("http://{closed}/"), SECRET)
    };
    crm.crm.control(Control::webhook("demo", Some(webhook))).done();
    crm.crm.control(Control::edit("demo", Change::ids([1]))).done();
    drained(&crm).await;
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!(
        (stats.attempts["403"], stats.attempts["unreachable"], stats.given_up),
        (1, 1, 2)
    );
}

#[tokio::test]
async fn events_are_dropped_doubled_or_switched_off() {
    let (crm, receiver) = subscribed(|webhook| {
        webhook.drop_every = 2;
        webhook.duplicate_every = 3;
    })
    .await;
    crm.crm
        .control(Control::edit("demo", Change::ids([1, 2, 3, 4, 5])))
        .done();
    drained(&crm).await;
    let ids: Vec<String> = receiver
        .events()
        .iter()
        .map(|event| event["id"].as_str().expect("id").to_owned())
        .collect();
    assert_eq!(ids, ["1", "3", "3", "5"]);
    let off = Webhook {
        enabled: false,
        ..Webhook::new(&receiver.url, SECRET)
    };
    crm.crm.control(Control::webhook("demo", Some(off))).done();
    crm.crm.control(Control::edit("demo", Change::ids([1]))).done();
    assert_eq!((crm.crm.stats("demo").webhooks.events, receiver.events().len()), (5, 4));
}

#[tokio::test]
async fn an_event_waits_for_its_edit_to_be_seen_unless_it_is_early() {
    let (crm, receiver) = subscribed(|_| {}).await;
    crm.crm.control(Control::edit("demo", Change::ids([1]).held())).done();
    assert_eq!(crm.crm.stats("demo").webhooks.events, 0);
    crm.crm.control(Control::commit("demo")).done();
    drained(&crm).await;
    assert_eq!(receiver.events().len(), 1);

    let (crm, receiver) = subscribed(|webhook| webhook.early = true).await;
    crm.crm.control(Control::edit("demo", Change::ids([1]).held())).done();
    drained(&crm).await;
    assert_eq!(receiver.events().len(), 1);
    assert_eq!(crm.batch(&["1"]).await[0].version, 1, "told before it can be read");
}

#[tokio::test]
async fn a_lagging_edit_is_told_without_anybody_calling() {
    let (crm, receiver) = subscribed(|_| {}).await;
    crm.crm.knobs("demo", |knobs| knobs.visibility_lag_ms = 20);
    crm.crm.control(Control::edit("demo", Change::ids([1]))).done();
    wait_until("the event", || receiver.events().len() == 1).await;
}

#[tokio::test]
async fn without_a_subscription_nothing_waits() {
    let (crm, receiver) = subscribed(|webhook| webhook.batch = 1).await;
    crm.crm.control(Control::edit("demo", Change::random(100))).done();
    crm.crm.control(Control::webhook("demo", None)).done();
    drained(&crm).await;
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!((stats.events, stats.delivered), (100, receiver.events().len() as u64));
    assert!(stats.delivered < 100, "{stats:?}");
}
