//! Every metric off zero by its own cause, on both backends and from real processes, whose recorders are their own.
//!
//! Not driven: `snapbridge_panics_total` (no request is known to panic) and `snapbridge_snapshots_lost_total` (a snapshot
//! that goes between two reads of one page); on SQLite also what only a broker or a Redis can do, and
//! `snapbridge_queue_dead` (jobs that nobody settled 21 times, which a worker takes in at once).

mod causes;
mod depths;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use contacts::{AccountId, Store, SystemClock, work};
use serde_json::json;

use crate::faults::child::Process;
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::Redis;
use crate::faults::{NAMESPACE, Rig};
use crate::harness::*;
use causes::{causes, of_redis, of_the_broker};

/// Secrets that must never show, beside the keys of the key file.
const REDIS_CANARY: &str = "canary-redis-7f3a";
const AMQP_CANARY: &str = "canary-amqp-91bc";
const PATH_CANARY: &str = "canary-path-5d20";
const APP_CANARY: &str = "canary-app-aa41";
const CRM_CANARY: &str = "canary-crm-0c9e";

const NOT_DRIVEN: [&str; 2] = ["snapbridge_panics_total", "snapbridge_snapshots_lost_total"];
/// Driven by `https`, which has certificates.
const OF_HTTPS: [&str; 3] = [
    "snapbridge_tls_certificate_expiry_timestamp_seconds",
    "snapbridge_tls_reloads_total",
    "snapbridge_tls_handshake_failures_total",
];
/// Driven by `ops`.
const OF_OPS: [&str; 2] = ["snapbridge_key_reloads_total", "snapbridge_ops_logins_total"];
/// Driven by `linking`.
const OF_LINKING: [&str; 4] = [
    "snapbridge_link_updates_total",
    "snapbridge_link_full_total",
    "snapbridge_link_payloads_total",
    "snapbridge_link_writes_total",
];
/// Driven by `actions` and `interactions`.
const OF_AGENTS_AT_WORK: [&str; 4] = [
    "snapbridge_actions_total",
    "snapbridge_interactions_total",
    "snapbridge_interactions_fetched_total",
    "snapbridge_interactions_dropped_total",
];
/// Driven on Redis and RabbitMQ alone.
const DISTRIBUTED: [&str; 9] = [
    "snapbridge_store_warnings",
    "snapbridge_queue_dead",
    "snapbridge_queue_blocked",
    "snapbridge_queue_disconnects_total",
    "snapbridge_queue_publishes_total",
    "snapbridge_queue_redeclared_total",
    "snapbridge_queue_unsettled_total",
    "snapbridge_redis_timeouts_total",
    "snapbridge_redis_connections_replaced_total",
];

/// Processes under watch: what their `/metrics` ever said.
struct Watched {
    // Before the rig, whose folder their logs lie in.
    processes: Vec<Process>,
    rig: Rig,
    driven: RefCell<BTreeSet<String>>,
    said: RefCell<String>,
}

impl Watched {
    fn new(rig: Rig, processes: Vec<Process>) -> Watched {
        Watched {
            rig,
            processes,
            driven: RefCell::default(),
            said: RefCell::default(),
        }
    }

    /// The sum over all series with this label, of all processes. A histogram's is its count.
    async fn value(&self, name: &str, label: &str) -> f64 {
        let mut sum = 0.0;
        for process in &self.processes {
            let Some((200, text)) = process.look("/metrics").await else {
                continue;
            };
            sum += text.lines().filter_map(|line| of_line(line, name, label)).sum::<f64>();
            self.said.borrow_mut().push_str(&text);
        }
        sum
    }

    /// Waits until a metric that a cause was given for is off zero.
    async fn driven(&self, name: &str, label: &str) {
        until(&format!("{name} {{{label}}} is off zero"), || async {
            self.value(name, label).await > 0.0
        })
        .await;
        self.driven.borrow_mut().insert(name.to_owned());
    }

    fn front(&self) -> &Process {
        &self.processes[0]
    }
}

/// The value in a line of the text format.
fn of_line(line: &str, name: &str, label: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let rest = rest.strip_prefix("_count").unwrap_or(rest);
    let (labels, value) = rest.rsplit_once(' ')?;
    let whole = labels.is_empty() || (labels.starts_with('{') && labels.ends_with('}'));
    (whole && labels.contains(label)).then(|| value.parse().ok())?
}

/// Every name that `describe` knows.
fn described() -> BTreeSet<String> {
    let source = include_str!("../../src/sampling.rs");
    let (_, describe) = source.split_once("fn describe()").expect("the help texts");
    let names = describe
        .split('"')
        .filter(|part| part.starts_with("snapbridge_") && !part.contains(' '));
    names.map(str::to_owned).collect()
}

const SETTINGS: &str = "refresh.dirty_limit = 2\ncold.hold = \"200ms\"\nretry.first = \"5s\"\nretry.attempts = 2\n\
                        worker.slots = 1\nrefresh.marker = \"2m\"\nintegrations.demo.reconcile = \"3s\"\n\
                        refresh.quiet_webhooks = \"1s\"\nintegrations.demo.overlap = \"3s\"\n\
                        crm.read_timeout = \"40s\"\ncredentials.recheck_after = \"2s\"\n";

