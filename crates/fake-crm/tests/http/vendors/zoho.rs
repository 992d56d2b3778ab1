use fake_crm::{Change, Control, Profile};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answered, Crm, Inbox, crm, each, own, sent};

const CONTACTS: &str = "/crm/v8/Contacts";

async fn page(crm: &Crm, query: &str) -> Answered {
    crm.get(&format!("{CONTACTS}?fields=Full_Name,Email,Modified_Time&{query}"))
        .await
}

#[tokio::test]
async fn numbers_end_with_row_two_thousand_and_tokens_go_on() {
    let crm = crm(Profile::Zoho, 2_350).await;
    crm.limit("credits", "10000/1h");
    crm.control(Control::touch(
        "demo",
        Change::ids(100..=900).stamped(1_750_000_000_000),
    ));
    let (mut ids, mut query) = (Vec::new(), "page=1".to_owned());
    for number in 2.. {
        let answer = page(
            &crm,
            &format!("{query}&per_page=200&sort_by=Modified_Time&sort_order=asc"),
        )
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        ids.extend(each(&body["data"], "id"));
        if body["info"]["more_records"] == false {
            break;
        }
        query = if number <= 10 {
            format!("page={number}")
        } else {
            format!(
                "page_token={}",
                body["info"]["next_page_token"].as_str().expect("a token")
            )
        };
    }
    assert_eq!(ids.len(), 2_350);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2_350, "nobody twice");
    let eleventh = page(&crm, "page=11&per_page=200").await;
    assert_eq!(
        (eleventh.status, eleventh.json()["code"].as_str()),
        (400, Some("DISCRETE_PAGINATION_LIMIT_EXCEEDED"))
    );
    let token = page(&crm, "per_page=200").await.json()["info"]["next_page_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(
        page(&crm, &format!("page=2&page_token={token}")).await.json()["code"],
        "AMBIGUITY_DURING_PROCESSING"
    );
    crm.served.crm.knobs("demo", |knobs| knobs.token_life_ms = 0);
    let mut expired = page(&crm, &format!("page_token={token}")).await;
    while expired.status == 200 {
        // Within the same millisecond it is still good.
        expired = page(&crm, &format!("page_token={token}")).await;
    }
    assert_eq!(expired.json()["code"], "EXPIRED_VALUE");
    assert_eq!(crm.get(CONTACTS).await.json()["code"], "REQUIRED_PARAM_MISSING");
    assert_eq!(page(&crm, "per_page=201").await.status, 400);
}

#[tokio::test]
async fn nothing_is_two_hundred_and_four_or_three_hundred_and_four() {
    let crm = crm(Profile::Zoho, 3).await;
    crm.served
        .crm
        .knobs("demo", |knobs| "Asia/Kolkata".clone_into(&mut knobs.time_zone));
    assert_eq!(page(&crm, "page=2").await.status, 204);
    let since = |at: &str| {
        let path = format!("{CONTACTS}?fields=Modified_Time");
        sent(
            crm.request(Method::GET, &path)
                .header("if-modified-since", at.to_owned()),
        )
    };
    let nothing = since("2030-01-01T00:00:00+05:30").await;
    assert_eq!((nothing.status, nothing.text.as_str()), (304, ""));
    crm.control(Control::touch("demo", Change::ids([2]).stamped(1_900_000_000_000)));
    let found = since("2030-03-17T17:46:40+00:00").await.json();
    assert_eq!(
        each(&found["data"], "Modified_Time"),
        ["2030-03-17T23:16:40+05:30"],
        "inclusive"
    );
    assert_eq!(crm.get("/crm/v8/Contacts/deleted?type=all").await.status, 204);
    crm.control(Control::delete("demo", Change::ids([1])));
    let gone = crm.ok("/crm/v8/Contacts/deleted?type=all").await;
    assert_eq!(each(&gone["data"], "id"), own(Profile::Zoho, [1]));
}

#[tokio::test]
async fn credits_are_spent_and_the_deleted_cost_two() {
    let crm = crm(Profile::Zoho, 3).await;
    crm.limit("credits", "3/1h");
    assert_eq!(page(&crm, "per_page=1").await.header("x-api-credits-remaining"), "2");
    crm.get("/crm/v8/Contacts/deleted?type=all").await;
    let over = page(&crm, "per_page=1").await;
    assert_eq!(
        (over.status, over.json()["code"].as_str()),
        (429, Some("TOO_MANY_REQUESTS"))
    );
    let credits = &crm.served.crm.stats("demo").limits["credits"];
    assert_eq!((credits.calls, credits.cost, credits.over_limit), (3, 4, 1));
}

