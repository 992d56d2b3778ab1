use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Inbox, base64, crm, hmac_sha256, sent, with_token};
use crate::harness::wait_until;

const CONTACT: &str = "/api/v1/Contact";

fn ids(page: &Value) -> Vec<String> {
    let list = page["list"].as_array().expect("list").iter();
    list.map(|row| row["id"].as_str().expect("id").to_owned()).collect()
}

fn own(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter()
        .map(|id| Profile::EspoCrm.contact_id(&id.to_string()))
        .collect()
}

#[tokio::test]
async fn pages_have_an_offset_at_most_two_hundred_rows_and_a_total_that_can_be_left_out() {
    let crm = crm(Profile::EspoCrm, 250).await;
    let page = crm
        .ok(&format!("{CONTACT}?offset=200&maxSize=200&orderBy=id&order=asc"))
        .await;
    assert_eq!((ids(&page), page["total"].as_u64()), (own(201..=250), Some(250)));
    assert_eq!(crm.get(&format!("{CONTACT}?maxSize=201")).await.status, 403);
    for (offset, total) in [(0, -1), (200, -2)] {
        let path = format!("{CONTACT}?offset={offset}&maxSize=200&attributeSelect=id,name");
        let page = sent(crm.request(Method::GET, &path).header("x-no-total", "true"))
            .await
            .json();
        assert_eq!(page["total"], total);
        let keys: Vec<&String> = page["list"][0].as_object().expect("a row").keys().collect();
        assert_eq!(keys, ["id", "name"]);
    }
}

#[tokio::test]
async fn where_narrows_by_time_and_by_id() {
    let crm = crm(Profile::EspoCrm, 20).await;
    crm.control(Control::touch("demo", Change::ids(3..=7).stamped(1_800_000_000_000)));
    let time = |kind: &str, at: &str| {
        format!("whereGroup[0][type]={kind}&whereGroup[0][attribute]=modifiedAt&whereGroup[0][value]={at}")
    };
    let get = |query: String| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        let request = crm.request(Method::GET, &format!("{CONTACT}?{query}"));
        async move { sent(request).await }
    };
    let found = get(time("greaterThanOrEquals", "2027-01-15 08:00:00")).await.json();
    assert_eq!(found["total"], 5);
    assert_eq!(found["list"][0]["modifiedAt"], "2027-01-15 08:00:00");
    assert_eq!(get(time("after", "2027-01-15 08:00:00")).await.json()["total"], 0);
    assert_eq!(get(time("after", "2027-01-15T08:00:00Z")).await.status, 400);
    let wanted = own([2, 4]);
    let by_id = format!(
        "orderBy=id&order=asc&whereGroup[0][type]=in&whereGroup[0][attribute]=id&whereGroup[0][value][]={}&whereGroup[0][value][]={}",
        wanted[0], wanted[1]
    );
    assert_eq!(ids(&get(by_id).await.json()), wanted);
    let past = format!(
        "orderBy=id&order=asc&maxSize=2&whereGroup[0][type]=greaterThan&whereGroup[0][attribute]=id&whereGroup[0][value]={}",
        wanted[1]
    );
    assert_eq!(ids(&get(past).await.json()), own([5, 6]));
    assert_eq!(crm.get(&format!("{CONTACT}/{}", wanted[0])).await.status, 200);
    crm.control(Control::delete("demo", Change::ids([2])));
    assert_eq!(crm.get(&format!("{CONTACT}/{}", wanted[0])).await.status, 404);
}

#[tokio::test]
async fn a_user_may_sign_each_request() {
    let crm = with_token(Profile::EspoCrm, 5, "public:hidden").await;
    let signed = |method: Method, path: &str, secret: &str| {
        let uri = path.trim_start_matches("/api/v1/").split('?').next().expect("a path");
        let digest = hmac_sha256(secret, format!("{method} /{uri}").as_bytes());
        let header = base64(format!("public:{}", hex::encode(digest)));
        crm.bare(method, path).header("x-hmac-authorization", header)
    };
    for path in ["/api/v1/App/user", "/api/v1/Contact?maxSize=1"] {
        assert_eq!(sent(signed(Method::GET, path, "hidden")).await.status, 200, "{path}");
        assert_eq!(sent(signed(Method::GET, path, "guessed")).await.status, 401, "{path}");
    }
    let key = crm.bare(Method::GET, CONTACT).header("x-api-key", "public:hidden");
    assert_eq!(sent(key).await.status, 401, "such a user has no other way in");
}

