//! contact_sync (Talkdesk: implementing a contact synchronization; its steps and its request and response reference).

use super::*;

rows!(
    contact_sync,
    "",
    [
        neither_checkpoint_nor_offset_is_an_initial_sync_of_everything,
        an_offset_alone_is_the_next_page_of_the_initial_sync,
        a_checkpoint_alone_is_what_changed_after_it,
        a_checkpoint_and_an_offset_are_the_next_page_of_the_incremental_sync,
        null_and_empty_are_absent_in_all_of_meta,
        meta_missing_or_null_is_an_initial_sync,
        unknown_keys_are_ignored,
        an_offset_decides_whatever_checkpoint_is_beside_it,
        the_checkpoint_of_each_page_covers_what_was_delivered_up_to_it,
        the_checkpoints_of_a_run_grow,
        an_empty_result_has_a_checkpoint_that_loses_nothing,
        checkpoint_and_offset_are_strings_of_at_most_255_ascii_characters,
        a_date_of_a_predecessor_is_a_checkpoint,
        an_unreadable_checkpoint_is_a_full_sync,
        an_unreadable_offset_is_400,
        the_next_offset_is_left_out_on_the_last_page,
        every_next_offset_is_another_one,
        a_page_that_is_not_the_last_holds_somebody,
        nobody_comes_twice_in_a_run,
        context_comes_only_with_a_next_offset,
        any_context_leaves_the_contacts_as_they_are,
        only_the_eleven_keys_of_a_contact_are_sent,
        ids_and_names_are_strings_and_never_empty,
        emails_and_phones_are_lists_even_if_empty,
        phones_are_e_164_each_once_and_without_extension,
        emails_are_trimmed_and_each_comes_once,
        links_are_absolute_and_of_http,
        a_contact_without_a_name_gets_one,
        a_long_text_is_cut_between_characters,
        a_run_may_be_resumed_at_its_offset_or_begun_again,
        records_that_share_a_number_stay_apart,
    ]
);

/// All pages of a run.
async fn pages(world: &World, checkpoint: Value) -> Vec<Value> {
    let mut meta = json!({ "synchronization_checkpoint": checkpoint });
    let mut pages = Vec::new();
    loop {
        let page = world.page(meta.clone()).await;
        let next = page.get("next_offset").cloned();
        let context = page["context"].clone();
        pages.push(page);
        assert!(pages.len() < 100, "a run without end");
        let Some(next) = next else { return pages };
        // As Talkdesk does: during an initial sync no checkpoint is sent, during an incremental one the same.
        meta = json!({"synchronization_checkpoint": checkpoint, "offset": next, "context": context});
    }
}

fn everybody(pages: &[Value]) -> BTreeSet<String> {
    set(pages.iter().flat_map(ids))
}

/// The odd contact as it is delivered.
async fn odd(world: &World) -> Value {
    let pages = pages(world, json!(null)).await;
    let contacts = pages
        .iter()
        .flat_map(|page| page["contacts"].as_array().expect("contacts"));
    contacts
        .clone()
        .find(|contact| contact["id"] == world.odd.as_str())
        .expect("it is delivered")
        .clone()
}

async fn neither_checkpoint_nor_offset_is_an_initial_sync_of_everything(world: &World) {
    let pages = pages(world, json!(null)).await;
    assert_eq!(everybody(&pages), set(truth(&world.crm).into_keys()));
}

async fn an_offset_alone_is_the_next_page_of_the_initial_sync(world: &World) {
    let first = world.page(json!({})).await;
    let second = world.page(json!({"offset": first["next_offset"]})).await;
    let all: Vec<String> = pages(world, json!(null)).await.iter().flat_map(ids).collect();
    assert_eq!([ids(&first), ids(&second)].concat(), all[..40]);
}

async fn a_checkpoint_alone_is_what_changed_after_it(world: &World) {
    let first = world.page(json!(null)).await;
    let after = pages(world, first["synchronization_checkpoint"].clone()).await;
    let all = everybody(&pages(world, json!(null)).await);
    let expected: BTreeSet<_> = all.difference(&set(ids(&first))).cloned().collect();
    assert_eq!(everybody(&after), expected);
}

