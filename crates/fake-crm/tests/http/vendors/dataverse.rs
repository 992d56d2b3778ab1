use fake_crm::{Change, Control, Profile, Webhook};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, Inbox, crm, each, own, query, sent};

const CONTACTS: &str = "/api/data/v9.2/contacts";

async fn preferring(crm: &Crm, path: &str, prefer: &str) -> super::Answered {
    sent(crm.request(Method::GET, path).header("prefer", prefer.to_owned())).await
}

fn local(crm: &Crm, link: &Value) -> String {
    link.as_str()
        .expect("a link")
        .strip_prefix(&crm.served.base)
        .expect("the same host")
        .to_owned()
}

#[tokio::test]
async fn a_record_has_an_address_and_what_is_none_says_so() {
    let crm = crm(Profile::Dataverse, 3).await;
    let id = &own(Profile::Dataverse, [2])[0];
    let at = format!("{CONTACTS}({id})");
    assert_eq!(
        crm.ok(&format!("{at}?$select=contactid")).await["contactid"],
        id.as_str()
    );
    crm.control(Control::delete("demo", Change::ids([2])));
    for (path, code) in [(at.as_str(), "0x80040217"), ("/api/data/v9.2/contracts", "0x8006088a")] {
        let gone = crm.get(path).await;
        assert_eq!(
            (gone.status, gone.json()["error"]["code"].as_str()),
            (404, Some(code)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn pages_are_as_large_as_is_preferred_each_time() {
    let crm = crm(Profile::Dataverse, 30).await;
    crm.control(Control::touch("demo", Change::ids(1..=20).stamped(1_900_000_000_000)));
    let asked = query(&[
        ("$select", "fullname,modifiedon"),
        (
            "$filter",
            "modifiedon ge 2020-01-01T00:00:00Z and modifiedon lt 2040-01-01T00:00:00Z",
        ),
        ("$orderby", "modifiedon asc,contactid asc"),
    ]);
    let (mut ids, mut path) = (Vec::new(), format!("{CONTACTS}?{asked}"));
    loop {
        let page = preferring(&crm, &path, "odata.maxpagesize=7").await.json();
        ids.extend(each(&page["value"], "contactid"));
        if page["@odata.nextLink"].is_null() {
            break;
        }
        path = local(&crm, &page["@odata.nextLink"]);
    }
    ids.sort();
    assert_eq!(ids, own(Profile::Dataverse, 1..=30));
    let first = preferring(&crm, CONTACTS, "odata.maxpagesize=7").await.json();
    let rest = crm.ok(&local(&crm, &first["@odata.nextLink"])).await;
    assert_eq!(
        each(&rest["value"], "contactid").len(),
        23,
        "without the header a page is of 5,000"
    );
    assert_eq!(crm.get(&format!("{CONTACTS}?$skip=5")).await.status, 400);
    let some = own(Profile::Dataverse, [2, 4]);
    let by_id = query(&[(
        "$filter",
        &format!("contactid eq {} or contactid eq {}", some[0], some[1]),
    )]);
    assert_eq!(
        each(&crm.ok(&format!("{CONTACTS}?{by_id}")).await["value"], "contactid"),
        some
    );
}

#[tokio::test]
async fn a_delta_tells_changes_and_deletions_and_ends() {
    let crm = crm(Profile::Dataverse, 20).await;
    let mut page = preferring(
        &crm,
        &format!("{CONTACTS}?$select=fullname"),
        "odata.track-changes,odata.maxpagesize=15",
    )
    .await
    .json();
    assert!(page["@odata.deltaLink"].is_null());
    let next = local(&crm, &page["@odata.nextLink"]);
    // What happens between two pages is in the delta.
    crm.control(Control::edit("demo", Change::ids([1])));
    page = preferring(&crm, &next, "odata.track-changes,odata.maxpagesize=15")
        .await
        .json();
    let delta = local(&crm, &page["@odata.deltaLink"]);
    crm.control(Control::edit("demo", Change::ids([5])));
    crm.control(Control::delete("demo", Change::ids([6])));
    let page = crm.ok(&delta).await;
    let rows = page["value"].as_array().expect("rows");
    let told: Vec<(&Value, &Value, &Value)> = rows
        .iter()
        .map(|row| (&row["contactid"], &row["id"], &row["reason"]))
        .collect();
    let [one, five, six] = own(Profile::Dataverse, [1, 5, 6]).try_into().expect("three");
    assert_eq!(
        told,
        [
            (&json!(one), &Value::Null, &Value::Null),
            (&json!(five), &Value::Null, &Value::Null),
            (&Value::Null, &json!(six), &json!("deleted")),
        ]
    );
    let next = local(&crm, &page["@odata.deltaLink"]);
    assert_eq!(crm.ok(&next).await["value"], json!([]));
    // A transaction that stays open is in a later delta, though its version is older.
    crm.control(Control::edit("demo", Change::ids([7]).held()));
    crm.control(Control::edit("demo", Change::ids([8])));
    let page = crm.ok(&next).await;
    assert_eq!(each(&page["value"], "contactid"), own(Profile::Dataverse, [8]));
    crm.control(Control::commit("demo"));
    let page = crm.ok(&local(&crm, &page["@odata.deltaLink"])).await;
    assert!(each(&page["value"], "contactid").contains(&own(Profile::Dataverse, [7])[0]));
    let tracked = preferring(&crm, &format!("{CONTACTS}?$top=5"), "odata.track-changes").await;
    assert_eq!(tracked.status, 400, "{}", tracked.text);
    crm.served.crm.knobs("demo", |knobs| knobs.token_life_ms = 0);
    let mut expired = crm.get(&delta).await;
    while expired.status == 200 {
        expired = crm.get(&delta).await;
    }
    assert_eq!(
        (expired.status, expired.json()["error"]["code"].as_str()),
        (410, Some("0x80044352"))
    );
}

#[tokio::test]
async fn service_protection_says_how_long_to_wait() {
    let crm = crm(Profile::Dataverse, 3).await;
    crm.limit("requests", "1/1h");
    let first = crm.get("/api/data/v9.2/WhoAmI").await;
    assert_eq!(first.header("x-ms-ratelimit-burst-remaining-xrm-requests"), "0");
    let over = crm.get("/api/data/v9.2/WhoAmI").await;
    assert_eq!(
        (over.status, over.json()["error"]["code"].as_str()),
        (429, Some("0x80072322"))
    );
    assert!(over.header("retry-after").parse::<u32>().expect("seconds") > 0);
}

#[tokio::test]
async fn a_context_is_posted_with_the_key_and_tried_again_once() {
    let crm = crm(Profile::Dataverse, 5).await;
    let inbox = Inbox::open().await;
    inbox.answer(503, "");
    inbox.answer(503, "");
    inbox.answer(500, "");
    crm.subscribe(&inbox, "key of mine");
    crm.control(Control::edit("demo", Change::ids([2])));
    let got = inbox.wait(2).await;
    assert_eq!(got[0].query, "code=key+of+mine");
    let context = got[0].json();
    assert_eq!(
        (&context["MessageName"], &context["PrimaryEntityName"]),
        (&json!("Update"), &json!("contact"))
    );
    assert_eq!(context["PrimaryEntityId"], own(Profile::Dataverse, [2])[0].as_str());
    assert!(
        context["OperationCreatedOn"]
            .as_str()
            .expect("a date")
            .starts_with("/Date(")
    );
    crm.control(Control::delete("demo", Change::ids([3])));
    crate::harness::wait_until("given up", || crm.served.crm.stats("demo").webhooks.given_up == 2).await;
    let attempts = crm.served.crm.stats("demo").webhooks.attempts;
    assert_eq!((attempts["503"], attempts["500"]), (2, 1), "a 500 is not tried again");
    let webhook = Webhook {
        header: Some("x-bridge-key".to_owned()),
        ..Webhook::new(&inbox.url, "hush")
    };
    crm.control(Control::webhook("demo", Some(webhook)));
    crm.control(Control::edit("demo", Change::ids([4])));
    let got = inbox.wait(4).await;
    assert_eq!((got[3].header("x-bridge-key"), got[3].query.as_str()), ("hush", ""));
}

#[tokio::test]
async fn tokens_users_incidents_and_writes() {
    let crm = crm(Profile::Dataverse, 5).await;
    let ask = |secret: &str, scope: &str| {
        let body = query(&[
            ("grant_type", "client_credentials"),
            ("client_id", "app"),
            ("client_secret", secret),
            ("scope", scope),
        ]);
        let call = crm.bare(Method::POST, "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token");
        sent(
            call.header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
    };
    let scope = "https://org.crm.dynamics.com/.default";
    assert_eq!(ask("guessed", scope).await.json()["error"], "invalid_client");
    assert_eq!(ask(super::TOKEN, "everything").await.json()["error"], "invalid_scope");
    let minted = ask(super::TOKEN, scope).await.json();
    assert_eq!(minted["expires_in"], 3_600);
    let who = crm
        .bare(Method::GET, "/api/data/v9.2/WhoAmI")
        .bearer_auth(minted["access_token"].as_str().expect("a token"));
    assert_eq!(sent(who).await.json()["UserId"], Profile::Dataverse.user_id("u-1"));
    let users = crm
        .ok(&format!(
            "/api/data/v9.2/systemusers?{}",
            query(&[("$filter", "isdisabled eq false")])
        ))
        .await;
    assert_eq!(users["value"].as_array().expect("users").len(), 3);
    let new = crm
        .request(Method::POST, CONTACTS)
        .header("prefer", "return=representation");
    let made = sent(new.json(&json!({"firstname": "Ana", "lastname": "Silva"}))).await;
    let id = own(Profile::Dataverse, [6])[0].clone();
    assert_eq!((made.status, &made.json()["contactid"]), (201, &json!(id)));
    let incident =
        json!({"title": "Help", "prioritycode": 1, "customerid_contact@odata.bind": format!("/contacts({id})")});
    let made = crm.post("/api/data/v9.2/incidents", &incident).await;
    assert_eq!(made.status, 204);
    assert!(made.header("odata-entityid").contains("/incidents("));
    let filter = query(&[("$filter", &format!("_customerid_value eq {id}"))]);
    let incidents = crm.ok(&format!("/api/data/v9.2/incidents?{filter}")).await;
    assert_eq!(
        each(&incidents["value"], "title").last().map(String::as_str),
        Some("Help")
    );
    let call = json!({
        "subject": "Call", "directioncode": false, "actualdurationminutes": 3, "phonenumber": "+351211234567",
        "regardingobjectid_contact@odata.bind": format!("/contacts({id})"),
    });
    assert_eq!(crm.post("/api/data/v9.2/phonecalls", &call).await.status, 204);
    let logged = &crm.served.crm.calls("demo")[0];
    assert_eq!((logged.direction.as_str(), logged.duration_s), ("inbound", 180));
}
