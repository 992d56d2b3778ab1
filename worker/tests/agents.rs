//! The passes over the agents, on a store and a queue in memory: a user list that changes, fails, and lets users slip;
//! workers that are killed in the middle of a page.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contacts::accounts::{self, Account, Sealed};
use contacts::contact::Agent;
use contacts::keys::{Fingerprint, Identity, Keys, RawKey};
use contacts::ports::{Head, Slice, Snapshots};
use contacts::work::{self, Work};
use contacts::{Clock, ErrorKind, Kind, Lane, Micros, Position, Store, Stream, SystemClock, dead};
use crm::{AgentsPage, CrmError, CrmResult, DeletedPage, IdsPage, Many, Page, Window};
use jobs::memory::MemoryQueue;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::MemoryStore;
use tokio_util::sync::CancellationToken;
use worker::source::{Pace, Source, Sources, Traits};
use worker::{Deps, Policy, Requests};

const PATIENCE: Duration = Duration::from_secs(60);

/// Someone on the list: an id and an e-mail address.
type User = (u32, String);

/// The CRM's list of users, in its own order.
struct Office {
    users: Mutex<Vec<User>>,
    page: usize,
    /// Pages are counted instead of continued behind an id.
    slips: bool,
    calls: Mutex<u32>,
    /// The next calls fail so.
    failing: Mutex<Option<ErrorKind>>,
    /// The check fails so.
    refuses: Mutex<Option<ErrorKind>>,
    /// From this call on, none is answered.
    hangs_at: Mutex<Option<u32>>,
    traits: Traits,
}

impl Office {
    fn new(users: u32, page: usize, slips: bool) -> Arc<Office> {
        let traits = Traits {
            changes: false,
            changes_indexed: false,
            full_indexed: false,
            lag: Duration::ZERO,
            overlap: Duration::ZERO,
            get_many: 0,
            deleted_list: false,
            ids_list: false,
            agents: true,
            agents_may_slip: slips,
            mapping: 1,
            delta: None,
        };
        Arc::new(Office {
            users: Mutex::new((1..=users).map(|id| (id, format!("u{id}@x.test"))).collect()),
            page,
            slips,
            calls: Mutex::default(),
            failing: Mutex::default(),
            refuses: Mutex::default(),
            hangs_at: Mutex::default(),
            traits,
        })
    }

    fn calls(&self) -> u32 {
        *self.calls.lock()
    }

    fn dismiss(&self, ids: impl IntoIterator<Item = u32>) {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        self.users.lock().retain(|(id, _)| !ids.contains(id));
    }

    /// What Talkdesk should know: each address once, the first of the list.
    fn wanted(&self) -> BTreeMap<String, String> {
        let mut taken = BTreeSet::new();
        let users = self.users.lock();
        let first = users.iter().filter(|(_, email)| taken.insert(email.to_lowercase()));
        first.map(|(id, email)| (id.to_string(), email.clone())).collect()
    }
}

fn missing<T>() -> CrmResult<T> {
    Err(CrmError::new(ErrorKind::Rejected, "this CRM has users alone"))
}

#[async_trait]
impl Source for Office {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    async fn full_page(&self, _: Option<&Value>) -> CrmResult<Page> {
        missing()
    }

    async fn changes_page(&self, _: Window, _: Option<&Value>, _: Option<&Value>) -> CrmResult<Page> {
        missing()
    }

    async fn get_many(&self, _: &[String]) -> CrmResult<Many> {
        missing()
    }

    async fn deleted_page(&self, _: Micros, _: Option<&Value>) -> CrmResult<DeletedPage> {
        missing()
    }

    async fn ids_page(&self, _: Option<&Value>) -> CrmResult<IdsPage> {
        missing()
    }

