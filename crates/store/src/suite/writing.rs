//! Snapshots: opening, committing, the verdicts.

use std::sync::Arc;

use contacts::ports::{Commit, HeadChange, StoreErrorKind};
use contacts::record::Known;
use contacts::{Fence, Generation, Micros, Position, Store, StoreError, Stream};

use super::{EVERYTHING, Opened, any_account, now, removal, row, wait_until};

fn kind<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> StoreErrorKind {
    answer.expect_err("must be refused").kind
}

pub(super) async fn without_a_snapshot_nothing_is_read_or_written(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let (account, stream, ids) = (any_account(), Stream::Contacts, ["1".to_owned()]);
    let commit = Commit {
        fence: Fence(9),
        generation: Generation(7),
        now: now(),
        rows: vec![row("1", 1, 1, "a")],
        removals: vec![],
        head: HeadChange::default(),
    };
    assert_eq!(
        kind(store.commit(&account, stream, &commit).await),
        StoreErrorKind::NoSnapshot
    );
    assert_eq!(
        kind(store.page(&account, stream, &EVERYTHING).await),
        StoreErrorKind::NoSnapshot
    );
    assert_eq!(store.head(&account, stream).await.unwrap(), None);
    assert_eq!(store.known(&account, stream, &ids).await.unwrap(), [None]);
    assert_eq!(store.bodies(&account, stream, &ids).await.unwrap(), [None]);
    assert!(store.find(&account, stream, 1).await.unwrap().is_empty());
    assert_eq!(
        store.unseen(&account, stream, Micros(9), "", 9).await.unwrap(),
        (vec![], None)
    );
    assert_eq!(store.sweep_tombstones(&account, stream, Micros(9), 9).await.unwrap(), 0);
    store.drop_snapshot(&account, stream).await.unwrap();
}

pub(super) async fn opening_creates_once_and_raises_the_fence(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let (account, stream) = (any_account(), Stream::Contacts);
    let high = Generation(u64::MAX);
    let head = store.open(&account, stream, Fence(5), high).await.unwrap();
    assert_eq!(
        (head.generation, head.fence, head.position),
        (high, Fence(5), Position::START)
    );
    assert_eq!(
        (head.ready, head.count, head.watermark, head.fresh),
        (false, 0, Micros::ZERO, Micros::ZERO)
    );
    assert!(head.progress.is_empty());
    assert_eq!(store.head(&account, stream).await.unwrap(), Some(head));
    assert_eq!(
        kind(store.open(&account, stream, Fence(4), Generation(2)).await),
        StoreErrorKind::Fenced
    );
    for fence in [5, 6, (1 << 53) + 1, u64::MAX - 1] {
        let head = store.open(&account, stream, Fence(fence), Generation(2)).await.unwrap();
        assert_eq!((head.generation, head.fence), (high, Fence(fence)));
    }
    assert_eq!(
        kind(store.open(&account, stream, Fence(1 << 53), Generation(2)).await),
        StoreErrorKind::Fenced
    );
    assert_eq!(
        store.head(&account, stream).await.unwrap().unwrap().fence,
        Fence(u64::MAX - 1)
    );
}

pub(super) async fn an_old_fence_writes_nothing(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let mut old = Opened::new(make).await;
    old.write(row("1", 1, 1, "a")).await;
    old.store
        .open(&old.account, old.stream, Fence(2), Generation(8))
        .await
        .unwrap();
    let before = old.store.head(&old.account, old.stream).await.unwrap();
    let mut commit = old.commit_of(vec![row("1", 2, 2, "b"), row("2", 1, 1, "c")], vec![removal("1", 3, 3)]);
    commit.head = HeadChange {
        ready: Some(true),
        watermark: Some(Micros(9)),
        ..HeadChange::default()
    };
    assert_eq!(
        kind(old.store.commit(&old.account, old.stream, &commit).await),
        StoreErrorKind::Fenced
    );
    assert_eq!(old.store.head(&old.account, old.stream).await.unwrap(), before);
    assert_eq!(old.ids(&EVERYTHING).await, ["1"]);
    // The holder writes, and a newer one that has not opened yet does so too and raises the fence.
    old.fence = Fence(2);
    assert_eq!(old.write(row("1", 2, 2, "b")).await, (1, 0, 0));
    old.fence = Fence(3);
    assert_eq!(old.write(row("1", 3, 3, "c")).await, (1, 0, 0));
    old.fence = Fence(2);
    let commit = old.commit_of(vec![row("1", 4, 4, "d")], vec![]);
    assert_eq!(
        kind(old.store.commit(&old.account, old.stream, &commit).await),
        StoreErrorKind::Fenced
    );
}

