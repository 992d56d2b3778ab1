//! contact_sync: the four situations, tokens, cold accounts.

use std::collections::BTreeSet;
use std::time::Instant;

use contacts::Stream;
use fake_crm::{Change, Control};
use serde_json::{Value, json};

use crate::harness::*;

/// Small pages, quick polls.
const SMALL: &str = "page.contacts = 50\nrefresh.poll = \"300ms\"\nrefresh.sweep = \"200ms\"";

on_both!(
    all_four_situations_deliver_everybody_once_and_then_only_changes,
    |backend| async move {
        let crm = Crm::start(230).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        bridge.build().await;

        let first = bridge.run(None).await;
        assert_eq!(first.titles(), truth(&crm));
        assert_eq!((first.contacts.len(), first.pages), (230, 5));
        let nothing = bridge.run(Some(&first.checkpoint)).await;
        assert_eq!((nothing.contacts.len(), nothing.pages), (0, 1));

        crm.crm.control(Control::edit("demo", Change::ids([3, 77, 200]))).done();
        crm.crm.control(Control::create("demo", 2)).done();
        until("the edits arrive by poll", || async {
            bridge.run(Some(&nothing.checkpoint)).await.ids().len() == 5
        })
        .await;
        let changes = bridge.run(Some(&nothing.checkpoint)).await;
        assert_eq!(changes.contacts.len(), 5, "unchanged contacts keep their position");
        let truth = truth(&crm);
        for (id, title) in changes.titles() {
            assert_eq!(truth[&id], title);
        }
        bridge.stop().await;
    }
);

on_both!(meta_is_read_in_every_form_it_may_come_in, |backend| async move {
    let crm = Crm::start(120).await;
    let bridge = Bridge::start(backend, &crm, SMALL).await;
    bridge.build().await;
    let page = |body: Value| async { bridge.post("/demo/contact_sync", body).await };
    let (status, first) = page(json!({"auth": auth()})).await;
    assert_eq!(status, 200);
    let contacts = &first["contacts"];
    assert_eq!(contacts.as_array().unwrap().len(), 50);
    for meta in [
        json!(null),
        json!({}),
        json!({"synchronization_checkpoint": null, "offset": null, "context": null}),
        json!({"synchronization_checkpoint": "", "offset": ""}),
        json!({"unknown": [1, 2], "context": {"run": 7, "page": "x"}}),
        json!({"context": [1, {"a": null}]}),
        json!({"synchronization_checkpoint": "a predecessor's own words"}),
        json!({"synchronization_checkpoint": 17}),
    ] {
        let (status, same) = page(json!({"auth": auth(), "meta": meta})).await;
        assert_eq!((status, &same["contacts"]), (200, contacts), "{meta}");
    }
    let alias = bridge.post("/demo/const_sync", json!({"auth": auth()})).await;
    assert_eq!(
        (alias.0, &alias.1["contacts"]),
        (200, contacts),
        "the seeds' own spelling"
    );

    let offset = &first["next_offset"];
    let (_, second) = page(json!({"auth": auth(), "meta": {"offset": offset}})).await;
    let checkpoint = &first["synchronization_checkpoint"];
    for meta in [
        json!({"offset": offset, "synchronization_checkpoint": checkpoint}),
        json!({"offset": offset, "synchronization_checkpoint": "rubbish", "context": first["context"]}),
    ] {
        let (status, same) = page(json!({"auth": auth(), "meta": meta})).await;
        assert_eq!(
            (status, &same["contacts"]),
            (200, &second["contacts"]),
            "an offset decides alone: {meta}"
        );
    }
    assert_eq!(first["context"]["page"], 1);
    let (_, counted) = page(json!({"auth": auth(), "meta": {"offset": offset, "context": first["context"]}})).await;
    assert_eq!(
        (&counted["context"]["page"], &counted["context"]["delivered"]),
        (&json!(2), &json!(100))
    );
    assert_eq!(counted["context"]["run"], first["context"]["run"]);
    bridge.stop().await;
});

