use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, Inbox, base64, crm, each, hmac_sha256, own, sent};

const EXPORT: &str = "/api/v2/incremental/users/cursor.json";

async fn export(crm: &Crm, query: &str) -> Value {
    crm.ok(&format!("{EXPORT}?{query}")).await
}

#[tokio::test]
async fn the_export_goes_on_by_cursor_tells_who_is_gone_and_holds_the_newest_back() {
    let crm = crm(Profile::Zendesk, 25).await;
    crm.limit("export", "1000/1s");
    let first = export(&crm, "start_time=0&per_page=10").await;
    let roles = each(&first["users"], "role");
    assert_eq!(
        roles.iter().filter(|role| *role == "end-user").count(),
        10,
        "agents come on top: {roles:?}"
    );
    assert_eq!(first["end_of_stream"], false);
    let mut cursor = first["after_cursor"].as_str().expect("a cursor").to_owned();
    let mut ids = each(&first["users"], "id");
    loop {
        let page = export(&crm, &format!("cursor={cursor}&per_page=10")).await;
        ids.extend(each(&page["users"], "id"));
        page["after_cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
        if page["end_of_stream"] == true {
            break;
        }
    }
    ids.retain(|id| id.len() > 5);
    ids.sort();
    assert_eq!(ids, own(Profile::Zendesk, 1..=25));
    crm.control(Control::edit("demo", Change::ids([3])));
    crm.control(Control::delete("demo", Change::ids([4])));
    let none = export(&crm, &format!("cursor={cursor}")).await;
    assert_eq!(
        (each(&none["users"], "id").len(), &none["end_of_stream"]),
        (0, &json!(true))
    );
    // The edit keeps its stamp; what is held back is scaled down. A second passes for the stamps of whole seconds.
    crm.served.crm.knobs("demo", |knobs| knobs.hold_back_ms = 0);
    crm.served.crm.knobs("demo", |knobs| knobs.clock_skew_ms = 2_000);
    let both = export(&crm, &format!("cursor={cursor}")).await;
    let mut told: Vec<(String, bool)> = each(&both["users"], "id")
        .into_iter()
        .zip(
            both["users"]
                .as_array()
                .expect("users")
                .iter()
                .map(|user| user["active"] == true),
        )
        .collect();
    told.sort();
    let expected = own(Profile::Zendesk, [3, 4]);
    assert_eq!(told, [(expected[0].clone(), true), (expected[1].clone(), false)]);
    let late = crm.get(&format!("{EXPORT}?start_time=9999999999")).await;
    assert_eq!(
        (late.status, late.json()["error"].as_str()),
        (422, Some("StartTimeTooRecent"))
    );
    assert_eq!(crm.get(&format!("{EXPORT}?cursor=nonsense")).await.status, 400);
}

#[tokio::test]
async fn more_of_one_second_than_a_page_holds() {
    let crm = crm(Profile::Zendesk, 30).await;
    crm.limit("export", "1000/1s");
    crm.control(Control::touch("demo", Change::ids(1..=30).stamped(1_750_000_000_000)));
    let mut ids = Vec::new();
    let mut query = "start_time=1750000000".to_owned();
    loop {
        let page = export(&crm, &format!("{query}&per_page=7")).await;
        ids.extend(each(&page["users"], "id"));
        query = format!("cursor={}", page["after_cursor"].as_str().expect("a cursor"));
        if page["end_of_stream"] == true {
            break;
        }
    }
    assert_eq!(ids, own(Profile::Zendesk, 1..=30));
}

#[tokio::test]
async fn exports_are_ten_a_minute_and_all_calls_two_hundred() {
    let crm = crm(Profile::Zendesk, 3).await;
    crm.limit("export", "2/1h");
    let first = crm.get(&format!("{EXPORT}?start_time=0")).await;
    assert_eq!(
        (first.header("x-rate-limit"), first.header("x-rate-limit-remaining")),
        ("200", "199")
    );
    assert!(
        first
            .header("zendesk-ratelimit-incremental-exports")
            .starts_with("total=2; remaining=1; resets=")
    );
    crm.get(&format!("{EXPORT}?start_time=0")).await;
    let over = crm.get(&format!("{EXPORT}?start_time=0")).await;
    assert_eq!(
        (over.status, over.json()["error"].as_str()),
        (429, Some("APIRateLimitExceeded"))
    );
    assert!(over.header("retry-after").parse::<u32>().expect("seconds") > 0);
    assert_eq!(crm.get("/api/v2/users/me.json").await.status, 200);
    let limits = crm.served.crm.stats("demo").limits;
    assert_eq!(
        (
            limits["export"].over_limit,
            limits["account"].over_limit,
            limits["account"].calls
        ),
        (1, 0, 4)
    );
}

#[tokio::test]
async fn who_brings_nothing_is_an_anonymous_user() {
    let crm = crm(Profile::Zendesk, 3).await;
    let nobody = sent(crm.bare(Method::GET, "/api/v2/users/me")).await;
    assert_eq!((nobody.status, &nobody.json()["user"]["id"]), (200, &Value::Null));
    let wrong = crm
        .bare(Method::GET, "/api/v2/users/me")
        .basic_auth("admin@example.com/token", Some("guessed"));
    assert_eq!(sent(wrong).await.status, 401);
    let plain = crm
        .bare(Method::GET, "/api/v2/users/me")
        .basic_auth("admin@example.com", Some(super::TOKEN));
    assert_eq!(sent(plain).await.status, 401, "a token is no password");
    assert_eq!(crm.ok("/api/v2/users/me").await["user"]["role"], "admin");
}

#[tokio::test]
async fn webhooks_are_signed_with_the_time_in_words() {
    let crm = crm(Profile::Zendesk, 9).await;
    let inbox = Inbox::open().await;
    let hook = json!({"webhook": {
        "name": "bridge", "endpoint": inbox.url, "http_method": "POST", "request_format": "json", "status": "active",
        "subscriptions": ["zen:event-type:user.created", "zen:event-type:user.notes_changed", "zen:event-type:user.deleted"],
    }});
    let made = crm.post("/api/v2/webhooks", &hook).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["webhook"]["id"].as_str().expect("id").to_owned();
    let secret = crm.ok(&format!("/api/v2/webhooks/{id}/signing_secret")).await;
    let secret = secret["signing_secret"]["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    crm.control(Control::edit("demo", Change::ids([7])));
    crm.control(Control::merge("demo", "1", "2"));
    crm.control(Control::delete("demo", Change::ids([8])));
    // The merge's own event was not asked for; the change of the other one was.
    let got = inbox.wait(3).await;
    let mut types = Vec::new();
    for delivered in &got {
        let time = delivered.header("x-zendesk-webhook-signature-timestamp");
        assert!(time.ends_with('Z') && time.len() == 20, "{time}");
        let signed = hmac_sha256(&secret, &[time.as_bytes(), &delivered.body].concat());
        assert_eq!(delivered.header("x-zendesk-webhook-signature"), base64(signed));
        types.push(delivered.json()["type"].as_str().expect("type").to_owned());
    }
    let changed = "zen:event-type:user.notes_changed";
    assert_eq!(types, [changed, changed, "zen:event-type:user.deleted"]);
    assert_eq!(got[0].json()["detail"]["id"], Profile::Zendesk.contact_id("7"));
    assert_eq!(
        sent(crm.request(Method::DELETE, &format!("/api/v2/webhooks/{id}")))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn users_tickets_and_writes() {
    let crm = crm(Profile::Zendesk, 5).await;
    let agents = crm
        .ok("/api/v2/users.json?role[]=agent&role[]=admin&page[size]=2")
        .await;
    assert_eq!(
        (each(&agents["users"], "id"), &agents["meta"]["has_more"]),
        (vec!["101".into(), "102".into()], &json!(true))
    );
    let made = crm
        .post(
            "/api/v2/users",
            &json!({"user": {"name": "Ana Silva", "email": "ana@new.example"}}),
        )
        .await;
    assert_eq!(
        (made.status, made.json()["user"]["id"].to_string()),
        (201, own(Profile::Zendesk, [6])[0].clone())
    );
    let again = crm
        .post(
            "/api/v2/users",
            &json!({"user": {"name": "Ana", "email": "ana@new.example"}}),
        )
        .await;
    assert_eq!(
        (again.status, again.json()["error"].as_str()),
        (422, Some("RecordInvalid"))
    );
    let id = made.json()["user"]["id"].clone();
    let ticket =
        json!({"ticket": {"subject": "Help", "comment": {"body": "It broke"}, "requester_id": id, "assignee_id": 102}});
    assert_eq!(crm.post("/api/v2/tickets.json", &ticket).await.status, 201);
    let tickets = crm.ok(&format!("/api/v2/users/{id}/tickets/requested.json")).await;
    assert_eq!(
        each(&tickets["tickets"], "subject").last().map(String::as_str),
        Some("Help")
    );
    let call = json!({"ticket": {"via_id": 45, "requester_id": id, "subject": "Call", "voice_comment": {
        "from": "+351211234567", "to": "+351210000000", "started_at": "2026-05-01T10:00:00Z", "call_duration": 40,
        "recording_url": "https://rec.example/1",
    }}});
    assert_eq!(crm.post("/api/v2/channels/voice/tickets.json", &call).await.status, 201);
    let logged = &crm.served.crm.calls("demo")[0];
    assert_eq!(
        (logged.direction.as_str(), logged.duration_s, logged.phone.as_deref()),
        ("inbound", 40, Some("+351211234567"))
    );
    crm.control(Control::delete("demo", Change::ids([2])));
    let ids = own(Profile::Zendesk, [1, 2]).join(",");
    let many = crm.ok(&format!("/api/v2/users/show_many.json?ids={ids}")).await;
    assert_eq!(each(&many["users"], "active"), ["true", "false"]);
    assert_eq!(
        each(&crm.ok("/api/v2/deleted_users.json").await["deleted_users"], "id"),
        own(Profile::Zendesk, [2])
    );
}
