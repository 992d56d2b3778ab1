//! A served CRM, a client, and waiting for conditions.

use std::time::{Duration, Instant};

use fake_crm::{AccountOptions, FakeCrm, Options, Row};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Served {
    pub crm: FakeCrm,
    pub client: reqwest::Client,
    pub base: String,
    _stop: DropGuard,
}

/// An account `demo` without limits.
pub fn options(contacts: usize) -> Options {
    let account = AccountOptions {
        contacts,
        limit: None,
        ..AccountOptions::default()
    };
    Options {
        accounts: vec![account],
        ..Options::default()
    }
}

pub async fn served(contacts: usize) -> Served {
    serve(FakeCrm::new(options(contacts))).await
}

pub async fn serve(crm: FakeCrm) -> Served {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let stop = CancellationToken::new();
    tokio::spawn(crm.clone().serve(listener, stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    Served {
        crm,
        client,
        base,
        _stop: stop.drop_guard(),
    }
}

impl Served {
    pub fn request(&self, path: &str) -> RequestBuilder {
        self.client
            .get(format!("{}/api/demo/{path}", self.base))
            .bearer_auth("demo-token")
    }

    pub async fn call(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(path)).await
    }

    /// A call that has to succeed.
    pub async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.call(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn rows(&self, path: &str) -> Vec<Row> {
        serde_json::from_value(self.ok(path).await["results"].take()).expect("rows")
    }

    pub async fn batch(&self, ids: &[&str]) -> Vec<Row> {
        let url = format!("{}/api/demo/contacts/batch", self.base);
        let request = self
            .client
            .post(url)
            .bearer_auth("demo-token")
            .json(&json!({"ids": ids}));
        let (status, mut body) = answer(request).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body["results"].take()).expect("rows")
    }

    pub async fn control(&self, control: Value) -> (StatusCode, Value) {
        answer(self.client.post(format!("{}/_control", self.base)).json(&control)).await
    }

    pub async fn set(&self, knobs: Value) {
        let (status, body) = self.control(json!({"set": knobs})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    /// All pages of a list, by its tokens.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut results = Vec::new();
        let mut after = String::new();
        loop {
            let mut page = self.ok(&format!("{path}{after}")).await;
            results.append(page["results"].as_array_mut().expect("results"));
            match page["paging"]["next"].as_str() {
                None => return results,
                Some(token) => after = format!("&after={token}"),
            }
        }
    }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    (status, response.json().await.expect("JSON"))
}

pub fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

#[track_caller]
pub fn no_later_than(deadline: Instant, what: &str) {
    assert!(Instant::now() < deadline, "waited too long for: {what}");
}

pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        no_later_than(deadline, what);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
