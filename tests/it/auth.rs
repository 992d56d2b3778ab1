//! auth_validation, accounts, fingerprints, live checks, revocation.

use fake_crm::Control;
use serde_json::json;

use crate::harness::*;

on_both!(
    activation_answers_200_with_an_empty_object_and_starts_the_build,
    |backend| async move {
        let crm = Crm::start(120).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        assert_eq!(bridge.validate(auth()).await, (200, json!({})));
        bridge.build().await;
        assert_eq!(bridge.run(None).await.titles(), truth(&crm));
        bridge.stop().await;
    }
);

on_both!(
    wrong_and_incomplete_credentials_are_401_and_create_nothing,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        let (status, body) = bridge.validate(json!({"account": "demo", "token": "wrong"})).await;
        assert_eq!((status, body["code"].as_str()), (401, Some("invalid_credentials")));
        let (status, body) = bridge.validate(json!({"account": "nobody", "token": "wrong"})).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (401, Some("invalid_credentials")),
            "an account that the CRM does not have"
        );
        let (status, body) = bridge.validate(json!({"account": "demo"})).await;
        assert_eq!(status, 401);
        assert!(body["message"].as_str().unwrap().contains("token"), "{body}");
        let (status, _) = bridge.sync(json!(null)).await;
        assert_eq!(status, 200, "good ones are not harmed");
        let (status, _) = bridge
            .post(
                "/demo/contact_sync",
                json!({"auth": {"account": "demo", "token": "wrong"}}),
            )
            .await;
        assert_eq!(status, 401, "a wrong secret for a known account sees nothing");
        assert_eq!(
            snapbridge::sampling::account_ids(&*bridge.store, 10)
                .await
                .unwrap()
                .len(),
            1
        );
        bridge.stop().await;
    }
);

on_both!(
    a_refusal_is_remembered_so_that_guessing_costs_one_call,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        for _ in 0..5 {
            assert_eq!(
                bridge.validate(json!({"account": "demo", "token": "wrong"})).await.0,
                401
            );
        }
        assert_eq!(crm.checks(), 1);
        bridge.stop().await;
    }
);

on_both!(fifty_parallel_first_calls_make_one_crm_check, |backend| async move {
    let crm = Crm::start(5).await;
    crm.crm.knobs("demo", |knobs| knobs.slow_ms = 200);
    let bridge = Bridge::start(backend, &crm, "cold.hold = \"0s\"").await;
    let calls = (0..50).map(|_| bridge.validate(auth()));
    for (status, body) in futures::future::join_all(calls).await {
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(crm.checks(), 1);
    bridge.stop().await;
});

on_both!(
    a_known_account_gets_its_first_page_without_a_crm_call_while_the_crm_is_frozen,
    |backend| async move {
        let crm = Crm::start(120).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.knobs("demo", |knobs| knobs.frozen = true);
        let before = crm.calls();
        let run = bridge.run(None).await;
        assert_eq!(run.titles(), truth(&crm));
        assert_eq!(crm.calls(), before);
        crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        bridge.stop().await;
    }
);

on_both!(
    a_crm_that_is_down_or_frozen_is_502_or_504_and_never_401,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "credentials.check_timeout = \"300ms\"").await;
        crm.crm.knobs("demo", |knobs| knobs.fail_5xx = 1);
        assert_eq!(bridge.validate(auth()).await.0, 502);
        crm.crm.knobs("demo", |knobs| knobs.frozen = true);
        assert_eq!(bridge.validate(auth()).await.0, 504);
        crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        assert_eq!(bridge.validate(auth()).await.0, 200);
        bridge.stop().await;
    }
);

on_both!(
    revoked_credentials_park_the_account_and_new_ones_resume_it,
    |backend| async move {
        let crm = Crm::start(60).await;
        let bridge = Bridge::start(
            backend,
            &crm,
            "refresh.poll = \"300ms\"\nrefresh.sweep = \"200ms\"\nretry.first = \"100ms\"",
        )
        .await;
        let account = bridge.build().await;
        crm.crm.control(Control::tokens("demo", &["second-token"])).done();
        until("the worker meets the 401 and parks the account", || async {
            contacts::work::load(&*bridge.store, &account)
                .await
                .unwrap()
                .park
                .is_some()
        })
        .await;
        let refused = || crm.crm.stats("demo").answered(401);
        let parked_at = refused();
        let (status, body) = bridge.sync(json!(null)).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (401, Some("invalid_credentials")),
            "invariant 11"
        );
        let (status, _) = bridge.sync(json!(null)).await;
        assert_eq!(status, 401);
        assert_eq!(
            refused(),
            parked_at,
            "the worker's refusal is remembered, and it stands still itself"
        );

        let new = json!({"account": "demo", "token": "second-token"});
        let (status, page) = bridge.post("/demo/contact_sync", json!({ "auth": new })).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(
            bridge.account().await,
            account,
            "the same principal is the same account"
        );
        until("its work goes on", || async {
            contacts::work::load(&*bridge.store, &account)
                .await
                .unwrap()
                .park
                .is_none()
        })
        .await;
        let (status, _) = bridge.sync(json!(null)).await;
        assert_eq!(status, 401, "the old token is still refused");
        bridge.stop().await;
    }
);
