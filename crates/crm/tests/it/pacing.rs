//! The pacer against a real ledger's rules, without a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use contacts::ledger::{Ask, Budget, Class, LeaseId, Limit, Scopes, Taken, Times};
use contacts::ports::{StoreErrorKind, StoreResult};
use contacts::{ErrorKind, Micros, StoreError, SystemClock};
use crm::{Budgets, Client, ClientSettings, Pacer, Patience};
use parking_lot::Mutex;
use serde_json::json;

use crate::support::{SMALL, client_with, load, serve};

#[derive(Default)]
struct Memory {
    budgets: Mutex<BTreeMap<String, Budget>>,
    down: AtomicBool,
}

impl Memory {
    fn with<R>(&self, scope: &str, change: impl FnOnce(&mut Budget) -> R) -> StoreResult<R> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is gone"));
        }
        Ok(change(self.budgets.lock().entry(scope.to_owned()).or_default()))
    }
}

#[async_trait]
impl Budgets for Memory {
    async fn take(&self, scope: &str, ask: &Ask<'_>, now: Micros) -> StoreResult<Taken> {
        self.with(scope, |budget| budget.take(ask, now))
    }

    async fn finish(&self, scope: &str, lease: LeaseId, calls: u32, now: Micros) -> StoreResult<()> {
        self.with(scope, |budget| budget.finish(lease, calls, now))
    }

    async fn give_back(&self, scope: &str, lease: LeaseId, slots: u32, now: Micros) -> StoreResult<()> {
        self.with(scope, |budget| budget.give_back(lease, slots, now))
    }

    async fn cost_more(&self, scope: &str, limit: &Limit, extra: u32, now: Micros) -> StoreResult<()> {
        self.with(scope, |budget| budget.cost_more(limit, extra, now))
    }

    async fn hold(&self, scope: &str, limit: &str, until: Micros, quota: bool) -> StoreResult<()> {
        self.with(scope, |budget| budget.hold(limit, until, quota))
    }

    async fn none_left(&self, scope: &str, limit: &Limit, asked_at: Micros, until: Micros) -> StoreResult<bool> {
        self.with(scope, |budget| budget.none_left(limit, asked_at, until))
    }
}

fn pacer(memory: &Arc<Memory>, class: Class, patience: Duration) -> Pacer {
    pacer_of(scopes(), memory, class, patience)
}

fn pacer_of(scopes: Scopes, memory: &Arc<Memory>, class: Class, patience: Duration) -> Pacer {
    let patience = Patience {
        bulk: patience,
        interactive: patience,
    };
    Pacer::new(
        memory.clone(),
        scopes,
        class,
        patience,
        Times::default(),
        "test",
        Arc::new(SystemClock),
    )
}

fn scopes() -> Scopes {
    Scopes {
        ip: Some("ip".into()),
        app: Some("app".into()),
        account: Some("account".into()),
        user: Some("user".into()),
    }
}

fn source(limits: &str) -> String {
    format!("{SMALL}\n{limits}\n")
}

/// A CRM that counts its calls and remembers the most it saw in any 500 ms, and at once.
#[derive(Default)]
struct Counted {
    calls: Mutex<Vec<std::time::Instant>>,
    now: AtomicUsize,
    most_at_once: AtomicUsize,
}

async fn counting(counted: Arc<Counted>) -> String {
    let handler = move || async move {
        let at_once = counted.now.fetch_add(1, Ordering::SeqCst) + 1;
        counted.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        counted.calls.lock().push(std::time::Instant::now());
        tokio::time::sleep(Duration::from_millis(10)).await;
        counted.now.fetch_sub(1, Ordering::SeqCst);
        Json(json!({ "results": [] }))
    };
    serve(Router::new().route("/contacts", get(handler))).await
}

fn client(source: &str, origin: &str, pacer: Pacer) -> Arc<Client> {
    Arc::new(client_with(load(source), origin, &[], ClientSettings::default(), pacer).expect("a client"))
}

