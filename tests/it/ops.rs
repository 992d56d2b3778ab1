//! The ops page and the operators' API: who may, what is done, and what shows.

mod browser;
mod doctor;
mod explain;
mod keys;
pub mod life;
mod webhook;

use contacts::{Kind, Stream, dead, work};
use fake_crm::{Change, Control};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use snapbridge::wiring::Role;

use crate::harness::*;

const LOOK: &str = "look-4b7c0d1e2f3a4958";
const OPERATE: &str = "operate-4b7c0d1e2f3a4958";
const ADMIN: &str = "admin-4b7c0d1e2f3a4958";

fn tokens(more: &str) -> String {
    format!(
        "ops.read = \"{LOOK}\"\nops.operate = \"{OPERATE}\"\nops.admin = \"{ADMIN}\"\nrefresh.sweep = \"200ms\"\nrefresh.held_look = \"200ms\"\n{more}"
    )
}

struct Api<'a> {
    bridge: &'a Bridge,
    token: &'a str,
}

impl Api<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self
            .bridge
            .http
            .request(method, format!("{}{path}", self.bridge.admin))
            .header("x-snapbridge-operator", "Ann");
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str) -> String {
        let (status, value) = self.ask(Method::POST, path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value["said"].as_str().expect("a sentence").to_owned()
    }
}

fn admin(bridge: &Bridge) -> Api<'_> {
    Api { bridge, token: ADMIN }
}

/// The CRM lists no contacts any more, for so many calls.
fn refuse_lists(crm: &Crm, times: u32) {
    crm.crm.knobs("demo", |knobs| {
        knobs.fail_5xx = times;
        knobs.fail_status = 400;
        knobs.fault_ops = vec![fake_crm::Op::List, fake_crm::Op::Changes];
    });
}

async fn sentence(bridge: &Bridge, account: &contacts::AccountId) -> String {
    let shown = admin(bridge).get(&format!("/api/accounts/{account}")).await;
    shown["sentence"].as_str().expect("a sentence").to_owned()
}

async fn nothing_runs(bridge: &Bridge, account: &contacts::AccountId) {
    until("no slice runs", || async {
        let work = work::load(&*bridge.store, account).await.expect("the work");
        work.lease.is_none() && work.agents_lease.is_none()
    })
    .await;
}

on_both!(
    a_paused_account_makes_no_call_until_it_is_resumed_whatever_comes,
    |backend| async move {
        let crm = Crm::start(600).await;
        let more = tokens("refresh.poll = \"300ms\"");
        let bridge = Bridge::start(backend, &crm, &more).await;
        crm.crm.knobs("demo", |knobs| knobs.slow_ms = 50);
        let (status, _) = bridge.validate(auth()).await;
        assert_eq!(status, 200);
        let account = bridge.account().await;
        until("the build is under way", || async {
            crm.crm.stats("demo").calls_of("contacts.list") > 0
        })
        .await;

        let path = format!("/api/accounts/{account}");
        let said = admin(&bridge).post(&format!("{path}/pause")).await;
        assert!(said.starts_with("Paused"), "{said}");
        nothing_runs(&bridge, &account).await;
        crm.crm.knobs("demo", |knobs| knobs.slow_ms = 0);
        let calls = crm.crm.stats("demo").calls_of("contacts.list");

        // Neither an operator's ring nor Talkdesk with its credentials, nor a restart, wakes it.
        let said = admin(&bridge).post(&format!("{path}/full")).await;
        assert!(said.starts_with("Noted"), "{said}");
        let (status, _) = bridge.validate(auth()).await;
        assert_eq!(status, 200);
        let setup = Setup {
            backend,
            role: Role::Both,
            more: &more,
            beside: Some(&bridge),
        };
        let again = match backend {
            // A folder has one process at a time.
            Backend::Embedded => None,
            Backend::Distributed => Some(Bridge::set_up(setup, &crm).await),
        };
        let bridge_now = again.as_ref().unwrap_or(&bridge);
        let said = sentence(bridge_now, &account).await;
        assert!(said.starts_with("paused by Ann"), "{said}");
        assert_eq!(crm.crm.stats("demo").calls_of("contacts.list"), calls);

        let said = admin(bridge_now).post(&format!("{path}/resume")).await;
        assert!(said.starts_with("Resumed"), "{said}");
        until("the build ends", || async {
            let head = bridge.store.head(&account, Stream::Contacts).await.expect("a store");
            head.is_some_and(|head| head.ready && head.count == 600)
        })
        .await;
        let audit = admin(&bridge).get("/api/audit").await;
        let deeds: Vec<&str> = audit
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["action"].as_str().unwrap())
            .collect();
        assert_eq!(deeds, ["resume", "full", "pause"], "{audit}");
        assert_eq!((&audit[0]["by"], &audit[0]["role"]), (&json!("Ann"), &json!("admin")));
        if let Some(again) = again {
            again.stop().await;
        }
        bridge.stop().await;
    }
);

