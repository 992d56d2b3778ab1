//! What every test here stands on: a fake CRM and a bridge in this process, on either backend, each under a namespace of
//! its own.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contacts::{AccountId, Store};
use fake_crm::{AccountOptions, FakeCrm, Options, RateLimit};
use process::settings::{LogFormat, Settings, Source};
use process::telemetry::Metrics;
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use snapbridge::wiring::{self, Defaults, Listeners, Parts, Role};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "demo-token";
/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Embedded,
    Distributed,
}

/// Runs one test body on both backends, as two tests.
macro_rules! on_both {
    ($name:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                let body = $body;
                body(Backend::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn distributed() {
                if crate::harness::services() {
                    let body = $body;
                    body(Backend::Distributed).await;
                }
            }
        }
    };
}
pub(crate) use on_both;

pub fn redis_url() -> String {
    std::env::var("SNAPBRIDGE_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into())
}

pub fn amqp_url() -> String {
    std::env::var("SNAPBRIDGE_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into())
}

/// Whether Redis and RabbitMQ are there. Without them a test is skipped, loudly; with `REQUIRE_SERVICES=1` it fails.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn services() -> bool {
    let address = |url: String| {
        let url = url::Url::parse(&url).expect("a service's URL");
        format!(
            "{}:{}",
            url.host_str().unwrap_or("127.0.0.1"),
            url.port().unwrap_or(if url.scheme() == "redis" { 6379 } else { 5672 })
        )
    };
    let missing: Vec<String> = [address(redis_url()), address(amqp_url())]
        .into_iter()
        .filter(|address| std::net::TcpStream::connect(address).is_err())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var("REQUIRE_SERVICES").as_deref() != Ok("1"),
        "services are required and missing: {missing:?}"
    );
    eprintln!("SKIPPED: nothing listens at {missing:?}");
    false
}

/// A fake CRM that listens.
pub struct Crm {
    pub crm: FakeCrm,
    pub url: String,
    stop: CancellationToken,
}

pub const NO_LIMIT: Option<RateLimit> = None;

impl Crm {
    pub async fn start(contacts: usize) -> Crm {
        Crm::limited(contacts, NO_LIMIT).await
    }

    pub async fn limited(contacts: usize, limit: Option<RateLimit>) -> Crm {
        let account = |name: &str, contacts| AccountOptions {
            name: name.into(),
            token: TOKEN.into(),
            contacts,
            limit,
            ..AccountOptions::default()
        };
        let accounts = vec![account("demo", contacts), account("other", 7)];
        let crm = FakeCrm::new(Options { seed: 7, accounts });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        tokio::spawn(crm.clone().serve(listener, stop.clone()));
        Crm { crm, url, stop }
    }

    /// One that is served already, until `stop`.
    pub fn of(crm: FakeCrm, url: String, stop: CancellationToken) -> Crm {
        Crm { crm, url, stop }
    }

    /// Calls the CRM has counted, checks included.
    pub fn calls(&self) -> u64 {
        self.crm.stats("demo").counted
    }

    pub fn checks(&self) -> u64 {
        self.crm.stats("demo").calls_of("check")
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A bridge in this process: front and worker.
pub struct Bridge {
    pub url: String,
    pub admin: String,
    pub store: Arc<dyn Store>,
    pub keys: Arc<contacts::keys::Keys>,
    pub http: reqwest::Client,
    pub backend: Backend,
    namespace: String,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    data: Arc<tempfile::TempDir>,
}

/// How a bridge is set up.
pub struct Setup<'a> {
    pub backend: Backend,
    pub role: Role,
    /// More settings, as TOML; `[integrations.demo]` is there.
    pub more: &'a str,
    /// The folder and namespace of another bridge, to be shared.
    pub beside: Option<&'a Bridge>,
}

impl Bridge {
    pub async fn start(backend: Backend, crm: &Crm, more: &str) -> Bridge {
        Bridge::set_up(
            Setup {
                backend,
                role: Role::Both,
                more,
                beside: None,
            },
            crm,
        )
        .await
    }

    pub async fn set_up(setup: Setup<'_>, crm: &Crm) -> Bridge {
        let place = setup.beside.map(|other| (other.data.clone(), other.namespace.clone()));
        Bridge::set_up_in(place, setup, crm).await
    }

