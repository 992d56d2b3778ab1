//! The real binary as processes, killed and stopped and frozen, in front of a fake CRM in this process.

mod agents;
mod budget;
mod canaries;
mod crash_points;
mod fencing;
mod kills;
mod linking;
mod rotation;
mod stopping;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contacts::{AccountId, Kind, Micros, Store, SystemClock};
use parking_lot::Mutex;
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use tokio::sync::OnceCell;

use crate::harness::*;

/// Leases, markers and sweeps that let a crash heal within seconds.
pub const QUICK: &str = "worker.slice_time = \"1s\"\nworker.lease = \"1500ms\"\nrefresh.marker = \"1500ms\"\n\
                         refresh.sweep = \"150ms\"\nrefresh.poll = \"1s\"\nretry.first = \"200ms\"\n";

const BINARY: &str = env!("CARGO_BIN_EXE_snapbridge");

/// One installation: a namespace or folder, settings, a key file. Its processes come and go.
pub struct Site {
    pub backend: Backend,
    pub keys: Arc<contacts::keys::Keys>,
    dir: tempfile::TempDir,
    namespace: String,
    looking: OnceCell<Arc<dyn Store>>,
}

impl Site {
    /// `more`: settings as TOML; without another `log.format`, processes log JSON. `files`: further files beside the settings, by
    /// name.
    pub fn new(backend: Backend, crm: &Crm, more: &str, files: &[(&str, &str)]) -> Site {
        Site::edited(backend, &crm.url, more, files, |text| text)
    }

    /// `edit`: has the last word about the settings.
    pub fn edited(
        backend: Backend,
        crm: &str,
        more: &str,
        files: &[(&str, &str)],
        edit: impl FnOnce(String) -> String,
    ) -> Site {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let namespace = format!("it{:010x}", rand::random::<u64>() >> 24);
        let format = if more.contains("log.format") {
            ""
        } else {
            "log.format = \"json\"\n"
        };
        let text = settings_text(backend, crm, dir.path(), &namespace, &format!("{format}{more}"));
        std::fs::write(dir.path().join("snapbridge.toml"), edit(text)).expect("a settings file");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("a file");
        }
        let key_file = dir.path().join("keys");
        let keys = process::keys::create_if_missing(&key_file).expect("a key file");
        let keys = snapbridge::keyring::derived(keys).expect("keys");
        let site = Site {
            backend,
            keys,
            dir,
            namespace,
            looking: OnceCell::new(),
        };
        if backend == Backend::Distributed {
            site.done(&["migrate"]);
        }
        site
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.dir.path().join("snapbridge.toml"));
        if ["up", "status"].iter().any(|role| arguments.contains(role)) {
            command.arg("--data").arg(self.data());
        }
        // All of these would be settings; a test machine has some of its own.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SNAPBRIDGE_") {
                command.env_remove(name);
            }
        }
        command.env_remove("CRASH_POINT").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; what it printed, or what it complained of.
    pub fn tried(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs a command to its end; returns what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts `serve`, `worker` or `up`, and waits until it listens.
    pub async fn start(&self, role: &str) -> Process {
        let mut process = self.start_to_crash(role, None);
        let deadline = Instant::now() + PATIENCE;
        while !process.listens() {
            let ended = process.child.try_wait().expect("a child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{role} does not start: {ended:?}\n{}",
                process.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process
    }

    /// Starts a role with a crash point; it may be gone before this returns.
    pub fn start_to_crash(&self, role: &str, point: Option<&str>) -> Process {
        let mut command = self.command(&[role]);
        if let Some(point) = point {
            command.env("CRASH_POINT", point);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let heard = Arc::<Mutex<Heard>>::default();
        let stderr = child.stderr.take().expect("its stderr");
        let stdout = child.stdout.take().expect("its stdout");
        std::thread::spawn({
            let heard = heard.clone();
            move || listen(stderr, &heard)
        });
        std::thread::spawn({
            let heard = heard.clone();
            move || listen(stdout, &heard)
        });
        Process {
            child,
            role: role.to_owned(),
            heard,
        }
    }

    /// The store behind the processes, for looking. A process must have opened it.
    pub async fn store(&self) -> &Arc<dyn Store> {
        let open = || async {
            match self.backend {
                Backend::Embedded => {
                    let store = store::SqliteStore::open_read_only(self.data()).await.expect("a store");
                    Arc::new(store) as Arc<dyn Store>
                }
                Backend::Distributed => {
                    let url = redis_url().parse().expect("a store URL");
                    // A look is no part of what is tested, however busy the machine.
                    let settings = store::RedisSettings {
                        read_timeout: PATIENCE,
                        ..store::RedisSettings::default()
                    };
                    store::connect(&url, &self.namespace, settings, Arc::new(SystemClock))
                        .await
                        .expect("a store")
                }
            }
        };
        self.looking.get_or_init(open).await
    }

    /// Whether nothing is left over: nothing dirty, the first pass done, no job awaited, nothing given up.
    pub async fn is_settled(&self) -> bool {
        let store = self.store().await;
        let now = now();
        let accounts = account_ids(&**store, 100).await.expect("accounts");
        for account in &accounts {
            let work = contacts::work::load(&**store, account).await.expect("work");
            let waits = |kind| {
                work.tasks
                    .get(&kind)
                    .and_then(|task| task.due)
                    .is_some_and(|due| due <= now)
            };
            let done = |kind| work.tasks.get(&kind).is_some_and(|task| task.last_done.is_some());
            let built = done(Kind::Full) && done(Kind::Agents);
            let dirty = store.dirty(account, 1).await.expect("dirty ids");
            if !built
                || waits(Kind::Full)
                || waits(Kind::Ids)
                || waits(Kind::Agents)
                || !dirty.is_empty()
                || work.park.is_some()
            {
                return false;
            }
        }
        !accounts.is_empty()
    }

    /// What `status` says.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--json"])).expect("JSON")
    }

    /// Nothing was given up, neither by the worker nor by the queue (invariant 14).
    pub fn assert_nothing_given_up(&self) {
        let status = self.status();
        assert_eq!(
            (&status["dead_letters"], &status["dead"]),
            (&json!(0), &json!(0)),
            "{status}"
        );
    }

    pub async fn account(&self) -> AccountId {
        account_ids(&**self.store().await, 1)
            .await
            .expect("accounts")
            .pop()
            .expect("an account")
    }

    /// Points the CRM's webhooks at a front.
    pub fn subscribe(&self, crm: &Crm, front: &Process, account: &AccountId) {
        let url = format!("{}/demo/webhooks/{}", front.url(), self.keys.hook_id(account));
        let mut webhook = fake_crm::Webhook::new(url, self.keys.hook_secret(account));
        webhook.attempts = 2;
        crm.crm
            .control(fake_crm::Control::webhook("demo", Some(webhook)))
            .done();
    }
}

impl Drop for Site {
    /// Also after a failure, so that no namespace stays behind.
    fn drop(&mut self) {
        if self.backend == Backend::Distributed {
            let namespace = self.namespace.clone();
            let cleaning = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(delete(&namespace));
            });
            let _ = cleaning.join();
        }
    }
}