async fn a_checkpoint_and_an_offset_are_the_next_page_of_the_incremental_sync(world: &World) {
    let checkpoint = &world.page(json!(null)).await["synchronization_checkpoint"];
    let first = world.page(json!({ "synchronization_checkpoint": checkpoint })).await;
    let meta = json!({"synchronization_checkpoint": checkpoint, "offset": first["next_offset"]});
    let second = world.page(meta).await;
    let all: Vec<String> = pages(world, checkpoint.clone()).await.iter().flat_map(ids).collect();
    assert_eq!([ids(&first), ids(&second)].concat(), all[..40]);
}

async fn null_and_empty_are_absent_in_all_of_meta(world: &World) {
    let plain = ids(&world.page(json!({})).await);
    for nothing in [json!(null), json!("")] {
        let meta = json!({"synchronization_checkpoint": nothing, "offset": nothing, "context": nothing});
        assert_eq!(ids(&world.page(meta).await), plain, "{nothing}");
    }
}

async fn meta_missing_or_null_is_an_initial_sync(world: &World) {
    let plain = ids(&world.page(json!({})).await);
    for body in [json!({"auth": auth()}), json!({"auth": auth(), "meta": null})] {
        let reply = world.call("contact_sync", &body).await;
        assert_eq!((reply.status, ids(&reply.body)), (200, plain.clone()));
    }
}

async fn unknown_keys_are_ignored(world: &World) {
    let plain = ids(&world.page(json!({})).await);
    let body = json!({"auth": auth(), "meta": {"page": 7, "limit": []}, "data": {"more": true}, "version": 2});
    let reply = world.call("contact_sync", &body).await;
    assert_eq!((reply.status, ids(&reply.body)), (200, plain));
}

async fn an_offset_decides_whatever_checkpoint_is_beside_it(world: &World) {
    let first = world.page(json!(null)).await;
    let offset = &first["next_offset"];
    let alone = ids(&world.page(json!({ "offset": offset })).await);
    let last = pages(world, json!(null)).await.pop().expect("a page");
    for checkpoint in [
        &first["synchronization_checkpoint"],
        &last["synchronization_checkpoint"],
        &json!("x"),
    ] {
        let meta = json!({"offset": offset, "synchronization_checkpoint": checkpoint});
        assert_eq!(ids(&world.page(meta).await), alone, "{checkpoint}");
    }
}

async fn the_checkpoint_of_each_page_covers_what_was_delivered_up_to_it(world: &World) {
    let run = pages(world, json!(null)).await;
    for (i, page) in run.iter().enumerate() {
        let rest = everybody(&pages(world, page["synchronization_checkpoint"].clone()).await);
        assert_eq!(rest, everybody(&run[i + 1..]), "from the checkpoint of page {}", i + 1);
    }
}

async fn the_checkpoints_of_a_run_grow(world: &World) {
    let run = pages(world, json!(null)).await;
    // The readable part of it is a time of a fixed width, so it compares as text.
    let times: Vec<&str> = run
        .iter()
        .map(|page| page["synchronization_checkpoint"].as_str().expect("a string"))
        .map(|text| text.split('Z').next().expect("a time"))
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}

async fn an_empty_result_has_a_checkpoint_that_loses_nothing(world: &World) {
    let last = pages(world, json!(null)).await.pop().expect("a page");
    let mut checkpoint = last["synchronization_checkpoint"].clone();
    for _ in 0..3 {
        let empty = world.page(json!({ "synchronization_checkpoint": checkpoint })).await;
        assert_eq!(empty["contacts"], json!([]));
        assert!(empty.get("next_offset").is_none());
        checkpoint = empty["synchronization_checkpoint"].clone();
        assert!(
            checkpoint.is_string(),
            "without one the next run would be of everything"
        );
    }
    // Made through the bridge, so that it enters the snapshot without a poll.
    let (status, made) = world
        .bridge
        .act("create_contact", json!(null), json!({"last_name": "Later"}))
        .await;
    assert_eq!(status, 201, "{made}");
    let id = made["contact_external_id"].as_str().expect("an id").to_owned();
    until("what comes later is the next run's", || async {
        everybody(&pages(world, checkpoint.clone()).await) == set([id.clone()])
    })
    .await;
}

