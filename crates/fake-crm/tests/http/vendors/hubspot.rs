use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::wait_until;

use super::{Crm, Inbox, TOKEN, base64, crm, hmac_sha256, sent};

const CONTACTS: &str = "/crm/v3/objects/contacts";

fn ids(page: &Value) -> Vec<String> {
    let results = page["results"].as_array().expect("results").iter();
    results.map(|row| row["id"].as_str().expect("id").to_owned()).collect()
}

async fn search(crm: &Crm, body: Value) -> super::Answered {
    crm.post(&format!("{CONTACTS}/search"), &body).await
}

fn since(from: i64, to: i64, after: &str, limit: u32) -> Value {
    json!({
        "filterGroups": [{"filters": [
            {"propertyName": "lastmodifieddate", "operator": "BETWEEN", "value": from.to_string(), "highValue": to.to_string()},
            {"propertyName": "hs_object_id", "operator": "GT", "value": after},
        ]}],
        "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        "properties": ["firstname"], "limit": limit,
    })
}

#[tokio::test]
async fn lists_go_by_cursor_and_show_only_the_properties_asked_for() {
    let crm = crm(Profile::HubSpot, 25).await;
    let first = crm
        .ok(&format!(
            "{CONTACTS}?limit=10&properties=phone,nonsense&properties=company"
        ))
        .await;
    let next = first["paging"]["next"]["after"].as_str().expect("a cursor");
    let second = crm.ok(&format!("{CONTACTS}?limit=10&after={next}")).await;
    let third = crm.ok(&format!("{CONTACTS}?limit=10&after=20")).await;
    let all: Vec<String> = [&first, &second, &third].into_iter().flat_map(ids).collect();
    assert_eq!(all, (1..=25).map(|id| id.to_string()).collect::<Vec<_>>());
    assert!(third.get("paging").is_none());
    let properties = first["results"][0]["properties"].as_object().expect("properties");
    assert!(properties.contains_key("phone") && properties.contains_key("company"));
    assert!(!properties.contains_key("nonsense") && !properties.contains_key("jobtitle"));
    assert_eq!(crm.get(&format!("{CONTACTS}?limit=101")).await.status, 400);
    assert_eq!(ids(&crm.ok(CONTACTS).await).len(), 10);
}

#[tokio::test]
async fn a_search_shows_two_hundred_a_page_and_ten_thousand_in_all() {
    let crm = crm(Profile::HubSpot, 10_050).await;
    for name in ["search", "ten_secondly"] {
        crm.limit(name, "1000/1s");
    }
    let all = |after: u32, limit: u32| json!({"filterGroups": [], "after": after.to_string(), "limit": limit});
    let page = search(&crm, all(9_800, 200)).await.json();
    assert_eq!((page["total"].as_u64(), ids(&page).len()), (Some(10_050), 200));
    assert_eq!(page["paging"]["next"]["after"], "10000");
    let beyond = search(&crm, all(10_000, 1)).await;
    assert_eq!(
        (beyond.status, beyond.json()["category"].as_str()),
        (400, Some("VALIDATION_ERROR"))
    );
    assert_eq!(search(&crm, all(0, 201)).await.status, 400);
    let long = json!({"filterGroups": [], "properties": ["x".repeat(3_000)]});
    assert_eq!(search(&crm, long).await.status, 400);
    // The walk by id has no end but the last contact.
    let walked = search(&crm, since(0, i64::MAX / 2, "10030", 200)).await.json();
    assert_eq!((ids(&walked).len(), ids(&walked)[0].as_str()), (20, "10031"));
}

#[tokio::test]
async fn a_search_lags_while_objects_and_webhooks_do_not() {
    let crm = crm(Profile::HubSpot, 5).await;
    let inbox = Inbox::open().await;
    crm.subscribe(&inbox, "client-secret");
    crm.served
        .crm
        .knobs("demo", |knobs| knobs.visibility_lag_ms = 3_600_000);
    crm.control(Control::edit("demo", Change::ids([3])));
    let batch = json!({"inputs": [{"id": "3"}, {"id": "77"}], "properties": ["jobtitle"]});
    let read = crm.post(&format!("{CONTACTS}/batch/read"), &batch).await;
    assert_eq!(
        (read.status, read.json()["errors"][0]["context"]["ids"].clone()),
        (207, json!(["77"]))
    );
    let title = read.json()["results"][0]["properties"]["jobtitle"].clone();
    assert!(title.as_str().expect("text").ends_with("(rev 1)"), "{title}");
    let found = search(&crm, json!({"filterGroups": [], "properties": ["jobtitle"]}))
        .await
        .json();
    assert!(
        !found["results"][2]["properties"]["jobtitle"]
            .as_str()
            .expect("text")
            .contains("rev")
    );
    assert_eq!(inbox.wait(1).await[0].json()[0]["objectId"], 3);
}