async fn delete(namespace: &str) {
    let settings = jobs::RabbitSettings::default();
    let _ = jobs::rabbitmq::delete_namespace(&amqp_url(), namespace, &settings).await;
    let Ok(client) = redis::Client::open(redis_url()) else {
        return;
    };
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
        return;
    };
    let mut cursor = 0u64;
    loop {
        let scan = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("*:{namespace}:*"))
            .arg("COUNT")
            .arg(5_000)
            .clone();
        let Ok((next, keys)) = scan.query_async::<(u64, Vec<Vec<u8>>)>(&mut connection).await else {
            return;
        };
        for keys in keys.chunks(500) {
            let _: Result<(), _> = redis::cmd("UNLINK").arg(keys).query_async(&mut connection).await;
        }
        cursor = next;
        if cursor == 0 {
            return;
        }
    }
}

/// What a process has said on stdout and stderr.
#[derive(Default)]
struct Heard {
    url: Option<String>,
    admin: Option<String>,
    lines: Vec<String>,
}

fn listen(output: impl Read, heard: &Mutex<Heard>) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        // In text the address stands behind the message.
        let word = line.split_once("address=").and_then(|(_, rest)| rest.split(' ').next());
        let address = said["address"]
            .as_str()
            .or(word)
            .map(|address| format!("http://{address}"));
        let mut heard = heard.lock();
        match address {
            Some(_) if line.contains("serving Talkdesk and webhooks") => heard.url = address,
            Some(_) if line.contains("serving health and metrics") => heard.admin = address,
            _ => {}
        }
        heard.lines.push(line);
    }
}

