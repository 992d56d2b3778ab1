//! docker-compose.yml without a container engine: every command, health check, environment, mount and secret of it as
//! plain processes, with the addresses and paths of this machine in the place of the containers'.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::faults::child::{Process, Start, binary, finish};
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::{Redis, free_port, skip};
use crate::harness::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OURS: [&str; 3] = ["migrate", "front", "worker"];

fn compose() -> Option<Value> {
    yaml(&Path::new(ROOT).join("docker-compose.yml"))
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

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().into_iter().flatten();
    words.map(|word| word.as_str().expect("a word").to_owned()).collect()
}

fn text(value: &Value) -> &str {
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
    let files = all.iter().filter_map(|mount| mount.strip_prefix("./"));
    files
        .map(|mount| {
            let parts: Vec<&str> = mount.split(':').collect();
            let [from, to, "ro"] = parts[..] else {
                panic!("not a read-only mount: {mount}")
            };
            (Path::new(ROOT).join(from), to.to_owned())
        })
        .collect()
}

#[test]
fn services_are_shut_in_and_start_in_order() {
    let Some(compose) = compose() else { return };
    let services = compose["services"].as_object().expect("services");
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["front", "migrate", "rabbitmq", "redis", "worker"].into());
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
        let published = words(&service["ports"]);
        match name.as_str() {
            "front" => assert_eq!(published, ["127.0.0.1:8080:8080"]),
            _ => assert!(published.is_empty(), "{name} publishes {published:?}"),
        }
        if !OURS.contains(&name.as_str()) {
            assert_eq!(words(&service["networks"]), ["inside"], "{name}");
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
    assert_eq!(compose["networks"]["inside"]["internal"], true);
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

/// The containers' world on this machine.
struct Here {
    compose: Value,
    folder: tempfile::TempDir,
    /// What stands there, and what stands here in its place; longest first.
    places: Vec<(String, String)>,
    /// Commands and health checks that were run.
    run: BTreeSet<String>,
}

impl Here {
    fn new(compose: Value) -> Here {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("secrets")).expect("a folder");
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        Here {
            compose,
            folder,
            places: Vec::new(),
            run: BTreeSet::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn instead(&mut self, there: impl Into<String>, here: impl Into<String>) {
        let there = there.into();
        self.places.retain(|(known, _)| *known != there);
        self.places.push((there, here.into()));
        self.places.sort_by_key(|(there, _)| std::cmp::Reverse(there.len()));
    }

    fn translated(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn service(&self, name: &str) -> &Value {
        &self.compose["services"][name]
    }

    /// Secrets and mounted files of a service, copied with what they say translated.
    fn lay_out(&mut self, name: &str) {
        let service = self.service(name).clone();
        for (secret, target) in secrets(&service) {
            let file = self.path("secrets").join(&secret);
            let text = std::fs::read_to_string(&file).expect("a secret");
            std::fs::write(&file, self.translated(&text)).expect("written");
            self.instead(target, file.to_str().expect("a path"));
        }
        for (from, target) in mounts(&service) {
            let file = self.path(&format!(
                "{name}-{}",
                from.file_name().and_then(|file| file.to_str()).expect("a name")
            ));
            let text = std::fs::read_to_string(from).expect("a file");
            std::fs::write(&file, self.translated(&text)).expect("written");
            self.instead(target, file.to_str().expect("a path"));
        }
    }

    fn command(&mut self, name: &str) -> Vec<String> {
        self.run.insert(format!("{name} command"));
        words(&self.service(name)["command"])
            .iter()
            .map(|word| self.translated(word))
            .collect()
    }

    fn health(&mut self, name: &str) -> Vec<String> {
        self.run.insert(format!("{name} health"));
        let test = words(&self.service(name)["healthcheck"]["test"]);
        assert_eq!(test[0], "CMD", "{name}: no shell is needed");
        test[1..].iter().map(|word| self.translated(word)).collect()
    }

    fn environment(&self, name: &str, listen: u16, admin: u16) -> BTreeMap<String, String> {
        let variables = self.service(name)["environment"].as_object().expect("variables");
        let local = |value: &str| {
            let value = value.replace("0.0.0.0:8080", &format!("127.0.0.1:{listen}"));
            self.translated(&value.replace("0.0.0.0:8081", &format!("127.0.0.1:{admin}")))
        };
        variables
            .iter()
            .map(|(name, value)| (name.clone(), local(text(value))))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_runs_and_a_sync_passes_through() {
    let Some(compose) = compose() else { return };
    let mut here = Here::new(compose);
    let script = Path::new(ROOT).join("deploy/secrets/make.sh");
    for _ in 0..2 {
        let secrets = here.path("secrets");
        let (status, said) = finish(
            &script,
            &[secrets.display().to_string()],
            &BTreeMap::new(),
            here.folder.path(),
        )
        .await;
        assert!(status.success(), "{said}");
    }
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
    let demo = format!(
        "\n[integrations.demo]\nconnector = \"demo\"\nallow_hosts = [\"{0}\"]\nconnection.site = \"{0}\"\n\
         connection.per_second = \"1000\"\n",
        crm.url
    );
    for name in OURS {
        here.lay_out(name);
        let settings = here.path(&format!("{name}-snapbridge.toml"));
        std::fs::write(&settings, read(&settings) + &demo).expect("written");
    }
    let environment = here.environment("migrate", free_port(), free_port());
    let (status, said) = finish(binary(), &here.command("migrate"), &environment, here.folder.path()).await;
    assert!(status.success() && said.contains("applied now"), "{said}");

    let mut running = Vec::new();
    for name in ["front", "worker"] {
        let (listen, admin) = (free_port(), free_port());
        let environment = here.environment(name, listen, admin);
        let check = here.health(name);
        assert_eq!(check[0], "snapbridge");
        let folder = here.folder.path().to_owned();
        let health = (check[1..].to_vec(), environment.clone());
        let (status, said) = finish(binary(), &health.0, &health.1, &folder).await;
        assert_eq!(status.code(), Some(1), "nothing runs yet: {said}");
        let arguments = here.command(name);
        let mut process = Process::start(Start {
            name,
            program: binary(),
            arguments,
            environment,
            folder: &folder,
            listen: Some(listen),
            admin,
        });
        process.until_ready().await;
        let (status, said) = finish(binary(), &health.0, &health.1, &folder).await;
        assert!(status.success() && said.contains("\"ready\":true"), "{said}");
        running.push(process);
    }

    std::fs::write(here.path("token"), TOKEN).expect("written");
    let url = format!("{}/demo/contact_sync", running[0].url);
    let arguments = [
        "talkdesk",
        "sync",
        &url,
        "--auth",
        "account=demo",
        "--auth",
        "token=@token",
        "--out",
        "contacts",
        "--json",
    ];
    let arguments = arguments.map(str::to_owned);
    let (status, said) = finish(binary(), &arguments, &BTreeMap::new(), here.folder.path()).await;
    assert!(status.success(), "{said}");
    let contacts = read(&here.path("contacts"));
    let contacts = contacts
        .lines()
        .map(|line| serde_json::from_str(line).expect("a contact"))
        .collect();
    assert_eq!(
        Run {
            contacts,
            ..Run::default()
        }
        .titles(),
        truth(&crm)
    );

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
    let has = |key: &'static str| move |(name, service): (&String, &Value)| service.get(key).map(|_| name.clone());
    let commands = services
        .iter()
        .filter_map(has("command"))
        .map(|name| format!("{name} command"));
    let checks = services
        .iter()
        .filter_map(has("healthcheck"))
        .map(|name| format!("{name} health"));
    assert_eq!(
        here.run,
        commands.chain(checks).collect::<BTreeSet<_>>(),
        "every command of the file has been run"
    );
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
