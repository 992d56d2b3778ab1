use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answered, Crm, Inbox, TOKEN, crm, each, sent};

async fn rpc(crm: &Crm, service: &str, method: &str, args: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "method": "call", "id": 7, "params": {"service": service, "method": method, "args": args}});
    let answer = sent(crm.bare(Method::POST, "/jsonrpc").json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["id"], 7);
    answer.json()
}

async fn execute(crm: &Crm, model: &str, method: &str, args: Value, named: Value) -> Value {
    rpc(
        crm,
        "object",
        "execute_kw",
        json!(["demo", 2, TOKEN, model, method, args, named]),
    )
    .await
}

async fn json2(crm: &Crm, model: &str, method: &str, body: &Value) -> Answered {
    sent(
        crm.request(Method::POST, &format!("/json/2/{model}/{method}"))
            .header("x-odoo-database", "demo")
            .json(body),
    )
    .await
}

fn numbers(rows: &Value) -> Vec<u64> {
    rows.as_array()
        .expect("rows")
        .iter()
        .map(|row| row["id"].as_u64().expect("id"))
        .collect()
}

#[tokio::test]
async fn an_error_is_a_two_hundred_that_tells_too_much() {
    let crm = crm(Profile::Odoo, 3).await;
    assert_eq!(
        rpc(&crm, "common", "authenticate", json!(["demo", "ada", TOKEN, {}])).await["result"],
        2
    );
    assert_eq!(
        rpc(&crm, "common", "authenticate", json!(["demo", "ada", "guessed", {}])).await["result"],
        false
    );
    let nowhere = rpc(&crm, "common", "authenticate", json!(["nowhere", "ada", TOKEN, {}])).await;
    assert_eq!(nowhere["error"]["data"]["name"], "psycopg2.OperationalError");
    let denied = rpc(
        &crm,
        "object",
        "execute_kw",
        json!(["demo", 2, "guessed", "res.partner", "search", [[]], {}]),
    )
    .await;
    let data = &denied["error"]["data"];
    assert_eq!(data["name"], "odoo.exceptions.AccessDenied");
    assert!(data["debug"].as_str().expect("a traceback").contains("guessed"));
    let field = execute(
        &crm,
        "res.partner",
        "search_read",
        json!([[]]),
        json!({"fields": ["nosuch"]}),
    )
    .await;
    assert_eq!(
        field["error"]["data"]["message"],
        "Invalid field 'nosuch' on model 'res.partner'"
    );
    let model = execute(
        &crm,
        "crm.lead",
        "search_read",
        json!([[["partner_id", "=", 1]]]),
        json!({}),
    )
    .await;
    assert_eq!(model["error"]["data"]["message"], "Object crm.lead doesn't exist");
    assert_eq!(crm.served.crm.stats("demo").answered(200), 6);
}

#[tokio::test]
async fn stamps_hide_their_fractions_and_a_late_commit_its_age() {
    let crm = crm(Profile::Odoo, 6).await;
    crm.control(Control::touch("demo", Change::ids([2]).stamped(1_900_000_000_700)));
    crm.control(Control::touch("demo", Change::ids([3]).stamped(1_900_000_001_000)));
    let found = |since: &'static str, until: &'static str| {
        let domain = json!([[["write_date", ">=", since], ["write_date", "<", until], ["id", ">", 0]]]);
        execute(
            &crm,
            "res.partner",
            "search_read",
            domain,
            json!({"fields": ["write_date"], "order": "id asc", "limit": 5}),
        )
    };
    let rows = found("2030-03-17 17:46:40", "2030-03-17 17:46:41").await["result"].clone();
    assert_eq!(
        (numbers(&rows), rows[0]["write_date"].as_str()),
        (vec![2], Some("2030-03-17 17:46:40"))
    );
    // A filter knows the fractions that are not shown.
    let domain = json!([[["write_date", ">", "2030-03-17 17:46:40"]]]);
    let later = execute(&crm, "res.partner", "search_read", domain, json!({"fields": []})).await;
    assert_eq!(numbers(&later["result"]), [2, 3]);
    crm.control(Control::touch(
        "demo",
        Change::ids([4]).stamped(1_900_000_000_100).held(),
    ));
    assert_eq!(
        numbers(&found("2030-03-17 17:46:40", "2030-03-17 17:46:41").await["result"]),
        [2]
    );
    crm.control(Control::commit("demo"));
    assert_eq!(
        numbers(&found("2030-03-17 17:46:40", "2030-03-17 17:46:41").await["result"]),
        [2, 4]
    );
}

#[tokio::test]
async fn the_archived_hide_and_the_deleted_leave_nothing() {
    let crm = crm(Profile::Odoo, 5).await;
    crm.control(Control::archive("demo", Change::ids([2])));
    crm.control(Control::delete("demo", Change::ids([3])));
    let living = execute(
        &crm,
        "res.partner",
        "search",
        json!([[["id", ">", 0]]]),
        json!({"order": "id asc", "limit": 3}),
    )
    .await;
    assert_eq!(living["result"], json!([1, 4, 5]));
    let domain = json!([[["active", "in", [true, false]], ["id", "in", [1, 2, 3]]]]);
    let asked = execute(
        &crm,
        "res.partner",
        "search_read",
        domain,
        json!({"fields": ["active", "phone", "parent_id"]}),
    )
    .await;
    assert_eq!(
        (numbers(&asked["result"]), each(&asked["result"], "active")),
        (vec![1, 2], vec!["true".into(), "false".into()])
    );
    let empty = asked["result"]
        .as_array()
        .expect("rows")
        .iter()
        .flat_map(|row| [&row["phone"], &row["parent_id"]]);
    assert!(
        empty
            .into_iter()
            .all(|value| *value == false || value.is_string() || value.is_array()),
        "never null"
    );
}

