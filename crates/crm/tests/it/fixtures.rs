//! The shipped connectors against their fixtures: each file is a conversation (what must be asked, what is answered) or a
//! webhook's delivery, and `expected.json` says what must come out. `fixtures/fields.toml` holds what the account gives.
//!
//! `SNAPBRIDGE_RECORD=1` writes what is asked and what comes out into the files: for whoever writes a connector, who then
//! reads the difference. The run fails all the same.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use contacts::Micros;
use contacts::linking::Needle;
use crm::{
    AllowHosts, Client, ClientSettings, Connector, CrmError, Deed, Http, LinkTo, Linked, Pacer, Page, Person,
    WebhookRequest, Window,
};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{client_over, listed, serve};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// `check`, `full`, `changes`, `get_many`, `deleted`, `ids`, `agents`, `interactions`, `act`, `webhook`, `link_news`, `challenge`,
    /// `subscriptions`, `subscribe`, `renew`, `reveal`, `unsubscribe`, `find_linked`, `read_linked` or `write_link`; listings are
    /// walked to their end.
    call: String,
    /// The type of interactions, the name of the action, or the topic of a subscription.
    #[serde(default)]
    name: String,
    /// Of an action, or whose record is read or given a link.
    #[serde(default)]
    contact: Option<String>,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    /// The inputs of the action; `email` or `phone` that somebody is found by; what a record is given.
    #[serde(default)]
    data: serde_json::Map<String, Value>,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    until: Option<String>,
    /// The delta token that a change pass begins with.
    #[serde(default)]
    token: Option<Value>,
    #[serde(default)]
    exchanges: Vec<Exchange>,
    #[serde(default)]
    delivery: Option<Delivery>,
}

/// What a webhook sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivery {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    secret: String,
    #[serde(default)]
    hook_id: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    #[serde(default)]
    request: Asked,
    reply: Reply,
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    method: String,
    /// With the query.
    path: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// JSON, or the text of anything else.
    #[serde(skip_serializing_if = "Value::is_null")]
    body: Value,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// JSON; `null` is an empty body, and text is sent as it is. `ORIGIN` in it stands for where the CRM listens.
    body: Value,
}

fn ok() -> u16 {
    200
}

#[derive(Default)]
struct Script {
    exchanges: Mutex<VecDeque<Exchange>>,
    surprises: Mutex<Vec<String>>,
    asked: Mutex<Vec<Asked>>,
}

impl Script {
    fn of(exchanges: &[Exchange]) -> Arc<Script> {
        Arc::new(Script {
            exchanges: Mutex::new(exchanges.iter().cloned().collect()),
            ..Script::default()
        })
    }
}

/// A server that plays one script after the other.
struct Stage {
    origin: String,
    http: Http,
    script: Arc<Mutex<Arc<Script>>>,
}

async fn stage() -> Stage {
    let script = Arc::new(Mutex::new(Arc::new(Script::default())));
    let now_played = script.clone();
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let script = now_played.lock().clone();
        let host = headers.get("host").and_then(|host| host.to_str().ok());
        let origin = format!("http://{}", host.unwrap_or_default());
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))),
        };
        let Some(Exchange { request, reply }) = script.exchanges.lock().pop_front() else {
            script
                .surprises
                .lock()
                .push(format!("one call too many: {method} {path}"));
            return (StatusCode::IM_A_TEAPOT, HeaderMap::new(), String::new());
        };
        let note = |what: &str, expected: &Value, got: &Value| {
            if expected != got {
                script
                    .surprises
                    .lock()
                    .push(format!("{what}: expected {expected}, got {got}"));
            }
        };
        note("method", &json!(request.method), &json!(method.as_str()));
        note("path", &json!(request.path), &json!(path));
        note("body", &request.body, &body);
        for (name, value) in &request.headers {
            let got = headers.get(name.as_str()).and_then(|value| value.to_str().ok());
            note(name, &json!(value), &json!(got));
        }
        const DULL: [&str; 6] = [
            "host",
            "accept",
            "accept-encoding",
            "content-type",
            "content-length",
            "user-agent",
        ];
        let told = headers.iter().filter(|(name, _)| !DULL.contains(&name.as_str()));
        script.asked.lock().push(Asked {
            method: method.to_string(),
            path,
            headers: told
                .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
                .collect(),
            body,
        });
        let mut given = HeaderMap::new();
        given.insert("content-type", "application/json".parse().expect("a value"));
        for (name, value) in &reply.headers {
            given.insert(
                HeaderName::try_from(name).expect("a name"),
                value.replace("ORIGIN", &origin).parse().expect("a value"),
            );
        }
        let body = match &reply.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        (
            StatusCode::from_u16(reply.status).expect("a status"),
            given,
            body.replace("ORIGIN", &origin),
        )
    };
    let origin = serve(Router::new().fallback(handler)).await;
    let allow = AllowHosts::parse(&[&origin]).expect("an origin");
    Stage {
        http: Http::new(ClientSettings::default(), allow).expect("a client"),
        origin,
        script,
    }
}

