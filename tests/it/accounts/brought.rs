//! `auth_type = "oauth2"`: Talkdesk has the tokens and renews them; the bridge uses what it is given.

use contacts::{Fence, Kind};
use serde_json::{Value, json};

use super::*;

on_both!(a_token_that_talkdesk_brings_is_used_as_it_is, |backend| async move {
    let stage = Stage::start(80).await;
    let bridge = stage.bridge(backend, "oauth2", "").await;
    let (token, _) = stage.dance(USER).await;
    let auth = stage.brought(&token);
    bridge.built_as(&auth).await;
    assert_eq!(bridge.run_as(&auth, None).await.titles(), truth(&stage.crm));
    assert_eq!(stage.oauth.stats().total(), 1, "Talkdesk's own exchange");
    let (status, body) = bridge.activate(&json!({"account": "demo"})).await;
    assert_eq!(status, 401);
    assert!(body["message"].as_str().unwrap().contains("access_token"), "{body}");
    bridge.stop().await;
});

on_both!(
    a_token_that_is_over_is_handed_back_once_and_the_repeated_call_resumes,
    |backend| async move {
        let stage = Stage::start(60).await;
        let bridge = stage.bridge(backend, "oauth2", QUICK).await;
        let (token, refresh) = stage.dance(USER).await;
        let old = stage.brought(&token);
        let account = bridge.built_as(&old).await;
        let run = bridge.run_as(&old, None).await;

        stage.oauth.revoke_all();
        bridge.parked().await;
        let edited = stage
            .crm
            .crm
            .control(fake_crm::Control::edit("demo", fake_crm::Change::random(3)));
        edited.done();
        let calls = stage.all_calls();
        for _ in 0..3 {
            let (status, body) = bridge.sync_as(&old, json!(null)).await;
            assert_eq!((status, &body["code"]), (401, &json!("invalid_credentials")));
        }
        assert!(bridge.work().await.park.unwrap().handed_back);
        assert_eq!(stage.all_calls(), calls, "nobody is asked while the account is parked");

        // What Talkdesk does upon a 401: a new token, and the same call again. It does not wait for the poll behind it.
        stage.crm.crm.knobs("demo", |knobs| {
            (knobs.frozen, knobs.fault_ops) = (true, vec![fake_crm::Op::Changes]);
        });
        let (token, _) = stage.renew(&refresh).await;
        let new = stage.brought(&token);
        let meta = json!({"synchronization_checkpoint": run.checkpoint});
        let (status, page) = bridge.sync_as(&new, meta).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["contacts"], json!([]), "the snapshot as it is");
        assert_eq!(bridge.accounts().await, [account], "another token, the same account");
        assert_ne!(
            bridge.kept().await.credentials.data,
            "",
            "its credentials are the new ones"
        );
        assert!(bridge.work().await.park.is_none());
        stage.crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        until("the poll behind it has brought the edits", || async {
            bridge.run_as(&new, None).await.titles() == truth(&stage.crm)
        })
        .await;
        assert_eq!(
            bridge.sync_as(&old, json!(null)).await.0,
            401,
            "the old token stays refused"
        );
        let stats = stage.oauth.stats();
        assert_eq!(
            (stats.total(), stats.reused),
            (2, 0),
            "the dance and Talkdesk's renewal"
        );
        bridge.stop().await;
    }
);

on_both!(
    a_token_renewed_between_two_pages_goes_on_with_the_run,
    |backend| async move {
        let stage = Stage::start(90).await;
        let more = format!("page.contacts = 20\n{QUICK}");
        let bridge = stage.bridge(backend, "oauth2", &more).await;
        let (token, refresh) = stage.dance(USER).await;
        let old = stage.brought(&token);
        bridge.built_as(&old).await;
        let (_, first) = bridge.sync_as(&old, json!(null)).await;
        let meta = json!({"offset": first["next_offset"], "context": first["context"]});
        stage.oauth.revoke_all();
        bridge.parked().await;
        assert_eq!(bridge.sync_as(&old, meta.clone()).await.0, 401);
        let (token, _) = stage.renew(&refresh).await;
        let new = stage.brought(&token);
        let mut delivered: Vec<Value> = first["contacts"].as_array().unwrap().clone();
        let mut meta = meta;
        loop {
            let (status, page) = bridge.sync_as(&new, meta).await;
            assert_eq!(status, 200, "{page}");
            delivered.extend(page["contacts"].as_array().unwrap().iter().cloned());
            let Some(next) = page.get("next_offset") else { break };
            meta = json!({"offset": next, "context": page["context"]});
        }
        let run = Run {
            contacts: delivered,
            ..Run::default()
        };
        assert_eq!(run.titles(), truth(&stage.crm));
        bridge.stop().await;
    }
);

on_both!(
    short_lived_tokens_are_used_for_a_poll_right_behind_the_call,
    |backend| async move {
        // Whether the call asked for a poll: (token life, expected).
        for (lifetime, polls) in [("lifetime = \"5m\"", true), ("", true), ("lifetime = \"3h\"", false)] {
            let stage = Stage::start(30).await;
            let more = "integrations.oauth.poll = \"1h\"\nrefresh.sweep = \"100ms\"\n";
            let settings = stage.settings("oauth2", &connector(lifetime), more);
            let bridge = Bridge::start(backend, &stage.crm, &settings).await;
            let (token, _) = stage.dance(USER).await;
            let auth = stage.brought(&token);
            bridge.built_as(&auth).await;
            stage
                .crm
                .crm
                .control(fake_crm::Control::edit("demo", fake_crm::Change::random(3)))
                .done();
            let (status, _) = bridge.sync_as(&auth, json!(null)).await;
            assert_eq!(status, 200);
            let work = bridge.work().await;
            let asked = work.tasks.get(&Kind::Changes).map(|task| task.asked);
            assert_eq!(
                asked.is_some_and(|fence| fence > Fence::default()),
                polls,
                "{lifetime:?}"
            );
            if polls {
                until("the edits are in the snapshot", || async {
                    bridge.run_as(&auth, None).await.titles() == truth(&stage.crm)
                })
                .await;
            }
            bridge.stop().await;
        }
    }
);

on_both!(a_token_in_a_field_of_another_name_is_found, |backend| async move {
    let stage = Stage::start(5).await;
    let text = connector("token_fields = [\"oauth_token\"]").replace(
        "access_token = { type = \"secret\" }",
        "oauth_token = { type = \"secret\" }",
    );
    let settings = stage.settings("oauth2", &text, "");
    let bridge = Bridge::start(backend, &stage.crm, &settings).await;
    let (token, _) = stage.dance(USER).await;
    let (status, body) = bridge.activate(&json!({"account": "demo", "oauth_token": token})).await;
    assert_eq!(status, 200, "{body}");
    bridge.stop().await;
});
