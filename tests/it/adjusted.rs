//! An integration that changes its connector: custom fields in the mapping, and only some contacts wanted.

use contacts::Stream;
use fake_crm::{Change, Control, Fields};
use serde_json::json;

use crate::harness::*;

const ADJUSTED: &str = "refresh.poll = \"300ms\"\nrefresh.sweep = \"200ms\"\n\
    integrations.demo.filter = \"contact.title != 'Gone' and item.address.country == 'PT'\"\n\
    integrations.demo.map.company = \"item.company ~ ' (' ~ item.address.city ~ ')'\"";

on_both!(
    only_wanted_contacts_are_delivered_and_one_that_stops_matching_counts_as_deleted,
    |backend| async move {
        let crm = Crm::start(120).await;
        let bridge = Bridge::start(backend, &crm, ADJUSTED).await;
        let account = bridge.build().await;
        let portuguese: Vec<_> = crm
            .crm
            .truth("demo")
            .into_iter()
            .filter(|row| row.address.country == "PT")
            .collect();
        assert!((20..100).contains(&portuguese.len()), "the filter has something to do");

        let first = bridge.run(None).await;
        let expected = portuguese.iter().map(|row| row.id.clone()).collect();
        assert_eq!(first.ids(), expected);
        let row = portuguese
            .iter()
            .find(|row| !row.company.trim().is_empty())
            .expect("a company");
        let contact = first
            .contacts
            .iter()
            .find(|contact| contact["id"] == row.id.as_str())
            .expect("the contact");
        assert_eq!(
            contact["company"],
            format!("{} ({})", row.company.trim(), row.address.city)
        );

        let titled = |title: &str| Fields {
            job_title: Some(title.to_owned()),
            ..Fields::default()
        };
        let edit = |title: &str| {
            let change = Change {
                fields: Some(titled(title)),
                ..Change::ids([row.id.parse::<u64>().expect("a number")])
            };
            crm.crm.control(Control::edit("demo", change)).done();
        };
        let living = || async {
            let head = bridge.store.head(&account, Stream::Contacts).await.expect("a head");
            head.map_or(0, |head| head.count)
        };
        edit("Gone");
        until("it no longer counts", || async {
            living().await == portuguese.len() as u64 - 1
        })
        .await;
        let gone = bridge.run(Some(&first.checkpoint)).await;
        assert!(!gone.ids().contains(&row.id), "{:?}", gone.contacts);
        assert_eq!(bridge.tickets(&row.id).await, Vec::<serde_json::Value>::new());

        edit("Back");
        until("it is there again", || async {
            living().await == portuguese.len() as u64
        })
        .await;
        let back = bridge.run(Some(&gone.checkpoint)).await;
        assert_eq!(back.titles().get(&row.id).map(String::as_str), Some("Back"));
        bridge.stop().await;
    }
);

on_both!(
    a_changed_mapping_is_taken_on_in_turns_and_news_do_not_wait,
    |backend| async move {
        let crm = Crm::start(300).await;
        let again = |company: &str, within: &str| {
            format!(
                "refresh.poll = \"300ms\"\nrefresh.sweep = \"100ms\"\nintegrations.demo.reconcile = \"300ms\"\n\
                 refresh.remap_within = \"{within}\"\nintegrations.demo.map.company = \"{company}\""
            )
        };
        let bridge = Bridge::start(backend, &crm, &again("'first ' ~ item.id", "1h")).await;
        let account = bridge.build().await;
        let first = bridge.run(None).await;
        assert_eq!(first.ids().len(), 300);

        // A pass that began after the restart.
        let passed = async |bridge: &Bridge| {
            let passes = async || {
                let runs = contacts::runs::list(&*bridge.store, &account).await.expect("the runs");
                let full = runs.iter().filter(|run| run.kind == contacts::Kind::Full);
                full.map(|run| run.began).max()
            };
            let now = contacts::Clock::now(&contacts::SystemClock);
            until("a full pass", async || passes().await.is_some_and(|began| began > now)).await;
        };
        let companies = |run: &Run| -> std::collections::BTreeMap<String, String> {
            let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
            let pair = |contact: &serde_json::Value| (text(&contact["id"]), text(&contact["company"]));
            run.contacts.iter().map(pair).collect()
        };
        let bridge = bridge.restart(&crm, &again("'second ' ~ item.id", "30days")).await;
        passed(&bridge).await;
        passed(&bridge).await;
        let second = bridge.run(Some(&first.checkpoint)).await;
        assert!(second.ids().len() < 10, "{} at once", second.ids().len());

        // Who is edited takes it on with the edit.
        let id = first
            .ids()
            .into_iter()
            .find(|id| !second.ids().contains(id))
            .expect("somebody");
        let change = Change {
            fields: Some(Fields {
                job_title: Some("Edited".to_owned()),
                ..Fields::default()
            }),
            ..Change::ids([id.parse::<u64>().expect("a number")])
        };
        crm.crm.control(Control::edit("demo", change)).done();
        let mut checkpoint = second.checkpoint.clone();
        until("the edit is delivered", async || {
            let run = bridge.run(Some(&checkpoint)).await;
            companies(&run)
                .get(&id)
                .is_some_and(|company| *company == format!("second {id}"))
        })
        .await;

        // In the end, everybody has.
        checkpoint.clone_from(&first.checkpoint);
        let bridge = bridge.restart(&crm, &again("'second ' ~ item.id", "0s")).await;
        passed(&bridge).await;
        passed(&bridge).await;
        let last = companies(&bridge.run(Some(&checkpoint)).await);
        assert_eq!(last.len(), 300);
        assert!(last.iter().all(|(id, company)| *company == format!("second {id}")));
        bridge.stop().await;
    }
);

#[test]
fn adjustments_that_cannot_be_are_told_with_their_settings() {
    let text = settings_text(
        Backend::Embedded,
        "http://127.0.0.1:1",
        std::path::Path::new("/nowhere"),
        "x",
        "integrations.demo.filter = \"contact.phone\"\nintegrations.demo.map.titel = \"item.x\"",
    );
    let settings = load(&text);
    let keys = snapbridge::wiring::throwaway_keys().expect("keys");
    let store = std::sync::Arc::new(store::MemoryStore::new());
    let clock = std::sync::Arc::new(contacts::SystemClock);
    let loaded = snapbridge::integrations::Integrations::load(
        &settings,
        std::path::Path::new(""),
        store,
        keys,
        clock,
        "test".into(),
    );
    let problems = json!(loaded.err().expect("refused")).to_string();
    assert!(problems.contains("map.titel: no such field"), "{problems}");
    assert!(problems.contains("filter: "), "{problems}");
}
