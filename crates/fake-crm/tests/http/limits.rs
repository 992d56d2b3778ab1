//! The CRM's own counting.

use std::time::Duration;

use fake_crm::{AccountOptions, Control, FakeCrm, Options, RateLimit};
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Served, answer, serve, served, wait_until};

/// A window so long that no test sees it turn.
async fn limited(max: u32) -> Served {
    let limit = Some(RateLimit {
        max,
        window: Duration::from_secs(36_000),
    });
    let account = AccountOptions {
        contacts: 10,
        limit,
        ..AccountOptions::default()
    };
    serve(FakeCrm::new(Options {
        accounts: vec![account],
        ..Options::default()
    }))
    .await
}

#[tokio::test]
async fn refused_exactly_past_the_limit() {
    let crm = limited(5).await;
    let invalid = crm.client.get(format!("{}/api/demo/me", crm.base)).bearer_auth("wrong");
    answer(invalid).await;
    crm.control(json!({"edit": {"count": 1}})).await;
    for (n, path) in ["me", "contacts", "contacts/ids", "users", "contacts?limit=0"]
        .iter()
        .enumerate()
    {
        let response = crm.request(path).send().await.expect("answer");
        let headers = response.headers();
        assert_ne!(response.status(), StatusCode::TOO_MANY_REQUESTS, "call {n}");
        assert_eq!(headers["x-ratelimit-limit"], "5");
        assert_eq!(headers["x-ratelimit-remaining"], (4 - n).to_string().as_str());
        let reset: u64 = headers["x-ratelimit-reset"]
            .to_str()
            .expect("text")
            .parse()
            .expect("seconds");
        assert!((1..=36_000).contains(&reset));
    }
    for _ in 0..3 {
        let response = crm.request("me").send().await.expect("answer");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            response.headers()["retry-after"],
            response.headers()["x-ratelimit-reset"]
        );
        assert_eq!(
            response.json::<serde_json::Value>().await.expect("json")["error"]["code"],
            "rate_limited"
        );
    }
    let stats = crm.crm.stats("demo");
    assert_eq!(
        (stats.counted, stats.over_limit, stats.max_in_window, stats.max_sliding),
        (8, 3, 8, 8)
    );
    assert_eq!((stats.windows.len(), stats.windows[0].calls), (1, 8));
    assert_eq!(
        (
            stats.answered(200),
            stats.answered(400),
            stats.answered(401),
            stats.answered(429)
        ),
        (4, 1, 1, 3)
    );
    assert_eq!(
        (
            stats.calls_of("check"),
            stats.calls_of("contacts.list"),
            stats.calls_of("users")
        ),
        (5, 2, 1)
    );
    assert_eq!(stats.used_ratio(), 8.0 / 5.0);
    let shown = answer(crm.client.get(format!("{}/_stats", crm.base))).await.1;
    assert_eq!(
        (&shown["limit"], &shown["over_limit"], &shown["used_ratio"]),
        (&json!("5/10h"), &json!(3), &json!(1.6))
    );
}

#[tokio::test]
async fn the_limit_changes_while_it_runs_and_counters_reset() {
    let crm = limited(1).await;
    crm.ok("me").await;
    assert_eq!(crm.call("me").await.0, StatusCode::TOO_MANY_REQUESTS);
    crm.crm.control(Control::reset("demo")).done();
    assert_eq!(
        crm.call("me").await.0,
        StatusCode::TOO_MANY_REQUESTS,
        "a reset hands out no calls"
    );
    assert_eq!(crm.crm.stats("demo").counted, 1);
    crm.set(json!({"limit": "2/10h"})).await;
    let statuses = [crm.call("me").await.0, crm.call("me").await.0, crm.call("me").await.0];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 200, 429]);
    crm.set(json!({"limit": null})).await;
    let response = crm.request("me").send().await.expect("answer");
    assert!(response.status() == StatusCode::OK && !response.headers().contains_key("x-ratelimit-limit"));
}

#[tokio::test]
async fn one_call_too_many_at_the_same_time_is_refused() {
    let crm = served(10).await;
    crm.set(json!({"concurrency": 2, "frozen": true, "fault_ops": ["contacts.list"]}))
        .await;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(crm.request("contacts").send())).collect();
    wait_until("two held calls", || crm.crm.stats("demo").in_flight == 2).await;
    let response = crm.request("me").send().await.expect("answer");
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().expect("value"))
    );
    crm.set(json!({"frozen": false})).await;
    for call in held {
        assert_eq!(call.await.expect("task").expect("answer").status(), StatusCode::OK);
    }
    wait_until("nobody calls", || crm.crm.stats("demo").in_flight == 0).await;
    crm.ok("me").await;
    let stats = crm.crm.stats("demo");
    assert_eq!(
        (stats.max_concurrent, stats.over_concurrency, stats.over_limit),
        (3, 1, 0)
    );
}
