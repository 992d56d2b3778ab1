//! Redis and RabbitMQ that are late, die, fall silent, forget or are not laid out: the real binary as processes, servers
//! of the test's own, and a relay between them that loses connections in every way a network does.

pub mod child;
pub mod rabbit;
pub mod relay;
pub mod servers;

mod broker;
mod kept;
mod late;
mod refused;
mod silent;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use contacts::keys::Keys;
use contacts::work::Work;
use contacts::{AccountId, Kind, Store, SystemClock};
use fake_crm::signature;
use serde_json::{Value, json};

use crate::harness::*;
use child::{Process, Start};
use rabbit::Rabbit;
use servers::{Redis, free_port};

pub const NAMESPACE: &str = "faults";

/// Quick to look, so that a test is over soon; the limits in time are those of production.
const QUICK: &str = "page.contacts = 50\nrefresh.poll = \"1s\"\nrefresh.sweep = \"300ms\"\nrefresh.marker = \"3s\"\n\
                     refresh.jitter = 0.0\nworker.lease = \"4s\"\nworker.slice_time = \"2s\"\nretry.first = \"500ms\"\nrabbitmq.heartbeat = \"3s\"";

/// A fake CRM, and a folder with settings and keys for any number of processes.
pub struct Rig {
    pub crm: Crm,
    pub keys: Arc<Keys>,
    folder: tempfile::TempDir,
    store_url: String,
    queue_url: String,
    more: String,
}

impl Rig {
    pub async fn new(contacts: usize, store_url: &str, queue_url: &str) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = process::keys::create_if_missing(&folder.path().join("keys")).expect("a key file");
        Rig {
            crm: Crm::start(contacts).await,
            keys: snapbridge::keyring::derived(keys).expect("keys"),
            folder,
            store_url: store_url.to_owned(),
            queue_url: queue_url.to_owned(),
            more: QUICK.to_owned(),
        }
    }

    /// More settings, or other values of these, for the processes started from here on.
    pub fn set(&mut self, more: &str) {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        for line in more.lines() {
            let kept = self.more.lines().filter(|old| key(old) != key(line));
            self.more = kept.chain([line]).collect::<Vec<_>>().join("\n");
        }
    }

    /// Other backends for the processes started from here on.
    pub fn move_to(&mut self, store_url: &str, queue_url: &str) {
        self.store_url = store_url.to_owned();
        self.queue_url = queue_url.to_owned();
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// `store` and `queue` as SQLite where their URLs are empty.
    pub fn settings(&self, listen: u16, admin: u16) -> String {
        let backend = |section: &str, url: &str| match url {
            "" => String::new(),
            url => format!("[{section}]\nurl = \"{url}\"\nnamespace = \"{NAMESPACE}\"\n"),
        };
        format!(
            "http.listen = \"127.0.0.1:{listen}\"\nhttp.admin_listen = \"127.0.0.1:{admin}\"\nkeys.file = \"keys\"\n\
             integrations.demo.connector = \"demo\"\nintegrations.demo.allow_hosts = [\"{crm}\"]\n\
             integrations.demo.region = \"PT\"\nintegrations.demo.connection.site = \"{crm}\"\n\
             integrations.demo.connection.per_second = \"1000\"\n{more}\n{store}{queue}",
            crm = self.crm.url,
            more = self.more,
            store = backend("store", &self.store_url),
            queue = backend("queue", &self.queue_url),
        )
    }

    /// Starts `snapbridge ROLE` and does not wait.
    pub fn start(&self, role: &str) -> Process {
        let (listen, admin) = (free_port(), free_port());
        let file = format!("{role}-{admin}.toml");
        std::fs::write(self.folder.path().join(&file), self.settings(listen, admin)).expect("written");
        Process::start(Start {
            name: role,
            program: child::binary(),
            arguments: [role, "--config", &file].map(str::to_owned).to_vec(),
            environment: BTreeMap::new(),
            folder: self.folder.path(),
            listen: (role != "worker").then_some(listen),
            admin,
        })
    }

    /// Runs `snapbridge …` to its end: exit code and what it said.
    pub async fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        std::fs::write(self.folder.path().join("command.toml"), self.settings(0, 0)).expect("written");
        let mut all = vec!["--config".to_owned(), "command.toml".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let (status, text) = child::finish(child::binary(), &all, &BTreeMap::new(), self.folder.path()).await;
        (status.code(), text)
    }

    /// A front and a worker, ready, with the layouts in place.
    pub async fn up(&self) -> (Process, Process) {
        let (code, text) = self.command(&["migrate"]).await;
        assert_eq!(code, Some(0), "{text}");
        let (mut front, mut worker) = (self.start("serve"), self.start("worker"));
        front.until_ready().await;
        worker.until_ready().await;
        (front, worker)
    }

    pub async fn store(&self, url: &str) -> Arc<dyn Store> {
        let url = url.parse().expect("a store");
        let settings = store::RedisSettings::default();
        store::connect(&url, NAMESPACE, settings, Arc::new(SystemClock))
            .await
            .expect("the store answers")
    }

    /// A signed webhook for an account: these contacts changed.
    pub async fn webhook(&self, front: &Process, account: &AccountId, ids: &[&str]) -> child::Answer {
        let event = |id: &&str| {
            let number: u64 = rand::random();
            json!({"event_id": format!("e{number:x}"), "account": "demo", "type": "contact.updated", "id": id,
                   "at": 1_760_000_000_000u64})
        };
        let body = Value::from_iter(ids.iter().map(event)).to_string();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_millis()
            .to_string();
        let signature = signature(&self.keys.hook_secret(account), &now, body.as_bytes());
        let url = format!("{}/demo/webhooks/{}", front.url, self.keys.hook_id(account));
        let request = front.http.post(url).header(fake_crm::TIMESTAMP_HEADER, now);
        let request = request.header(fake_crm::SIGNATURE_HEADER, signature).body(body);
        child::Answer::of(request.send().await.expect("an answer")).await
    }
}