fn shown(result: Result<Value, CrmError>) -> Value {
    result.unwrap_or_else(|error| json!({ "error": error.kind.as_str(), "message": error.to_string() }))
}

fn page_json(page: &Page) -> Value {
    let rows: Vec<Value> = page
        .rows
        .iter()
        .map(|row| {
            let mut shown = json!({ "contact": row.contact, "updated": row.updated.to_string() });
            if row.removed {
                shown["removed"] = json!(true);
            }
            if !row.aliases.is_empty() {
                shown["aliases"] = json!(row.aliases);
            }
            shown
        })
        .collect();
    let mut shown = json!({ "rows": rows, "repairs": page.repairs, "dropped": page.dropped });
    if let Some(delta) = &page.delta {
        shown["delta"] = delta.clone();
    }
    shown
}

async fn walk(client: &Client, fixture: &Fixture, origin: &str) -> Result<Vec<Value>, CrmError> {
    let time = |text: &Option<String>| text.as_deref().and_then(Micros::parse).unwrap_or_default();
    let window = Window {
        since: time(&fixture.since),
        until: time(&fixture.until),
    };
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let at = cursor.as_ref();
        let (page, next) = match fixture.call.as_str() {
            "full" => {
                let page = client.full_page(at).await?;
                (page_json(&page), page.next)
            }
            "changes" => {
                // A token may be a link.
                let text = |token: &Value| token.as_str().map(|text| json!(text.replace("ORIGIN", origin)));
                let token = fixture.token.as_ref().map(|token| text(token).unwrap_or(token.clone()));
                let page = client.changes_page(window, token.as_ref(), at).await?;
                (page_json(&page), page.next)
            }
            "deleted" => {
                let page = client.deleted_page(window.since, at).await?;
                let show = |gone: &crm::Deleted| json!([gone.id, gone.at.to_string(), gone.merged_into]);
                (page.deleted.iter().map(show).collect(), page.next)
            }
            "ids" => {
                let page = client.ids_page(at).await?;
                (json!(page.ids), page.next)
            }
            "agents" => {
                let page = client.agents_page(at).await?;
                (json!({ "agents": page.agents, "dropped": page.dropped }), page.next)
            }
            other => panic!("no call is named {other}"),
        };
        pages.push(page);
        cursor = next;
        if cursor.is_none() {
            return Ok(pages);
        }
    }
}

async fn result_of(client: &Client, fixture: &Fixture, origin: &str) -> Value {
    match fixture.call.as_str() {
        "check" => shown(client.check().await.map(|checked| {
            json!({ "org": checked.org, "principal": checked.principal, "sees_all": checked.sees_all, "learned": checked.learned })
        })),
        "get_many" => shown(client.get_many(&fixture.ids).await.map(|many| {
            let mut shown = page_json(&many.page);
            shown["missing"] = json!(many.missing);
            shown
        })),
        "interactions" => {
            let person = Person {
                id: fixture.contact.clone().unwrap_or_default(),
                ..Person::default()
            };
            let found = client.interactions(&fixture.name, &person).await;
            shown(found.map(|found| json!({ "items": found.items, "dropped": found.dropped })))
        }
        "act" => act(client, fixture).await,
        "webhook" | "link_news" | "challenge" => delivered(client.connector(), fixture),
        "find_linked" | "read_linked" | "write_link" => shown(linked(client, fixture).await),
        "subscriptions" | "subscribe" | "renew" | "reveal" | "unsubscribe" => shown(subscription(client, fixture).await),
        _ => shown(walk(client, fixture, origin).await.map(Value::from)),
    }
}