on_both!(
    a_paused_connector_or_lane_holds_its_work_and_no_other,
    |backend| async move {
        let crm = Crm::start(60).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let account = bridge.build().await;
        for scope in ["connector/demo", "lane/refresh"] {
            let said = admin(&bridge).post(&format!("/api/holds/{scope}/pause")).await;
            assert!(said.starts_with("Paused"), "{said}");
            let said = admin(&bridge).post(&format!("/api/holds/{scope}/pause")).await;
            assert!(said.contains("already"), "{said}");
            let held = scope.replace('/', " ");
            until("workers know", || async {
                crm.crm.control(Control::edit("demo", Change::ids([7]))).done();
                let calls = crm.crm.stats("demo").calls_of("contacts.list");
                admin(&bridge).post(&format!("/api/accounts/{account}/refresh")).await;
                nothing_runs(&bridge, &account).await;
                let work = work::load(&*bridge.store, &account).await.expect("the work");
                work.tasks[&Kind::Changes].not_before.is_some()
                    && crm.crm.stats("demo").calls_of("contacts.list") == calls
            })
            .await;
            let said = sentence(&bridge, &account).await;
            assert!(said.starts_with(&format!("{held} is paused by Ann")), "{said}");
            let status = admin(&bridge).get("/api/status").await;
            assert!(status["held"][0].as_str().unwrap().starts_with(&held), "{status}");
            let said = admin(&bridge).post(&format!("/api/holds/{scope}/resume")).await;
            assert!(said.starts_with("Resumed"), "{said}");
            until("it goes on", || async {
                let work = work::load(&*bridge.store, &account).await.expect("the work");
                work.tasks[&Kind::Changes].due > Some(contacts::Clock::now(&contacts::SystemClock))
            })
            .await;
        }
        until("the edit is there", || async {
            // The window of a poll ends a little before it, so the last edit may need one more.
            admin(&bridge).post(&format!("/api/accounts/{account}/refresh")).await;
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        bridge.stop().await;
    }
);

on_both!(dead_letters_are_listed_redriven_and_discarded, |backend| async move {
    let crm = Crm::start(40).await;
    let more = tokens("retry.attempts = 1\nretry.first = \"10ms\"\nrefresh.poll = \"1h\"");
    let bridge = Bridge::start(backend, &crm, &more).await;
    let account = bridge.build().await;
    let die = || async {
        refuse_lists(&crm, u32::MAX);
        admin(&bridge).post(&format!("/api/accounts/{account}/refresh")).await;
        until("it has died", || async {
            !dead::list(&*bridge.store, 10).await.expect("a store").is_empty()
        })
        .await;
        refuse_lists(&crm, 0);
    };
    die().await;
    let letters = admin(&bridge).get("/api/dead?kind=contacts.changes").await;
    assert_eq!(letters[0]["account"], account.as_str(), "{letters}");
    assert_eq!(admin(&bridge).get("/api/dead?text=no-such-text").await, json!([]));
    let (status, refused) = admin(&bridge)
        .ask(Method::POST, "/api/dead/redrive", Some(json!({})))
        .await;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (400, &json!("bad_request")),
        "{refused}"
    );

    let redrive = json!({"ids": [letters[0]["id"]]});
    let (status, settled) = admin(&bridge)
        .ask(Method::POST, "/api/dead/redrive", Some(redrive))
        .await;
    assert_eq!((status.as_u16(), &settled), (200, &json!({"done": 1, "stay": []})));
    until("its work is done", || async {
        let work = work::load(&*bridge.store, &account).await.expect("the work");
        work.tasks[&Kind::Changes].last_error.is_none()
    })
    .await;
    assert_eq!(admin(&bridge).get("/api/dead").await, json!([]));

    die().await;
    let discard = |body: Value| async { admin(&bridge).ask(Method::POST, "/api/dead/discard", Some(body)).await };
    let (status, _) = discard(json!({"all": true, "reason": " "})).await;
    assert_eq!(status, 400, "a reason is asked for");
    let (status, _) = discard(json!({"all": true})).await;
    assert_eq!(status, 400);
    let (status, settled) = discard(json!({"all": true, "reason": "a test"})).await;
    assert_eq!((status.as_u16(), &settled["done"]), (200, &json!(1)));
    assert_eq!(admin(&bridge).get("/api/dead").await, json!([]));
    let audit = admin(&bridge).get("/api/audit").await;
    assert!(audit[0]["detail"].as_str().unwrap().contains("a test"), "{audit}");
    bridge.stop().await;
});

on_both!(
    a_forgotten_account_leaves_nothing_and_comes_back_as_a_new_one,
    |backend| async move {
        let crm = Crm::start(30).await;
        let bridge = Bridge::start(backend, &crm, &tokens("")).await;
        let account = bridge.build().await;
        let path = format!("/api/accounts/{account}");
        assert!(
            admin(&bridge)
                .post(&format!("{path}/forget"))
                .await
                .starts_with("Forgotten")
        );
        let (status, _) = admin(&bridge).ask(Method::GET, &path, None).await;
        assert_eq!(status, 404);
        for stream in [Stream::Contacts, Stream::Agents] {
            assert!(bridge.store.head(&account, stream).await.expect("a store").is_none());
        }
        let work = work::load(&*bridge.store, &account).await.expect("a store");
        assert_eq!(work, work::Work::default());
        for index in [work::LOOK, work::FRESH] {
            let left = bridge
                .store
                .index_until(index, contacts::Micros(u64::MAX >> 1), 10)
                .await
                .expect("a store");
            assert!(left.is_empty(), "{index}: {left:?}");
        }
        if backend == Backend::Distributed {
            let held = account.as_str().as_bytes();
            let keys = bridge.redis_dump().await.into_iter().map(|(key, _)| key);
            let left: Vec<String> = keys
                .filter(|key| key.as_bytes().windows(held.len()).any(|part| part == held))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        bridge.build().await;
        assert_eq!(bridge.run(None).await.ids().len(), 30);
        bridge.stop().await;
    }
);

async fn form(bridge: &Bridge, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> reqwest::Response {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let mut request = client
        .post(format!("{}{path}", bridge.admin))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

/// The session cookie of a login.
async fn log_in(bridge: &Bridge, token: &str) -> String {
    let answer = form(
        bridge,
        "/ops/login",
        &[("token", token), ("name", "Ann"), ("to", "/ops/dead")],
        &[],
    )
    .await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (303, &"/ops/dead".parse().unwrap())
    );
    let cookie = answer.headers()["set-cookie"].to_str().expect("a cookie").to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    cookie.split(';').next().expect("a pair").to_owned()
}

async fn page(bridge: &Bridge, path: &str, cookie: &str) -> (u16, String) {
    let answer = bridge
        .http
        .get(format!("{}{path}", bridge.admin))
        .header("cookie", cookie)
        .send()
        .await
        .expect("an answer");
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .expect("a policy")
        .to_owned();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    (answer.status().as_u16(), answer.text().await.expect("a page"))
}

fn csrf_of(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
    rest.split('"').next().expect("a value").to_owned()
}

#[tokio::test]
async fn each_token_may_what_it_may_and_no_more() {
    let crm = Crm::start(10).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, &tokens("")).await;
    let account = bridge.build().await;
    let paths = ["/api/status", "/api/budgets", "/api/audit", "/api/dead", "/api/nothing"];
    for token in ["", "wrong-4b7c0d1e2f3a4958"] {
        let api = Api { bridge: &bridge, token };
        for path in paths {
            let (status, refused) = api.ask(Method::GET, path, None).await;
            assert_eq!(
                (status.as_u16(), &refused["code"]),
                (401, &json!("not_proven")),
                "{path}"
            );
        }
        let (status, _) = api
            .ask(Method::POST, &format!("/api/accounts/{account}/pause"), None)
            .await;
        assert_eq!(status, 401);
    }
    let may = |token, action: &str| {
        let (bridge, path) = (&bridge, format!("/api/accounts/{account}/{action}"));
        async move { Api { bridge, token }.ask(Method::POST, &path, None).await.0.as_u16() }
    };
    assert_eq!(may(LOOK, "pause").await, 403);
    assert_eq!(may(OPERATE, "pause").await, 200);
    assert_eq!(may(OPERATE, "forget").await, 403);
    assert_eq!(may(OPERATE, "resume").await, 200);
    assert_eq!(may(ADMIN, "dance").await, 400);
    let look = Api {
        bridge: &bridge,
        token: LOOK,
    };
    look.get("/api/status").await;
    for (path, code) in [
        ("/api/accounts/nobody", 404),
        ("/api/accounts/aaaaaaaaaaaaaaaaaaaaaaaaaa", 404),
    ] {
        assert_eq!(look.ask(Method::GET, path, None).await.0.as_u16(), code, "{path}");
    }
    for (unknown, says) in [
        (json!({"colour": "red"}), "colour"),
        (json!({"kind": "contacts"}), "there are contacts.ids, contacts.changes"),
    ] {
        let (status, refused) = admin(&bridge)
            .ask(Method::POST, "/api/dead/redrive", Some(unknown))
            .await;
        assert_eq!(status, 400, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(says), "{refused}");
    }
    assert_eq!(look.ask(Method::GET, "/api/dead?kind=contacts", None).await.0, 400);
    bridge.stop().await;
}

#[tokio::test]
async fn the_page_takes_forms_of_its_own_session_only() {
    let crm = Crm::start(10).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, &tokens("")).await;
    let account = bridge.build().await;
    let refused = form(&bridge, "/ops/login", &[("token", "wrong-4b7c0d1e2f3a4958")], &[]).await;
    assert_eq!(refused.status(), 401);
    let (status, landed) = page(&bridge, "/ops", "").await;
    assert!(status == 200 && landed.contains("Log in"), "no session, no page");

    let cookie = log_in(&bridge, ADMIN).await;
    let here = format!("/ops/accounts/{account}");
    let (_, shown) = page(&bridge, &here, &cookie).await;
    let csrf = csrf_of(&shown);
    let deed = |csrf: &str| {
        [
            ("csrf", csrf),
            ("on", "account"),
            ("action", "pause"),
            ("target", account.as_str()),
            ("back", &here),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let send = |csrf: &str, cookie: &str, more: Option<(&'static str, &'static str)>| {
        let (fields, cookie, bridge) = (deed(csrf), cookie.to_owned(), &bridge);
        async move {
            let fields: Vec<(&str, &str)> = fields
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let mut headers = vec![("cookie", cookie.as_str())];
            headers.extend(more);
            form(bridge, "/ops/act", &fields, &headers).await
        }
    };
    let other = log_in(&bridge, LOOK).await;
    assert_eq!(send("", &cookie, None).await.status(), 403, "no CSRF token");
    assert_eq!(send(&csrf, &other, None).await.status(), 403, "that of another session");
    assert_eq!(
        send(&csrf, &cookie, Some(("sec-fetch-site", "cross-site")))
            .await
            .status(),
        403
    );
    assert_eq!(
        send(&csrf, &cookie, Some(("origin", "https://evil.example")))
            .await
            .status(),
        403
    );
    let reader = csrf_of(&page(&bridge, "/ops", &other).await.1);
    assert_eq!(send(&reader, &other, None).await.status(), 403, "a reader may not act");
    let paused = || async {
        work::load(&*bridge.store, &account)
            .await
            .expect("a store")
            .pause
            .is_some()
    };
    assert!(!paused().await);
    let done = send(&csrf, &cookie, None).await;
    assert_eq!(
        (done.status().as_u16(), &done.headers()["location"]),
        (303, &here.parse().unwrap())
    );
    assert!(paused().await);
    // A bearer token opens no page, and a cookie no API.
    let api = bridge
        .http
        .get(format!("{}/api/status", bridge.admin))
        .header("cookie", &cookie)
        .send()
        .await;
    assert_eq!(api.expect("an answer").status(), 401);
    let (_, read_only) = page(&bridge, &here, &other).await;
    assert!(!read_only.contains("action=\"/ops/act\""), "a reader sees no buttons");
    bridge.stop().await;
}

fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, into)),
        Value::Object(values) => values.values().for_each(|value| leaves(value, into)),
        _ => {}
    }
}

