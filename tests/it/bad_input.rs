//! What comes in wrong gets a clear error and harms nobody.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fake_crm::Op;
use serde_json::{Value, json};

use crate::harness::*;

async fn send(bridge: &Bridge, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let response = bridge
        .http
        .post(format!("{}{path}", bridge.url))
        .body(body)
        .send()
        .await
        .expect("an answer");
    let json = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .starts_with("application/json");
    assert!(json, "errors are JSON too");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

on_both!(malformed_requests_are_told_what_is_wrong, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, "").await;
    let deep = format!("{{\"auth\":{{}},\"meta\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("\"text\"", 400),
        ("{\"auth\": 7}", 400),
        ("{\"auth\": {\"token\": [1]}}", 400),
        ("{\"auth\": {}, \"meta\": 7}", 400),
        ("{\"auth\": {}, \"meta\": {\"offset\": {}}}", 400),
        (deep.as_str(), 400),
        ("\u{0}\u{1}", 400),
    ] {
        let (got, error) = send(&bridge, "/demo/contact_sync", body.to_owned()).await;
        assert_eq!(got, status, "{body:.60}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()) && error["code"].is_string());
    }
    let (status, error) = send(&bridge, "/demo/contact_sync", "x".repeat(300 * 1024)).await;
    assert_eq!((status, error["code"].as_str()), (413, Some("body_too_large")));
    let (status, _) = send(&bridge, "/nobody/contact_sync", json!({"auth": auth()}).to_string()).await;
    assert_eq!(status, 404);
    let (status, _) = send(
        &bridge,
        "/demo/k/secret/contact_sync",
        json!({"auth": auth()}).to_string(),
    )
    .await;
    assert_eq!(status, 403, "a secret where none is set is a wrong one");
    let (status, _) = send(&bridge, "/somewhere/else/entirely", "{}").await;
    assert_eq!(status, 404);
    assert_eq!(crm.calls(), 0, "none of this reaches the CRM");

    let wrong = bridge
        .http
        .get(format!("{}/demo/contact_sync", bridge.url))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 405);
    assert_eq!(wrong.headers()["allow"], "POST");
    let (status, _) = bridge.sync(json!(null)).await;
    assert_eq!(status, 200);
    bridge.stop().await;
});

on_both!(slow_clients_are_let_go, |backend| async move {
    let crm = Crm::start(5).await;
    let more = "http.header_timeout = \"300ms\"\nhttp.body_timeout = \"300ms\"";
    let bridge = Bridge::start(backend, &crm, more).await;
    let address = bridge.url.trim_start_matches("http://").to_owned();
    let talk = move |request: &'static str| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    let slow_head = talk("POST /demo/contact_sync HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();
    assert!(
        slow_head.is_empty() || slow_head.contains(" 408 "),
        "the connection is closed: {slow_head}"
    );
    let slow_body =
        talk("POST /demo/contact_sync HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{")
            .await
            .unwrap();
    assert!(slow_body.starts_with("HTTP/1.1 408"), "{slow_body}");
    bridge.stop().await;
});

on_both!(
    the_path_secret_is_asked_for_before_anything_else,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(
            backend,
            &crm,
            "integrations.demo.path_secret = \"0123456789abcdefghij\"",
        )
        .await;
        let body = json!({"auth": auth()});
        assert_eq!(bridge.post("/demo/contact_sync", body.clone()).await.0, 403);
        assert_eq!(
            bridge
                .post("/demo/k/0123456789abcdefghiX/contact_sync", body.clone())
                .await
                .0,
            403
        );
        assert_eq!(crm.calls(), 0);
        assert_eq!(
            bridge.post("/demo/k/0123456789abcdefghij/contact_sync", body).await.0,
            200
        );
        bridge.stop().await;
    }
);

on_both!(
    a_crm_that_lies_never_makes_an_empty_or_short_run,
    |backend| async move {
        let crm = Crm::start(900).await;
        let more = "retry.first = \"50ms\"\nrefresh.sweep = \"100ms\"\nrefresh.poll = \"300ms\"\nintegrations.demo.reconcile = \"1s\"";
        let bridge = Bridge::start(backend, &crm, more).await;
        let (status, _) = bridge.validate(auth()).await;
        assert_eq!(status, 200);
        crm.crm.knobs("demo", |knobs| {
            knobs.fault_ops = vec![Op::List, Op::Changes, Op::Deleted, Op::Batch, Op::Ids];
            knobs.truncate = 1;
            knobs.html_200 = 1;
            knobs.fail_5xx = 1;
        });
        bridge.build().await;
        assert_eq!(bridge.run(None).await.titles(), truth(&crm));
        for lie in 0..3 {
            crm.crm.knobs("demo", |knobs| match lie {
                0 => knobs.html_200 = 4,
                1 => knobs.truncate = 4,
                _ => knobs.burst_429 = 3,
            });
            until("the lies are used up", || async {
                let mut left = 0;
                crm.crm
                    .knobs("demo", |knobs| left = knobs.html_200 + knobs.truncate + knobs.burst_429);
                assert_eq!(bridge.run(None).await.contacts.len(), 900, "invariant 6");
                left == 0
            })
            .await;
        }
        bridge.stop().await;
    }
);
