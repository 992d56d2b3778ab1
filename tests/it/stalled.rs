//! The CRM stalls in the middle of a bulk pull: whoever waits for an answer gets one, within the deadline of its endpoint.

use std::time::Duration;

use contacts::Stream;
use fake_crm::RateLimit;
use serde_json::{Value, json};

use crate::harness::*;

/// The deadlines, short ones, and a CRM call that would go on for a minute.
const DEADLINES: &str = "credentials.check_timeout = \"1s\"\ninteractions.deadline = \"1s\"\nactions.deadline = \"1s\"\n\
    cold.hold = \"1s\"\ncrm.call_timeout = \"60s\"\ncrm.read_timeout = \"60s\"\npage.contacts = 200";

/// Much longer than any deadline, and shorter than the stall.
const HANG: Duration = Duration::from_secs(20);

async fn answered(what: &str, call: impl Future<Output = (u16, Value)>) -> (u16, Value) {
    match tokio::time::timeout(HANG, call).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what} is not answered while the CRM stalls"),
    }
}

on_both!(
    with_a_bulk_pull_running_and_the_crm_stalled_every_interactive_call_is_answered_within_its_deadline,
    |backend| async move {
        // Forty pages, four a second: the pull is under way for as long as this takes.
        let limit = RateLimit {
            max: 4,
            window: Duration::from_secs(1),
        };
        let crm = Crm::limited(20_000, Some(limit)).await;
        let bridge = Bridge::start(backend, &crm, DEADLINES).await;
        assert_eq!(bridge.validate(auth()).await.0, 200);
        let account = bridge.account().await;
        let head = || async { bridge.store.head(&account, Stream::Contacts).await.expect("a head") };
        until("the pull has begun", || async {
            head().await.is_some_and(|head| head.count >= 1_000)
        })
        .await;
        assert!(
            !head().await.is_some_and(|head| head.ready),
            "the pull is still running"
        );
        let agents = || bridge.post("/demo/agent_sync", json!({ "auth": auth() }));
        until("the agents are there", || async { agents().await.0 == 200 }).await;
        crm.crm.knobs("demo", |knobs| knobs.frozen = true);

        let (status, page) = answered("contact_sync", bridge.sync(json!(null))).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["contacts"].as_array().map(Vec::len), Some(200));
        assert!(page["next_offset"].is_string(), "more to come: {page}");
        // The end of what is there: held for a while, then answered all the same.
        let mut meta = json!({ "offset": page["next_offset"] });
        loop {
            let (status, page) = answered("contact_sync at the end", bridge.sync(meta)).await;
            assert_eq!(status, 200, "{page}");
            let next = &page["next_offset"];
            assert!(next.is_string(), "the pull is not over: {page}");
            if page["contacts"] == json!([]) {
                break;
            }
            meta = json!({ "offset": next });
        }
        // A validation asks the CRM, whoever it is for; a refusal would be a lie.
        for who in [auth(), json!({ "account": "demo", "token": "others-token" })] {
            let (status, error) = answered("auth_validation", bridge.validate(who)).await;
            assert_eq!((status, error["code"].as_str()), (504, Some("crm_timeout")), "{error}");
        }
        assert_eq!(answered("agent_sync", agents()).await.0, 200);
        let ticket = bridge.interactions(json!(null), json!({ "contact_external_id": "1" }));
        let (status, error) = answered("interaction_update", ticket).await;
        assert_eq!((status, error["code"].as_str()), (504, Some("crm_timeout")));
        let action = bridge.act(
            "create_ticket",
            json!({ "contact_external_id": "1" }),
            json!({ "subject": "s" }),
        );
        let (status, error) = answered("an action", action).await;
        assert!(
            matches!(
                (status, error["code"].as_str()),
                (400, Some("outcome_unknown")) | (503, _)
            ),
            "{status} {error}"
        );
        crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        bridge.stop().await;
    }
);
