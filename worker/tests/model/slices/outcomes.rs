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
    assert!(
        park.message.contains("the model CRM fails"),
        "with the cause: {}",
        park.message
    );
    let fingerprint = &scene.tenant().account.fingerprint;
    let known = accounts::by_fingerprint(&scene.store, fingerprint, scene.now())
        .await
        .expect("a calm store");
    assert_eq!(
        known, None,
        "invariant 11: the credentials are good for nothing any more"
    );

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
    // The shorter wait is the queue's, the longer one the sweep's.
    for wait in [Duration::from_secs(60), Duration::from_secs(700)] {
        let mut scene = Scene::built(plain(), 12).await;
        let mut until = scene.now().plus(wait);
        scene.fail(Some(ErrorKind::Quota { until }));
        scene.edit("a0003");
        scene.hook(&["a0003"]).await;
        for round in 1..=scene.policy.retry.attempts as usize + 2 {
            scene.sweep_for(Duration::from_secs(4)).await;
            assert_eq!(scene.site().calls_of("get"), round, "one call finds the quota used up");
            let task = scene.work().await.tasks[&Kind::Ids].clone();
            assert_eq!((task.failed, task.due), (0, Some(until)));
            scene.sweep_for(wait - Duration::from_secs(10)).await;
            assert_eq!(scene.site().calls_of("get"), round, "no call before it is back");
            // Still used up then.
            let next = until.plus(wait);
            scene.fail(Some(ErrorKind::Quota { until: next }));
            scene.sweep_for(until.since(scene.now())).await;
            until = next;
        }
        scene.fail(None);
        scene.sweep_for(wait + Duration::from_secs(60)).await;
        assert!(dead::list(&scene.store, 10).await.expect("a calm store").is_empty());
        assert_eq!(scene.snapshot().await, scene.truth());
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_14_after_the_last_attempt_the_ids_lie_in_a_dead_letter() {
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::BadReply,
        ErrorKind::Missing,
    ] {
        let mut scene = Scene::built(plain(), 12).await;
        scene.fail(Some(kind));
        scene.edit("a0003");
        scene.hook(&["a0003", "a0004"]).await;
        let asked = scene.now();
        scene.until_quiet().await;
        let attempts = scene.policy.retry.attempts;
        assert_eq!(scene.site().calls_of("get"), attempts as usize);
        assert!(
            scene.now().since(asked) >= Duration::from_secs(1 + 2 + 4),
            "with growing pauses"
        );
        let letters = dead::list(&scene.store, 10).await.expect("a calm store");
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((letter.kind, letter.attempts), (Some(Kind::Ids), attempts));
        assert_eq!(letter.account.as_ref(), Some(&scene.tenant().account.id));
        assert_eq!(letter.ids, ["a0003", "a0004"]);
        assert!(
            !letter.reason.is_empty() && letter.detail.contains("the model CRM fails"),
            "{letter:?}"
        );
        let dirty = scene
            .store
            .dirty(&scene.tenant().account.id, 10)
            .await
            .expect("a calm store");
        assert!(dirty.is_empty(), "the ids have moved");

        // What comes next starts afresh.
        scene.fail(None);
        scene.hook(&["a0003"]).await;
        scene.sweep_for(Duration::from_secs(60)).await;
        assert_eq!(scene.snapshot().await, scene.truth());
        assert_eq!(scene.work().await.tasks[&Kind::Ids].failed, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_14_what_no_repetition_helps_dies_at_once_and_the_refresh_goes_on() {
    for kind in [ErrorKind::Rejected, ErrorKind::HostRefused] {
        let mut scene = Scene::built(plain(), 12).await;
        scene.fail(Some(kind));
        let polls = scene.site().calls_of("changes");
        scene.ring(Kind::Changes).await;
        scene.until_quiet().await;
        assert_eq!(scene.site().calls_of("changes"), polls + 1, "no second attempt");
        let letters = dead::list(&scene.store, 10).await.expect("a calm store");
        assert_eq!(
            letters.iter().map(|letter| letter.kind).collect::<Vec<_>>(),
            [Some(Kind::Changes)]
        );
        scene.fail(None);
        scene.edit("a0003");
        scene.sweep_for(Duration::from_secs(60)).await;
        assert_eq!(scene.snapshot().await, scene.truth(), "the next poll comes in its time");
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_build_that_dies_is_tried_again_later() {
    let mut scene = Scene::new(plain(), 12);
    scene.start_worker();
    scene.fail(Some(ErrorKind::Unavailable));
    scene.front().identify().await.expect("a calm store");
    scene.until(|scene| scene.site().calls_of("full") > 0).await;
    scene.until_quiet().await;
    let task = scene.work().await.tasks[&Kind::Full].clone();
    assert_eq!(
        task.last_error.map(|failure| failure.kind),
        Some("unavailable".to_owned()),
        "the front tells Talkdesk"
    );
    assert_eq!(dead::list(&scene.store, 10).await.expect("a calm store").len(), 1);
    scene.fail(None);
    scene.sweep_for(scene.policy.retry.max + Duration::from_secs(30)).await;
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_14_an_account_that_is_gone_costs_no_calls() {
    let mut scene = Scene::built(plain(), 12).await;
    let calls = scene.site().calls.lock().len();
    let account = scene.tenant().account.id.clone();
    let key = contacts::ports::DocKey::of_account(contacts::ports::DocKind::Account, &account);
    let gone = contacts::docs::update(&scene.store, &key, |_: Option<accounts::Account>| {
        (contacts::docs::Change::Delete, Vec::new(), ())
    });
    gone.await.expect("a calm store");
    scene.ring(Kind::Changes).await;
    scene.sweep_for(Duration::from_secs(600)).await;
    assert_eq!(scene.site().calls.lock().len(), calls);
    assert!(scene.broker.jobs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_body_that_is_no_job_becomes_a_dead_letter() {
    let scene = Scene::built(plain(), 3).await;
    scene
        .broker
        .put(Lane::Refresh, b"{\"v\":1,\"what\":".to_vec(), scene.now());
    scene.until(|scene| scene.broker.len() == 0).await;
    let letters = dead::list(&scene.store, 10).await.expect("a calm store");
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((&letter.account, letter.kind), (&None, None));
    assert!(
        letter.reason.contains("cannot be read") && letter.detail.contains("14 bytes"),
        "{letter:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_job_of_a_newer_version_is_put_off_and_never_dropped() {
    let scene = Scene::built(plain(), 3).await;
    scene.broker.put(Lane::Refresh, super::newer_body(), scene.now());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(scene.broker.len(), 1, "it waits for a worker that understands it");
    assert!(dead::list(&scene.store, 10).await.expect("a calm store").is_empty());
    let put_off = scene.broker.settled(|how| matches!(how, Settle::PutOff { .. }));
    assert!((5..=20).contains(&put_off), "put off {put_off} times in five minutes");
}

#[tokio::test(start_paused = true)]
async fn invariant_14_a_store_that_fails_at_the_end_of_a_slice_costs_time_only() {
    let mut scene = Scene::built(plain(), 12).await;
    scene.edit("a0003");
    scene.hook(&["a0003"]).await;
    scene.until(|scene| scene.site().calls_of("get") == 1).await;
    let faults = crate::machine::Faults {
        store_refuses: 1.0,
        ..Default::default()
    };
    scene.set_faults(faults);
    tokio::time::sleep(Duration::from_secs(30)).await;
    scene.set_faults(Default::default());
    scene
        .sweep_for(scene.policy.times.marker + scene.policy.times.lease + Duration::from_secs(10))
        .await;
    assert_eq!(scene.snapshot().await, scene.truth());
}
