//! interaction_update (Talkdesk: implementing contact activity, formerly the interaction retriever).

use super::*;

rows!(
    interaction_update,
    "",
    prepared,
    [
        a_contact_is_found_by_its_external_id,
        a_contact_that_was_not_synced_is_found_by_phones_and_emails,
        a_name_alone_means_nobody,
        all_of_data_is_optional,
        asked_types_are_echoed_in_their_spelling,
        types_missing_or_empty_are_all_of_them,
        types_that_there_are_not_are_empty,
        interactions_are_a_bare_array,
        id_subject_date_and_type_are_always_there,
        dates_are_written_as_in_the_samples,
        priority_and_status_are_talkdesks_words,
        interactions_come_newest_first,
        interactions_are_no_more_than_the_setting,
        an_unknown_contact_has_no_interactions,
        an_interaction_comes_once,
    ]
);

/// More tickets than an answer may hold.
async fn prepared(world: &World) {
    for n in 0..4 {
        let url = format!("{}/api/demo/contacts/{}/tickets", world.crm.url, world.odd);
        let ticket = json!({"subject": format!("number {n}"), "priority": "high"});
        let request = world.bridge.http.post(url).bearer_auth(TOKEN).json(&ticket);
        assert_eq!(request.send().await.expect("an answer").status(), 201);
    }
}

async fn found(world: &World, meta: Value, data: Value) -> Vec<Value> {
    let (status, found) = world.bridge.interactions(meta, data).await;
    assert_eq!(status, 200, "{found}");
    found.as_array().expect("a bare array").clone()
}

/// The odd contact's.
async fn theirs(world: &World) -> Vec<Value> {
    let found = found(world, json!(null), json!({"contact_external_id": world.odd})).await;
    assert!(!found.is_empty());
    found
}

async fn a_contact_is_found_by_its_external_id(world: &World) {
    let subjects = theirs(world).await;
    assert!(
        subjects
            .iter()
            .all(|item| item["subject"].as_str().is_some_and(|text| text.starts_with("number ")))
    );
}

async fn a_contact_that_was_not_synced_is_found_by_phones_and_emails(world: &World) {
    let by_id = theirs(world).await;
    for data in [
        json!({"contact_external_id": null, "contact_phones": ["+351912345678"], "contact_emails": []}),
        json!({"contact_phones": ["912 345 678"]}),
        json!({"contact_emails": ["ODD@x.test"]}),
        json!({"contact_external_id": "", "contact_emails": ["nobody@x.test", "odd@x.test"], "contact_phones": null}),
    ] {
        assert_eq!(found(world, json!(null), data.clone()).await, by_id, "{data}");
    }
}

async fn a_name_alone_means_nobody(world: &World) {
    let calls = world.crm.calls();
    assert!(
        found(world, json!(null), json!({"contact_name": "Ines Marchetti"}))
            .await
            .is_empty()
    );
    assert_eq!(world.crm.calls(), calls, "the CRM is not asked");
}

async fn all_of_data_is_optional(world: &World) {
    for data in [
        json!(null),
        json!({}),
        json!({"contact_emails": [], "contact_phones": []}),
    ] {
        assert!(found(world, json!(null), data).await.is_empty());
    }
    let reply = world.call("interaction_update", &json!({ "auth": auth() })).await;
    assert_eq!((reply.status, reply.body), (200, json!([])));
}

async fn asked_types_are_echoed_in_their_spelling(world: &World) {
    for spelt in ["ticket", "Ticket", "TICKET"] {
        let meta = json!({"interaction_types": [spelt, "case"]});
        let found = found(world, meta, json!({"contact_external_id": world.odd})).await;
        assert!(
            !found.is_empty() && found.iter().all(|item| item["type"] == spelt),
            "{spelt}"
        );
    }
}

