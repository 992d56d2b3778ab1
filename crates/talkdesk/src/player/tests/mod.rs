//! The player against small bridges.

mod failures;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::wire::SyncRequest;

/// A bridge made of a function from the number of the request (from 0) and the request to an answer.
struct Bridge {
    url: Url,
    /// Every body received.
    seen: Arc<Mutex<Vec<Value>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Bridge {
    async fn start<R: IntoResponse>(answer: impl Fn(usize, SyncRequest) -> R + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let handler = move |body: Bytes| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(serde_json::from_slice(&body).unwrap());
                    log.len() - 1
                };
                answer(number, SyncRequest::parse(&body).unwrap()).into_response()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!(
            "http://{}/k/canary/contact_sync",
            listener.local_addr().unwrap()
        ))
        .unwrap();
        let app = Router::new().route("/k/canary/contact_sync", post(handler));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, server }
    }

    fn player(&self) -> Player {
        let auth = [("token".to_owned(), "t-canary".to_owned())].into_iter().collect();
        Player::new(self.url.clone(), auth, client(&self.url).unwrap()).patience(quick())
    }

    fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn quick() -> Patience {
    Patience {
        attempts: 4,
        first_wait: Duration::from_millis(1),
        max_wait: Duration::from_millis(4),
        longest_pause: Duration::from_secs(60),
        ..Patience::default()
    }
}

fn page(body: Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn status(code: u16, body: &str) -> Response {
    let code = StatusCode::from_u16(code).unwrap();
    (
        code,
        [("content-type", "application/json"), ("retry-after", "0")],
        body.to_owned(),
    )
        .into_response()
}

/// Three pages of two contacts; the third repeats a contact of the first. The checkpoint of page n is `c<n>`.
fn three_pages(_: usize, request: SyncRequest) -> Response {
    let ids = |a: &str, b: &str| json!([{"id": a, "name": "A"}, {"id": b, "name": "B"}]);
    page(match request.offset.as_deref() {
        None => {
            json!({"contacts": ids("1", "2"), "synchronization_checkpoint": "c1", "next_offset": "o1",
                       "context": {"page": 1}})
        }
        Some("o1") => {
            json!({"contacts": ids("3", "4"), "synchronization_checkpoint": "c2", "next_offset": "o2"})
        }
        _ => json!({"contacts": ids("1", "5"), "synchronization_checkpoint": "c3"}),
    })
}

#[tokio::test]
async fn a_run_follows_offsets_echoes_context_and_sums_up() {
    let bridge = Bridge::start(three_pages).await;
    let progress = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&progress);
    let mut player = bridge
        .player()
        .on_progress(move |p| told.lock().unwrap().push(p.contacts));
    let mut state = PlayerState {
        checkpoint: Some("c0".into()),
    };
    // Spawned: a run can move between threads.
    let (summary, state) = tokio::spawn(async move { (player.run(&mut state).await, state) })
        .await
        .unwrap();
    let meta: Vec<Value> = bridge.seen().iter().map(|body| body["meta"].clone()).collect();
    assert_eq!(
        meta,
        [
            json!({"synchronization_checkpoint": "c0"}),
            json!({"synchronization_checkpoint": "c0", "offset": "o1", "context": {"page": 1}}),
            json!({"synchronization_checkpoint": "c0", "offset": "o2"}),
        ]
    );
    assert_eq!(bridge.seen()[0]["auth"], json!({"token": "t-canary"}));
    assert_eq!(
        (summary.contacts, summary.distinct, summary.pages, summary.empty_pages),
        (6, 5, 3, 0)
    );
    assert_eq!((summary.retries, summary.checkpoint_first.as_deref()), (0, Some("c1")));
    assert!(summary.bytes > 0 && summary.page_ms.max >= summary.page_ms.p50);
    assert_eq!(*progress.lock().unwrap(), [2, 4, 6]);
    assert_eq!(state.checkpoint.as_deref(), Some("c3"));
    let summary = serde_json::to_value(summary.complete().unwrap()).unwrap();
    assert_eq!(
        (&summary["ended"], &summary["checkpoint_last"]),
        (&json!("complete"), &json!("c3"))
    );
}

#[tokio::test]
async fn the_checkpoint_of_the_chosen_page_is_kept() {
    let bridge = Bridge::start(three_pages).await;
    for (keep, expected) in [(Keep::Last, "c3"), (Keep::First, "c1"), (Keep::Every, "c3")] {
        let mut state = PlayerState::default();
        let summary = bridge.player().keep(keep).run(&mut state).await;
        assert!(matches!(summary.ended, Ended::Complete));
        assert_eq!(state.checkpoint.as_deref(), Some(expected), "{keep:?}");
    }
}

#[tokio::test]
async fn a_run_that_fails_keeps_its_old_checkpoint_unless_every_page_counts() {
    let bridge = Bridge::start(|number, request| match request.offset.as_deref() {
        Some("o2") => status(500, "{}"),
        _ => three_pages(number, request),
    })
    .await;
    for (keep, expected) in [(Keep::Last, "c0"), (Keep::First, "c0"), (Keep::Every, "c2")] {
        let mut state = PlayerState {
            checkpoint: Some("c0".into()),
        };
        let summary = bridge.player().keep(keep).run(&mut state).await;
        assert_eq!((summary.contacts, summary.pages), (4, 2));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["ended"], "failed");
        assert!(json["error"].as_str().unwrap().contains("500"), "{json}");
        assert!(matches!(
            summary.complete(),
            Err(PlayError::Refused {
                page: 3,
                status: 500,
                ..
            })
        ));
        assert_eq!(state.checkpoint.as_deref(), Some(expected), "{keep:?}");
    }
}

