//! A rolling deploy under load: every front and every worker is replaced, one after the other, while Talkdesk reads, the CRM
//! is edited and its webhooks come. No call fails, no page changes, nobody is lost, and the CRM's limit holds.

mod balancer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use contacts::AccountId;
use fake_crm::{AccountOptions, Change, Control, FakeCrm, Options, RateLimit};
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::*;
use crate::processes::{Process, QUICK, Site, figure};
use balancer::Balancer;

/// Edited all the time, and left alone.
const BUSY: &str = "busy";
const STILL: &str = "still";
const LIMIT: u32 = 40;
/// Pages that each reader must get through before the next process is replaced.
const PAGES_BETWEEN: u64 = 8;
const ROUNDS: usize = 2;

fn settings(crm: &str) -> String {
    format!(
        "{QUICK}http.drain = \"2s\"\npage.contacts = 100\nintegrations.shop.connector = \"demo\"\n\
         integrations.shop.allow_hosts = [\"{crm}\"]\nintegrations.shop.region = \"PT\"\n\
         integrations.shop.connection = {{ site = \"{crm}\", per_second = \"{LIMIT}\" }}\n"
    )
}

async fn crm() -> Crm {
    let account = |name: &str, contacts| AccountOptions {
        name: name.into(),
        token: TOKEN.into(),
        contacts,
        limit: Some(RateLimit {
            max: LIMIT,
            window: Duration::from_secs(1),
        }),
        ..AccountOptions::default()
    };
    let accounts = vec![account(BUSY, 1_500), account(STILL, 700)];
    let crm = FakeCrm::new(Options { seed: 11, accounts });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    tokio::spawn(crm.clone().serve(listener, stop.clone()));
    Crm::of(crm, url, stop)
}

fn titles_of(crm: &Crm) -> BTreeMap<String, String> {
    let rows = crm.crm.truth(BUSY).into_iter();
    rows.map(|row| (row.id, row.job_title.trim().to_owned())).collect()
}

/// Talkdesk, for one account: whatever is not a good page fails the test.
#[derive(Clone)]
struct Reader {
    http: reqwest::Client,
    url: String,
    account: &'static str,
    pages: Arc<AtomicU64>,
}

impl Reader {
    fn new(balancer: &Balancer, account: &'static str, keep_alive: bool) -> Reader {
        process::tls::install_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(if keep_alive { 4 } else { 0 });
        Reader {
            http: http.build().expect("a client"),
            url: format!("{}/shop", balancer.url),
            account,
            pages: Arc::default(),
        }
    }

    async fn post(&self, path: &str, mut body: Value) -> Value {
        body["auth"] = json!({"account": self.account, "token": TOKEN});
        let answer = self.http.post(format!("{}/{path}", self.url)).json(&body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {}", self.account, process::chain(&error)));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("the answer comes whole");
        assert_eq!(status, 200, "{}: {text}", self.account);
        serde_json::from_str(&text).expect("JSON")
    }

    async fn run(&self, checkpoint: Option<&str>) -> (Vec<Vec<Value>>, String) {
        let mut pages = Vec::new();
        let mut meta = json!({ "synchronization_checkpoint": checkpoint });
        let began = Instant::now();
        loop {
            let page = self.post("contact_sync", json!({ "meta": meta })).await;
            self.pages.fetch_add(1, Ordering::Relaxed);
            pages.push(page["contacts"].as_array().expect("contacts").clone());
            let Some(next) = page.get("next_offset") else {
                let checkpoint = page["synchronization_checkpoint"].as_str().expect("a checkpoint");
                return (pages, checkpoint.to_owned());
            };
            meta = json!({"offset": next, "context": page["context"]});
            assert!(began.elapsed() < PATIENCE, "a run without end");
        }
    }
}

/// What came of the runs of changes: the last version of each contact, and the checkpoint.
#[derive(Default)]
struct Copy {
    titles: BTreeMap<String, String>,
    checkpoint: Option<String>,
}

impl Copy {
    async fn sync(&mut self, reader: &Reader) {
        let (pages, checkpoint) = reader.run(self.checkpoint.as_deref()).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let contacts = pages.iter().flatten();
        self.titles
            .extend(contacts.map(|contact| (text(&contact["id"]), text(&contact["title"]))));
        self.checkpoint = Some(checkpoint);
    }
}

/// Something that goes on until it is told to stop.
fn all_the_time<T, F>(stop: &CancellationToken, mut state: T, step: impl Fn(T) -> F + Send + 'static) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let stop = stop.clone();
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            state = step(state).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        state
    })
}

