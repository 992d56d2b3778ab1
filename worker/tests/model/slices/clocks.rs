//! Whose clock says what: the CRM's, ours, and what a reply that took long says of them.

use std::time::Duration;

use contacts::Kind;

use super::{Scene, plain};
use crate::model_crm::{Late, Manners, SaysTime};

#[tokio::test(start_paused = true)]
async fn invariant_4_a_crms_clock_may_be_hours_off() {
    for hours in [-5, 5] {
        for says_time in [SaysTime::Seconds, SaysTime::Exactly] {
            let scene = Scene::built(
                Manners {
                    skew: hours * 3_600_000_000,
                    says_time,
                    ..plain()
                },
                12,
            )
            .await;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                scene.edit("a0003");
                tokio::time::sleep(Duration::from_secs(3)).await;
                scene.ring(Kind::Changes).await;
                scene.until_quiet().await;
                assert_eq!(scene.snapshot().await, scene.truth(), "{hours} h, {says_time:?}");
            }
        }
    }
}

/// The CRM says its time when it answers. A request that was long on its way must not make its clock look ahead of what
/// it is: the next window would end in its future, and what becomes visible late would be passed over.
#[tokio::test(start_paused = true)]
async fn invariant_4_a_slow_request_does_not_push_the_window_ahead() {
    let manners = Manners {
        says_time: SaysTime::Exactly,
        changes_indexed: true,
        get_many: 0,
        ..plain()
    };
    let scene = Scene::built(manners, 12).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    *scene.site().latency.lock() = (12_000, 12_000);
    scene.ring(Kind::Changes).await;
    scene.until_quiet().await;
    *scene.site().latency.lock() = (50, 50);
    // Visible after six seconds, which is lag and overlap.
    let late = Late {
        index: Duration::from_secs(6),
        ..Late::default()
    };
    assert!(scene.site().crm.lock().edit("a0003", scene.now(), late));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        scene.ring(Kind::Changes).await;
        scene.until_quiet().await;
    }
    assert_eq!(scene.snapshot().await, scene.truth());
}

/// A store that was lost counts fences anew. A worker of the time before must not write into the snapshot that another
/// one has begun, let alone call it complete.
#[tokio::test(start_paused = true)]
async fn invariant_8_a_worker_from_before_the_loss_of_the_store_writes_nothing() {
    let mut scene = Scene::new(Manners { page: 20, ..plain() }, 30);
    scene.start_worker();
    scene.front().identify().await.expect("a calm store");
    scene
        .until(|scene| scene.site().calls_of("get") + scene.site().calls_of("changes") > 0)
        .await;
    scene.until_quiet().await;
    for _ in 0..5 {
        scene.ring(Kind::Changes).await;
        scene.until_quiet().await;
    }
    // A full pass reads its second and last page.
    scene.ring(Kind::Full).await;
    let pages = scene.site().calls_of("full");
    scene.until(|scene| scene.site().calls_of("full") == pages + 1).await;
    *scene.site().latency.lock() = (1_000, 1_000);
    scene.until(|scene| scene.site().calls_of("full") == pages + 2).await;
    scene.wipe();
    // Talkdesk calls, and another worker begins the build.
    *scene.site().latency.lock() = (3_000, 3_000);
    scene.start_worker();
    scene.front().identify().await.expect("a calm store");
    scene.sweep_for(Duration::from_secs(120)).await;
    assert_eq!(scene.snapshot().await, scene.truth());
}
