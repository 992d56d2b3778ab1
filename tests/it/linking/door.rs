//! Who may tell the bridge of contacts, and what it answers.

use super::*;

async fn raw(bridge: &Bridge, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, String) {
    let mut request = bridge.http.post(format!("{}{path}", bridge.url)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a body"))
}

fn hmac_hex(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    data_encoding::HEXLOWER.encode(&mac.chain_update(body).finalize().into_bytes())
}

fn sha1_hex(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("a key");
    data_encoding::HEXLOWER.encode(&mac.chain_update(body).finalize().into_bytes())
}

on_both!(only_a_dealer_s_own_dms_is_listened_to, |backend| async move {
    let sides = Sides::start(10).await;
    let other = "dealers.bergen.integration = \"dealers\"\ndealers.bergen.organization = \"4711\"\n\
                 dealers.bergen.secrets.first = \"canary-secret-of-bergen\"\n\
                 dealers.bergen.dms.account = \"dms\"\ndealers.bergen.dms.token = \"dms-token\"\n";
    let bridge = sides.bridge(backend, other).await;
    let body = json!({"id": "1", "organization": sides.organization(), "email": "a@b.example"}).to_string();
    let path = "/dealers/updatecontact";
    let bearer = |token: &str| format!("Bearer {token}");
    for headers in [
        vec![],
        vec![("authorization", bearer("wrong"))],
        vec![("authorization", bearer("canary-secret-of-bergen"))],
        vec![("authorization", format!("Basic {SECRET}"))],
        vec![("x-hub-signature-256", format!("sha256={}", hmac_hex(SECRET, &body)))],
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, answer) = raw(&bridge, path, &headers, &body).await;
        assert_eq!(status, 401, "{headers:?}: {answer}");
        assert!(!answer.contains("canary"), "{answer}");
    }
    // Whoever proves nothing is not told which organizations there are, nor what is wrong with a body.
    for body in [
        r#"{"id":"1","organization":"nobody","email":"a@b"}"#,
        "{",
        r#"{"organization":4711}"#,
    ] {
        assert_eq!(raw(&bridge, path, &[], body).await.0, 401, "{body}");
    }
    // A number is an organization's id, too: the secret of one dealer does not speak for another.
    let number = r#"{"id":"1","organization":4711,"email":"a@b.example"}"#;
    let oslo = bearer(SECRET);
    assert_eq!(raw(&bridge, path, &[("authorization", &oslo)], number).await.0, 401);
    let bergen = bearer("canary-secret-of-bergen");
    assert_eq!(raw(&bridge, path, &[("authorization", &bergen)], number).await.0, 202);

    for (body, why) in [
        (
            json!({"organization": sides.organization(), "email": "a@b"}),
            "id is missing",
        ),
        (
            json!({"id": "1", "organization": sides.organization()}),
            "email or telephone is needed",
        ),
        (
            json!({"id": "1", "organization": sides.organization(), "email": "n/a"}),
            "email or telephone is needed",
        ),
        (
            json!({"id": ["1"], "organization": sides.organization(), "email": "a@b"}),
            "must be a text",
        ),
        (json!([1]), "not a JSON object"),
    ] {
        let (status, answer) = update(&bridge, "", body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["message"].as_str().expect("a message").contains(why), "{answer}");
    }
    let long = "x".repeat(300 * 1024);
    assert_eq!(raw(&bridge, path, &[("authorization", &oslo)], &long).await.0, 413);
    // Nobody answers where the recipe's own client would call: the integration does not say that anybody may.
    for path in ["/updatecontact", "/webhook", "/demo/updatecontact", "/nobody/webhook"] {
        assert_eq!(
            raw(&bridge, path, &[("authorization", &oslo)], &body).await.0,
            404,
            "{path}"
        );
    }
    // Talkdesk's endpoints are not those of a linking integration.
    assert_eq!(bridge.post("/dealers/contact_sync", json!({"auth": {}})).await.0, 404);
    bridge.stop().await;
});

