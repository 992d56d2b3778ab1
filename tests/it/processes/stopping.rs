//! SIGTERM: what is in hand ends or is handed over, within the stop grace, with exit code 0.

use std::time::Instant;

use fake_crm::Op;

use super::*;

/// A lease that outlasts the test: whoever goes on meanwhile did not wait for it.
const LONG_LEASE: &str = "worker.lease = \"10m\"\nworker.slice_time = \"90s\"\nrefresh.marker = \"10m\"\n\
                          refresh.sweep = \"200ms\"\nrefresh.poll = \"5m\"\n";
const CONTACTS: usize = 3_000;
const PAGES: u64 = 6;
/// What a process may take beyond its grace to wind up.
const WINDING_UP: Duration = Duration::from_secs(2);

/// Pages are worked out, and kept back while it is on.
fn hang(crm: &Crm, on: bool) {
    crm.crm.knobs("demo", |knobs| {
        knobs.frozen = on;
        knobs.fault_ops = vec![Op::List];
    });
}

/// Starts a build and waits until its first page hangs.
async fn with_a_page_in_hand(site: &Site, crm: &Crm) -> (Process, Process) {
    let (front, worker) = (site.start("serve").await, site.start("worker").await);
    hang(crm, true);
    assert_eq!(Talkdesk::of(&front).validate().await.expect("an answer"), 200);
    until("a page is in hand", || async { crm.crm.stats("demo").in_flight > 0 }).await;
    (front, worker)
}

/// The build ends as if nothing had happened, but for the pages that were read again.
async fn is_built(site: &Site, crm: &Crm, front: &Process, read_again: u64) {
    until("the build is complete", || site.is_settled()).await;
    assert_eq!(crm.crm.stats("demo").calls_of("contacts.list"), PAGES + read_again);
    assert_eq!(Talkdesk::of(front).run(None).await.titles(), truth(crm));
    site.assert_nothing_given_up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_ends_its_page_and_hands_over_at_once() {
    if !services() {
        return;
    }
    let crm = Crm::start(CONTACTS).await;
    let site = Site::new(
        Backend::Distributed,
        &crm,
        &format!("{LONG_LEASE}worker.stop_grace = \"8s\"\n"),
        &[],
    );
    let (front, mut first) = with_a_page_in_hand(&site, &crm).await;
    let _second = site.start("worker").await;
    let stopped_at = Instant::now();
    first.terminate();
    until("it is stopping", || async {
        first.has_said("stopping; a second signal")
    })
    .await;
    hang(&crm, false);
    let status = first.ended().await;
    let took = stopped_at.elapsed();
    assert_eq!(status.code(), Some(0), "{}", first.log());
    assert!(took < Duration::from_secs(8) + WINDING_UP, "{took:?}");
    until("the other worker goes on", || async {
        crm.crm.stats("demo").calls_of("contacts.list") > 1
    })
    .await;
    figure(&format!(
        "SIGTERM with a page in hand that ends: exit after {} ms, the other worker's next page after {} ms",
        took.as_millis(),
        stopped_at.elapsed().as_millis()
    ));
    is_built(&site, &crm, &front, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_beyond_the_grace_is_abandoned_and_another_reads_it_at_once() {
    if !services() {
        return;
    }
    let crm = Crm::start(CONTACTS).await;
    let site = Site::new(
        Backend::Distributed,
        &crm,
        &format!("{LONG_LEASE}worker.stop_grace = \"500ms\"\n"),
        &[],
    );
    let (front, mut first) = with_a_page_in_hand(&site, &crm).await;
    let stopped_at = Instant::now();
    first.terminate();
    let status = first.ended().await;
    let took = stopped_at.elapsed();
    assert_eq!(status.code(), Some(0), "{}", first.log());
    assert!(took < Duration::from_millis(500) + WINDING_UP, "{took:?}");
    figure(&format!(
        "SIGTERM with a page in hand that does not end: exit after {} ms",
        took.as_millis()
    ));
    hang(&crm, false);
    let _second = site.start("worker").await;
    is_built(&site, &crm, &front, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_front_answers_what_it_holds() {
    if !services() {
        return;
    }
    let crm = Crm::start(800).await;
    let more = format!("{QUICK}cold.hold = \"4s\"\nworker.stop_grace = \"10s\"\n");
    let site = Site::new(Backend::Distributed, &crm, &more, &[]);
    let mut front = site.start("serve").await;
    let talkdesk = Talkdesk::of(&front);
    // No worker: there is nothing to answer with, so the request is held.
    let held = tokio::spawn({
        let talkdesk = talkdesk.clone();
        async move { talkdesk.post("contact_sync", json!({ "auth": auth() })).await }
    });
    until("the account is registered", || async {
        !account_ids(&**site.store().await, 1)
            .await
            .expect("accounts")
            .is_empty()
    })
    .await;
    assert!(!held.is_finished());
    front.terminate();
    let (status, page) = held
        .await
        .expect("no panic")
        .expect("an answer, though the front is stopping");
    assert_eq!((status, &page["contacts"]), (200, &json!([])), "{page}");
    assert!(page["next_offset"].is_string(), "more to come: {page}");
    assert_eq!(front.ended().await.code(), Some(0), "{}", front.log());
    assert!(talkdesk.validate().await.is_err(), "nobody listens any more");

    // Another front goes on with the offset.
    let (front, _worker) = (site.start("serve").await, site.start("worker").await);
    let talkdesk = Talkdesk::of(&front);
    let body = json!({"auth": auth(), "meta": {"offset": page["next_offset"]}});
    let (status, page) = talkdesk.post("contact_sync", body).await.expect("a page");
    assert_eq!(status, 200, "{page}");
    until("the build is complete", || site.is_settled()).await;
    assert_eq!(talkdesk.run(None).await.titles(), truth(&crm));
}
