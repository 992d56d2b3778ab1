//! docker-compose.yml without a container engine: every command, health check, environment, mount and secret of it as
//! plain processes, with the addresses and paths of this machine in the place of the containers'.

pub mod here;
pub mod profiles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::faults::child::{Process, binary, finish};
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::{Redis, free_port, skip};
use crate::harness::*;
use here::{Here, add, demo};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OURS: [&str; 3] = ["migrate", "front", "worker"];

/// The file, with these variables set.
fn compose_with(variables: &[(&str, &str)]) -> Option<Value> {
    let compose = yaml(&Path::new(ROOT).join("docker-compose.yml"))?;
    Some(interpolated(compose, &variables.iter().copied().collect()))
}

fn compose() -> Option<Value> {
    compose_with(&[])
}

/// `${NAME:-default}` in every text, as Compose replaces it.
fn interpolated(value: Value, variables: &BTreeMap<&str, &str>) -> Value {
    match value {
        Value::String(text) => {
            let mut rest = text.as_str();
            let mut done = String::new();
            while let Some((before, after)) = rest.split_once("${") {
                let (inner, after) = after.split_once('}').expect("an end");
                let (name, default) = inner.split_once(":-").expect("a default, so that no .env is needed");
                done += before;
                done += variables.get(name).copied().unwrap_or(default);
                rest = after;
            }
            Value::String(done + rest)
        }
        Value::Array(values) => values.into_iter().map(|value| interpolated(value, variables)).collect(),
        Value::Object(map) => {
            let map = map.into_iter();
            Value::Object(map.map(|(key, value)| (key, interpolated(value, variables))).collect())
        }
        other => other,
    }
}

/// A YAML file as JSON. `None` (said aloud): nothing here reads YAML.
pub fn yaml(file: &Path) -> Option<Value> {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new("python3").args(["-c", script]).arg(file).output();
    match output {
        Ok(output) if output.status.success() => Some(serde_json::from_slice(&output.stdout).expect("JSON")),
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("No module named 'yaml'") => {
            panic!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr))
        }
        _ => {
            skip("python3 with PyYAML is not installed");
            None
        }
    }
}

pub fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().into_iter().flatten();
    words.map(|word| word.as_str().expect("a word").to_owned()).collect()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Name in `secrets:`, and where the service finds it.
fn secrets(service: &Value) -> Vec<(String, String)> {
    let entries = service["secrets"].as_array().into_iter().flatten();
    let entry = |entry: &Value| match entry.as_str() {
        Some(name) => (name.to_owned(), format!("/run/secrets/{name}")),
        None => (text(&entry["source"]).to_owned(), text(&entry["target"]).to_owned()),
    };
    entries.map(entry).collect()
}

/// Host path and container path of files that are mounted.
fn mounts(service: &Value) -> Vec<(PathBuf, String)> {
    let all = words(&service["volumes"]);
    let files = all
        .iter()
        .filter_map(|mount| mount.strip_prefix("./")?.strip_suffix(":ro"));
    files
        .map(|mount| {
            let (from, to) = mount.split_once(':').expect("a place in the container");
            (Path::new(ROOT).join(from), to.to_owned())
        })
        .collect()
}

/// Networks of a service.
fn networks(service: &Value) -> BTreeSet<String> {
    match &service["networks"] {
        Value::Object(map) => map.keys().cloned().collect(),
        list => words(list).into_iter().collect(),
    }
}

/// The profile of a service; empty: it is always there.
fn profile(service: &Value) -> String {
    words(&service["profiles"]).join(" ")
}

