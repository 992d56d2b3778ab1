//! The Odoo connector against a real Odoo, if `SNAPBRIDGE_TEST_ODOO` names one: `http://127.0.0.1:18069`, with the
//! database `crm` and the login `admin` / `admin`.

use std::time::Duration;

use contacts::{Clock, ErrorKind, Micros, SystemClock};
use crm::{Client, ClientSettings, Connector, CrmResult, Observed, Pacer, Window};
use serde_json::{Value, json};

use crate::support::{client_with, load};

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn origin() -> Option<String> {
    let origin = std::env::var("SNAPBRIDGE_TEST_ODOO").ok();
    if origin.is_none() {
        eprintln!("SKIPPED: SNAPBRIDGE_TEST_ODOO names no Odoo to test against");
    }
    origin
}

fn client_as(origin: &str, db: &str, login: &str, password: &str) -> CrmResult<Client> {
    let connector = load(Connector::shipped("odoo").unwrap());
    let fields = [("db", db), ("login", login), ("api_key", password)];
    client_with(
        connector,
        origin,
        &fields,
        ClientSettings::default(),
        Pacer::unlimited(),
    )
}

/// Calls Odoo itself, past the connector.
async fn execute(origin: &str, model: &str, method: &str, args: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "method": "call", "id": 1, "params": {
        "service": "object", "method": "execute_kw", "args": ["crm", 2, "admin", model, method, args] } });
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let reply = http
        .post(format!("{origin}/jsonrpc"))
        .json(&body)
        .send()
        .await
        .expect("Odoo answers");
    let reply: Value = reply.json().await.expect("JSON");
    assert!(reply["error"].is_null(), "{reply}");
    reply["result"].clone()
}

async fn all(client: &Client) -> Vec<Observed> {
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.full_page(cursor.as_ref()).await.expect("a page");
        rows.extend(page.rows);
        cursor = page.next;
        if cursor.is_none() {
            return rows;
        }
    }
}

#[tokio::test]
async fn contacts_are_created_changed_archived_and_deleted() {
    let Some(origin) = origin() else { return };
    let client = client_as(&origin, "crm", "admin", "admin").expect("a client");
    let checked = client.check().await.expect("good credentials");
    assert_eq!(
        (checked.org.as_str(), checked.principal.as_str(), checked.sees_all),
        ("crm", "2", false)
    );

    let before = SystemClock.now();
    let vals: Vec<Value> = (0..600)
        .map(|i| json!({ "name": format!("Live {i}"), "phone": "+351 21 123 4567", "mobile": "912 345 678",
                         "email": format!("Live{i}@x.test"), "function": "Buyer", "city": "Porto", "website": "live.test" }))
        .collect();
    let ids = execute(&origin, "res.partner", "create", json!([vals])).await;
    let ids: Vec<String> = ids.as_array().expect("ids").iter().map(ToString::to_string).collect();

    let rows = all(&client).await;
    let mine: Vec<&Observed> = rows.iter().filter(|row| ids.contains(&row.contact.id)).collect();
    assert_eq!(mine.len(), 600, "more than one page, each once");
    let first = &mine[0].contact;
    assert_eq!(first.phones, ["+351211234567", "+351912345678"]);
    assert_eq!(first.title.as_deref(), Some("Buyer"));
    assert_eq!(first.address.as_deref(), Some("Porto"));
    assert!(
        first.websites[0].starts_with("http://live.test"),
        "{:?}",
        first.websites
    );
    assert!(
        mine.iter()
            .all(|row| !row.removed && row.updated >= before.minus(Duration::from_secs(2)))
    );

    // Changed, archived and deleted rows within a window.
    let number = |i: usize| ids[i].parse::<u64>().unwrap();
    execute(
        &origin,
        "res.partner",
        "write",
        json!([[number(0)], { "name": "Changed" }]),
    )
    .await;
    execute(
        &origin,
        "res.partner",
        "write",
        json!([[number(1)], { "active": false }]),
    )
    .await;
    execute(&origin, "res.partner", "unlink", json!([[number(2)]])).await;
    let window = Window {
        since: before.minus(Duration::from_secs(1)),
        until: SystemClock.now().plus(Duration::from_secs(1)),
    };
    let (mut changed, mut cursor): (Vec<Observed>, Option<Value>) = (Vec::new(), None);
    loop {
        let page = client
            .changes_page(window, None, cursor.as_ref())
            .await
            .expect("a page");
        assert!(page.crm_clock.is_some());
        changed.extend(page.rows);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let find = |id: &str| changed.iter().find(|row| row.contact.id == id);
    assert_eq!(find(&ids[0]).unwrap().contact.name, "Changed");
    assert!(find(&ids[1]).unwrap().removed);
    assert!(find(&ids[2]).is_none());
    let empty = Window {
        since: Micros::from_secs(946_684_800),
        until: Micros::from_secs(946_684_900),
    };
    assert!(
        client
            .changes_page(empty, None, None)
            .await
            .expect("a page")
            .rows
            .is_empty()
    );

    let many = client.get_many(&ids[..4]).await.expect("four");
    assert_eq!(many.missing, [ids[2].clone()]);
    let removed: Vec<bool> = ids[..2]
        .iter()
        .map(|id| many.page.rows.iter().find(|row| row.contact.id == *id).unwrap().removed)
        .collect();
    assert_eq!(removed, [false, true]);

    let living = client.ids_page(None).await.expect("ids").ids;
    assert!(living.contains(&ids[0]) && !living.contains(&ids[1]) && !living.contains(&ids[2]));
    let agents = client.agents_page(None).await.expect("agents").agents;
    assert!(agents.iter().any(|agent| agent.id == "2"), "{agents:?}");

    let rest: Vec<u64> = (0..600).filter(|i| *i != 2).map(number).collect();
    execute(&origin, "res.partner", "unlink", json!([rest])).await;
}

#[tokio::test]
async fn wrong_credentials_are_told_apart_from_other_failures() {
    let Some(origin) = origin() else { return };
    for (db, login, password) in [
        ("crm", "admin", "nope"),
        ("crm", "nobody", "admin"),
        ("nowhere", "admin", "admin"),
    ] {
        let error = client_as(&origin, db, login, password)
            .unwrap()
            .check()
            .await
            .expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Credentials, "{db} {login}: {error}");
        let error = client_as(&origin, db, login, password)
            .unwrap()
            .full_page(None)
            .await
            .expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Credentials, "{db} {login}: {error}");
    }
    let source = Connector::shipped("odoo")
        .unwrap()
        .replace("\"company_name\",", "\"no_such_field\",");
    let fields = [("db", "crm"), ("login", "admin"), ("api_key", "admin")];
    let client = client_with(
        load(&source),
        &origin,
        &fields,
        ClientSettings::default(),
        Pacer::unlimited(),
    )
    .unwrap();
    let error = client.full_page(None).await.expect_err("a bad field");
    assert_eq!(error.kind, ErrorKind::Rejected, "{error}");
    assert!(
        error.to_string().contains("no_such_field") && error.to_string().len() < 300,
        "{error}"
    );
    assert!(!error.to_string().contains("Traceback"), "{error}");
}
