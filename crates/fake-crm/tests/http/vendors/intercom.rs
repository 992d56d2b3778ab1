use fake_crm::{Change, Control, Profile};
use serde_json::{Value, json};

use super::{Answered, Crm, Inbox, crm, each, hmac_sha1, own};

async fn search(crm: &Crm, operator: &str, value: i64, order: &str) -> Answered {
    let body = json!({
        "query": {"operator": "AND", "value": [{"field": "updated_at", "operator": operator, "value": value}]},
        "pagination": {"per_page": 150}, "sort": {"field": "updated_at", "order": order},
    });
    crm.post("/contacts/search", &body).await
}

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().expect("a time").as_second()
}

#[tokio::test]
async fn a_search_by_time_knows_days_of_the_workspace_only() {
    let crm = crm(Profile::Intercom, 4).await;
    crm.served
        .crm
        .knobs("demo", |knobs| "America/New_York".clone_into(&mut knobs.time_zone));
    assert_eq!(crm.ok("/me").await["app"]["timezone"], "America/New_York");
    // 23:30 and 00:30 there, on both sides of midnight; five hours later in UTC.
    for (id, stamp) in [
        (1, "2030-01-11T04:30:00Z"),
        (2, "2030-01-11T05:30:00Z"),
        (3, "2030-01-12T05:30:00Z"),
    ] {
        crm.control(Control::touch("demo", Change::ids([id]).stamped(at(stamp) * 1000)));
    }
    let noon = at("2030-01-10T17:00:00Z");
    let after = search(&crm, ">", noon, "ascending").await.json();
    assert_eq!(
        each(&after["data"], "id"),
        own(Profile::Intercom, [2, 3]),
        "the rest of that day is not shown"
    );
    let same = search(&crm, "=", noon, "ascending").await.json();
    assert_eq!(each(&same["data"], "id"), own(Profile::Intercom, [1]));
    let down = search(&crm, ">", noon - 86_400, "descending").await.json();
    assert_eq!(each(&down["data"], "id"), own(Profile::Intercom, [3, 2, 1]));
    for operator in [">=", "<=", "!="] {
        let wrong = search(&crm, operator, noon, "ascending").await;
        assert_eq!(
            (wrong.status, wrong.json()["errors"][0]["code"].as_str()),
            (400, Some("invalid_operator"))
        );
    }
}

#[tokio::test]
async fn pages_go_on_after_the_last_one_shown() {
    let crm = crm(Profile::Intercom, 25).await;
    crm.control(Control::touch(
        "demo",
        Change::ids(1..=20).stamped(at("2030-01-11T05:00:00Z") * 1000),
    ));
    let (mut ids, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut body = json!({
            "query": {"field": "updated_at", "operator": ">", "value": "1000000000"},
            "pagination": {"per_page": 6}, "sort": {"field": "updated_at", "order": "ascending"},
        });
        if !after.is_null() {
            body["pagination"]["starting_after"] = after;
        }
        let page = crm.post("/contacts/search", &body).await.json();
        assert_eq!(page["total_count"], 25);
        ids.extend(each(&page["data"], "id"));
        after = page["pages"]["next"]["starting_after"].clone();
        if after.is_null() {
            break;
        }
    }
    ids.sort();
    assert_eq!(ids, own(Profile::Intercom, 1..=25));
    let first = crm.ok("/contacts?per_page=20").await;
    let rest = crm
        .ok(&format!(
            "/contacts?per_page=20&starting_after={}",
            first["pages"]["next"]["starting_after"].as_str().expect("more")
        ))
        .await;
    assert_eq!(each(&rest["data"], "id"), own(Profile::Intercom, (1..=5).rev()));
    assert_eq!(crm.get("/contacts?per_page=151").await.status, 400);
}

#[tokio::test]
async fn limits_are_slices_with_a_reset_in_epoch_seconds() {
    let crm = crm(Profile::Intercom, 3).await;
    crm.limit("slice", "1/1h");
    let first = crm.get("/me").await;
    let reset: i64 = first.header("x-ratelimit-reset").parse().expect("seconds");
    assert!((reset - jiff::Timestamp::now().as_second()).abs() <= 3_601);
    let over = crm.get("/me").await;
    assert_eq!(
        (over.status, over.json()["errors"][0]["code"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );
}

#[tokio::test]
async fn a_ping_comes_first_and_all_is_signed() {
    let crm = crm(Profile::Intercom, 5).await;
    let inbox = Inbox::open().await;
    crm.subscribe(&inbox, "client-secret");
    inbox.wait(1).await;
    crm.control(Control::edit("demo", Change::ids([2])));
    crm.control(Control::delete("demo", Change::ids([3])));
    let got = inbox.wait(3).await;
    let topics: Vec<Value> = got.iter().map(|one| one.json()["topic"].clone()).collect();
    assert_eq!(topics, ["ping", "contact.user.updated", "contact.deleted"]);
    for one in &got {
        let expected = format!("sha1={}", hex::encode(hmac_sha1("client-secret", &one.body)));
        assert_eq!(one.header("x-hub-signature"), expected);
    }
    assert_eq!(
        got[1].json()["data"]["item"]["id"],
        own(Profile::Intercom, [2])[0].as_str()
    );
    assert_eq!(crm.served.crm.stats("demo").webhooks.greetings["200"], 1);
}

#[tokio::test]
async fn admins_conversations_and_writes() {
    let crm = crm(Profile::Intercom, 5).await;
    assert_eq!(
        each(&crm.ok("/admins").await["admins"], "id")[0],
        Profile::Intercom.user_id("u-1")
    );
    let new = json!({"role": "user", "email": "ana@new.example", "name": "Ana Silva"});
    let made = crm.post("/contacts", &new).await;
    let id = own(Profile::Intercom, [6])[0].clone();
    assert_eq!((made.status, &made.json()["id"]), (200, &json!(id)));
    assert_eq!(
        crm.post("/contacts", &new).await.json()["errors"][0]["code"],
        "conflict"
    );
    let ticket =
        json!({"ticket_type_id": "1", "contacts": [{"id": id}], "ticket_attributes": {"_default_title_": "Help"}});
    assert_eq!(crm.post("/tickets", &ticket).await.status, 200);
    let query =
        json!({"query": {"operator": "AND", "value": [{"field": "contact_ids", "operator": "=", "value": id}]}});
    let found = crm.post("/conversations/search", &query).await.json();
    assert_eq!(
        each(&found["conversations"], "title").last().map(String::as_str),
        Some("Help")
    );
    let note = json!({"body": "Rang", "admin_id": Profile::Intercom.user_id("u-2")});
    assert_eq!(crm.post(&format!("/contacts/{id}/notes"), &note).await.status, 200);
    assert_eq!(crm.served.crm.notes("demo")[0].agent_id.as_deref(), Some("u-2"));
    let contacts = crm.ok("/contacts").await;
    let company = contacts["data"]
        .as_array()
        .expect("contacts")
        .iter()
        .find_map(|one| one["companies"]["data"][0]["url"].as_str())
        .expect("one");
    assert!(crm.ok(company).await["name"].is_string());
}
