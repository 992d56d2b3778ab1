//! One contact, and what Talkdesk carries for us, explained.

use contacts::token::Offset;
use contacts::{AccountId, Clock, Stream, SystemClock};
use fake_crm::{Change, Control, Fields};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Api, LOOK, OPERATE, admin, csrf_of, form, leaves, log_in, page, tokens};
use crate::harness::*;

/// Polls do not get in the way of what is looked at.
const QUIET: &str = "refresh.poll = \"1h\"\nintegrations.demo.filter = \"item.job_title != 'Unwanted'\"";

async fn asked(bridge: &Bridge, token: &str, account: &AccountId, body: Value) -> (StatusCode, Value) {
    let path = format!("/api/accounts/{account}/explain");
    Api { bridge, token }.ask(Method::POST, &path, Some(body)).await
}

async fn explained(bridge: &Bridge, account: &AccountId, who: &str) -> Value {
    let (status, told) = asked(bridge, OPERATE, account, json!({"who": who})).await;
    assert_eq!(status, 200, "{told}");
    told
}

fn step<'a>(contact: &'a Value, name: &str) -> &'a str {
    let steps = contact["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["step"] == name);
    step.and_then(|step| step["text"].as_str()).unwrap_or_default()
}

fn titled(id: u64, title: &str) -> Control {
    let fields = Fields {
        job_title: Some(title.to_owned()),
        ..Fields::default()
    };
    let change = Change {
        fields: Some(fields),
        ..Change::ids([id])
    };
    Control::edit("demo", change)
}