async fn checkpoint_and_offset_are_strings_of_at_most_255_ascii_characters(world: &World) {
    for page in pages(world, json!(null)).await {
        for token in [Some(&page["synchronization_checkpoint"]), page.get("next_offset")]
            .into_iter()
            .flatten()
        {
            let text = token.as_str().expect("a string");
            assert!((1..=255).contains(&text.len()) && text.is_ascii(), "{text}");
        }
    }
}

async fn a_date_of_a_predecessor_is_a_checkpoint(world: &World) {
    let all = everybody(&pages(world, json!(null)).await);
    for date in ["2012-11-20 23:01:00 UTC", "2012-11-20T23:01:00Z"] {
        assert_eq!(
            everybody(&pages(world, json!(date)).await),
            all,
            "{date}: everybody changed since then"
        );
    }
    let none = pages(world, json!("2100-01-01 00:00:00 UTC")).await;
    assert_eq!(everybody(&none), set([]), "nobody has changed since then");
}

async fn an_unreadable_checkpoint_is_a_full_sync(world: &World) {
    let all = everybody(&pages(world, json!(null)).await);
    for checkpoint in [
        json!("rubbish"),
        json!(17),
        json!("v1.2024-01-01T00:00:00.000000Z.aaaaaaaa.AAAA"),
        json!(true),
    ] {
        assert_eq!(everybody(&pages(world, checkpoint.clone()).await), all, "{checkpoint}");
    }
}

async fn an_unreadable_offset_is_400(world: &World) {
    let good = world.page(json!(null)).await["next_offset"]
        .as_str()
        .expect("a string")
        .to_owned();
    for offset in [
        json!("2"),
        json!(2),
        json!("rubbish"),
        json!(format!("{good}A")),
        json!(good[..good.len() - 2]),
    ] {
        let answer = world.bridge.sync(json!({ "offset": offset })).await;
        assert_eq!(refused(&answer), (400, "bad_offset"), "{offset}");
    }
    for offset in [json!([1]), json!({}), json!(true)] {
        let answer = world.bridge.sync(json!({ "offset": offset })).await;
        assert_eq!(refused(&answer), (400, "malformed_offset"), "{offset}");
    }
}

async fn the_next_offset_is_left_out_on_the_last_page(world: &World) {
    let run = pages(world, json!(null)).await;
    let (last, before) = run.split_last().expect("pages");
    assert!(!before.is_empty() && before.iter().all(|page| page["next_offset"].is_string()));
    assert!(!last.as_object().expect("an object").contains_key("next_offset"));
}

async fn every_next_offset_is_another_one(world: &World) {
    let run = pages(world, json!(null)).await;
    let offsets = run
        .iter()
        .filter_map(|page| page["next_offset"].as_str())
        .map(str::to_owned);
    assert_eq!(set(offsets).len(), run.len() - 1);
}

async fn a_page_that_is_not_the_last_holds_somebody(world: &World) {
    for page in pages(world, json!(null)).await {
        assert!(page.get("next_offset").is_none() || !ids(&page).is_empty());
    }
}

async fn nobody_comes_twice_in_a_run(world: &World) {
    let run = pages(world, json!(null)).await;
    assert_eq!(
        everybody(&run).len(),
        run.iter().map(|page| ids(page).len()).sum::<usize>()
    );
}

async fn context_comes_only_with_a_next_offset(world: &World) {
    for page in pages(world, json!(null)).await {
        assert_eq!(page.get("context").is_some(), page.get("next_offset").is_some());
    }
}

async fn any_context_leaves_the_contacts_as_they_are(world: &World) {
    let offset = &world.page(json!(null)).await["next_offset"];
    let plain = ids(&world.page(json!({ "offset": offset })).await);
    for context in [
        json!(null),
        json!("x"),
        json!(1.5),
        json!([1, {"a": null}]),
        json!({"run": 7, "page": "x"}),
        json!(false),
    ] {
        let page = world.page(json!({"offset": offset, "context": context})).await;
        assert_eq!(ids(&page), plain, "{context}");
    }
}