#[tokio::test]
async fn what_is_gone_is_in_the_archive_and_not_in_searches() {
    let crm = crm(Profile::HubSpot, 6).await;
    crm.control(Control::delete("demo", Change::ids([2])));
    crm.control(Control::archive("demo", Change::ids([5])));
    let gone = crm.ok(&format!("{CONTACTS}?archived=true&limit=1")).await;
    let rest = crm.ok(&format!("{CONTACTS}?archived=true&limit=1&after=2")).await;
    assert_eq!((ids(&gone), ids(&rest)), (vec!["2".to_owned()], vec!["5".to_owned()]));
    assert_eq!(gone["results"][0]["archived"], true);
    let found = search(&crm, json!({"filterGroups": []})).await.json();
    assert_eq!(ids(&found), ["1", "3", "4", "6"]);
}

#[tokio::test]
async fn three_limits_count_apart() {
    let crm = crm(Profile::HubSpot, 5).await;
    crm.limit("ten_secondly", "2/1h");
    crm.limit("search", "1/1h");
    let first = crm.get(CONTACTS).await;
    assert_eq!(first.header("x-hubspot-ratelimit-max"), "2");
    assert_eq!(first.header("x-hubspot-ratelimit-daily-remaining"), "249999");
    let found = search(&crm, json!({"filterGroups": []})).await;
    assert_eq!(found.status, 200);
    assert!(!found.headers.keys().any(|name| name.as_str().contains("ratelimit")));
    let over = search(&crm, json!({"filterGroups": []})).await;
    assert_eq!(
        (over.status, over.json()["policyName"].as_str()),
        (429, Some("SECONDLY"))
    );
    assert!(!over.headers.contains_key("retry-after"));
    crm.get(CONTACTS).await;
    let over = crm.get(CONTACTS).await;
    assert_eq!(over.json()["policyName"], "TEN_SECONDLY_ROLLING");
    crm.limit("daily", "1/1h");
    crm.limit("ten_secondly", "100/1h");
    crm.get(CONTACTS).await;
    assert_eq!(crm.get(CONTACTS).await.json()["policyName"], "DAILY");
    let limits = crm.served.crm.stats("demo").limits;
    let over = |name: &str| limits[name].over_limit;
    assert_eq!((over("ten_secondly"), over("search"), over("daily")), (1, 1, 1));
    assert_eq!((limits["search"].calls, limits["daily"].calls), (2, 7));
}

#[tokio::test]
async fn events_come_in_batches_signed_by_version_three() {
    let crm = crm(Profile::HubSpot, 150).await;
    let inbox = Inbox::open().await;
    inbox.answer(500, "");
    crm.subscribe(&inbox, "client-secret");
    crm.control(Control::touch("demo", Change::random(120)));
    let got = inbox.wait(3).await;
    let portal = crm.ok("/account-info/v3/details").await["portalId"].clone();
    let mut attempts = Vec::new();
    for delivered in &got {
        let text = [
            b"POST",
            inbox.url.as_bytes(),
            &delivered.body,
            delivered.header("x-hubspot-request-timestamp").as_bytes(),
        ];
        let signature = base64(hmac_sha256("client-secret", &text.concat()));
        assert_eq!(delivered.header("x-hubspot-signature-v3"), signature);
        let events = delivered.json();
        let event = &events[0];
        assert_eq!(
            (&event["portalId"], &event["subscriptionType"]),
            (&portal, &json!("contact.propertyChange"))
        );
        attempts.push((
            events.as_array().expect("an array").len(),
            event["attemptNumber"].as_u64(),
        ));
    }
    attempts.sort_unstable();
    assert_eq!(attempts, [(20, Some(0)), (100, Some(0)), (100, Some(1))]);
    crm.control(Control::merge("demo", "1", "2"));
    crm.control(Control::delete("demo", Change::ids([3])));
    wait_until("everything is told", || {
        crm.served.crm.stats("demo").webhooks.waiting == 0
    })
    .await;
    let events: Vec<Value> = inbox.wait(4).await[3..]
        .iter()
        .flat_map(|one| one.json().as_array().expect("an array").clone())
        .collect();
    let merge = events
        .iter()
        .find(|event| event["subscriptionType"] == "contact.merge")
        .expect("a merge");
    assert_eq!(
        (&merge["primaryObjectId"], &merge["mergedObjectIds"]),
        (&json!(2), &json!([1]))
    );
    assert!(
        events
            .iter()
            .any(|event| event["subscriptionType"] == "contact.deletion" && event["objectId"] == 3)
    );
}

