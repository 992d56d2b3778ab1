//! Signed samples of many vendors, good and bad, computed independently of this code.

use std::collections::BTreeMap;

use contacts::Micros;
use crm::{Connector, Event, Refused, WebhookRequest};
use secrecy::SecretString;
use serde::Deserialize;

use crate::support::{SMALL, fields, listed, load};

const VECTORS: &str = include_str!("../data/webhook-vectors.json");
const GALLERY: &str = include_str!("../data/webhook-gallery.toml");

#[derive(Deserialize)]
struct Vector {
    crm: String,
    method: String,
    url: String,
    #[serde(default)]
    hook_id: Option<String>,
    headers: BTreeMap<String, String>,
    body: String,
    secret: String,
    now: String,
    valid: bool,
}

/// A connector with the given verification stanza.
fn with_stanza(stanza: &toml::Value) -> Result<Connector, Vec<crm::Problem>> {
    let mut verify = toml::Table::new();
    verify.insert("verify".to_owned(), stanza.clone());
    let mut webhook = toml::Table::new();
    webhook.insert("webhook".to_owned(), toml::Value::Table(verify));
    let stanza = toml::to_string(&webhook).expect("TOML");
    let rest = "[webhook.events]\neach = \"[body]\"\nids = \"[ev.id]|compact\"\n";
    let source = format!("{SMALL}\n[webhook]\nscope = \"connection\"\n{stanza}\n{rest}");
    Connector::load(&source, "gallery.toml")
}

fn gallery() -> BTreeMap<String, toml::Value> {
    toml::from_str(GALLERY).expect("the gallery is TOML")
}

fn headers(pairs: &BTreeMap<String, String>) -> http::HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                http::HeaderName::try_from(name).expect("a name"),
                value.parse().expect("a value"),
            )
        })
        .collect()
}

#[test]
fn every_stanza_of_the_gallery_loads() {
    for (crm, stanza) in gallery() {
        match with_stanza(&stanza) {
            Ok(connector) => assert!(connector.webhook().is_some(), "{crm}"),
            Err(problems) => panic!("{crm}: {}", listed(&problems)),
        }
    }
}

#[test]
fn every_sample_comes_out_as_marked_and_only_with_its_own_secret() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    assert!(vectors.len() >= 15);
    let gallery = gallery();
    for (i, vector) in vectors.iter().enumerate() {
        let connector = with_stanza(&gallery[&vector.crm]).expect("a stanza that runs");
        let hooks = connector.webhook().expect("a webhook");
        let headers = headers(&vector.headers);
        let query = BTreeMap::new();
        let request = WebhookRequest {
            method: &vector.method,
            url: &vector.url,
            headers: &headers,
            query: &query,
            body: vector.body.as_bytes(),
            hook_id: vector.hook_id.as_deref(),
        };
        let now = Micros::parse(&vector.now).expect("a time");
        let (right, wrong) = (SecretString::from(vector.secret.clone()), SecretString::from("another"));
        let name = format!("sample {i} of {}", vector.crm);
        assert_eq!(
            hooks.verify(&request, std::slice::from_ref(&right), now).is_ok(),
            vector.valid,
            "{name}"
        );
        assert!(
            hooks.verify(&request, std::slice::from_ref(&wrong), now).is_err(),
            "{name}: another secret"
        );
        assert!(hooks.verify(&request, &[], now).is_err(), "{name}: no secret");
        assert!(
            hooks.verify(&request, &[SecretString::from("")], now).is_err(),
            "{name}: an empty secret"
        );
        assert_eq!(
            hooks.verify(&request, &[wrong, right.clone()], now).is_ok(),
            vector.valid,
            "{name}: rotation"
        );

        let bare = http::HeaderMap::new();
        let unsigned = WebhookRequest {
            headers: &bare,
            ..request
        };
        assert_eq!(
            hooks.verify(&unsigned, &[right], now).err(),
            Some(Refused::NoProof),
            "{name}: no header"
        );
    }
}