    /// `place`: the folder and namespace that are there already.
    async fn set_up_in(place: Option<(Arc<tempfile::TempDir>, String)>, setup: Setup<'_>, crm: &Crm) -> Bridge {
        process::tls::install_provider();
        if let Ok(level) = std::env::var("SNAPBRIDGE_TEST_LOG") {
            // A second bridge of one test finds the first one's subscriber.
            let _ = process::telemetry::init_logs(LogFormat::Text, &level);
        }
        let is_new = place.is_none();
        let (data, namespace) = place.unwrap_or_else(|| {
            let data = tempfile::tempdir().expect("a temporary folder");
            (Arc::new(data), format!("it{:010x}", rand::random::<u64>() >> 24))
        });
        let text = settings_text(setup.backend, &crm.url, data.path(), &namespace, setup.more);
        let settings = load(&text);
        let defaults = Defaults::Embedded(data.path().to_owned());
        if setup.backend == Backend::Distributed && is_new {
            let url = defaults.store(&settings).expect("a store URL");
            store::migrate(&url, &namespace, false)
                .await
                .expect("the store's layout");
            jobs::migrate(&amqp_url(), &namespace, false)
                .await
                .expect("the queue's layout");
        }
        let parts = Parts::build(settings, &defaults, Path::new(""))
            .await
            .expect("a bridge");
        let listeners = Listeners::bind(&parts.settings, setup.role, data.path())
            .await
            .expect("free ports");
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
        let url = listeners.public.as_ref().map(address).unwrap_or_default();
        let admin = address(&listeners.admin);
        let (store, keys) = (parts.store.clone(), parts.keys.clone());
        let stop = CancellationToken::new();
        let metrics = Metrics::install().expect("a metrics recorder");
        let running = tokio::spawn(wiring::run(parts, setup.role, listeners, metrics, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let bridge = Bridge {
            url,
            admin,
            store,
            keys,
            http,
            backend: setup.backend,
            namespace,
            stop,
            running: Some(running),
            data,
        };
        until("the admin listener answers", || async {
            bridge
                .http
                .get(format!("{}/healthz", bridge.admin))
                .send()
                .await
                .is_ok()
        })
        .await;
        bridge
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self
            .http
            .post(format!("{}{path}", self.url))
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub async fn validate(&self, auth: Value) -> (u16, Value) {
        self.post("/demo/auth_validation", json!({ "auth": auth })).await
    }

    pub async fn sync(&self, meta: Value) -> (u16, Value) {
        self.post("/demo/contact_sync", json!({"auth": auth(), "meta": meta}))
            .await
    }

    /// One whole run: contacts by id in the order of delivery (the last version of each), the last checkpoint, pages.
    pub async fn run(&self, checkpoint: Option<&str>) -> Run {
        let mut run = Run::default();
        let mut meta = json!({ "synchronization_checkpoint": checkpoint });
        let began = Instant::now();
        loop {
            let (status, page) = self.sync(meta).await;
            assert_eq!(status, 200, "{page}");
            run.pages += 1;
            for contact in page["contacts"].as_array().expect("contacts") {
                run.contacts.push(contact.clone());
            }
            run.checkpoint = page["synchronization_checkpoint"]
                .as_str()
                .expect("a checkpoint")
                .to_owned();
            let Some(next) = page.get("next_offset") else {
                return run;
            };
            meta = json!({"offset": next, "context": page["context"]});
            assert!(began.elapsed() < PATIENCE, "a run without end: {} pages", run.pages);
        }
    }

    /// Builds the snapshots of the demo account and waits until its first passes have ended.
    pub async fn build(&self) -> AccountId {
        let (status, body) = self.validate(auth()).await;
        assert_eq!(status, 200, "{body}");
        let account = self.account().await;
        until("the first passes are complete", || async {
            let work = contacts::work::load(&*self.store, &account)
                .await
                .expect("the account's work");
            let done = |kind| work.tasks.get(&kind).is_some_and(|task| task.last_done.is_some());
            done(contacts::Kind::Full) && done(contacts::Kind::Agents)
        })
        .await;
        account
    }

    pub async fn account(&self) -> AccountId {
        let ids = account_ids(&*self.store, 10).await.expect("accounts");
        ids.first().expect("an account").clone()
    }

    /// Where the embedded store lies.
    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The settings of this bridge as a file, for commands that run beside it.
    pub fn settings_file(&self, crm: &Crm, more: &str) -> PathBuf {
        let file = self.folder().join("snapbridge.toml");
        let text = settings_text(self.backend, &crm.url, self.folder(), &self.namespace, more);
        std::fs::write(&file, text).expect("a settings file");
        file
    }

    /// Every key of this bridge in Redis, with its serialised value.
    pub async fn redis_dump(&self) -> Vec<(String, Vec<u8>)> {
        let client = redis::Client::open(redis_url()).expect("a Redis URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis");
        let mut found = Vec::new();
        for key in scan(&mut connection, &format!("*:{}:*", self.namespace)).await {
            let value: Vec<u8> = redis::cmd("DUMP")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .expect("a value");
            found.push((String::from_utf8_lossy(&key).into_owned(), value));
        }
        found
    }

    /// Stops and waits.
    pub async fn stop(mut self) {
        self.halt().await;
        self.clean_up().await;
    }

    /// Stops, and begins anew where it stopped, with other settings.
    pub async fn restart(mut self, crm: &Crm, more: &str) -> Bridge {
        self.halt().await;
        let place = (self.data.clone(), self.namespace.clone());
        let backend = self.backend;
        drop(self);
        // A task that ends late may hold an embedded store a little longer.
        if backend == Backend::Embedded {
            let is_free =
                |lock| std::fs::File::open(place.0.path().join(lock)).is_ok_and(|file| file.try_lock().is_ok());
            until("the folder is let go of", || async {
                ["store.lock", "queue.lock"].into_iter().all(is_free)
            })
            .await;
        }
        let setup = Setup {
            backend,
            role: Role::Both,
            more,
            beside: None,
        };
        Bridge::set_up_in(Some(place), setup, crm).await
    }

    async fn halt(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("no panic").expect("a clean end");
        }
    }

    async fn clean_up(&self) {
        if self.backend == Backend::Distributed {
            let settings = jobs::RabbitSettings::default();
            let _ = jobs::rabbitmq::delete_namespace(&amqp_url(), &self.namespace, &settings).await;
            let client = redis::Client::open(redis_url()).expect("a Redis URL");
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let pattern = format!("*:{}:*", self.namespace);
                let keys: Vec<Vec<u8>> = scan(&mut connection, &pattern).await;
                for keys in keys.chunks(500) {
                    let _: Result<(), _> = redis::cmd("UNLINK").arg(keys).query_async(&mut connection).await;
                }
            }
        }
    }
}

async fn scan(connection: &mut redis::aio::MultiplexedConnection, pattern: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut cursor = 0u64;
    loop {
        let scanned: Result<(u64, Vec<Vec<u8>>), _> = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(5_000)
            .query_async(connection)
            .await;
        let Ok((next, keys)) = scanned else { return found };
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return found;
        }
    }
}

/// What a whole run delivered.
#[derive(Debug, Default)]
pub struct Run {
    pub contacts: Vec<Value>,
    pub checkpoint: String,
    pub pages: usize,
}

impl Run {
    pub fn ids(&self) -> std::collections::BTreeSet<String> {
        self.contacts
            .iter()
            .map(|contact| contact["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// The last version delivered of each contact: id → title.
    pub fn titles(&self) -> std::collections::BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.contacts
            .iter()
            .map(|contact| (text(&contact["id"]), text(&contact["title"])))
            .collect()
    }
}

pub fn auth() -> Value {
    json!({"account": "demo", "token": TOKEN})
}

/// id → title of what the CRM has now.
pub fn truth(crm: &Crm) -> std::collections::BTreeMap<String, String> {
    crm.crm
        .truth("demo")
        .into_iter()
        .map(|row| (row.id, row.job_title.trim().to_owned()))
        .collect()
}

/// The settings of a bridge under test.
pub fn settings_text(backend: Backend, crm: &str, data: &Path, namespace: &str, more: &str) -> String {
    let backends = match backend {
        Backend::Embedded => String::new(),
        // Patient: tests run side by side on machines that are busy with others.
        Backend::Distributed => format!(
            "[redis]\nread_timeout = \"5s\"\nwrite_timeout = \"10s\"\n[store]\nurl = \"{}\"\nnamespace = \"{namespace}\"\n[queue]\nurl = \"{}\"\nnamespace = \"{namespace}\"\n",
            redis_url(),
            amqp_url()
        ),
    };
    let keys: PathBuf = data.join("keys");
    format!(
        "http.listen = \"127.0.0.1:0\"\nhttp.admin_listen = \"127.0.0.1:0\"\nkeys.file = \"{}\"\n\
         integrations.demo.connector = \"demo\"\nintegrations.demo.allow_hosts = [\"{crm}\"]\n\
         integrations.demo.region = \"PT\"\nintegrations.demo.connection.site = \"{crm}\"\n\
         integrations.demo.connection.per_second = \"1000\"\n{more}\n{backends}",
        keys.display()
    )
}

pub fn load(text: &str) -> Settings {
    Settings::load(&Source::text(text)).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("settings: {}\n{text}", lines.join("\n"))
    })
}

/// Waits for a condition; fails with its name.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    until_within(PATIENCE, what, holds).await;
}

/// For what takes longer than [`PATIENCE`] on a busy machine.
#[expect(clippy::print_stderr, reason = "a test that comes near its patience says so")]
pub async fn until_within<F: Future<Output = bool>>(patience: Duration, what: &str, holds: impl Fn() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < patience, "did not happen within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    if took * 3 > patience {
        // Seen with the output of tests that pass (nextest: --success-output), before the day on which they do not.
        eprintln!("SLOW: took {took:.0?} of {patience:.0?}: {what}");
    }
}