pub(super) async fn new_changed_same_and_stale_rows(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    assert_eq!(at.write(row("1", 10, 100, "a")).await, (1, 0, 0));
    let first = at.known("1").await.unwrap();
    assert_eq!((first.updated, first.observed), (Micros(10), Micros(100)));
    assert!(first.position > Position::START);

    // The same content keeps its position and takes the newer times.
    assert_eq!(at.write(row("1", 10, 101, "a")).await, (0, 1, 0));
    assert_eq!(at.write(row("1", 12, 102, "a")).await, (0, 1, 0));
    let same = at.known("1").await.unwrap();
    assert_eq!(
        same,
        Known {
            updated: Micros(12),
            observed: Micros(102),
            ..first.clone()
        }
    );
    // Also a newer CRM time that was asked for earlier.
    assert_eq!(at.write(row("1", 13, 50, "a")).await, (0, 1, 0));
    assert_eq!(at.known("1").await.unwrap().observed, Micros(50));

    // Late rows: an older version, and the same version asked for earlier or at the same time.
    for late in [
        row("1", 9, 999, "b"),
        row("1", 13, 49, "b"),
        row("1", 13, 50, "b"),
        row("1", 13, 50, "a"),
    ] {
        assert_eq!(at.write(late).await, (0, 0, 1));
    }
    assert_eq!(at.known("1").await.unwrap().position, first.position);
    assert_eq!(at.count().await, 1);

    // A second edit within the same tick of the CRM's clock.
    assert_eq!(at.write(row("1", 13, 51, "b")).await, (1, 0, 0));
    let changed = at.known("1").await.unwrap();
    assert!(changed.position > first.position);
    assert_ne!(changed.hash, first.hash);
    let page = at.page(&EVERYTHING).await;
    assert_eq!(page.bodies, [row("1", 0, 0, "b").body]);
    assert_eq!(page.last, Some(changed.position));
    assert_eq!(at.count().await, 1);
    assert_eq!(at.known("2").await, None);
}

pub(super) async fn rows_of_one_commit_are_placed_in_their_order(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let done = at
        .commit(
            vec![row("b", 1, 1, "x"), row("a", 2, 1, "x"), row("c", 2, 1, "x")],
            vec![],
        )
        .await;
    assert_eq!((done.written, done.same, done.stale, done.removed), (3, 0, 0, 0));
    assert_eq!(at.ids(&EVERYTHING).await, ["b", "a", "c"]);
    let positions =
        [at.known("b").await, at.known("a").await, at.known("c").await].map(|known| known.unwrap().position);
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(done.position, positions[2]);
    // One id several times in one commit: each is judged by what the one before left.
    let rows = vec![
        row("a", 3, 2, "y"),
        row("d", 1, 1, "x"),
        row("a", 3, 3, "y"),
        row("a", 4, 4, "z"),
        row("a", 1, 1, "w"),
    ];
    let done = at.commit(rows, vec![]).await;
    assert_eq!((done.written, done.same, done.stale), (3, 1, 1));
    assert_eq!(at.ids(&EVERYTHING).await, ["b", "c", "d", "a"]);
    assert_eq!(at.count().await, 4);
    // Without news the position stands.
    let quiet = at.commit(vec![row("a", 4, 5, "z")], vec![]).await;
    assert_eq!(quiet.position, done.position);
    // Rows come before removals.
    let done = at
        .commit(vec![row("e", 1, 1, "x")], vec![removal("e", 0, 2), removal("b", 0, 2)])
        .await;
    assert_eq!((done.written, done.removed), (1, 2));
    assert_eq!(at.ids(&EVERYTHING).await, ["c", "d", "a"]);
    assert_eq!(
        at.store.head(&at.account, at.stream).await.unwrap().unwrap().position,
        done.position
    );
}

