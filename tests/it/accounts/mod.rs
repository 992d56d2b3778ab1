//! The authentication types of an integration, and the life of credentials: a fake CRM that trusts an authorization
//! server, a connector for both, and a bridge.

mod activation;
mod brought;
mod budgets;
mod isolation;
mod minted;
mod none;
mod refused;

use std::collections::BTreeSet;

use contacts::accounts::Account;
use contacts::work::Work;
use contacts::{AccountId, Kind};
use fake_crm::OauthServer;
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::*;

pub const CLIENT: &str = "bridge-client";
pub const CLIENT_SECRET: &str = "client-secret-1";
pub const USER: &str = "ana";
pub const PASSWORD: &str = "correct horse";
/// Quick enough that a test need not wait for what comes by itself.
pub const QUICK: &str = "refresh.poll = \"300ms\"\nrefresh.sweep = \"100ms\"\nretry.first = \"50ms\"\n";

/// A CRM with its authorization server.
pub struct Stage {
    pub crm: Crm,
    pub oauth: OauthServer,
    pub oauth_url: String,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Stage {
    pub async fn start(contacts: usize) -> Stage {
        let crm = Crm::start(contacts).await;
        let oauth = OauthServer::new();
        oauth.client(CLIENT, CLIENT_SECRET, "demo");
        oauth.user(USER, PASSWORD, "demo", 1);
        oauth.user("bea", PASSWORD, "demo", 2);
        crm.crm.trust(&oauth);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let oauth_url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        tokio::spawn(oauth.clone().serve(listener, stop.clone()));
        Stage {
            crm,
            oauth,
            oauth_url,
            folder: tempfile::tempdir().expect("a temporary folder"),
            _stop: stop.drop_guard(),
        }
    }

    /// Settings of the integration `oauth`; `more` are further lines.
    pub fn settings(&self, auth_type: &str, connector: &str, more: &str) -> String {
        let file = self.folder.path().join("connector.toml");
        std::fs::write(&file, connector).expect("a connector file");
        format!(
            "integrations.oauth.connector = \"{}\"\nintegrations.oauth.auth_type = \"{auth_type}\"\n\
             integrations.oauth.allow_hosts = [\"{}\", \"{}\"]\nintegrations.oauth.connection.site = \"{}\"\n\
             integrations.oauth.connection.per_second = \"1000\"\n{more}",
            file.display(),
            self.crm.url,
            self.oauth_url,
            self.crm.url,
        )
    }

    pub async fn bridge(&self, backend: Backend, auth_type: &str, more: &str) -> Bridge {
        let settings = self.settings(auth_type, &connector(""), more);
        Bridge::start(backend, &self.crm, &settings).await
    }

    fn base(&self) -> Value {
        json!({
            "account": "demo", "client_id": CLIENT, "client_secret": CLIENT_SECRET,
            "access_token_url": format!("{}/oauth/token", self.oauth_url),
        })
    }

    pub fn with(&self, fields: Value) -> Value {
        let mut auth = self.base();
        for (name, value) in fields.as_object().expect("fields") {
            auth[name] = value.clone();
        }
        auth
    }

    /// `auth` of a password account.
    pub fn password(&self, user: &str, password: &str) -> Value {
        self.with(json!({"username": user, "password": password}))
    }

    /// `auth` of a client-credentials account.
    pub fn client(&self, secret: &str) -> Value {
        self.with(json!({"client_secret": secret}))
    }

    /// `auth` with a token that Talkdesk got.
    pub fn brought(&self, token: &str) -> Value {
        json!({"account": "demo", "access_token": token})
    }

    /// Talkdesk's side of the dance: the user consents, the code is exchanged. (access token, refresh token)
    pub async fn dance(&self, user: &str) -> (String, String) {
        let code = self.oauth.consent(user);
        self.token_call(&[("grant_type", "authorization_code"), ("code", &code)])
            .await
    }

    /// Talkdesk renews its token, as it does upon a 401.
    pub async fn renew(&self, refresh: &str) -> (String, String) {
        self.token_call(&[("grant_type", "refresh_token"), ("refresh_token", refresh)])
            .await
    }

    async fn token_call(&self, fields: &[(&str, &str)]) -> (String, String) {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields)
            .extend_pairs([("client_id", CLIENT), ("client_secret", CLIENT_SECRET)]);
        let response = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .post(format!("{}/oauth/token", self.oauth_url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish())
            .send()
            .await
            .expect("an answer");
        let body: Value = response.json().await.expect("JSON");
        let text = |name: &str| body[name].as_str().expect(name).to_owned();
        (text("access_token"), text("refresh_token"))
    }

    /// Every call that reached the CRM, whatever it was answered.
    pub fn crm_calls(&self) -> u64 {
        self.crm.crm.stats("demo").calls.values().sum()
    }

    /// Calls that reached the CRM or its authorization server.
    pub fn all_calls(&self) -> u64 {
        self.crm_calls() + self.oauth.stats().total()
    }
}

/// The demo connector with OAuth 2. `more` goes into `[auth]`.
pub fn connector(more: &str) -> String {
    let demo = crm::Connector::shipped("demo").expect("the demo connector");
    let changes = [
        (
            "token      = { type = \"secret\", title = \"API token\" }",
            "access_token = { type = \"secret\" }\nclient_id = { type = \"string\", role = \"secret\" }\n\
             client_secret = { type = \"secret\" }\nusername = { type = \"string\", role = \"principal\" }\n\
             password = { type = \"secret\" }\naccess_token_url = { type = \"string\", role = \"ignored\" }",
        ),
        (
            "kind  = \"bearer\"\ntoken = \"${conn.token}\"",
            "kind = \"oauth2\"\ngrants = [\"client_credentials\", \"password\", \"code\"]",
        ),
        (
            "visibility = \"response.body.visibility\"",
            "visibility = \"response.body.visibility\"\nlearn = { org_name = \"response.body.account.name\" }",
        ),
    ];
    let text = changes.iter().fold(demo.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the demo connector");
        text.replace(from, to)
    });
    text.replace("kind = \"oauth2\"", &format!("kind = \"oauth2\"\n{more}"))
}

