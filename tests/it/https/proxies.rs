//! A proxy in front: whose word on HTTPS counts.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::*;

async fn ask(bridge: &Bridge, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}{path}", bridge.url);
    let mut request = bridge.http.post(url).json(&json!({"auth": auth()}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    assert!(
        !answer.headers().contains_key("location"),
        "credentials are never redirected"
    );
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

const HTTPS: (&str, &str) = ("x-forwarded-proto", "https");

on_both!(
    plain_requests_are_refused_unless_a_trusted_proxy_vouches,
    |backend| async move {
        let crm = Crm::start(5).await;
        let more = "http.require_https = true\nhttp.trusted_proxies = [\"127.0.0.0/8\"]";
        let bridge = Bridge::start(backend, &crm, more).await;
        for path in [
            "/demo/contact_sync",
            "/demo/auth_validation",
            "/nobody/contact_sync",
            "/nothing",
            "/demo/logo.png",
        ] {
            for headers in [
                &[][..],
                &[("x-forwarded-proto", "http")],
                &[("x-forwarded-proto", "https, http")],
            ] {
                let (status, error) = ask(&bridge, path, headers).await;
                assert_eq!(
                    (status, error["code"].as_str()),
                    (403, Some("https_required")),
                    "{path} {headers:?}"
                );
            }
        }
        assert_eq!(crm.calls(), 0, "none of this reaches the CRM");
        assert_eq!(ask(&bridge, "/demo/contact_sync", &[HTTPS]).await.0, 200);
        assert_eq!(ask(&bridge, "/nobody/contact_sync", &[HTTPS]).await.0, 404);
        for path in ["healthz", "readyz", "metrics"] {
            let answer = bridge
                .http
                .get(format!("{}/{path}", bridge.admin))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "the admin listener is not asked for TLS: {path}");
        }
        bridge.stop().await;
    }
);

on_both!(the_word_of_a_stranger_does_not_count, |backend| async move {
    let crm = Crm::start(5).await;
    let more = "http.require_https = true\nhttp.trusted_proxies = [\"192.0.2.1\"]";
    let bridge = Bridge::start(backend, &crm, more).await;
    let forged = [HTTPS, ("x-forwarded-for", "192.0.2.1"), ("forwarded", "proto=https")];
    let (status, error) = ask(&bridge, "/demo/contact_sync", &forged).await;
    assert_eq!((status, error["code"].as_str()), (403, Some("https_required")));
    assert_eq!(crm.calls(), 0);
    bridge.stop().await;
});

const APP_SECRET: &str = "app-secret-0123456789";

/// Status of an event whose sender signed that it goes to `signed`.
async fn send_signed(bridge: &Bridge, signed: &str, headers: &[(&str, &str)]) -> u16 {
    let body =
        json!([{"event_id": "e1", "account": "nobody", "type": "contact.updated", "id": "1", "at": 1}]).to_string();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_millis();
    let message = format!("{signed}{body}");
    let signature = fake_crm::signature(APP_SECRET, &now.to_string(), message.as_bytes());
    let mut request = bridge
        .http
        .post(format!("{}/signed/webhooks", bridge.url))
        .header(fake_crm::TIMESTAMP_HEADER, now.to_string())
        .header(fake_crm::SIGNATURE_HEADER, signature)
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer").status().as_u16()
}

on_both!(
    senders_that_sign_the_url_sign_the_one_the_world_sees,
    |backend| async move {
        let crm = Crm::start(5).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("connector.toml");
        let demo = include_str!("../../../connectors/demo/connector.toml");
        let signed = demo.replace("\"text:.\", \"body\"", "\"text:.\", \"url\", \"body\"");
        assert_ne!(signed, demo);
        std::fs::write(&file, signed).unwrap();
        let more = format!(
            "integrations.signed = {{connector = \"{}\", allow_hosts = [\"{1}\"], connection = {{site = \"{1}\"}}, \
         app = {{webhook_secret = \"{APP_SECRET}\"}}}}",
            file.display(),
            crm.url
        );
        let told = [HTTPS, ("x-forwarded-host", "bridge.example")];
        let world = "https://bridge.example/signed/webhooks";

        let bridge = Bridge::start(
            backend,
            &crm,
            &format!("{more}\nhttp.trusted_proxies = [\"127.0.0.1\"]"),
        )
        .await;
        assert_eq!(
            send_signed(&bridge, world, &told).await,
            202,
            "a trusted proxy names the host"
        );
        assert_eq!(send_signed(&bridge, world, &[]).await, 401);
        bridge.stop().await;

        let bridge = Bridge::start(backend, &crm, &more).await;
        let here = format!("{}/signed/webhooks", bridge.url);
        assert_eq!(
            send_signed(&bridge, &here, &told).await,
            202,
            "a stranger's word does not count"
        );
        assert_eq!(send_signed(&bridge, world, &told).await, 401);
        bridge.stop().await;

        let public = format!("{more}\nhttp.public_url = \"https://bridge.example/\"");
        let bridge = Bridge::start(backend, &crm, &public).await;
        assert_eq!(send_signed(&bridge, world, &[]).await, 202, "the settings know best");
        bridge.stop().await;
    }
);