fn secrets_in_settings() -> String {
    format!(
        "{SETTINGS}integrations.demo.app.webhook_secret = \"{APP_CANARY}\"\n\
         integrations.closed.connector = \"demo\"\nintegrations.closed.path_secret = \"{PATH_CANARY}\"\n\
         integrations.closed.connection.site = \"http://127.0.0.1:9\"\n\
         integrations.closed.allow_hosts = [\"http://127.0.0.1:9\"]"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let mut rig = Rig::new(120, "", "").await;
    rig.set(&secrets_in_settings());
    let data = rig.folder().join(".snapbridge");
    let mut up = rig.start("up");
    up.until_ready().await;
    let (status, readiness) = up.readiness().await;
    assert_eq!(
        (status, &readiness["store"]["ok"], &readiness["queue"]["ok"]),
        (200, &json!(true), &json!(true))
    );
    let store: Arc<dyn Store> = Arc::new(
        store::SqliteStore::open_read_only(data.clone())
            .await
            .expect("the store"),
    );
    let mut watched = Watched::new(rig, vec![up]);
    let depths = || {
        let queue = jobs::SqliteQueue::open_read_only(&data).expect("the queue");
        std::future::ready(queue.depth(contacts::Clock::now(&SystemClock)).expect("its depth"))
    };
    let account = causes(&watched, &store, depths).await;

    // Nobody but the process itself writes its folder, so it is paused between two.
    watched.processes.pop().expect("a process").stop().await;
    let writable = store::SqliteStore::open(data, Arc::new(SystemClock))
        .await
        .expect("the store");
    pause(&writable, &account).await;
    drop(writable);
    let mut up = watched.rig.start("up");
    up.until_ready().await;
    watched.processes.push(up);
    watched.driven("snapbridge_accounts_paused", "").await;
    watched.driven("snapbridge_accounts_suspended", "").await;
    finish(watched, &DISTRIBUTED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() {
    let Some(mut redis) = secret_redis() else { return };
    redis.up().await;
    let conf = format!("default_user = bridge\ndefault_pass = {AMQP_CANARY}\n");
    let Some(mut broker) = Rabbit::with(&conf, &format!("bridge:{AMQP_CANARY}")).await else {
        return;
    };
    let amqp = broker.url();
    let mut rig = Rig::new(120, &secret_url(&redis), &amqp).await;
    rig.set(&secrets_in_settings());
    rig.set("rabbitmq.confirm_timeout = \"2s\"");
    let (front, worker) = rig.up().await;
    let store = rig.store(&secret_url(&redis)).await;
    let watched = Watched::new(rig, vec![front, worker]);
    let settings = jobs::RabbitSettings::default();
    let queue = jobs::connect(&amqp, NAMESPACE, settings, Arc::new(SystemClock))
        .await
        .expect("the queue");
    let depths = || async { queue.depth().await.expect("its depth") };
    let account = causes(&watched, &store, depths).await;
    drop(queue);
    pause(&*store, &account).await;
    watched.driven("snapbridge_accounts_paused", "").await;
    watched.driven("snapbridge_accounts_suspended", "").await;
    of_the_broker(&watched, &mut broker).await;
    of_redis(&watched, &mut redis).await;
    // Their own test drives these, without a worker.
    watched.driven.borrow_mut().insert("snapbridge_queue_dead".into());
    finish(watched, &[]).await;
}

fn secret_redis() -> Option<Redis> {
    let more = ["--appendonly", "yes", "--save", "", "--requirepass", REDIS_CANARY];
    Redis::with(|_, _| more.map(str::to_owned).to_vec())
}

fn secret_url(redis: &Redis) -> String {
    redis.url().replace("redis://", &format!("redis://:{REDIS_CANARY}@"))
}

/// And suspends it, which is a paused account's own business.
async fn pause(store: &dyn Store, account: &AccountId) {
    let times = work::WorkTimes::default();
    let paused = work::update(store, account, &times, |work| {
        work.pause = Some(work::Pause {
            since: contacts::Clock::now(&SystemClock),
            by: "a test".into(),
        });
        work.suspended = work.pause.as_ref().map(|pause| pause.since);
    });
    paused.await.expect("paused");
}

/// Whatever was said had a help text, held no secret, and left no described metric at zero unnoticed.
async fn finish(watched: Watched, excused: &[&str]) {
    let said = watched.said.borrow().clone();
    let names = |mark: &str| -> BTreeSet<String> {
        said.lines()
            .filter_map(|line| line.strip_prefix(mark)?.split(' ').next().map(str::to_owned))
            .collect()
    };
    let (types, helped) = (names("# TYPE "), names("# HELP "));
    let without: Vec<&String> = types.difference(&helped).collect();
    assert!(without.is_empty(), "metrics without a help text: {without:?}");
    let unknown: Vec<String> = types.difference(&described()).cloned().collect();
    assert_eq!(
        unknown,
        ["snapbridge_build_info"],
        "metrics that describe() does not name"
    );
    let mut left = described();
    left.retain(|name| !watched.driven.borrow().contains(name) && !NOT_DRIVEN.contains(&name.as_str()));
    let elsewhere = |name: &str| {
        let all = [OF_HTTPS.as_slice(), &OF_OPS, &OF_LINKING, &OF_AGENTS_AT_WORK];
        all.iter().any(|names| names.contains(&name))
    };
    left.retain(|name| !excused.contains(&name.as_str()) && !elsewhere(name));
    assert!(left.is_empty(), "metrics that nothing drove: {left:?}");

    let keys = std::fs::read_to_string(watched.rig.folder().join("keys")).expect("the key file");
    let keys = keys
        .split_whitespace()
        .filter(|word| word.len() == 64)
        .map(str::to_owned);
    let canaries = [REDIS_CANARY, AMQP_CANARY, PATH_CANARY, APP_CANARY, CRM_CANARY, TOKEN].map(str::to_owned);
    let logs: String = watched.processes.iter().map(Process::log).collect();
    for secret in canaries.into_iter().chain(keys) {
        assert!(!said.contains(&secret), "invariant 12: /metrics shows {secret}");
        assert!(!logs.contains(&secret), "invariant 12: a log shows {secret}");
    }
    for process in watched.processes {
        process.stop().await;
    }
}
