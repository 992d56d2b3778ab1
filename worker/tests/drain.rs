//! Drains of inboxes, on a store and a queue in memory: workers that are killed at any time, payloads that fail, a system that
//! is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contacts::accounts::{self, Account, Sealed};
use contacts::inbox::{self, Appended, Urgency};
use contacts::keys::{Fingerprint, Identity, Keys, RawKey};
use contacts::work::{self, Work};
use contacts::{Clock, ErrorKind, Micros, Store, SystemClock, dead};
use crm::{CrmError, CrmResult};
use jobs::memory::MemoryQueue;
use parking_lot::Mutex;
use store::MemoryStore;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use worker::source::{Handled, Linker, Pace, Source, Sources};
use worker::{Deps, Policy, Requests};

const PATIENCE: Duration = Duration::from_secs(60);

/// The two systems that payloads are about.
#[derive(Default)]
struct Systems {
    /// How often each payload was done.
    done: Mutex<BTreeMap<String, u32>>,
    /// What was done, one after the other.
    order: Mutex<Vec<String>>,
    /// This payload waits until somebody says so.
    slow: Mutex<Option<String>>,
    released: Notify,
    /// All payloads fail so.
    failing: Mutex<Option<ErrorKind>>,
    /// This payload fails so.
    refused: Mutex<Option<(String, ErrorKind)>>,
    calls: AtomicU32,
    inside: AtomicBool,
    overlapped: AtomicBool,
}

impl Systems {
    fn done(&self) -> BTreeSet<String> {
        self.done.lock().keys().cloned().collect()
    }
}

/// Lets go of the systems, also if its worker is killed inside.
struct Inside<'a>(&'a Systems);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Linker for Systems {
    async fn handle(&self, payload: &[u8], _came: Micros) -> CrmResult<Handled> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.inside.swap(true, Ordering::SeqCst) {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        let _inside = Inside(self);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let text = String::from_utf8_lossy(payload).into_owned();
        if let Some(kind) = *self.failing.lock() {
            return Err(CrmError::new(kind, "both are away"));
        }
        if let Some((_, kind)) = self.refused.lock().as_ref().filter(|(refused, _)| *refused == text) {
            return Err(CrmError::new(*kind, "not this one"));
        }
        if self.slow.lock().as_ref() == Some(&text) {
            self.released.notified().await;
        }
        self.order.lock().push(text.clone());
        *self.done.lock().entry(text).or_default() += 1;
        Ok(Handled::Done)
    }

    async fn check(&self) -> CrmResult<()> {
        match *self.failing.lock() {
            Some(kind) => Err(CrmError::new(kind, "both are away")),
            None => Ok(()),
        }
    }

    async fn rest(&self) {}
}

struct Linking(Arc<Systems>);

#[async_trait]
impl Sources for Linking {
    async fn source(&self, _: &Account) -> CrmResult<Arc<dyn Source>> {
        Err(CrmError::new(ErrorKind::Rejected, "a dealer has no snapshot"))
    }

    fn pace(&self, _: &str) -> Option<Pace> {
        None
    }

    async fn linker(&self, _: &Account) -> CrmResult<Arc<dyn Linker>> {
        Ok(self.0.clone())
    }
}

struct Scene {
    systems: Arc<Systems>,
    store: MemoryStore,
    queue: MemoryQueue,
    keys: Arc<Keys>,
    account: Account,
    policy: Policy,
}