/// The account that this reader's call registers.
async fn validated(site: &Site, reader: &Reader, known: &[AccountId]) -> AccountId {
    reader.post("auth_validation", json!({})).await;
    let all = account_ids(&**site.store().await, 10).await.expect("accounts");
    all.into_iter().find(|id| !known.contains(id)).expect("a new account")
}

/// Waits for the end of a process that was told to stop, and starts another in its place.
async fn replaced(site: &Site, role: &str, old: &mut Process) {
    let status = old.ended().await;
    assert_eq!(status.code(), Some(0), "{}", old.log());
    *old = site.start(role).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_replaced_under_load_and_nobody_notices() {
    if !services() {
        return;
    }
    let crm = crm().await;
    let site = Site::new(Backend::Distributed, &crm, &settings(&crm.url), &[]);
    let mut fronts = [site.start("serve").await, site.start("serve").await];
    let mut workers = [site.start("worker").await, site.start("worker").await];
    let balancer = Balancer::start().await;
    for front in &fronts {
        balancer.add(front).await;
    }
    let [busy, fresh, still] = [(BUSY, true), (BUSY, false), (STILL, true)]
        .map(|(account, keep_alive)| Reader::new(&balancer, account, keep_alive));
    let account = validated(&site, &busy, &[]).await;
    validated(&site, &still, std::slice::from_ref(&account)).await;
    until("both accounts are built", || site.is_settled()).await;
    let hook = format!("{}/shop/webhooks/{}", balancer.url, site.keys.hook_id(&account));
    let mut webhook = fake_crm::Webhook::new(hook, site.keys.hook_secret(&account));
    webhook.attempts = 1;
    crm.crm.control(Control::webhook(BUSY, Some(webhook))).done();

    let stop = CancellationToken::new();
    let edits = all_the_time(&stop, 0u64, {
        let crm = crm.crm.clone();
        move |edits| {
            crm.control(Control::edit(BUSY, Change::random(1))).done();
            async move {
                tokio::time::sleep(Duration::from_millis(40)).await;
                edits + 1
            }
        }
    });
    let changes = all_the_time(&stop, Copy::default(), {
        let busy = busy.clone();
        move |mut copy| {
            let busy = busy.clone();
            async move {
                copy.sync(&busy).await;
                copy
            }
        }
    });
    // Full runs. Nobody is deleted, so each holds everybody, or those that were edited meanwhile come with the runs after it.
    let everybody: Vec<String> = titles_of(&crm).into_keys().collect();
    let full = all_the_time(&stop, (), {
        let fresh = fresh.clone();
        move |()| {
            let (fresh, everybody) = (fresh.clone(), everybody.clone());
            async move {
                let mut copy = Copy::default();
                let began = Instant::now();
                while copy.titles.len() < everybody.len() {
                    copy.sync(&fresh).await;
                    assert!(
                        began.elapsed() < PATIENCE,
                        "of {} came {}",
                        everybody.len(),
                        copy.titles.len()
                    );
                }
                assert!(copy.titles.keys().eq(&everybody));
            }
        }
    });
    // Of contacts that nobody edits, every run has the same pages.
    let (pages, _) = still.run(None).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100; 7]);
    let same = all_the_time(&stop, pages, {
        let still = still.clone();
        move |pages| {
            let still = still.clone();
            async move {
                let (again, _) = still.run(None).await;
                assert_eq!(again, pages, "a page has changed");
                pages
            }
        }
    });

    let readers = [&busy, &fresh, &still];
    let go_on = || async {
        let from = readers.map(|reader| reader.pages.load(Ordering::Relaxed));
        until("every reader goes on", || async {
            let tasks_run = !changes.is_finished() && !full.is_finished() && !same.is_finished();
            assert!(tasks_run, "a reader met with a failure");
            let read = |(reader, from): (&&Reader, &u64)| reader.pages.load(Ordering::Relaxed) >= from + PAGES_BETWEEN;
            readers.iter().zip(&from).all(read)
        })
        .await;
    };
    let began = Instant::now();
    go_on().await;
    for _ in 0..ROUNDS {
        for front in &mut fronts {
            front.terminate();
            balancer.sees_go(front).await;
            replaced(&site, "serve", front).await;
            balancer.add(front).await;
            go_on().await;
        }
        for worker in &mut workers {
            worker.terminate();
            replaced(&site, "worker", worker).await;
            go_on().await;
        }
    }
    let took = began.elapsed();
    stop.cancel();
    let edits = edits.await.expect("edits");
    full.await.expect("full runs");
    same.await.expect("runs of what stays the same");
    let copy = tokio::sync::Mutex::new(changes.await.expect("runs of changes"));
    until("the changes bring everything that the CRM has", || async {
        let mut copy = copy.lock().await;
        copy.sync(&busy).await;
        copy.titles == titles_of(&crm)
    })
    .await;

    for account in [BUSY, STILL] {
        let stats = crm.crm.stats(account);
        assert_eq!((stats.over_limit, stats.answered(429)), (0, 0), "{stats:?}");
        assert!(stats.max_sliding <= LIMIT, "{} calls in a window", stats.max_sliding);
    }
    let webhooks = crm.crm.stats(BUSY).webhooks;
    assert!(
        webhooks.attempts.keys().all(|result| result.starts_with('2')),
        "a webhook was not taken: {webhooks:?}"
    );
    site.assert_nothing_given_up();
    let pages: u64 = readers.iter().map(|reader| reader.pages.load(Ordering::Relaxed)).sum();
    figure(&format!(
        "{} fronts and {} workers replaced within {} s: {pages} pages, {edits} edits, {} webhooks, none failed",
        fronts.len() * ROUNDS,
        workers.len() * ROUNDS,
        took.as_secs(),
        webhooks.attempts.values().sum::<u64>()
    ));
}

