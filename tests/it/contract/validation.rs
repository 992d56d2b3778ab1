//! auth_validation (Talkdesk: implementing an authorization validator).

use super::*;

rows!(
    auth_validation,
    "",
    [
        good_credentials_are_200_with_an_object,
        nothing_but_configured_fields_is_returned,
        bad_credentials_are_401_with_a_message,
        a_missing_field_is_401_and_named,
        the_request_needs_nothing_but_auth,
    ]
);

async fn good_credentials_are_200_with_an_object(world: &World) {
    let (status, body) = world.bridge.validate(auth()).await;
    assert_eq!(status, 200);
    assert!(body.is_object(), "{body}");
}

async fn nothing_but_configured_fields_is_returned(world: &World) {
    // None is configured to be returned, and whatever was in the answer would be stored as a credential.
    assert_eq!(world.bridge.validate(auth()).await, (200, json!({})));
}

async fn bad_credentials_are_401_with_a_message(world: &World) {
    let answer = world.bridge.validate(json!({"account": "demo", "token": "bad"})).await;
    assert_eq!(refused(&answer), (401, "invalid_credentials"));
    assert!(
        answer.1["message"]
            .as_str()
            .is_some_and(|message| message.contains("Demo CRM")),
        "{}",
        answer.1
    );
}

async fn a_missing_field_is_401_and_named(world: &World) {
    for (auth, field) in [
        (json!({"account": "demo"}), "token"),
        (json!({"token": TOKEN}), "account"),
    ] {
        for blank in [None, Some(json!(null)), Some(json!(""))] {
            let mut auth = auth.clone();
            if let Some(blank) = blank {
                auth[field] = blank;
            }
            let answer = world.bridge.validate(auth.clone()).await;
            assert_eq!(refused(&answer), (401, "invalid_credentials"), "{auth}");
            assert!(
                answer.1["message"].as_str().is_some_and(|text| text.contains(field)),
                "{}",
                answer.1
            );
        }
    }
}

async fn the_request_needs_nothing_but_auth(world: &World) {
    for body in [
        json!({"auth": auth()}),
        json!({"auth": auth(), "meta": null}),
        json!({"auth": auth(), "meta": {"offset": []}}),
    ] {
        assert_eq!(world.call("auth_validation", &body).await.status, 200, "{body}");
    }
}