/// A worker process. Dropped, it is killed: nothing that it does goes on.
struct Worker(Option<tokio::runtime::Runtime>);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Scene {
    async fn new() -> Scene {
        let raw = |byte| RawKey::new(Box::new([byte; 32]));
        let keys = Arc::new(Keys::new(&raw(1), &[("k".to_owned(), raw(2))]).expect("keys"));
        let identity = Identity {
            integration: "dms",
            site: "",
            org: "5c13",
            principal: "",
        };
        let id = keys.account_id(&identity);
        let now = SystemClock.now();
        let account = Account {
            credentials: Sealed::seal(&keys, &id, &BTreeMap::new()),
            id,
            integration: "dms".into(),
            connector: "web1on1".into(),
            budget: "b".into(),
            user_budget: None,
            dealer: None,
            created: now,
            fingerprint: Fingerprint("f".into()),
            learned: BTreeMap::new(),
            route: None,
            called: now,
            verified: now,
            tokens: Default::default(),
        };
        let store = MemoryStore::new();
        accounts::register(&store, &account).await.expect("registered");
        let mut policy = Policy {
            sweep: Duration::from_millis(30),
            busy_wait: Duration::from_millis(20),
            ..Policy::default()
        };
        policy.slice.pages = 7;
        // Long enough that no stall of the machine costs a living worker its lease.
        policy.times.lease = Duration::from_secs(2);
        policy.times.marker = Duration::from_millis(400);
        policy.retry.attempts = 3;
        policy.retry.first = Duration::from_millis(10);
        policy.retry.max = Duration::from_millis(40);
        Scene {
            systems: Arc::default(),
            store,
            queue: MemoryQueue::new(Arc::new(SystemClock)).expect("a queue"),
            keys,
            account,
            policy,
        }
    }

    fn requests(&self) -> Arc<Requests> {
        let (store, queue): (Arc<dyn Store>, _) = (Arc::new(self.store.clone()), Arc::new(self.queue.clone()));
        let times = self.policy.times;
        Arc::new(Requests::new(store, queue, Arc::new(SystemClock), times, 500))
    }

