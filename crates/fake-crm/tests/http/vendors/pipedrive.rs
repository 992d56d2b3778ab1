use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Inbox, base64, crm, sent};

const PERSONS: &str = "/api/v2/persons";

fn ids(page: &Value) -> Vec<u64> {
    let data = page["data"].as_array().expect("data").iter();
    data.map(|row| row["id"].as_u64().expect("id")).collect()
}

#[tokio::test]
async fn persons_go_by_cursor_by_id_and_by_time() {
    let crm = crm(Profile::Pipedrive, 30).await;
    crm.limit("burst", "1000/1s");
    // More of one stamp than a page holds.
    let stamp = 1_800_000_000_000;
    crm.control(Control::touch("demo", Change::ids(5..=15).stamped(stamp)));
    for (sort, expected) in [("id", 30), ("update_time", 30)] {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = crm.ok(&format!("{PERSONS}?limit=4&sort_by={sort}{cursor}")).await;
            assert!(ids(&page).len() <= 4);
            all.extend(ids(&page));
            match page["additional_data"]["next_cursor"].as_str() {
                None => break,
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!((all.len(), unique.len()), (expected, expected), "{sort}: {all:?}");
    }
    let since = crm
        .ok(&format!("{PERSONS}?updated_since=2027-01-15T08:00:00Z&limit=500"))
        .await;
    assert_eq!(ids(&since), (5..=15).collect::<Vec<u64>>());
    let before = crm
        .ok(&format!(
            "{PERSONS}?updated_since=2027-01-15T08:00:00Z&updated_until=2027-01-15T08:00:00Z"
        ))
        .await;
    assert_eq!(ids(&before), Vec::<u64>::new());
    for wrong in ["updated_since=2027-01-15T08:00:00.000Z", "limit=501", "cursor=nonsense"] {
        assert_eq!(crm.get(&format!("{PERSONS}?{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_deleted_are_flagged_when_asked_for_by_id() {
    let crm = crm(Profile::Pipedrive, 5).await;
    crm.control(Control::delete("demo", Change::ids([2])));
    crm.control(Control::archive("demo", Change::ids([3])));
    let page = crm.ok(PERSONS).await;
    assert_eq!(ids(&page), [1, 4, 5]);
    let asked = crm.ok(&format!("{PERSONS}?ids=1,2,3,99")).await;
    let mut flags: Vec<(u64, bool)> = asked["data"]
        .as_array()
        .expect("data")
        .iter()
        .map(|row| {
            (
                row["id"].as_u64().expect("id"),
                row["is_deleted"].as_bool().expect("flag"),
            )
        })
        .collect();
    flags.sort_unstable();
    assert_eq!(flags, [(1, false), (2, true), (3, true)]);
    let organization = page["data"]
        .as_array()
        .expect("data")
        .iter()
        .find_map(|row| row["org_id"].as_u64())
        .expect("one");
    let organizations = crm.ok(&format!("/api/v2/organizations?ids={organization}")).await;
    assert_eq!(organizations["data"][0]["id"], organization);
    assert!(organizations["data"][0]["name"].is_string());
}

#[tokio::test]
async fn the_day_has_a_budget_of_tokens_and_two_seconds_a_burst() {
    let crm = crm(Profile::Pipedrive, 5).await;
    crm.limit("daily", "25/1h");
    let me = crm.get("/v1/users/me").await;
    assert_eq!(me.header("x-daily-ratelimit-token-remaining"), "23");
    assert_eq!(
        (me.header("x-ratelimit-limit"), me.header("x-ratelimit-remaining")),
        ("20", "19")
    );
    crm.get(PERSONS).await;
    crm.get(PERSONS).await;
    let over = crm.get(PERSONS).await;
    assert_eq!(
        (over.status, over.json()["error"].as_str()),
        (429, Some("request over daily limit"))
    );
    crm.limit("daily", "30000/1d");
    crm.limit("burst", "1/1h");
    crm.get(PERSONS).await;
    assert_eq!(crm.get(PERSONS).await.json()["error"], "request over limit");
    let limits = crm.served.crm.stats("demo").limits;
    let mut deaf = crm.get(PERSONS).await;
    for _ in 0..10 {
        deaf = crm.get(PERSONS).await;
    }
    assert_eq!(
        (deaf.status, deaf.header("content-type")),
        (403, "text/html; charset=utf-8")
    );
    assert_eq!(
        (
            limits["daily"].cost,
            limits["daily"].over_limit,
            limits["burst"].over_limit
        ),
        (52, 1, 1)
    );
}

#[tokio::test]
async fn webhooks_are_made_through_the_api_and_prove_themselves_by_basic() {
    let crm = crm(Profile::Pipedrive, 5).await;
    let inbox = Inbox::open().await;
    let mut hook = json!({
        "subscription_url": inbox.url, "event_action": "*", "event_object": "person", "version": "2.0",
        "http_auth_user": "bridge", "http_auth_password": "s3cret",
    });
    let made = crm.post("/v1/webhooks", &hook).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(!made.text.contains("s3cret"));
    let id = made.json()["data"]["id"].clone();
    hook["event_object"] = json!("galaxy");
    assert_eq!(crm.post("/v1/webhooks", &hook).await.status, 400);
    crm.control(Control::edit("demo", Change::ids([4])));
    crm.control(Control::delete("demo", Change::ids([5])));
    let got = inbox.wait(2).await;
    assert_eq!(
        got[0].header("authorization"),
        format!("Basic {}", base64("bridge:s3cret"))
    );
    let (change, delete) = (got[0].json(), got[1].json());
    assert_eq!(
        (&change["meta"]["action"], &change["meta"]["entity_id"]),
        (&json!("change"), &json!("4"))
    );
    assert!(change["data"]["name"].is_string());
    assert_eq!(
        (&delete["meta"]["action"], &delete["data"]),
        (&json!("delete"), &Value::Null)
    );
    assert_eq!(crm.ok("/v1/webhooks").await["data"].as_array().expect("hooks").len(), 1);
    let path = format!("/v1/webhooks/{id}");
    assert_eq!(sent(crm.request(Method::DELETE, &path)).await.status, 200);
    assert_eq!(sent(crm.request(Method::DELETE, &path)).await.status, 404);
    crm.control(Control::edit("demo", Change::ids([1])));
    assert_eq!(crm.served.crm.stats("demo").webhooks.waiting, 0);
}

#[tokio::test]
async fn users_deals_and_writes() {
    let crm = crm(Profile::Pipedrive, 5).await;
    assert_eq!(ids(&crm.ok("/v1/users").await), [1, 2, 3]);
    assert_eq!(crm.ok("/v1/users/me").await["data"]["company_domain"], "demo");
    let person = json!({"name": "Ana Silva", "emails": [{"value": "ana@new.example", "primary": true}]});
    let made = crm.post(PERSONS, &person).await;
    assert_eq!((made.status, made.json()["data"]["id"].as_u64()), (201, Some(6)));
    assert_eq!(crm.post(PERSONS, &json!({})).await.status, 400);
    let note = crm
        .post("/v1/notes", &json!({"content": "Rang", "person_id": 6, "user_id": 2}))
        .await;
    assert_eq!(
        (note.status, crm.served.crm.notes("demo")[0].agent_id.as_deref()),
        (201, Some("u-2"))
    );
    let call = json!({
        "subject": "Inbound call", "type": "call", "done": true, "due_date": "2026-05-01", "due_time": "10:30",
        "duration": "00:05", "participants": [{"person_id": 6, "primary": true}], "owner_id": 1,
    });
    let made = crm.post("/api/v2/activities", &call).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let logged = &crm.served.crm.calls("demo")[0];
    assert_eq!((logged.duration_s, logged.direction.as_str()), (300, "inbound"));
    assert_eq!(ids(&crm.ok("/api/v2/activities?person_id=6").await), [1]);
    let deals: usize = [1, 2, 3, 4, 5].len();
    let mut some = 0;
    for contact in 1..=deals {
        some += ids(&crm.ok(&format!("/api/v2/deals?person_id={contact}")).await).len();
    }
    assert!(some > 0);
    assert_eq!(crm.get("/api/v2/deals").await.status, 400);
}
