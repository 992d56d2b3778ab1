//! A slice that is cut short: by death, by a stop, by the loss of its lease.

use std::collections::BTreeMap;
use std::time::Duration;

use contacts::ports::Snapshots;
use contacts::{ErrorKind, Kind, Micros, Position, Stream};
use worker::progress::Progress;

use super::{Scene, plain};
use crate::machine::Faults;

const CONTACTS: usize = 30;
const PAGES: usize = 10;

async fn positions(scene: &Scene) -> BTreeMap<String, Position> {
    let ids: Vec<String> = scene.truth().into_keys().collect();
    let known = scene
        .store
        .known(&scene.tenant().account.id, Stream::Contacts, &ids)
        .await
        .expect("a calm store");
    ids.into_iter()
        .zip(known)
        .filter_map(|(id, known)| Some((id, known?.position)))
        .collect()
}

/// A build whose worker has asked for so many pages.
async fn building(pages: usize) -> Scene {
    let mut scene = Scene::new(plain(), CONTACTS);
    scene.start_worker();
    scene.front().identify().await.expect("a calm store");
    scene.until(|scene| scene.site().calls_of("full") >= pages).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn a_walk_whose_cursor_the_crm_has_forgotten_is_begun_anew() {
    let mut scene = building(4).await;
    *scene.site().forgetful.lock() = true;
    scene.sweep_for(Duration::from_secs(60)).await;
    assert!(scene.head().await.is_some_and(|head| head.ready), "the build");
    assert_eq!(scene.snapshot().await, scene.truth());

    // The same in the middle of a poll.
    for id in scene.truth().into_keys() {
        scene.edit(&id);
    }
    // Out of the lag.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let polled = scene.site().calls_of("changes");
    scene.ring(Kind::Changes).await;
    scene
        .until(|scene| scene.site().calls_of("changes") >= polled + 3)
        .await;
    *scene.site().forgetful.lock() = true;
    scene.sweep_for(Duration::from_secs(60)).await;
    assert!(!*scene.site().forgetful.lock(), "it was asked without a cursor");
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_build_whose_worker_dies_repeats_at_most_one_page() {
    for asked in 1..=PAGES {
        let mut scene = building(asked).await;
        let before = positions(&scene).await;
        scene.kill_worker(0);
        scene.start_worker();
        scene.sweep_for(Duration::from_secs(40)).await;
        assert!(
            scene.head().await.is_some_and(|head| head.ready),
            "killed at page {asked}"
        );
        let calls = scene.site().calls_of("full");
        assert_eq!(calls, PAGES + 1, "killed at page {asked}, which was in hand");
        let after = positions(&scene).await;
        assert!(
            before.iter().all(|(id, position)| after[id] == *position),
            "what was written stays where it is"
        );
        assert_eq!(scene.snapshot().await, scene.truth());
    }
}

/// Kills the worker between the last commit of the pass and the word that it is done.
async fn die_before_the_word(scene: &mut Scene) {
    scene.set_faults(Faults {
        store_dawdles: 1.0,
        ..Faults::default()
    });
    let complete = async |scene: &Scene| {
        let head = scene.head().await;
        head.is_some_and(|head| Progress::read(&head.progress).last_full > Micros::ZERO)
    };
    let deadline = scene.now().plus(Duration::from_secs(60));
    while !complete(scene).await {
        assert!(scene.now() < deadline, "the pass does not end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let work = scene.work().await;
    assert!(work.lease.is_some() && work.tasks[&Kind::Full].last_done.is_none());
    scene.kill_worker(0);
    scene.set_faults(Faults::default());
    assert_eq!(pages_read(scene), PAGES);
}

fn pages_read(scene: &Scene) -> usize {
    let calls = scene.site().calls.lock();
    let answered = calls.iter().filter(|call| call.answered.is_some());
    answered.filter(|call| call.what == "full").count()
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_pass_that_a_dead_worker_completed_is_not_repeated() {
    for waits_for_quota in [false, true] {
        let mut scene = building(4).await;
        if waits_for_quota {
            let until = scene.now().plus(Duration::from_secs(5));
            scene.fail(Some(ErrorKind::Quota { until }));
            scene.until(|scene| scene.now() > until).await;
            scene.fail(None);
        }
        die_before_the_word(&mut scene).await;
        scene.start_worker();
        scene.sweep_for(Duration::from_secs(15)).await;
        let done = scene.work().await.tasks[&Kind::Full].clone();
        assert!(done.last_done.is_some() && done.due > Some(scene.now()), "{done:?}");
        assert_eq!(pages_read(&scene), PAGES, "after a quota: {waits_for_quota}");
        // The next one is a pass of its own.
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(pages_read(&scene), 2 * PAGES);
        assert_eq!(scene.snapshot().await, scene.truth());
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_pass_that_was_asked_for_after_the_dead_worker_began_is_run() {
    let mut scene = building(4).await;
    scene.ring(Kind::Full).await;
    die_before_the_word(&mut scene).await;
    scene.start_worker();
    scene.sweep_for(Duration::from_secs(15)).await;
    assert_eq!(scene.site().calls_of("full"), 2 * PAGES);
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_stop_ends_after_the_page_in_hand_and_publishes_the_continuation() {
    let mut scene = building(4).await;
    scene.stop_worker(0).await.expect("the worker ends");
    assert_eq!(scene.site().calls_of("full"), 4, "no page after the one in hand");
    let work = scene.work().await;
    let marker = work.tasks[&Kind::Full].marker.as_ref().expect("a continuation");
    assert!(scene.broker.jobs().iter().any(|job| job.id == marker.job));
    assert!(work.lease.is_none(), "the lease goes back at once");
    let stopped = scene.now();
    // Nobody sweeps: the continuation alone goes on.
    scene.start_worker();
    scene.until_quiet().await;
    assert!(
        scene.now().since(stopped) < scene.policy.times.lease,
        "without waiting for the lease"
    );
    assert_eq!(scene.site().calls_of("full"), PAGES, "and no page is repeated");
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_page_that_outlasts_the_stop_grace_is_abandoned_and_repeated() {
    let scene = building(4).await;
    // The fifth page takes longer than the grace.
    *scene.site().latency.lock() = (5_000, 5_000);
    scene.until(|scene| scene.site().calls_of("full") >= 5).await;
    let mut scene = scene;
    let asked = scene.now();
    scene.stop_worker(0).await.expect("the worker ends");
    assert!(
        scene.now().since(asked) < Duration::from_secs(5),
        "it does not wait for the page"
    );
    *scene.site().latency.lock() = (50, 50);
    scene.start_worker();
    scene.sweep_for(Duration::from_secs(40)).await;
    assert_eq!(scene.site().calls_of("full"), PAGES + 1);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_8_a_worker_that_wakes_after_its_lease_writes_nothing() {
    let mut scene = building(4).await;
    scene.stall_worker(0, Duration::from_secs(20));
    scene.start_worker();
    scene.sweep_for(Duration::from_secs(15)).await;
    assert_eq!(
        scene.snapshot().await,
        scene.truth(),
        "the other worker has built it meanwhile"
    );
    let head = scene.head().await;
    scene.until(|scene| scene.witness.counted("fenced") > 0).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.head().await, head, "its page was refused, and it has stopped");
    assert_eq!(scene.site().in_flight.lock().0, 0);
    scene.witness.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn invariant_8_a_lease_that_is_lost_during_a_call_stops_the_slice_there() {
    let mut scene = building(4).await;
    *scene.site().latency.lock() = (5_000, 5_000);
    scene.until(|scene| scene.site().calls_of("full") >= 5).await;
    // Somebody else gets the account, as after a pause of the store.
    let account = scene.tenant().account.id.clone();
    let times = scene.policy.times;
    contacts::work::update(&scene.store, &account, &times, |work| work.lease = None)
        .await
        .expect("a calm store");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.site().calls_of("full"), 5, "no page after the one in hand");
    *scene.site().latency.lock() = (50, 50);
    scene.sweep_for(Duration::from_secs(40)).await;
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_through_a_call_that_takes_longer() {
    let mut scene = building(4).await;
    *scene.site().latency.lock() = (10_000, 10_000);
    scene.until(|scene| scene.site().calls_of("full") >= 5).await;
    *scene.site().latency.lock() = (50, 50);
    scene.start_worker();
    scene.sweep_for(Duration::from_secs(40)).await;
    assert_eq!(scene.site().calls_of("full"), PAGES, "nobody else took the account");
    assert_eq!(scene.site().in_flight.lock().1, 1);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn slices_take_turns_so_that_webhooks_do_not_wait_for_a_build() {
    let mut scene = Scene::new(plain(), CONTACTS);
    scene.policy.slice.pages = 2;
    scene.start_worker();
    scene.front().identify().await.expect("a calm store");
    scene.until(|scene| scene.site().calls_of("full") >= 3).await;
    scene.hook(&["a0029"]).await;
    scene.until(|scene| scene.site().calls_of("get") > 0).await;
    let pages = scene.site().calls_of("full");
    assert!(pages < PAGES, "the webhook's fetch came after {pages} of {PAGES} pages");
    scene.until_quiet().await;
    assert_eq!(scene.site().calls_of("full"), PAGES);
    assert_eq!(scene.snapshot().await, scene.truth());
}