/// A process of the binary. Dropped, it is killed.
pub struct Process {
    child: Child,
    role: String,
    heard: Arc<Mutex<Heard>>,
}

impl Process {
    fn listens(&self) -> bool {
        let heard = self.heard.lock();
        heard.admin.is_some() && (heard.url.is_some() || self.role == "worker")
    }

    /// Where operators call.
    pub fn admin(&self) -> String {
        self.heard.lock().admin.clone().unwrap_or_default()
    }

    /// Where Talkdesk calls.
    pub fn url(&self) -> String {
        self.heard.lock().url.clone().unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let heard = self.heard.lock();
        let from = heard.lines.len().saturating_sub(40);
        format!(
            "--- {} {}\n{}",
            self.role,
            self.child.id(),
            heard.lines[from..].join("\n")
        )
    }

    /// All it has said.
    pub fn emitted(&self) -> String {
        self.heard.lock().lines.join("\n")
    }

    pub fn has_said(&self, words: &str) -> bool {
        self.heard.lock().lines.iter().any(|line| line.contains(words))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP: it stands still until [`Process::go_on`], and nobody is told.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{signal} was not sent");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it goes on and on\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it ended at a crash point.
    pub fn has_crashed(&mut self) -> bool {
        const SIGABRT: i32 = 6;
        match self.child.try_wait().expect("a child") {
            None => false,
            Some(status) if status.signal() == Some(SIGABRT) => true,
            Some(status) => panic!("{status} instead of a crash\n{}", self.log()),
        }
    }

    /// The sum of a metric over all label sets that contain `labels`.
    pub async fn metric(&self, http: &reqwest::Client, name: &str, labels: &str) -> f64 {
        let admin = self.heard.lock().admin.clone().expect("an admin listener");
        let text = http
            .get(format!("{admin}/metrics"))
            .send()
            .await
            .expect("metrics")
            .text()
            .await
            .expect("metrics");
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let found = text.lines().filter(of_name).filter(|line| line.contains(labels));
        found
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Plays Talkdesk against one front. Errors are those of the connection: fronts die here.
#[derive(Clone)]
pub struct Talkdesk {
    pub http: reqwest::Client,
    pub url: String,
}

impl Talkdesk {
    pub fn of(front: &Process) -> Talkdesk {
        process::tls::install_provider();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Talkdesk {
            http,
            url: format!("{}/demo", front.url()),
        }
    }

    pub async fn post(&self, path: &str, body: Value) -> reqwest::Result<(u16, Value)> {
        let response = self
            .http
            .post(format!("{}/{path}", self.url))
            .json(&body)
            .send()
            .await?;
        Ok((response.status().as_u16(), response.json().await.unwrap_or(Value::Null)))
    }

    pub async fn validate(&self) -> reqwest::Result<u16> {
        Ok(self.post("auth_validation", json!({ "auth": auth() })).await?.0)
    }

    /// A whole run.
    pub async fn run(&self, checkpoint: Option<&str>) -> Run {
        let mut run = Run::default();
        let mut meta = json!({ "synchronization_checkpoint": checkpoint });
        let began = Instant::now();
        loop {
            let (status, page) = self
                .post("contact_sync", json!({"auth": auth(), "meta": meta}))
                .await
                .expect("a page");
            assert_eq!(status, 200, "{page}");
            run.pages += 1;
            run.contacts
                .extend(page["contacts"].as_array().expect("contacts").iter().cloned());
            run.checkpoint = page["synchronization_checkpoint"]
                .as_str()
                .expect("a checkpoint")
                .to_owned();
            let Some(next) = page.get("next_offset") else {
                return run;
            };
            meta = json!({"offset": next, "context": page["context"]});
            assert!(began.elapsed() < PATIENCE * 3, "a run without end: {} pages", run.pages);
        }
    }
}

/// The ids that a run delivered more than once.
pub fn repeated(run: &Run) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let ids = run
        .contacts
        .iter()
        .map(|contact| contact["id"].as_str().expect("an id").to_owned());
    ids.filter(|id| !seen.insert(id.clone())).collect()
}

pub fn now() -> Micros {
    contacts::Clock::now(&SystemClock)
}

/// Prints a measured figure.
#[expect(clippy::print_stderr, reason = "measured figures are what a fault test is also for")]
pub fn figure(text: &str) {
    eprintln!("FIGURE {text}");
}
