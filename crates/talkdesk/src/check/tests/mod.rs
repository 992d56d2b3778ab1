//! The checker against small bridges: a sound one, one for each rule that breaks just it, and others' ways of paging.

mod bridge;
mod broken;
mod limits;
mod others;
mod sound;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::*;
use crate::player::client;

const ACCOUNT: &str = "4711";
const TOKEN: &str = "s-canary";

/// A bridge that listens, until it is dropped.
struct Server {
    url: Url,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(app: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/b/contact_sync", listener.local_addr().unwrap())).unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { url, task }
    }

    /// A contact sync made of a function from the number of the request (from 0) and its body to an answer.
    async fn of<R: IntoResponse>(answer: impl Fn(usize, &Value) -> R + Send + Sync + 'static) -> Server {
        let (count, answer) = (Arc::new(std::sync::atomic::AtomicUsize::new(0)), Arc::new(answer));
        let handler = move |body: Bytes| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let response = answer(number, &body).into_response();
            async { response }
        };
        Server::start(Router::new().route("/b/contact_sync", post(handler))).await
    }

    fn plan(&self) -> Plan {
        let fields = [("account", ACCOUNT), ("token", TOKEN)];
        Plan {
            url: self.url.clone(),
            auth: fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect(),
            wrong: Auth::default(),
            validate: None,
            agents: None,
            interactions: None,
            interaction_types: vec!["Ticket".into(), "case".into()],
            action: None,
            data: BTreeMap::new(),
            write: false,
            ignore: BTreeSet::new(),
            limits: quick(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn quick() -> Limits {
    let limits = Limits::default();
    Limits {
        patience: Patience {
            attempts: 3,
            first_wait: Duration::from_millis(1),
            max_wait: Duration::from_millis(2),
            empty_pages: 5,
            pages: 50,
            body_limit: 1 << 20,
            ..limits.patience
        },
        starts: 3,
        oversize: 300 << 10,
        ..limits
    }
}

async fn checked(plan: Plan) -> Report {
    // Made once: that takes longer than a check.
    static HTTP: std::sync::LazyLock<Client> =
        std::sync::LazyLock::new(|| client(&Url::parse("http://127.0.0.1").unwrap()).unwrap());
    check(plan, HTTP.clone()).await
}

fn reply(status: u16, body: &Value) -> Response {
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn error(status: u16, message: &str) -> Response {
    reply(status, &json!({"code": "x", "message": message}))
}
