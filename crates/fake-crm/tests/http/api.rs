//! Each operation, and what the operator's side says about it.

use std::time::{Duration, Instant};

use fake_crm::{AccountOptions, Change, Control, FakeCrm, Fields, Options};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{answer, ids, no_later_than, options, serve, served};

#[tokio::test]
async fn the_check_needs_a_valid_token() {
    let crm = served(5).await;
    let me = crm.ok("me").await;
    assert_eq!(
        (me["account"]["id"].as_str(), me["visibility"].as_str()),
        (Some("demo"), Some("all"))
    );
    assert_eq!(me["user"]["id"], "u-1");
    let url = format!("{}/api/demo/me", crm.base);
    for request in [crm.client.get(&url), crm.client.get(&url).bearer_auth("other")] {
        let (status, body) = answer(request).await;
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("unauthorized"))
        );
    }
    let (status, _) = answer(
        crm.client
            .get(format!("{}/api/nobody/me", crm.base))
            .bearer_auth("demo-token"),
    )
    .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tokens_are_revoked_and_several_are_valid() {
    let crm = served(5).await;
    let status = async |token: &str| {
        let request = crm.client.get(format!("{}/api/demo/me", crm.base)).bearer_auth(token);
        answer(request).await.0
    };
    crm.crm.control(Control::tokens("demo", &["new", "newer"])).done();
    assert_eq!(status("demo-token").await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        (status("new").await, status("newer").await),
        (StatusCode::OK, StatusCode::OK)
    );
}

#[tokio::test]
async fn the_listing_ends_and_is_the_truth() {
    let crm = served(250).await;
    crm.crm.control(Control::archive("demo", Change::ids([7]))).done();
    crm.crm.control(Control::delete("demo", Change::ids([8]))).done();
    let truth = serde_json::to_value(crm.crm.truth("demo")).expect("json");
    for limit in [1, 100, 248, 500] {
        let listed = crm.all(&format!("contacts?limit={limit}")).await;
        assert_eq!(Value::Array(listed), truth, "pages of {limit}");
    }
    let with_archived = crm.all("contacts?limit=100&archived=true").await;
    assert_eq!(with_archived.len(), 249);
    assert_eq!(
        (&with_archived[6]["id"], &with_archived[6]["archived"]),
        (&json!("7"), &json!(true))
    );
    let body = answer(crm.client.get(format!("{}/_truth?account=demo", crm.base)))
        .await
        .1;
    assert_eq!(body["contacts"], truth);
}

#[tokio::test]
async fn changes_come_by_id_or_by_offset() {
    let crm = served(30).await;
    crm.crm
        .control(Control::touch(
            "demo",
            Change::ids([20, 3, 11, 5]).stamped(1_900_000_000_000),
        ))
        .done();
    crm.crm
        .control(Control::edit("demo", Change::ids([2]).stamped(1_900_000_000_001)))
        .done();
    crm.crm
        .control(Control::archive("demo", Change::ids([9]).stamped(1_900_000_000_002)))
        .done();
    let window = "contacts/changes?since=1900000000000&until=1900000000002";
    assert_eq!(
        ids(&crm.rows(window).await),
        ["2", "3", "5", "11", "20"],
        "by number, the end is open"
    );
    assert_eq!(
        ids(&crm.rows(&format!("{window}&after_id=3&limit=2")).await),
        ["5", "11"]
    );
    assert_eq!(
        ids(&crm.rows(&format!("{window}&offset=1&limit=4")).await),
        ["5", "11", "20", "2"],
        "by time, then id"
    );
    let archived = crm
        .rows("contacts/changes?since=1900000000002&until=1900000000003")
        .await;
    assert!(archived.len() == 1 && archived[0].archived && archived[0].id == "9");
}

#[tokio::test]
async fn offset_paging_has_a_cap_and_the_keyset_has_none() {
    let crm = served(120).await;
    crm.set(json!({"cap": 100})).await;
    let window = "contacts/changes?since=0&until=1900000000000&limit=50";
    crm.ok(&format!("{window}&offset=50")).await;
    let (status, body) = crm.call(&format!("{window}&offset=51")).await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (StatusCode::BAD_REQUEST, Some("paging_cap"))
    );
    assert_eq!(crm.rows(&format!("{window}&after_id=100")).await.len(), 20);
}