    async fn agents_page(&self, cursor: Option<&Value>) -> CrmResult<AgentsPage> {
        let asked_at = SystemClock.now();
        let call = {
            let mut calls = self.calls.lock();
            *calls += 1;
            *calls
        };
        let hangs = self.hangs_at.lock().is_some_and(|at| call >= at);
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(kind) = *self.failing.lock() {
            return Err(CrmError::new(kind, "the office is closed"));
        }
        let place = |name: &str| cursor.and_then(|cursor| cursor[name].as_u64()).unwrap_or(0);
        let users = self.users.lock();
        let from = match self.slips {
            true => usize::try_from(place("row")).unwrap(),
            // The list is in order of age: whoever comes after the last one of the page before.
            false => users
                .iter()
                .position(|(id, _)| u64::from(*id) > place("id"))
                .unwrap_or(users.len()),
        };
        let rows: Vec<&User> = users.iter().skip(from).take(self.page).collect();
        let next = (from + rows.len() < users.len())
            .then(|| json!({"row": from + rows.len(), "id": rows.last().map(|(id, _)| *id)}));
        let agents = rows.into_iter().map(|(id, email)| Agent {
            id: id.to_string(),
            name: format!("User {id}"),
            email: email.clone(),
        });
        Ok(AgentsPage {
            agents: agents.collect(),
            next,
            asked_at,
            ..AgentsPage::default()
        })
    }

    async fn check(&self) -> CrmResult<()> {
        match *self.refuses.lock() {
            Some(kind) => Err(CrmError::new(kind, "the check fails")),
            None => Ok(()),
        }
    }

    async fn rest(&self) {}
}

struct OneOffice(Arc<Office>);

#[async_trait]
impl Sources for OneOffice {
    async fn source(&self, _: &Account) -> CrmResult<Arc<dyn Source>> {
        Ok(self.0.clone())
    }

    fn pace(&self, _: &str) -> Option<Pace> {
        let long = Duration::from_secs(3_600);
        Some(Pace {
            poll: long,
            reconcile: long,
            jitter: 0.0,
            silence: long,
            agents: Some(long),
        })
    }
}

/// A clock that is off by so many seconds.
struct OffBy(i64);

impl Clock for OffBy {
    fn now(&self) -> Micros {
        Micros(SystemClock.now().0.saturating_add_signed(self.0 * 1_000_000))
    }
}

