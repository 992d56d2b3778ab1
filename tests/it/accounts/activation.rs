//! auth_validation as a user meets it.

use fake_crm::Control;
use serde_json::json;

use super::*;

on_both!(
    values_resolved_once_are_returned_and_are_hints_when_they_come_back,
    |backend| async move {
        let stage = Stage::start(10).await;
        let more = "integrations.oauth.return_fields = [\"org_name\"]\n";
        let bridge = stage.bridge(backend, "oauth2_client_credentials", more).await;
        let auth = stage.client(CLIENT_SECRET);
        let (status, body) = bridge.activate(&auth).await;
        assert_eq!((status, body), (200, json!({"org_name": "Fake CRM of demo"})));
        let account = bridge.account().await;
        built(&bridge, &account).await;
        let calls = stage.all_calls();
        // Talkdesk sends them along from now on; a caller may send anything.
        let mut hinted = auth.clone();
        hinted["org_name"] = json!("Fake CRM of somebody else");
        assert_eq!(bridge.run_as(&hinted, None).await.titles(), truth(&stage.crm));
        assert_eq!(bridge.accounts().await, [account], "never identity");
        assert_eq!(stage.all_calls(), calls, "not even another fingerprint");
        bridge.stop().await;
    }
);

on_both!(older_talkdesk_accounts_get_204, |backend| async move {
    let stage = Stage::start(5).await;
    let more = "integrations.oauth.auth_success_status = 204\n";
    let bridge = stage.bridge(backend, "oauth2_client_credentials", more).await;
    let (status, body) = bridge.activate(&stage.client(CLIENT_SECRET)).await;
    assert_eq!((status, body), (204, json!(null)));
    bridge.stop().await;
});

on_both!(
    a_user_is_told_what_is_wrong_and_no_two_causes_read_alike,
    |backend| async move {
        let stage = Stage::start(5).await;
        let more = "credentials.check_timeout = \"2s\"\n";
        let bridge = stage.bridge(backend, "oauth2_client_credentials", more).await;
        let auth = stage.client(CLIENT_SECRET);
        let mut told = BTreeSet::new();
        let mut hear = async |auth: &Value, status: u16, words: &str| {
            let (got, body) = bridge.activate(auth).await;
            assert_eq!(got, status, "{body}");
            let message = body["message"].as_str().unwrap().to_owned();
            assert!(message.contains(words), "{message}");
            assert!(!message.contains(CLIENT_SECRET), "{message}");
            assert!(told.insert(message.clone()), "told before: {message}");
        };
        let knobs = |change: fn(&mut fake_crm::Knobs)| stage.crm.crm.knobs("demo", change);
        hear(&stage.client("wrong"), 401, "rejected the credentials").await;
        hear(&json!({"account": "demo"}), 401, "The field").await;
        knobs(|knobs| knobs.fail_5xx = 1);
        hear(&auth, 502, "cannot be reached").await;
        knobs(|knobs| knobs.html_200 = 1);
        hear(&auth, 502, "gave an answer that the bridge cannot use").await;
        knobs(|knobs| knobs.frozen = true);
        hear(&auth, 504, "did not answer in time").await;
        knobs(|knobs| knobs.frozen = false);
        let mut hostile = auth.clone();
        hostile["access_token_url"] = json!("https://evil.example/");
        hear(&hostile, 400, "is not one that this bridge may call").await;
        knobs(|knobs| (knobs.burst_429, knobs.retry_after) = (1, Some("30".into())));
        hear(&auth, 429, "asks to slow down").await;
        hear(&auth, 429, "The call budget for").await;
        stage.crm.crm.control(Control::tokens("demo", &[])).done();
        bridge.stop().await;
    }
);
