//! Bridges that cannot be checked: each ends in a clear message, within bounds.

use super::bridge::Bridge;
use super::*;

/// The reason of a check that could not run; it told no secret.
fn reason(report: &Report) -> &str {
    assert_eq!(report.verdict(false), Verdict::CouldNotRun, "{}", report.text());
    let told = report.text() + &serde_json::to_string(report).unwrap();
    assert!(!told.contains("canary"), "{told}");
    report.could_not_run.as_deref().unwrap()
}

#[tokio::test]
async fn nobody_listens() {
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Url::parse(&format!(
            "http://{}/k/path-canary-path-canary",
            listener.local_addr().unwrap()
        ))
        .unwrap()
    };
    let server = Bridge::new("").start().await;
    let agents = server.url.join("agent_sync").unwrap();
    let plan = Plan {
        url,
        agents: Some(agents),
        ..server.plan()
    };
    let report = checked(plan).await;
    let why = reason(&report);
    assert!(why.starts_with("contact sync: no answer after 3 attempts"), "{why}");
    assert!(report.calls > 3, "the agents were checked all the same");
}

#[tokio::test]
async fn the_first_page_is_none() {
    let first = |answer: fn() -> Response| async move {
        let server = Server::of(move |_, _| answer()).await;
        let report = checked(server.plan()).await;
        (reason(&report).to_owned(), report.calls)
    };
    let html = || ([("content-type", "text/html")], "<html>s-canary").into_response();
    let (why, calls) = first(html).await;
    assert!(
        why.contains("answered 200 with a body that is not JSON; is this"),
        "{why}"
    );
    assert_eq!(calls, 1);
    let (why, _) = first(|| error(401, "s-canary is not my token")).await;
    assert!(
        why.contains("answered 401: *** is not my token (x); are the credentials"),
        "{why}"
    );
    let (why, _) = first(|| error(404, "nothing at /b/contact_sync for 4711")).await;
    assert!(why.contains("answered 404: nothing at *** for ***"), "{why}");
    let (why, _) = first(|| (axum::http::StatusCode::FOUND, [("location", "/canary")]).into_response()).await;
    assert!(why.contains("answered 302"), "{why}");
    let (why, calls) = first(|| error(503, "later")).await;
    assert!(why.contains("still answered 503 after 3 attempts: later"), "{why}");
    assert_eq!(calls, 3);
    let hour = || {
        let mut answer = error(429, "later");
        answer.headers_mut().insert("retry-after", "3600".parse().unwrap());
        answer
    };
    let (why, calls) = first(hour).await;
    assert!(
        why.contains("a pause of 3600 s, more than the 60 s") && calls == 1,
        "{why}"
    );
}

#[tokio::test]
async fn too_many_pages() {
    let server = Server::of(|number, _| {
        let contacts = json!([{"id": number.to_string(), "name": "N"}]);
        reply(
            200,
            &json!({"contacts": contacts, "synchronization_checkpoint": "c", "next_offset": number.to_string()}),
        )
    })
    .await;
    let report = checked(server.plan()).await;
    assert!(
        reason(&report).contains("did not end within 50 pages (--pages)"),
        "{}",
        report.text()
    );
    assert_eq!(report.calls, 50);
}

#[tokio::test]
async fn the_same_contacts_for_ever() {
    let server = Server::of(|number, body| {
        if body["auth"]["token"] != json!(TOKEN) {
            return error(401, "no");
        }
        let contacts = json!([{"id": "1", "name": "N"}]);
        reply(
            200,
            &json!({"contacts": contacts, "synchronization_checkpoint": "c", "next_offset": number.to_string()}),
        )
    })
    .await;
    let report = checked(server.plan()).await;
    assert!(report.broken().contains("paging.end"), "{}", report.text());
    assert_eq!(report.verdict(false), Verdict::Failed);
}

#[tokio::test]
async fn a_huge_body() {
    let server = Server::of(|_, _| reply(200, &json!({"contacts": [], "padding": " ".repeat(2 << 20)}))).await;
    let report = checked(server.plan()).await;
    assert!(
        reason(&report).contains("larger than 1048576 bytes (--body-limit)"),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn silence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let server = Server { url, task };
    let mut plan = server.plan();
    plan.limits.patience.page_timeout = Duration::from_millis(30);
    let report = checked(plan.clone()).await;
    assert!(
        reason(&report).contains("too slow (--page-timeout)"),
        "{}",
        report.text()
    );
    plan.limits.patience.page_timeout = Duration::from_secs(60);
    plan.limits.time = Duration::from_millis(30);
    let report = checked(plan).await;
    assert!(
        reason(&report).contains("are used up (--time-limit)"),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn calls_are_bounded_and_what_was_found_is_told() {
    let server = Bridge::new("contact.null").start().await;
    let mut plan = server.plan();
    plan.limits.calls = 17;
    let report = checked(plan).await;
    assert_eq!(report.calls, 17);
    assert_eq!(report.broken(), ["contact.null"].into());
    assert_eq!(report.verdict(true), Verdict::Failed);
    assert!(
        reason(&report).contains("17 calls are used up (--calls)"),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn an_account_without_contacts_is_told() {
    let server = Server::of(|_, body| {
        if body["auth"]["token"] != json!(TOKEN) {
            return error(401, "no");
        }
        reply(200, &json!({"contacts": [], "synchronization_checkpoint": "c"}))
    })
    .await;
    let report = checked(server.plan()).await;
    assert_eq!(report.errors, 0, "{}", report.text());
    assert!(
        report
            .not_checked
            .iter()
            .any(|skipped| skipped.why.contains("no contacts")),
        "{}",
        report.text()
    );
}