/// An account, with what is behind it.
struct Scene {
    office: Arc<Office>,
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
    async fn new(office: Arc<Office>) -> Scene {
        let raw = |byte| RawKey::new(Box::new([byte; 32]));
        let keys = Arc::new(Keys::new(&raw(1), &[("k".to_owned(), raw(2))]).expect("keys"));
        let identity = Identity {
            integration: "demo",
            site: "",
            org: "o",
            principal: "",
        };
        let id = keys.account_id(&identity);
        let now = SystemClock.now();
        let account = Account {
            credentials: Sealed::seal(&keys, &id, &BTreeMap::new()),
            id,
            integration: "demo".into(),
            connector: "demo".into(),
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
            commit_rows: 2,
            ..Policy::default()
        };
        policy.times.lease = Duration::from_millis(400);
        policy.times.marker = Duration::from_millis(400);
        policy.retry.attempts = 3;
        policy.retry.first = Duration::from_millis(10);
        Scene {
            office,
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

    fn worker(&self, off_by: i64) -> Worker {
        let deps = Deps {
            held: Default::default(),
            store: Arc::new(self.store.clone()),
            queue: Arc::new(self.queue.clone()),
            keys: self.keys.clone(),
            clock: Arc::new(OffBy(off_by)),
            sources: Arc::new(OneOffice(self.office.clone())),
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

    async fn ring(&self) {
        let requests = self.requests();
        let rung = requests.ring(&self.account.id, Kind::Agents, Lane::Build, None);
        rung.await.expect("rung");
    }

    async fn work(&self) -> Work {
        work::load(&self.store, &self.account.id).await.expect("work")
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Scene) -> bool) {
        let began = Instant::now();
        while !holds(self).await {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.work().await);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// One pass from its ring to its end.
    async fn pass(&self) {
        let asked = SystemClock.now();
        self.ring().await;
        self.until("the pass ends", async |scene| {
            let work = scene.work().await;
            let task = &work.tasks[&Kind::Agents];
            work.agents_lease.is_none() && task.due.is_some_and(|due| due > asked.plus(Duration::from_secs(60)))
        })
        .await;
    }

    async fn head(&self) -> Option<Head> {
        self.store.head(&self.account.id, Stream::Agents).await.expect("a head")
    }

    /// id → address, in the order of positions.
    async fn list(&self) -> Vec<(String, String)> {
        let all = Slice {
            after: Position::START,
            until: None,
            rows: usize::MAX,
            bytes: usize::MAX,
            newer_than: None,
        };
        let page = self
            .store
            .page(&self.account.id, Stream::Agents, &all)
            .await
            .expect("a page");
        let agents = page
            .bodies
            .iter()
            .map(|body| serde_json::from_slice::<Agent>(body).expect("an agent"));
        agents.map(|agent| (agent.id, agent.email)).collect()
    }

    async fn table(&self) -> BTreeMap<String, String> {
        self.list().await.into_iter().collect()
    }
}

#[tokio::test]
async fn a_pass_goes_page_by_page_through_slices_and_unchanged_agents_stay_where_they_are() {
    let office = Office::new(11, 2, false);
    let mut scene = Scene::new(office.clone()).await;
    scene.policy.slice.pages = 1;
    let _worker = scene.worker(0);
    scene.pass().await;
    assert_eq!((scene.table().await, office.calls()), (office.wanted(), 6));
    assert!(
        scene
            .head()
            .await
            .is_some_and(|head| head.ready && head.fresh > Micros::ZERO)
    );
    let first = scene.list().await;
    office.users.lock()[3].1 = "new@x.test".into();
    scene.pass().await;
    let mut moved = first.clone();
    let changed = moved.iter().position(|(id, _)| id == "4").expect("the fourth");
    moved.remove(changed);
    moved.push(("4".into(), "new@x.test".into()));
    assert_eq!(
        scene.list().await,
        moved,
        "the changed one has moved to the end, and nobody else"
    );
}

#[tokio::test]
async fn invariant_14_a_worker_killed_in_the_middle_of_a_pass_costs_one_page() {
    let office = Office::new(11, 2, false);
    let scene = Scene::new(office.clone()).await;
    for killed_at in [3, 5] {
        *office.hangs_at.lock() = Some(killed_at);
        let worker = scene.worker(0);
        if killed_at == 3 {
            scene.ring().await;
        }
        scene
            .until("a page hangs", async |scene| scene.office.calls() == killed_at)
            .await;
        let head = scene.head().await.expect("a snapshot");
        assert!(!head.ready, "invariant 6: half a list is none");
        drop(worker);
    }
    *office.hangs_at.lock() = None;
    let _worker = scene.worker(0);
    scene
        .until("the pass ends", async |scene| {
            scene.head().await.is_some_and(|head| head.ready)
        })
        .await;
    assert_eq!((scene.table().await, office.calls()), (office.wanted(), 6 + 2));
}

#[tokio::test]
async fn a_cursor_that_the_crm_has_forgotten_starts_the_list_anew() {
    let office = Office::new(11, 2, false);
    let scene = Scene::new(office.clone()).await;
    *office.hangs_at.lock() = Some(3);
    let worker = scene.worker(0);
    scene.ring().await;
    scene
        .until("a page hangs", async |scene| scene.office.calls() == 3)
        .await;
    drop(worker);
    (*office.hangs_at.lock(), *office.failing.lock()) = (None, Some(ErrorKind::CursorStuck));
    let _worker = scene.worker(0);
    scene.until("it fails", async |scene| scene.office.calls() > 3).await;
    *office.failing.lock() = None;
    scene
        .until("the pass ends", async |scene| {
            scene.head().await.is_some_and(|head| head.ready)
        })
        .await;
    assert_eq!(scene.table().await, office.wanted());
    assert!(office.calls() >= 4 + 6, "every page again: {} calls", office.calls());
}

#[tokio::test]
async fn invariant_13_a_complete_list_is_proof_and_too_many_at_once_wait_for_a_second_one() {
    let office = Office::new(40, 7, false);
    let mut scene = Scene::new(office.clone()).await;
    scene.policy.brake.min = 3;
    let _worker = scene.worker(0);
    scene.pass().await;
    office.dismiss([2, 17]);
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted(), "two of forty leave at once");
    office.dismiss(20..=36);
    scene.pass().await;
    assert_eq!(scene.table().await.len(), 38, "seventeen do not");
    // One of them is back: it stays.
    office.users.lock().push((36, "u36@x.test".into()));
    office.users.lock().sort();
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted());
    let ids = [30_u32, 36].map(|id| id.to_string());
    let known = scene
        .store
        .known(&scene.account.id, Stream::Agents, &ids)
        .await
        .expect("known");
    let gone: Vec<bool> = known
        .into_iter()
        .map(|known| known.expect("known").is_tombstone())
        .collect();
    assert_eq!(gone, [true, false]);
}

#[tokio::test]
async fn invariant_13_a_list_without_anybody_is_believed_the_second_time() {
    let office = Office::new(3, 7, false);
    let scene = Scene::new(office.clone()).await;
    let _worker = scene.worker(0);
    scene.pass().await;
    office.dismiss(1..=3);
    scene.pass().await;
    assert_eq!(scene.table().await.len(), 3);
    scene.pass().await;
    assert_eq!(scene.table().await.len(), 0);
    assert!(scene.head().await.is_some_and(|head| head.ready));
}

#[tokio::test]
async fn invariant_13_where_users_can_slip_from_page_to_page_two_lists_must_agree() {
    let office = Office::new(9, 3, true);
    let scene = Scene::new(office.clone()).await;
    let worker = scene.worker(0);
    scene.pass().await;
    drop(worker);
    // Between two pages somebody of the first one goes: the fourth becomes the third, and no page shows them.
    let hangs = office.calls() + 2;
    *office.hangs_at.lock() = Some(hangs);
    let worker = scene.worker(0);
    scene.ring().await;
    scene
        .until("the second page hangs", async |scene| scene.office.calls() == hangs)
        .await;
    office.dismiss([1]);
    drop(worker);
    *office.hangs_at.lock() = None;
    let _worker = scene.worker(0);
    scene
        .until("the pass ends", async |scene| {
            scene.work().await.agents_lease.is_none() && scene.office.calls() >= hangs + 2
        })
        .await;
    assert_eq!(
        scene.table().await.len(),
        9,
        "no page showed the fourth, who is there all the same"
    );
    scene.pass().await;
    assert_eq!(scene.table().await.len(), 9, "one list without the first");
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted(), "a second one");
}

#[tokio::test]
async fn an_address_belongs_to_the_first_user_who_has_it_and_passes_on() {
    let office = Office::new(7, 2, false);
    let scene = Scene::new(office.clone()).await;
    // On the page of the first, and on a later one.
    for twin in [1, 5] {
        office.users.lock()[twin].1 = "U1@X.test".into();
    }
    let _worker = scene.worker(0);
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted());
    let ids: Vec<String> = scene.table().await.into_keys().collect();
    assert_eq!(ids, ["1", "3", "4", "5", "7"]);
    // The first one gets another address, so the next one of the list has it.
    office.users.lock()[0].1 = "boss@x.test".into();
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted());
    assert!(scene.table().await.contains_key("2"));
    office.dismiss([2]);
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted());
    assert!(scene.table().await.contains_key("6"));
}

