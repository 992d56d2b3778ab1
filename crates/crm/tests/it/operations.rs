//! Interactions and actions against small servers: chains, sessions, and how far a failed write got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use contacts::ErrorKind;
use crm::{Client, Connector, CrmResult, Deed, Done, Fate, Person, Reached};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{SMALL, client, listed, load, serve, small_with};

/// `SMALL` with an action that has one input and a chain of two for its notes.
const OPERATIONS: &str = r#"
[[interactions]]
type = "note"
items = "notes.body.results"
[[interactions.chain]]
as = "links"
request = { path = "/contacts/${contact.id}/links" }
[[interactions.chain]]
as = "notes"
request = { method = "POST", path = "/notes", json = '{ "ids": "${links.body.ids}", "first": "${contact.emails|first}" }' }
[interactions.map]
id = "item.id"
subject = "item.text"
date = "item.at"
date_as = "epoch_s"
status = "item.state"
statuses = { "In Arbeit" = "open" }

[[actions]]
name = "note"
request = { method = "POST", path = "/notes/new", json = '{ "text": "${input.text}" }' }
inputs = { text = { mandatory = true } }
result = { external_id = "response.body.id" }
"#;

fn with_operations(source: &str) -> Connector {
    load(&format!("{source}{OPERATIONS}"))
}

fn deed(client: &Client) -> Deed {
    let data = json!({"text": "hello"});
    let inputs = client.connector().inputs("note", data.as_object().unwrap(), None);
    Deed {
        inputs: inputs.expect("an action").expect("good inputs"),
        ..Deed::default()
    }
}

async fn act(client: &Client, within: Duration) -> CrmResult<Done> {
    client.act("note", &deed(client), Instant::now() + within).await
}

const LONG: Duration = Duration::from_secs(60);

