//! `oauth2_password` and `oauth2_client_credentials`: the bridge mints its own tokens.

use std::time::Duration;

use serde_json::json;
use snapbridge::wiring::Role;

use super::*;

fn types(stage: &Stage) -> [(&'static str, &'static str, serde_json::Value); 2] {
    [
        ("oauth2_password", "password", stage.password(USER, PASSWORD)),
        (
            "oauth2_client_credentials",
            "client_credentials",
            stage.client(CLIENT_SECRET),
        ),
    ]
}

on_both!(one_token_call_serves_activation_build_and_sync, |backend| async move {
    for which in 0..2 {
        let stage = Stage::start(120).await;
        let (auth_type, grant, auth) = types(&stage)[which].clone();
        let bridge = stage.bridge(backend, auth_type, "").await;
        let (status, body) = bridge.activate(&auth).await;
        assert_eq!((status, body), (200, json!({})));
        built(&bridge, &bridge.account().await).await;
        assert_eq!(bridge.run_as(&auth, None).await.titles(), truth(&stage.crm));
        let stats = stage.oauth.stats();
        assert_eq!((stats.total(), stats.of(grant)), (1, 1), "{stats:?}");
        bridge.stop().await;
    }
});

on_both!(fifty_parallel_activations_make_one_token_call, |backend| async move {
    let stage = Stage::start(5).await;
    stage.oauth.knobs(|knobs| knobs.slow = Duration::from_millis(200));
    let bridge = stage.bridge(backend, "oauth2_password", "cold.hold = \"0s\"\n").await;
    let auth = stage.password(USER, PASSWORD);
    let calls = (0..50).map(|_| bridge.activate(&auth));
    for (status, body) in futures::future::join_all(calls).await {
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(stage.oauth.stats().total(), 1);
    bridge.stop().await;
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_and_a_worker_of_their_own_share_a_token() {
    if !services() {
        return;
    }
    let backend = Backend::Distributed;
    let stage = Stage::start(40).await;
    let settings = stage.settings("oauth2_client_credentials", &connector(""), "");
    let setup = |role, beside| Setup {
        backend,
        role,
        more: &settings,
        beside,
    };
    let front = Bridge::set_up(setup(Role::Front, None), &stage.crm).await;
    let worker = Bridge::set_up(setup(Role::Worker, Some(&front)), &stage.crm).await;
    let auth = stage.client(CLIENT_SECRET);
    front.built_as(&auth).await;
    assert_eq!(front.run_as(&auth, None).await.titles(), truth(&stage.crm));
    assert_eq!(stage.oauth.stats().total(), 1);
    worker.stop().await;
    front.stop().await;
}

on_both!(
    tokens_that_end_in_the_middle_of_a_build_are_renewed,
    |backend| async move {
        for tells_life in [true, false] {
            let stage = Stage::start(3_000).await;
            stage.oauth.knobs(|knobs| {
                knobs.life = Duration::from_millis(300);
                knobs.tells_life = tells_life;
            });
            stage.crm.crm.knobs("demo", |knobs| knobs.slow_ms = 120);
            let bridge = stage.bridge(backend, "oauth2_client_credentials", QUICK).await;
            let auth = stage.client(CLIENT_SECRET);
            bridge.built_as(&auth).await;
            stage.crm.crm.knobs("demo", |knobs| knobs.slow_ms = 0);
            let issued = stage.oauth.stats().issued;
            assert!(issued >= 2, "{issued} tokens");
            assert!(bridge.work().await.park.is_none());
            assert_eq!(bridge.run_as(&auth, None).await.titles(), truth(&stage.crm));
            bridge.stop().await;
        }
    }
);

on_both!(
    a_revoked_token_is_minted_once_more_and_nobody_notices,
    |backend| async move {
        let stage = Stage::start(40).await;
        let bridge = stage.bridge(backend, "oauth2_password", QUICK).await;
        let auth = stage.password(USER, PASSWORD);
        bridge.built_as(&auth).await;
        stage.oauth.revoke_all();
        stage
            .crm
            .crm
            .control(fake_crm::Control::edit("demo", fake_crm::Change::random(3)))
            .done();
        until("the edits arrive", || async {
            bridge.run_as(&auth, None).await.titles() == truth(&stage.crm)
        })
        .await;
        assert!(bridge.work().await.park.is_none());
        assert_eq!(stage.oauth.stats().total(), 2);
        assert_eq!(stage.crm.crm.stats("demo").answered(401), 1);
        bridge.stop().await;
    }
);

on_both!(
    wrong_credentials_are_401_and_cost_one_token_call,
    |backend| async move {
        let stage = Stage::start(5).await;
        let bridge = stage.bridge(backend, "oauth2_password", "").await;
        let wrong = stage.password(USER, "wrong");
        for _ in 0..4 {
            let (status, body) = bridge.activate(&wrong).await;
            assert_eq!((status, &body["code"]), (401, &json!("invalid_credentials")), "{body}");
        }
        assert_eq!((stage.oauth.stats().total(), stage.crm_calls()), (1, 0));
        assert!(bridge.accounts().await.is_empty());
        let (status, body) = bridge.activate(&stage.with(json!({"username": USER}))).await;
        assert_eq!(status, 401);
        assert!(body["message"].as_str().unwrap().contains("password"), "{body}");

        bridge.built_as(&stage.password(USER, PASSWORD)).await;
        let (status, page) = bridge.sync_as(&wrong, json!(null)).await;
        assert_eq!(status, 401, "a wrong secret for a known account sees nothing: {page}");
        bridge.stop().await;
    }
);

on_both!(
    a_token_endpoint_that_is_down_is_502_or_504_and_never_401,
    |backend| async move {
        let stage = Stage::start(20).await;
        let more = format!("credentials.check_timeout = \"2s\"\ncredentials.checks_per_minute = 1000\n{QUICK}");
        // Token calls are no calls of the CRM's API here, so that a 429 stops them alone.
        let limit = "max    = \"${conn.per_second}\"";
        let connector = connector("").replace(limit, &format!("{limit}\nexcept = [\"login\"]"));
        let settings = stage.settings("oauth2_client_credentials", &connector, &more);
        let bridge = Bridge::start(backend, &stage.crm, &settings).await;
        let auth = stage.client(CLIENT_SECRET);
        let answer = async || bridge.activate(&auth).await.0;
        for (status, expected) in [(500, 502), (503, 502), (403, 502)] {
            stage.oauth.knobs(|knobs| knobs.fail_status = Some(status));
            assert_eq!(answer().await, expected, "{status}");
        }
        stage.oauth.knobs(|knobs| knobs.fail_status = Some(429));
        assert_eq!(answer().await, 429);
        stage
            .oauth
            .knobs(|knobs| (knobs.fail_status, knobs.html_200) = (None, true));
        assert_eq!(answer().await, 502);
        stage.oauth.knobs(|knobs| knobs.html_200 = false);
        stage.oauth.freeze(true);
        assert_eq!(answer().await, 504);
        stage.oauth.freeze(false);
        until("it is let in again", || async { answer().await == 200 }).await;
        built(&bridge, &bridge.account().await).await;

        // A known account is served meanwhile, and its work waits instead of being parked.
        stage.oauth.knobs(|knobs| knobs.fail_status = Some(503));
        stage.oauth.revoke_all();
        until("a poll fails at the token endpoint", || async {
            let work = bridge.work().await;
            work.tasks.values().any(|task| {
                task.last_error
                    .as_ref()
                    .is_some_and(|failure| failure.kind == "unavailable")
            })
        })
        .await;
        assert!(bridge.work().await.park.is_none());
        assert_eq!(bridge.run_as(&auth, None).await.titles(), truth(&stage.crm));
        bridge.stop().await;
    }
);

on_both!(
    a_hostile_token_endpoint_is_refused_and_called_by_nobody,
    |backend| async move {
        let stage = Stage::start(5).await;
        let bridge = stage.bridge(backend, "oauth2_password", "").await;
        let here = stage.oauth_url.strip_prefix("http://").unwrap();
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "https://evil.example/oauth/token",
            "http://localhost:6379/",
            "http://[::1]:8080/",
            "file:///etc/passwd",
            "gopher://evil.example/",
            "not a url",
            "https://demo.invalid@evil.example/",
            &format!("http://user:pass@{here}/oauth/token"),
            &format!("https://{here}/oauth/token"),
        ] {
            let mut auth = stage.password(USER, PASSWORD);
            auth["access_token_url"] = json!(url);
            let (status, body) = bridge.activate(&auth).await;
            assert_eq!((status, &body["code"]), (400, &json!("host_refused")), "{url}: {body}");
        }
        assert_eq!(stage.all_calls(), 0);
        assert!(bridge.accounts().await.is_empty());
        bridge.stop().await;
    }
);

on_both!(a_token_in_auth_comes_before_one_of_our_own, |backend| async move {
    let stage = Stage::start(20).await;
    let bridge = stage.bridge(backend, "oauth2_password", "").await;
    let (token, _) = stage.dance(USER).await;
    let mut auth = stage.password(USER, PASSWORD);
    auth["access_token"] = json!(token);
    bridge.built_as(&auth).await;
    assert_eq!(stage.oauth.stats().total(), 1, "the dance");
    stage.oauth.revoke_all();
    let (status, _) = bridge.activate(&auth).await;
    assert_eq!(status, 401, "so that Talkdesk renews it");
    assert_eq!(stage.oauth.stats().total(), 1);
    bridge.stop().await;
});
