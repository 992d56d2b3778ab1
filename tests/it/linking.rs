//! Contact linking: a DMS (the demo CRM) and Web1on1, both as fakes that know the same people.

mod door;
mod scenes;

use std::time::Duration;

use contacts::{AccountId, accounts};
use fake_crm::{
    AccountOptions, Change, Control, FakeCrm, Fields, Options, Profile, RateLimit, Row, UpdateContact, Webhook,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::*;

pub const ADMIN: &str = "canary-ops-token-of-linking-scenes";
pub const SECRET: &str = "canary-dealer-secret-0001";
const HOOK_SECRET: &str = "canary-hook-secret";

/// Both systems, in one fake: the accounts `dms` and `chat`, and those of further dealers.
pub struct Sides {
    pub crm: FakeCrm,
    pub url: String,
    /// Holds the connector of Web1on1.
    folder: tempfile::TempDir,
    /// As the settings and the connector say it.
    per_second: u32,
    _served: Crm,
}

impl Sides {
    pub async fn start(contacts: usize) -> Sides {
        Sides::set_up(&[""], contacts, 1_000, None).await
    }

    /// Both systems count calls, and refuse those beyond this many in a second.
    pub async fn limited(contacts: usize, per_second: u32) -> Sides {
        Sides::limited_of(&[""], contacts, per_second).await
    }

    /// Of several dealers: the accounts `dms` and `chat` with each of these behind their names.
    async fn limited_of(dealers: &[&str], contacts: usize, per_second: u32) -> Sides {
        let limit = RateLimit {
            max: per_second,
            window: Duration::from_secs(1),
        };
        Sides::set_up(dealers, contacts, per_second, Some(limit)).await
    }

    async fn set_up(dealers: &[&str], contacts: usize, per_second: u32, limit: Option<RateLimit>) -> Sides {
        let account = |name: String, profile, like: Option<String>| AccountOptions {
            profile,
            like,
            token: format!("{name}-token"),
            name,
            contacts,
            users: 3,
            limit,
            ..AccountOptions::default()
        };
        let crm = FakeCrm::new(Options {
            seed: 11,
            accounts: dealers
                .iter()
                .flat_map(|dealer| {
                    let dms = format!("dms{dealer}");
                    let chat = account(format!("chat{dealer}"), Profile::Web1on1, Some(dms.clone()));
                    [account(dms, Profile::House, None), chat]
                })
                .collect(),
        });
        for dealer in dealers {
            crm.knobs(&format!("chat{dealer}"), |knobs| {
                for name in ["second", "address"] {
                    knobs.limits.insert(name.to_owned(), limit);
                }
            });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        tokio::spawn(crm.clone().serve(listener, stop.clone()));
        let served = Crm::of(crm.clone(), url.clone(), stop);
        // The shipped one, but for its limits of 20 calls a second: a test would only wait.
        let shipped = crm::Connector::shipped("web1on1").expect("it is shipped");
        let patient = "max    = 20\n";
        assert!(shipped.contains(patient));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fast = shipped.replace(patient, &format!("max    = {per_second}\n"));
        std::fs::write(folder.path().join("web1on1.toml"), fast).expect("a connector file");
        Sides {
            crm,
            url,
            folder,
            per_second,
            _served: served,
        }
    }

    pub fn organization(&self) -> String {
        Profile::Web1on1.organization_id("chat")
    }

    /// Gives one person's records on both sides an address that nobody else has, and no number.
    pub fn person(&self, id: u64, email: &str) {
        for account in ["dms", "chat"] {
            self.edit(account, id, email, "");
        }
    }

    pub fn edit(&self, account: &str, id: u64, email: &str, phone: &str) {
        let fields = Fields {
            emails: Some(vec![email.to_owned()]),
            phones: Some(if phone.is_empty() {
                Vec::new()
            } else {
                vec![phone.to_owned()]
            }),
            ..Fields::default()
        };
        self.crm
            .control(Control::edit(account, Change::ids([id]).with(fields)))
            .done();
    }

    pub fn row(&self, account: &str, id: u64) -> Option<Row> {
        let rows = self.crm.truth(account);
        rows.into_iter().find(|row| row.id == id.to_string())
    }

    /// The web addresses that a contact of Web1on1 shows.
    pub fn at_chat(&self, id: u64) -> Vec<String> {
        let row = self.row("chat", id);
        let links = row.map(|row| json!(row)["links"].clone()).unwrap_or_default();
        let links = links.as_array().cloned().unwrap_or_default();
        links
            .iter()
            .filter_map(|link| link["url"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// What a record of the DMS keeps of Web1on1.
    pub fn at_dms(&self, id: u64) -> Value {
        self.row("dms", id)
            .map(|row| json!(row)["web1on1"].clone())
            .unwrap_or_default()
    }

    /// Whether each record of this person shows the other, and nothing of anybody else's.
    pub fn is_linked(&self, id: u64) -> bool {
        let conversation = Profile::Web1on1
            .conversation_id(&id.to_string())
            .expect("a conversation");
        let at_dms = self.at_dms(id);
        self.at_chat(id) == [format!("https://dms.example/customer/{id}/")]
            && at_dms["url"] == format!("https://app.example/conversations/{conversation}")
            && at_dms["organization"] == self.organization()
    }

    pub fn has_no_links(&self, id: u64) -> bool {
        self.at_chat(id).is_empty() && self.at_dms(id)["url"].is_null()
    }

    /// `more`: further settings as TOML, dotted keys.
    pub fn settings(&self, more: &str) -> String {
        let (url, organization, per_second) = (&self.url, self.organization(), self.per_second);
        let connector = self.folder.path().join("web1on1.toml");
        let connector = connector.display();
        format!(
            "ops.admin = \"{ADMIN}\"\nrefresh.sweep = \"200ms\"\n\
             integrations.dealers.kind = \"linking\"\nintegrations.dealers.connector = \"{connector}\"\n\
             integrations.dealers.allow_hosts = [\"{url}\"]\nintegrations.dealers.connection.site = \"{url}\"\n\
             integrations.dealers.credentials.bot_token = \"chat-token\"\n\
             integrations.dealers.app.webhook_secret = \"{HOOK_SECRET}\"\n\
             integrations.dealers.dms = \"demo\"\nintegrations.dealers.dms_hosts = [\"{url}\"]\n\
             integrations.dealers.dms_connection.site = \"{url}\"\nintegrations.dealers.dms_connection.per_second = \"{per_second}\"\n\
             integrations.dealers.dms_url = \"https://dms.example/customer/{{id}}/\"\n\
             integrations.dealers.web1on1_url = \"https://app.example/conversations/{{conversation}}\"\n\
             dealers.oslo.integration = \"dealers\"\ndealers.oslo.organization = \"{organization}\"\n\
             dealers.oslo.secrets.first = \"{SECRET}\"\n\
             dealers.oslo.dms.account = \"dms\"\ndealers.oslo.dms.token = \"dms-token\"\n{more}"
        )
    }

    pub async fn bridge(&self, backend: Backend, more: &str) -> Bridge {
        let crm = Crm::of(self.crm.clone(), self.url.clone(), CancellationToken::new());
        Bridge::start(backend, &crm, &self.settings(more)).await
    }

    /// Has Web1on1 tell a bridge of its contacts.
    pub fn subscribe(&self, url: &str, more: Value) {
        let mut hook =
            json!({"url": format!("{url}/dealers/webhook"), "secret": HOOK_SECRET, "attempts": 30, "backoff_ms": 50});
        merge(&mut hook, more);
        let hook: Webhook = serde_json::from_value(hook).expect("a webhook");
        self.crm.control(Control::webhook("chat", Some(hook))).done();
    }

    /// Has the DMS tell a bridge of its records.
    pub fn tell(&self, url: &str, more: Value) {
        let mut update = json!({
            "url": format!("{url}/dealers/updatecontact"), "organization": self.organization(), "token": SECRET,
            "attempts": 30, "backoff_ms": 50,
        });
        merge(&mut update, more);
        let update: UpdateContact = serde_json::from_value(update).expect("where to call");
        self.crm.control(Control::update_contact("dms", Some(update))).done();
    }
}

fn merge(into: &mut Value, more: Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// One call of `/updatecontact` with the dealer's secret.
async fn update(bridge: &Bridge, query: &str, body: Value) -> (StatusCode, Value) {
    let request = bridge
        .http
        .post(format!("{}/dealers/updatecontact{query}", bridge.url))
        .bearer_auth(SECRET)
        .json(&body);
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.unwrap_or(Value::Null))
}

async fn api(bridge: &Bridge, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let mut request = bridge
        .http
        .request(method, format!("{}{path}", bridge.admin))
        .bearer_auth(ADMIN);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.unwrap_or(Value::Null))
}

async fn report(bridge: &Bridge) -> Value {
    let (status, reports) = api(bridge, Method::GET, "/api/links?dealer=oslo", None).await;
    assert_eq!(status, 200, "{reports}");
    reports[0].clone()
}

async fn account_of(bridge: &Bridge, integration: &str) -> AccountId {
    for id in account_ids(&*bridge.store, 10).await.expect("accounts") {
        let account = accounts::get(&*bridge.store, &id).await.expect("a store");
        if account.is_some_and(|account| account.integration == integration) {
            return id;
        }
    }
    panic!("there is no account of {integration}")
}

/// The largest figure of a metric, over its labels.
async fn metric(bridge: &Bridge, name: &str, label: &str) -> f64 {
    let answer = bridge
        .http
        .get(format!("{}/metrics", bridge.admin))
        .send()
        .await
        .expect("an answer");
    let text = answer.text().await.expect("a body");
    let of_it = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    of_it
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .fold(0.0, f64::max)
}

/// Until nothing of the dealer's waits, put-off work included.
async fn until_idle(bridge: &Bridge) {
    until("the inbox is empty", || async { report(bridge).await["waiting"] == 0 }).await;
}