pub(super) async fn numbers_of_64_bits_are_compared_exactly(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    // Neighbours that a floating point number cannot tell apart, and digits that a locale might sort otherwise.
    let big = (1 << 53) + 0xaa_aa00;
    assert_eq!(at.write(row("1", big, big, "a")).await, (1, 0, 0));
    assert_eq!(at.write(row("1", big, big + 1, "b")).await, (1, 0, 0));
    assert_eq!(at.write(row("1", big, big, "c")).await, (0, 0, 1));
    assert_eq!(at.write(row("1", big + 1, 0, "d")).await, (1, 0, 0));
    assert_eq!(at.write(row("1", big, big + 9, "e")).await, (0, 0, 1));
    assert_eq!(at.commit(vec![], vec![removal("1", big + 1, 0)]).await.removed, 0);
    assert_eq!(at.commit(vec![], vec![removal("1", big + 1, 1)]).await.removed, 1);
    let mut hashed = row("2", 1, 1, "x");
    hashed.hash = u64::MAX;
    hashed.keys = vec![0, u64::MAX, 1 << 63];
    assert_eq!(at.write(hashed.clone()).await, (1, 0, 0));
    let known = at.known("2").await.unwrap();
    assert_eq!(
        (known.hash, known.keys.as_slice()),
        (u64::MAX, [0, u64::MAX, 1 << 63].as_slice())
    );
    for key in hashed.keys {
        assert_eq!(at.store.find(&at.account, at.stream, key).await.unwrap(), ["2"]);
    }
    hashed = row("2", 1, 2, "x");
    hashed.hash = u64::MAX - 1;
    assert_eq!(at.write(hashed).await, (1, 0, 0));
}

pub(super) async fn removals_need_proof(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let remove = async |removal| {
        let done = at.commit(vec![], vec![removal]).await;
        (done.removed, done.stale)
    };
    at.commit(["1", "2", "3"].map(|id| row(id, 10, 100, "a")).into(), vec![])
        .await;
    // Absence counts if it was asked for after the record was last seen.
    assert_eq!(remove(removal("1", 0, 100)).await, (0, 1));
    assert_eq!(remove(removal("1", 0, 101)).await, (1, 0));
    // A deletion with a CRM time is a version like any other.
    assert_eq!(remove(removal("2", 9, 999)).await, (0, 1));
    assert_eq!(remove(removal("2", 10, 100)).await, (0, 1));
    assert_eq!(remove(removal("2", 11, 5)).await, (1, 0));
    assert_eq!(at.ids(&EVERYTHING).await, ["3"]);
    assert_eq!(at.count().await, 1);
    let stone = at.known("1").await.unwrap();
    let expected = Known {
        position: Position::START,
        updated: Micros(10),
        observed: Micros(101),
        hash: 0,
        keys: vec![],
    };
    assert_eq!(stone, expected);
    let stone = at.known("2").await.unwrap();
    assert_eq!(
        (stone.updated, stone.observed),
        (Micros(11), Micros(100)),
        "the newer of both times"
    );
    // A removal of what is removed only renews the tombstone; of what was never seen it leaves one.
    assert_eq!(remove(removal("1", 3, 101)).await, (0, 1));
    assert_eq!(remove(removal("1", 3, 200)).await, (0, 0));
    let stone = at.known("1").await.unwrap();
    assert_eq!((stone.updated, stone.observed), (Micros(10), Micros(200)));
    assert_eq!(remove(removal("new", 7, 50)).await, (0, 0));
    assert!(at.known("new").await.unwrap().is_tombstone());
    assert_eq!(at.write(row("new", 9, 50, "a")).await, (0, 0, 1));
    assert_eq!(at.count().await, 1);
}

pub(super) async fn an_older_observation_revives_nobody(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let mut first = row("1", 10, 100, "a");
    first.keys = vec![77];
    at.write(first).await;
    at.commit(vec![], vec![removal("1", 20, 200)]).await;
    let before = at.store.head(&at.account, at.stream).await.unwrap().unwrap().position;
    // Asked for before the deletion was known, however new the row claims to be.
    for old in [row("1", 10, 100, "a"), row("1", 99, 200, "b"), row("1", 99, 1, "b")] {
        assert_eq!(at.write(old).await, (0, 0, 1));
    }
    // Read through an index that may lag: only a version newer than the deletion counts.
    let mut lagging = row("1", 20, 300, "b");
    lagging.indexed = true;
    assert_eq!(at.write(lagging.clone()).await, (0, 0, 1));
    lagging.updated = Micros(21);
    assert_eq!(at.write(lagging).await, (1, 0, 0));
    assert_eq!(at.ids(&EVERYTHING).await, ["1"]);
    // Read directly after the deletion: it is there again, even with its old version, at a new place.
    at.commit(vec![], vec![removal("1", 0, 400)]).await;
    assert_eq!(at.write(row("1", 10, 401, "a")).await, (1, 0, 0));
    let revived = at.known("1").await.unwrap();
    assert!(revived.position > before);
    assert!(revived.keys.is_empty());
    assert!(at.store.find(&at.account, at.stream, 77).await.unwrap().is_empty());
    assert_eq!(at.count().await, 1);
    assert_eq!(
        at.store
            .sweep_tombstones(&at.account, at.stream, Micros(u64::MAX), 10)
            .await
            .unwrap(),
        0
    );
}

