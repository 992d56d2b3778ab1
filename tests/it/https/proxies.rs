//! A proxy in front: whose word on HTTPS counts.

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
