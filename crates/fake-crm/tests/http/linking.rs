//! The house as a Dealer Management System: people found and changed one by one, and a bridge that is told of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use fake_crm::{AccountOptions, Change, Control, FakeCrm, Fields, Options, Profile, UpdateContact};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Served, answer, ids, options, served, wait_until};

async fn patch(crm: &Served, id: &str, body: Value) -> (StatusCode, Value) {
    let url = format!("{}/api/demo/contacts/{id}", crm.base);
    answer(
        crm.client
            .request(Method::PATCH, url)
            .bearer_auth("demo-token")
            .json(&body),
    )
    .await
}

fn person(email: &str, phone: &str) -> Fields {
    Fields {
        emails: Some(vec![String::new(), email.to_owned()]),
        phones: Some(vec![phone.to_owned()]),
        ..Fields::default()
    }
}

#[tokio::test]
async fn people_are_found_by_address_and_number() {
    let crm = served(20).await;
    let edit = |id, email: &str, phone: &str| {
        let change = Change::ids([id]).with(person(email, phone));
        crm.crm.control(Control::edit("demo", change)).done();
    };
    edit(3, "Ines@Nordlys.example", "22 33 44 55");
    edit(4, "ines@nordlys.example", "+47 99 33 44 55");
    crm.crm
        .control(Control::archive("demo", Change::ids([5]).with(Fields::default())))
        .into_result()
        .expect_err("no fields");
    let find = async |query: &str| {
        let rows = crm.rows(&format!("contacts/find?{query}")).await;
        ids(&rows).iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(find("email=ines@nordlys.example").await, ["3", "4"]);
    assert_eq!(find("email=ines@nordlys.example&limit=1").await, ["3"]);
    assert_eq!(find("phone=%2B4722334455").await, ["3"]);
    assert_eq!(find("phone=%2B4722334455&email=ines@nordlys.example").await, ["3"]);
    edit(3, "gone@nordlys.example", "1");
    assert_eq!(
        find("email=ines@nordlys.example").await,
        ["4"],
        "what is there now counts"
    );
    crm.crm.control(Control::archive("demo", Change::ids([4]))).done();
    assert!(find("email=ines@nordlys.example").await.is_empty());
    assert_eq!(crm.call("contacts/find?limit=3").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_link_is_written_read_and_taken_away() {
    let crm = served(5).await;
    let before = crm.ok("contacts/2").await;
    let link = json!({"url": "https://app.web1on1.chat/conversations/60ab", "conversation": "60ab", "organization": "5c13", "label": null});
    let (status, written) = patch(&crm, "2", json!({"web1on1": link})).await;
    assert_eq!((status, &written["web1on1"]), (StatusCode::OK, &link));
    assert_eq!(crm.ok("contacts/2").await, written);
    assert_eq!(written["emails"], before["emails"], "what is absent stays");
    assert_ne!(written["modified_at"], before["modified_at"]);
    // A person's fields without the link, and the truth of it all.
    let (_, named) = patch(&crm, "2", json!({"first_name": "Ines", "emails": ["i@b.example"]})).await;
    assert_eq!((&named["web1on1"], &named["first_name"]), (&link, &json!("Ines")));
    let truth = crm.crm.truth("demo");
    let linked: Vec<_> = truth
        .iter()
        .filter_map(|row| row.web1on1.as_ref()?.url.as_deref())
        .collect();
    assert_eq!(linked, ["https://app.web1on1.chat/conversations/60ab"]);
    let (_, away) = patch(&crm, "2", json!({"web1on1": null})).await;
    assert!(away.get("web1on1").is_none());
    for (id, body, status) in [
        ("9", json!({"web1on1": null}), 404),
        ("2", json!({"web1on1": {"uri": "x"}}), 400),
        ("2", json!({"emails": ["n/a"]}), 422),
    ] {
        assert_eq!(patch(&crm, id, body).await.0, status);
    }
    assert_eq!(crm.call("contacts/9").await.0, 404);
}

#[test]
fn two_accounts_may_know_the_same_people() {
    let account = |name: &str, profile, like: Option<&str>| AccountOptions {
        name: name.to_owned(),
        profile,
        like: like.map(str::to_owned),
        contacts: 50,
        ..AccountOptions::default()
    };
    let crm = FakeCrm::new(Options {
        accounts: vec![
            account("dms", Profile::House, None),
            account("chat", Profile::Web1on1, Some("dms")),
            account("other", Profile::Web1on1, None),
        ],
        ..options(1)
    });
    assert_eq!(crm.truth("dms"), crm.truth("chat"));
    assert_ne!(crm.truth("dms"), crm.truth("other"));
}

/// A bridge that takes what is proven, once it has refused `refuse` calls.
#[derive(Clone)]
struct Bridge {
    url: String,
    refuse: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<Value>>>,
}

const SECRET: &str = "dealer-secret";

impl Bridge {
    async fn open(refuse: usize) -> Bridge {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let bridge = Bridge {
            url: format!("http://{}/updatecontact", listener.local_addr().expect("address")),
            refuse: Arc::new(AtomicUsize::new(refuse)),
            told: Arc::default(),
        };
        let app = axum::Router::new()
            .route("/updatecontact", post(take))
            .with_state(bridge.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        bridge
    }

    /// How often each contact was told of.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for one in self.told.lock().iter() {
            *counts.entry(one["id"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
        counts
    }
}

async fn take(State(bridge): State<Bridge>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(&body);
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if text("x-dms-proof") != hex::encode(mac.finalize().into_bytes()) || text("authorization") != "Bearer dealer-token"
    {
        return StatusCode::UNAUTHORIZED;
    }
    let refuses = |left: usize| left.checked_sub(1);
    if bridge
        .refuse
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuses)
        .is_ok()
    {
        return StatusCode::TOO_MANY_REQUESTS;
    }
    bridge.told.lock().push(serde_json::from_slice(&body).expect("JSON"));
    StatusCode::ACCEPTED
}

fn update(bridge: &Bridge) -> UpdateContact {
    UpdateContact {
        secret: Some(SECRET.to_owned()),
        header: "x-dms-proof".to_owned(),
        token: Some("dealer-token".to_owned()),
        backoff_ms: 1,
        ..UpdateContact::new(&bridge.url, "5c13")
    }
}

#[tokio::test]
async fn a_bridge_is_told_of_each_contact_that_is_made_or_changed() {
    let (crm, bridge) = (served(20).await, Bridge::open(2).await);
    let told = |update| crm.crm.control(Control::update_contact("demo", update)).done();
    told(Some(update(&bridge)));
    let change = Change::ids([3]).with(person("ines@nordlys.example", " 22 33 44 55 "));
    crm.crm.control(Control::edit("demo", change)).done();
    wait_until("it was told", || bridge.told.lock().len() == 1).await;
    assert_eq!(
        bridge.told.lock()[0],
        json!({"id": "3", "organization": "5c13", "email": "ines@nordlys.example", "telephone": "22 33 44 55"})
    );
    // Of somebody with nothing to be found by, and of one who goes, nothing is told.
    crm.crm
        .control(Control::edit("demo", Change::ids([4]).with(person(" ", ""))))
        .done();
    crm.crm.control(Control::delete("demo", Change::ids([5]))).done();
    patch(&crm, "3", json!({"web1on1": {"url": "https://x.example"}})).await;
    wait_until("the bridge's own write is told, too", || bridge.told.lock().len() == 2).await;
    wait_until("nothing waits", || crm.crm.stats("demo").webhooks.waiting == 0).await;
    assert_eq!(bridge.counts(), BTreeMap::from([("3".to_owned(), 2)]));
    told(None);
    crm.crm.control(Control::edit("demo", Change::ids([3]))).done();
    assert_eq!(crm.crm.stats("demo").webhooks.waiting, 0);
}

#[tokio::test]
async fn a_bridge_is_told_of_everybody_and_whatever_it_refuses_comes_again() {
    let (crm, bridge) = (served(200).await, Bridge::open(30).await);
    let findable = |text: &String| !text.trim().is_empty();
    let expected: Vec<String> = crm
        .crm
        .truth("demo")
        .iter()
        .filter(|row| row.emails.iter().chain(&row.phones).any(findable))
        .map(|row| row.id.clone())
        .collect();
    let all = UpdateContact {
        all: true,
        shuffle: true,
        ..update(&bridge)
    };
    crm.crm.control(Control::update_contact("demo", Some(all))).done();
    wait_until("everybody was told of", || crm.crm.stats("demo").webhooks.waiting == 0).await;
    let mut told: Vec<u64> = bridge
        .counts()
        .into_keys()
        .map(|id| id.parse().expect("a number"))
        .collect();
    told.sort_unstable();
    assert_eq!(told.iter().map(u64::to_string).collect::<Vec<_>>(), expected);
    assert_eq!(bridge.told.lock().len(), expected.len());
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!((stats.given_up, stats.attempts["429"]), (0, 30));
}
