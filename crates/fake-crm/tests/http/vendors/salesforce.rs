use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answered, Crm, Inbox, crm, each, own, query, sent};

const DATA: &str = "/services/data/v61.0";

async fn soql(crm: &Crm, text: &str) -> Answered {
    crm.get(&format!("{DATA}/query?{}", query(&[("q", text)]))).await
}

#[tokio::test]
async fn the_instance_is_learned_from_the_token() {
    let crm = crm(Profile::Salesforce, 3).await;
    let ask = |secret: &str| {
        let body = format!("grant_type=client_credentials&client_id=3MVG&client_secret={secret}");
        let call = crm.bare(Method::POST, "/services/oauth2/token");
        sent(
            call.header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
    };
    let refused = ask("guessed").await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (400, Some("invalid_client"))
    );
    let minted = ask(super::TOKEN).await.json();
    assert!(minted.get("expires_in").is_none(), "a session's life is told nowhere");
    let url = format!(
        "{}/services/oauth2/userinfo",
        minted["instance_url"].as_str().expect("an address")
    );
    let token = minted["access_token"].as_str().expect("a token");
    let who = sent(crm.served.client.get(url).bearer_auth(token)).await.json();
    let organization = who["organization_id"].as_str().expect("an id");
    assert!(
        organization.starts_with("00D") && organization.len() == 18,
        "{organization}"
    );
    let other = "http://localhost:1".to_owned();
    crm.served
        .crm
        .knobs("demo", |knobs| knobs.instance_url = Some(other.clone()));
    assert_eq!(ask(super::TOKEN).await.json()["instance_url"], other);
    let who = crm.ok("/services/oauth2/userinfo").await;
    assert_eq!(who["urls"]["custom_domain"], other);
    crm.served.crm.knobs("demo", |knobs| knobs.access_life_ms = 0);
    let short = ask(super::TOKEN).await.json();
    let ended = crm
        .bare(Method::GET, &format!("{DATA}/limits"))
        .bearer_auth(short["access_token"].as_str().expect("a token"));
    let ended = sent(ended).await;
    assert_eq!(
        (ended.status, ended.json()[0]["errorCode"].as_str()),
        (401, Some("INVALID_SESSION_ID"))
    );
}

#[tokio::test]
async fn queries_page_by_locator_and_quote_as_they_must() {
    let crm = crm(Profile::Salesforce, 450).await;
    let text = "SELECT Id, Name, Account.Name, MailingAddress, SystemModstamp FROM Contact ORDER BY Id";
    let first = crm.request(Method::GET, &format!("{DATA}/query?{}", query(&[("q", text)])));
    let mut page = sent(first.header("sforce-query-options", "batchSize=200")).await.json();
    let mut ids = each(&page["records"], "Id");
    while let Some(next) = page["nextRecordsUrl"].as_str() {
        page = crm.ok(next).await;
        ids.extend(each(&page["records"], "Id"));
    }
    assert_eq!(
        (ids, page["totalSize"].as_u64()),
        (own(Profile::Salesforce, 1..=450), Some(450))
    );
    let account = &page["records"][0]["Account"];
    assert!(account.is_null() || account["Name"].is_string());
    crm.control(Control::touch("demo", Change::ids([7, 9]).stamped(1_900_000_000_000)));
    let since = "SELECT Id FROM Contact WHERE SystemModstamp >= 2030-03-17T17:46:40.000+0000 AND Id > '0035e0000000007' ORDER BY Id LIMIT 5";
    assert_eq!(
        each(&soql(&crm, since).await.json()["records"], "Id"),
        own(Profile::Salesforce, [9])
    );
    for (text, code) in [
        (
            "SELECT Id FROM Contact WHERE SystemModstamp >= '2030-03-17T17:46:40Z'",
            "INVALID_FIELD",
        ),
        ("SELECT Id FROM Contact WHERE Id = 'O'Hara'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE SystemModstamp >= soon", "MALFORMED_QUERY"),
        ("SELECT Nonsense FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Galaxy", "INVALID_TYPE"),
        (
            "SELECT Id FROM Contact LIMIT 1 OFFSET 2001",
            "NUMBER_OUTSIDE_VALID_RANGE",
        ),
    ] {
        let wrong = soql(&crm, text).await;
        assert_eq!(
            (wrong.status, wrong.json()[0]["errorCode"].as_str()),
            (400, Some(code)),
            "{text}"
        );
    }
    // A plus that was not encoded is a space.
    let raw = format!(
        "{DATA}/query?q=SELECT%20Id%20FROM%20Contact%20WHERE%20SystemModstamp%20%3E%202030-03-17T17:46:40.000+0000"
    );
    assert_eq!(crm.get(&raw).await.json()[0]["errorCode"], "MALFORMED_QUERY");
    let lost = crm.get(&format!("{DATA}/query/01gAL0000000099-200")).await;
    assert_eq!(lost.json()[0]["errorCode"], "INVALID_QUERY_LOCATOR");
}

