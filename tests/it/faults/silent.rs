//! Redis behind a network that loses connections: half-open, reset, refused.

use std::time::{Duration, Instant};

use serde_json::json;

use super::relay::{Mode, Relay};
use super::*;

/// A connection that fell silent must be found out and replaced well within this; the kernel alone takes a quarter of
/// an hour.
const HEALED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_connections_lost_in_any_way_are_replaced() {
    let Some((redis, broker)) = own_servers().await else {
        return;
    };
    let relay = Relay::to(redis.address(), Mode::Pass).await;
    let through = format!("redis://127.0.0.1:{}", relay.port());
    let rig = Rig::new(300, &through, &broker.url()).await;
    let (mut front, mut worker) = rig.up().await;
    let store = rig.store(&redis.url()).await;
    let account = build(&front, &*store).await;

    for mode in [Mode::Swallow, Mode::Reset, Mode::Refuse] {
        let first = front.sync(json!(null)).await.page();
        let next = json!({"offset": first["next_offset"], "context": first["context"]});
        relay.set(mode).await;
        // More than one at a time, as it would be.
        let answers = futures::future::join_all((0..6).map(|_| front.sync(next.clone()))).await;
        for answer in answers {
            answer.assert_unavailable();
        }
        rig.webhook(&front, &account, &["5"]).await.assert_unavailable();
        for process in [&front, &worker] {
            assert_eq!(process.readiness().await.0, 503, "{mode:?}");
        }
        rig.crm
            .crm
            .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([5])))
            .done();

        relay.set(Mode::Pass).await;
        let began = Instant::now();
        until(&format!("pages after {mode:?}"), || async {
            front.sync(next.clone()).await.status == 200
        })
        .await;
        assert!(began.elapsed() < HEALED, "{mode:?}: {:?}", began.elapsed());
        let rest = front.pages(next).await;
        // Invariant 3: the edited one may have moved past the run's end, and is the next run's then.
        until(&format!("everybody, in the newest version, after {mode:?}"), || async {
            let following = front.run(Some(&rest.checkpoint)).await;
            assert!(
                following.contacts.len() <= 1,
                "{mode:?}: unchanged contacts keep their position"
            );
            delivered(&[&first], &[&rest, &following]) == truth(&rig.crm)
        })
        .await;
        worker.until_ready().await;
    }
    front.assert_runs();
    worker.assert_runs();
    front.stop().await;
    worker.stop().await;
}
