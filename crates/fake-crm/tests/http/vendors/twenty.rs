use fake_crm::{Change, Control, Profile, Webhook};
use reqwest::Method;
use serde_json::json;

use super::{Inbox, crm, each, hmac_sha256, own, query, sent};

const PEOPLE: &str = "/rest/people";

#[tokio::test]
async fn pages_of_sixty_by_cursor_with_conditions() {
    let crm = crm(Profile::Twenty, 130).await;
    crm.control(Control::touch("demo", Change::ids(1..=70).stamped(1_900_000_000_123)));
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let asked = query(&[
            (
                "filter",
                "updatedAt[gte]:\"2020-01-01T00:00:00.000Z\",updatedAt[lt]:\"2040-01-01T00:00:00.000Z\"",
            ),
            ("order_by", "updatedAt[AscNullsFirst],id[AscNullsFirst]"),
            ("limit", "60"),
        ]);
        let page = crm.ok(&format!("{PEOPLE}?{asked}{after}")).await;
        assert_eq!(page["totalCount"], 130);
        ids.extend(each(&page["data"]["people"], "id"));
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = format!(
            "&starting_after={}",
            page["pageInfo"]["endCursor"].as_str().expect("a cursor")
        );
    }
    ids.sort();
    assert_eq!(ids, own(Profile::Twenty, 1..=130));
    assert_eq!(crm.get(&format!("{PEOPLE}?limit=61")).await.status, 400);
    let exact = query(&[("filter", "updatedAt[eq]:\"2030-03-17T17:46:40.123Z\"")]);
    assert_eq!(
        crm.ok(&format!("{PEOPLE}?{exact}")).await["totalCount"],
        70,
        "milliseconds"
    );
    let some = own(Profile::Twenty, [3, 5]);
    let by_id = query(&[
        ("filter", &format!("id[in]:[\"{}\",\"{}\"]", some[0], some[1])),
        ("depth", "1"),
    ]);
    let found = crm.ok(&format!("{PEOPLE}?{by_id}")).await;
    assert_eq!(each(&found["data"]["people"], "id"), some);
    assert!(found["data"]["people"][0].get("company").is_some());
    assert_eq!(
        crm.get(&format!("{PEOPLE}?filter=nonsense")).await.json()["error"],
        "BadRequestException"
    );
}

