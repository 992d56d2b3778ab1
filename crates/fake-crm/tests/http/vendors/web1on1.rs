use std::collections::BTreeSet;
use std::time::Duration;

use fake_crm::{
    AccountOptions, Change, Control, FakeCrm, Fields, Options, Profile, RateLimit, UserFields, Users, Webhook,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, Inbox, crm, each, hmac_sha1, own, query, sent};
use crate::harness::serve;

const CONTACTS: &str = "/v2/contacts";

async fn patch(crm: &Crm, id: &str, body: Value) -> super::Answered {
    sent(crm.request(Method::PATCH, &format!("{CONTACTS}/{id}")).json(&body)).await
}

#[tokio::test]
async fn a_comparator_stands_in_the_value_and_the_next_page_in_a_header() {
    let crm = crm(Profile::Web1on1, 25).await;
    crm.control(Control::touch("demo", Change::ids([3, 8]).stamped(1_900_000_000_123)));
    let organization = crm.ok("/v2/users/me").await["organization"]
        .as_str()
        .expect("id")
        .to_owned();
    let asked = query(&[
        ("organization", &organization),
        ("limit", "10"),
        ("sort", "updatedAt"),
        ("updatedAt", ">=2020-09-14"),
    ]);
    let (mut ids, mut path) = (Vec::new(), format!("{CONTACTS}?{asked}"));
    loop {
        let answer = crm.get(&path).await;
        ids.extend(each(&answer.json(), "id"));
        let Some(link) = answer.headers.get("link") else { break };
        let (address, _) = link.to_str().expect("text").split_once('>').expect("a link");
        path = address
            .trim_start_matches('<')
            .strip_prefix(&crm.served.base)
            .expect("the same host")
            .to_owned();
    }
    assert_eq!(ids[23..], own(Profile::Web1on1, [3, 8]));
    ids.sort();
    assert_eq!(ids, own(Profile::Web1on1, 1..=25));
    let window = query(&[
        ("updatedAt", ">=2030-03-17T17:46:40.123Z"),
        ("updatedAt", "<2030-03-17T17:46:40.124Z"),
        ("select", "profile"),
    ]);
    let found = crm.ok(&format!("{CONTACTS}?{window}")).await;
    assert_eq!(each(&found, "id"), own(Profile::Web1on1, [3, 8]));
    assert!(found[0].get("conversation").is_none());
    let elsewhere = crm.ok(&format!("{CONTACTS}?organization=5c13000000000000000000")).await;
    assert_eq!(elsewhere, json!([]));
    let misspelt = crm
        .ok(&format!("{CONTACTS}?profile.mail=nobody@example.com&limit=3"))
        .await;
    assert_eq!(
        misspelt.as_array().expect("a list").len(),
        3,
        "a filter that it does not know is ignored"
    );
}

