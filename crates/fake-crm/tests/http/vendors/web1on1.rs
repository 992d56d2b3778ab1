use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, Inbox, crm, each, hmac_sha1, own, query, sent};

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
    assert_eq!(crm.get(&format!("{CONTACTS}?colour=red")).await.status, 400);
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