#[tokio::test]
async fn invariant_13_a_worker_whose_clock_is_behind_goes_on_with_a_pass_and_removes_nobody() {
    let office = Office::new(11, 2, false);
    let scene = Scene::new(office.clone()).await;
    *office.hangs_at.lock() = Some(3);
    // The office writes the times of its calls by the true clock, which is behind this worker's.
    let worker = scene.worker(30);
    scene.ring().await;
    scene
        .until("a page hangs", async |scene| scene.office.calls() == 3)
        .await;
    drop(worker);
    *office.hangs_at.lock() = None;
    // Nobody waits for the lease of a worker from the future.
    work::update(&scene.store, &scene.account.id, &scene.policy.times, |work| {
        work.agents_lease = None
    })
    .await
    .expect("work");
    let _worker = scene.worker(0);
    scene
        .until("the pass ends", async |scene| {
            scene.head().await.is_some_and(|head| head.ready) && scene.work().await.agents_lease.is_none()
        })
        .await;
    assert_eq!(scene.table().await, office.wanted());
}

#[tokio::test]
async fn invariant_14_failures_are_tried_again_then_given_up_until_the_next_time() {
    let office = Office::new(5, 2, false);
    let scene = Scene::new(office.clone()).await;
    let _worker = scene.worker(0);
    scene.pass().await;
    let (list, calls) = (scene.list().await, office.calls());
    *office.failing.lock() = Some(ErrorKind::Unavailable);
    scene.pass().await;
    assert_eq!(office.calls() - calls, scene.policy.retry.attempts);
    let letters = dead::list(&scene.store, 10).await.expect("letters");
    assert_eq!(
        letters.iter().map(|letter| letter.kind).collect::<Vec<_>>(),
        [Some(Kind::Agents)]
    );
    assert_eq!(scene.list().await, list, "what was read stays");
    *office.failing.lock() = None;
    office.dismiss([2]);
    scene.pass().await;
    assert_eq!(scene.table().await, office.wanted());
    assert_eq!(scene.work().await.tasks[&Kind::Agents].last_error, None);
}