#[tokio::test]
async fn the_next_run_starts_from_the_kept_checkpoint_by_way_of_the_file() {
    let bridge = Bridge::start(|_, request: SyncRequest| {
        let from: u64 = request.checkpoint.as_deref().unwrap_or("0").parse().unwrap();
        let contacts: Vec<Value> = (from + 1..=from + 2)
            .map(|id| json!({"id": id.to_string(), "name": "N"}))
            .collect();
        page(json!({"contacts": contacts, "synchronization_checkpoint": (from + 2).to_string()}))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("contacts.jsonl");
    let command = |full: bool| Cli {
        url: bridge.url.clone(),
        auth: vec!["token=t".parse().unwrap()],
        checkpoint_file: folder.path().join("sync.json"),
        full,
        keep: Keep::Last,
        out: Some(out.clone()),
        json: false,
        quiet: true,
        page_timeout: 60,
    };
    for full in [false, false, true] {
        run(command(full)).await.unwrap();
    }
    let sent: Vec<Value> = bridge
        .seen()
        .iter()
        .map(|body| body["meta"]["synchronization_checkpoint"].clone())
        .collect();
    assert_eq!(sent, [Value::Null, json!("2"), Value::Null]);
    let lines = std::fs::read_to_string(&out).unwrap();
    let ids: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["id"]
                .as_str()
                .unwrap()
                .into()
        })
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4", "1", "2"]);
    let kept = CheckpointFile::new(folder.path().join("sync.json"))
        .load(&bridge.url)
        .unwrap();
    assert_eq!(kept.checkpoint.as_deref(), Some("2"));
}

#[tokio::test]
async fn busy_answers_are_repeated_and_the_same_page_is_asked_for() {
    let bridge = Bridge::start(|number, request| match number {
        1 => status(503, r#"{"code":"busy","message":"later"}"#),
        2 => status(429, ""),
        3 => status(504, ""),
        _ => three_pages(number, request),
    })
    .await;
    let summary = bridge
        .player()
        .run(&mut PlayerState::default())
        .await
        .complete()
        .unwrap();
    assert_eq!((summary.pages, summary.retries, summary.contacts), (3, 3, 6));
    let seen = bridge.seen();
    assert!(seen[1..4].iter().all(|body| body == &seen[4]), "{seen:?}");
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_and_counted_as_waiting() {
    let bridge = Bridge::start(|number, request| match number {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        _ => three_pages(number, request),
    })
    .await;
    let waits = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&waits);
    let mut player = bridge
        .player()
        .on_progress(move |p| told.lock().unwrap().extend(p.waiting));
    let summary = player.run(&mut PlayerState::default()).await.complete().unwrap();
    assert_eq!(*waits.lock().unwrap(), [Duration::from_secs(1)]);
    assert!(summary.wait_ms >= 1000, "{summary:?}");
}

#[tokio::test]
async fn empty_pages_with_news_in_between_are_waits_not_errors() {
    let bridge = Bridge::start(|number, _| {
        let contacts = if number % 3 == 2 {
            json!([{"id": number}])
        } else {
            json!([])
        };
        let mut body = json!({"contacts": contacts, "synchronization_checkpoint": "c"});
        if number < 8 {
            body["next_offset"] = json!(number.to_string());
        }
        page(body)
    })
    .await;
    let mut player = bridge.player().patience(Patience {
        empty_pages: 3,
        ..quick()
    });
    let summary = player.run(&mut PlayerState::default()).await.complete().unwrap();
    assert_eq!((summary.pages, summary.empty_pages, summary.contacts), (9, 6, 3));
}

#[tokio::test]
async fn an_agent_sync_is_played_from_null_to_the_page_without_an_offset() {
    let agent = |id: &str| json!({"id": id, "name": "N", "email": "e@x.test"});
    let bridge = Bridge::start(move |number, request| match (number, request.offset.as_deref()) {
        (0, None) => status(503, "{}"),
        (_, None) => page(json!({"agents": [agent("a"), agent("b")], "next_offset": 1_764_000_000_000_001_u64})),
        (_, Some("1764000000000001")) => page(json!({"agents": [agent("c")]})),
        (_, Some(other)) => panic!("an offset that nobody gave: {other}"),
    })
    .await;
    let run = bridge.player().agents().await.unwrap();
    let ids: Vec<&str> = run.agents.iter().map(|agent| agent.id.as_str()).collect();
    assert_eq!((ids, run.pages), (vec!["a", "b", "c"], 2));
    assert!(
        bridge.seen()[0]["meta"]["offset"].is_null(),
        "null on the first request"
    );
}

#[tokio::test]
async fn agents_that_miss_a_field_and_offsets_that_stand_still_are_refused() {
    let bridge =
        Bridge::start(|_, _| page(json!({"agents": [{"id": 7, "name": "canary", "email": "e@x.test"}]}))).await;
    let error = bridge.player().agents().await.unwrap_err();
    assert!(
        matches!(error, PlayError::Garbage { page: 1, .. }) && !error.to_string().contains("canary"),
        "{error}"
    );
    let bridge = Bridge::start(|_, _| page(json!({"agents": [], "next_offset": 4}))).await;
    let error = bridge.player().agents().await.unwrap_err();
    assert!(matches!(error, PlayError::StuckOffset { page: 2 }), "{error}");
}