#[tokio::test]
async fn the_deleted_are_there_for_who_asks() {
    let crm = crm(Profile::Twenty, 5).await;
    crm.control(Control::delete("demo", Change::ids([2])));
    crm.control(Control::archive("demo", Change::ids([4])));
    assert_eq!(
        each(&crm.ok(PEOPLE).await["data"]["people"], "id"),
        own(Profile::Twenty, [1, 3, 5])
    );
    let gone = crm
        .ok(&format!("{PEOPLE}?{}", query(&[("filter", "deletedAt[is]:NOT_NULL")])))
        .await;
    assert_eq!(each(&gone["data"]["people"], "id"), own(Profile::Twenty, [2, 4]));
    assert!(gone["data"]["people"][0]["deletedAt"].is_string());
    assert_eq!(
        crm.get(&format!("{PEOPLE}/{}", own(Profile::Twenty, [2])[0]))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_hundred_a_minute() {
    let crm = crm(Profile::Twenty, 3).await;
    crm.limit("minute", "1/1h");
    crm.ok(PEOPLE).await;
    let over = crm.get(PEOPLE).await;
    assert_eq!((over.status, over.json()["statusCode"].as_u64()), (429, Some(429)));
    assert_eq!(crm.served.crm.stats("demo").limits["minute"].over_limit, 1);
}

#[tokio::test]
async fn webhooks_are_signed_sent_once_and_sometimes_not_at_all() {
    let crm = crm(Profile::Twenty, 9).await;
    let inbox = Inbox::open().await;
    inbox.answer(500, "");
    let hook = json!({"targetUrl": inbox.url, "operations": ["person.*"], "secret": "hush"});
    let made = crm.post("/rest/metadata/webhooks", &hook).await;
    assert_eq!(made.status, 201, "{}", made.text);
    crm.control(Control::edit("demo", Change::ids([1])));
    crm.control(Control::delete("demo", Change::ids([2])));
    let got = inbox.wait(2).await;
    for one in &got {
        let signed = [one.header("x-twenty-webhook-timestamp").as_bytes(), b":", &one.body].concat();
        assert_eq!(
            one.header("x-twenty-webhook-signature"),
            hex::encode(hmac_sha256("hush", &signed))
        );
    }
    assert_eq!(got[1].json()["eventName"], "person.deleted");
    assert_eq!(got[1].json()["record"]["id"], own(Profile::Twenty, [2])[0].as_str());
    crate::harness::wait_until("settled", || crm.served.crm.stats("demo").webhooks.waiting == 0).await;
    assert_eq!(crm.served.crm.stats("demo").webhooks.given_up, 1, "no second attempt");
    let id = made.json()["id"].as_str().expect("id").to_owned();
    assert_eq!(
        sent(crm.request(Method::DELETE, &format!("/rest/metadata/webhooks/{id}")))
            .await
            .status,
        200
    );
    let webhook = Webhook {
        drop_every: 2,
        ..Webhook::new(&inbox.url, "hush")
    };
    crm.control(Control::webhook("demo", Some(webhook)));
    crm.control(Control::edit("demo", Change::ids([3, 4, 5, 6])));
    inbox.wait(4).await;
    assert_eq!(crm.served.crm.stats("demo").webhooks.dropped, 2);
}

#[tokio::test]
async fn members_and_writes() {
    let crm = crm(Profile::Twenty, 5).await;
    assert_eq!(
        each(
            &crm.ok("/rest/workspaceMembers").await["data"]["workspaceMembers"],
            "id"
        )[0],
        Profile::Twenty.user_id("u-1")
    );
    let new = json!({"name": {"firstName": "Ana", "lastName": "Silva"}, "emails": {"primaryEmail": "ana@new.example"}});
    let made = crm.post(PEOPLE, &new).await;
    let id = own(Profile::Twenty, [6])[0].clone();
    assert_eq!(
        (made.status, &made.json()["data"]["createPerson"]["id"]),
        (201, &json!(id))
    );
    assert_eq!(
        crm.post(PEOPLE, &new).await.json()["messages"],
        json!(["A duplicate entry was detected"])
    );
    let note = crm
        .post("/rest/notes", &json!({"title": "t", "bodyV2": {"markdown": "Rang"}}))
        .await
        .json();
    assert!(crm.served.crm.notes("demo").is_empty(), "it belongs to nobody yet");
    let target = json!({"noteId": note["data"]["createNote"]["id"], "personId": id});
    assert_eq!(crm.post("/rest/noteTargets", &target).await.status, 201);
    assert_eq!(crm.served.crm.notes("demo")[0].body, "Rang");
    let task = crm
        .post(
            "/rest/tasks",
            &json!({"title": "Help", "assigneeId": Profile::Twenty.user_id("u-2")}),
        )
        .await
        .json();
    let target = json!({"taskId": task["data"]["createTask"]["id"], "personId": id});
    assert_eq!(crm.post("/rest/taskTargets", &target).await.status, 201);
    let asked = query(&[("filter", &format!("personId[eq]:\"{id}\"")), ("depth", "1")]);
    let tasks = crm.ok(&format!("/rest/taskTargets?{asked}")).await;
    assert_eq!(
        tasks["data"]["taskTargets"]
            .as_array()
            .expect("tasks")
            .last()
            .expect("one")["task"]["title"],
        "Help"
    );
    assert_eq!(crm.served.crm.tickets("demo")[0].agent_id.as_deref(), Some("u-2"));
}
