use fake_crm::{Change, Control, Profile, Webhook};
use serde_json::json;

use super::{Inbox, crm, each, own};

const CONTACTS: &str = "/api/v2/contacts";

/// The address in a `Link` header, without its host.
fn next(link: &str, base: &str) -> String {
    let (address, rel) = link.split_once(">; ").expect("a link");
    assert_eq!(rel, "rel=\"next\"");
    address
        .trim_start_matches('<')
        .strip_prefix(base)
        .expect("the same host")
        .to_owned()
}

#[tokio::test]
async fn the_next_page_is_in_a_header_and_nothing_is_sorted_by_change() {
    let crm = crm(Profile::Freshdesk, 25).await;
    crm.control(Control::touch("demo", Change::ids([3]).stamped(1_900_000_000_000)));
    let (mut ids, mut path) = (
        Vec::new(),
        format!("{CONTACTS}?per_page=10&_updated_since=2020-01-01T00:00:00Z"),
    );
    loop {
        let answer = crm.get(&path).await;
        ids.extend(each(&answer.json(), "id"));
        match answer.headers.get("link") {
            None => break,
            Some(link) => path = next(link.to_str().expect("text"), &crm.served.base),
        }
    }
    assert_eq!(ids, own(Profile::Freshdesk, (1..=25).rev()));
    let since = crm.ok(&format!("{CONTACTS}?_updated_since=2030-03-17T17:46:40Z")).await;
    assert_eq!(each(&since, "id"), own(Profile::Freshdesk, [3]));
    assert_eq!(crm.get(&format!("{CONTACTS}?per_page=101")).await.status, 400);
    assert_eq!(
        crm.get(&format!("{CONTACTS}?_updated_since=yesterday")).await.status,
        400
    );
}

#[tokio::test]
async fn the_deleted_are_a_state() {
    let crm = crm(Profile::Freshdesk, 5).await;
    crm.control(Control::delete("demo", Change::ids([2])));
    crm.control(Control::archive("demo", Change::ids([4])));
    let gone = crm.ok(&format!("{CONTACTS}?state=deleted")).await;
    assert_eq!(each(&gone, "id"), own(Profile::Freshdesk, [4, 2]));
    assert_eq!(gone[0]["deleted"], true);
    assert_eq!(each(&crm.ok(CONTACTS).await, "id"), own(Profile::Freshdesk, [5, 3, 1]));
    let one = crm.ok(&format!("{CONTACTS}/{}", own(Profile::Freshdesk, [2])[0])).await;
    assert_eq!(one["deleted"], true);
    let nobody = crm
        .get(&format!("{CONTACTS}/{}", own(Profile::Freshdesk, [77])[0]))
        .await;
    assert_eq!((nobody.status, nobody.text.as_str()), (404, ""));
}

#[tokio::test]
async fn an_answer_tells_what_it_cost() {
    let crm = crm(Profile::Freshdesk, 5).await;
    crm.limit("minute", "4/1h");
    let first = crm.get(CONTACTS).await;
    assert_eq!(
        (
            first.header("x-ratelimit-total"),
            first.header("x-ratelimit-used-currentrequest")
        ),
        ("4", "1")
    );
    let tickets = crm
        .get(&format!(
            "/api/v2/tickets?requester_id={}",
            own(Profile::Freshdesk, [1])[0]
        ))
        .await;
    assert_eq!(
        (
            tickets.header("x-ratelimit-used-currentrequest"),
            tickets.header("x-ratelimit-remaining")
        ),
        ("2", "1")
    );
    crm.get(CONTACTS).await;
    let over = crm.get(CONTACTS).await;
    assert_eq!(over.status, 429);
    assert!(over.header("retry-after").parse::<u32>().expect("seconds") > 0);
    let minute = &crm.served.crm.stats("demo").limits["minute"];
    assert_eq!((minute.cost, minute.over_limit), (5, 1));
}

#[tokio::test]
async fn a_rule_sends_the_secret_in_the_header_that_somebody_chose() {
    let crm = crm(Profile::Freshdesk, 5).await;
    let inbox = Inbox::open().await;
    let webhook = Webhook {
        header: Some("x-bridge-key".to_owned()),
        ..Webhook::new(&inbox.url, "hush")
    };
    crm.control(Control::webhook("demo", Some(webhook)));
    crm.control(Control::edit("demo", Change::ids([2])));
    let got = inbox.wait(1).await;
    assert_eq!(got[0].header("x-bridge-key"), "hush");
    assert_eq!(
        got[0].json()["freshdesk_webhook"]["contact_id"].to_string(),
        own(Profile::Freshdesk, [2])[0]
    );
}

#[tokio::test]
async fn agents_companies_tickets_and_writes() {
    let crm = crm(Profile::Freshdesk, 5).await;
    assert_eq!(
        each(&crm.ok("/api/v2/agents?per_page=2").await, "id"),
        ["42001", "42002"]
    );
    assert_eq!(crm.ok("/api/v2/agents/me").await["id"], 42_001);
    let made = crm
        .post(
            CONTACTS,
            &json!({"name": "Ana Silva", "email": "ana@new.example", "phone": "+351211234567"}),
        )
        .await;
    assert_eq!(
        (made.status, made.json()["id"].to_string()),
        (201, own(Profile::Freshdesk, [6])[0].clone())
    );
    let again = crm
        .post(CONTACTS, &json!({"name": "Ana", "email": "ana@new.example"}))
        .await;
    assert_eq!(
        (again.status, again.json()["errors"][0]["code"].as_str()),
        (409, Some("duplicate_value"))
    );
    assert_eq!(
        crm.post(CONTACTS, &json!({"name": "Nobody"})).await.json()["errors"][0]["code"],
        "missing_field"
    );
    let id = made.json()["id"].clone();
    let ticket = json!({"subject": "Help", "description": "It broke", "requester_id": id, "status": 2, "priority": 3, "responder_id": 42_002});
    assert_eq!(crm.post("/api/v2/tickets", &ticket).await.status, 201);
    let tickets = crm
        .ok(&format!("/api/v2/tickets?requester_id={id}&include=description"))
        .await;
    let last = tickets.as_array().expect("tickets").last().expect("one");
    assert_eq!(
        (last["priority"].as_u64(), last["description_text"].as_str()),
        (Some(3), Some("It broke"))
    );
    let company = crm
        .ok(CONTACTS)
        .await
        .as_array()
        .expect("contacts")
        .iter()
        .find_map(|one| one["company_id"].as_u64())
        .expect("one");
    assert!(crm.ok(&format!("/api/v2/companies/{company}")).await["name"].is_string());
}
