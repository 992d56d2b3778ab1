//! The `[link]` of the shipped Web1on1 connector against a small server that does what the vendor documents: filters joined
//! with "and", and a PATCH that replaces arrays.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use contacts::ErrorKind;
use contacts::linking::{Link, Matched, Merged, Needle, Own, UrlTemplate, matched, merge};
use crm::{Client, Connector, LinkTo, Pacer};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{SMALL, client_with, load, serve};

type People = Arc<Mutex<BTreeMap<String, Value>>>;

fn people() -> People {
    let rows = [
        json!({"id": "60aa", "organization": "5c13", "conversation": "60ab",
            "profile": {"givenName": "Ines", "familyName": "Marchetti", "email": "Ines@Nordlys.example", "telephone": "+4722334455"},
            "links": [{"label": "Existing", "url": "https://a.example/1", "icon": "https://a.example/i.png"}]}),
        json!({"id": "60ac", "organization": "5c13", "profile": {"email": "ines@nordlys.example"}}),
        json!({"id": "60ad", "organization": "5c14", "profile": {"telephone": "+4722334455"}}),
        json!({"id": "60ae", "organization": "5c13", "links": null}),
        json!({"id": "60af", "organization": "5c13", "links": "none", "profile": {"email": "odd@nordlys.example"}}),
    ];
    let by_id = rows
        .into_iter()
        .map(|row| (row["id"].as_str().unwrap().to_owned(), row));
    Arc::new(Mutex::new(by_id.collect()))
}

async fn filtered(State(people): State<People>, Query(query): Query<BTreeMap<String, String>>) -> Json<Vec<Value>> {
    let fits = |row: &Value| {
        query.iter().filter(|(name, _)| *name != "limit").all(|(name, wanted)| {
            let held = row.pointer(&format!("/{}", name.replace('.', "/")));
            held.and_then(Value::as_str)
                .is_some_and(|held| held.eq_ignore_ascii_case(wanted))
        })
    };
    Json(people.lock().values().filter(|row| fits(row)).cloned().collect())
}

async fn one(State(people): State<People>, Path(id): Path<String>) -> Response {
    let row = people.lock().get(&id).cloned();
    row.map_or(StatusCode::NOT_FOUND.into_response(), |row| Json(row).into_response())
}

async fn patch(State(people): State<People>, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    match people.lock().get_mut(&id) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(row) => {
            for (key, value) in body.as_object().unwrap() {
                row[key] = value.clone();
            }
            Json(row.clone()).into_response()
        }
    }
}

async fn web1on1(people: &People) -> Client {
    let router = Router::new()
        .route("/v2/contacts", get(filtered))
        .route("/v2/contacts/{id}", get(one).patch(patch))
        .with_state(people.clone());
    let connector = Connector::load(Connector::shipped("web1on1").unwrap(), "web1on1.toml").unwrap();
    let extra = [("bot_token", "b"), ("organization", "5c13")];
    client_with(
        connector,
        &serve(router).await,
        &extra,
        Default::default(),
        Pacer::unlimited(),
    )
    .expect("a client")
}

#[tokio::test]
async fn people_are_found_by_either_needle_and_only_if_they_bear_it() {
    let client = web1on1(&people()).await;
    let ids = async |needle| -> Vec<String> {
        let found = client.find_linked(&needle, Some("5c13")).await.unwrap();
        found.into_iter().map(|linked| linked.id).collect()
    };
    let by_email = ids(Needle::Email("ines@nordlys.example".into())).await;
    let by_phone = ids(Needle::Phone("+4722334455".into())).await;
    assert_eq!(by_email, ["60aa", "60ac"]);
    assert_eq!(by_phone, ["60aa"], "the other one is another dealer's");
    let union = matched(by_email.iter().chain(&by_phone).map(String::as_str));
    assert_eq!(union, Matched::Many(vec!["60aa".into(), "60ac".into()]));
    assert!(ids(Needle::Email("nobody@nordlys.example".into())).await.is_empty());

    // A server that does not know the filter answers with everybody.
    let everybody =
        Router::new().route(
            "/v2/contacts",
            get(|State(people): State<People>| async move {
                Json(people.lock().values().take(3).cloned().collect::<Vec<_>>())
            }),
        );
    let connector = Connector::load(Connector::shipped("web1on1").unwrap(), "web1on1.toml").unwrap();
    let origin = serve(everybody.with_state(people())).await;
    let extra = [("bot_token", "b"), ("organization", "5c13")];
    let client = client_with(connector, &origin, &extra, Default::default(), Pacer::unlimited()).expect("a client");
    let found = client
        .find_linked(&Needle::Phone("+4722334455".into()), Some("5c13"))
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|linked| linked.id.as_str()).collect::<Vec<_>>(),
        ["60aa"]
    );
}