#[tokio::test]
async fn a_batch_leaves_out_who_is_gone() {
    let crm = served(10).await;
    crm.crm.control(Control::delete("demo", Change::ids([4]))).done();
    crm.crm.control(Control::archive("demo", Change::ids([5]))).done();
    let rows = crm.batch(&["5", "4", "3", "99", "3"]).await;
    assert_eq!(ids(&rows), ["3", "5"]);
    assert!(rows[1].archived);
    let many: Vec<String> = (0..101).map(|id| id.to_string()).collect();
    for body in [json!({"ids": many}), json!({"ids": ["x"]}), json!({"id": []})] {
        let request = crm
            .client
            .post(format!("{}/api/demo/contacts/batch", crm.base))
            .bearer_auth("demo-token");
        assert_eq!(answer(request.json(&body)).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn deletions_and_merges_leave_tombstones() {
    let crm = served(10).await;
    crm.crm.control(Control::merge("demo", "2", "3")).done();
    crm.crm.control(Control::merge("demo", "3", "4")).done();
    crm.crm.control(Control::delete("demo", Change::ids([9]))).done();
    let all = crm.all("contacts/deleted?since=0&limit=1").await;
    let shown: Vec<_> = all
        .iter()
        .map(|gone| (gone["id"].as_str(), gone["merged_into"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [(Some("2"), Some("3")), (Some("3"), Some("4")), (Some("9"), None)]
    );
    assert_eq!(
        crm.batch(&["4"]).await[0].merged_ids,
        ["3", "2"],
        "with those merged earlier"
    );
    assert_eq!(
        crm.ok("contacts/deleted?since=9000000000000").await["results"],
        json!([])
    );
    crm.set(json!({"no_tombstones": true})).await;
    assert_eq!(crm.ok("contacts/deleted").await, json!({"results": [], "paging": null}));
}

#[tokio::test]
async fn ids_are_a_cheap_list_of_who_is_live() {
    let crm = served(12).await;
    crm.crm.control(Control::delete("demo", Change::ids([2]))).done();
    crm.crm.control(Control::archive("demo", Change::ids([3]))).done();
    assert_eq!(crm.ok("contacts/ids?limit=3").await["ids"], json!(["1", "4", "5"]));
    assert_eq!(
        crm.ok("contacts/ids?after_id=9").await["ids"],
        json!(["10", "11", "12"])
    );
    crm.crm.control(Control::unarchive("demo", Change::ids([3]))).done();
    assert_eq!(crm.ok("contacts/ids?limit=2").await["ids"], json!(["1", "3"]));
}

#[tokio::test]
async fn users_have_pages_and_change() {
    let crm = served(1).await;
    crm.control(json!({"users": {"add": 1, "deactivate": ["u-2"], "edit": ["u-3"]}}))
        .await;
    let users = crm.all("users?limit=5").await;
    assert_eq!(users.len(), 13);
    assert_eq!(
        (&users[12]["id"], &users[1]["active"], &users[0]["active"]),
        (&json!("u-13"), &json!(false), &json!(true))
    );
    assert!(users[2]["last_name"].as_str().expect("text").ends_with("(rev 1)"));
    crm.control(json!({"users": {"delete": ["u-1", "u-13"], "set": {"u-4": {"email": ""}, "u-5": {"email": "X@y.example", "first_name": ""}}}}))
        .await;
    let users = crm.all("users?limit=4").await;
    let ids: Vec<&str> = users.iter().filter_map(|user| user["id"].as_str()).collect();
    assert_eq!((ids[0], ids.len()), ("u-2", 11), "deleted ones are gone: {ids:?}");
    let by_id = |id| users.iter().find(|user| user["id"] == id).expect("a user");
    assert!(by_id("u-4")["email"].is_null());
    assert_eq!(
        (&by_id("u-5")["email"], &by_id("u-5")["first_name"]),
        (&json!("X@y.example"), &json!(""))
    );
    assert_eq!(
        crm.control(json!({"users": {"delete": ["u-1"]}})).await.0,
        StatusCode::NOT_FOUND,
        "once"
    );
    assert_eq!(
        crm.control(json!({"users": {"edit": ["u-99"]}})).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn tickets_belong_to_a_contact() {
    let crm = served(30).await;
    let mut found = 0;
    for id in 1..=30 {
        let tickets = crm.ok(&format!("contacts/{id}/tickets")).await;
        assert_eq!(tickets, crm.ok(&format!("contacts/{id}/tickets")).await);
        for ticket in tickets["results"].as_array().expect("results") {
            found += 1;
            assert!(
                ticket["created_at"].as_str() <= ticket["updated_at"].as_str(),
                "{ticket}"
            );
        }
    }
    assert!(found > 10, "{found}");
    assert_eq!(crm.call("contacts/31/tickets").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong() {
    let crm = served(5).await;
    let token = crm.ok("contacts?limit=2").await["paging"]["next"]
        .as_str()
        .expect("token")
        .to_owned();
    for (path, says) in [
        ("contacts?limit=501".to_owned(), "1 to 500"),
        ("contacts?limit=0".to_owned(), "1 to 500"),
        ("contacts?after=zzz".to_owned(), "no token"),
        (format!("users?after={token}"), "no token of this list"),
        ("contacts?cursor=1".to_owned(), "cursor"),
        ("contacts/changes?since=1".to_owned(), "until"),
        (
            "contacts/changes?since=1&until=2&offset=0&after_id=0".to_owned(),
            "not both",
        ),
        ("contacts/ids?limit=5001".to_owned(), "1 to 5000"),
    ] {
        let (status, body) = crm.call(&path).await;
        let message = body["error"]["message"].as_str().expect("message");
        assert!(
            status == StatusCode::BAD_REQUEST && message.contains(says),
            "{path}: {status} {message}"
        );
    }
    assert_eq!(crm.call("companies").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_seed_decides_the_contacts() {
    let with = |seed| Options { seed, ..options(500) };
    let truth = |seed| FakeCrm::new(with(seed)).truth("demo");
    assert_eq!(truth(7), truth(7));
    assert_ne!(truth(7), truth(8));
    let two = Options {
        seed: 7,
        accounts: ["demo", "b"]
            .map(|name| AccountOptions {
                name: name.into(),
                contacts: 500,
                ..Default::default()
            })
            .into(),
    };
    let two = FakeCrm::new(two);
    assert_eq!(two.truth("demo"), truth(7), "other accounts do not matter");
    assert_ne!(two.truth("b"), truth(7));
    // The random choices of controls are part of it.
    let picks = |crm: FakeCrm| crm.control(Control::edit("demo", Change::random(20))).done().ids();
    assert_eq!(picks(FakeCrm::new(with(7))), picks(FakeCrm::new(with(7))));
}

#[tokio::test]
async fn edits_change_content_and_history_tells_them_all() {
    let crm = served(10).await;
    let before = crm.batch(&["3"]).await.remove(0);
    let edit = crm
        .crm
        .control(Control::edit("demo", Change::ids([3])))
        .done()
        .edits
        .remove(0);
    let fields = Fields {
        emails: Some(vec!["eva@example.com".into()]),
        ..Fields::default()
    };
    crm.crm
        .control(Control::edit("demo", Change::ids([3]).with(fields)))
        .done();
    let after = crm.batch(&["3"]).await.remove(0);
    assert_ne!(after.job_title, before.job_title);
    assert_eq!(
        (after.emails, after.version),
        (vec!["eva@example.com".to_owned()], edit.version + 1)
    );
    let created = crm.crm.control(Control::create("demo", 2)).done();
    assert_eq!(created.ids(), ["11", "12"]);
    crm.crm.control(Control::delete("demo", Change::ids([12]))).done();

    let history = crm.crm.history("demo");
    assert_eq!(history.len(), 10 + 5);
    assert_eq!(history[10], edit);
    assert!(history.windows(2).all(|pair| pair[0].version < pair[1].version));
    assert!(history.last().expect("delete").deleted && crm.crm.truth("demo").len() == 11);
    let over_http = answer(crm.client.get(format!("{}/_history", crm.base))).await.1;
    assert_eq!(over_http["edits"], serde_json::to_value(history).expect("json"));
}

#[tokio::test]
async fn bad_controls_do_nothing_and_say_why() {
    let crm = served(10).await;
    let knobs = crm.control(json!({"set": {}})).await.1;
    for (control, status, says) in [
        (json!({"account": "x", "reset": {}}), 404, "no account is called `x`"),
        (json!({"edit": {"ids": ["1", "99"]}}), 404, "no contact has the id `99`"),
        (json!({"edit": {}}), 400, "either `ids` or `count`"),
        (json!({"delete": {"count": 11}}), 400, "only 10 such contacts"),
        (
            json!({"delete": {"count": 1, "fields": {}}}),
            400,
            "only `edit` and `create`",
        ),
        (json!({"merge": {"from": "1", "into": "1"}}), 400, "into itself"),
        (
            json!({"webhook": {"url": "nowhere", "secret": "s"}}),
            400,
            "webhook url",
        ),
        (
            json!({"webhook": {"url": "http://a/", "secret": "s", "batch": 101}}),
            400,
            "1 to 100",
        ),
        (
            json!({"set": {"slow_ms": 1, "speed": 2}}),
            400,
            "no knob is called `speed`",
        ),
        (json!({"boom": {}}), 400, "unknown variant `boom`"),
        (json!("reset"), 400, "expected a map"),
    ] {
        let (got, body) = crm.control(control.clone()).await;
        let message = body["error"]["message"].as_str().expect("message");
        assert!(
            got.as_u16() == status && message.contains(says),
            "{control}: {got} {message}"
        );
    }
    assert_eq!(crm.crm.history("demo").len(), 10);
    assert_eq!(crm.control(json!({"set": {}})).await.1, knobs);
}

#[tokio::test]
async fn served_again_it_is_the_same_crm() {
    let crm = FakeCrm::new(options(5));
    let served = serve(crm.clone()).await;
    crm.control(Control::edit("demo", Change::ids([1]))).done();
    let address = served.base.strip_prefix("http://").expect("base").to_owned();
    drop(served);
    // The port is free again once the first server has gone.
    let deadline = Instant::now() + Duration::from_secs(20);
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(&address).await {
            break listener;
        }
        no_later_than(deadline, "the port is free");
        tokio::time::sleep(Duration::from_millis(3)).await;
    };
    tokio::spawn(crm.clone().serve(listener, CancellationToken::new()));
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let request = client
        .get(format!("http://{address}/api/demo/contacts"))
        .bearer_auth("demo-token");
    assert_eq!(answer(request).await.1["results"][0]["version"], 6);
}