    fn worker(&self) -> Worker {
        let deps = Deps {
            held: Default::default(),
            store: Arc::new(self.store.clone()),
            queue: Arc::new(self.queue.clone()),
            keys: self.keys.clone(),
            clock: Arc::new(SystemClock),
            sources: Arc::new(Linking(self.systems.clone())),
            requests: self.requests(),
            policy: self.policy,
            owner: "w".into(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(worker::run(deps, CancellationToken::new()));
        Worker(Some(runtime))
    }

    async fn put(&self, payload: &str) {
        self.put_as(payload, Urgency::News).await;
    }

    async fn put_as(&self, payload: &str, urgency: Urgency) {
        let given = (payload, payload.as_bytes(), urgency);
        let appended = inbox::append(
            &self.store,
            &self.keys,
            &self.account.id,
            given,
            10_000,
            SystemClock.now(),
        );
        assert_eq!(appended.await.expect("taken"), Appended::New);
    }

    async fn ring(&self) {
        self.requests().drain(&self.account.id).await.expect("rung");
    }

    async fn work(&self) -> Work {
        work::load(&self.store, &self.account.id).await.expect("work")
    }

    async fn waiting(&self) -> u64 {
        inbox::fill(&self.store, &self.account.id)
            .await
            .expect("an inbox")
            .waiting
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Scene) -> bool) {
        let began = Instant::now();
        while !holds(self).await {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.work().await);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_14_workers_are_killed_and_every_payload_is_done_by_one_at_a_time() {
    let scene = Scene::new().await;
    let all: BTreeSet<String> = (0..200).map(|n| format!("p{n:03}")).collect();
    for (n, payload) in all.iter().enumerate() {
        scene.put(payload).await;
        // Of many a ring is lost: its front has died.
        if n % 50 == 0 {
            scene.ring().await;
        }
    }
    for goal in [20, 60, 120] {
        let workers = [scene.worker(), scene.worker()];
        let enough = async |scene: &Scene| scene.systems.done().len() >= goal;
        scene.until("some are done", enough).await;
        drop(workers);
    }
    let _workers = [scene.worker(), scene.worker()];
    scene
        .until("the inbox is empty", async |scene| scene.waiting().await == 0)
        .await;
    assert_eq!(scene.systems.done(), all);
    let again: u32 = scene.systems.done.lock().values().map(|times| times - 1).sum();
    assert!(
        again <= 3,
        "{again} were done again, but each kill costs one payload at most"
    );
    assert!(!scene.systems.overlapped.load(Ordering::SeqCst), "one drain at a time");
    assert!(dead::list(&scene.store, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_fails_dies_alone_and_is_put_back_whole() {
    // The last two: the systems refuse one record, or fail over it, and are there for all others.
    for (kind, attempts) in [
        (ErrorKind::Rejected, 1),
        (ErrorKind::BadReply, 3),
        (ErrorKind::Credentials, 3),
        (ErrorKind::Unavailable, 3),
    ] {
        let scene = Scene::new().await;
        *scene.systems.refused.lock() = Some(("b".into(), kind));
        for payload in ["a", "b", "c"] {
            scene.put(payload).await;
        }
        scene.ring().await;
        let _worker = scene.worker();
        scene
            .until("all are settled", async |scene| scene.waiting().await == 0)
            .await;
        assert_eq!(scene.systems.done(), BTreeSet::from(["a".into(), "c".into()]));
        assert_eq!(scene.systems.calls.load(Ordering::SeqCst), 2 + attempts, "{kind:?}");
        let letter = dead::list(&scene.store, 10).await.unwrap().remove(0);
        assert_eq!(letter.attempts, attempts);
        assert!(letter.detail.ends_with("not this one"), "{}", letter.detail);
        assert!(
            !serde_json::to_string(&letter).unwrap().contains("\"b\""),
            "it is sealed"
        );

        *scene.systems.refused.lock() = None;
        let kept = letter.payload.expect("the letter holds it");
        let restored = inbox::restore(&scene.store, &scene.account.id, &kept, SystemClock.now()).await;
        assert!(restored.unwrap());
        scene
            .until("it is done", async |scene| scene.systems.done().contains("b"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_system_is_away_nothing_dies_however_long() {
    let scene = Scene::new().await;
    *scene.systems.failing.lock() = Some(ErrorKind::Unavailable);
    for n in 0..20 {
        scene.put(&n.to_string()).await;
    }
    scene.ring().await;
    let _worker = scene.worker();
    let long = async |scene: &Scene| scene.systems.calls.load(Ordering::SeqCst) > 3 * scene.policy.retry.attempts;
    scene.until("more attempts than one payload has", long).await;
    assert_eq!(scene.waiting().await, 20);
    *scene.systems.failing.lock() = None;
    scene
        .until("it is back, and all are done", async |scene| scene.waiting().await == 0)
        .await;
    assert_eq!(scene.systems.done().len(), 20);
    assert!(dead::list(&scene.store, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_park_the_account_and_its_inbox_goes_on_when_they_are_good_again() {
    let scene = Scene::new().await;
    *scene.systems.failing.lock() = Some(ErrorKind::Credentials);
    scene.put("a").await;
    scene.ring().await;
    let _worker = scene.worker();
    scene
        .until("it is parked", async |scene| scene.work().await.park.is_some())
        .await;
    // What is sent meanwhile is taken all the same.
    scene.put("b").await;
    scene.ring().await;
    assert_eq!(scene.waiting().await, 2);
    *scene.systems.failing.lock() = None;
    scene.requests().unpark(&scene.account.id).await.expect("unparked");
    scene
        .until("both are done", async |scene| scene.waiting().await == 0)
        .await;
    assert_eq!(scene.systems.done().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_wait_for_a_handful_and_not_for_all_that_was_looked_up() {
    let scene = Scene::new().await;
    *scene.systems.slow.lock() = Some("04".into());
    for n in 0..40 {
        scene.put_as(&format!("{n:02}"), Urgency::Bulk).await;
    }
    scene.ring().await;
    let _worker = scene.worker();
    scene
        .until("some are in hand", async |scene| scene.systems.done().len() == 4)
        .await;
    scene.put("news").await;
    scene.systems.released.notify_one();
    scene
        .until("all are settled", async |scene| scene.waiting().await == 0)
        .await;
    let order = scene.systems.order.lock().clone();
    let at = order.iter().position(|payload| payload == "news").expect("it was done");
    assert!((5..=10).contains(&at), "{order:?}");
    assert_eq!(order.len(), 41, "{order:?}");
}
