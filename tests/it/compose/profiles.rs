//! The profiles of docker-compose.yml: one process on SQLite, HTTPS by Caddy, monitoring.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use process::settings::{Settings, Source};
use serde_json::{Value, json};

use super::here::{Here, add, demo};
use super::{ROOT, compose, compose_with, make_secrets, read, secrets, sync, text, words, yaml};
use crate::faults::child::{binary, finish};
use crate::faults::servers::{free_port, skip};
use crate::harness::*;

/// The settings that a process of this environment runs by.
pub fn settings(environment: &BTreeMap<String, String>) -> Settings {
    let variables = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let source = Source::gather(None, variables).expect("settings");
    Settings::load(&source).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The embedded service of this file, laid out on this machine.
async fn embedded(compose: Value, crm: &Crm, more: &str) -> Here {
    let mut here = Here::new(compose);
    make_secrets(&here).await;
    let data = here.path("data").display().to_string();
    here.instead("/var/lib/snapbridge", data);
    here.lay_out("embedded");
    add(
        &here.path("embedded-snapbridge.toml"),
        &format!("{}{more}", demo(&crm.url)),
    );
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_profile_serves_and_keeps_its_snapshot() {
    let Some(compose) = compose() else { return };
    let crm = Crm::start(120).await;
    let mut here = embedded(compose, &crm, "").await;
    for _ in 0..2 {
        let (process, environment) = here.start("embedded").await;
        let check = here.health("embedded");
        let (status, said) = finish(binary(), &check[1..], &environment, here.folder.path()).await;
        assert!(status.success() && said.contains("\"ready\":true"), "{said}");
        sync(here.folder.path(), &process.url, &crm).await;
        process.stop().await;
    }
    let lists = crm.crm.stats("demo").calls_of("contacts.list");
    assert!(here.path("data/store.db").is_file() && lists > 0);
    let keys = here.path("data/keys");
    assert!(!keys.exists(), "the keys are the secret's, not the volume's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_has_time_to_stop() {
    let Some(compose) = compose() else { return };
    let mut here = Here::new(compose);
    make_secrets(&here).await;
    for name in ["front", "worker", "embedded"] {
        here.lay_out(name);
        let settings = settings(&here.environment(name, free_port(), free_port()));
        let service = &here.compose["services"][name];
        let grace = humantime::parse_duration(text(&service["stop_grace_period"])).expect("a time");
        let needs = settings
            .worker
            .stop_grace
            .max(settings.http.drain + settings.http.request_deadline);
        assert!(
            grace > needs + Duration::from_secs(2),
            "{name}: {grace:?} for {needs:?}"
        );
    }
    let front = settings(&here.environment("front", free_port(), free_port()));
    let refresh = read(&Path::new(ROOT).join("deploy/caddy/Caddyfile"));
    assert!(refresh.contains("refresh 2s"), "{refresh}");
    assert!(front.http.drain > Duration::from_secs(2), "the proxy looks every 2 s");
}

/// Whether a program is there, said aloud if not.
fn has(program: &str, package: &str) -> bool {
    let there = Command::new(program).arg("version").output().is_ok();
    if !there {
        skip(&format!(
            "{program} is not installed (Debian's package {package} has it)"
        ));
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tls_profile_serves_https_and_says_where_a_request_came_from() {
    let variables = [
        ("SNAPBRIDGE_EDGE", "127.0.0.1/32"),
        ("SNAPBRIDGE_REQUIRE_HTTPS", "true"),
        ("SNAPBRIDGE_DOMAIN", "localhost"),
    ];
    let Some(compose) = compose_with(&variables) else {
        return;
    };
    if !has("caddy", "caddy") {
        return;
    }
    let crm = Crm::start(120).await;
    let mut here = embedded(compose, &crm, "").await;
    let (front, _) = here.start("embedded").await;
    let [plain, secure, health] = [(); 3].map(|()| free_port());
    let at = front.url.rsplit(':').next().expect("a port").to_owned();
    here.instead("dynamic a front 8080", format!("dynamic a 127.0.0.1 {at}"));
    here.instead("http_port 8080", format!("http_port {plain}"));
    here.instead("https_port 8443", format!("https_port {secure}"));
    here.instead(":8082", format!(":{health}"));
    here.lay_out("proxy");
    let certificates = here.path("secrets/caddy");
    let variables = here.compose["services"]["proxy"]["environment"]
        .as_object()
        .expect("variables");
    let local = |value: &str| match value {
        "/data" => certificates.display().to_string(),
        "/tmp" => here.folder.path().display().to_string(),
        other => other.to_owned(),
    };
    let environment = variables.iter().map(|(name, value)| (name.clone(), local(text(value))));
    let environment: BTreeMap<String, String> = environment.collect();
    let command = here.command("proxy");
    let _caddy = here.start_other("proxy", &command, &environment).expect("Caddy");
    let root = certificates.join("caddy/pki/authorities/local/root.crt");
    until("Caddy has made its own authority", || async { root.is_file() }).await;
    let check = here.health("proxy");
    until("Caddy is healthy", || async {
        finish(Path::new(&check[0]), &check[1..], &BTreeMap::new(), here.folder.path())
            .await
            .0
            .success()
    })
    .await;

    let certificate = reqwest::Certificate::from_pem(read(&root).as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .add_root_certificate(certificate)
        .build()
        .expect("a client");
    let body = json!({ "auth": auth() });
    let post = |url: String| client.post(url).header("x-forwarded-proto", "https").json(&body).send();
    until("a page comes by HTTPS", || async {
        let answer = post(format!("https://localhost:{secure}/demo/contact_sync")).await;
        answer.is_ok_and(|answer| answer.status().as_u16() == 200)
    })
    .await;
    let moved = post(format!("http://localhost:{plain}/demo/contact_sync"))
        .await
        .expect("an answer");
    assert_eq!(moved.status().as_u16(), 308);
    assert_eq!(crm.crm.stats("demo").contacts, 120);

    // Nobody listens behind it any more; the secret of a path is in no line of the proxy's.
    front.stop().await;
    let answer = post(format!(
        "https://localhost:{secure}/demo/k/S3CRET-IN-THE-PATH/contact_sync"
    ))
    .await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 502);
    let log = here.path("proxy.log");
    until("the proxy has told of the failure", || async {
        read(&log).contains("502")
    })
    .await;
    assert!(!read(&log).contains("S3CRET"), "invariant 12: {}", read(&log));
    assert!(!read(&log).contains(TOKEN), "invariant 12: {}", read(&log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitoring_profile_scrapes_and_reads_the_alerts() {
    process::tls::install_provider();
    let Some(compose) = compose() else { return };
    if !has("prometheus", "prometheus") {
        return;
    }
    let mut here = Here::new(compose);
    let [listen, rules] = [
        free_port().to_string(),
        here.path("prometheus-alerts.yml").display().to_string(),
    ];
    here.instead("[alerts.yml]", format!("[{rules}]"));
    let data = here.path("data").display().to_string();
    here.instead("=/prometheus", format!("={data}"));
    here.instead("127.0.0.1:9090", format!("127.0.0.1:{listen}"));
    here.lay_out("prometheus");
    let flags = here.command("prometheus");
    let program = [
        vec![
            "prometheus".to_owned(),
            format!("--web.listen-address=127.0.0.1:{listen}"),
        ],
        flags,
    ]
    .concat();
    let _prometheus = here
        .start_other("prometheus", &program, &BTreeMap::new())
        .expect("Prometheus");
    let check = here.health("prometheus");
    until("Prometheus is ready", || async {
        finish(Path::new(&check[0]), &check[1..], &BTreeMap::new(), here.folder.path())
            .await
            .0
            .success()
    })
    .await;
    let rules = reqwest::Client::builder().no_proxy().build().expect("a client");
    let rules = rules
        .get(format!("http://127.0.0.1:{listen}/api/v1/rules"))
        .send()
        .await
        .expect("an answer");
    let rules: Value = rules.json().await.expect("JSON");
    let loaded = rules["data"]["groups"].as_array().map_or(0, Vec::len);
    let written = yaml(&Path::new(ROOT).join("deploy/prometheus/alerts.yml")).expect("YAML");
    assert_eq!(loaded, written["groups"].as_array().expect("groups").len());
}

/// Addresses that the files of the monitoring profile use lead to each other.
#[test]
fn the_monitoring_profile_hangs_together() {
    let Some(compose) = compose() else { return };
    let file = |name: &str| yaml(&Path::new(ROOT).join("deploy").join(name)).expect("YAML");
    let services = compose["services"].as_object().expect("services");
    let host = |url: &Value| {
        text(url)
            .trim_start_matches("http://")
            .split(':')
            .next()
            .expect("a host")
            .to_owned()
    };
    let source = &file("grafana/datasources.yml")["datasources"][0];
    assert!(services.contains_key(&host(&source["url"])), "{source}");
    assert_eq!(
        (&source["type"], &source["access"]),
        (&json!("prometheus"), &json!("proxy"))
    );
    let scrape = file("prometheus/prometheus.yml");
    let managers = &scrape["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0];
    assert!(services.contains_key(&host(managers)), "{managers}");
    for name in words(&scrape["scrape_configs"][0]["dns_sd_configs"][0]["names"]) {
        assert!(services.contains_key(&name), "{name} is no service");
        assert!(
            super::networks(&services[&name]).contains("outside"),
            "{name} is not reached"
        );
    }
    // The dashboard lies where its provider looks.
    let folder = text(&file("grafana/dashboards.yml")["providers"][0]["options"]["path"]).to_owned();
    let mounts = words(&services["grafana"]["volumes"]);
    assert!(
        mounts
            .iter()
            .any(|mount| mount.starts_with("./deploy/grafana/snapbridge.json:") && mount.contains(&folder)),
        "{mounts:?}"
    );
    let password = text(&services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]).to_owned();
    assert!(
        secrets(&services["grafana"])
            .iter()
            .any(|(_, place)| *place == password)
    );
}

/// Compose's own reading of the file, where it is installed; the machines of this project have none.
#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn compose_itself_reads_every_profile() {
    if !Command::new("docker")
        .args(["compose", "version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("SKIPPED: docker compose is not installed, so it does not read its file");
        return;
    }
    let profiles = ["embedded", "monitoring", "tls"].map(|profile| format!("--profile={profile}"));
    let read = Command::new("docker")
        .arg("compose")
        .args(profiles)
        .args(["config", "--quiet"])
        .current_dir(ROOT)
        .output()
        .expect("docker runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}