async fn types_missing_or_empty_are_all_of_them(world: &World) {
    let all = theirs(world).await;
    for meta in [
        json!({}),
        json!({"interaction_types": []}),
        json!({"interaction_types": null}),
    ] {
        assert_eq!(found(world, meta, json!({"contact_external_id": world.odd})).await, all);
    }
}

async fn types_that_there_are_not_are_empty(world: &World) {
    let meta = json!({"interaction_types": ["case", "call"]});
    assert!(
        found(world, meta, json!({"contact_external_id": world.odd}))
            .await
            .is_empty()
    );
}

async fn interactions_are_a_bare_array(world: &World) {
    for data in [json!({"contact_external_id": world.odd}), json!({})] {
        let reply = world
            .call("interaction_update", &json!({"auth": auth(), "data": data}))
            .await;
        assert!(reply.status == 200 && reply.body.is_array(), "{}", reply.body);
    }
}

async fn id_subject_date_and_type_are_always_there(world: &World) {
    const KEYS: [&str; 8] = [
        "id",
        "type",
        "subject",
        "description",
        "date",
        "url",
        "priority",
        "status",
    ];
    for item in theirs(world).await {
        for key in ["id", "subject", "date", "type"] {
            assert!(item[key].as_str().is_some_and(|text| !text.is_empty()), "{item}");
        }
        let item = item.as_object().expect("an object");
        assert!(
            item.keys().all(|key| KEYS.contains(&key.as_str())) && item.values().all(Value::is_string),
            "{item:?}"
        );
    }
}

async fn dates_are_written_as_in_the_samples(world: &World) {
    // 2012-11-21 17:53:51 UTC
    for item in theirs(world).await {
        let date = item["date"].as_str().expect("a string");
        let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00 UTC");
    }
}

async fn priority_and_status_are_talkdesks_words(world: &World) {
    for id in 1..=20 {
        for item in found(world, json!(null), json!({"contact_external_id": id.to_string()})).await {
            let word = |key: &str| item.get(key).map(|word| word.as_str().expect("a string"));
            assert!(word("priority").is_none_or(|word| ["none", "low", "normal", "high", "urgent"].contains(&word)));
            assert!(word("status").is_none_or(|word| ["new", "open", "pending", "solved", "closed"].contains(&word)));
        }
    }
    assert!(theirs(world).await.iter().all(|item| item["priority"] == "high"));
}

async fn interactions_come_newest_first(world: &World) {
    let mut several = 0;
    for id in 1..=60 {
        let items = found(world, json!(null), json!({"contact_external_id": id.to_string()})).await;
        let dates: Vec<&str> = items
            .iter()
            .map(|item| item["date"].as_str().expect("a string"))
            .collect();
        assert!(dates.is_sorted_by(|a, b| a >= b), "{dates:?}");
        several += usize::from(dates.first() != dates.last());
    }
    assert!(several > 0, "somebody has tickets of different times");
}

async fn interactions_are_no_more_than_the_setting(world: &World) {
    let found = theirs(world).await;
    let subjects = set(found
        .iter()
        .map(|item| item["subject"].as_str().expect("a string").to_owned()));
    assert_eq!(
        subjects,
        set(["number 3", "number 2", "number 1"].map(str::to_owned)),
        "the newest of four"
    );
}

async fn an_unknown_contact_has_no_interactions(world: &World) {
    for nobody in ["99999", "x", "..", "a/b"] {
        assert!(
            found(world, json!(null), json!({"contact_external_id": nobody}))
                .await
                .is_empty(),
            "{nobody}"
        );
    }
}

async fn an_interaction_comes_once(world: &World) {
    let data =
        json!({"contact_phones": ["+351912345678", "912345678"], "contact_emails": ["odd@x.test", "Odd@X.test"]});
    let found = found(world, json!(null), data).await;
    assert_eq!(found, theirs(world).await);
    assert_eq!(set(found.iter().map(|item| item["id"].to_string())).len(), found.len());
}
