//! Webhooks: each means a fetch that starts later, however many come and whatever is lost on the way.

use std::time::Duration;

use contacts::ports::Dirty;
use contacts::{Kind, work};
use worker::requests::RequestError;

use super::{Scene, plain};
use crate::machine::{Faults, Process};
use crate::model_crm::Manners;

fn fetches_of(scene: &Scene, id: &str) -> usize {
    scene
        .site()
        .calls
        .lock()
        .iter()
        .filter(|call| call.ids.iter().any(|asked| asked == id))
        .count()
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_storm_of_webhooks_is_one_job_waiting_and_one_running() {
    let scene = Scene::built(plain(), 12).await;
    for round in 0..200 {
        let id = format!("a{:04}", round % 12);
        scene.hook(&[&id, "a0000"]).await;
        let jobs = scene.broker.jobs().iter().filter(|job| job.kind == Kind::Ids).count();
        assert!(jobs <= 2, "{jobs} jobs");
        if round % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }
    scene.until_quiet().await;
    assert_eq!(scene.site().in_flight.lock().1, 1);
    let fetches = scene.site().calls_of("get");
    assert!(fetches <= 12, "{fetches} fetches for 400 announcements of 12 contacts");
    assert!((0..12).all(|number| fetches_of(&scene, &format!("a{number:04}")) > 0));
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_webhook_that_comes_during_the_fetch_leads_to_another() {
    let scene = Scene::built(plain(), 12).await;
    scene.hook(&["a0003"]).await;
    scene.until(|scene| scene.site().calls_of("get") == 1).await;
    // The request is on its way; the CRM may have answered from before this edit.
    *scene.site().latency.lock() = (200, 200);
    tokio::time::sleep(Duration::from_millis(60)).await;
    scene.edit("a0003");
    scene.hook(&["a0003"]).await;
    scene.until_quiet().await;
    assert_eq!(fetches_of(&scene, "a0003"), 2);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_lost_job_is_rung_for_again() {
    let mut scene = Scene::built(plain(), 12).await;
    scene.stop_worker(0).await.expect("the worker ends");
    scene.edit("a0003");
    scene.hook(&["a0003"]).await;
    scene.broker.lose(1.0);
    scene.start_worker();
    scene
        .sweep_for(scene.policy.times.marker + Duration::from_secs(5))
        .await;
    assert_eq!(fetches_of(&scene, "a0003"), 1);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_webhook_without_a_confirmation_is_refused_and_the_next_one_rings_at_once() {
    let scene = Scene::built(plain(), 12).await;
    let front = scene.front().clone();
    scene.broker.set_down(true);
    let refused = front.hook(&["a0003".to_owned()], true).await;
    assert!(matches!(refused, Err(RequestError::Queue(_))), "{refused:?}");
    let task = scene.work().await.tasks[&Kind::Ids].clone();
    assert!(
        task.marker.is_none() && task.due.is_some(),
        "nobody relies on a job that may not be there"
    );
    scene.broker.set_down(false);
    scene.hook(&["a0004"]).await;
    scene.until_quiet().await;
    assert_eq!((fetches_of(&scene, "a0003"), fetches_of(&scene, "a0004")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_ring_whose_answer_is_lost_is_heard_all_the_same() {
    let scene = Scene::built(plain(), 12).await;
    scene.edit("a0003");
    scene.set_faults(Faults {
        swap_mumbles: 1.0,
        ..Faults::default()
    });
    let refused = scene.front().hook(&["a0003".to_owned()], true).await;
    assert!(matches!(refused, Err(RequestError::Store(_))), "{refused:?}");
    scene.set_faults(Faults::default());
    tokio::time::sleep(scene.policy.times.marker / 2).await;
    assert_eq!(fetches_of(&scene, "a0003"), 1, "its marker had to run out first");
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_process_that_dies_between_marker_and_publish_delays_its_webhook_only() {
    let mut scene = Scene::built(plain(), 12).await;
    let (account, times) = (scene.tenant().account.id.clone(), scene.policy.times);
    let now = scene.now();
    scene.edit("a0003");
    scene
        .store
        .mark(&account, &["a0003".to_owned()], now, 500)
        .await
        .expect("a calm store");
    let ring = work::update(&scene.store, &account, &times, |work| {
        let job = contacts::JobId::random();
        work.ring(&account, Kind::Ids, contacts::Lane::Refresh, job, now, &times)
    });
    assert!(matches!(ring.await, Ok(work::Ring::Publish(_))));
    scene.sweep_for(times.marker + Duration::from_secs(5)).await;
    assert_eq!(fetches_of(&scene, "a0003"), 1);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_9_more_ids_than_may_wait_become_a_poll() {
    let mut scene = Scene::built(plain(), 12).await;
    scene.policy.dirty_limit = 5;
    let requests = scene.deps(&Process::new(1_000)).requests;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ids: Vec<String> = scene.truth().into_keys().collect();
    ids.iter().for_each(|id| scene.edit(id));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let polls = scene.site().calls_of("changes");
    requests
        .changed(&scene.tenant().account.id, &ids, true)
        .await
        .expect("a calm store and queue");
    scene.until_quiet().await;
    assert!(scene.site().calls_of("changes") > polls);
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_9_where_nothing_can_be_fetched_by_id_a_webhook_is_a_poll() {
    let scene = Scene::built(Manners { get_many: 0, ..plain() }, 12).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.edit("a0003");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let taken = scene.front().hook(&["a0003".to_owned()], false).await;
    assert!(matches!(taken, Ok(true)), "{taken:?}");
    scene.until_quiet().await;
    assert_eq!(scene.snapshot().await, scene.truth());
}