on_both!(
    a_contact_is_explained_from_the_crm_to_its_place_in_the_snapshot,
    |backend| async move {
        let crm = Crm::start(30).await;
        let bridge = Bridge::start(backend, &crm, &tokens(QUIET)).await;
        let account = bridge.build().await;
        let one = |told: &Value| told["contacts"][0].clone();

        let told = one(&explained(&bridge, &account, "7").await);
        assert_eq!(told["standing"], "current", "{told}");
        assert!(step(&told, "written").contains("contacts.full"), "{told}");
        assert!(step(&told, "talkdesk").contains("next run delivers it"), "{told}");
        assert!(step(&told, "filter").starts_with("kept"), "{told}");
        assert!(
            told["fields"]
                .as_array()
                .unwrap()
                .iter()
                .all(|field| field["same"] == true),
            "{told}"
        );
        // The position is the one that pages are put together by.
        let known = bridge.store.known(&account, Stream::Contacts, &["7".to_owned()]).await;
        let known = known.expect("a store").pop().flatten().expect("the row");
        assert_eq!(told["position"]["at"], contacts::Micros(known.position.0).to_string());

        crm.crm.control(titled(7, "Another title")).done();
        let told = one(&explained(&bridge, &account, "7").await);
        assert_eq!(
            (&told["standing"], &told["dirty"]),
            (&json!("behind"), &json!(false)),
            "{told}"
        );
        let differs: Vec<&Value> = told["fields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|field| field["same"] == false)
            .collect();
        assert!(differs.len() == 1 && differs[0]["field"] == "title", "{told}");

        let marked = bridge
            .store
            .mark(&account, &["7".to_owned()], SystemClock.now(), 10)
            .await;
        assert_eq!(marked.expect("a store").waiting, 1);
        let told = one(&explained(&bridge, &account, "7").await);
        assert!(
            told["dirty"] == true && told["sentence"].as_str().unwrap().contains("webhook"),
            "{told}"
        );

        crm.crm.control(titled(8, "Unwanted")).done();
        crm.crm.control(Control::delete("demo", Change::ids([9]))).done();
        let made = crm.crm.control(Control::create("demo", 1)).done().ids();
        for (id, standing, name, text) in [
            ("8", "to_go", "filter", "does not want it"),
            ("9", "to_go", "crm", "no contact of this id"),
            (made[0].as_str(), "to_come", "snapshot", "not there"),
        ] {
            let told = one(&explained(&bridge, &account, id).await);
            assert_eq!(told["standing"], standing, "{told}");
            assert!(step(&told, name).contains(text), "{told}");
        }
        admin(&bridge).post(&format!("/api/accounts/{account}/full")).await;
        for (id, standing) in [
            ("7", "current"),
            ("8", "gone"),
            ("9", "gone"),
            (made[0].as_str(), "current"),
        ] {
            until(&format!("{id} is {standing}"), || async {
                one(&explained(&bridge, &account, id).await)["standing"] == standing
            })
            .await;
        }

        // A paused account makes no call, also not for this.
        admin(&bridge).post(&format!("/api/accounts/{account}/pause")).await;
        let calls = crm.calls();
        let told = one(&explained(&bridge, &account, "7").await);
        assert_eq!(told["standing"], "unconfirmed", "{told}");
        assert!(step(&told, "crm").contains("paused"), "{told}");
        assert_eq!(crm.calls(), calls);
        bridge.stop().await;
    }
);

on_both!(
    a_contact_is_found_by_phone_and_email_and_its_values_are_for_administrators_only,
    |backend| async move {
        let crm = Crm::start(30).await;
        let bridge = Bridge::start(backend, &crm, &tokens(QUIET)).await;
        let account = bridge.build().await;
        let contacts = bridge.run(None).await.contacts;
        let of = |list: &str| {
            let has = |contact: &&Value| contact[list].as_array().is_some_and(|entries| !entries.is_empty());
            contacts.iter().find(has).expect("one that has some").clone()
        };
        let (called, mailed) = (of("phones"), of("emails"));
        let phone = called["phones"][0].as_str().unwrap();
        let email = mailed["emails"][0].as_str().unwrap().to_uppercase();
        let mut seen = String::new();
        for (who, by, contact) in [(phone, "phone", &called), (&email, "email", &mailed)] {
            let told = explained(&bridge, &account, who).await;
            assert_eq!(told["by"], by);
            let ids: Vec<&Value> = told["contacts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| &one["id"])
                .collect();
            assert!(ids.contains(&&contact["id"]), "{told}");
            seen.push_str(&told.to_string());
        }
        let nobody = explained(&bridge, &account, "nobody@nowhere.example").await;
        assert!(
            nobody["contacts"] == json!([]) && nobody["note"].is_string(),
            "{nobody}"
        );

        let id = mailed["id"].as_str().unwrap();
        let cookie = log_in(&bridge, OPERATE).await;
        let (_, shown) = page(&bridge, &format!("/ops/accounts/{account}"), &cookie).await;
        let fields = [
            ("csrf", csrf_of(&shown)),
            ("account", account.to_string()),
            ("who", id.to_owned()),
        ];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = form(&bridge, "/ops/explain", &fields, &[("cookie", &cookie)]).await;
        assert_eq!(answer.status(), 200);
        let shown = answer.text().await.expect("a page");
        assert!(shown.contains("The snapshot holds what the CRM has"), "{shown}");
        seen.push_str(&shown);
        let forged = [("csrf", "x"), ("account", account.as_str()), ("who", id)];
        let answer = form(&bridge, "/ops/explain", &forged, &[("cookie", &cookie)]).await;
        assert_eq!(answer.status(), 403);

        seen.push_str(&admin(&bridge).get("/api/audit").await.to_string());
        let mut texts = Vec::new();
        contacts.iter().for_each(|contact| leaves(contact, &mut texts));
        texts.push(email.clone());
        let telling = |text: &&String| text.contains('@') || text.starts_with('+') || text.contains(' ');
        let shown: Vec<&String> = texts
            .iter()
            .filter(telling)
            .filter(|text| seen.contains(text.as_str()))
            .collect();
        assert!(shown.is_empty(), "{shown:?}");

        let (status, _) = asked(&bridge, LOOK, &account, json!({"who": id})).await;
        assert_eq!(status, 403);
        let (status, _) = asked(&bridge, OPERATE, &account, json!({"who": id, "values": true})).await;
        assert_eq!(status, 403);
        let (status, told) = asked(&bridge, ADMIN, &account, json!({"who": id, "values": true})).await;
        assert_eq!(status, 200);
        assert!(
            told.to_string().contains(mailed["emails"][0].as_str().unwrap()),
            "{told}"
        );
        let audit = admin(&bridge).get("/api/audit").await;
        assert!(
            audit[0]["action"] == "explain" && audit[0]["detail"].as_str().unwrap().contains("with values"),
            "{audit}"
        );
        for bad in [
            json!({"who": " "}),
            json!({"who": "a\u{7}"}),
            json!({"who": "x".repeat(300)}),
            json!({}),
            json!({"who": "7", "colour": 1}),
        ] {
            let (status, refused) = asked(&bridge, ADMIN, &account, bad).await;
            assert_eq!(
                (status.as_u16(), &refused["code"]),
                (400, &json!("bad_request")),
                "{refused}"
            );
        }
        bridge.stop().await;
    }
);

on_both!(a_token_says_whose_it_is_and_what_it_would_bring, |backend| async move {
    let crm = Crm::start(30).await;
    let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"\npage.contacts = 10")).await;
    let account = bridge.build().await;
    let ask = |body: Value| {
        let api = Api {
            bridge: &bridge,
            token: LOOK,
        };
        async move { api.ask(Method::POST, "/api/tokens/explain", Some(body)).await }
    };
    let (_, first) = bridge.sync(json!({})).await;
    let (status, told) = ask(json!({"token": first["next_offset"]})).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        (&told["kind"], &told["account"], &told["stream"], &told["delivers"]),
        (
            &json!("offset"),
            &json!(account.as_str()),
            &json!("contacts"),
            &json!(20)
        ),
        "{told}"
    );
    assert_eq!(told["generation_is_current"], true);

    let last = bridge.run(None).await.checkpoint;
    let (_, told) = ask(json!({"token": last, "account": account.as_str()})).await;
    assert_eq!(
        (&told["kind"], &told["mode"], &told["delivers"]),
        (&json!("checkpoint"), &json!("changes"), &json!(0)),
        "{told}"
    );
    // The time that people read in a checkpoint is its position.
    assert!(last.contains(told["position"]["at"].as_str().unwrap()), "{told}");

    let old = Offset::open(
        first["next_offset"].as_str().unwrap(),
        &bridge.keys,
        &account,
        Stream::Contacts,
        SystemClock.now(),
    );
    let mut old = old.expect("an offset");
    old.issued = old.issued.minus(contacts::token::OFFSET_LIFE * 2);
    let old = old.seal(&bridge.keys, &account, Stream::Contacts);
    let (_, told) = ask(json!({"token": old})).await;
    assert!(
        told["expired"] == true && told["sentence"].as_str().unwrap().contains("expired"),
        "{told}"
    );

    bridge
        .store
        .drop_snapshot(&account, Stream::Contacts)
        .await
        .expect("a store");
    let (_, told) = ask(json!({"token": last})).await;
    assert_eq!(told["generation_is_current"], false, "{told}");

    let (_, told) = ask(json!({"token": "2012-11-20 23:01:00 UTC"})).await;
    assert_eq!(told["kind"], "date", "{told}");
    let (_, told) = ask(json!({"token": "0", "account": account.as_str()})).await;
    assert!(
        told["kind"] == "agents_offset" && told["delivers"].as_u64().unwrap() > 0,
        "{told}"
    );
    let mut forged = last.clone();
    forged.replace_range(last.len() - 3.., "AAA");
    for bad in ["", "nothing", "v1.2026.zz.AAAA", &forged] {
        let (status, refused) = ask(json!({"token": bad})).await;
        assert_eq!(status, 400, "{bad}: {refused}");
    }
    let (status, _) = ask(json!({"token": last, "account": "aaaaaaaaaaaaaaaaaaaaaaaaaa"})).await;
    assert_eq!(status, 404);
    bridge.stop().await;
});
