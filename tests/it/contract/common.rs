//! What holds for every endpoint.

use fake_crm::Op;

use super::*;

rows!(
    every_endpoint,
    "http.body_limit = \"64KiB\"",
    [
        endpoints_take_post_with_a_json_body,
        other_methods_are_405_with_allow_post,
        every_answer_is_application_json,
        the_content_type_of_a_request_does_not_count,
        paths_are_free_and_const_sync_is_one_of_them,
        an_endpoint_whose_feature_is_absent_is_404,
        an_unknown_integration_is_404,
        auth_missing_null_and_empty_are_alike,
        values_of_auth_may_be_strings_numbers_or_booleans,
        fields_of_auth_that_are_not_configured_are_ignored,
        the_account_comes_from_auth_and_never_from_a_header,
        calls_that_write_nothing_may_be_repeated,
        every_error_has_a_message_and_a_code,
        a_page_holds_no_more_than_the_setting,
        a_wrong_secret_in_the_path_is_403,
        a_wrong_secret_in_auth_is_403,
        no_error_repeats_a_value_of_auth,
        a_body_that_is_too_large_is_413,
        a_malformed_body_is_400,
        a_crm_that_fails_is_502_and_one_that_is_silent_504,
        a_crm_that_asks_to_slow_down_is_429_with_retry_after,
        // Last, as the other account has new credentials from here on.
        a_401_is_for_crm_credentials_and_the_repeated_call_is_served,
    ]
);

async fn endpoints_take_post_with_a_json_body(world: &World) {
    for endpoint in ENDPOINTS {
        let reply = world.call(endpoint, &good("post")).await;
        let expected = if endpoint.starts_with("actions/") { 201 } else { 200 };
        assert_eq!(reply.status, expected, "{endpoint}: {}", reply.body);
    }
}

async fn other_methods_are_405_with_allow_post(world: &World) {
    for endpoint in ENDPOINTS {
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let url = format!("{}/demo/{endpoint}", world.bridge.url);
            let method = method.parse::<reqwest::Method>().expect("a method");
            let response = world.bridge.http.request(method, url).send().await.expect("an answer");
            assert_eq!(response.status(), 405, "{endpoint}");
            assert_eq!(response.headers()["allow"], "POST", "{endpoint}");
        }
    }
}

async fn every_answer_is_application_json(world: &World) {
    for endpoint in ENDPOINTS {
        for body in [
            good("type").to_string(),
            "{".to_owned(),
            "{}".to_owned(),
            "x".repeat(70_000),
        ] {
            let reply = world.send(&format!("/demo/{endpoint}"), &[], body).await;
            let kind = reply.headers["content-type"].to_str().expect("text");
            assert!(
                kind.starts_with("application/json"),
                "{endpoint} {}: {kind}",
                reply.status
            );
            assert!(!reply.body.is_null(), "{endpoint} {}", reply.status);
        }
    }
    for path in ["/nobody/contact_sync", "/demo/nothing", "/"] {
        let reply = world.send(path, &[], "{}".to_owned()).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(
            reply.headers["content-type"]
                .to_str()
                .is_ok_and(|kind| kind.starts_with("application/json"))
        );
    }
}

async fn the_content_type_of_a_request_does_not_count(world: &World) {
    for kind in ["application/json", "application/json; charset=utf-8", "text/plain", "x"] {
        for endpoint in ENDPOINTS {
            let body = good(kind).to_string();
            let reply = world
                .send(&format!("/demo/{endpoint}"), &[("content-type", kind)], body)
                .await;
            assert!(matches!(reply.status, 200 | 201), "{endpoint} {kind}: {}", reply.body);
        }
    }
    let none = world.send("/demo/contact_sync", &[], good("none").to_string()).await;
    assert_eq!(none.status, 200, "no content type at all");
}

async fn paths_are_free_and_const_sync_is_one_of_them(world: &World) {
    let named = world.call("contact_sync", &good("path")).await;
    let spelt = world.call("const_sync", &good("path")).await;
    assert_eq!((spelt.status, &spelt.body["contacts"]), (200, &named.body["contacts"]));
}

async fn an_endpoint_whose_feature_is_absent_is_404(world: &World) {
    for endpoint in ["interaction_update", "actions/create_ticket"] {
        let answer = world.bridge.post(&format!("/plain/{endpoint}"), good("absent")).await;
        assert_eq!(refused(&answer), (404, "not_configured"), "{endpoint}");
    }
}

async fn an_unknown_integration_is_404(world: &World) {
    for endpoint in ENDPOINTS {
        let answer = world.bridge.post(&format!("/nobody/{endpoint}"), good("unknown")).await;
        assert_eq!(refused(&answer), (404, "not_found"), "{endpoint}");
    }
}

