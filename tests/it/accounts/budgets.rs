//! Whose budget a call counts against, by the CRM's own counter: a CRM whose tokens alone say which account and user they
//! belong to, with a limit for each, and one for the application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use contacts::ledger::{Ledger, Limit, LimitKind, LimitScope, Scopes};
use contacts::{Clock, SystemClock};
use parking_lot::Mutex;

use super::*;

const CONNECTOR: &str = r#"format = 1
id = "tokens"
title = "Tokens"

[connection]
base_url = "${conn.site}"
hosts = '^tokens\.invalid$'
[connection.fields]
site = { type = "site", from = "integration" }
token = { type = "secret" }

[auth]
kind = "bearer"
token = "${conn.token}"

[check]
request = { path = "/me" }
org = "response.body.org"
principal = "response.body.user"
visibility = "'user'"

[contacts.full]
request = { path = "/contacts", query = { after = "${page.token}" } }
items = "response.body.results"
page = { kind = "token", next = "response.body.next" }

[contacts.map]
id = "item.id"
name = "item.name"

[[limits]]
name = "organisation"
kind = "quota"
window = "1d"
max = 1000

[[limits]]
name = "each"
kind = "quota"
window = "1d"
max = 1000
scope = "user"

[[limits]]
name = "application"
kind = "quota"
window = "1d"
max = 1000
scope = "app"
"#;

/// Calls by token, which is organisation and user.
type Calls = Arc<Mutex<BTreeMap<String, u64>>>;

async fn crm(calls: Calls) -> String {
    fn count(calls: &Calls, headers: &HeaderMap) -> (String, String) {
        let bearer = headers["authorization"].to_str().expect("text");
        let token = bearer.strip_prefix("Bearer ").expect("a bearer token").to_owned();
        let (org, user) = token.split_once('-').expect("organisation and user");
        let found = (org.to_owned(), user.to_owned());
        *calls.lock().entry(token).or_default() += 1;
        found
    }
    let me = async |State(calls): State<Calls>, headers: HeaderMap| {
        let (org, user) = count(&calls, &headers);
        axum::Json(json!({"org": org, "user": user}))
    };
    // Three pages of one contact.
    let contacts = async |State(calls): State<Calls>, headers: HeaderMap, uri: axum::http::Uri| {
        count(&calls, &headers);
        let page = ["p1", "p2"]
            .iter()
            .position(|page| uri.query().is_some_and(|query| query.contains(page)));
        let (id, next) = match page {
            None => (1, json!("p1")),
            Some(0) => (2, json!("p2")),
            Some(_) => (3, Value::Null),
        };
        axum::Json(json!({"results": [{"id": id, "name": format!("Contact {id}")}], "next": next}))
    };
    let router = Router::new()
        .route("/me", get(me))
        .route("/contacts", get(contacts))
        .with_state(calls);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

on_both!(
    invariant_10_each_call_counts_against_its_account_its_user_and_the_application,
    |backend| async move {
        let calls = Calls::default();
        let url = crm(calls.clone()).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("connector.toml");
        std::fs::write(&file, CONNECTOR).expect("a connector file");
        // Nothing calls by itself; the CRM of the harness has no part in this.
        let settings = format!(
            "refresh.poll = \"1h\"\nrefresh.reconcile = \"7days\"\nintegrations.oauth.connector = \"{}\"\n\
             integrations.oauth.allow_hosts = [\"{url}\"]\nintegrations.oauth.connection.site = \"{url}\"\n",
            file.display()
        );
        let bridge = Bridge::start(backend, &Crm::start(1).await, &settings).await;
        let mut accounts = BTreeMap::new();
        for token in ["north-ana", "north-bea", "south-ana"] {
            let id = bridge.built_as(&json!({ "token": token })).await;
            let account = contacts::accounts::get(&*bridge.store, &id).await.expect("the store");
            accounts.insert(token, account.expect("the account"));
        }
        assert_eq!(accounts["north-ana"].budget, accounts["north-bea"].budget);
        assert_ne!(accounts["north-ana"].budget, accounts["south-ana"].budget);

        let ledger = Ledger::new(bridge.store.clone());
        let limits = [
            ("organisation", LimitScope::Account),
            ("each", LimitScope::User),
            ("application", LimitScope::App),
        ]
        .map(|(name, scope)| Limit {
            name: name.to_owned(),
            kind: LimitKind::Quota {
                period: Duration::from_secs(24 * 3_600),
                offset: Duration::ZERO,
                max: 1_000,
            },
            scope,
        });
        let app = bridge.keys.app_budget_scope("tokens", "oauth");
        let spent = async || {
            let mut spent = BTreeMap::new();
            for (token, account) in &accounts {
                let scopes = Scopes {
                    ip: None,
                    app: Some(app.clone()),
                    account: Some(account.budget.clone()),
                    user: account.user_budget.clone(),
                };
                let left = ledger
                    .left(&scopes, &limits, SystemClock.now())
                    .await
                    .expect("the budgets");
                spent.insert(
                    (*token).to_owned(),
                    left.iter().map(|left| 1_000 - left.left).collect::<Vec<_>>(),
                );
            }
            spent
        };
        let counted = || {
            let calls = calls.lock().clone();
            let of = |prefix: &str| -> u64 {
                let of = calls.iter().filter(|(token, _)| token.starts_with(prefix));
                of.map(|(_, calls)| calls).sum()
            };
            let each = |token: &str| vec![of(&token[..5]), of(token), of("")];
            let tokens = accounts.keys().map(|token| ((*token).to_owned(), each(token)));
            tokens.collect::<BTreeMap<String, Vec<u64>>>()
        };
        until("every call is counted where it belongs", || async {
            spent().await == counted()
        })
        .await;
        // Each was checked once and read once.
        assert_eq!(counted()["south-ana"], [4, 4, 12]);
        bridge.stop().await;
    }
);