/// The fate of a note that is answered like this.
async fn answered(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> Result<Done, (Fate, ErrorKind)> {
    let origin = serve(Router::new().route("/notes/new", post(move || async move { answer }))).await;
    let client = client(with_operations(SMALL), &origin);
    act(&client, LONG).await.map_err(|error| (error.fate(), error.kind))
}

#[tokio::test]
async fn each_step_of_a_chain_sees_the_replies_before_it() {
    let notes = |Json(asked): Json<Value>| async move {
        assert_eq!(asked, json!({"ids": [4, 5], "first": "e@x.test"}));
        Json(json!({"results": [
            {"id": 4, "text": "a", "at": 1_700_000_000, "state": "IN ARBEIT"},
            {"id": 5, "text": "b", "at": "1700000001", "state": "nirgends"},
        ]}))
    };
    let router = Router::new()
        .route("/contacts/7/links", get(|| async { Json(json!({"ids": [4, 5]})) }))
        .route("/contacts/8/links", get(|| async { StatusCode::NOT_FOUND }))
        .route("/contacts/9/links", get(|| async { Json(json!({"ids": "none"})) }))
        .route("/notes", post(notes));
    let origin = serve(router).await;
    let client = client(with_operations(SMALL), &origin);
    let of = async |id: &str| {
        let person = Person {
            id: id.to_owned(),
            emails: vec!["e@x.test".to_owned()],
            ..Person::default()
        };
        client.interactions("note", &person).await
    };
    let found = of("7").await.unwrap().items;
    assert_eq!((found[0].id.as_str(), found[0].status.as_deref()), ("4", Some("open")));
    assert_eq!(
        (found[1].date.0, found[1].status.as_deref()),
        (1_700_000_001_000_000, None)
    );
    assert_eq!(
        found[0].priority, None,
        "nothing is said of what the connector does not map"
    );
    assert_eq!(of("8").await.unwrap_err().kind, ErrorKind::Missing);
    assert_eq!(
        client.interactions("call", &Person::default()).await.unwrap_err().kind,
        ErrorKind::Rejected
    );
}

#[tokio::test]
async fn a_reply_without_the_list_is_no_empty_list() {
    let router = Router::new()
        .route("/contacts/7/links", get(|| async { Json(json!({"ids": []})) }))
        .route(
            "/notes",
            post(|| async { Json(json!({"welcome": "to the log-in page"})) }),
        );
    let client = client(with_operations(SMALL), &serve(router).await);
    let person = Person {
        id: "7".to_owned(),
        ..Person::default()
    };
    assert_eq!(
        client.interactions("note", &person).await.unwrap_err().kind,
        ErrorKind::BadReply
    );
}

#[tokio::test]
async fn good_replies_with_and_without_a_body_are_done() {
    let made = answered((StatusCode::CREATED, Json(json!({"id": 9})))).await.unwrap();
    assert_eq!(made.external_id.as_deref(), Some("9"));
    for status in [StatusCode::NO_CONTENT, StatusCode::CREATED, StatusCode::OK] {
        assert_eq!(answered(status).await, Ok(Done::default()), "{status}");
    }
    let odd = answered((StatusCode::OK, Json(json!({"id": {"deep": 1}})))).await;
    assert_eq!(odd, Ok(Done::default()), "it is done, whatever can be read of it");
}

#[tokio::test]
async fn what_the_crm_answered_decides_the_fate() {
    let told = json!({"error": "x"});
    for (status, fate) in [
        (400, Fate::Refused),
        (404, Fate::Refused),
        (409, Fate::Refused),
        (422, Fate::Refused),
        (401, Fate::Credentials),
        (403, Fate::Refused),
        (429, Fate::NotStarted),
        (408, Fate::Unknown),
        (302, Fate::Unknown),
        (500, Fate::Unknown),
        (503, Fate::Unknown),
    ] {
        let answer = answered((StatusCode::from_u16(status).unwrap(), Json(told.clone()))).await;
        assert_eq!(answer.unwrap_err().0, fate, "{status}");
    }
    let html = answered(([("content-type", "text/html")], "<form>log in</form>")).await;
    assert_eq!(html.unwrap_err(), (Fate::Unknown, ErrorKind::BadReply));
    let broken = answered(([("content-type", "application/json")], "{\"id\": ")).await;
    assert_eq!(broken.unwrap_err(), (Fate::Unknown, ErrorKind::BadReply));
}

/// A server that reads a request and then does `then` with its connection.
async fn raw(then: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(then).await;
        }
    });
    (origin, requests)
}

#[tokio::test]
async fn a_write_is_sent_once_however_its_connection_ends() {
    let cut_off = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"id\"";
    for then in [&b""[..], b"HTTP/1.1 201 Cre", cut_off, b"rubbish\r\n\r\n"] {
        let (origin, requests) = raw(then).await;
        let client = client(with_operations(SMALL), &origin);
        let error = act(&client, LONG).await.unwrap_err();
        let shown = String::from_utf8_lossy(then).into_owned();
        assert_eq!(
            (error.fate(), error.reached),
            (Fate::Unknown, Reached::Perhaps),
            "{shown}"
        );
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{shown}");
    }
}

#[tokio::test]
async fn nobody_there_was_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let client = client(with_operations(SMALL), &origin);
    let error = act(&client, LONG).await.unwrap_err();
    assert_eq!((error.fate(), error.kind), (Fate::NotStarted, ErrorKind::Unavailable));
}

#[tokio::test]
async fn the_deadline_tells_before_from_after() {
    let silent = Router::new().route("/notes/new", post(std::future::pending::<&str>));
    let client = client(with_operations(SMALL), &serve(silent).await);
    let error = act(&client, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.fate(), error.kind), (Fate::Unknown, ErrorKind::Timeout));

    // With a log-in that hangs, the write was never sent.
    let login = Router::new().route("/login", post(std::future::pending::<&str>));
    let waiting = crate::support::client(with_operations(&with_session()), &serve(login).await);
    let error = act(&waiting, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.fate(), error.kind), (Fate::NotStarted, ErrorKind::Timeout));
}

