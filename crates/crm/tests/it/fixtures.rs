//! The shipped connectors against their fixtures: each file is a conversation (what must be asked, what is answered) and
//! `expected.json` says what must come out.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use contacts::Micros;
use crm::{Client, ClientSettings, Connector, CrmError, Deed, Pacer, Page, Person, Window};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{client_with, listed, serve};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// `check`, `full`, `changes`, `get_many`, `deleted`, `ids`, `agents`, `interactions` or `act`; listings are walked to
    /// their end.
    call: String,
    /// The type of interactions, or the name of the action.
    #[serde(default)]
    name: String,
    #[serde(default)]
    contact: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    /// The inputs of the action.
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
    exchanges: Vec<Exchange>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    request: Asked,
    reply: Reply,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    method: String,
    /// With the query.
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Value,
}

fn ok() -> u16 {
    200
}

#[derive(Default)]
struct Script {
    exchanges: Mutex<VecDeque<Exchange>>,
    surprises: Mutex<Vec<String>>,
}

async fn played(script: Arc<Script>) -> String {
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap_or(json!("not JSON"))
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
        let mut given = HeaderMap::new();
        given.insert("content-type", "application/json".parse().expect("a value"));
        for (name, value) in &reply.headers {
            given.insert(
                HeaderName::try_from(name).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        (
            StatusCode::from_u16(reply.status).expect("a status"),
            given,
            reply.body.to_string(),
        )
    };
    serve(Router::new().fallback(handler)).await
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

async fn walk(client: &Client, fixture: &Fixture) -> Result<Vec<Value>, CrmError> {
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
                let page = client.changes_page(window, fixture.token.as_ref(), at).await?;
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

async fn result_of(client: &Client, fixture: &Fixture) -> Value {
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
        _ => shown(walk(client, fixture).await.map(Value::from)),
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

fn folder(connector: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../connectors")
        .join(connector)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Plays every fixture of a connector. Calls go to a server whose origin changes: `ORIGIN` stands for it.
async fn replay(id: &str, extra: &[(&str, &str)]) {
    let folder = folder(id);
    let source = read(&folder.join("connector.toml"));
    let expected: BTreeMap<String, Value> =
        serde_json::from_str(&read(&folder.join("fixtures/expected.json"))).expect("expected.json is JSON");
    let mut names: Vec<String> = std::fs::read_dir(folder.join("fixtures"))
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| name != "expected")
        .collect();
    names.sort();
    let unplayed = expected.keys().filter(|name| !names.contains(name));
    let mut wrong: Vec<String> = unplayed
        .map(|name| format!("{name}: expected, and there is no such fixture"))
        .collect();
    let mut results = BTreeMap::new();
    for name in &names {
        let text = read(&folder.join("fixtures").join(format!("{name}.json")));
        let fixture: Fixture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let script = Arc::new(Script::default());
        *script.exchanges.lock() = fixture.exchanges.iter().cloned().collect();
        let origin = played(script.clone()).await;
        let connector =
            Connector::load(&source, "connector.toml").unwrap_or_else(|problems| panic!("{}", listed(&problems)));
        let client = client_with(connector, &origin, extra, ClientSettings::default(), Pacer::unlimited())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let result = result_of(&client, &fixture)
            .await
            .to_string()
            .replace(&origin, "ORIGIN");
        let result: Value = serde_json::from_str(&result).expect("JSON");
        wrong.extend(
            script
                .surprises
                .lock()
                .iter()
                .map(|surprise| format!("{name}: {surprise}")),
        );
        wrong.extend(
            script
                .exchanges
                .lock()
                .iter()
                .map(|left| format!("{name}: never asked {}", left.request.path)),
        );
        if expected.get(name) != Some(&result) {
            wrong.push(format!("{name}: the result differs"));
        }
        results.insert(name.clone(), result);
    }
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        serde_json::to_string_pretty(&results).expect("JSON")
    );
}

#[tokio::test]
async fn demo() {
    replay("demo", &[("account", "demo")]).await;
}

#[tokio::test]
async fn odoo() {
    replay("odoo", &[("db", "crm"), ("login", "ada"), ("api_key", "odoo-secret")]).await;
}
