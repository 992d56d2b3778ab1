//! What CRMs, proxies and networks do to a reply, and what the engine makes of it. A fault is never an empty page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use axum::{Json, Router};
use contacts::ErrorKind;
use crm::{ClientSettings, CrmError, Pacer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{SMALL, client, client_with, load, serve, small_with};

fn settings() -> ClientSettings {
    ClientSettings {
        body_limit: 100_000,
        rows_limit: 100,
        ..ClientSettings::default()
    }
}

async fn full_of(router: Router) -> Result<crm::Page, CrmError> {
    let origin = serve(router).await;
    let client = client_with(load(SMALL), &origin, &[], settings(), Pacer::unlimited()).expect("a client");
    client.full_page(None).await
}

async fn fault(reply: impl IntoResponse + Clone + Send + Sync + 'static) -> CrmError {
    let router = Router::new().route("/contacts", get(move || async move { reply }));
    full_of(router).await.expect_err("a fault")
}

/// A server that answers every connection with these bytes and closes it.
async fn raw(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    origin
}

#[tokio::test]
async fn statuses_have_their_kinds() {
    for (status, kind) in [
        (StatusCode::UNAUTHORIZED, ErrorKind::Credentials),
        (StatusCode::FORBIDDEN, ErrorKind::Credentials),
        (StatusCode::NOT_FOUND, ErrorKind::Missing),
        (StatusCode::GONE, ErrorKind::Missing),
        (StatusCode::BAD_REQUEST, ErrorKind::Rejected),
        (StatusCode::UNPROCESSABLE_ENTITY, ErrorKind::Rejected),
        (StatusCode::REQUEST_TIMEOUT, ErrorKind::Unavailable),
        (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Unavailable),
        (StatusCode::BAD_GATEWAY, ErrorKind::Unavailable),
        (StatusCode::NO_CONTENT, ErrorKind::BadReply),
    ] {
        let error = fault((status, Json(json!({ "error": "x" })))).await;
        assert_eq!(error.kind, kind, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_throttled_reply_says_until_when_within_reason() {
    for (headers, least, most) in [
        (vec![("retry-after", "7")], 7, 8),
        (vec![("retry-after", "0")], 1, 2),
        (vec![("retry-after", "999999999999999999999")], 900, 901),
        (vec![("retry-after", "-5")], 30, 31),
        (vec![("retry-after", "soon")], 30, 31),
        (vec![], 30, 31),
    ] {
        let now = contacts::Clock::now(&contacts::SystemClock);
        let reply = (
            StatusCode::TOO_MANY_REQUESTS,
            axum::response::AppendHeaders(headers.clone()),
            "slow down",
        );
        let error = fault(reply).await;
        let ErrorKind::Throttled { until } = error.kind else {
            panic!("{error}")
        };
        let wait = until.since(now);
        // The upper bound leaves room for a slow machine; the lower is exact.
        assert!(wait >= Duration::from_secs(least), "{headers:?}: {wait:?}");
        assert!(wait < Duration::from_secs(most + 60), "{headers:?}: {wait:?}");
    }
}

#[tokio::test]
async fn pages_that_are_no_pages_are_bad_replies() {
    let html = axum::response::Html("<html>log in</html>");
    assert_eq!(fault(html).await.kind, ErrorKind::BadReply);
    assert_eq!(fault("{\"results\":[]}").await.kind, ErrorKind::BadReply, "text/plain");
    let lying = || [("content-type", "application/json")];
    assert_eq!(fault((lying(), "<html>log in</html>")).await.kind, ErrorKind::BadReply);
    assert_eq!(
        fault((lying(), "{\"results\":[{\"id\":1},{\"id\"")).await.kind,
        ErrorKind::BadReply
    );
    assert_eq!(
        fault((lying(), "[".repeat(10_000))).await.kind,
        ErrorKind::BadReply,
        "deep"
    );
    for shape in [
        json!({}),
        json!([]),
        json!({"results": null}),
        json!({"results": {}}),
        json!({"results": "x"}),
    ] {
        assert_eq!(fault(Json(shape.clone())).await.kind, ErrorKind::BadReply, "{shape}");
    }
    let many: Vec<Value> = (0..101).map(|id| json!({ "id": id })).collect();
    assert_eq!(
        fault(Json(json!({ "results": many }))).await.kind,
        ErrorKind::BadReply,
        "too many rows"
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let target = serve(Router::new().fallback(move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
        Json(json!({ "results": [] }))
    }))
    .await;
    let error = fault(Redirect::temporary(&target)).await;
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 0, "the credentials went to another server");
}

#[tokio::test]
async fn a_body_that_ends_early_is_never_half_a_page() {
    let origin = raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"results\":[{\"id\":1}]}",
    )
    .await;
    let error = client(load(SMALL), &origin).full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    let origin = raw(b"").await;
    let error = client(load(SMALL), &origin).full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let origin = raw(b"220 smtp.example ready\r\n").await;
    let error = client(load(SMALL), &origin).full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn huge_bodies_are_cut_off_packed_or_not() {
    let large = (vec![("content-type", "application/json")], " ".repeat(200_000));
    let (headers, body) = large;
    let error = fault((axum::response::AppendHeaders(headers), body)).await;
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    assert!(error.to_string().contains("larger than 100000 bytes"), "{error}");

    let bomb: &'static [u8] = include_bytes!("../data/bomb.json.gz");
    assert!(bomb.len() < 10_000);
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let error = fault((headers, bomb)).await;
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    assert!(error.to_string().contains("larger than 100000 bytes"), "{error}");
    let error = fault((headers, "this is not gzip")).await;
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_closed_port_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let impatient = ClientSettings {
        read_timeout: Duration::from_millis(50),
        ..settings()
    };
    let quiet = client_with(load(SMALL), &origin, &[], impatient, Pacer::unlimited()).unwrap();
    let error = quiet.full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    drop(listener);
    let error = client(load(SMALL), &origin).full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_body_that_drips_ends_with_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
            let _ = stream.write_all(head).await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let impatient = ClientSettings {
        call_timeout: Duration::from_millis(200),
        ..settings()
    };
    let slow = client_with(load(SMALL), &origin, &[], impatient, Pacer::unlimited()).unwrap();
    let error = slow.full_page(None).await.expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
}

/// Reads pages until the end or the first error; gives how many pages came.
async fn walk(client: &crm::Client) -> (usize, Option<CrmError>) {
    let (mut pages, mut cursor) = (0, None);
    loop {
        match client.full_page(cursor.as_ref()).await {
            Ok(page) => {
                pages += 1;
                cursor = page.next;
                if cursor.is_none() {
                    return (pages, None);
                }
            }
            Err(error) => return (pages, Some(error)),
        }
    }
}

#[derive(serde::Deserialize)]
struct After {
    after: Option<String>,
}

#[tokio::test]
async fn cursors_that_do_not_move_are_noticed() {
    let pages_of = |answer: fn(usize, Option<String>) -> Value| async move {
        let calls = Arc::new(AtomicUsize::new(0));
        let handler = move |Query(query): Query<After>| async move {
            Json(answer(calls.fetch_add(1, Ordering::SeqCst), query.after))
        };
        let origin = serve(Router::new().route("/contacts", get(handler))).await;
        let (pages, error) = walk(&client(load(SMALL), &origin)).await;
        (pages, error.map(|error| error.kind))
    };
    // The same token again and again.
    let same = pages_of(|_, _| json!({ "results": [{"id": 1}], "next": "t" })).await;
    assert_eq!(same, (1, Some(ErrorKind::CursorStuck)));
    // New tokens, the same rows.
    let again = pages_of(|n, _| json!({ "results": [{"id": 1}], "next": n.to_string() })).await;
    assert_eq!(again, (1, Some(ErrorKind::CursorStuck)));
    // A circle of three pages.
    let circle = pages_of(|n, _| json!({ "results": [{"id": n % 3}], "next": n.to_string() })).await;
    assert_eq!(circle, (3, Some(ErrorKind::CursorStuck)));
    // New rows for ever.
    let endless = pages_of(|n, _| json!({ "results": [{"id": n}], "next": n.to_string() })).await;
    assert_eq!(endless, (49, Some(ErrorKind::CursorStuck)));
    // An end.
    let good = pages_of(|n, after| {
        assert_eq!(after.is_none(), n == 0, "the first page has no token");
        json!({ "results": [{"id": n}], "next": if n < 3 { json!(n) } else { Value::Null } })
    })
    .await;
    assert_eq!(good, (4, None));
}

#[tokio::test]
async fn a_keyset_walk_notices_a_filter_that_is_ignored() {
    let source = small_with(&[
        (
            "page = { kind = \"token\", next = \"response.body.next\", max_pages = 50 }",
            "page = { kind = \"keyset\", size = 2, keys = [\"item.id\"], stop = \"short_page\" }",
        ),
        ("after = \"${page.token}\"", "after = \"${page.keys[0] or 0}\""),
    ]);
    let walk_over = |answer: fn(u64) -> Value| {
        let source = source.clone();
        async move {
            let handler = move |Query(query): Query<After>| async move {
                Json(answer(query.after.and_then(|after| after.parse().ok()).unwrap_or(0)))
            };
            let origin = serve(Router::new().route("/contacts", get(handler))).await;
            let (pages, error) = walk(&client(load(&source), &origin)).await;
            (pages, error.map(|error| error.kind))
        }
    };
    let ignored = walk_over(|_| json!({ "results": [{"id": 1}, {"id": 2}] })).await;
    assert_eq!(ignored, (1, Some(ErrorKind::CursorStuck)));
    let back = walk_over(|after| json!({ "results": [{"id": 0}, {"id": if after == 0 { 5 } else { 3 }}] })).await;
    assert_eq!(back, (1, Some(ErrorKind::CursorStuck)));
    let keyless = walk_over(|_| json!({ "results": [{"id": 1}, {}] })).await;
    assert_eq!(keyless, (0, Some(ErrorKind::BadReply)));
    let good = walk_over(|after| match after {
        0 => json!({ "results": [{"id": 1}, {"id": 2}] }),
        2 => json!({ "results": [{"id": 3}, {"id": 4}] }),
        _ => json!({ "results": [] }),
    })
    .await;
    assert_eq!(good, (3, None));
}

#[tokio::test]
async fn a_next_link_stays_on_its_host() {
    let source = small_with(&[(
        "kind = \"token\", next = \"response.body.next\", max_pages = 50",
        "kind = \"next_url\", next = \"response.body.next\"",
    )]);
    let follow = |next: &'static str| {
        let source = source.clone();
        async move {
            let handler = move |Query(query): Query<After>| async move {
                let next = if query.after.is_none() {
                    json!(next)
                } else {
                    Value::Null
                };
                Json(json!({ "results": [{"id": query.after.unwrap_or_default() + "1"}], "next": next }))
            };
            let origin = serve(Router::new().route("/contacts", get(handler))).await;
            let (pages, error) = walk(&client(load(&source), &origin)).await;
            (pages, error.map(|error| error.kind))
        }
    };
    assert_eq!(follow("/contacts?after=2").await, (2, None));
    assert_eq!(follow("?after=2").await, (2, None));
    for foreign in [
        "https://evil.example/contacts?after=2",
        "//evil.example/x",
        "http://169.254.169.254/",
        "file:///etc/passwd",
    ] {
        assert_eq!(follow(foreign).await, (0, Some(ErrorKind::HostRefused)), "{foreign}");
    }
    assert_eq!(follow("/contacts").await, (0, Some(ErrorKind::CursorStuck)));
}

#[tokio::test]
async fn hosts_that_nobody_allowed_are_not_called() {
    let http = crm::Http::new(settings(), crm::AllowHosts::default()).unwrap();
    let new = |site: &str| {
        let connection = crm::Connection {
            fields: crate::support::fields(&[("site", site), ("token", "t")]),
            region: None,
        };
        let clock = Arc::new(contacts::SystemClock);
        crm::Client::new(
            Arc::new(load(SMALL)),
            http.clone(),
            &connection,
            Pacer::unlimited(),
            clock,
        )
        .map(|_| ())
        .map_err(|e| e.kind)
    };
    assert_eq!(new("https://small.invalid"), Ok(()));
    for refused in [
        "http://small.invalid",
        "https://small.invalid:8443",
        "https://other.invalid",
        "http://127.0.0.1:1",
        "localhost",
    ] {
        assert_eq!(new(refused), Err(ErrorKind::HostRefused), "{refused}");
    }
    assert_eq!(
        new("https://u:p@small.invalid"),
        Err(ErrorKind::Credentials),
        "not a site"
    );
}

#[tokio::test]
async fn an_allowed_name_may_point_inwards() {
    let origin = serve(Router::new().route("/contacts", get(|| async { Json(json!({ "results": [] })) }))).await;
    let port = origin.rsplit(':').next().unwrap().to_owned();
    let named = format!("http://localhost:{port}");
    let page = client(load(SMALL), &named)
        .full_page(None)
        .await
        .expect("an allowed name");
    assert!(page.rows.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn what_a_crm_says_is_shown_without_secrets() {
    let source = format!("{SMALL}\n[replies]\nmessage = \"response.body.error\"\n");
    let handler = || async {
        let text = format!("bad token 'secret-token' {}", "x".repeat(500));
        (StatusCode::UNAUTHORIZED, Json(json!({ "error": text })))
    };
    let origin = serve(Router::new().route("/contacts", get(handler))).await;
    let error = client(load(&source), &origin)
        .full_page(None)
        .await
        .expect_err("a fault");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("bad token '***'"), "{shown}");
    assert!(!shown.contains("secret-token") && shown.len() < 800, "{shown}");
}