pub(super) async fn tombstones_are_swept_when_they_are_old(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let sweep = async |before, limit| {
        at.store
            .sweep_tombstones(&at.account, at.stream, Micros(before), limit)
            .await
            .unwrap()
    };
    let rows = ["1", "2", "3", "4"].map(|id| row(id, 1, 1, "a"));
    at.commit(rows.into(), vec![]).await;
    at.commit(
        vec![],
        vec![removal("3", 0, 30), removal("1", 0, 10), removal("2", 0, 20)],
    )
    .await;
    assert_eq!(sweep(10, 10).await, 0);
    assert_eq!(sweep(31, 1).await, 1);
    assert_eq!(at.known("1").await, None, "the oldest goes first");
    // One that was renewed counts from then.
    at.commit(vec![], vec![removal("2", 0, 50)]).await;
    assert_eq!(sweep(31, 10).await, 1);
    assert!(at.known("2").await.is_some() && at.known("3").await.is_none());
    assert_eq!(sweep(u64::MAX, 0).await, 0);
    assert_eq!(sweep(u64::MAX, 10).await, 1);
    assert_eq!(sweep(u64::MAX, 10).await, 0);
    assert_eq!(at.ids(&EVERYTHING).await, ["4"]);
    assert_eq!(at.write(row("1", 1, 1, "a")).await, (1, 0, 0));
    let many: Vec<_> = (0..1200).map(|n| removal(&format!("gone{n}"), 0, 60)).collect();
    for piece in many.chunks(100) {
        at.commit(vec![], piece.to_vec()).await;
    }
    assert_eq!(sweep(61, 1100).await, 1100);
    assert_eq!(sweep(61, 1100).await, 100);
    assert_eq!(at.count().await, 2);
}

pub(super) async fn the_head_moves_with_the_commit(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let before = now();
    let mut commit = at.commit_of(vec![row("1", 1, 1, "a")], vec![]);
    commit.head = HeadChange {
        ready: Some(true),
        watermark: Some(Micros(123)),
        progress: Some(b"\0{\"page\":7}\xff".to_vec()),
        fresh: Some(Micros(u64::from(u32::MAX) * 1000)),
    };
    let done = at.store.commit(&at.account, at.stream, &commit).await.unwrap();
    let head = at.store.head(&at.account, at.stream).await.unwrap().unwrap();
    assert_eq!((head.ready, head.watermark, head.count), (true, Micros(123), 1));
    assert_eq!(
        (head.progress.as_slice(), head.fresh.0),
        (b"\0{\"page\":7}\xff".as_slice(), u64::from(u32::MAX) * 1000)
    );
    assert_eq!(
        (head.position, head.generation, head.fence),
        (done.position, Generation(7), Fence(1))
    );
    // A minute either way: the store may have a clock of its own.
    let minute = std::time::Duration::from_secs(60);
    assert!(head.committed > before.minus(minute) && head.committed < now().plus(minute));
    assert!(
        head.position.0 > before.minus(minute).0 && head.position.0 < now().plus(minute).0,
        "shaped like time"
    );

    at.commit(vec![row("2", 1, 1, "b")], vec![]).await;
    let later = at.store.head(&at.account, at.stream).await.unwrap().unwrap();
    assert_eq!(
        (later.ready, later.watermark, &later.progress),
        (true, Micros(123), &head.progress)
    );
    let mut commit = at.commit_of(vec![], vec![]);
    commit.head = HeadChange {
        ready: Some(false),
        progress: Some(vec![]),
        ..HeadChange::default()
    };
    at.store.commit(&at.account, at.stream, &commit).await.unwrap();
    let last = at.store.head(&at.account, at.stream).await.unwrap().unwrap();
    assert_eq!(
        (last.ready, last.progress.len(), last.watermark, last.fresh),
        (false, 0, Micros(123), head.fresh)
    );
    assert_eq!(last.position, later.position);
}