#[tokio::test]
async fn invariant_10_the_crm_never_counts_more_than_its_limits() {
    let memory = Arc::new(Memory::default());
    let counted = Arc::new(Counted::default());
    let origin = counting(counted.clone()).await;
    let limits = "[[limits]]\nname = \"window\"\nkind = \"window\"\nwindow = \"500ms\"\nmax = 8\n\
                  [[limits]]\nname = \"at-once\"\nkind = \"concurrency\"\nmax = 3\n";
    // Two processes share the ledger.
    let patient = Duration::from_secs(30);
    let clients =
        [Class::Bulk, Class::Interactive].map(|class| client(&source(limits), &origin, pacer(&memory, class, patient)));
    let calls = (0..24).map(|i| {
        let client = clients[i % 2].clone();
        async move { client.full_page(None).await }
    });
    for result in futures::future::join_all(calls).await {
        result.expect("a page");
    }
    let calls = counted.calls.lock().clone();
    assert_eq!(calls.len(), 24);
    for (i, first) in calls.iter().enumerate() {
        let within = calls[i..]
            .iter()
            .filter(|call| call.duration_since(*first) < Duration::from_millis(500))
            .count();
        assert!(within <= 8, "{within} calls within 500 ms");
    }
    assert!(counted.most_at_once.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn invariant_10_without_a_store_there_is_no_call() {
    let memory = Arc::new(Memory::default());
    let counted = Arc::new(Counted::default());
    let origin = counting(counted.clone()).await;
    let client = client(SMALL, &origin, pacer(&memory, Class::Bulk, Duration::from_secs(1)));
    memory.down.store(true, Ordering::SeqCst);
    let error = client.full_page(None).await.expect_err("no budget");
    assert_eq!(error.kind, ErrorKind::StoreDown);
    assert!(counted.calls.lock().is_empty());
    memory.down.store(false, Ordering::SeqCst);
    client.full_page(None).await.expect("the store is back");
}

#[tokio::test]
async fn a_throttled_reply_stops_the_scope_not_only_the_call() {
    // Also where no limit is the account's.
    let of_user = "[[limits]]\nname = \"user\"\nkind = \"window\"\nwindow = \"1s\"\nmax = 100\nscope = \"user\"\n";
    for limits in ["", of_user] {
        let memory = Arc::new(Memory::default());
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        let handler = move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "600")])
        };
        let origin = serve(Router::new().route("/contacts", get(handler))).await;
        let error = client(&source(limits), &origin, pacer(&memory, Class::Bulk, Duration::ZERO))
            .full_page(None)
            .await
            .unwrap_err();
        let ErrorKind::Throttled { until } = error.kind else {
            panic!("{error}")
        };
        let other = client(
            &source(limits),
            &origin,
            pacer(&memory, Class::Interactive, Duration::from_millis(50)),
        );
        assert_eq!(
            other.full_page(None).await.unwrap_err().kind,
            ErrorKind::NoBudget { until }
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

/// A limit of our application is shared by all accounts, one of an address by all applications, one of a user by nobody.
#[tokio::test]
async fn invariant_10_a_call_needs_a_slot_of_every_budget_it_counts_against() {
    let memory = Arc::new(Memory::default());
    let counted = Arc::new(Counted::default());
    let origin = counting(counted.clone()).await;
    let limits = "[[limits]]\nname = \"ip\"\nkind = \"quota\"\nwindow = \"1d\"\nmax = 6\nscope = \"ip\"\n\
                  [[limits]]\nname = \"app\"\nkind = \"quota\"\nwindow = \"1d\"\nmax = 5\nscope = \"app\"\n\
                  [[limits]]\nname = \"user\"\nkind = \"quota\"\nwindow = \"1d\"\nmax = 2\nscope = \"user\"\n";
    let of_app = |app: &str, account: &str, user: &str| {
        let scopes = Scopes {
            ip: Some("ip".into()),
            app: Some(app.into()),
            account: Some(account.into()),
            user: Some(user.into()),
        };
        client(
            // A limit of an address is of one host.
            &source(limits).replace("role = \"locator\"", "from = \"integration\""),
            &origin,
            pacer_of(scopes, &memory, Class::Bulk, Duration::ZERO),
        )
    };
    let of = |account: &str, user: &str| of_app("app", account, user);
    let first = of("a", "ana");
    first.full_page(None).await.expect("her first");
    first.full_page(None).await.expect("her second");
    let error = first.full_page(None).await.unwrap_err();
    assert!(error.to_string().contains("`user`"), "{error}");
    // What she was refused took nothing from the others.
    for user in ["bea", "cia"] {
        let other = of("b", user);
        other.full_page(None).await.expect("a first one");
        let _ = other.full_page(None).await;
    }
    let error = of("c", "dora").full_page(None).await.unwrap_err();
    assert!(error.to_string().contains("`app`"), "{error}");
    of_app("another", "d", "eva")
        .full_page(None)
        .await
        .expect("the sixth from one address");
    let error = of_app("third", "e", "fay").full_page(None).await.unwrap_err();
    assert!(error.to_string().contains("`ip`"), "{error}");
    assert_eq!(counted.calls.lock().len(), 6);
}

#[tokio::test]
async fn nothing_remaining_stops_the_limit_until_it_turns() {
    let memory = Arc::new(Memory::default());
    let handler = || async { ([("x-left", "0"), ("x-reset", "600")], Json(json!({ "results": [] }))) };
    let origin = serve(Router::new().route("/contacts", get(handler))).await;
    let limits = "[[limits]]\nname = \"w\"\nkind = \"window\"\nwindow = \"1s\"\nmax = 100\n\
                  [throttle]\nremaining = [{ header = \"x-left\", limit = \"w\", reset = { header = \"x-reset\" } }]\n";
    let client = client(&source(limits), &origin, pacer(&memory, Class::Bulk, Duration::ZERO));
    client.full_page(None).await.expect("the reply itself is good");
    let error = client.full_page(None).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoBudget { .. }), "{error}");
}