#[tokio::test]
async fn a_link_is_written_beside_those_of_others_and_once() {
    let people = people();
    let client = web1on1(&people).await;
    let own = Own {
        template: UrlTemplate::parse("https://dms.example/c/{id}/", "id").ok(),
        shown: Vec::new(),
    };
    for (id, others) in [("60aa", 1), ("60ac", 0), ("60ae", 0)] {
        for url in [
            "https://dms.example/c/1/",
            "https://dms.example/c/1/",
            "https://dms.example/c/2/",
        ] {
            let read = client.read_linked(id, Some("5c13")).await.unwrap();
            let wanted = Link {
                label: "View in DMS".into(),
                url: url.into(),
                icon: String::new(),
            };
            if let Merged::Write(links) = merge(&read.links.unwrap(), &own, &wanted) {
                let to = LinkTo {
                    id: id.into(),
                    links,
                    ..LinkTo::default()
                };
                client.write_link(&to).await.unwrap();
            }
        }
        let links = people.lock()[id]["links"].as_array().unwrap().clone();
        assert_eq!(links.len(), others + 1, "{links:?}");
        assert_eq!(links[others]["url"], "https://dms.example/c/2/");
    }
    assert_eq!(
        people.lock()["60aa"]["links"][0],
        json!({"label": "Existing", "url": "https://a.example/1", "icon": "https://a.example/i.png"})
    );
    assert_eq!(
        people.lock()["60aa"]["profile"]["email"],
        "Ines@Nordlys.example",
        "nothing else was written"
    );
}

#[tokio::test]
async fn a_persons_fields_are_written_with_what_the_profile_held() {
    let people = people();
    people.lock().get_mut("60aa").unwrap()["profile"]["locale"] = json!("nb");
    let client = web1on1(&people).await;
    let write = async |name: Option<&str>, email: Option<&str>, phone: Option<&str>| {
        let read = client.read_linked("60aa", Some("5c13")).await.unwrap();
        let to = LinkTo {
            id: read.id,
            links: read.links.unwrap(),
            name: name.map(str::to_owned),
            email: email.map(str::to_owned),
            phone: phone.map(str::to_owned),
            record: read.record,
            ..LinkTo::default()
        };
        client.write_link(&to).await.unwrap();
        people.lock()["60aa"]["profile"].clone()
    };
    let mut expected = people.lock()["60aa"]["profile"].clone();
    assert_eq!(write(None, None, None).await, expected);
    expected["email"] = json!("new@nordlys.example");
    assert_eq!(write(None, Some("new@nordlys.example"), None).await, expected);
    for (name, given, family) in [
        ("Ines de la Cruz", "Ines", "de la Cruz"),
        ("  Ines   Berg ", "Ines", "Berg"),
        ("Cher", "Cher", ""),
    ] {
        (expected["givenName"], expected["familyName"]) = (json!(given), json!(family));
        expected["telephone"] = json!("+4722000000");
        assert_eq!(write(Some(name), None, Some("+4722000000")).await, expected);
        let read = client.read_linked("60aa", None).await.unwrap();
        let once = name.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(read.name, Some(once), "what was written comes back as one name");
    }
    assert_eq!(people.lock()["60aa"]["links"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_never_written_over() {
    let client = web1on1(&people()).await;
    assert_eq!(
        client.read_linked("60af", None).await.unwrap_err().kind,
        ErrorKind::BadReply
    );
    assert_eq!(
        client.read_linked("gone", None).await.unwrap_err().kind,
        ErrorKind::Missing
    );
    let to = LinkTo {
        id: "gone".into(),
        ..LinkTo::default()
    };
    assert_eq!(client.write_link(&to).await.unwrap_err().kind, ErrorKind::Missing);
    // Another record than the one asked for.
    let wrong = Router::new().route(
        "/v2/contacts/{id}",
        get(|| async { Json(json!({"id": "60ff", "links": []})) }),
    );
    let connector = Connector::load(Connector::shipped("web1on1").unwrap(), "web1on1.toml").unwrap();
    let other = client_with(
        connector,
        &serve(wrong).await,
        &[("bot_token", "b"), ("organization", "o")],
        Default::default(),
        Pacer::unlimited(),
    );
    assert_eq!(
        other.unwrap().read_linked("60aa", None).await.unwrap_err().kind,
        ErrorKind::BadReply
    );
    // A connector that links nothing says so.
    let small = crate::support::client(load(SMALL), &serve(Router::new()).await);
    assert!(!small.connector().can_link());
    assert_eq!(
        small.read_linked("1", None).await.unwrap_err().kind,
        ErrorKind::Rejected
    );
}