pub(super) async fn a_dropped_snapshot_is_gone_whole(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let mut at = Opened::new(make).await;
    let mut first = row("1", 5, 5, "a");
    first.keys = vec![42];
    at.commit(vec![first, row("2", 5, 5, "b")], vec![removal("3", 0, 9)])
        .await;
    let lost = at.store.head(&at.account, at.stream).await.unwrap().unwrap().position;
    at.store.drop_snapshot(&at.account, at.stream).await.unwrap();
    assert_eq!(at.store.head(&at.account, at.stream).await.unwrap(), None);
    let mut commit = at.commit_of(vec![row("1", 1, 1, "a")], vec![]);
    assert_eq!(
        kind(at.store.commit(&at.account, at.stream, &commit).await),
        StoreErrorKind::NoSnapshot
    );
    assert_eq!(
        kind(at.store.page(&at.account, at.stream, &EVERYTHING).await),
        StoreErrorKind::NoSnapshot
    );

    // A new life: another generation, nothing of before, and positions above all that were given.
    let head = at
        .store
        .open(&at.account, at.stream, Fence(1), Generation(8))
        .await
        .unwrap();
    assert_eq!((head.generation, head.count, head.ready), (Generation(8), 0, false));
    assert_eq!(at.known("1").await, None);
    assert_eq!(at.known("3").await, None);
    assert!(at.store.find(&at.account, at.stream, 42).await.unwrap().is_empty());
    assert!(at.ids(&EVERYTHING).await.is_empty());
    // Who opened it in its former life writes nothing, however late his fence.
    commit.fence = Fence(9);
    assert_eq!(
        kind(at.store.commit(&at.account, at.stream, &commit).await),
        StoreErrorKind::Fenced
    );
    assert_eq!(at.store.head(&at.account, at.stream).await.unwrap(), Some(head));
    assert!(at.ids(&EVERYTHING).await.is_empty());
    at.generation = Generation(8);
    wait_until("the clock goes on", async || now().0 > lost.0).await;
    let done = at.commit(vec![row("1", 1, 1, "a")], vec![]).await;
    assert_eq!(done.written, 1);
    assert!(done.position > lost);
}

pub(super) async fn streams_and_accounts_keep_apart(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let one = Opened::on(Arc::clone(&store)).await;
    let mut agents = Opened::on(Arc::clone(&store)).await;
    agents.account = one.account.clone();
    agents.stream = Stream::Agents;
    agents.generation = Generation(3);
    let other = Opened::on(Arc::clone(&store)).await;
    assert_eq!(store.head(&one.account, Stream::Agents).await.unwrap(), None);
    store
        .open(&agents.account, agents.stream, Fence(1), Generation(3))
        .await
        .unwrap();
    for (at, text) in [(&one, "one"), (&agents, "agents"), (&other, "other")] {
        let mut row = row("1", 1, 1, text);
        row.keys = vec![5];
        assert_eq!(at.write(row).await, (1, 0, 0));
    }
    one.commit(vec![], vec![removal("1", 0, 9)]).await;
    assert_eq!(
        (one.count().await, agents.count().await, other.count().await),
        (0, 1, 1)
    );
    assert!(store.find(&one.account, one.stream, 5).await.unwrap().is_empty());
    assert_eq!(store.find(&agents.account, agents.stream, 5).await.unwrap(), ["1"]);
    store.drop_snapshot(&agents.account, agents.stream).await.unwrap();
    assert!(store.head(&one.account, one.stream).await.unwrap().is_some());
    assert_eq!(other.page(&EVERYTHING).await.bodies, [row("1", 1, 1, "other").body]);
}

pub(super) async fn a_full_commit_of_a_hundred_rows(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let rows = |updated, text: &str| -> Vec<_> {
        let text = text.repeat(500);
        let with_keys = |n: u64| {
            let mut row = row(&format!("contact-{n}"), updated, 1, &text);
            row.keys = (0..6).map(|key| n * 10 + key).collect();
            row
        };
        (0..100).map(with_keys).collect()
    };
    assert_eq!(at.commit(rows(1, "a"), vec![]).await.written, 100);
    assert_eq!(at.commit(rows(2, "a"), vec![]).await.same, 100);
    assert_eq!(at.commit(rows(3, "b"), vec![]).await.written, 100);
    assert_eq!(at.commit(rows(2, "a"), vec![]).await.stale, 100);
    assert_eq!(at.count().await, 100);
    assert_eq!(at.page(&EVERYTHING).await.bodies.len(), 100);
    assert_eq!(
        at.store.find(&at.account, at.stream, 995).await.unwrap(),
        ["contact-99"]
    );
    let all = (0..100).map(|n| removal(&format!("contact-{n}"), 0, 2)).collect();
    assert_eq!(at.commit(vec![], all).await.removed, 100);
    assert_eq!(at.count().await, 0);
    let page = at.page(&EVERYTHING).await;
    assert_eq!((page.bodies.len(), page.last, page.more), (0, None, false));
}
