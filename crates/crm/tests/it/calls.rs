//! Checks, sessions and time windows: calls that go well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use contacts::ErrorKind;
use crm::Window;
use serde_json::{Value, json};

use crate::support::{SMALL, client, load, serve, small_with};

#[tokio::test]
async fn a_check_learns_who_it_is_or_fails() {
    let me = |body: Value| async move {
        let origin = serve(Router::new().route("/me", get(move || async move { Json(body) }))).await;
        client(load(SMALL), &origin).check().await.map_err(|error| error.kind)
    };
    let checked = me(json!({ "org": 7, "user": "u-1", "plan": "pro" })).await.unwrap();
    assert_eq!(
        (checked.org.as_str(), checked.principal.as_str(), checked.sees_all),
        ("7", "u-1", false)
    );
    assert_eq!(checked.learned, crate::support::fields(&[("plan", "pro")]));
    assert_eq!(me(json!({ "user": "u-1" })).await, Err(ErrorKind::BadReply));
    assert_eq!(me(json!({ "org": "x" })).await, Err(ErrorKind::BadReply));
}

#[tokio::test]
async fn a_session_is_shared_renewed_once_and_dropped() {
    let source = small_with(&[(
        "kind = \"bearer\"\ntoken = \"${conn.token}\"",
        "kind = \"session\"\nrequest = { method = \"POST\", path = \"/login\", json = '{\"key\": \"${conn.token}\"}' }\n\
         learn = { ticket = \"response.body.ticket\" }\nheaders = { x-ticket = \"${session.ticket}\" }",
    )]);
    let logins = Arc::new(AtomicUsize::new(0));
    let valid = Arc::new(AtomicUsize::new(1));
    let (counter, current) = (logins.clone(), valid.clone());
    let login = move |Json(body): Json<Value>| async move {
        assert_eq!(body, json!({ "key": "secret-token" }));
        Json(json!({ "ticket": format!("t{}", counter.fetch_add(1, Ordering::SeqCst) + 1) }))
    };
    let contacts = move |headers: axum::http::HeaderMap| async move {
        let expected = format!("t{}", current.load(Ordering::SeqCst));
        if headers["x-ticket"] == expected.as_str() {
            Json(json!({ "results": [] })).into_response()
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        }
    };
    let router = Router::new()
        .route("/login", post(login))
        .route("/contacts", get(contacts));
    let origin = serve(router).await;
    let client = client(load(&source), &origin);

    client.full_page(None).await.expect("the first login");
    client.full_page(None).await.expect("the same session");
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    valid.store(2, Ordering::SeqCst);
    client.full_page(None).await.expect("renewed");
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    valid.store(99, Ordering::SeqCst);
    let error = client.full_page(None).await.expect_err("renewed in vain");
    assert_eq!((error.kind, logins.load(Ordering::SeqCst)), (ErrorKind::Credentials, 3));
}

#[tokio::test]
async fn windows_are_widened_to_the_precision_of_the_crm() {
    let changes = |since: &str| {
        format!(
            "{SMALL}updated = \"item.m\"\n[contacts.changes]\nitems = \"response.body.results\"\n\
             request = {{ path = \"/changes\", query = {{ a = \"${{since.wire}}\", b = \"${{until.wire}}\" }} }}\n\
             since = {{ {since}, overlap = \"2d\" }}\npage = {{ kind = \"none\" }}\n"
        )
    };
    let asked = |since: &'static str| {
        let source = changes(since);
        async move {
            let seen = Arc::new(std::sync::Mutex::new(String::new()));
            let sink = seen.clone();
            let handler = move |uri: axum::http::Uri| async move {
                *sink.lock().unwrap() = uri.query().unwrap_or_default().to_owned();
                Json(json!({ "results": [] }))
            };
            let origin = serve(Router::new().route("/changes", get(handler))).await;
            // 2026-11-21T01:04:05.678901Z and one second later.
            let since = contacts::Micros(1_795_223_045_678_901);
            let window = Window {
                since,
                until: since.plus(Duration::from_secs(1)),
            };
            client(load(&source), &origin)
                .changes_page(window, None, None)
                .await
                .expect("a page");
            seen.lock().unwrap().clone()
        }
    };
    assert_eq!(
        asked("wire = \"epoch_ms\", precision = \"1ms\"").await,
        "a=1795223045678&b=1795223046679"
    );
    assert_eq!(
        asked("wire = \"epoch_s\", precision = \"1s\"").await,
        "a=1795223045&b=1795223047"
    );
    assert_eq!(
        asked("wire = \"epoch_s\", precision = \"1s\", inclusive = false").await,
        "a=1795223044&b=1795223047"
    );
    assert_eq!(
        asked("wire = \"iso\", precision = \"1s\"").await,
        "a=2026-11-21T01%3A04%3A05.000Z&b=2026-11-21T01%3A04%3A07.000Z"
    );
    assert_eq!(
        asked("wire = \"%Y-%m-%d %H:%M:%S\", precision = \"1d\"").await,
        "a=2026-11-21+00%3A00%3A00&b=2026-11-22+00%3A00%3A00"
    );
}

/// The expected header was computed by another program: base64(key + ":" + HMAC-SHA256(secret, "GET /contacts")).
#[tokio::test]
async fn a_request_is_signed_with_its_method_and_its_path_below_the_base() {
    let source = small_with(&[
        ("base_url = \"${conn.site}\"", "base_url = \"${conn.site}/api/v1\""),
        (
            "kind = \"bearer\"\ntoken = \"${conn.token}\"",
            "kind = \"request_hmac\"\nkey_id = \"me\"\nsecret = \"${conn.token}\"\nheader = \"X-Hmac-Authorization\"",
        ),
        ("after = \"${page.token}\"", "limit = \"5\""),
    ]);
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let sink = seen.clone();
    let handler = move |headers: axum::http::HeaderMap| async move {
        *sink.lock().unwrap() = headers["x-hmac-authorization"].to_str().unwrap().to_owned();
        Json(json!({ "results": [] }))
    };
    let origin = serve(Router::new().route("/api/v1/contacts", get(handler))).await;
    client(load(&source), &origin).full_page(None).await.expect("a page");
    assert_eq!(
        *seen.lock().unwrap(),
        "bWU6YLrmC20W2fIthVBEhWzFO659tj0cMBYtMBLyFoLSHTc="
    );
}
