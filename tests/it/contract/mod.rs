//! Talkdesk's contract, row by row. `docs/contract.md` lists the rows with their sources; a row that is played here is a
//! function of the same name, so a failure says which row does not hold. Rows that need no set-up of their own share a
//! running bridge, and all of them are played even if one fails.

mod actions;
mod agents;
mod common;
mod contacts;
mod interactions;
mod table;
mod validation;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use fake_crm::{Action, Control, Create, Fields};
use futures::FutureExt;
use serde_json::{Value, json};

use crate::harness::*;
use crate::interactions::{beside, connector, without_operations};

const SECRET: &str = "0123456789abcdefghij";
/// Talkdesk's endpoints, each with the rest of a good request.
const ENDPOINTS: [&str; 5] = [
    "auth_validation",
    "agent_sync",
    "contact_sync",
    "interaction_update",
    "actions/create_contact",
];

/// A CRM, and a bridge whose snapshots are built.
struct World {
    crm: Crm,
    bridge: Bridge,
    /// A contact of the oddest kind: no name, the same number and address twice, and what is no number, address or link.
    odd: String,
    _folder: tempfile::TempDir,
}

struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl World {
    /// `demo`, and beside it: `closed` with a secret in the path, `keyed` with one in `auth`, `plain` without operations.
    async fn start(backend: Backend, more: &str) -> World {
        let crm = Crm::start(60).await;
        let texts = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        let fields = Fields {
            first_name: Some(String::new()),
            last_name: Some(String::new()),
            company: Some(format!("  {}  ", "é".repeat(400))),
            emails: texts(&[" Odd@x.test ", "odd@X.TEST", "nobody"]),
            phones: texts(&["+351 912 345 678 ext. 9", "912-345-678", "n/a"]),
            website: Some("javascript:alert(1)".to_owned()),
            ..Fields::default()
        };
        let create = Create {
            count: 1,
            fields: Some(fields),
            ..Create::default()
        };
        let control = Control::new("demo", Action::Create(create));
        let odd = crm.crm.control(control).done().ids().remove(0);
        let folder = tempfile::tempdir().expect("a folder");
        let shipped = connector(folder.path(), "same", |source| source);
        let plain = connector(folder.path(), "plain", without_operations);
        let more = format!(
            "page.contacts = 20\npage.agents = 4\ninteractions.max = 3\ninteractions.cache = \"0s\"\n\
             credentials.check_timeout = \"2s\"\ncredentials.checks_per_minute = 6000\ninteractions.deadline = \"2s\"\n{}{}{}\
             integrations.closed.path_secret = \"{SECRET}\"\nintegrations.keyed.bridge_key = \"{SECRET}\"\n{more}",
            beside("closed", &shipped, &crm),
            beside("keyed", &shipped, &crm),
            beside("plain", &plain, &crm),
        );
        let bridge = Bridge::start(backend, &crm, &more).await;
        bridge.build().await;
        World {
            crm,
            bridge,
            odd,
            _folder: folder,
        }
    }

    /// As it goes over the wire: any bytes, any headers.
    async fn send(&self, path: &str, headers: &[(&'static str, &str)], body: String) -> Reply {
        let mut request = self.bridge.http.post(format!("{}{path}", self.bridge.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.json().await.unwrap_or(Value::Null),
        }
    }

    /// One of demo's endpoints.
    async fn call(&self, endpoint: &str, body: &Value) -> Reply {
        self.send(&format!("/demo/{endpoint}"), &[], body.to_string()).await
    }

    /// A page of contacts.
    async fn page(&self, meta: Value) -> Value {
        let (status, page) = self.bridge.sync(meta).await;
        assert_eq!(status, 200, "{page}");
        page
    }
}

/// A good request to any of the endpoints. `nonce` tells two wishes of an action apart.
fn good(nonce: &str) -> Value {
    json!({"auth": auth(), "meta": null, "data": {"contact_external_id": "1", "last_name": nonce}})
}

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

/// The ids of a page of contacts.
fn ids(page: &Value) -> Vec<String> {
    let contacts = page["contacts"].as_array().expect("contacts").iter();
    contacts
        .map(|contact| contact["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn set(ids: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    ids.into_iter().collect()
}

type Row<'a> = (&'static str, Pin<Box<dyn Future<Output = ()> + Send + 'a>>);

/// Plays every row, and fails with the names of those that do not hold.
async fn play(rows: Vec<Row<'_>>) {
    let mut broken = Vec::new();
    for (name, row) in rows {
        if AssertUnwindSafe(row).catch_unwind().await.is_err() {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "rows of the contract that do not hold: {broken:#?}");
}

/// A group of rows, played on both backends in one world each, which `prepare` sets up for them.
macro_rules! rows {
    ($group:ident, $more:expr, [$($row:ident),+ $(,)?]) => {
        rows!($group, $more, |_: &World| std::future::ready(()), [$($row),+]);
    };
    ($group:ident, $more:expr, $prepare:expr, [$($row:ident),+ $(,)?]) => {
        on_both!($group, |backend| async move {
            let world = World::start(backend, $more).await;
            $prepare(&world).await;
            let rows: Vec<Row<'_>> = vec![$((stringify!($row), Box::pin($row(&world)))),+];
            play(rows).await;
            world.bridge.stop().await;
        });
    };
}
use rows;