#[tokio::test]
async fn a_patch_replaces_what_is_nested() {
    let crm = crm(Profile::Web1on1, 5).await;
    let id = own(Profile::Web1on1, [2])[0].clone();
    let link = |url: &str| json!({"label": "CRM", "url": url, "icon": "https://crm.example/i.png"});
    let first = patch(&crm, &id, json!({"links": [link("https://a.example/1")]}))
        .await
        .json();
    let profile = first["profile"].clone();
    assert_eq!(first["links"].as_array().expect("links").len(), 1);
    let second = patch(&crm, &id, json!({"links": [link("https://b.example/2")]}))
        .await
        .json();
    assert_eq!(
        second["links"],
        json!([link("https://b.example/2")]),
        "the array is replaced"
    );
    assert_eq!(second["profile"], profile, "the top level is merged");
    let third = patch(&crm, &id, json!({"profile": {"email": "only@new.example"}}))
        .await
        .json();
    assert_eq!(
        (&third["profile"]["givenName"], &third["profile"]["telephone"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(third["links"].as_array().expect("links").len(), 1);
    assert!(third["updatedAt"].as_str() > second["createdAt"].as_str());
    assert_eq!(
        patch(&crm, &own(Profile::Web1on1, [77])[0], json!({"links": []}))
            .await
            .status,
        404
    );
    assert_eq!(patch(&crm, &id, json!({"id": "other"})).await.status, 400);
}

#[tokio::test]
async fn a_token_ends_and_is_made_anew() {
    let crm = crm(Profile::Web1on1, 3).await;
    let ask = |body: Value| sent(crm.bare(Method::POST, "/v2/auth/token").json(&body));
    let renew = || json!({"clientId": "bot@example.com", "refreshToken": super::TOKEN});
    assert_eq!(
        ask(json!({"clientId": "bot@example.com", "refreshToken": "guessed"}))
            .await
            .status,
        401
    );
    let minted = ask(renew()).await;
    assert_eq!(minted.status, 201);
    let token = minted.json()["token"].as_str().expect("a token").to_owned();
    let me = |token: String| sent(crm.bare(Method::GET, "/v2/users/me").bearer_auth(token));
    assert_eq!(me(token).await.json()["id"], Profile::Web1on1.user_id("u-1"));
    crm.served.crm.knobs("demo", |knobs| knobs.access_life_ms = 0);
    let short = ask(renew()).await.json()["token"].as_str().expect("a token").to_owned();
    let ended = me(short).await;
    assert_eq!(
        (ended.status, ended.json()["error"]["message"].as_str()),
        (401, Some("jwt expired"))
    );
    assert_eq!(
        me("guessed".to_owned()).await.json()["error"]["message"],
        "invalid token"
    );
}

#[tokio::test]
async fn a_webhook_is_challenged_before_it_is_told_anything() {
    let crm = crm(Profile::Web1on1, 5).await;
    let silent = Inbox::open().await;
    crm.subscribe(&silent, "hush");
    crm.control(Control::edit("demo", Change::ids([1])));
    crate::harness::wait_until("it was refused", || {
        crm.served.crm.stats("demo").webhooks.greetings.values().sum::<u64>() == 4
    })
    .await;
    crm.control(Control::edit("demo", Change::ids([2])));
    assert_eq!(
        silent
            .wait(4)
            .await
            .iter()
            .filter(|one| one.method == Method::POST)
            .count(),
        0
    );
    let inbox = Inbox::open().await;
    inbox.answer(200, "Qm9uam91ciBsZSBtb25kZQ");
    crm.subscribe(&inbox, "hush");
    crm.control(Control::edit("demo", Change::ids([3])));
    crm.control(Control::delete("demo", Change::ids([4])));
    let got = inbox.wait(2).await;
    assert_eq!(
        (got[0].method.clone(), got[0].query.as_str()),
        (Method::GET, "type=subscribe&challenge=Qm9uam91ciBsZSBtb25kZQ")
    );
    let expected = format!("sha1={}", hex::encode(hmac_sha1("hush", &got[1].body)));
    assert_eq!(got[1].header("x-hub-signature"), expected);
    let told = got[1].json();
    assert_eq!(
        (&told["event"], &told["data"]["contact"]["id"]),
        (&json!("contact.update"), &json!(own(Profile::Web1on1, [3])[0]))
    );
}

#[tokio::test]
async fn limits_users_and_writes() {
    let crm = crm(Profile::Web1on1, 5).await;
    assert_eq!(each(&crm.ok("/v2/users?limit=2").await, "id").len(), 2);
    let organization = crm.ok("/v2/users/me").await["organization"].clone();
    let new = json!({"organization": organization, "type": "contact", "contact": {"profile": {"givenName": "Ana", "telephone": "+351211234567"}}});
    let made = crm.post("/v2/conversations", &new).await;
    let id = own(Profile::Web1on1, [6])[0].clone();
    assert_eq!((made.status, &made.json()["contact"]["id"]), (201, &json!(id)));
    let by_phone = crm
        .ok(&format!(
            "{CONTACTS}?{}",
            query(&[("profile.telephone", "+351211234567")])
        ))
        .await;
    assert_eq!(each(&by_phone, "id"), [id]);
    let note = json!({"conversation": made.json()["id"], "type": "note", "text": "Rang"});
    assert_eq!(crm.post("/v2/messages", &note).await.status, 201);
    assert_eq!(crm.served.crm.notes("demo")[0].contact_id, "6");
    let mut some = 0;
    for id in own(Profile::Web1on1, 1..=5) {
        some += crm
            .ok(&format!("/v2/conversations?contact={id}"))
            .await
            .as_array()
            .expect("a list")
            .len();
    }
    assert!(some > 0);
    crm.limit("second", "1/1h");
    crm.get(CONTACTS).await;
    assert_eq!(crm.get(CONTACTS).await.status, 429);
}

fn person(email: &str, phone: &str) -> Fields {
    Fields {
        first_name: Some("Ines".to_owned()),
        last_name: Some("Marchetti".to_owned()),
        emails: Some(vec![email.to_owned()]),
        phones: Some(vec![phone.to_owned()]),
        ..Fields::default()
    }
}

#[tokio::test]
async fn somebody_is_found_by_the_whole_text_and_filters_are_joined_with_and() {
    let crm = crm(Profile::Web1on1, 5).await;
    let edit = |id, email: &str, phone: &str| {
        crm.control(Control::edit("demo", Change::ids([id]).with(person(email, phone))));
    };
    let find = async |pairs: &[(&str, &str)]| each(&crm.ok(&format!("{CONTACTS}?{}", query(pairs))).await, "id");
    let (email, phone) = (
        ("profile.email", "ines@nordlys.example"),
        ("profile.telephone", "+4722334455"),
    );
    assert!(find(&[email]).await.is_empty());
    edit(2, email.1, phone.1);
    edit(3, email.1, "22 33 44 55");
    assert_eq!(find(&[email]).await, own(Profile::Web1on1, [2, 3]));
    assert_eq!(
        find(&[phone]).await,
        own(Profile::Web1on1, [2]),
        "the whole text counts"
    );
    assert_eq!(
        find(&[email, ("profile.telephone", "22 33 44 55")]).await,
        own(Profile::Web1on1, [3])
    );
    assert!(find(&[email, ("profile.telephone", "+4711111111")]).await.is_empty());
    assert!(find(&[("profile.email", "INES@nordlys.example")]).await.is_empty());
    assert!(
        find(&[email, ("organization", "5c13000000000000000000")])
            .await
            .is_empty()
    );
    let first = crm
        .get(&format!("{CONTACTS}?{}", query(&[email, ("limit", "1")])))
        .await;
    assert!(first.header("link").contains("offset=1"));
    // A filter is on what is there now.
    edit(2, "other@nordlys.example", phone.1);
    crm.control(Control::delete("demo", Change::ids([3])));
    assert!(find(&[email]).await.is_empty());
}

#[tokio::test]
async fn an_event_holds_the_contact_as_it_was_and_tells_whose_doing_it_is() {
    let crm = crm(Profile::Web1on1, 5).await;
    let inbox = Inbox::open().await;
    inbox.answer(200, "Qm9uam91ciBsZSBtb25kZQ");
    // The first event comes twice, as nobody takes it at first.
    inbox.answer(503, "");
    crm.subscribe(&inbox, "hush");
    inbox.wait(1).await;
    crm.control(Control::edit(
        "demo",
        Change::ids([3]).with(person("a@nordlys.example", "+4722334455")),
    ));
    inbox.wait(3).await;
    let id = own(Profile::Web1on1, [3])[0].clone();
    let link = json!({"label": "View in DMS", "url": "https://dms.example/3", "icon": ""});
    patch(&crm, &id, json!({"links": [link.clone()]})).await;
    inbox.wait(4).await;
    crm.control(Control::delete("demo", Change::ids([3])));
    let got = inbox.wait(5).await;
    let told: Vec<Value> = got[1..].iter().map(super::Delivered::json).collect();
    let users = |id: &str| format!("https://api.web1on1.chat/v2/users/{}", Profile::Web1on1.user_id(id));
    assert_eq!(
        told[0]["activity"], told[1]["activity"],
        "a repetition is of the same event"
    );
    assert_eq!(told[0]["data"], told[1]["data"]);
    assert_eq!(told[1]["activity"]["actor"]["id"], users("u-2"));
    assert_eq!(told[1]["data"]["contact"]["profile"]["email"], "a@nordlys.example");
    assert_eq!(told[1]["data"]["contact"]["links"], json!([]));
    assert_eq!(told[1]["organization"], told[1]["data"]["contact"]["organization"]);
    assert_eq!(
        told[2]["activity"]["actor"]["id"],
        users("u-1"),
        "its own write comes back"
    );
    assert_eq!(told[2]["data"]["contact"]["links"], json!([link]));
    assert_eq!(
        (&told[3]["event"], &told[3]["data"]["contact"]["id"]),
        (&json!("contact.delete"), &json!(id))
    );
    assert!(told[3]["data"]["contact"].get("profile").is_none());
    assert!(told[2]["activity"]["published"].as_str() <= told[3]["activity"]["published"].as_str());
}

#[tokio::test]
async fn users_are_told_of_too() {
    let crm = crm(Profile::Web1on1, 1).await;
    let inbox = Inbox::open().await;
    inbox.answer(200, "Qm9uam91ciBsZSBtb25kZQ");
    crm.subscribe(&inbox, "hush");
    inbox.wait(1).await;
    let users = |users| crm.control(Control::users("demo", users));
    users(Users {
        add: 1,
        ..Users::default()
    });
    inbox.wait(2).await;
    users(Users {
        deactivate: vec!["u-2".to_owned()],
        set: [(
            "u-3".to_owned(),
            UserFields {
                email: Some("new@staff.example".to_owned()),
                ..UserFields::default()
            },
        )]
        .into(),
        delete: vec!["u-1".to_owned()],
        ..Users::default()
    });
    let told: Vec<Value> = inbox.wait(4).await[1..].iter().map(super::Delivered::json).collect();
    let shown: Vec<_> = told
        .iter()
        .map(|one| {
            let user = &one["data"]["user"];
            (
                one["event"].as_str(),
                user["id"].clone(),
                user["status"].as_str(),
                user["email"].clone(),
            )
        })
        .collect();
    let id = |id: &str| json!(Profile::Web1on1.user_id(id));
    assert_eq!((shown[0].0, &shown[0].1), (Some("user.create"), &id("u-4")));
    assert_eq!(
        (shown[1].0, &shown[1].1, shown[1].2),
        (Some("user.update"), &id("u-2"), Some("inactive"))
    );
    assert_eq!((&shown[2].1, &shown[2].3), (&id("u-3"), &json!("new@staff.example")));
    assert_eq!(
        crm.served.crm.stats("demo").webhooks.events,
        3,
        "nothing tells of a deletion"
    );
}

#[tokio::test]
async fn every_event_comes_though_some_are_doubled_and_late() {
    let crm = crm(Profile::Web1on1, 40).await;
    let inbox = Inbox::open().await;
    inbox.answer(200, "Qm9uam91ciBsZSBtb25kZQ");
    let webhook = Webhook {
        duplicate_every: 3,
        shuffle: true,
        late_every: 4,
        late_ms: 40,
        parallel: 4,
        backoff_ms: 1,
        ..Webhook::new(&inbox.url, "hush")
    };
    crm.control(Control::webhook("demo", Some(webhook)));
    inbox.wait(1).await;
    crate::harness::wait_until("it is greeted", || {
        !crm.served.crm.stats("demo").webhooks.greetings.is_empty()
    })
    .await;
    crm.control(Control::edit("demo", Change::random(40)));
    let got = inbox.wait(1 + 40 + 13).await;
    let ids: Vec<String> = got[1..]
        .iter()
        .map(|one| one.json()["data"]["contact"]["id"].as_str().expect("an id").to_owned())
        .collect();
    let expected: BTreeSet<String> = own(Profile::Web1on1, 1..=40).into_iter().collect();
    assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(ids.len(), 53);
}

#[tokio::test]
async fn a_token_ages_while_that_of_a_bot_does_not() {
    let crm = crm(Profile::Web1on1, 1).await;
    let renew = json!({"clientId": "bot@example.com", "refreshToken": super::TOKEN});
    let minted = sent(crm.bare(Method::POST, "/v2/auth/token").json(&renew)).await.json();
    let token = minted["token"].as_str().expect("a token");
    let me = || sent(crm.bare(Method::GET, "/v2/users/me").bearer_auth(token));
    assert_eq!(me().await.status, 200);
    crm.served.crm.knobs("demo", |knobs| {
        knobs.access_age_ms = 24 * 3600 * 1000;
        knobs.expired_403 = true;
    });
    let ended = me().await;
    assert_eq!(
        (ended.status, &ended.json()["error"]["message"]),
        (403, &json!("jwt expired"))
    );
    assert_eq!(crm.get("/v2/users/me").await.status, 200, "a bot's token has no end");
}

#[tokio::test]
async fn accounts_share_what_their_address_may() {
    let account = |name: &str| AccountOptions {
        name: name.to_owned(),
        profile: Profile::Web1on1,
        token: format!("{name}-token"),
        contacts: 3,
        ..AccountOptions::default()
    };
    let served = serve(FakeCrm::new(Options {
        accounts: vec![account("a"), account("b")],
        ..Options::default()
    }))
    .await;
    let crm = &served.crm;
    let three = RateLimit {
        max: 3,
        window: Duration::from_secs(3_600),
    };
    for name in ["a", "b"] {
        crm.knobs(name, |knobs| {
            knobs.limits.insert("address".to_owned(), Some(three));
        });
    }
    let mut answers = Vec::new();
    for name in ["a", "b", "a", "b"] {
        let call = served
            .client
            .get(format!("{}{CONTACTS}", served.base))
            .bearer_auth(format!("{name}-token"));
        answers.push(call.send().await.expect("an answer").status().as_u16());
    }
    assert_eq!(answers, [200, 200, 200, 429]);
    for name in ["a", "b"] {
        let limits = crm.stats(name).limits;
        assert_eq!((limits["second"].calls, limits["second"].over_limit), (2, 0), "{name}");
        assert_eq!(
            (limits["address"].calls, limits["address"].over_limit),
            (4, 1),
            "{name}"
        );
    }
}
