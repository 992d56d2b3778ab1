//! `auth_type = "none"`: Talkdesk sends no credentials; the settings have them, and the secret in the path is all that
//! protects them.

use std::path::Path;
use std::sync::Arc;

use contacts::SystemClock;
use serde_json::{Value, json};
use snapbridge::integrations::Integrations;
use store::MemoryStore;

use super::*;

const SECRET: &str = "0123456789abcdef0123";

fn none(stage: &Stage, credentials: &str) -> String {
    stage.settings(
        "none",
        &connector(""),
        &format!("integrations.oauth.path_secret = \"{SECRET}\"\n{credentials}"),
    )
}

fn client_credentials(stage: &Stage) -> String {
    let credential = |name: &str, value: &str| format!("integrations.oauth.credentials.{name} = \"{value}\"\n");
    credential("account", "demo")
        + &credential("client_id", CLIENT)
        + &credential("client_secret", CLIENT_SECRET)
        + &credential("access_token_url", &format!("{}/oauth/token", stage.oauth_url))
}

on_both!(
    credentials_of_the_settings_stand_in_for_a_customers,
    |backend| async move {
        let stage = Stage::start(50).await;
        let tokens = [
            client_credentials(&stage),
            format!(
                "integrations.oauth.credentials.account = \"demo\"\nintegrations.oauth.credentials.access_token = \"{TOKEN}\"\n"
            ),
        ];
        for credentials in tokens {
            let bridge = Bridge::start(backend, &stage.crm, &none(&stage, &credentials)).await;
            let path = format!("/oauth/k/{SECRET}/contact_sync");
            let (status, body) = bridge
                .post(&format!("/oauth/k/{SECRET}/auth_validation"), json!({}))
                .await;
            assert_eq!((status, body), (200, json!({})));
            built(&bridge, &bridge.account().await).await;
            for body in [
                json!({}),
                json!({"auth": null}),
                json!({"auth": {}}),
                json!({"auth": {"access_token": "somebody's", "account": "other"}}),
            ] {
                let (status, page) = bridge.post(&path, body).await;
                assert_eq!(status, 200, "{page}");
                assert_eq!(page["contacts"].as_array().map(Vec::len), Some(50));
            }
            for path in [
                "/oauth/contact_sync",
                "/oauth/k/wrong-secret-of-some-length/contact_sync",
            ] {
                let (status, body) = bridge.post(path, json!({})).await;
                assert_eq!((status, &body["code"]), (403, &json!("wrong_secret")));
            }
            assert_eq!(bridge.accounts().await.len(), 1);
            let account = bridge.kept().await;
            let sealed = account.credentials.open(&bridge.keys, &account.id).unwrap();
            assert!(sealed.is_empty(), "the settings have them, and nobody else");
            let run = run_at(&bridge, &path, &Value::Null, None).await;
            assert_eq!(run.titles(), truth(&stage.crm));
            bridge.stop().await;
        }
    }
);

/// The problems with which an integration is refused at load.
fn problems(stage: &Stage, auth_type: &str, connector: &str, more: &str) -> String {
    let settings = load(&settings_text(
        Backend::Embedded,
        &stage.crm.url,
        Path::new("/nowhere"),
        "x",
        &stage.settings(auth_type, connector, more),
    ));
    let keys = snapbridge::wiring::throwaway_keys().unwrap();
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(SystemClock));
    match Integrations::load(&settings, Path::new(""), store, keys, clock, "test".into()) {
        Ok(_) => String::new(),
        Err(problems) => problems.join("\n"),
    }
}

#[tokio::test]
async fn what_cannot_run_is_refused_at_load_in_words() {
    let stage = Stage::start(1).await;
    let secret = format!("integrations.oauth.path_secret = \"{SECRET}\"\n");
    let oauth = connector("");
    let demo = crm::Connector::shipped("demo").unwrap();
    let good = format!("{secret}{}", client_credentials(&stage));
    for (auth_type, connector, more, says) in [
        ("none", oauth.as_str(), good.as_str(), ""),
        ("oauth2", &oauth, "", ""),
        (
            "oauth2_password",
            &oauth,
            "integrations.oauth.return_fields = [\"org_name\"]",
            "",
        ),
        ("custom", &oauth, "", ""),
        (
            "none",
            &oauth,
            &secret,
            "credentials.access_token_url is missing: with auth_type = \"none\"",
        ),
        (
            "none",
            &oauth,
            &format!("{good}integrations.oauth.credentials.tokn = \"x\""),
            "credentials.tokn is not a field that the connector takes (it takes: access_token, ",
        ),
        (
            "custom",
            &oauth,
            "integrations.oauth.credentials.account = \"x\"",
            "credentials are for auth_type = \"none\" only",
        ),
        (
            "oauth2",
            demo,
            "",
            "auth_type = \"oauth2\" needs a connector with auth kind \"oauth2\"",
        ),
        (
            "oauth2_password",
            &oauth.replace("\"password\", ", ""),
            "",
            "needs the grant password; the connector has: client_credentials, code",
        ),
        (
            "oauth2",
            &oauth,
            "integrations.oauth.return_fields = [\"org\"]",
            "return_fields names \"org\", which the connector's check does not learn (it learns: org_name)",
        ),
        (
            "oauth2",
            &oauth.replace("access_token = {", "code = { type = \"secret\" }\naccess_token = {"),
            "",
            "a one-time `code` in `auth` is not exchanged here: its tokens could not be renewed later",
        ),
    ] {
        let found = problems(&stage, auth_type, connector, more);
        assert!(
            found.contains(says) && found.is_empty() == says.is_empty(),
            "{auth_type} {more}\n{found}"
        );
    }
}
