//! Credentials that the CRM no longer takes: parked at once, nobody is asked, the same ones are tried again once in a
//! while, new ones resume.

use fake_crm::Control;
use serde_json::json;

use super::*;

on_both!(
    a_changed_secret_parks_the_account_until_the_new_one_comes,
    |backend| async move {
        let stage = Stage::start(40).await;
        let bridge = stage.bridge(backend, "oauth2_client_credentials", QUICK).await;
        let old = stage.client(CLIENT_SECRET);
        let account = bridge.built_as(&old).await;
        stage.oauth.client(CLIENT, "client-secret-2", "demo");
        stage.oauth.revoke_all();
        bridge.parked().await;
        let calls = stage.all_calls();
        // Whatever is asked for meanwhile.
        bridge
            .store
            .mark(&account, &["1".to_owned()], contacts::Micros::from_secs(1), 10)
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(bridge.sync_as(&old, json!(null)).await.0, 401);
            assert_eq!(bridge.activate(&old).await.0, 401);
        }
        assert_eq!(stage.all_calls(), calls);

        let new = stage.client("client-secret-2");
        assert_eq!(bridge.sync_as(&new, json!(null)).await.0, 200);
        assert_eq!(bridge.accounts().await, [account]);
        assert!(bridge.work().await.park.is_none());
        stage
            .crm
            .crm
            .control(Control::edit("demo", fake_crm::Change::random(3)))
            .done();
        until("its work goes on", || async {
            bridge.run_as(&new, None).await.titles() == truth(&stage.crm)
        })
        .await;
        bridge.stop().await;
    }
);

on_both!(
    refused_credentials_are_tried_again_once_in_a_while,
    |backend| async move {
        let stage = Stage::start(20).await;
        let more = format!("credentials.recheck_after = \"1s\"\n{QUICK}");
        let bridge = stage.bridge(backend, "oauth2_password", &more).await;
        let auth = stage.password(USER, PASSWORD);
        bridge.built_as(&auth).await;
        stage.oauth.user(USER, "changed by mistake", "demo", 1);
        stage.oauth.revoke_all();
        bridge.parked().await;
        let parked = bridge.work().await.park.unwrap();
        let calls = stage.oauth.stats().total();
        // The store's clock tells which of the calls may have been put to the CRM.
        let mut sent = 0;
        until("the refused password is put to the CRM again", || async {
            assert_eq!(bridge.sync_as(&auth, json!(null)).await.0, 401);
            stage.oauth.stats().total() > calls
        })
        .await;
        let rechecked = bridge.work().await.park.unwrap().rechecked;
        assert!(rechecked.since(parked.rechecked) >= std::time::Duration::from_secs(1));
        sent += stage.oauth.stats().total() - calls;
        assert_eq!(sent, 1);

        stage.oauth.user(USER, PASSWORD, "demo", 1);
        until("the mistake is mended without anybody doing anything here", || async {
            bridge.sync_as(&auth, json!(null)).await.0 == 200
        })
        .await;
        assert!(bridge.work().await.park.is_none());
        bridge.stop().await;
    }
);

on_both!(
    invariant_11_a_live_check_that_is_refused_parks_at_once,
    |backend| async move {
        let stage = Stage::start(20).await;
        // No poll comes along in the time of this test.
        let more = "integrations.oauth.poll = \"1h\"\n";
        let bridge = stage.bridge(backend, "oauth2_client_credentials", more).await;
        let auth = stage.client(CLIENT_SECRET);
        bridge.built_as(&auth).await;
        stage.oauth.client(CLIENT, "another", "demo");
        stage.oauth.revoke_all();
        assert_eq!(bridge.activate(&auth).await.0, 401);
        let park = bridge.work().await.park.expect("parked");
        assert!(park.handed_back);
        assert!(park.message.contains("invalid_client"), "{}", park.message);
        let calls = stage.all_calls();
        assert_eq!(
            bridge.sync_as(&auth, json!(null)).await.0,
            401,
            "young, and refused since"
        );
        assert_eq!(stage.all_calls(), calls);
        bridge.stop().await;
    }
);