#[test]
fn a_shared_secret_stands_in_header_query_or_body() {
    let secrets = [SecretString::from("s3cret")];
    let mut query = BTreeMap::new();
    let mut headers = http::HeaderMap::new();
    let stanza = |crm: &str| with_stanza(&gallery()[crm]).expect("a stanza that runs");
    let check = |connector: &Connector, headers: &http::HeaderMap, query: &BTreeMap<String, String>, body: &str| {
        let request = WebhookRequest {
            method: "POST",
            url: "https://b.example/h",
            headers,
            query,
            body: body.as_bytes(),
            hook_id: None,
        };
        connector
            .webhook()
            .expect("a webhook")
            .verify(&request, &secrets, Micros::ZERO)
            .err()
    };

    let zoho = stanza("zoho");
    assert_eq!(check(&zoho, &headers, &query, r#"{"token":"s3cret"}"#), None);
    assert_eq!(
        check(&zoho, &headers, &query, r#"{"token":"s3creT"}"#),
        Some(Refused::BadProof)
    );
    assert_eq!(check(&zoho, &headers, &query, r#"{"token":7}"#), Some(Refused::NoProof));
    assert_eq!(check(&zoho, &headers, &query, "{"), Some(Refused::NoProof));

    let odoo = stanza("odoo");
    assert_eq!(check(&odoo, &headers, &query, "{}"), Some(Refused::NoProof));
    query.insert("key".to_owned(), "s3cret".to_owned());
    assert_eq!(check(&odoo, &headers, &query, "{}"), None);
    assert_eq!(check(&odoo, &headers, &query, "<html>"), Some(Refused::BadBody));

    let dataverse = stanza("dataverse");
    headers.insert("x-bridge-key", "s3cret".parse().unwrap());
    assert_eq!(check(&dataverse, &headers, &query, "{}"), None);

    let pipedrive = stanza("pipedrive");
    assert_eq!(check(&pipedrive, &headers, &query, "{}"), Some(Refused::NoProof));
    // anyone:s3cret, anyone:wrong, and a name without a password
    for (given, expected) in [
        ("Basic YW55b25lOnMzY3JldA==", None),
        ("basic YW55b25lOnMzY3JldA==", None),
        ("Basic YW55b25lOndyb25n", Some(Refused::BadProof)),
        ("Basic YW55b25l", Some(Refused::NoProof)),
        ("Bearer s3cret", Some(Refused::NoProof)),
    ] {
        headers.insert("authorization", given.parse().unwrap());
        assert_eq!(check(&pipedrive, &headers, &query, "{}"), expected, "{given}");
    }
}

#[test]
fn silence_about_verification_is_refused_and_none_is_said_aloud() {
    let events = "[webhook]\nscope = \"connection\"\n[webhook.events]\neach = \"[body]\"\nids = \"[ev.id]\"\n";
    let problems = Connector::load(&format!("{SMALL}\n{events}"), "x.toml").expect_err("refused");
    assert!(
        listed(&problems).contains("`webhook.verify` is missing"),
        "{}",
        listed(&problems)
    );

    let connector = load(&format!("{SMALL}\n{events}[webhook.verify]\nkind = \"none\"\n"));
    let (headers, query) = (http::HeaderMap::new(), BTreeMap::new());
    let request = WebhookRequest {
        method: "POST",
        url: "u",
        headers: &headers,
        query: &query,
        body: b"{}",
        hook_id: None,
    };
    assert!(connector.webhook().unwrap().verify(&request, &[], Micros::ZERO).is_ok());
}

#[test]
fn a_challenge_is_answered_only_with_harmless_text() {
    let connector = with_stanza(&gallery()["web1on1"]).expect("a stanza that runs");
    let hooks = connector.webhook().unwrap();
    let answer = |challenge: &str| hooks.challenge(&fields(&[("type", "subscribe"), ("challenge", challenge)]));
    assert_eq!(answer("abc-DEF_123").as_deref(), Some("abc-DEF_123"));
    assert_eq!(answer(&"a".repeat(256)).as_deref(), Some("a".repeat(256).as_str()));
    for bad in ["", "<script>", "a b", "a\nb", "é", &"a".repeat(257)] {
        assert_eq!(answer(bad), None, "{bad}");
    }
    assert_eq!(hooks.challenge(&fields(&[("challenge", "abc")])), None);
    assert_eq!(hooks.challenge(&BTreeMap::new()), None);
}

fn demo_events(body: &str) -> Result<Vec<Event>, Refused> {
    let connector = load(Connector::shipped("demo").unwrap());
    let hooks = connector.webhook().unwrap();
    assert!(hooks.is_app_level() && hooks.is_per_account());
    let secret = "hook-secret";
    let now = Micros::from_millis(1_795_223_045_000);
    let signature = {
        use hmac::{Hmac, KeyInit, Mac};
        let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        hex::encode(
            mac.chain_update(format!("1795223044000.{body}"))
                .finalize()
                .into_bytes(),
        )
    };
    let headers = headers(&fields(&[
        ("x-fake-timestamp", "1795223044000"),
        ("x-fake-signature", &signature),
    ]));
    let query = BTreeMap::new();
    let request = WebhookRequest {
        method: "POST",
        url: "u",
        headers: &headers,
        query: &query,
        body: body.as_bytes(),
        hook_id: None,
    };
    hooks.events(&hooks.verify(&request, &[SecretString::from(secret)], now)?)
}

#[test]
fn events_name_account_contacts_and_time() {
    let body = r#"[
        {"event_id":"e1","account":"demo","type":"contact.updated","id":"123","at":1795223044999},
        {"event_id":"e2","account":"demo","type":"contact.merged","id":"5","merged_into":"9","at":1795223044999},
        {"event_id":"e3","account":"demo","type":"contact.deleted","id":"7","at":1795223044},
        {"event_id":"e4","account":"other","type":"ticket.created","id":"t-1"},
        {"event_id":"e5","account":"demo","type":"contact.updated"}
    ]"#;
    let events = demo_events(body).unwrap();
    let ids: Vec<Vec<String>> = events.iter().map(|event| event.ids.clone()).collect();
    assert_eq!(ids, [vec!["123"], vec!["5", "9"], vec!["7"], vec![], vec![]]);
    let deleted: Vec<bool> = events.iter().map(|event| event.deleted).collect();
    assert_eq!(deleted, [false, false, true, false, false]);
    let relevant: Vec<bool> = events.iter().map(|event| event.relevant).collect();
    assert_eq!(relevant, [true, true, true, false, false]);
    assert_eq!(events[0].account.as_deref(), Some("demo"));
    assert_eq!(events[3].account.as_deref(), Some("other"));
    assert_eq!(events[0].dedupe.as_deref(), Some("e1"));
    assert_eq!(events[0].at, Some(Micros::from_millis(1_795_223_044_999)));
    assert_eq!(events[2].at, Some(Micros::from_secs(1_795_223_044)));
}

#[test]
fn a_verified_body_of_another_shape_is_refused_not_empty() {
    assert_eq!(demo_events(r#"{"events":[]}"#), Err(Refused::BadBody));
    assert_eq!(demo_events("null"), Err(Refused::BadBody));
    assert_eq!(demo_events("[]"), Ok(Vec::new()));
}

/// What the doctor sends is what each CRM would have sent.
#[test]
fn a_delivery_of_our_own_is_believed_and_names_the_contact() {
    let now = Micros::parse("2026-11-21T02:00:00Z").expect("a time");
    let secret = SecretString::from("5e7b1c0d".repeat(8));
    let mut tried = 0;
    for id in Connector::shipped_ids() {
        let connector = Connector::load(Connector::shipped(id).expect("shipped"), id).expect("a sound file");
        let hooks = connector.webhook().expect("a webhook");
        let sample = Connector::shipped_delivery(id).expect("a sample");
        for nonce in [71_001, 71_002] {
            let body = hooks
                .body_for(&sample, "4711", Some("org-9"), nonce)
                .unwrap_or_else(|error| panic!("{id}: {error}"));
            let made = hooks
                .sign("https://b.example/crm/webhooks/x", body, &secret, Some("9b1c"), now)
                .unwrap_or_else(|| panic!("{id}: not signed"));
            let url = url::Url::parse(&made.url).expect("a URL");
            let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
            let request = WebhookRequest {
                method: "POST",
                url: &made.url,
                headers: &made.headers,
                query: &query,
                body: &made.body,
                hook_id: query.get("hook_id").map(String::as_str),
            };
            let verified = hooks.verify(&request, std::slice::from_ref(&secret), now);
            let verified = verified.unwrap_or_else(|refused| panic!("{id}: {refused}"));
            let events = hooks.events(&verified).expect("events");
            let relevant: Vec<&Event> = events.iter().filter(|event| event.relevant).collect();
            assert!(
                !relevant.is_empty() && relevant.iter().all(|event| event.ids.iter().all(|id| id == "4711")),
                "{id}: {events:?}"
            );
            assert!(
                relevant
                    .iter()
                    .all(|event| event.account.as_deref().is_none_or(|account| account == "org-9")),
                "{id}"
            );
            let body = hooks.body_for("{}", "4711", None, nonce);
            assert!(body.is_err(), "{id}: a body of nobody's names nobody");
        }
        tried += 1;
    }
    assert!(tried >= 14);
}
