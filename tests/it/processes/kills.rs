//! `kill -9` at any moment: a build goes on where the last commit left it.

use std::time::Instant;

use fake_crm::{EditsPerPage, Op};
use rand::Rng;

use super::*;

const CONTACTS: usize = 30_000;
const PAGES: u64 = 60;
const KILLS: u64 = 20;
/// A life must be long enough for a page, so most lives end inside the build.
const KILLS_OF_THE_BUILD: u64 = 15;

const TIMES: &str = "worker.slice_time = \"900ms\"\nworker.lease = \"1200ms\"\nrefresh.marker = \"1200ms\"\n\
                     refresh.sweep = \"100ms\"\nrefresh.poll = \"1s\"\nretry.first = \"200ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_twenty_times_builds_all_the_same() {
    if !services() {
        return;
    }
    let crm = Crm::start(CONTACTS).await;
    crm.crm.knobs("demo", |knobs| {
        knobs.edits_per_page = EditsPerPage {
            edits: 3,
            ..EditsPerPage::default()
        };
        knobs.slow_ms = 60;
        knobs.fault_ops = vec![Op::List];
    });
    let site = Site::new(Backend::Distributed, &crm, TIMES, &[]);
    let front = site.start("serve").await;
    let talkdesk = Talkdesk::of(&front);
    let mut worker = site.start("worker").await;
    assert_eq!(talkdesk.validate().await.expect("an answer"), 200);
    let account = site.account().await;
    let reading = tokio::spawn({
        let talkdesk = talkdesk.clone();
        async move { talkdesk.run(None).await }
    });

    let calls = || crm.crm.stats("demo").calls.values().sum::<u64>();
    let (mut killed_in_build, mut ways_back) = (0, Vec::new());
    let mut killed_at = Instant::now();
    for _ in 0..KILLS {
        let before = calls();
        until("the worker calls the CRM", || async { calls() > before }).await;
        ways_back.push(killed_at.elapsed().as_millis());
        let moment = Duration::from_millis(rand::rng().random_range(0..200));
        tokio::time::sleep(moment).await;
        worker.kill();
        killed_at = Instant::now();
        let head = site
            .store()
            .await
            .head(&account, contacts::Stream::Contacts)
            .await
            .expect("the store");
        killed_in_build += u64::from(!head.is_some_and(|head| head.ready));
        worker = site.start("worker").await;
    }
    assert!(
        killed_in_build >= KILLS_OF_THE_BUILD,
        "the build was over after {killed_in_build} kills"
    );
    let during = reading.await.expect("a run");
    until("the build is complete", || site.is_settled()).await;
    let listed = crm.crm.stats("demo").calls_of("contacts.list");
    figure(&format!(
        "{KILLS} kills ({killed_in_build} in the build): {listed} pages read of {PAGES}; from kill to the next CRM \
         call {:?} to {:?} ms",
        ways_back[1..].iter().min(),
        ways_back[1..].iter().max(),
    ));
    assert!(
        (PAGES..=PAGES + killed_in_build).contains(&listed),
        "{listed} pages read; a kill costs one at most"
    );

    // A reader of the growing snapshot got everybody, and nobody twice who had not moved.
    let edited: BTreeSet<String> = crm
        .crm
        .history("demo")
        .split_off(CONTACTS)
        .into_iter()
        .map(|edit| edit.id)
        .collect();
    assert_eq!(during.ids().len(), CONTACTS);
    assert!(repeated(&during).is_subset(&edited), "repeated without an edit");

    crm.crm
        .knobs("demo", |knobs| knobs.edits_per_page = EditsPerPage::default());
    until("the last edits arrive", || async {
        talkdesk.run(None).await.titles() == truth(&crm)
    })
    .await;
    let run = talkdesk.run(None).await;
    assert_eq!(run.contacts.len(), CONTACTS, "nobody comes twice");
    // A checkpoint of the reader leads to what it has not seen, and to nothing lost.
    let mut known = during.titles();
    known.extend(talkdesk.run(Some(&during.checkpoint)).await.titles());
    assert_eq!(known, truth(&crm));
    site.assert_nothing_given_up();
}