#[tokio::test]
async fn owners_tickets_and_writes() {
    let crm = crm(Profile::HubSpot, 8).await;
    let owners = crm.ok("/crm/v3/owners?limit=2").await;
    assert_eq!(
        (
            owners["results"][0]["id"].as_str(),
            owners["paging"]["next"]["after"].as_str()
        ),
        (Some("10001"), Some("2"))
    );
    let new = json!({"properties": {"firstname": "Ana", "email": "ana@new.example", "phone": "+351211234567"}});
    let made = crm.post(CONTACTS, &new).await;
    assert_eq!((made.status, made.json()["id"].as_str()), (201, Some("9")));
    let again = crm.post(CONTACTS, &new).await;
    assert_eq!(again.status, 409, "{}", again.text);
    assert!(
        again.json()["message"]
            .as_str()
            .expect("text")
            .ends_with("Existing ID: 9")
    );
    let association = |type_id: u32| json!([{"to": {"id": "9"}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": type_id}]}]);
    let ticket = json!({"subject": "Help", "hs_pipeline_stage": "1", "hs_ticket_priority": "HIGH"});
    let path = "/crm/v3/objects/tickets";
    let wrong = crm
        .post(path, &json!({"properties": ticket, "associations": association(202)}))
        .await;
    assert_eq!(wrong.status, 400);
    let made = crm
        .post(path, &json!({"properties": ticket, "associations": association(16)}))
        .await
        .json();
    let links = crm.ok("/crm/v4/objects/contacts/9/associations/tickets").await;
    assert_eq!(
        links["results"].as_array().expect("links").last().expect("one")["toObjectId"].to_string(),
        made["id"]
    );
    let inputs = json!({"inputs": [{"id": made["id"]}], "properties": ["subject"]});
    let read = crm.post("/crm/v3/objects/tickets/batch/read", &inputs).await.json();
    assert_eq!(read["results"][0]["properties"]["subject"], "Help");
    let note = json!({"hs_timestamp": "1700000000000", "hs_note_body": "Rang", "hubspot_owner_id": "10002"});
    assert_eq!(
        crm.post(
            "/crm/v3/objects/notes",
            &json!({"properties": note, "associations": association(202)})
        )
        .await
        .status,
        201
    );
    let call = json!({
        "hs_timestamp": "1700000000000", "hs_call_direction": "INBOUND", "hs_call_duration": "61000",
        "hs_call_from_number": "+351211234567",
    });
    assert_eq!(
        crm.post(
            "/crm/v3/objects/calls",
            &json!({"properties": call, "associations": association(194)})
        )
        .await
        .status,
        201
    );
    let (notes, calls) = (crm.served.crm.notes("demo"), crm.served.crm.calls("demo"));
    assert_eq!(
        (notes[0].agent_id.as_deref(), notes[0].body.as_str()),
        (Some("u-2"), "Rang")
    );
    assert_eq!(
        (
            calls[0].duration_s,
            calls[0].direction.as_str(),
            calls[0].contact_id.as_str()
        ),
        (61, "inbound", "9")
    );
    let patch = crm
        .request(Method::PATCH, &format!("{CONTACTS}/9"))
        .json(&json!({"properties": {"company": "New"}}));
    assert_eq!(sent(patch).await.json()["properties"]["company"], "New");
    assert_eq!(crm.ok("/account-info/v3/details").await["timeZone"], "UTC");
    let wrong = sent(crm.bare(Method::GET, CONTACTS).bearer_auth(format!("{TOKEN}x"))).await;
    assert_eq!(wrong.json()["category"], "INVALID_AUTHENTICATION");
}
