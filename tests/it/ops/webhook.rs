//! Webhooks that people set up at a CRM: what they are told, and who.

use contacts::Kind;
use fake_crm::{Change, Control, Webhook};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ADMIN, Api, LOOK, OPERATE, admin, log_in, page};
use crate::connectors::cases::{APP_SECRET, case};
use crate::door::Door;
use crate::harness::*;

/// A bridge with an account of one CRM, reached through a door.
async fn of(connector: &str, contacts: usize) -> (Crm, Door, Bridge, String) {
    let case = case(connector);
    let (crm, door) = (case.crm(contacts).await, Door::open().await);
    let settings = format!(
        "http.public_url = \"{}\"\nops.read = \"{LOOK}\"\nops.operate = \"{OPERATE}\"\nops.admin = \"{ADMIN}\"\n{}",
        door.url,
        case.settings(&crm, "1h")
    );
    let bridge = Bridge::start(Backend::Embedded, &crm, &settings).await;
    door.lead_to(&bridge);
    let call = json!({"auth": case.auth(&crm)});
    let (status, told) = bridge.post("/crm/auth_validation", call).await;
    assert_eq!(status, 200, "{told}");
    let account = bridge.account().await;
    until("the first full pass is complete", || async {
        let work = contacts::work::load(&*bridge.store, &account).await.expect("work");
        work.tasks.get(&Kind::Full).is_some_and(|task| task.last_done.is_some())
    })
    .await;
    (crm, door, bridge, account.to_string())
}

/// How the account is shown, once it is known that nobody can ask for its webhook.
async fn shown(bridge: &Bridge, account: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let view = || async {
        let look = Api { bridge, token: LOOK };
        look.get(&format!("/api/accounts/{account}")).await
    };
    until("the account is shown so", || async { holds(&view().await) }).await;
    view().await
}

#[tokio::test]
async fn steps_url_and_secret_of_a_webhook_by_hand_are_told_and_lead_to_one_that_works() {
    let (crm, door, bridge, account) = of("salesforce", 40).await;
    let seen = shown(&bridge, &account, |account| account["by_hand"].is_object()).await;
    let by_hand = &seen["by_hand"];
    let steps = by_hand["steps"].as_array().expect("steps");
    assert!(
        steps[0].as_str().is_some_and(|step| step.contains("Outbound Messages")),
        "{steps:?}"
    );
    let url = by_hand["url"].as_str().expect("a URL").to_owned();
    assert!(url.starts_with(&format!("{}/crm/webhooks/", door.url)), "{url}");

    let path = format!("/api/accounts/{account}/webhook");
    for token in [LOOK, OPERATE] {
        let refused = Api { bridge: &bridge, token }.ask(Method::POST, &path, None).await;
        assert_eq!(refused.0, 403, "{}", refused.1);
    }
    let (status, told) = admin(&bridge).ask(Method::POST, &path, None).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["url"], &told["steps"]), (&by_hand["url"], &by_hand["steps"]));
    let secret = told["secret"].as_str().expect("a secret");
    let audit = admin(&bridge).get("/api/audit").await;
    assert!(audit.to_string().contains("show webhook"), "{audit}");
    let cookie = log_in(&bridge, LOOK).await;
    let (_, html) = page(&bridge, &format!("/ops/accounts/{account}"), &cookie).await;
    let html = html.replace("&#x2f;", "/");
    assert!(html.contains("Outbound Messages") && html.contains(&url), "{html}");
    for text in [&html, &seen.to_string(), &audit.to_string()] {
        assert!(!text.contains(secret), "the secret shows");
    }

    // Done as it is said.
    let webhook = Webhook::new(format!("{url}?key={secret}"), "");
    crm.crm.control(Control::webhook("demo", Some(webhook))).done();
    crm.crm.control(Control::touch("demo", Change::ids([7]))).done();
    let seen = shown(&bridge, &account, |account| account["last_webhook"].is_object()).await;
    assert_eq!(seen["by_hand"], Value::Null, "nothing is left to do: {seen}");
    bridge.stop().await;
}

#[tokio::test]
async fn the_webhook_of_a_crms_app_has_the_url_and_secret_of_the_integration() {
    let (_crm, door, bridge, account) = of("hubspot", 20).await;
    let seen = shown(&bridge, &account, |account| account["by_hand"].is_object()).await;
    let (status, told) = admin(&bridge)
        .ask(Method::POST, &format!("/api/accounts/{account}/webhook"), None)
        .await;
    assert_eq!(status, 200, "{told}");
    for view in [&seen["by_hand"], &told] {
        assert_eq!(view["url"], format!("{}/crm/webhooks", door.url));
        assert_eq!(view["secret_setting"], "integrations.crm.app.webhook_secret");
    }
    assert_eq!(told["secret"], Value::Null);
    assert!(!told.to_string().contains(APP_SECRET), "a secret shows");
    bridge.stop().await;
}

#[tokio::test]
async fn a_key_that_ends_at_the_crm_is_told_of() {
    let (_crm, _door, bridge, account) = of("odoo-json2", 20).await;
    let seen = shown(&bridge, &account, |_| true).await;
    let sentences = seen["renewals"].as_array().expect("sentences");
    assert!(
        sentences[0]
            .as_str()
            .is_some_and(|text| text.contains("`api_key`") && text.contains("90 days")),
        "{sentences:?}"
    );
    bridge.stop().await;
}
