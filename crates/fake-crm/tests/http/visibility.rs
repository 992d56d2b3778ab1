//! When edits are stamped and when they are seen.

use std::collections::BTreeSet;

use fake_crm::{Change, Control, NEVER};
use reqwest::header::DATE;
use serde_json::json;

use crate::harness::{ids, served};

const FOREVER: &str = "contacts/changes?since=1700000000000&until=4000000000000&limit=500";

#[tokio::test]
async fn a_late_edit_is_true_before_it_is_seen() {
    let crm = served(5).await;
    crm.set(json!({"visibility_lag_ms": 3_600_000})).await;
    let edit = crm
        .crm
        .control(Control::edit("demo", Change::ids([2])))
        .done()
        .edits
        .remove(0);
    assert_eq!(edit.visible_at_ms - edit.modified_at_ms, 3_600_000);
    crm.crm.control(Control::create("demo", 1)).done();
    crm.crm.control(Control::delete("demo", Change::ids([4]))).done();
    assert_eq!(crm.batch(&["2"]).await[0].version, 2);
    assert_eq!(crm.rows("contacts").await.len(), 5);
    assert_eq!(crm.ok("contacts/deleted").await["results"], json!([]));
    let truth = crm.crm.truth("demo");
    assert_eq!(
        (ids(&truth), truth[1].version),
        (vec!["1", "2", "3", "5", "6"], edit.version)
    );
}

#[tokio::test]
async fn random_lags_differ_and_keep_their_bound() {
    let crm = served(100).await;
    crm.set(json!({"visibility_lag_ms": 500_000, "visibility_lag_random": true}))
        .await;
    let edits = crm.crm.control(Control::edit("demo", Change::random(50))).done().edits;
    let lags: BTreeSet<i64> = edits
        .iter()
        .map(|edit| edit.visible_at_ms - edit.modified_at_ms)
        .collect();
    assert!(
        lags.len() > 30 && lags.iter().all(|lag| (0..=500_000).contains(lag)),
        "{lags:?}"
    );
}

#[tokio::test]
async fn a_transaction_is_stamped_at_its_start_and_seen_at_its_commit() {
    let crm = served(3_000).await;
    let late = crm
        .crm
        .control(Control::touch("demo", Change::random(2_500).held()))
        .done()
        .edits;
    assert!(
        late.iter()
            .all(|edit| edit.visible_at_ms == NEVER && edit.modified_at_ms == late[0].modified_at_ms)
    );
    let newer = crm
        .crm
        .control(Control::edit("demo", Change::ids([1])))
        .done()
        .edits
        .remove(0);
    assert!(newer.modified_at_ms >= late[0].modified_at_ms);
    let start = late[0].modified_at_ms;
    let window = format!("contacts/changes?since={start}&until=4000000000000&limit=500");
    assert_eq!(
        ids(&crm.rows(&window).await),
        ["1"],
        "a reader is past the stamp before the rows are there"
    );
    assert_eq!(crm.crm.control(Control::commit("demo")).done().committed, 2_500);
    let mut seen = BTreeSet::new();
    let mut after = 0;
    loop {
        let page = crm.rows(&format!("{window}&after_id={after}")).await;
        let Some(last) = page.last() else { break };
        after = last.id.parse().expect("number");
        seen.extend(page.into_iter().map(|row| row.id));
    }
    let expected = late
        .iter()
        .map(|edit| edit.id.clone())
        .chain(["1".to_owned()])
        .collect();
    assert_eq!(seen, expected);
    let visible = crm
        .crm
        .history("demo")
        .into_iter()
        .filter(|edit| edit.version == late[0].version);
    assert!(
        visible
            .map(|edit| edit.visible_at_ms)
            .all(|at| at != NEVER && at >= start)
    );
}

#[tokio::test]
async fn equal_stamps_make_one_transaction_of_a_bulk_edit() {
    let crm = served(3_000).await;
    crm.set(json!({"equal_stamps": true, "visibility_lag_ms": 9_000_000, "visibility_lag_random": true}))
        .await;
    let edits = crm
        .crm
        .control(Control::edit("demo", Change::random(2_000)))
        .done()
        .edits;
    let moments: BTreeSet<_> = edits
        .iter()
        .map(|edit| (edit.modified_at_ms, edit.visible_at_ms))
        .collect();
    assert_eq!(moments.len(), 1);
}

#[tokio::test]
async fn whole_seconds_are_shown_while_the_filter_knows_better() {
    let crm = served(5).await;
    let stamp = 1_900_000_000_789;
    crm.set(json!({"whole_second_stamps": true})).await;
    crm.crm
        .control(Control::touch("demo", Change::ids([2]).stamped(stamp)))
        .done();
    let again = "contacts/changes?since=1900000000001&until=1900000001000";
    let rows = crm.rows(again).await;
    assert_eq!(
        (ids(&rows), rows[0].modified_at.as_str()),
        (vec!["2"], "2030-03-17T17:46:40Z")
    );
    assert_eq!(crm.crm.truth("demo")[1].modified_at, rows[0].modified_at);

    crm.set(json!({"whole_second_stamps": false, "whole_second_columns": true}))
        .await;
    let edit = crm
        .crm
        .control(Control::touch("demo", Change::ids([2]).stamped(stamp)))
        .done()
        .edits
        .remove(0);
    assert_eq!(edit.modified_at_ms, 1_900_000_000_000);
    assert_eq!(crm.rows(again).await, []);
    assert_eq!(crm.batch(&["2"]).await[0].modified_at, "2030-03-17T17:46:40.000Z");
}

#[tokio::test]
async fn a_skewed_clock_is_wrong_in_header_and_stamps() {
    let crm = served(5).await;
    let year = 365 * 24 * 3600 * 1000;
    crm.set(json!({"clock_skew_ms": -2 * year})).await;
    let edit = crm
        .crm
        .control(Control::edit("demo", Change::ids([2])))
        .done()
        .edits
        .remove(0);
    assert_eq!(edit.modified_at_ms, edit.visible_at_ms, "both by the CRM's clock");
    let response = crm.request("me").send().await.expect("answer");
    let date = response.headers()[DATE].to_str().expect("text");
    let date = jiff::fmt::rfc2822::parse(date)
        .expect(date)
        .timestamp()
        .as_millisecond();
    let now = jiff::Timestamp::now().as_millisecond();
    for (what, stamp) in [("date", date), ("stamp", edit.modified_at_ms)] {
        assert!((now - stamp - 2 * year).abs() < 600_000, "{what}: {stamp}");
    }
    let stats = crm.crm.stats("demo");
    assert!(
        (now - stats.first_call_ms.expect("called")).abs() < 600_000,
        "the counters' clock is right"
    );
}

#[tokio::test]
async fn archived_rows_may_be_hidden_from_changes() {
    let crm = served(5).await;
    crm.crm.control(Control::archive("demo", Change::ids([2]))).done();
    assert_eq!(crm.rows(FOREVER).await.len(), 5);
    crm.set(json!({"hide_archived": true})).await;
    assert_eq!(ids(&crm.rows(FOREVER).await), ["1", "3", "4", "5"]);
    assert_eq!(crm.rows(&format!("{FOREVER}&archived=true")).await.len(), 5);
}
