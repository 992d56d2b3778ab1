//! Deletion only on proof, and behind the brake.

use std::time::Duration;

use contacts::Kind;
use contacts::ports::Snapshots;
use contacts::{Micros, Stream};

use super::{Scene, plain};
use crate::model_crm::{Deletions, Late, Manners, Order};

/// The ways of listing, fetching and proving that a connector may have.
fn kinds_of_crm() -> Vec<Manners> {
    let mut kinds = Vec::new();
    for full_order in [Order::Id, Order::ClosedWindow, Order::Updated, Order::Moving] {
        for (get_many, ids_list) in [(3, false), (0, true), (0, false)] {
            for changes in [true, false] {
                kinds.push(Manners {
                    full_order,
                    get_many,
                    ids_list,
                    changes,
                    ..plain()
                });
            }
        }
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn invariant_13_a_full_pass_over_a_crm_that_is_edited_all_the_while_removes_nobody() {
    for manners in kinds_of_crm() {
        let scene = Scene::built(manners.clone(), 30).await;
        let ids: Vec<String> = scene.truth().into_keys().collect();
        let calls = scene.site().calls.lock().len();
        for pass in 0..3 {
            scene.ring(Kind::Full).await;
            let mut turn = 0;
            while scene.work().await.tasks[&Kind::Full]
                .due
                .is_some_and(|due| due <= scene.now())
            {
                scene.edit(&ids[turn * 7 % ids.len()]);
                turn += 1;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            assert!(turn > 10, "pass {pass} was over before the edits began");
        }
        assert!(scene.site().calls.lock().len() >= calls + 15);
        scene.until_quiet().await;
        assert_eq!(scene.witness.counted("removed"), 0, "{manners:?}");
        assert_eq!(scene.head().await.map(|head| head.count), Some(30), "{manners:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_13_what_is_gone_leaves_with_the_next_full_pass() {
    for (get_many, ids_list) in [(3, false), (0, true)] {
        let scene = Scene::built(
            Manners {
                get_many,
                ids_list,
                ..plain()
            },
            30,
        )
        .await;
        for id in ["a0003", "a0017", "a0029"] {
            assert!(scene.site().crm.lock().delete(id, scene.now(), Late::default()));
        }
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(scene.snapshot().await, scene.truth());
        assert_eq!(scene.witness.counted("removed"), 3);
        let account = &scene.tenant().account.id;
        let runs = contacts::runs::list(&scene.store, account).await.expect("a calm store");
        let vanished: Vec<&String> = runs.iter().flat_map(|run| &run.tally.vanished).collect();
        assert_eq!(vanished, ["a0003", "a0017", "a0029"], "an operator sees who is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_13_too_many_at_once_wait_for_a_second_pass_that_agrees() {
    for (get_many, ids_list) in [(3, false), (0, true)] {
        let scene = Scene::built(
            Manners {
                get_many,
                ids_list,
                ..plain()
            },
            30,
        )
        .await;
        // The brake holds at 20 % of 30.
        for number in 0..10 {
            assert!(
                scene
                    .site()
                    .crm
                    .lock()
                    .delete(&format!("a{number:04}"), scene.now(), Late::default())
            );
        }
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(
            scene.head().await.map(|head| head.count),
            Some(30),
            "the first pass removes nobody"
        );
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(scene.snapshot().await, scene.truth(), "the second one does");
        assert_eq!(
            scene.witness.counted("brake released"),
            2,
            "ten removals, three a commit, of which the brake lets seven through"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_13_a_second_pass_that_does_not_agree_removes_nobody() {
    let scene = Scene::built(plain(), 30).await;
    let (hidden, other): (Vec<_>, Vec<_>) = scene.truth().into_keys().partition(|id| id.as_str() < "a0015");
    let pass = async |hide: &[String]| {
        let (from, to) = (scene.now(), scene.now().plus(Duration::from_secs(3_600)));
        for id in hide {
            scene.site().crm.lock().hide(id, from, to);
        }
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        let now = scene.now();
        for record in scene.site().crm.lock().records.values_mut() {
            record.hidden.iter_mut().for_each(|(_, to)| *to = now.min(*to));
        }
    };
    // A permission that comes and goes, and takes others with it each time.
    pass(&hidden).await;
    pass(&other).await;
    assert_eq!(
        scene.head().await.map(|head| head.count),
        Some(30),
        "the two passes did not miss the same contacts"
    );
    pass(&[]).await;
    pass(&hidden).await;
    assert_eq!(
        scene.head().await.map(|head| head.count),
        Some(30),
        "a pass without a finding lifts nothing off the brake"
    );
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn invariant_13_told_deletions_are_believed_at_once() {
    for deletions in [Deletions::Flag, Deletions::List] {
        let scene = Scene::built(
            Manners {
                deletions,
                get_many: 0,
                ..plain()
            },
            30,
        )
        .await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        for number in 0..20 {
            assert!(
                scene
                    .site()
                    .crm
                    .lock()
                    .delete(&format!("a{number:04}"), scene.now(), Late::default())
            );
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        scene.ring(Kind::Changes).await;
        scene.until_quiet().await;
        assert_eq!(scene.snapshot().await, scene.truth(), "{deletions:?}");
    }
}

/// Where only polls tell of deletions, a full pass must leave them the time since the last poll.
#[tokio::test(start_paused = true)]
async fn invariant_13_a_deletion_between_a_poll_and_a_full_pass_is_polled() {
    for deletions in [Deletions::Flag, Deletions::List] {
        let scene = Scene::built(
            Manners {
                deletions,
                get_many: 0,
                ..plain()
            },
            30,
        )
        .await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(scene.site().crm.lock().delete("a0007", scene.now(), Late::default()));
        // Longer ago than lag and overlap.
        tokio::time::sleep(Duration::from_secs(10)).await;
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(scene.snapshot().await, scene.truth(), "{deletions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_merged_is_gone_and_found_under_the_survivor() {
    // Also if the merge changes nothing that Talkdesk is told.
    for changes in [true, false] {
        for by in [Kind::Ids, Kind::Changes, Kind::Full] {
            let scene = Scene::built(plain(), 12).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(scene.site().crm.lock().merge("a0003", "a0005", changes, scene.now()));
            assert!(scene.site().crm.lock().merge(
                "a0005",
                "a0008",
                changes,
                scene.now().plus(Duration::from_millis(1))
            ));
            tokio::time::sleep(Duration::from_secs(10)).await;
            match by {
                Kind::Ids => scene.hook(&["a0008"]).await,
                Kind::Changes | Kind::Full | Kind::Agents | Kind::Link => scene.ring(by).await,
            }
            scene.until_quiet().await;
            assert_eq!(scene.snapshot().await, scene.truth(), "{by}");
            let account = &scene.tenant().account.id;
            for alias in ["a0003", "a0005"] {
                let key = scene.keys.lookup_key(account, &format!("alias:{alias}"));
                let found = scene
                    .store
                    .find(account, Stream::Contacts, key)
                    .await
                    .expect("a snapshot");
                assert_eq!(found, ["a0008"], "{by}, {alias}, changes: {changes}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_13_a_deleted_contact_that_an_index_still_shows_stays_gone_until_it_is_restored() {
    let scene = Scene::built(
        Manners {
            changes_indexed: true,
            ..plain()
        },
        12,
    )
    .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.edit("a0004");
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.ring(Kind::Changes).await;
    scene.until_quiet().await;
    let late = Late {
        index: Duration::from_secs(5),
        ..Late::default()
    };
    assert!(scene.site().crm.lock().delete("a0004", scene.now(), late));
    scene.hook(&["a0004"]).await;
    scene.until_quiet().await;
    assert!(!scene.snapshot().await.contains_key("a0004"));
    // The index shows it for another five seconds.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let shown = |scene: &Scene| {
        let crm = scene.site().crm.lock();
        crm.records["a0004"]
            .seen(scene.now(), true)
            .is_some_and(|version| version.content == 2)
    };
    assert!(shown(&scene));
    scene.ring(Kind::Changes).await;
    scene.until_quiet().await;
    assert!(shown(&scene) && !scene.snapshot().await.contains_key("a0004"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(scene.site().crm.lock().restore("a0004", scene.now(), Late::default()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.ring(Kind::Changes).await;
    scene.until_quiet().await;
    assert_eq!(scene.snapshot().await, scene.truth());
}

#[tokio::test(start_paused = true)]
async fn tombstones_are_swept_by_the_full_pass_once_they_are_old() {
    let scene = Scene::built(plain(), 12).await;
    assert!(scene.site().crm.lock().delete("a0004", scene.now(), Late::default()));
    scene.hook(&["a0004"]).await;
    scene.until_quiet().await;
    let account = &scene.tenant().account.id;
    let ids = ["a0004".to_owned()];
    let known = async || {
        scene
            .store
            .known(account, Stream::Contacts, &ids)
            .await
            .expect("a snapshot")[0]
            .clone()
    };
    assert!(
        known()
            .await
            .is_some_and(|known| known.is_tombstone() && known.observed > Micros::ZERO)
    );
    tokio::time::sleep(scene.policy.tombstones + Duration::from_secs(1)).await;
    scene.ring(Kind::Full).await;
    scene.until_quiet().await;
    assert_eq!(known().await, None);
}

#[tokio::test(start_paused = true)]
async fn invariant_13_what_is_no_longer_wanted_leaves_and_a_filter_changed_by_mistake_meets_the_brake() {
    for (get_many, ids_list) in [(3, false), (0, true)] {
        let scene = Scene::built(
            Manners {
                get_many,
                ids_list,
                ..plain()
            },
            30,
        )
        .await;
        let wants_not = |numbers: std::ops::Range<u32>| {
            let ids = numbers.map(|number| format!("a{number:04}"));
            scene.site().crm.lock().unwanted = ids.collect();
        };
        let living = || async { scene.head().await.map_or(0, |head| head.count) };
        wants_not(0..3);
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(living().await, 27);
        wants_not(0..0);
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(
            scene.snapshot().await,
            scene.truth(),
            "what is wanted again is there again"
        );

        // A row says itself that it is not wanted; only where rows can be fetched one by one there is a second look.
        let braked = get_many > 0;
        wants_not(0..30);
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(living().await, if braked { 30 } else { 0 });
        scene.ring(Kind::Full).await;
        scene.until_quiet().await;
        assert_eq!(living().await, 0, "a second pass agrees");
    }
}
