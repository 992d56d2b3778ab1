//! What the connectors ask, judged by the vendors' own OpenAPI documents: every request of the fixtures is sent once to
//! Prism, which knows nothing of this project. `SNAPBRIDGE_VENDOR_SPECS` names the folder with the documents, and
//! `SNAPBRIDGE_PRISM` the program (`@stoplight/prism-cli` of npm); without them the test is skipped, loudly. Neither the
//! documents nor the program are part of the project.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixtures::requests_of;

/// A mock server that judges requests; it ends with this.
struct Prism {
    process: Child,
    origin: String,
}

impl Drop for Prism {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What Prism says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Legal,
    /// The document does not have the path.
    Unknown,
    Illegal(String),
}

impl Prism {
    async fn start(program: &str, document: &Path) -> Prism {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let process = Command::new(program)
            .args(["mock", "--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(document)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(120), "Prism does not listen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Prism {
            process,
            origin: format!("http://127.0.0.1:{port}"),
        }
    }

    async fn judge(&self, http: &reqwest::Client, request: &Value, prefix: &str) -> Verdict {
        let path = request["path"].as_str().unwrap_or_default();
        let path = path.strip_prefix(prefix).unwrap_or(path);
        let method = request["method"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .expect("a method");
        let mut call = http.request(method, format!("{}{path}", self.origin));
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            call = call.header(name, value.as_str().unwrap_or_default());
        }
        if !request["body"].is_null() {
            call = call
                .header("content-type", "application/json")
                .body(request["body"].to_string());
        }
        let answer = call.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let violations = answer.headers().get("sl-violations").is_some();
        let text = answer.text().await.unwrap_or_default();
        if text.contains("NO_PATH_MATCHED") || text.contains("NO_METHOD_MATCHED") {
            Verdict::Unknown
        } else if matches!(status, 400 | 401 | 403 | 415 | 422) || (violations && status >= 400) {
            Verdict::Illegal(format!("{status} {text}"))
        } else {
            Verdict::Legal
        }
    }
}

/// HubSpot's documents have `"example": null` and errors of the type `*/*`, both of which Prism takes amiss, and make two
/// demands of a search that its pages do not make: an `after` where none was given, and sorts as texts.
fn mended(mut document: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if map.get("example").is_some_and(Value::is_null) {
                    map.remove("example");
                }
                if let Some(any) = map.remove("*/*") {
                    map.insert("application/json".to_owned(), any);
                }
                map.values_mut().for_each(walk);
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut document);
    let search = &mut document["components"]["schemas"]["PublicObjectSearchRequest"];
    if let Some(required) = search["required"].as_array_mut() {
        required.retain(|name| name != "after");
        search["properties"]["sorts"]["items"] = serde_json::json!({});
    }
    document
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
async fn every_request_is_legal_by_the_vendors_own_document() {
    let (Ok(folder), Ok(program)) = (
        std::env::var("SNAPBRIDGE_VENDOR_SPECS"),
        std::env::var("SNAPBRIDGE_PRISM"),
    ) else {
        eprintln!("SKIPPED: SNAPBRIDGE_VENDOR_SPECS and SNAPBRIDGE_PRISM do not say where the documents and Prism are");
        return;
    };
    let folder = PathBuf::from(folder);
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut wrong = Vec::new();
    for (connector, documents, prefix, least) in [
        (
            "hubspot",
            &[
                "hubspot-contacts-v3.json",
                "hubspot-owners-v3.json",
                "hubspot-tickets-v3.json",
            ][..],
            "",
            8,
        ),
        ("intercom", &["intercom-2.14.yaml"], "", 10),
        ("espocrm", &["espocrm.json"], "/api/v1", 8),
    ] {
        let mut judges = Vec::new();
        for name in documents {
            let mut path = folder.join(name);
            if connector == "hubspot" {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                path = scratch.path().join(name);
                let document = mended(serde_json::from_str(&text).expect("JSON"));
                std::fs::write(&path, document.to_string()).expect("a file");
            }
            judges.push(Prism::start(&program, &path).await);
        }
        let mut judged = BTreeSet::new();
        for (fixture, request) in requests_of(connector) {
            let called = format!("{} {}", request["method"], request["path"]);
            for judge in &judges {
                match judge.judge(&http, &request, prefix).await {
                    Verdict::Unknown => {}
                    Verdict::Legal => {
                        judged.insert(called.clone());
                    }
                    Verdict::Illegal(why) => wrong.push(format!("{connector}: {fixture}: {called}: {why}")),
                }
            }
        }
        // A document that was not read judges nothing.
        assert!(judged.len() >= least, "{connector}: only {judged:#?} were judged");
        eprintln!("{connector}: {} requests are legal: {judged:#?}", judged.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