#[test]
fn services_are_shut_in_and_start_in_order() {
    let Some(compose) = compose() else { return };
    let services = compose["services"].as_object().expect("services");
    let mut by_profile: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, service) in services {
        by_profile.entry(profile(service)).or_default().push(name);
    }
    let of = |profile: &str, names: &[&'static str]| (profile.to_owned(), names.to_vec());
    assert_eq!(
        by_profile,
        BTreeMap::from([
            of("", &["front", "migrate", "rabbitmq", "redis", "worker"]),
            of("embedded", &["embedded"]),
            of("monitoring", &["alertmanager", "grafana", "prometheus"]),
            of("tls", &["proxy"]),
        ])
    );
    let mut used = BTreeSet::new();
    for (name, service) in services {
        let user = text(&service["user"]);
        assert!(
            !user.is_empty() && !user.starts_with('0') && !user.contains("root"),
            "{name} runs as {user}"
        );
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        let published: &[&str] = match name.as_str() {
            "front" | "embedded" => &["127.0.0.1:8080:8080"],
            "prometheus" => &["127.0.0.1:9090:9090"],
            "grafana" => &["127.0.0.1:3000:3000"],
            // The one door to the world.
            "proxy" => &["80:8080", "443:8443"],
            _ => &[],
        };
        assert_eq!(words(&service["ports"]), published, "{name}");
        let within: &[&str] = match name.as_str() {
            "redis" | "rabbitmq" => &["inside"],
            "migrate" | "worker" => &["inside", "outside"],
            "front" => &["edge", "inside", "outside"],
            "embedded" | "proxy" => &["edge", "outside"],
            _ => &["outside"],
        };
        assert_eq!(
            networks(service),
            within.iter().map(|name| (*name).to_owned()).collect(),
            "{name}"
        );
        for mount in words(&service["volumes"]) {
            let known =
                mount.ends_with(":ro") || !mount.starts_with(['.', '/']) || mount == "./deploy/secrets/caddy:/data";
            assert!(known, "{name} may write to {mount}");
        }
        assert_eq!(service["healthcheck"].is_object(), name != "migrate", "{name}");
        for (from, _) in mounts(service) {
            assert!(from.is_file(), "{name} mounts {}", from.display());
        }
        used.extend(secrets(service).into_iter().map(|(secret, _)| secret));
        let variables = service["environment"].as_object().into_iter().flatten();
        for (variable, value) in variables {
            assert!(
                !text(value).contains("://"),
                "{name}: {variable} may hold a password; use a file"
            );
        }
    }
    for network in ["inside", "edge"] {
        assert_eq!(compose["networks"][network]["internal"], true, "{network}");
    }
    let declared: BTreeSet<String> = compose["secrets"]
        .as_object()
        .expect("secrets")
        .keys()
        .cloned()
        .collect();
    assert_eq!(used, declared);
    let waits = |service: &str, on: &str| services[service]["depends_on"][on]["condition"].clone();
    for server in ["redis", "rabbitmq"] {
        assert_eq!(waits("migrate", server), "service_healthy");
    }
    for role in ["front", "worker"] {
        assert_eq!(waits(role, "migrate"), "service_completed_successfully");
    }
    assert_eq!(services["migrate"]["restart"], "no");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_runs_and_a_sync_passes_through() {
    let Some(compose) = compose() else { return };
    let mut here = Here::new(compose);
    // Twice: what is there already stays.
    make_secrets(&here).await;
    let keys = read(&here.path("secrets/keys"));
    make_secrets(&here).await;
    assert_eq!(read(&here.path("secrets/keys")), keys);
    let original: Vec<String> = ["redis_url", "amqp_url", "keys"]
        .map(|name| read(&here.path("secrets").join(name)))
        .into();

    let data = here.path("data");
    here.instead("dir /data", format!("dir {}", data.display()));
    here.lay_out("redis");
    let command = here.command("redis");
    assert_eq!(command[0], "redis-server");
    let Some(mut redis) = Redis::with(|_, _| command[1..].to_vec()) else {
        return;
    };
    here.instead("@redis:6379", format!("@127.0.0.1:{}", redis.port()));
    redis.up().await;
    let check = here.health("redis");
    let asked = [vec!["-p".to_owned(), redis.port().to_string()], check[1..].to_vec()].concat();
    let (status, said) = finish(Path::new(&check[0]), &asked, &BTreeMap::new(), here.folder.path()).await;
    assert!(status.success() && said.contains("PONG"), "{said}");
    assert!(
        redis.command(&["GET", "x"]).await.is_err(),
        "without a password one may ping and nothing else"
    );

    here.lay_out("rabbitmq");
    let conf = read(&here.path("rabbitmq-rabbitmq.conf")) + &read(&here.path("secrets/rabbitmq_user"));
    let Some(rabbit) = Rabbit::with(&conf, "unused").await else {
        return;
    };
    here.instead("@rabbitmq:5672", format!("@127.0.0.1:{}", rabbit.address().port()));
    let check = here.health("rabbitmq");
    rabbit.tool(&check[0], &check[1..]).await;

    let crm = Crm::start(230).await;
    for name in OURS {
        here.lay_out(name);
        add(&here.path(&format!("{name}-snapbridge.toml")), &demo(&crm.url));
    }
    let environment = here.environment("migrate", free_port(), free_port());
    let (status, said) = finish(binary(), &here.command("migrate"), &environment, here.folder.path()).await;
    assert!(status.success() && said.contains("applied now"), "{said}");

    let mut running = Vec::new();
    for name in ["front", "worker"] {
        let check = here.health(name);
        assert_eq!(check[0], "snapbridge");
        let folder = here.folder.path().to_owned();
        let nobody = here.environment(name, free_port(), free_port());
        let (status, said) = finish(binary(), &check[1..], &nobody, &folder).await;
        assert_eq!(status.code(), Some(1), "nothing runs there: {said}");
        let (process, environment) = here.start(name).await;
        let (status, said) = finish(binary(), &check[1..], &environment, &folder).await;
        assert!(status.success() && said.contains("\"ready\":true"), "{said}");
        running.push(process);
    }

    sync(here.folder.path(), &running[0].url, &crm).await;

    let passwords = original
        .iter()
        .flat_map(|secret| secret.split([':', '@', ' ', '\n']))
        .filter(|word| word.len() >= 48);
    let logs: String = running.iter().map(Process::log).collect();
    for password in passwords {
        assert!(!logs.contains(password), "invariant 12: a log shows {password}");
    }
    assert!(
        logs.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "log lines are JSON:\n{logs}"
    );
    for process in running {
        process.stop().await;
    }

    let services = here.compose["services"].as_object().expect("services");
    let services = services.iter().filter(|(_, service)| profile(service).is_empty());
    let has = |key: &'static str| move |(name, service): (&String, &Value)| service.get(key).map(|_| name.clone());
    let commands = services
        .clone()
        .filter_map(has("command"))
        .map(|name| format!("{name} command"));
    let checks = services
        .filter_map(has("healthcheck"))
        .map(|name| format!("{name} health"));
    assert_eq!(
        here.run,
        commands.chain(checks).collect::<BTreeSet<_>>(),
        "every command of the file has been run"
    );
}

/// Talkdesk's whole sync with a bridge, by our own player; all contacts are there.
pub async fn sync(folder: &Path, bridge: &str, crm: &Crm) {
    std::fs::write(folder.join("token"), TOKEN).expect("written");
    let url = format!("{bridge}/demo/contact_sync");
    let credentials = ["--auth", "account=demo", "--auth", "token=@token"];
    let arguments = [
        &["talkdesk", "sync", &*url][..],
        &credentials,
        &["--out", "contacts", "--json"],
    ]
    .concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let (status, said) = finish(binary(), &arguments, &BTreeMap::new(), folder).await;
    assert!(status.success(), "{said}");
    let contacts = read(&folder.join("contacts"));
    let contacts = contacts
        .lines()
        .map(|line| serde_json::from_str(line).expect("a contact"));
    let run = Run {
        contacts: contacts.collect(),
        ..Run::default()
    };
    assert_eq!(run.titles(), truth(crm));
}

/// Makes the secrets, as an operator does.
async fn make_secrets(here: &Here) {
    let script = Path::new(ROOT).join("deploy/secrets/make.sh");
    let folder = here.path("secrets").display().to_string();
    let (status, said) = finish(&script, &[folder], &BTreeMap::new(), here.folder.path()).await;
    assert!(status.success(), "{said}");
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