#[tokio::test]
async fn refused_credentials_park_the_account_only_if_the_check_refuses_them_too() {
    let office = Office::new(5, 2, false);
    let scene = Scene::new(office.clone()).await;
    let _worker = scene.worker(0);
    *office.failing.lock() = Some(ErrorKind::Credentials);
    scene.pass().await;
    let work = scene.work().await;
    assert_eq!(work.park, None);
    let failure = work.tasks[&Kind::Agents].last_error.clone().expect("a failure");
    assert_eq!(failure.kind, "rejected");
    assert!(
        failure.message.contains("does not let them list its users"),
        "{}",
        failure.message
    );
    assert_eq!(dead::list(&scene.store, 10).await.expect("letters").len(), 1);

    *office.refuses.lock() = Some(ErrorKind::Credentials);
    scene.ring().await;
    scene
        .until("the account is parked", async |scene| scene.work().await.park.is_some())
        .await;
    *office.refuses.lock() = None;
    *office.failing.lock() = None;
    scene.requests().unpark(&scene.account.id).await.expect("unparked");
    scene
        .until("the list is read", async |scene| {
            scene.head().await.is_some_and(|head| head.ready)
        })
        .await;
    assert_eq!(scene.table().await, office.wanted());
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    Leave(usize),
    Address(usize, u32),
    Pass,
    /// A pass whose worker is killed at that page.
    Kill(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Join),
        1 => (0..12usize).prop_map(Step::Leave),
        2 => ((0..12usize), 1..8u32).prop_map(|(who, email)| Step::Address(who, email)),
        2 => Just(Step::Pass),
        1 => (1..4u32).prop_map(Step::Kill),
    ];
    prop::collection::vec(step, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_list_becomes_that_of_the_crm(first in 0..9u32, slips: bool, steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let office = Office::new(first, 2, slips);
            let scene = Scene::new(office.clone()).await;
            let mut worker = scene.worker(0);
            let mut joined = first;
            for step in steps {
                match step {
                    Step::Join => {
                        joined += 1;
                        office.users.lock().push((joined, format!("u{joined}@x.test")));
                    }
                    Step::Leave(who) => {
                        let id = office.users.lock().get(who).map(|(id, _)| *id);
                        office.dismiss(id);
                    }
                    Step::Address(who, email) => {
                        if let Some(user) = office.users.lock().get_mut(who) {
                            user.1 = format!("U{email}@x.test");
                        }
                    }
                    Step::Pass => scene.pass().await,
                    Step::Kill(page) => {
                        let at = office.calls() + page;
                        *office.hangs_at.lock() = Some(at);
                        scene.ring().await;
                        let ended = async |scene: &Scene| {
                            let task = &scene.work().await.tasks[&Kind::Agents];
                            task.due.is_some_and(|due| due > SystemClock.now().plus(Duration::from_secs(60)))
                        };
                        scene.until("the page hangs or the pass ends", async |scene| {
                            scene.office.calls() >= at || ended(scene).await
                        }).await;
                        worker = { drop(worker); *office.hangs_at.lock() = None; scene.worker(0) };
                    }
                }
            }
            // Two lists must agree where rows slip, and two more behind the brake.
            for _ in 0..4 {
                scene.pass().await;
            }
            drop(worker);
            let (table, wanted) = (scene.table().await, office.wanted());
            prop_assert_eq!(table, wanted);
            Ok(())
        })?;
    }
}
