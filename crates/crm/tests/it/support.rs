//! A connector, a server to call and a client between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::{Clock, SystemClock};
use crm::{AllowHosts, Client, ClientSettings, Connection, Connector, CrmResult, Http, Pacer};
use tokio::net::TcpListener;

/// A small connector that loads; tests replace parts of it.
pub const SMALL: &str = r#"format = 1
id = "small"
title = "Small"

[connection]
base_url = "${conn.site}"
hosts = '^small\.invalid$'
[connection.fields]
site = { type = "site", role = "locator" }
token = { type = "secret" }

[auth]
kind = "bearer"
token = "${conn.token}"

[check]
request = { path = "/me" }
org = "response.body.org"
principal = "response.body.user"
learn = { plan = "response.body.plan" }

[contacts.full]
request = { path = "/contacts", query = { after = "${page.token}" } }
items = "response.body.results"
page = { kind = "token", next = "response.body.next", max_pages = 50 }

[contacts.map]
id = "item.id"
name = "item.name"
phones = "item.phones"
"#;

pub fn load(source: &str) -> Connector {
    match Connector::load(source, "small.toml") {
        Ok(connector) => connector,
        Err(problems) => panic!("{}", listed(&problems)),
    }
}

pub fn listed(problems: &[crm::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// `SMALL` with each `from` replaced; a `from` that is not there is a mistake in the test.
pub fn small_with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(SMALL.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the connector");
        text.replace(from, to)
    })
}

/// Serves `router` on a port of its own until the test ends; gives its origin.
pub async fn serve(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

pub fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A client of `connector` for the server at `origin`, which its integration allows.
pub fn client_with(
    connector: Connector,
    origin: &str,
    extra: &[(&str, &str)],
    settings: ClientSettings,
    pacer: Pacer,
) -> CrmResult<Client> {
    let http = Http::new(settings, AllowHosts::parse(&[origin]).expect("an origin"))?;
    client_over(http, connector, origin, extra, pacer, Arc::new(SystemClock))
}

/// The same over an `Http` that may serve many clients, at a time of the test's own.
pub fn client_over(
    http: Http,
    connector: Connector,
    origin: &str,
    extra: &[(&str, &str)],
    pacer: Pacer,
    clock: Arc<dyn Clock>,
) -> CrmResult<Client> {
    let mut fields = fields(&[("site", origin), ("token", "secret-token")]);
    fields.extend(self::fields(extra));
    let connection = Connection {
        fields,
        region: Some("PT".to_owned()),
    };
    Client::new(Arc::new(connector), http, &connection, pacer, clock)
}

pub fn client(connector: Connector, origin: &str) -> Client {
    client_with(connector, origin, &[], ClientSettings::default(), Pacer::unlimited()).expect("a client")
}