fn with_session() -> String {
    small_with(&[(
        "kind = \"bearer\"\ntoken = \"${conn.token}\"",
        "kind = \"session\"\nrequest = { method = \"POST\", path = \"/login\", json = '{\"key\": \"${conn.token}\"}' }\n\
         learn = { ticket = \"response.body.ticket\" }\nheaders = { x-ticket = \"${session.ticket}\" }",
    )])
}

#[tokio::test]
async fn a_session_that_is_over_is_renewed_and_a_login_that_fails_sends_nothing() {
    let (valid, written) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let logins = Arc::new(AtomicUsize::new(0));
    let (current, counter, given) = (valid.clone(), written.clone(), logins.clone());
    let login = move || async move {
        match given.fetch_add(1, Ordering::SeqCst) + 1 {
            3 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            n => Json(json!({ "ticket": format!("t{n}") })).into_response(),
        }
    };
    let write = move |headers: HeaderMap| async move {
        if headers["x-ticket"] != format!("t{}", current.load(Ordering::SeqCst)).as_str() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        counter.fetch_add(1, Ordering::SeqCst);
        Json(json!({"id": 1})).into_response()
    };
    let router = Router::new()
        .route("/login", post(login))
        .route("/notes/new", post(write));
    let client = client(with_operations(&with_session()), &serve(router).await);
    act(&client, LONG).await.unwrap();
    valid.store(2, Ordering::SeqCst);
    act(&client, LONG).await.unwrap();
    assert_eq!((written.load(Ordering::SeqCst), logins.load(Ordering::SeqCst)), (2, 2));
    // Over again, and the third log-in fails.
    valid.store(4, Ordering::SeqCst);
    let error = act(&client, LONG).await.unwrap_err();
    assert_eq!((error.fate(), error.reached), (Fate::NotStarted, Reached::Nobody));
    act(&client, LONG).await.unwrap();
    // A fresh session that is refused is the credentials' fault, and is not tried for ever.
    valid.store(99, Ordering::SeqCst);
    assert_eq!(act(&client, LONG).await.unwrap_err().fate(), Fate::Credentials);
    assert_eq!((written.load(Ordering::SeqCst), logins.load(Ordering::SeqCst)), (3, 5));
}

#[test]
fn a_wrong_declaration_is_told_at_load() {
    for (from, to, says) in [
        (
            "statuses = { \"In Arbeit\" = \"open\" }",
            "statuses = { \"In Arbeit\" = \"busy\" }",
            "`busy` is no word of Talkdesk's",
        ),
        ("date_as = \"epoch_s\"", "date_as = \"soon\"", "is not a form of time"),
        (
            "text = { mandatory = true }",
            "text = { type = \"select\" }",
            "a select has `options`",
        ),
        (
            "text = { mandatory = true }",
            "text = { options = [\"a\"] }",
            "a select has `options`",
        ),
        (
            "text = { mandatory = true }",
            "text = { type = \"select\", options = [\"a,b\"] }",
            "has no comma",
        ),
        (
            "text = { mandatory = true }",
            "text = { as = \"iso\" }",
            "only a `datetime`",
        ),
        (
            "text = { mandatory = true }",
            "other = { mandatory = true }",
            "`input.text` is not known",
        ),
        ("name = \"note\"", "name = \"Take a note\"", "it stands in a URL"),
        (
            "path = \"/notes/new\"",
            "path = \"/notes/${contact.id}\"",
            "empty or dots",
        ),
        (
            "external_id = \"response.body.id\"",
            "external_id = \"conn.token\"",
            "secret",
        ),
    ] {
        assert!(OPERATIONS.contains(from), "{from}");
        let source = format!("{SMALL}{}", OPERATIONS.replace(from, to));
        match Connector::load(&source, "small.toml") {
            Ok(_) => panic!("{to} was taken"),
            Err(problems) => assert!(listed(&problems).contains(says), "{to}: {}", listed(&problems)),
        }
    }
    let twice = format!("{SMALL}{OPERATIONS}{OPERATIONS}");
    let problems = listed(&Connector::load(&twice, "small.toml").expect_err("two of each"));
    assert!(
        problems.contains("two actions are called `note`")
            && problems.contains("two interactions are of the type `note`")
    );
}