on_both!(no_page_shows_contact_data_or_credentials, |backend| async move {
    let crm = Crm::start(40).await;
    let more = tokens("retry.attempts = 1\nretry.first = \"10ms\"\nrefresh.poll = \"1h\"");
    let bridge = Bridge::start(backend, &crm, &more).await;
    let account = bridge.build().await;
    refuse_lists(&crm, u32::MAX);
    admin(&bridge).post(&format!("/api/accounts/{account}/refresh")).await;
    until("a dead letter", || async {
        !dead::list(&*bridge.store, 1).await.expect("a store").is_empty()
    })
    .await;
    let cookie = log_in(&bridge, ADMIN).await;
    let mut seen = String::new();
    let account_page = format!("/ops/accounts/{account}");
    for path in [
        "/ops",
        "/ops?state=ready&q=demo",
        &account_page,
        "/ops/dead",
        "/ops/budgets",
        "/ops/audit",
    ] {
        let (status, text) = page(&bridge, path, &cookie).await;
        assert_eq!(status, 200, "{path}");
        seen.push_str(&text);
    }
    for path in [
        "/api/status",
        "/api/dead",
        "/api/budgets",
        "/api/audit",
        &format!("/api/accounts/{account}"),
    ] {
        seen.push_str(&admin(&bridge).get(path).await.to_string());
    }
    assert!(seen.contains(account.as_str()) && seen.contains("contacts.changes"));
    let contacts = bridge.run(None).await.contacts;
    let mut texts = Vec::new();
    contacts.iter().for_each(|contact| leaves(contact, &mut texts));
    let telling = |text: &&String| text.contains('@') || text.starts_with('+') || text.contains(' ');
    let telling: Vec<&String> = texts.iter().filter(telling).collect();
    assert!(telling.len() > 80, "{}", telling.len());
    let shown: Vec<&&String> = telling.iter().filter(|text| seen.contains(text.as_str())).collect();
    assert!(shown.is_empty(), "{shown:?}");
    for secret in [TOKEN, ADMIN, LOOK, OPERATE, &bridge.keys.hook_secret(&account)] {
        assert!(!seen.contains(secret), "a secret shows");
    }
    bridge.stop().await;
});

/// What a slice did stands in the account's history.
#[tokio::test]
async fn an_account_has_a_history() {
    let crm = Crm::start(120).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, &tokens("refresh.poll = \"1h\"")).await;
    let account = bridge.build().await;
    crm.crm.control(Control::delete("demo", Change::ids([5]))).done();
    admin(&bridge).post(&format!("/api/accounts/{account}/full")).await;
    let shown = || async { admin(&bridge).get(&format!("/api/accounts/{account}")).await };
    until("the pass is noted", || async {
        shown().await["runs"]
            .as_array()
            .is_some_and(|runs| runs.iter().filter(|run| run["kind"] == "contacts.full").count() >= 2)
    })
    .await;
    let shown = shown().await;
    let full: Vec<&Value> = shown["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["kind"] == "contacts.full")
        .collect();
    let first = full.last().unwrap();
    assert_eq!(
        (&first["outcome"], &first["written"]),
        (&json!("done"), &json!(120)),
        "{first}"
    );
    let last = full.first().unwrap();
    assert_eq!(last["removed"], 1, "{last}");
    assert!(
        last["started"]["words"]
            .as_str()
            .is_some_and(|words| words.ends_with("ago")),
        "{last}"
    );
    bridge.stop().await;
}