on_both!(
    invariant_3_the_checkpoint_of_any_page_is_a_safe_start,
    |backend| async move {
        let crm = Crm::start(130).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        bridge.build().await;
        let mut meta = json!(null);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let (status, page) = bridge.sync(meta).await;
            assert_eq!(status, 200);
            for contact in page["contacts"].as_array().unwrap() {
                seen.insert(contact["id"].as_str().unwrap().to_owned());
            }
            let rest = bridge.run(page["synchronization_checkpoint"].as_str()).await.ids();
            assert!(seen.is_disjoint(&rest), "nothing unchanged comes twice");
            assert_eq!(seen.len() + rest.len(), 130, "nobody is skipped");
            let Some(next) = page.get("next_offset") else { break };
            meta = json!({ "offset": next });
        }
        bridge.stop().await;
    }
);

on_both!(foreign_and_damaged_tokens, |backend| async move {
    let crm = Crm::start(120).await;
    let bridge = Bridge::start(backend, &crm, SMALL).await;
    bridge.build().await;
    let (_, mine) = bridge.sync(json!(null)).await;
    let other = json!({"account": "other", "token": TOKEN});
    let (status, yours) = bridge
        .post(
            "/demo/contact_sync",
            json!({"auth": other, "meta": {"offset": mine["next_offset"]}}),
        )
        .await;
    assert_eq!(
        (status, yours["code"].as_str()),
        (400, Some("bad_offset")),
        "another account's offset"
    );
    for offset in ["2", "v1.x.y", "v1..", "v1.aaaaaaaa.AAAA"] {
        assert_eq!(bridge.sync(json!({ "offset": offset })).await.0, 400, "{offset}");
    }
    let checkpoint = json!({"synchronization_checkpoint": mine["synchronization_checkpoint"]});
    let (status, page) = bridge
        .post("/demo/contact_sync", json!({"auth": other, "meta": checkpoint}))
        .await;
    assert_eq!(
        status, 200,
        "a foreign checkpoint is a full sync of the caller's own account"
    );
    for contact in page["contacts"].as_array().unwrap() {
        let theirs = contact["url"].as_str().unwrap().contains("/contacts/other/");
        assert!(theirs, "invariant 11: {contact}");
    }
    bridge.stop().await;
});

on_both!(only_the_contract_keys_with_e164_phones, |backend| async move {
    const KEYS: [&str; 11] = [
        "id",
        "name",
        "company",
        "title",
        "emails",
        "phones",
        "photo_url",
        "address",
        "websites",
        "twitter",
        "url",
    ];
    let crm = Crm::start(400).await;
    let bridge = Bridge::start(backend, &crm, "").await;
    bridge.build().await;
    let run = bridge.run(None).await;
    assert_eq!(run.contacts.len(), 400);
    let mut phones = 0;
    for contact in &run.contacts {
        let contact = contact.as_object().unwrap();
        assert!(contact.keys().all(|key| KEYS.contains(&key.as_str())), "{contact:?}");
        assert!(!contact["id"].as_str().unwrap().is_empty() && !contact["name"].as_str().unwrap().is_empty());
        for phone in contact["phones"].as_array().unwrap() {
            let phone = phone.as_str().unwrap();
            let digits = phone.strip_prefix('+').expect("E.164");
            assert!(
                (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()),
                "{phone}"
            );
            phones += 1;
        }
    }
    assert!(phones > 200);
    bridge.stop().await;
});

on_both!(
    a_cold_account_is_answered_from_the_growing_snapshot,
    |backend| async move {
        let crm = Crm::limited(1_500, Some("5/1s".parse().unwrap())).await;
        let more = "page.contacts = 100";
        let bridge = Bridge::start(backend, &crm, &format!("{more}\ncold.hold = \"400ms\"")).await;
        // The limit of the CRM is below what the connector would take; it tells by 429.
        crm.crm.knobs("demo", |knobs| knobs.frozen = true);
        let frozen = {
            let crm = crm.crm.clone();
            tokio::spawn(async move {
                until("the check hangs", || async { crm.stats("demo").in_flight > 0 }).await;
                crm.knobs("demo", |knobs| knobs.frozen = false);
            })
        };
        let run = bridge.run(None).await;
        frozen.await.unwrap();
        assert_eq!(run.titles(), truth(&crm));
        bridge.stop().await;
    }
);