async fn auth_missing_null_and_empty_are_alike(world: &World) {
    for endpoint in ENDPOINTS {
        let missing = world.call(endpoint, &json!({})).await;
        assert_eq!(missing.status, 401, "{endpoint}: {}", missing.body);
        for auth in [json!(null), json!({})] {
            let other = world.call(endpoint, &json!({ "auth": auth })).await;
            assert_eq!((other.status, &other.body), (401, &missing.body), "{endpoint}");
        }
    }
}

async fn values_of_auth_may_be_strings_numbers_or_booleans(world: &World) {
    let mut typed = auth();
    typed["region"] = json!(7);
    typed["sandbox"] = json!(true);
    typed["nothing"] = json!(null);
    assert_eq!(world.bridge.validate(typed).await.0, 200);
    // A number is read as its text, which here is no token.
    let number = json!({"account": "demo", "token": 17});
    let answer = world.bridge.validate(number).await;
    assert_eq!(refused(&answer), (401, "invalid_credentials"));
    for nested in [json!([1]), json!({"a": 1})] {
        let answer = world.bridge.validate(json!({"account": "demo", "token": nested})).await;
        assert_eq!(refused(&answer), (400, "malformed_auth"));
    }
}

async fn fields_of_auth_that_are_not_configured_are_ignored(world: &World) {
    let checks = world.crm.checks();
    let mut more = auth();
    more["whatever"] = json!("else");
    let body = json!({ "auth": more });
    let with = world.call("contact_sync", &body).await;
    let without = world.call("contact_sync", &json!({ "auth": auth() })).await;
    assert_eq!((with.status, &with.body["contacts"]), (200, &without.body["contacts"]));
    assert_eq!(world.crm.checks(), checks, "the same credentials");
}

async fn a_401_is_for_crm_credentials_and_the_repeated_call_is_served(world: &World) {
    let call = async |token: &str| {
        let auth = json!({"account": "other", "token": token});
        let body = json!({"auth": auth, "data": {"contact_external_id": "1"}});
        world.bridge.post("/demo/interaction_update", body).await
    };
    assert_eq!(call(TOKEN).await.0, 200);
    world.crm.crm.control(Control::tokens("other", &["renewed"])).done();
    assert_eq!(refused(&call(TOKEN).await), (401, "invalid_credentials"));
    assert_eq!(call("renewed").await.0, 200);
}

async fn the_account_comes_from_auth_and_never_from_a_header(world: &World) {
    let other = json!({"auth": {"account": "other", "token": TOKEN}});
    let headers = [
        ("x-account", "demo"),
        ("x-talkdesk-account", "demo"),
        ("authorization", "Bearer demo-token"),
    ];
    let other = other.to_string();
    until("the other account's contacts are there", || async {
        let reply = world.send("/demo/contact_sync", &headers, other.clone()).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let contacts = reply.body["contacts"].as_array().expect("contacts").clone();
        for contact in &contacts {
            assert!(
                contact["url"].as_str().is_some_and(|url| url.contains("/other/")),
                "{contact}"
            );
        }
        contacts.len() == 7
    })
    .await;
}

async fn calls_that_write_nothing_may_be_repeated(world: &World) {
    for endpoint in ["auth_validation", "agent_sync", "contact_sync", "interaction_update"] {
        let body = good("again");
        let first = world.call(endpoint, &body).await;
        let second = world.call(endpoint, &body).await;
        let part = |reply: &Reply| match endpoint {
            // Its tokens are sealed anew each time.
            "contact_sync" => reply.body["contacts"].clone(),
            _ => reply.body.clone(),
        };
        assert_eq!(
            (first.status, part(&first)),
            (second.status, part(&second)),
            "{endpoint}"
        );
    }
}

async fn every_error_has_a_message_and_a_code(world: &World) {
    let wrong = json!({"auth": {"account": "demo", "token": "wrong"}});
    for endpoint in ENDPOINTS {
        for body in ["{".to_owned(), "{}".to_owned(), wrong.to_string(), "x".repeat(70_000)] {
            let reply = world.send(&format!("/demo/{endpoint}"), &[], body).await;
            let keys = reply.body.as_object().expect("an object").keys().cloned();
            assert_eq!(set(keys), set(["code", "message"].map(str::to_owned)), "{endpoint}");
            for key in ["code", "message"] {
                assert!(
                    reply.body[key].as_str().is_some_and(|text| !text.is_empty()),
                    "{endpoint}: {key}"
                );
            }
        }
    }
}