async fn only_the_eleven_keys_of_a_contact_are_sent(world: &World) {
    const KEYS: &str = "id name company title emails phones photo_url address websites twitter url";
    let keys: Vec<&str> = KEYS.split(' ').collect();
    assert_eq!(keys.len(), 11);
    for page in pages(world, json!(null)).await {
        for contact in page["contacts"].as_array().expect("contacts") {
            let contact = contact.as_object().expect("an object");
            assert!(contact.keys().all(|key| keys.contains(&key.as_str())), "{contact:?}");
            assert!(
                contact.values().all(|value| !value.is_null()),
                "absent is left out: {contact:?}"
            );
        }
    }
}

async fn ids_and_names_are_strings_and_never_empty(world: &World) {
    for page in pages(world, json!(null)).await {
        for contact in page["contacts"].as_array().expect("contacts") {
            for key in ["id", "name"] {
                assert!(contact[key].as_str().is_some_and(|text| !text.is_empty()), "{contact}");
            }
        }
    }
}

async fn emails_and_phones_are_lists_even_if_empty(world: &World) {
    let (status, made) = world
        .bridge
        .act("create_contact", json!(null), json!({"last_name": "Bare"}))
        .await;
    assert_eq!(status, 201, "{made}");
    until("it is there", || async {
        everybody(&pages(world, json!(null)).await).contains(made["contact_external_id"].as_str().expect("an id"))
    })
    .await;
    let mut empty = 0;
    for page in pages(world, json!(null)).await {
        for contact in page["contacts"].as_array().expect("contacts") {
            for key in ["emails", "phones"] {
                let list = contact[key].as_array().expect("a list");
                assert!(list.iter().all(Value::is_string), "{contact}");
                empty += usize::from(list.is_empty());
            }
        }
    }
    assert!(empty >= 2, "somebody has none");
}

async fn phones_are_e_164_each_once_and_without_extension(world: &World) {
    assert_eq!(odd(world).await["phones"], json!(["+351912345678"]));
}

async fn emails_are_trimmed_and_each_comes_once(world: &World) {
    assert_eq!(odd(world).await["emails"], json!(["Odd@x.test"]));
}

async fn links_are_absolute_and_of_http(world: &World) {
    let odd = odd(world).await;
    assert!(odd.get("websites").is_none_or(|links| links == &json!([])), "{odd}");
    for page in pages(world, json!(null)).await {
        for contact in page["contacts"].as_array().expect("contacts") {
            let websites = contact["websites"].as_array().into_iter().flatten();
            for link in websites.chain(["url", "photo_url"].iter().filter_map(|key| contact.get(*key))) {
                let link = url::Url::parse(link.as_str().expect("a string")).expect("absolute");
                assert!(matches!(link.scheme(), "http" | "https"), "{link}");
            }
        }
    }
}

async fn a_contact_without_a_name_gets_one(world: &World) {
    let odd = odd(world).await;
    assert_eq!(odd["name"], odd["company"], "the next best thing");
}

async fn a_long_text_is_cut_between_characters(world: &World) {
    let company = odd(world).await["company"].as_str().expect("a string").to_owned();
    assert_eq!(company, "é".repeat(255));
}

async fn a_run_may_be_resumed_at_its_offset_or_begun_again(world: &World) {
    let run = pages(world, json!(null)).await;
    let resumed = world.page(json!({"offset": run[0]["next_offset"]})).await;
    assert_eq!(ids(&resumed), ids(&run[1]));
    let again = pages(world, json!(null)).await;
    assert_eq!(everybody(&again), everybody(&run));
}

async fn records_that_share_a_number_stay_apart(world: &World) {
    let make = async |name: &str| {
        let data = json!({"last_name": name, "phone": "+351 911 222 333", "email": "shared@x.test"});
        let (status, made) = world.bridge.act("create_contact", json!(null), data).await;
        assert_eq!(status, 201, "{made}");
        made["contact_external_id"].as_str().expect("an id").to_owned()
    };
    let (one, two) = (make("One").await, make("Two").await);
    until("both are delivered", || async {
        let all = everybody(&pages(world, json!(null)).await);
        all.contains(&one) && all.contains(&two)
    })
    .await;
}