on_both!(
    a_cold_account_with_nothing_yet_is_held_then_told_that_more_is_to_come,
    |backend| async move {
        let crm = Crm::start(50).await;
        let bridge = Bridge::start(backend, &crm, "cold.hold = \"300ms\"").await;
        crm.crm.knobs("demo", |knobs| {
            knobs.slow_ms = 5_000;
            knobs.fault_ops = vec![fake_crm::Op::List];
        });
        let (status, first) = bridge.sync(json!(null)).await;
        assert_eq!((status, &first["contacts"]), (200, &json!([])));
        let (status, second) = bridge.sync(json!({"offset": first["next_offset"]})).await;
        assert_eq!(status, 200);
        assert_ne!(first["next_offset"], second["next_offset"], "a new offset each time");
        assert!(second["synchronization_checkpoint"].is_string());
        bridge.stop().await;
    }
);

on_both!(
    a_cold_account_is_503_if_the_operator_wants_it_so,
    |backend| async move {
        let crm = Crm::start(50).await;
        let bridge = Bridge::start(backend, &crm, "cold.hold = \"100ms\"\ncold.answer = \"unavailable\"").await;
        crm.crm.knobs("demo", |knobs| {
            knobs.slow_ms = 3_000;
            knobs.fault_ops = vec![fake_crm::Op::List];
        });
        let response = bridge
            .http
            .post(format!("{}/demo/contact_sync", bridge.url))
            .json(&json!({"auth": auth()}))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        bridge.stop().await;
    }
);

on_both!(
    invariant_13_deleted_archived_and_merged_contacts_leave_and_nobody_else,
    |backend| async move {
        let crm = Crm::start(150).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        bridge.build().await;
        crm.crm.control(Control::delete("demo", Change::ids([5, 6]))).done();
        crm.crm.control(Control::archive("demo", Change::ids([7]))).done();
        crm.crm.control(Control::merge("demo", "8", "9")).done();
        until("they are gone from a full run", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        assert_eq!(truth(&crm).len(), 146);
        crm.crm.control(Control::unarchive("demo", Change::ids([7]))).done();
        until("the unarchived one is back", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        bridge.stop().await;
    }
);

on_both!(
    a_full_pass_over_a_crm_edited_all_the_while_deletes_no_living_contact,
    |backend| async move {
        let crm = Crm::start(3_000).await;
        let more = "refresh.poll = \"300ms\"\nintegrations.demo.reconcile = \"500ms\"\nrefresh.sweep = \"200ms\"";
        let bridge = Bridge::start(backend, &crm, more).await;
        crm.crm.knobs("demo", |knobs| {
            knobs.edits_per_page = fake_crm::EditsPerPage {
                edits: 5,
                ..Default::default()
            };
        });
        let account = bridge.build().await;
        let done = || async {
            let work = contacts::work::load(&*bridge.store, &account).await.unwrap();
            work.tasks.get(&contacts::Kind::Full).and_then(|task| task.last_done)
        };
        for _ in 0..3 {
            let before = done().await;
            until("another full pass ends", || async {
                let head = bridge.store.head(&account, Stream::Contacts).await.unwrap().unwrap();
                assert_eq!(head.count, 3_000, "somebody was deleted");
                done().await > before
            })
            .await;
            // A run may leave out who is edited behind its end; the runs that go on from it must bring them.
            let mut missing: BTreeSet<String> = truth(&crm).into_keys().collect();
            let mut run = bridge.run(None).await;
            let began = Instant::now();
            loop {
                let brought = run.ids();
                missing.retain(|id| !brought.contains(id));
                if missing.is_empty() {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "nobody brings {missing:?}");
                run = bridge.run(Some(&run.checkpoint)).await;
            }
        }
        crm.crm.knobs("demo", |knobs| knobs.edits_per_page = Default::default());
        until("the last edits arrive", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        bridge.stop().await;
    }
);