async fn a_page_holds_no_more_than_the_setting(world: &World) {
    let page = world.page(json!(null)).await;
    assert_eq!(ids(&page).len(), 20);
    assert!(page.to_string().len() <= 1 << 20);
    let agents = world.call("agent_sync", &good("page")).await;
    assert_eq!(agents.body["agents"].as_array().map(Vec::len), Some(4));
}

async fn a_wrong_secret_in_the_path_is_403(world: &World) {
    for endpoint in ENDPOINTS {
        for path in [format!("/closed/{endpoint}"), format!("/closed/k/{SECRET}x/{endpoint}")] {
            let answer = world.bridge.post(&path, good("secret")).await;
            assert_eq!(refused(&answer), (403, "wrong_secret"), "{path}");
        }
        let path = format!("/closed/k/{SECRET}/{endpoint}");
        let status = world.bridge.post(&path, good("secret")).await.0;
        assert!(matches!(status, 200 | 201 | 503), "{path}: {status}");
    }
}

async fn a_wrong_secret_in_auth_is_403(world: &World) {
    for endpoint in ENDPOINTS {
        let mut body = good("key");
        let path = format!("/keyed/{endpoint}");
        assert_eq!(
            refused(&world.bridge.post(&path, body.clone()).await),
            (403, "wrong_secret")
        );
        body["auth"]["bridge_key"] = json!("wrong");
        assert_eq!(
            refused(&world.bridge.post(&path, body.clone()).await),
            (403, "wrong_secret")
        );
        body["auth"]["bridge_key"] = json!(SECRET);
        let status = world.bridge.post(&path, body).await.0;
        assert!(matches!(status, 200 | 201 | 503), "{path}: {status}");
    }
}

async fn no_error_repeats_a_value_of_auth(world: &World) {
    for endpoint in ENDPOINTS {
        for auth in [
            json!({"account": "demo", "token": "canary-1"}),
            json!({"account": "canary-2", "token": "canary-3"}),
            json!({"account": "canary-4"}),
            json!({"account": ["canary-5"], "token": "canary-6"}),
            json!("canary-7"),
        ] {
            let reply = world.call(endpoint, &json!({ "auth": auth })).await;
            assert!(reply.status >= 400, "{endpoint} {auth}");
            assert!(!reply.body.to_string().contains("canary"), "{endpoint}: {}", reply.body);
        }
    }
}

async fn a_body_that_is_too_large_is_413(world: &World) {
    for endpoint in ENDPOINTS {
        let reply = world.send(&format!("/demo/{endpoint}"), &[], " ".repeat(70_000)).await;
        assert_eq!(
            (reply.status, reply.body["code"].as_str()),
            (413, Some("body_too_large")),
            "{endpoint}"
        );
    }
}

async fn a_malformed_body_is_400(world: &World) {
    for endpoint in ENDPOINTS {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "\"text\"",
            "{\"auth\": 7}",
            "{\"auth\": {\"token\": []}}",
        ] {
            let reply = world.send(&format!("/demo/{endpoint}"), &[], body.to_owned()).await;
            assert_eq!(reply.status, 400, "{endpoint} {body}: {}", reply.body);
        }
    }
}

async fn a_crm_that_fails_is_502_and_one_that_is_silent_504(world: &World) {
    let knobs = |change: fn(&mut fake_crm::Knobs)| world.crm.crm.knobs("demo", change);
    knobs(|knobs| {
        knobs.fault_ops = vec![Op::Check, Op::Tickets];
        knobs.fail_5xx = 2;
    });
    for endpoint in ["auth_validation", "interaction_update"] {
        assert_eq!(world.call(endpoint, &good("down")).await.status, 502, "{endpoint}");
    }
    knobs(|knobs| knobs.frozen = true);
    for endpoint in ["auth_validation", "interaction_update"] {
        assert_eq!(world.call(endpoint, &good("silent")).await.status, 504, "{endpoint}");
    }
    // Contacts and agents come from the snapshots: never an error, never an empty list.
    assert_eq!(ids(&world.page(json!(null)).await).len(), 20);
    assert_eq!(world.call("agent_sync", &good("silent")).await.status, 200);
    knobs(|knobs| knobs.frozen = false);
}

async fn a_crm_that_asks_to_slow_down_is_429_with_retry_after(world: &World) {
    world.crm.crm.knobs("demo", |knobs| {
        knobs.fault_ops = vec![Op::Tickets];
        knobs.burst_429 = 1;
        knobs.retry_after = Some("1".to_owned());
    });
    let reply = world.call("interaction_update", &good("slow down")).await;
    assert_eq!(reply.status, 429, "{}", reply.body);
    let after = reply.headers["retry-after"].to_str().expect("text");
    assert!(after.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{after}");
}