#[tokio::test]
async fn json_two_has_statuses() {
    let crm = crm(Profile::Odoo, 5).await;
    let page = json2(&crm, "res.partner", "search_read", &json!({
        "domain": [["is_company", "=", false], ["id", ">", 2]], "fields": ["name", "email"], "order": "id asc", "limit": 2,
        "context": {"active_test": false},
    })).await;
    assert_eq!((page.status, numbers(&page.json())), (200, vec![3, 4]));
    assert_eq!(
        json2(&crm, "res.users", "context_get", &json!({})).await.json()["uid"],
        2
    );
    let gone = json2(&crm, "res.partner", "search_read", &json!({"fields": ["mobile"]})).await;
    assert_eq!(
        (gone.status, gone.json()["message"].as_str()),
        (422, Some("Invalid field 'mobile' on model 'res.partner'"))
    );
    assert_eq!(
        json2(&crm, "crm.lead", "search_read", &json!({"domain": []}))
            .await
            .status,
        404
    );
    let wrong = crm
        .bare(Method::POST, "/json/2/res.users/context_get")
        .bearer_auth("guessed")
        .json(&json!({}));
    let wrong = sent(wrong).await;
    assert_eq!(
        (wrong.status, wrong.json()["message"].as_str()),
        (401, Some("Invalid apikey"))
    );
}

#[tokio::test]
async fn a_notification_is_unsigned_and_never_comes_again() {
    let crm = crm(Profile::Odoo, 5).await;
    let inbox = Inbox::open().await;
    inbox.answer(500, "");
    crm.subscribe(&inbox, "hush");
    crm.control(Control::edit("demo", Change::ids([2])));
    crm.control(Control::delete("demo", Change::ids([3])));
    crm.control(Control::edit("demo", Change::ids([4])));
    let got = inbox.wait(2).await;
    assert_eq!(got[0].query, "key=hush");
    let ids: Vec<u64> = got.iter().map(|one| one.json()["_id"].as_u64().expect("id")).collect();
    assert_eq!(
        (ids, got[0].json()["_model"].as_str()),
        (vec![2, 4], Some("res.partner"))
    );
    crate::harness::wait_until("settled", || crm.served.crm.stats("demo").webhooks.waiting == 0).await;
    let stats = crm.served.crm.stats("demo").webhooks;
    assert_eq!((stats.given_up, stats.delivered), (1, 1));
}

#[tokio::test]
async fn users_tickets_and_writes() {
    let crm = crm(Profile::Odoo, 5).await;
    let users = execute(
        &crm,
        "res.users",
        "search_read",
        json!([[["share", "=", false], ["id", ">", 0]]]),
        json!({"fields": ["name", "login", "email"]}),
    )
    .await;
    assert_eq!(numbers(&users["result"]), [2, 3, 4]);
    let who = execute(&crm, "res.users", "read", json!([[2], ["login"]]), json!({})).await;
    assert_eq!(who["result"], json!([{"id": 2, "login": "user2"}]));
    let made = execute(
        &crm,
        "res.partner",
        "create",
        json!([{"name": "Ana Silva", "email": "ana@new.example"}]),
        json!({}),
    )
    .await;
    assert_eq!(made["result"], 6);
    let nameless = execute(
        &crm,
        "res.partner",
        "create",
        json!([{"email": "x@new.example"}]),
        json!({}),
    )
    .await;
    assert_eq!(nameless["error"]["data"]["name"], "odoo.exceptions.ValidationError");
    let ticket = json!([{"name": "Help", "partner_id": 6, "priority": "2", "user_id": 3}]);
    assert!(execute(&crm, "helpdesk.ticket", "create", ticket, json!({})).await["result"].is_u64());
    let domain = json!([[["partner_id", "=", 6]]]);
    let tickets = execute(
        &crm,
        "helpdesk.ticket",
        "search_read",
        domain,
        json!({"fields": ["name"], "order": "create_date desc", "limit": 50}),
    )
    .await;
    assert_eq!(
        (
            tickets["result"][0]["name"].as_str(),
            crm.served.crm.tickets("demo")[0].agent_id.as_deref()
        ),
        (Some("Help"), Some("u-2"))
    );
    let many = json2(&crm, "res.partner", "create", &json!({"vals_list": [{"name": "B C"}]})).await;
    assert_eq!(many.json(), json!([7]));
    execute(
        &crm,
        "res.partner",
        "message_post",
        json!([[6]]),
        json!({"body": "Rang"}),
    )
    .await;
    assert_eq!(crm.served.crm.notes("demo")[0].body, "Rang");
}
