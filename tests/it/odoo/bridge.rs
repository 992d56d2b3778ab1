//! The bridge's processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ::talkdesk::wire::Auth;
use serde_json::Value;
use url::Url;

use super::crm::Odoo;
use super::talkdesk::Talkdesk;
use super::{NEW, OLD, tell, within};
use crate::harness::{Backend, amqp_url, redis_url};

pub struct Bridge {
    url: Url,
    namespace: String,
    backend: Backend,
    processes: Vec<Process>,
    folder: tempfile::TempDir,
}

impl Bridge {
    pub async fn start(backend: Backend, odoo: &Odoo) -> Bridge {
        let mut bridge = Bridge {
            url: Url::parse("http://127.0.0.1").expect("a URL"),
            namespace: odoo.tag.clone(),
            backend,
            processes: Vec::new(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let settings = settings(backend, odoo, &bridge.namespace, &bridge.path("keys"));
        std::fs::write(bridge.path("snapbridge.toml"), settings).expect("settings");
        match backend {
            Backend::Embedded => {
                let data = bridge.path("data");
                bridge.spawn(&["up", "--data", &data]);
            }
            Backend::Distributed => {
                bridge.output(&["keys", "new", &bridge.path("keys")]);
                bridge.output(&["migrate"]);
                bridge.spawn(&["serve"]);
                bridge.spawn(&["worker"]);
            }
        }
        let address = within("the front listens", async || bridge.processes[0].address()).await;
        bridge.url = Url::parse(&format!("http://{address}")).expect("a URL");
        bridge
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snapbridge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SNAPBRIDGE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("--config")
            .arg(self.path("snapbridge.toml"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn spawn(&mut self, arguments: &[&str]) {
        let log = PathBuf::from(self.path(&format!("{}.log", arguments[0])));
        let file = File::create(&log).expect("a log file");
        let child = self
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        self.processes.push(Process { child, log });
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary starts");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn talkdesk(&self, integration: &str, auth: Auth) -> Talkdesk {
        let url = self.url.join(&format!("/{integration}/contact_sync")).expect("a URL");
        Talkdesk::new(url, auth)
    }

    /// What `status` says of the accounts of an integration.
    fn accounts(&self, integration: &str) -> Vec<Value> {
        let status = self.output(&["status", "--json", "--data", &self.path("data")]);
        let mut status: Value = serde_json::from_str(&status).expect("JSON");
        let accounts: Vec<Value> = serde_json::from_value(status["accounts"].take()).expect("accounts");
        accounts
            .into_iter()
            .filter(|account| account["integration"] == *integration)
            .collect()
    }

    pub fn states(&self, integration: &str) -> Vec<String> {
        let state = |account: &Value| account["state"].as_str().expect("a state").to_owned();
        self.accounts(integration).iter().map(state).collect()
    }

    /// The webhook URL of an integration's account, with its secret: what `webhook.subscribe` has people enter in Odoo.
    pub fn hook(&self, integration: &str) -> String {
        let file = process::keys::load(Path::new(&self.path("keys"))).expect("the key file");
        let keys = snapbridge::keyring::derived(file).expect("keys");
        let account = self.accounts(integration)[0]["id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .expect("an account");
        let path = format!("/{integration}/webhooks/{}", keys.hook_id(&account));
        let url = self.url.join(&path).expect("a URL");
        format!("{url}?key={}", keys.hook_secret(&account))
    }

    /// SIGTERM, and a clean end of each process. Nobody's secret and none of Odoo's tracebacks are in the logs.
    pub async fn stop(mut self) {
        for process in &mut self.processes {
            let kill = Command::new("kill")
                .arg(process.child.id().to_string())
                .status()
                .expect("kill");
            assert!(kill.success());
        }
        for process in &mut self.processes {
            let ended = within("the process ends", async || process.child.try_wait().expect("a child")).await;
            assert!(ended.success(), "{ended}");
            let log = process.text();
            for canary in [OLD, NEW, "Traceback"] {
                assert!(!log.contains(canary), "{canary} is in the log:\n{log}");
            }
        }
        if self.backend == Backend::Distributed {
            forget(&self.namespace).await;
        }
    }
}

/// Takes a namespace out of Redis and RabbitMQ.
async fn forget(namespace: &str) {
    let _ = jobs::rabbitmq::delete_namespace(&amqp_url(), namespace, &jobs::RabbitSettings::default()).await;
    let redis = redis::Client::open(redis_url()).expect("a Redis URL");
    let mut redis = redis.get_multiplexed_async_connection().await.expect("Redis");
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg((cursor, "MATCH", format!("*:{namespace}:*"), "COUNT", 5_000))
            .query_async(&mut redis)
            .await
            .expect("a scan");
        if !keys.is_empty() {
            let _: () = redis::cmd("UNLINK")
                .arg(keys)
                .query_async(&mut redis)
                .await
                .expect("keys go");
        }
        cursor = next;
        if cursor == 0 {
            return;
        }
    }
}

/// `odoo` reconciles so seldom that only polls can bring what the test waits for, and its overlap is longer than the
/// bulk takes on a slow machine; `often` reconciles all the time.
fn settings(backend: Backend, odoo: &Odoo, namespace: &str, keys: &str) -> String {
    let integration = |name: &str, overlap: &str, reconcile: &str| {
        format!(
            "[integrations.{name}]\nconnector = \"odoo\"\nallow_hosts = [\"{}\"]\nregion = \"PT\"\npoll = \"1s\"\n\
             lag = \"0s\"\noverlap = \"{overlap}\"\nreconcile = \"{reconcile}\"\nconnection.per_second = \"100\"\n",
            odoo.url
        )
    };
    let backends = match backend {
        Backend::Embedded => String::new(),
        Backend::Distributed => format!(
            "[store]\nurl = \"{}\"\nnamespace = \"{namespace}\"\n[queue]\nurl = \"{}\"\nnamespace = \"{namespace}\"\n",
            redis_url(),
            amqp_url(),
        ),
    };
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [keys]\nfile = \"{keys}\"\n[refresh]\nsweep = \"200ms\"\n{}{}{backends}",
        integration("odoo", "2m", "24h"),
        integration("often", "5s", "3s"),
    )
}

struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Where the front listens, as it logs it.
    fn address(&self) -> Option<String> {
        let lines: Vec<Value> = self
            .text()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let line = lines
            .into_iter()
            .find(|line| line["message"] == "serving Talkdesk and webhooks")?;
        Some(line["address"].as_str()?.to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            tell(&self.text());
        }
    }
}