/// A front that was told to stop is not ready any more, and goes on answering whoever has not seen that yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_that_stops_answers_until_its_drain_is_over() {
    let crm = Crm::start(3).await;
    let site = Site::new(Backend::Embedded, &crm, &format!("{QUICK}http.drain = \"10m\"\n"), &[]);
    let front = site.start("up").await;
    let kept = crate::processes::Talkdesk::of(&front);
    assert_eq!(kept.validate().await.expect("an answer"), 200);
    front.terminate();
    let readiness = || async {
        let answer = kept
            .http
            .get(format!("{}/readyz", front.admin()))
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    until("it says that it is not ready", || async { readiness().await.0 == 503 }).await;
    let (_, said) = readiness().await;
    assert_eq!(
        (&said["ready"], &said["stopping"]),
        (&json!(false), &json!(true)),
        "{said}"
    );
    assert_eq!(said["store"]["ok"], true, "nothing else is wrong with it: {said}");
    for talkdesk in [&kept, &crate::processes::Talkdesk::of(&front)] {
        let url = format!("{}/auth_validation", talkdesk.url);
        let answer = talkdesk
            .http
            .post(url)
            .json(&json!({ "auth": auth() }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let connection = answer.headers().get("connection").map(|value| value.as_bytes());
        assert_eq!(connection, Some(&b"close"[..]), "the next request goes elsewhere");
    }
}