#[tokio::test]
async fn a_channel_says_its_token_ends_and_is_renewed() {
    let crm = crm(Profile::Zoho, 6).await;
    let inbox = Inbox::open().await;
    let at = |seconds: i64| {
        (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds))
            .strftime("%Y-%m-%dT%H:%M:%S+00:00")
            .to_string()
    };
    let channel = |expiry: String| {
        json!({"watch": [{
            "channel_id": "10068", "events": ["Contacts.all"], "channel_expiry": expiry, "token": "word-of-mine",
            "notify_url": inbox.url,
        }]})
    };
    assert_eq!(
        crm.post("/crm/v8/actions/watch", &channel(at(3 * 86_400))).await.status,
        400
    );
    let made = crm.post("/crm/v8/actions/watch", &channel(at(3_600))).await;
    assert_eq!(
        (made.status, made.json()["watch"][0]["code"].as_str()),
        (201, Some("SUCCESS"))
    );
    crm.control(Control::edit("demo", Change::ids([2])));
    let told = inbox.wait(1).await[0].json();
    assert_eq!(
        (&told["token"], &told["operation"]),
        (&json!("word-of-mine"), &json!("update"))
    );
    assert_eq!(told["ids"], json!(own(Profile::Zoho, [2])));
    let patch = |body: Value| sent(crm.request(Method::PATCH, "/crm/v8/actions/watch").json(&body));
    assert_eq!(patch(channel(at(7_200))).await.status, 200);
    // It ends within a second, and then it is as if it had never been.
    assert_eq!(patch(channel(at(1))).await.status, 200);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while crm.get("/crm/v8/actions/watch?channel_id=10068").await.status != 204 {
        crate::harness::no_later_than(deadline, "the channel ends");
    }
    crm.control(Control::edit("demo", Change::ids([3])));
    assert_eq!(crm.served.crm.stats("demo").webhooks.waiting, 0);
    assert_eq!(patch(channel(at(3_600))).await.json()["code"], "NOT_SUBSCRIBED");
}

#[tokio::test]
async fn tokens_users_and_writes() {
    let crm = crm(Profile::Zoho, 5).await;
    let grant =
        |secret: &str| format!("grant_type=refresh_token&client_id=1000.X&client_secret=y&refresh_token={secret}");
    let ask = |body: String| {
        sent(
            crm.bare(Method::POST, "/oauth/v2/token")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
    };
    let refused = ask(grant("guessed")).await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (200, Some("invalid_code")),
        "an error within a 200"
    );
    let minted = ask(grant(super::TOKEN)).await.json();
    assert_eq!(minted["api_domain"], crm.served.base);
    let path = "/crm/v8/users?type=CurrentUser";
    let with = |scheme: &str| {
        sent(crm.bare(Method::GET, path).header(
            "authorization",
            format!("{scheme} {}", minted["access_token"].as_str().expect("token")),
        ))
    };
    assert_eq!(
        with("Zoho-oauthtoken").await.json()["users"][0]["id"],
        Profile::Zoho.user_id("u-1")
    );
    assert_eq!(with("Bearer").await.json()["code"], "INVALID_TOKEN");
    assert_eq!(
        each(&crm.ok("/crm/v8/users?type=ActiveUsers").await["users"], "status").len(),
        3
    );
    let made = crm
        .post(
            CONTACTS,
            &json!({"data": [{"Last_Name": "Silva", "Email": "ana@new.example"}]}),
        )
        .await;
    let id = made.json()["data"][0]["details"]["id"].clone();
    assert_eq!((made.status, &id), (201, &json!(own(Profile::Zoho, [6])[0])));
    assert_eq!(
        crm.post(CONTACTS, &json!({"data": [{"First_Name": "Ana"}]}))
            .await
            .json()["code"],
        "MANDATORY_NOT_FOUND"
    );
    let case =
        json!({"data": [{"Subject": "Help", "Status": "New", "Case_Origin": "Phone", "Related_To": {"id": id}}]});
    assert_eq!(crm.post("/crm/v8/Cases", &case).await.status, 201);
    let cases = crm
        .ok(&format!("{CONTACTS}/{}/Cases?fields=Subject", id.as_str().expect("id")))
        .await;
    assert_eq!(each(&cases["data"], "Subject").last().map(String::as_str), Some("Help"));
    let call = json!({"data": [{
        "Subject": "Call", "Call_Type": "Inbound", "Call_Start_Time": "2026-05-01T10:00:00+01:00", "Call_Duration": "02:05",
        "Who_Id": {"id": id},
    }]});
    assert_eq!(crm.post("/crm/v8/Calls", &call).await.status, 201);
    assert_eq!(crm.served.crm.calls("demo")[0].duration_s, 125);
    let note = json!({"data": [{"Note_Title": "t", "Note_Content": "Rang"}]});
    assert_eq!(
        crm.post(&format!("{CONTACTS}/{}/Notes", id.as_str().expect("id")), &note)
            .await
            .status,
        201
    );
}