/// What Talkdesk does with the integration `oauth`.
pub trait Oauth {
    async fn activate(&self, auth: &Value) -> (u16, Value);
    async fn sync_as(&self, auth: &Value, meta: Value) -> (u16, Value);
    /// One whole run; every page must be good.
    async fn run_as(&self, auth: &Value, checkpoint: Option<&str>) -> Run;
    async fn accounts(&self) -> Vec<AccountId>;
    async fn work(&self) -> Work;
    async fn kept(&self) -> Account;
    /// Activates and waits until the first full pass has ended.
    async fn built_as(&self, auth: &Value) -> AccountId;
    async fn parked(&self);
}

impl Oauth for Bridge {
    async fn activate(&self, auth: &Value) -> (u16, Value) {
        self.post("/oauth/auth_validation", json!({ "auth": auth })).await
    }

    async fn sync_as(&self, auth: &Value, meta: Value) -> (u16, Value) {
        self.post("/oauth/contact_sync", json!({"auth": auth, "meta": meta}))
            .await
    }

    async fn run_as(&self, auth: &Value, checkpoint: Option<&str>) -> Run {
        run_at(self, "/oauth/contact_sync", auth, checkpoint).await
    }

    async fn accounts(&self) -> Vec<AccountId> {
        account_ids(&*self.store, 10).await.expect("accounts")
    }

    async fn work(&self) -> Work {
        contacts::work::load(&*self.store, &self.account().await)
            .await
            .expect("the account's work")
    }

    async fn kept(&self) -> Account {
        let id = self.account().await;
        let account = contacts::accounts::get(&*self.store, &id).await.expect("the store");
        account.expect("the account")
    }

    async fn built_as(&self, auth: &Value) -> AccountId {
        let before: BTreeSet<AccountId> = self.accounts().await.into_iter().collect();
        let (status, body) = self.activate(auth).await;
        assert_eq!(status, 200, "{body}");
        let after = self.accounts().await;
        let account = after
            .iter()
            .find(|id| !before.contains(id))
            .unwrap_or(&after[0])
            .clone();
        built(self, &account).await;
        account
    }

    async fn parked(&self) {
        until("the account is parked", || async { self.work().await.park.is_some() }).await;
    }
}

pub async fn built(bridge: &Bridge, account: &AccountId) {
    until("the first full pass is complete", || async {
        let work = contacts::work::load(&*bridge.store, account)
            .await
            .expect("the account's work");
        work.tasks.get(&Kind::Full).is_some_and(|task| task.last_done.is_some())
    })
    .await;
}

/// One whole run at a path.
pub async fn run_at(bridge: &Bridge, path: &str, auth: &Value, checkpoint: Option<&str>) -> Run {
    let mut run = Run::default();
    let mut meta = json!({ "synchronization_checkpoint": checkpoint });
    loop {
        let (status, page) = bridge.post(path, json!({"auth": auth, "meta": meta})).await;
        assert_eq!(status, 200, "{page}");
        run.pages += 1;
        run.contacts
            .extend(page["contacts"].as_array().expect("contacts").iter().cloned());
        let checkpoint = page["synchronization_checkpoint"].as_str();
        run.checkpoint = checkpoint.expect("a checkpoint").to_owned();
        let Some(next) = page.get("next_offset") else {
            return run;
        };
        meta = json!({"offset": next, "context": page["context"]});
        assert!(run.pages < 10_000, "a run without end");
    }
}