#[tokio::test]
async fn a_quota_defers_and_counts_its_costs() {
    let memory = Arc::new(Memory::default());
    let counted = Arc::new(Counted::default());
    let origin = counting(counted.clone()).await;
    let limits = "[[limits]]\nname = \"credits\"\nkind = \"quota\"\nwindow = \"1d\"\nmax = 20\nshare = 0.5\n\
                  cost = { \"contacts.full\" = 4 }\n";
    let client = client(&source(limits), &origin, pacer(&memory, Class::Bulk, Duration::ZERO));
    client.full_page(None).await.expect("4 of 10");
    client.full_page(None).await.expect("8 of 10");
    client.rest().await;
    let error = client.full_page(None).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Quota { .. }), "{error}");
    assert_eq!(counted.calls.lock().len(), 2);
}

#[tokio::test]
async fn a_token_call_is_charged_unless_the_file_says_otherwise() {
    async fn handed_out() -> Json<serde_json::Value> {
        Json(json!({"access_token": "t", "expires_in": 60}))
    }
    async fn me() -> Json<serde_json::Value> {
        Json(json!({"org": "o", "user": "u"}))
    }
    let router = Router::new()
        .route("/token", axum::routing::post(handed_out))
        .route("/me", get(me));
    let origin = serve(router).await;
    let oauth = SMALL
        .replace(
            "token = { type = \"secret\" }",
            "client_id = { type = \"string\", role = \"secret\" }\nclient_secret = { type = \"secret\" }",
        )
        .replace(
            "kind = \"bearer\"\ntoken = \"${conn.token}\"",
            "kind = \"oauth2\"\ngrants = [\"client_credentials\"]\ntoken_url = \"${conn.site}/token\"",
        );
    // One call a minute: the token's or the check's.
    let limit = "[[limits]]\nname = \"calls\"\nkind = \"window\"\nwindow = \"1m\"\nmax = 1\n";
    for (except, good) in [("", false), ("except = [\"login\"]", true)] {
        let memory = Arc::new(Memory::default());
        let client = client_with(
            load(&format!("{oauth}\n{limit}{except}\n")),
            &origin,
            &[("client_id", "i"), ("client_secret", "s")],
            ClientSettings::default(),
            pacer(&memory, Class::Interactive, Duration::ZERO),
        );
        let checked = client.expect("a client").check().await;
        match checked {
            Ok(_) => assert!(good, "{except}"),
            Err(error) => assert!(
                !good && matches!(error.kind, ErrorKind::NoBudget { .. }),
                "{except} {error:?}"
            ),
        }
    }
}

