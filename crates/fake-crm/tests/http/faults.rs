//! Knobs that spoil the answers.

use std::collections::HashSet;

use fake_crm::{Change, Control, EditsPerPage};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Served, answer, ids, served, wait_until};

async fn statuses(crm: &Served, path: &str, calls: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..calls {
        statuses.push(crm.request(path).send().await.expect("answer").status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn the_next_calls_fail_and_then_no_more() {
    let crm = served(10).await;
    crm.set(json!({"burst_429": 2})).await;
    assert_eq!(statuses(&crm, "me", 3).await, [429, 429, 200]);
    crm.set(json!({"fail_5xx": 1})).await;
    assert_eq!(statuses(&crm, "me", 2).await, [503, 200]);
    crm.set(json!({"fail_5xx": 1, "fail_status": 502, "fault_ops": ["contacts.ids"]}))
        .await;
    assert_eq!(statuses(&crm, "me", 1).await, [200], "only the operations asked for");
    assert_eq!(statuses(&crm, "contacts/ids", 2).await, [502, 200]);
    assert_eq!(crm.crm.stats("demo").over_limit, 0);
}

#[tokio::test]
async fn retry_after_may_be_absurd() {
    let crm = served(1).await;
    for value in ["31536000000", "soon", "-1", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        crm.set(json!({"burst_429": 1, "retry_after": value})).await;
        assert_eq!(
            crm.request("me").send().await.expect("answer").headers()["retry-after"],
            value
        );
    }
}

#[tokio::test]
async fn a_log_in_page_comes_as_200() {
    let crm = served(1).await;
    crm.set(json!({"html_200": 1})).await;
    let response = crm.request("contacts").send().await.expect("answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .expect("text")
            .starts_with("text/html")
    );
    assert!(response.text().await.expect("text").contains("<form"));
    crm.ok("contacts").await;
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_it_claims() {
    let crm = served(50).await;
    let whole = crm
        .request("contacts")
        .send()
        .await
        .expect("answer")
        .bytes()
        .await
        .expect("body")
        .len() as u64;
    crm.set(json!({"truncate": 1})).await;
    let response = crm.request("contacts").send().await.expect("answer");
    assert_eq!(
        (response.status(), response.content_length()),
        (StatusCode::OK, Some(whole))
    );
    assert!(response.bytes().await.is_err());
    crm.ok("contacts").await;
}

#[tokio::test]
async fn a_huge_body_is_legal_json_without_a_length() {
    let crm = served(5).await;
    crm.set(json!({"huge_body": 1, "huge_bytes": 3_000_001})).await;
    let response = crm.request("contacts").send().await.expect("answer");
    assert_eq!(response.content_length(), None);
    let body = response.bytes().await.expect("body");
    assert!(body.len() > 3_000_001 && body[..3_000_001].iter().all(|byte| *byte == b' '));
    let parsed: Value = serde_json::from_slice(&body).expect("json");
    assert_eq!(parsed["results"].as_array().expect("results").len(), 5);
}

#[tokio::test]
async fn a_slow_answer_keeps_the_caller_waiting() {
    let crm = served(5).await;
    crm.set(json!({"slow_ms": 3_600_000})).await;
    let caller = tokio::spawn(crm.request("me").send());
    wait_until("the answer was worked out", || crm.crm.stats("demo").answered(200) == 1).await;
    assert!(!caller.is_finished() && crm.crm.stats("demo").in_flight == 1);
    caller.abort();
    wait_until("the caller is gone", || crm.crm.stats("demo").in_flight == 0).await;
}

#[tokio::test]
async fn a_dripping_body_arrives_in_the_end_or_never() {
    let crm = served(2).await;
    let whole = crm.ok("me").await;
    crm.set(json!({"drip_ms": 1, "drip_bytes": 16})).await;
    assert_eq!(crm.ok("me").await, whole);
    crm.set(json!({"drip_ms": 3_600_000})).await;
    let response = crm.request("me").send().await.expect("the headers come at once");
    assert_eq!(
        (response.status(), crm.crm.stats("demo").in_flight),
        (StatusCode::OK, 1)
    );
    drop(response);
    wait_until("the caller is gone", || crm.crm.stats("demo").in_flight == 0).await;
}

#[tokio::test]
async fn a_frozen_answer_is_old_when_it_arrives() {
    let crm = served(5).await;
    crm.set(json!({"frozen": true})).await;
    let held = tokio::spawn(crm.request("contacts").send());
    wait_until("the page was read", || crm.crm.stats("demo").answered(200) == 1).await;
    crm.crm.control(Control::edit("demo", Change::ids([3]))).done();
    assert!(!held.is_finished());
    crm.crm.knobs("demo", |knobs| knobs.frozen = false);
    let page: Value = held.await.expect("task").expect("answer").json().await.expect("json");
    assert_eq!(page["results"][2]["version"], 3);
    assert_eq!(crm.batch(&["3"]).await[0].version, 6);
}

#[tokio::test]
async fn cursors_that_do_not_move_or_never_end() {
    let crm = served(5).await;
    crm.set(json!({"endless_cursor": "same"})).await;
    let first = crm.ok("contacts?limit=2").await;
    let token = first["paging"]["next"].as_str().expect("token");
    for _ in 0..3 {
        let again = crm.ok(&format!("contacts?limit=2&after={token}")).await;
        assert_eq!(
            (&again["paging"]["next"], &again["results"][0]["id"]),
            (&json!(token), &json!("3"))
        );
    }
    let window = "contacts/changes?since=0&until=1900000000000&limit=2";
    assert_eq!(ids(&crm.rows(&format!("{window}&after_id=4")).await), ["1", "2"]);

    crm.set(json!({"endless_cursor": "cycle"})).await;
    let mut seen = HashSet::new();
    let mut after = String::new();
    for _ in 0..10 {
        let page = crm.ok(&format!("contacts?limit=2{after}")).await;
        let token = page["paging"]["next"].as_str().expect("always another page").to_owned();
        assert!(seen.insert(token.clone()), "tokens differ");
        after = format!("&after={token}");
    }
    assert_eq!(ids(&crm.rows(&format!("{window}&after_id=4")).await), ["5", "1"]);
    assert_eq!(
        crm.ok("contacts/ids?after_id=4&limit=3").await["ids"],
        json!(["5", "1", "2"])
    );
    assert!(crm.ok("users?limit=500").await["paging"]["next"].is_string());
}

#[tokio::test]
async fn rows_move_while_somebody_pages() {
    let crm = served(200).await;
    crm.crm.knobs("demo", |knobs| {
        knobs.edits_per_page = EditsPerPage {
            edits: 3,
            deletes: 1,
            adds: 2,
        }
    });
    crm.ok("contacts?limit=10").await;
    let edits = crm.crm.history("demo").split_off(200);
    assert_eq!(edits.len(), 6);
    assert_eq!(edits.iter().filter(|edit| edit.deleted).count(), 1);
    assert_eq!(
        (crm.crm.stats("demo").contacts, crm.crm.truth("demo").len()),
        (201, 201)
    );
    crm.ok("users").await;
    assert_eq!(crm.crm.history("demo").len(), 206, "other answers move nothing");
}

#[tokio::test]
async fn refusals_may_come_as_200_with_a_traceback() {
    let crm = served(1).await;
    crm.set(json!({"errors_as_200": true})).await;
    let revoked = crm
        .client
        .get(format!("{}/api/demo/me", crm.base))
        .bearer_auth("old-token");
    let (status, body) = answer(revoked).await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (StatusCode::OK, Some("unauthorized"))
    );
    let debug = body["error"]["data"]["debug"].as_str().expect("traceback");
    assert!(
        debug.contains("Traceback") && debug.contains("old-token"),
        "what a log has to scrub"
    );
    let (status, body) = crm.call("contacts?limit=0").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (StatusCode::OK, Some("bad_request"))
    );
}

#[tokio::test]
async fn a_token_is_revoked_in_the_middle_of_a_listing() {
    let crm = served(10).await;
    crm.set(json!({"revoke_after": 2})).await;
    assert_eq!(statuses(&crm, "contacts?limit=1", 4).await, [200, 200, 401, 401]);
    crm.set(json!({"revoke_after": null})).await;
    crm.ok("me").await;
}

#[tokio::test]
async fn most_contacts_may_disappear_from_sight() {
    let crm = served(1_000).await;
    crm.set(json!({"shown_percent": 10})).await;
    let listed = crm.all("contacts?limit=500").await;
    assert!((50..200).contains(&listed.len()), "{}", listed.len());
    let listed: Vec<&str> = listed.iter().map(|row| row["id"].as_str().expect("id")).collect();
    assert_eq!(crm.ok("contacts/ids?limit=5000").await["ids"], json!(listed));
    assert_eq!(
        ids(&crm.rows("contacts/changes?since=0&until=1900000000000&limit=500").await),
        listed
    );
    let hidden = (1..)
        .map(|id| id.to_string())
        .find(|id| !listed.contains(&id.as_str()))
        .expect("hidden");
    assert_eq!(ids(&crm.batch(&[&hidden, listed[0]]).await), [listed[0]]);
    assert_eq!(crm.crm.truth("demo").len(), 1_000);
}