/// One call about the subscription to `HOOK_URL`, the first of `ids` where it is known.
async fn subscription(client: &Client, fixture: &Fixture) -> Result<Value, CrmError> {
    let own = "0123456789abcdef".repeat(4);
    let hook = crm::Hook {
        url: HOOK_URL.to_owned(),
        secret: client.connector().webhook().expect("a webhook").secret(&own),
        number: 123_456_789_012_345,
    };
    let id = fixture.ids.first().map(String::as_str).unwrap_or_default();
    let told = |made: crm::Subscribed| {
        let secret = made.secret.as_ref().map(|secret| secret.expose_secret());
        json!({ "id": made.id, "secret": secret, "expires": made.expires.map(|at| at.to_string()) })
    };
    Ok(match fixture.call.as_str() {
        "subscriptions" => {
            let listed = client.subscriptions(&hook).await?;
            let rows = listed.iter();
            rows.map(|row| json!([row.id, row.url, row.topic, row.expires.map(|at| at.to_string())]))
                .collect()
        }
        "subscribe" => told(client.subscribe(&hook, &fixture.name).await?),
        "renew" => told(client.renew_subscription(&hook, &fixture.name, id).await?),
        "reveal" => json!(client.subscription_secret(&hook, id).await?.expose_secret()),
        _ => json!(client.unsubscribe(&hook, id).await?),
    })
}

async fn linked(client: &Client, fixture: &Fixture) -> Result<Value, CrmError> {
    let text = |name: &str| fixture.data.get(name).and_then(Value::as_str).map(str::to_owned);
    let organization = fixture.organization.as_deref();
    let id = fixture.contact.clone().unwrap_or_default();
    let told = |linked: &Linked| {
        json!({
            "id": linked.id, "organization": linked.organization, "conversation": linked.conversation, "name": linked.name,
            "emails": linked.emails, "phones": linked.phones, "links": linked.links, "url": linked.url, "record": linked.record,
        })
    };
    match fixture.call.as_str() {
        "find_linked" => {
            let needle = match (text("email"), text("phone")) {
                (Some(email), None) => Needle::Email(email),
                (None, Some(phone)) => Needle::Phone(phone),
                _ => panic!("somebody is found by an email or by a phone"),
            };
            let found = client.find_linked(&needle, organization).await?;
            Ok(found.iter().map(told).collect())
        }
        "read_linked" => client.read_linked(&id, organization).await.map(|linked| told(&linked)),
        _ => {
            let links = fixture.data.get("links").and_then(Value::as_array).cloned();
            let to = LinkTo {
                id,
                organization: organization.map(str::to_owned),
                conversation: text("conversation"),
                url: text("url"),
                label: text("label"),
                icon: text("icon"),
                links: links.unwrap_or_default(),
                name: text("name"),
                email: text("email"),
                phone: text("phone"),
                record: fixture.data.get("record").cloned().unwrap_or_default(),
            };
            client.write_link(&to).await.map(|()| json!("written"))
        }
    }
}