on_both!(a_signature_over_the_raw_body_proves_a_dms, |backend| async move {
    let sides = Sides::start(10).await;
    sides.person(1, "ines@nordlys.example");
    let bridge = sides.bridge(backend, "integrations.dealers.auth = \"hmac\"\n").await;
    let body = format!(
        r#"{{ "id": 1,  "organization": "{}", "email": "ines@nordlys.example"}}"#,
        sides.organization()
    );
    let (good, path) = (hmac_hex(SECRET, &body), "/dealers/updatecontact?wait=true");
    let bad = hmac_hex("another-secret-000000", &body);
    for signature in [
        format!("sha256={bad}"),
        "sha256=".into(),
        "zz".into(),
        format!("sha1={good}"),
    ] {
        let (status, answer) = raw(&bridge, path, &[("x-hub-signature-256", &signature)], &body).await;
        assert_eq!(status, 401, "{signature}: {answer}");
    }
    let bearer = format!("Bearer {SECRET}");
    assert_eq!(raw(&bridge, path, &[("authorization", &bearer)], &body).await.0, 401);
    let signature = format!("sha256={good}");
    let (status, answer) = raw(&bridge, path, &[("x-hub-signature-256", &signature)], &body).await;
    assert_eq!(status, 201, "{answer}");
    assert!(sides.is_linked(1));
    bridge.stop().await;
});

on_both!(
    the_recipe_s_own_client_is_answered_where_anybody_may_call,
    |backend| async move {
        let sides = Sides::start(10).await;
        sides.person(1, "ines@nordlys.example");
        let bridge = sides.bridge(backend, "integrations.dealers.auth = \"none\"\n").await;
        let body = json!({"id": "1", "organization": sides.organization(), "email": "ines@nordlys.example", "telephone": null});
        let (status, answer) = bridge.post("/updatecontact?wait=true", body.clone()).await;
        let conversation = Profile::Web1on1.conversation_id("1").expect("a conversation");
        let contact = Profile::Web1on1.contact_id("1");
        assert_eq!(
            (status, answer),
            (
                201,
                json!({"status": "contact updated", "id": contact, "conversation": conversation})
            )
        );
        let (status, answer) = bridge.post("/updatecontact?wait=true", body).await;
        assert_eq!(
            (status, answer),
            (200, json!({"status": "contact not updated", "reason": "unchanged"}))
        );
        let unknown = json!({"id": "1", "organization": "nobody", "email": "a@b"});
        let (status, answer) = bridge.post("/updatecontact", unknown).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("unknown_organization")));
        let answer = bridge
            .http
            .get(format!("{}/webhook?type=subscribe&challenge=abc-123", bridge.url))
            .send()
            .await;
        assert_eq!(answer.expect("an answer").text().await.expect("a body"), "abc-123");
        // Where a secret is set, Web1on1 has to prove itself all the same.
        let event = r#"{"event":"contact.update"}"#;
        assert_eq!(raw(&bridge, "/webhook", &[], event).await.0, 401);
        bridge.stop().await;
    }
);