#[tokio::test]
async fn what_a_call_has_really_cost_is_charged_when_the_crm_tells() {
    let memory = Arc::new(Memory::default());
    let handler = || async { ([("x-used", "4")], Json(json!({ "results": [] }))) };
    let origin = serve(Router::new().route("/contacts", get(handler))).await;
    let limits = "[throttle]\nused = { header = \"x-used\" }\n\
                  [[limits]]\nname = \"day\"\nkind = \"quota\"\nwindow = \"1d\"\nreset = \"rolling\"\nmax = 10\n";
    let client = client(&source(limits), &origin, pacer(&memory, Class::Bulk, Duration::ZERO));
    let mut calls = 0;
    let error = loop {
        match client.full_page(None).await {
            Ok(_) => calls += 1,
            Err(error) => break error,
        }
    };
    // Taken for one each; the third call is let in with two left, and costs four.
    assert_eq!(calls, 3);
    let ErrorKind::Quota { until } = error.kind else {
        panic!("{error}");
    };
    let wait = until.since(contacts::Clock::now(&SystemClock));
    assert!(
        wait > Duration::from_secs(23 * 3_600),
        "it comes back a day after it was spent, not in {wait:?}"
    );
}

#[test]
fn a_quota_of_the_account_turns_at_its_own_midnight() {
    let limits = "[[limits]]\nname = \"day\"\nkind = \"quota\"\nwindow = \"1d\"\nreset = \"account_midnight\"\ntz = \"${conn.plan}\"\nmax = 10\n";
    let connector = load(&source(limits));
    let offset = |zone: &str, at: &str| {
        let fields = crate::support::fields(&[("plan", zone)]);
        let now = contacts::Micros::parse(at).expect("a time");
        match connector.limits(&fields, now).expect("the limits")[0].kind {
            contacts::ledger::LimitKind::Quota { offset, .. } => offset.as_secs() / 3_600 % 24,
            kind => panic!("{kind:?}"),
        }
    };
    assert_eq!(
        offset("America/New_York", "2026-01-15T12:00:00Z"),
        5,
        "midnight there is five in the morning UTC"
    );
    assert_eq!(offset("America/New_York", "2026-07-15T12:00:00Z"), 4);
    assert_eq!(offset("Asia/Tokyo", "2026-01-15T12:00:00Z"), 15);
    assert_eq!(offset("", "2026-01-15T12:00:00Z"), 0, "before the check has learned it");
    // Where summer time takes a zone past UTC, the day goes on being the same day.
    let day = |at: &str| {
        let fields = crate::support::fields(&[("plan", "Europe/London")]);
        let now = contacts::Micros::parse(at).expect("a time");
        match connector.limits(&fields, now).expect("the limits")[0].kind {
            contacts::ledger::LimitKind::Quota { offset, .. } => now.minus(offset).0 / 86_400_000_000,
            kind => panic!("{kind:?}"),
        }
    };
    assert_eq!(day("2026-03-29T00:30:00Z"), day("2026-03-29T01:30:00Z"));
    assert_eq!(day("2026-03-29T00:30:00Z"), day("2026-03-29T22:30:00Z"));
    assert_eq!(day("2026-03-29T00:30:00Z") + 1, day("2026-03-29T23:30:00Z"));
    let fields = crate::support::fields(&[("plan", "Mars/Olympus")]);
    assert!(connector.limits(&fields, contacts::Micros::ZERO).is_err());
}