async fn act(client: &Client, fixture: &Fixture) -> Value {
    let inputs = client.connector().inputs(&fixture.name, &fixture.data, Some("PT"));
    let inputs = match inputs.unwrap_or_else(|| panic!("no action is named {}", fixture.name)) {
        Ok(inputs) => inputs,
        Err(bad) => return json!({ "bad_inputs": bad.0 }),
    };
    let deed = Deed {
        inputs,
        contact: fixture.contact.clone(),
        agent: fixture.agent.clone(),
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    match client.act(&fixture.name, &deed, deadline).await {
        Ok(done) => json!({
            "message": done.message, "external_id": done.external_id, "contact_external_id": done.contact_external_id,
            "contact_external_type": done.contact_external_type, "contact_external_url": done.contact_external_url,
        }),
        Err(error) => json!({ "fate": format!("{:?}", error.fate()), "message": error.to_string() }),
    }
}

fn delivered(connector: &Connector, fixture: &Fixture) -> Value {
    let delivery = fixture.delivery.as_ref().expect("a delivery");
    let hooks = connector.webhook().expect("a webhook");
    if fixture.call == "challenge" {
        return json!(hooks.challenge(&delivery.query));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &delivery.headers {
        headers.insert(
            HeaderName::try_from(name).expect("a name"),
            value.parse().expect("a value"),
        );
    }
    let request = WebhookRequest {
        method: "POST",
        url: HOOK_URL,
        headers: &headers,
        query: &delivery.query,
        body: delivery.body.as_bytes(),
        hook_id: delivery.hook_id.as_deref(),
    };
    let verified = hooks.verify(&request, &[delivery.secret.clone().into()], now());
    if fixture.call == "link_news" {
        return match verified.and_then(|verified| connector.link_news(&verified)) {
            Err(refused) => json!({ "refused": refused.to_string() }),
            Ok(news) => json!({ "events": news.events, "users_of": news.users_of }),
        };
    }
    match verified.and_then(|verified| hooks.events(&verified)) {
        Err(refused) => json!({ "refused": refused.to_string() }),
        Ok(events) => events
            .iter()
            .map(|event| {
                let mut told = json!({
                    "account": event.account, "ids": event.ids, "deleted": event.deleted, "dedupe": event.dedupe,
                    "at": event.at.map(|at| at.to_string()), "relevant": event.relevant,
                });
                if event.agents {
                    told["agents"] = true.into();
                }
                told
            })
            .collect(),
    }
}

/// Where the deliveries of the fixtures go.
const HOOK_URL: &str = "https://bridge.example.com/hooks/crm";

/// When the fixtures are played.
fn now() -> Micros {
    Micros::parse("2026-11-21T02:00:00Z").expect("a time")
}

struct Then;

impl contacts::Clock for Then {
    fn now(&self) -> Micros {
        now()
    }
}

fn folder(connector: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../connectors")
        .join(connector)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fixtures of a connector.
struct Fixtures {
    folder: PathBuf,
    /// What the account and the integration give.
    fields: BTreeMap<String, String>,
    all: BTreeMap<String, Fixture>,
    expected: BTreeMap<String, Value>,
}

impl Fixtures {
    fn read(id: &str) -> Fixtures {
        let folder = folder(id).join("fixtures");
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let Some(name) = name.strip_suffix(".json").filter(|name| *name != "expected") else {
                continue;
            };
            let text = read(&folder.join(format!("{name}.json")));
            let fixture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{id}: {name}: {error}"));
            all.insert(name.to_owned(), fixture);
        }
        let expected = folder.join("expected.json");
        let expected = match recording() && !expected.exists() {
            true => BTreeMap::new(),
            false => serde_json::from_str(&read(&expected)).expect("expected.json is JSON"),
        };
        Fixtures {
            fields: toml::from_str(&read(&folder.join("fields.toml"))).expect("fields.toml holds texts"),
            folder,
            all,
            expected,
        }
    }

    /// What comes out of one fixture, and the exchanges as they went.
    async fn play(&self, stage: &Stage, fixture: &Fixture, connector: Connector) -> (Value, Arc<Script>) {
        let script = Script::of(&fixture.exchanges);
        *stage.script.lock() = script.clone();
        let extra = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let extra: Vec<(&str, &str)> = extra.collect();
        let (http, pacer) = (stage.http.clone(), Pacer::unlimited());
        let client = client_over(http, connector, &stage.origin, &extra, pacer, Arc::new(Then));
        let client = client.unwrap_or_else(|error| panic!("{error}"));
        let result = result_of(&client, fixture, &stage.origin).await.to_string();
        let result = result.replace(&stage.origin, "ORIGIN");
        (serde_json::from_str(&result).expect("JSON"), script)
    }
}

fn recording() -> bool {
    std::env::var_os("SNAPBRIDGE_RECORD").is_some()
}

fn record(path: &Path, value: &Value) {
    let text = serde_json::to_string_pretty(value).expect("JSON");
    std::fs::write(path, text + "\n").expect("the file can be written");
}

/// What the fixtures of a connector ask: the fixture's name and the request.
pub fn requests_of(id: &str) -> Vec<(String, Value)> {
    let fixtures = Fixtures::read(id);
    let asked = fixtures.all.iter().flat_map(|(name, fixture)| {
        let requests = fixture.exchanges.iter();
        requests.map(move |exchange| (name.clone(), json!(exchange.request)))
    });
    asked.collect()
}

/// Plays every fixture of a connector. Calls go to a server whose origin changes: `ORIGIN` stands for it.
async fn replay(id: &str) {
    let source = &read(&folder(id).join("connector.toml"));
    let (fixtures, stage) = (Fixtures::read(id), stage().await);
    let unplayed = fixtures
        .expected
        .keys()
        .filter(|name| !fixtures.all.contains_key(*name));
    let mut wrong: Vec<String> = unplayed
        .map(|name| format!("{name}: expected, and there is no such fixture"))
        .collect();
    let mut results = BTreeMap::new();
    for (name, fixture) in &fixtures.all {
        let connector =
            Connector::load(source, "connector.toml").unwrap_or_else(|problems| panic!("{}", listed(&problems)));
        let (result, script) = fixtures.play(&stage, fixture, connector).await;
        let surprises = script.surprises.lock().clone();
        let left: Vec<String> = script
            .exchanges
            .lock()
            .iter()
            .map(|left| left.request.path.clone())
            .collect();
        if recording() && !surprises.is_empty() {
            let path = fixtures.folder.join(format!("{name}.json"));
            let mut whole: Value = serde_json::from_str(&read(&path)).expect("JSON");
            for (i, asked) in script.asked.lock().iter().enumerate() {
                whole["exchanges"][i]["request"] = json!(asked);
            }
            record(&path, &whole);
        }
        wrong.extend(surprises.iter().map(|surprise| format!("{name}: {surprise}")));
        wrong.extend(left.iter().map(|left| format!("{name}: never asked {left}")));
        if fixtures.expected.get(name) != Some(&result) {
            wrong.push(format!("{name}: the result differs"));
        }
        results.insert(name.clone(), result);
    }
    if recording() && fixtures.expected != results {
        record(&fixtures.folder.join("expected.json"), &json!(results));
    }
    if recording() {
        wrong.push("recorded: read the difference".to_owned());
    }
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        serde_json::to_string_pretty(&results).expect("JSON")
    );
}

/// A row's value that the fixtures do not depend on is a mapping that nobody tests: each expression is replaced in turn,
/// each field that it reads is misspelt in turn, and something must come out differently every time.
async fn break_each_field(id: &str) {
    let source = read(&folder(id).join("connector.toml"));
    let (fixtures, stage) = (Fixtures::read(id), stage().await);
    let mut untested = Vec::new();
    for (place, broken) in broken_in_turn(&source) {
        let mut same = true;
        for (name, fixture) in fixtures.all.iter().filter(|(_, fixture)| concerns(&place, fixture)) {
            let connector = Connector::load(&broken, "connector.toml");
            let connector = connector.unwrap_or_else(|problems| panic!("{place}: {}", listed(&problems)));
            let (result, _) = fixtures.play(&stage, fixture, connector).await;
            if fixtures.expected.get(name) != Some(&result) {
                same = false;
                break;
            }
        }
        if same {
            untested.push(place);
        }
    }
    assert!(untested.is_empty(), "{id}: nothing depends on\n{}", untested.join("\n"));
}

macro_rules! replayed {
    ($($name:ident $id:literal)*) => {
        $(mod $name {
            #[tokio::test]
            async fn says_what_is_expected() {
                super::replay($id).await;
            }

            #[tokio::test]
            async fn every_field_matters() {
                super::break_each_field($id).await;
            }
        })*

        #[test]
        fn every_shipped_connector_is_replayed() {
            let replayed = [$($id),*];
            let shipped: Vec<&str> = Connector::shipped_ids().collect();
            assert_eq!(shipped, replayed);
        }
    };
}

replayed! {
    dataverse "dataverse"
    demo "demo"
    espocrm "espocrm"
    freshdesk "freshdesk"
    hubspot "hubspot"
    intercom "intercom"
    odoo "odoo"
    odoo_json2 "odoo-json2"
    pipedrive "pipedrive"
    salesforce "salesforce"
    twenty "twenty"
    web1on1 "web1on1"
    zendesk "zendesk"
    zoho "zoho"
}

/// Which fixtures may show that an expression is wrong.
fn concerns(place: &str, fixture: &Fixture) -> bool {
    let call = fixture.call.as_str();
    match place.split('.').next().unwrap_or_default() {
        "contacts" => matches!(call, "full" | "changes" | "get_many"),
        "agents" => call == "agents",
        "interactions" => call == "interactions" && place.contains(&format!("[{}]", fixture.name)),
        "actions" => call == "act" && place.contains(&format!("[{}]", fixture.name)),
        "webhook" => call == "webhook",
        "link" if place.starts_with("link.events") => call == "link_news",
        "link" => matches!(call, "find_linked" | "read_linked"),
        "subscribe" => matches!(call, "subscriptions" | "subscribe" | "renew" | "reveal"),
        _ => call == "check",
    }
}

/// The connector with one thing broken, for each expression of its mappings and each field that one of them reads.
fn broken_in_turn(source: &str) -> Vec<(String, String)> {
    let whole: toml::Table = toml::from_str(source).expect("TOML");
    let mut broken = Vec::new();
    let mut breaks = |place: String, keys: &[Step]| {
        let mut changed = toml::Value::Table(whole.clone());
        let text = at(&mut changed, keys).as_str().expect("an expression").to_owned();
        for (what, replaced) in misspelt(&text) {
            *at(&mut changed, keys) = replaced.into();
            broken.push((format!("{place}: {what}"), toml::to_string(&changed).expect("TOML")));
        }
    };
    let expressions = |table: Option<&toml::Value>| -> Vec<String> {
        let table = table.and_then(toml::Value::as_table);
        let texts = table.into_iter().flatten().filter(|(_, value)| value.is_str());
        texts
            .map(|(key, _)| key.clone())
            .filter(|key| !key.ends_with("_as"))
            .collect()
    };
    for (room, part) in [
        ("contacts", "map"),
        ("agents", "map"),
        ("check", "learn"),
        ("webhook", "events"),
        ("link", "map"),
        ("link", "find"),
        ("link", "read"),
        ("link", "events"),
    ] {
        for key in expressions(whole.get(room).and_then(|table| table.get(part))) {
            breaks(
                format!("{room}.{part}.{key}"),
                &[Step::Key(room), Step::Key(part), Step::Key(&key)],
            );
        }
    }
    let lookups = whole["contacts"].get("lookups").and_then(toml::Value::as_array);
    for nth in 0..lookups.map_or(0, Vec::len) {
        for key in ["of", "key", "value"] {
            let keys = [
                Step::Key("contacts"),
                Step::Key("lookups"),
                Step::Nth(nth),
                Step::Key(key),
            ];
            breaks(format!("contacts.lookups.{key}"), &keys);
        }
    }
    if let Some(subscribe) = whole.get("webhook").and_then(|webhook| webhook.get("subscribe")) {
        for part in ["list", "capture", "reveal"] {
            for key in expressions(subscribe.get(part)) {
                let keys = [
                    Step::Key("webhook"),
                    Step::Key("subscribe"),
                    Step::Key(part),
                    Step::Key(&key),
                ];
                breaks(format!("subscribe.{part}.{key}"), &keys);
            }
        }
    }
    for key in ["org", "principal"] {
        if whole["check"].get(key).is_some() {
            breaks(format!("check.{key}"), &[Step::Key("check"), Step::Key(key)]);
        }
    }
    for (room, part, name) in [("interactions", "map", "type"), ("actions", "result", "name")] {
        let list = whole.get(room).and_then(toml::Value::as_array).into_iter().flatten();
        for (nth, table) in list.enumerate() {
            let called = table[name].as_str().unwrap_or_default();
            for key in expressions(table.get(part)) {
                let keys = [Step::Key(room), Step::Nth(nth), Step::Key(part), Step::Key(&key)];
                breaks(format!("{room}.[{called}].{part}.{key}"), &keys);
            }
        }
    }
    broken
}

/// An expression that is another altogether, and the same with each field that it reads misspelt.
fn misspelt(text: &str) -> Vec<(String, String)> {
    let mut all = vec![("another expression".to_owned(), "'another'".to_owned())];
    let field = regex::Regex::new(r"(?:\b[a-z_]\w*(?:\.\w+)+|attribute='[^']+)").expect("a pattern");
    for found in field.find_iter(text) {
        let quotes = text[..found.start()].matches('\'').count();
        // What an account gives is not of the row, and what stands in quotes is no field.
        let ours = ["conn.", "session.", "contact.", "lookup.", "response.status"];
        let is_ours = ours.iter().any(|root| found.as_str().starts_with(root)) || found.as_str() == "response.body";
        if is_ours || quotes % 2 == 1 {
            continue;
        }
        let replaced = format!("{}_misspelt{}", &text[..found.end()], &text[found.end()..]);
        all.push((found.as_str().to_owned(), replaced));
    }
    all
}

fn at<'a>(document: &'a mut toml::Value, keys: &[Step]) -> &'a mut toml::Value {
    keys.iter().fold(document, |at, key| match key {
        Step::Key(key) => &mut at[*key],
        Step::Nth(nth) => &mut at[*nth],
    })
}

/// One step down a document.
enum Step<'a> {
    Key(&'a str),
    Nth(usize),
}
