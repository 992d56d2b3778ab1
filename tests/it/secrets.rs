//! Invariant 12: a canary token shows up nowhere but at its CRM. Every byte that the store keeps, every log line at the
//! finest level, metrics, answers and tokens are searched, in every spelling that [`Detector`] knows.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fake_crm::{Control, Webhook};
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::accounts::{Oauth, QUICK, Stage};
use crate::canary::Detector;
use crate::harness::*;

const CANARY: &str = "canary-5b0f7c1e9d";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

/// Every log line of this process from now on, at the finest level.
fn logged_lines() -> Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let install = || {
        let lines = Lines::default();
        let format = process::settings::LogFormat::Json;
        let subscriber = process::telemetry::subscriber(format, "trace", lines.clone(), false).expect("a level");
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber of the tests");
        lines
    };
    LINES.get_or_init(install).clone()
}

/// Everything a bridge does, with the canary as token.
async fn live_through(backend: Backend) -> (Bridge, Vec<u8>) {
    let crm = Crm::start(80).await;
    crm.crm.control(Control::tokens("demo", &[CANARY])).done();
    let more = "refresh.poll = \"300ms\"\nrefresh.sweep = \"100ms\"\nretry.first = \"50ms\"";
    let bridge = Bridge::start(backend, &crm, more).await;
    let auth = json!({"account": "demo", "token": CANARY});
    let mut answers = Vec::new();
    let mut post = async |path: &str, body: serde_json::Value| {
        let (status, answer) = bridge.post(path, body).await;
        answers.extend_from_slice(answer.to_string().as_bytes());
        (status, answer)
    };
    assert_eq!(post("/demo/auth_validation", json!({ "auth": auth })).await.0, 200);
    let account = bridge.account().await;
    let hook = format!("{}/demo/webhooks/{}", bridge.url, bridge.keys.hook_id(&account));
    crm.crm
        .control(Control::webhook(
            "demo",
            Some(Webhook::new(hook, bridge.keys.hook_secret(&account))),
        ))
        .done();
    crm.crm.knobs("demo", |knobs| knobs.errors_as_200 = true);
    until("contacts arrive", || async {
        let head = bridge.store.head(&account, contacts::Stream::Contacts).await.unwrap();
        head.is_some_and(|head| head.ready)
    })
    .await;
    crm.crm
        .control(Control::edit("demo", fake_crm::Change::random(5)))
        .done();
    until("the webhook is delivered", || async {
        crm.crm.stats("demo").webhooks.delivered >= 5
    })
    .await;
    assert_eq!(post("/demo/contact_sync", json!({ "auth": auth })).await.0, 200);
    let asked = json!({"auth": auth, "data": {"contact_external_id": "1"}});
    assert_eq!(post("/demo/interaction_update", asked).await.0, 200);
    let order =
        |subject: &str| json!({"auth": auth, "meta": {"contact_external_id": "1"}, "data": {"subject": subject}});
    assert_eq!(post("/demo/actions/create_ticket", order("s")).await.0, 201);
    crm.crm.knobs("demo", |knobs| knobs.refuse_writes = 1);
    assert_eq!(post("/demo/actions/create_ticket", order("t")).await.0, 400);
    crm.crm.knobs("demo", |knobs| knobs.cut = 1);
    assert_eq!(
        post(
            "/demo/interaction_update",
            json!({"auth": auth, "data": {"contact_external_id": "2"}})
        )
        .await
        .0,
        502
    );
    // A wrong body that holds it, an unknown integration, a refused token: errors echo nothing.
    post("/demo/contact_sync", json!({"auth": {"token": [CANARY]}})).await;
    post("/nobody/contact_sync", json!({ "auth": auth })).await;
    crm.crm.control(Control::tokens("demo", &["another"])).done();
    until("the worker meets the 401", || async {
        contacts::work::load(&*bridge.store, &account)
            .await
            .unwrap()
            .park
            .is_some()
    })
    .await;
    assert_eq!(post("/demo/contact_sync", json!({ "auth": auth })).await.0, 401);
    let metrics = bridge
        .http
        .get(format!("{}/metrics", bridge.admin))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let ready = bridge
        .http
        .get(format!("{}/readyz", bridge.admin))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    answers.extend_from_slice(&metrics);
    answers.extend_from_slice(&ready);
    (bridge, answers)
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
        }
    }
}

