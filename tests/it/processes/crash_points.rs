//! Every crash point is reached, kills the process, and costs nothing but time (invariant 14).

use std::time::Instant;

use fake_crm::{Change, Control};
use futures::StreamExt;

use super::*;

/// Three pages of the demo connector.
const CONTACTS: usize = 1_200;
const PAGES: u64 = 3;
/// Edited ids: two fetches of the demo connector.
const EDITED: std::ops::RangeInclusive<u32> = 1..=120;

/// Who dies: the front asks for work, the worker does it, and its sweep rings.
fn carriers(point: &str) -> &'static [&'static str] {
    match point {
        "between_dirty_and_ring" => &["serve"],
        "between_marker_and_publish" => &["serve", "worker"],
        _ => &["worker"],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() {
    if compiled() && services() {
        let cases = worker::crash::POINTS
            .iter()
            .flat_map(|point| carriers(point).iter().map(move |role| (*point, *role)));
        let cases: Vec<_> = cases.collect();
        futures::stream::iter(cases)
            .map(|(point, role)| case(Backend::Distributed, point, role))
            .buffer_unordered(3)
            .count()
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    if compiled() {
        let cases = worker::crash::POINTS.map(|point| case(Backend::Embedded, point, "up"));
        futures::stream::iter(cases).buffer_unordered(3).count().await;
    }
}

/// Crash points are compiled in with a feature only. Without it the tests are skipped, loudly; with
/// `REQUIRE_SERVICES=1` they fail.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn compiled() -> bool {
    let compiled = cfg!(feature = "crash-points");
    if !compiled {
        let required = std::env::var("REQUIRE_SERVICES").as_deref() == Ok("1");
        assert!(
            !required,
            "crash points are required: build with --features crash-points"
        );
        eprintln!("SKIPPED: built without the feature crash-points");
    }
    compiled
}

/// The processes of one installation.
pub struct Running {
    pub front: Process,
    /// `None`: the front does the work, too.
    pub worker: Option<Process>,
}

impl Running {
    pub async fn start(site: &Site) -> Running {
        match site.backend {
            Backend::Embedded => Running {
                front: site.start("up").await,
                worker: None,
            },
            Backend::Distributed => {
                let (front, worker) = futures::join!(site.start("serve"), site.start("worker"));
                Running {
                    front,
                    worker: Some(worker),
                }
            }
        }
    }

    /// Starts with one process that will crash; the front is waited for where it can be.
    pub async fn start_to_crash(site: &Site, point: &str, role: &str) -> Running {
        let at = |of: &str| (of == role).then_some(point);
        let running = match site.backend {
            Backend::Embedded => Running {
                front: site.start_to_crash("up", at("up")),
                worker: None,
            },
            Backend::Distributed => {
                let front = site.start_to_crash("serve", at("serve"));
                Running {
                    front,
                    worker: Some(site.start_to_crash("worker", at("worker"))),
                }
            }
        };
        let mut running = running;
        let began = Instant::now();
        while !running.front.listens() && running.front.is_running() {
            assert!(began.elapsed() < PATIENCE, "no front\n{}", running.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running
    }

    /// Waits until the process that carries the point has crashed, then ends the other, too.
    pub async fn crash(mut self, role: &str, when: &str) {
        let began = Instant::now();
        loop {
            let carrier = match &mut self.worker {
                Some(worker) if role == "worker" => worker,
                _ => &mut self.front,
            };
            if carrier.has_crashed() {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{when}: the crash point was never reached\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        format!(
            "{}\n{}",
            self.front.log(),
            self.worker.as_ref().map(Process::log).unwrap_or_default()
        )
    }
}

async fn case(backend: Backend, point: &'static str, role: &'static str) {
    let name = format!("{backend:?} {point} ({role})");
    let crm = Crm::start(CONTACTS).await;
    let site = Site::new(backend, &crm, &format!("{QUICK}worker.commit_rows = 40\n"), &[]);
    let listed = || crm.crm.stats("demo").calls_of("contacts.list");

    // The build. A webhook needs an account, so there the first start is a good one.
    if point != "between_dirty_and_ring" {
        let running = Running::start_to_crash(&site, point, role).await;
        // The front may die under this call.
        let _ = Talkdesk::of(&running.front).validate().await;
        running.crash(role, &format!("{name}, build")).await;
    }
    let began = Instant::now();
    let mut running = Running::start(&site).await;
    if listed() == 0 {
        // The user whose call was cut off tries again; an account that is registered needs no such help.
        let known = account_ids(&**site.store().await, 1).await.expect("accounts");
        assert_eq!(
            known.is_empty(),
            point == "between_dirty_and_ring",
            "{name}: registered before the first ring"
        );
        if known.is_empty() {
            assert_eq!(Talkdesk::of(&running.front).validate().await.expect("an answer"), 200);
        }
    }
    until(&format!("{name}: the build heals"), || site.is_settled()).await;
    figure(&format!(
        "{name}: build healed {} ms after the restart",
        began.elapsed().as_millis()
    ));
    assert!(
        (PAGES..=PAGES + 1).contains(&listed()),
        "{name}: {} pages read, there are {PAGES}",
        listed()
    );
    let first = Talkdesk::of(&running.front).run(None).await;
    assert_eq!(first.titles(), truth(&crm), "{name}\n{}", running.log());
    assert_eq!(repeated(&first), BTreeSet::new(), "{name}");

    // Edits, told by webhooks and found by the poll.
    let account = site.account().await;
    let fetched = crm.crm.stats("demo").calls_of("contacts.batch");
    let told_while_nobody_works = backend == Backend::Distributed && role == "worker";
    if told_while_nobody_works {
        running.worker = None;
        site.subscribe(&crm, &running.front, &account);
        edit(&crm);
        until(&format!("{name}: the edits are told"), || async {
            crm.crm.stats("demo").webhooks.delivered == EDITED.count() as u64 + 2
        })
        .await;
        running.worker = Some(site.start_to_crash("worker", Some(point)));
    } else {
        drop(running);
        running = Running::start_to_crash(&site, point, role).await;
        site.subscribe(&crm, &running.front, &account);
        edit(&crm);
    }
    running.crash(role, &format!("{name}, edits")).await;
    let began = Instant::now();
    let running = Running::start(&site).await;
    until(&format!("{name}: the edits heal"), || async {
        site.is_settled().await && Talkdesk::of(&running.front).run(None).await.titles() == truth(&crm)
    })
    .await;
    figure(&format!(
        "{name}: edits healed {} ms after the restart",
        began.elapsed().as_millis()
    ));
    if told_while_nobody_works {
        let fetched = crm.crm.stats("demo").calls_of("contacts.batch") - fetched;
        assert!(fetched <= 3, "{name}: {fetched} fetches for 122 ids");
    }
    let changes = Talkdesk::of(&running.front).run(Some(&first.checkpoint)).await;
    let edited: BTreeSet<String> = EDITED.map(|id| id.to_string()).collect();
    assert!(
        edited.is_subset(&changes.ids()),
        "{name}: a checkpoint from before misses an edit"
    );
    assert!(
        (PAGES..=PAGES + 1).contains(&listed()),
        "{name}: a page of the build was read again"
    );
    site.assert_nothing_given_up();
}

fn edit(crm: &Crm) {
    crm.crm.control(Control::edit("demo", Change::ids(EDITED))).done();
    crm.crm.control(Control::delete("demo", Change::ids([500]))).done();
    crm.crm.control(Control::archive("demo", Change::ids([501]))).done();
}
