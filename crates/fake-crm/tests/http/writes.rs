//! What callers make: contacts, tickets, calls; refused, ambiguous and counted.

use fake_crm::{Control, Op};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Served, answer, served};

impl Served {
    fn write(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let url = format!("{}/api/demo/{path}", self.base);
        self.client.post(url).bearer_auth("demo-token").json(body)
    }

    async fn made(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.write(path, &body)).await
    }
}

#[tokio::test]
async fn what_is_made_is_there_and_counted() {
    let crm = served(5).await;
    let new = json!({"first_name": "Eva", "emails": ["eva@x.test"], "phones": ["+351912345678"]});
    let (status, contact) = crm.made("contacts", new).await;
    assert_eq!((status, contact["id"].as_str()), (StatusCode::CREATED, Some("6")));
    assert_eq!(crm.batch(&["6"]).await[0].emails, ["eva@x.test"]);

    let before = crm.ok("contacts/6/tickets").await["results"]
        .as_array()
        .expect("tickets")
        .len();
    let (status, ticket) = crm
        .made("contacts/6/tickets", json!({"subject": "Help", "agent_id": "u-2"}))
        .await;
    assert_eq!(
        (status, ticket["priority"].as_str()),
        (StatusCode::CREATED, Some("normal"))
    );
    let listed = crm.ok("contacts/6/tickets").await["results"]
        .as_array()
        .expect("tickets")
        .clone();
    assert_eq!(listed.len(), before + 1);
    assert_eq!(listed[before]["subject"], "Help");

    let call = json!({"direction": "inbound", "started_at": 1_760_000_000_000u64, "duration_s": 61});
    assert_eq!(crm.made("contacts/6/calls", call).await.0, StatusCode::CREATED);
    let stats = crm.crm.stats("demo");
    assert_eq!(
        ["contacts", "tickets", "calls"].map(|kind| stats.made_of(kind)),
        [1, 1, 1]
    );
    assert_eq!(crm.crm.tickets("demo")[0].agent_id.as_deref(), Some("u-2"));
    assert_eq!(crm.crm.calls("demo")[0].duration_s, 61);
    let truth: Value = reqwest::get(format!("{}/_truth", crm.base))
        .await
        .expect("answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(truth["tickets"][0]["contact_id"], "6");
    assert_eq!(truth["calls"][0]["direction"], "inbound");
}

#[tokio::test]
async fn tickets_move_along_with_a_merge() {
    let crm = served(5).await;
    let ticket = json!({"subject": "Mine"});
    assert_eq!(crm.made("contacts/1/tickets", ticket).await.0, StatusCode::CREATED);
    crm.crm.control(Control::merge("demo", "1", "2")).done();
    let moved = crm.ok("contacts/2/tickets").await;
    assert!(
        moved["results"]
            .as_array()
            .expect("tickets")
            .iter()
            .any(|ticket| ticket["subject"] == "Mine")
    );
    assert_eq!(crm.call("contacts/1/tickets").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_makes_nothing() {
    let crm = served(5).await;
    for (path, body, status) in [
        ("contacts", json!({}), 422),
        ("contacts", json!({"first_name": "Eva", "emails": ["eva"]}), 422),
        ("contacts", json!({"nick": "E"}), 400),
        ("contacts/1/tickets", json!({"subject": " "}), 422),
        ("contacts/1/tickets", json!({"subject": "s", "priority": "soon"}), 422),
        ("contacts/1/tickets", json!({"subject": "s", "agent_id": "u-99"}), 422),
        ("contacts/99/tickets", json!({"subject": "s"}), 404),
        (
            "contacts/1/calls",
            json!({"direction": "up", "started_at": 1, "duration_s": 1}),
            422,
        ),
        ("contacts/1/calls", json!({"direction": "inbound"}), 400),
    ] {
        let (got, answer) = crm.made(path, body).await;
        assert_eq!(got.as_u16(), status, "{path}: {answer}");
    }
    crm.crm.knobs("demo", |knobs| knobs.refuse_writes = 1);
    assert_eq!(
        crm.made("contacts/1/tickets", json!({"subject": "s"})).await.0.as_u16(),
        422
    );
    assert!(crm.crm.stats("demo").made.values().all(|count| *count == 0));
}

#[tokio::test]
async fn a_cut_answer_was_worked_out_and_never_leaves() {
    let crm = served(5).await;
    crm.crm.knobs("demo", |knobs| {
        knobs.cut = 1;
        knobs.fault_ops = vec![Op::CreateTicket];
    });
    crm.ok("contacts/1/tickets").await;
    let cut = crm.write("contacts/1/tickets", &json!({"subject": "s"})).send().await;
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(crm.crm.stats("demo").made_of("tickets"), 1);
    assert_eq!(
        crm.made("contacts/1/tickets", json!({"subject": "s"})).await.0,
        StatusCode::CREATED
    );
}