on_both!(invariant_12_a_secret_is_nowhere_but_at_its_crm, |backend| async move {
    let lines = logged_lines();
    let (bridge, answers) = live_through(backend).await;
    let hook_secret = bridge.keys.hook_secret(&bridge.account().await);
    let secrets = [CANARY, hook_secret.as_str()];
    nowhere(bridge, &answers, &lines, &secrets).await;
});

/// The canary as client secret and as password, the tokens that are minted with them, and one that Talkdesk brings. The
/// token endpoint quotes what it was sent in its errors.
async fn live_through_oauth(backend: Backend) -> (Bridge, Vec<u8>, Vec<String>) {
    let stage = Stage::start(40).await;
    stage.oauth.client("bridge-client", CANARY, "demo");
    stage.oauth.user("ana", PASSWORD, "demo", 1);
    let bridge = stage.bridge(backend, "oauth2_password", QUICK).await;
    let mut auth = stage.password("ana", PASSWORD);
    auth["client_secret"] = json!(CANARY);
    let mut answers = Vec::new();
    let mut sync = async |auth: &serde_json::Value| {
        let (status, answer) = bridge.sync_as(auth, json!(null)).await;
        answers.extend_from_slice(answer.to_string().as_bytes());
        status
    };
    bridge.built_as(&auth).await;
    assert_eq!(sync(&auth).await, 200);
    let mut tokens = stage.oauth.tokens();
    let mut brought = auth.clone();
    brought["access_token"] = json!(tokens[0]);
    assert_eq!(sync(&brought).await, 200);
    let mut wrong = auth.clone();
    wrong["password"] = json!(format!("{PASSWORD}-wrong"));
    assert_eq!(sync(&wrong).await, 401);
    stage.oauth.knobs(|knobs| knobs.html_200 = true);
    wrong["password"] = json!(format!("{PASSWORD}-other"));
    assert_eq!(sync(&wrong).await, 502);
    stage.oauth.knobs(|knobs| knobs.html_200 = false);
    // Back to minting, so that the keep holds a token, too.
    stage.oauth.revoke_all();
    bridge.parked().await;
    assert_eq!(bridge.activate(&auth).await.0, 200);
    tokens.extend(stage.oauth.tokens());
    stage.oauth.user("ana", "another", "demo", 1);
    stage.oauth.revoke_all();
    bridge.parked().await;
    assert_eq!(sync(&auth).await, 401);
    (bridge, answers, tokens)
}

const PASSWORD: &str = "canary-password-77c1";

on_both!(
    invariant_12_tokens_are_told_to_nobody_and_kept_sealed,
    |backend| async move {
        let lines = logged_lines();
        let (bridge, answers, tokens) = live_through_oauth(backend).await;
        assert!(tokens.len() >= 2);
        let mut secrets = vec![CANARY, PASSWORD];
        secrets.extend(tokens.iter().map(String::as_str));
        nowhere(bridge, &answers, &lines, &secrets).await;
    }
);

/// Searches everything for secrets, and stops the bridge.
async fn nowhere(bridge: Bridge, answers: &[u8], lines: &Lines, secrets: &[&str]) {
    let detector = Detector::of(secrets.iter().map(|secret| ("a secret", (*secret).to_owned())));
    detector.assert_clean("an answer", answers);
    let kept = match bridge.backend {
        Backend::Embedded => {
            let mut found = Vec::new();
            files(bridge.folder(), &mut found);
            found.retain(|(name, _)| !name.ends_with("/keys"));
            assert!(
                found
                    .iter()
                    .any(|(name, bytes)| name.ends_with("store.db") && !bytes.is_empty())
            );
            found
        }
        Backend::Distributed => bridge.redis_dump().await,
    };
    assert!(kept.len() > 3);
    for (name, bytes) in &kept {
        detector.assert_clean(name, bytes);
    }
    bridge.stop().await;
    let logged = lines.0.lock().clone();
    assert!(logged.len() > 1_000, "there were log lines to search");
    detector.assert_clean("the log", &logged);
}