/// Registers the demo account by a first call, and waits until its first full pass has ended.
pub async fn build(front: &Process, store: &dyn Store) -> AccountId {
    let answer = front.post("/demo/auth_validation", json!({ "auth": auth() })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until_built(store, "demo").await
}

/// Waits until the first full pass of an account of the CRM has ended.
pub async fn until_built(store: &dyn Store, name: &str) -> AccountId {
    until(&format!("the first full pass of {name} is complete"), || async {
        let Some(account) = account(store, name).await else {
            return false;
        };
        work(store, &account)
            .await
            .tasks
            .get(&Kind::Full)
            .is_some_and(|task| task.last_done.is_some())
    })
    .await;
    account(store, name).await.expect("an account")
}

pub async fn account(store: &dyn Store, name: &str) -> Option<AccountId> {
    contacts::accounts::by_route(store, "demo", name)
        .await
        .expect("accounts")
        .into_iter()
        .next()
}

pub async fn work(store: &dyn Store, account: &AccountId) -> Work {
    contacts::work::load(store, account).await.expect("the account's work")
}

/// A Redis of one's own, started.
pub async fn own_redis() -> Option<Redis> {
    let mut redis = Redis::new()?;
    redis.up().await;
    Some(redis)
}

/// A Redis and a RabbitMQ of one's own, started.
pub async fn own_servers() -> Option<(Redis, Rabbit)> {
    Some((own_redis().await?, Rabbit::start().await?))
}

/// id → title of what pages and the runs after them delivered, the last version of each.
pub fn delivered(pages: &[&Value], runs: &[&Run]) -> BTreeMap<String, String> {
    let of_page = |page: &&Value| {
        let contacts = page["contacts"].as_array().expect("contacts").clone();
        Run {
            contacts,
            ..Run::default()
        }
        .titles()
    };
    pages
        .iter()
        .flat_map(of_page)
        .chain(runs.iter().flat_map(|run| run.titles()))
        .collect()
}