on_both!(
    the_bot_s_webhook_is_set_up_proven_and_answered_with_nothing,
    |backend| async move {
        let sides = Sides::start(10).await;
        let bridge = sides.bridge(backend, "").await;
        let get = async |query: &str| {
            let answer = bridge
                .http
                .get(format!("{}/dealers/webhook{query}", bridge.url))
                .send()
                .await
                .expect("an answer");
            let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
            (answer.status().as_u16(), kind, answer.text().await.expect("a body"))
        };
        let (status, kind, body) = get("?type=subscribe&challenge=Zx_9-a").await;
        assert_eq!(
            (status, kind.as_str(), body.as_str()),
            (200, "text/plain; charset=utf-8", "Zx_9-a")
        );
        for query in [
            "",
            "?type=subscribe",
            "?challenge=abc",
            "?type=subscribe&challenge=%3Cscript%3E",
            "?type=other&challenge=a",
        ] {
            let (status, _, body) = get(query).await;
            assert_eq!(status, 403, "{query}");
            assert!(!body.contains("script"));
        }
        let event = json!({"id": "e", "event": "conversation.close", "organization": sides.organization(), "data": {}})
            .to_string();
        let path = "/dealers/webhook";
        for signature in ["", "sha1=", "sha1=zz", &format!("sha1={}", sha1_hex("wrong", &event))] {
            assert_eq!(
                raw(&bridge, path, &[("x-hub-signature", signature)], &event).await.0,
                401,
                "{signature}"
            );
        }
        let upper = format!("sha1={}", sha1_hex(HOOK_SECRET, &event).to_uppercase());
        assert_eq!(
            raw(&bridge, path, &[("x-hub-signature", &upper)], &event).await,
            (StatusCode::OK, String::new())
        );
        // Of an organization that is no dealer's, and of a contact without a profile.
        for event in [
            json!({"event": "contact.update", "organization": "nobody", "data": {"contact": {"id": "60aa"}}}),
            json!({"event": "contact.update", "organization": sides.organization(), "data": {"contact": {"id": "60aa"}}}),
            json!({"event": "contact.update", "organization": sides.organization(), "data": {}}),
        ] {
            let event = event.to_string();
            let signature = format!("sha1={}", sha1_hex(HOOK_SECRET, &event));
            assert_eq!(
                raw(&bridge, path, &[("x-hub-signature", &signature)], &event).await.0,
                200,
                "{event}"
            );
        }
        let broken = "{\"event\":";
        let signature = format!("sha1={}", sha1_hex(HOOK_SECRET, broken));
        assert_eq!(
            raw(&bridge, path, &[("x-hub-signature", &signature)], broken).await.0,
            400
        );
        bridge.stop().await;
    }
);

on_both!(a_full_inbox_asks_for_patience_and_loses_nothing, |backend| async move {
    // The DMS tells of all its records, but only these people are in both systems.
    const PEOPLE: u64 = 60;
    const RECORDS: u64 = 240;
    let sides = Sides::start(RECORDS as usize).await;
    for id in 1..=PEOPLE {
        sides.person(id, &format!("p{id}@x.example"));
    }
    for id in PEOPLE + 1..=RECORDS {
        sides.edit("dms", id, &format!("p{id}@dms.example"), "");
        sides.edit("chat", id, &format!("p{id}@chat.example"), "");
    }
    // Nobody works until the account is resumed.
    let bridge = sides
        .bridge(
            backend,
            "integrations.dealers.inbox = 200\nintegrations.dealers.seed_ahead = 20\n",
        )
        .await;
    let account = report(&bridge).await["account"]
        .as_str()
        .expect("an account")
        .to_owned();
    until("the dealer is brought in", || async {
        api(&bridge, Method::POST, &format!("/api/accounts/{account}/pause"), None)
            .await
            .0
            == 200
    })
    .await;
    sides.tell(&bridge.url, json!({"all": true, "backoff_ms": 5}));
    until("the inbox is full", || async {
        sides.crm.stats("dms").webhooks.attempts.contains_key("429")
    })
    .await;
    let (status, answer) = update(
        &bridge,
        "",
        json!({"id": "1", "organization": sides.organization(), "email": "p1@x.example"}),
    )
    .await;
    assert!(
        status == 202 || status == 429 && answer["code"] == "inbox_full",
        "{status} {answer}"
    );
    assert!(metric(&bridge, "snapbridge_link_full_total", "dealers").await >= 1.0);
    api(&bridge, Method::POST, &format!("/api/accounts/{account}/resume"), None).await;
    until("everybody is linked", || async {
        (1..=PEOPLE).all(|id| sides.is_linked(id))
    })
    .await;
    until("all others were heard of", || async {
        let report = report(&bridge).await;
        report["unmatched"].as_u64() >= Some(RECORDS - PEOPLE) && report["waiting"] == 0
    })
    .await;
    bridge.stop().await;
});
