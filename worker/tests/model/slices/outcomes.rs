//! What becomes of work that fails: parked, due later, tried again, dead with a reason. Nothing else.

use std::time::Duration;

use contacts::dead;
use contacts::ports::Dirty;
use contacts::queue::Settle;
use contacts::{ErrorKind, Kind, Lane, accounts};

use super::{Scene, plain};

#[tokio::test(start_paused = true)]
async fn invariant_14_refused_credentials_park_the_account_until_talkdesk_calls_with_good_ones() {
    let mut scene = Scene::built(plain(), 12).await;
    scene.fail(Some(ErrorKind::Credentials));
    scene.edit("a0003");
    scene.hook(&["a0003"]).await;
    scene.until_quiet().await;
    let work = scene.work().await;
    let park = work.park.expect("the account is parked");
    assert!(park.message.contains("the model CRM fails"), "with the cause: {}", park.message);
    let fingerprint = &scene.tenant().account.fingerprint;
    let known = accounts::by_fingerprint(&scene.store, fingerprint, scene.now()).await.expect("a calm store");
    assert_eq!(known, None, "invariant 11: the credentials are good for nothing any more");

    // However much is asked for meanwhile, the CRM is left alone.
    let calls = scene.site().calls.lock().len();
    scene.hook(&["a0004"]).await;
    scene.ring(Kind::Full).await;
    scene.sweep_for(Duration::from_secs(600)).await;
    assert_eq!(scene.site().calls.lock().len(), calls);
    assert!(scene.broker.jobs().is_empty());

    scene.fail(None);
    scene.edit("a0004");
    scene.front().identify().await.expect("a calm store");
    scene.until_quiet().await;
    assert!(scene.work().await.park.is_none());
    assert_eq!(scene.snapshot().await, scene.truth(), "what waited is done");
}

#[tokio::test(start_paused = true)]
async fn invariant_14_waiting_for_a_quota_uses_up_no_attempt_and_makes_no_call() {
    for wait in [Duration::from_secs(60), Duration::from_secs(3_000)] {
        let mut scene = Scene::built(plain(), 12).await;
        let until = scene.now().plus(wait);
        scene.edit("a0003");
        let calls = scene.site().calls_of("get");
        for round in 1..=10 {
            let again = scene.now().plus(wait);
            scene.fail(Some(ErrorKind::Quota { until: again }));
            if round == 1 {
                scene.hook(&["a0003"]).await;
            }
            scene.until(|scene| scene.site().calls_of("get") == calls + round).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let task = scene.work().await.tasks[&Kind::Ids].clone();
            assert_eq!((task.failed, task.due.map(|due| due >= again)), (0, Some(true)), "round {round}");
            let asked = scene.site().calls_of("get");
            scene.sweep_for(wait - Duration::from_secs(5)).await;
            assert_eq!(scene.site().calls_of("get"), asked, "no call before the quota is back");
            // Polls of that time do not matter here.
            scene.fail(None);
            if round < 10 {
                scene.fail(Some(ErrorKind::Quota { until: scene.now().plus(wait) }));
            }
            scene.sweep().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            if round < 10 {
                while scene.site().calls_of("get") == asked {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    scene.sweep().await;
                }
                break;
            }
        }
        scene.fail(None);
        scene.sweep_for(wait + Duration::from_secs(30)).await;
        assert!(scene.now() > until);
        assert!(dead::list(&scene.store, 10).await.expect("a calm store").is_empty());
        assert_eq!(scene.snapshot().await, scene.truth());
    }
}
