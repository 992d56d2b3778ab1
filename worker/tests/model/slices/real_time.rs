//! The same with the queue in memory that the rest of the workspace uses, and a clock that goes by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contacts::ports::Snapshots;
use contacts::{Clock, Kind, Lane, Queue, Stream, dead};
use jobs::memory::MemoryQueue;
use tokio_util::sync::CancellationToken;
use worker::{Deps, Requests};

use super::{Scene, plain};
use crate::machine::Process;

async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "the condition does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_refresh_runs_on_the_queue_in_memory_and_its_broken_bodies_become_dead_letters() {
    let scene = Scene::new(plain(), 30);
    *scene.site().latency.lock() = (1, 1);
    let clock: Arc<dyn Clock> = scene.net.clock.clone();
    let queue = MemoryQueue::new(clock.clone()).expect("a thread");
    let mut deps: Deps = scene.deps(&Process::new(1_000));
    let (times, limit) = (deps.policy.times, deps.policy.dirty_limit);
    deps.requests = Arc::new(Requests::new(
        deps.store.clone(),
        Arc::new(queue.clone()),
        clock,
        times,
        limit,
    ));
    deps.queue = Arc::new(queue.clone());
    let requests = deps.requests.clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker::run(deps, stop.clone()));

    let account = scene.tenant().account.clone();
    contacts::accounts::register(&scene.store, &account)
        .await
        .expect("a calm store");
    requests
        .ring(&account.id, Kind::Full, Lane::Build, None)
        .await
        .expect("a calm store and queue");
    let ready = async || {
        let head = scene
            .store
            .head(&account.id, Stream::Contacts)
            .await
            .expect("a calm store");
        head.is_some_and(|head| head.ready)
    };
    wait_until(ready).await;
    assert_eq!(scene.snapshot().await, scene.truth());

    scene.edit("a0003");
    requests
        .changed(&account.id, &["a0003".to_owned()], true)
        .await
        .expect("a calm store and queue");
    wait_until(async || scene.snapshot().await == scene.truth()).await;

    let newer = super::newer_body();
    let _confirmed = queue.publish_body(Lane::Refresh, newer).await.expect("a queue");
    let _confirmed = queue
        .publish_body(Lane::Build, b"no job".to_vec())
        .await
        .expect("a queue");
    wait_until(async || {
        dead::list(&scene.store, 10)
            .await
            .is_ok_and(|letters| letters.len() == 1)
    })
    .await;
    wait_until(async || queue.depth().await.is_ok_and(|depth| depth.waiting == 1)).await;

    stop.cancel();
    running.await.expect("no panic").expect("a worker that stops ends well");
    assert_eq!(
        queue.depth().await.expect("a queue").waiting,
        1,
        "the newer body waits on"
    );
    scene.witness.assert_clean();
}