#[tokio::test]
async fn the_deleted_have_a_list_and_a_flag() {
    let crm = crm(Profile::Salesforce, 5).await;
    crm.control(Control::delete("demo", Change::ids([2])));
    let (start, end) = (
        jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1),
        jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1),
    );
    let window = |start: jiff::Timestamp| query(&[("start", &format!("{start:.0}")), ("end", &format!("{end:.0}"))]);
    let gone = crm
        .ok(&format!("{DATA}/sobjects/Contact/deleted/?{}", window(start)))
        .await;
    assert_eq!(each(&gone["deletedRecords"], "id"), own(Profile::Salesforce, [2]));
    assert!(
        gone["latestDateCovered"]
            .as_str()
            .expect("a date")
            .ends_with(".000+0000")
    );
    let early = crm
        .get(&format!(
            "{DATA}/sobjects/Contact/deleted/?{}",
            window(start - jiff::SignedDuration::from_hours(24 * 16))
        ))
        .await;
    assert_eq!(early.json()[0]["errorCode"], "INVALID_REPLICATION_DATE");
    let all = crm
        .ok(&format!(
            "{DATA}/queryAll?{}",
            query(&[("q", "SELECT Id, IsDeleted FROM Contact WHERE IsDeleted = true")])
        ))
        .await;
    assert_eq!(each(&all["records"], "Id"), own(Profile::Salesforce, [2]));
    let ids = own(Profile::Salesforce, [1, 2, 3]).join(",");
    let some = crm
        .ok(&format!("{DATA}/composite/sobjects/Contact?ids={ids}&fields=Id,Name"))
        .await;
    assert_eq!(
        (&some[1], some[2]["Id"].as_str()),
        (&Value::Null, Some(own(Profile::Salesforce, [3])[0].as_str()))
    );
}

#[tokio::test]
async fn the_limit_is_a_pair_among_others_and_a_refusal_an_array() {
    let crm = crm(Profile::Salesforce, 3).await;
    crm.limit("daily", "2/1h");
    let first = crm.get(&format!("{DATA}/limits")).await;
    assert_eq!(first.header("sforce-limit-info"), "api-usage=1/2; api-bursts=1/750");
    crm.get(&format!("{DATA}/limits")).await;
    let over = crm.get(&format!("{DATA}/limits")).await;
    assert_eq!(
        (over.status, over.json()[0]["errorCode"].as_str()),
        (403, Some("REQUEST_LIMIT_EXCEEDED"))
    );
    assert_eq!(crm.served.crm.stats("demo").limits["daily"].over_limit, 1);
}

#[tokio::test]
async fn a_message_comes_again_until_it_is_acknowledged() {
    let crm = crm(Profile::Salesforce, 5).await;
    let inbox = Inbox::open().await;
    inbox.answer(200, "thanks");
    inbox.answer(
        200,
        "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body><notificationsResponse \
         xmlns=\"http://soap.sforce.com/2005/09/outbound\"><Ack>true</Ack></notificationsResponse></soapenv:Body></soapenv:Envelope>",
    );
    crm.subscribe(&inbox, "");
    crm.control(Control::edit("demo", Change::ids([2, 4])));
    let got = inbox.wait(2).await;
    assert_eq!(got[0].body, got[1].body);
    assert_eq!(got[0].header("content-type"), "text/xml; charset=utf-8");
    let text = String::from_utf8(got[0].body.to_vec()).expect("text");
    for id in own(Profile::Salesforce, [2, 4]) {
        assert!(text.contains(&format!("<sf:Id>{id}</sf:Id>")), "{text}");
    }
    assert!(text.contains("<OrganizationId>00D5e"), "{text}");
    crate::harness::wait_until("acknowledged", || crm.served.crm.stats("demo").webhooks.delivered == 2).await;
    assert_eq!(crm.served.crm.stats("demo").webhooks.attempts["not acknowledged"], 1);
    crm.control(Control::delete("demo", Change::ids([2])));
    assert_eq!(
        crm.served.crm.stats("demo").webhooks.events,
        2,
        "nothing is told of the deleted"
    );
}

#[tokio::test]
async fn users_cases_and_writes() {
    let crm = crm(Profile::Salesforce, 5).await;
    let users = soql(&crm, "SELECT Id, Name, Email FROM User WHERE IsActive = true")
        .await
        .json();
    assert_eq!(each(&users["records"], "Id")[0], Profile::Salesforce.user_id("u-1"));
    let made = crm
        .post(
            &format!("{DATA}/sobjects/Contact"),
            &json!({"LastName": "Silva", "Email": "a@new.example"}),
        )
        .await;
    let id = own(Profile::Salesforce, [6])[0].clone();
    assert_eq!((made.status, &made.json()["id"]), (201, &json!(id)));
    let wrong = crm
        .post(&format!("{DATA}/sobjects/Contact"), &json!({"FirstName": "Ana"}))
        .await;
    assert_eq!(wrong.json()[0]["errorCode"], "REQUIRED_FIELD_MISSING");
    let case =
        json!({"Subject": "Help", "ContactId": id, "Priority": "High", "OwnerId": Profile::Salesforce.user_id("u-2")});
    assert_eq!(crm.post(&format!("{DATA}/sobjects/Case"), &case).await.status, 201);
    let cases = soql(
        &crm,
        &format!("SELECT Id, Subject FROM Case WHERE ContactId = '{id}' ORDER BY CreatedDate DESC LIMIT 20"),
    )
    .await
    .json();
    assert_eq!(cases["records"][0]["Subject"], "Help");
    let task = json!({"WhoId": id, "Subject": "Call", "TaskSubtype": "Call", "CallType": "Inbound", "CallDurationInSeconds": 30, "Status": "Completed"});
    assert_eq!(crm.post(&format!("{DATA}/sobjects/Task"), &task).await.status, 201);
    assert_eq!(
        (
            crm.served.crm.calls("demo")[0].duration_s,
            crm.served.crm.tickets("demo")[0].agent_id.as_deref()
        ),
        (30, Some("u-2"))
    );
    let patch = crm
        .request(Method::PATCH, &format!("{DATA}/sobjects/Contact/{id}"))
        .json(&json!({"Title": "Chief"}));
    assert_eq!(sent(patch).await.status, 204);
}