#[tokio::test]
async fn a_webhook_has_an_id_and_a_key_of_its_own() {
    let crm = crm(Profile::EspoCrm, 80).await;
    let inbox = Inbox::open().await;
    let mut hooks = Vec::new();
    for event in ["Contact.update", "Contact.delete"] {
        let made = crm
            .post("/api/v1/Webhook", &json!({"event": event, "url": inbox.url}))
            .await
            .json();
        hooks.push((
            made["id"].as_str().expect("id").to_owned(),
            made["secretKey"].as_str().expect("key").to_owned(),
        ));
    }
    assert_ne!(hooks[0], hooks[1]);
    crm.control(Control::touch("demo", Change::ids(1..=60)));
    let got = inbox.wait(2).await;
    let mut sizes = Vec::new();
    for delivered in &got {
        let digest = hmac_sha256(&hooks[0].1, &delivered.body);
        let expected = base64(format!("{}:{}", hooks[0].0, hex::encode(digest)));
        assert_eq!(delivered.header("signature"), expected);
        let rows = delivered.json();
        assert!(
            rows[0]["id"].is_string() && rows[0].get("firstName").is_none(),
            "only what changed"
        );
        sizes.push(rows.as_array().expect("an array").len());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 50]);
    crm.control(Control::delete("demo", Change::ids([9])));
    let got = inbox.wait(3).await;
    assert_eq!(got[2].json(), json!([{"id": own([9])[0]}]));
    // Gone is gone.
    inbox.answer(410, "");
    crm.control(Control::edit("demo", Change::ids([1])));
    inbox.wait(4).await;
    wait_until("the hook is removed", || {
        crm.served.crm.stats("demo").webhooks.given_up == 1
    })
    .await;
    assert_eq!(ids(&crm.ok("/api/v1/Webhook").await), [hooks[1].0.clone()]);
    let path = format!("/api/v1/Webhook/{}", hooks[1].0);
    assert_eq!(sent(crm.request(Method::DELETE, &path)).await.status, 200);
    assert_eq!(
        crm.post("/api/v1/Webhook", &json!({"event": "Moon.rise", "url": inbox.url}))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn users_cases_and_writes() {
    let crm = crm(Profile::EspoCrm, 5).await;
    assert_eq!(crm.ok("/api/v1/App/user").await["user"]["type"], "api");
    assert_eq!(crm.ok("/api/v1/User?maxSize=2").await["total"], 3);
    let new = json!({"firstName": "Ana", "lastName": "Silva", "emailAddress": "ana@new.example"});
    let made = crm.post(CONTACT, &new).await;
    assert_eq!(
        (made.status, made.json()["id"].as_str()),
        (200, Some(own([6])[0].as_str()))
    );
    assert_eq!(crm.post(CONTACT, &new).await.status, 409);
    assert_eq!(crm.post(CONTACT, &json!({"firstName": "Ana"})).await.status, 400);
    let id = &own([6])[0];
    let case =
        json!({"name": "Help", "contactId": id, "priority": "High", "assignedUserId": Profile::EspoCrm.user_id("u-2")});
    assert_eq!(crm.post("/api/v1/Case", &case).await.status, 200);
    let cases = crm.ok(&format!("{CONTACT}/{id}/cases")).await;
    assert_eq!(
        cases["list"].as_array().expect("list").last().expect("one")["name"],
        "Help"
    );
    let call = json!({
        "name": "Call", "status": "Held", "direction": "Inbound", "dateStart": "2026-05-01 10:00:00",
        "dateEnd": "2026-05-01 10:02:05", "contactsIds": [id],
    });
    assert_eq!(crm.post("/api/v1/Call", &call).await.status, 200);
    let calls = crm.served.crm.calls("demo");
    assert_eq!((calls[0].duration_s, calls[0].direction.as_str()), (125, "inbound"));
    assert_eq!(crm.served.crm.tickets("demo")[0].agent_id.as_deref(), Some("u-2"));
    let note = json!({"type": "Post", "post": "Rang", "parentType": "Contact", "parentId": id});
    assert_eq!(crm.post("/api/v1/Note", &note).await.status, 200);
    assert_eq!(crm.served.crm.notes("demo")[0].body, "Rang");
}
