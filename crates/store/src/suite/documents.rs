//! Documents and indexes.

use std::sync::Arc;

use contacts::ports::{DocKey, DocKind, IndexChange, IndexSummary};
use contacts::{Micros, Shard, Store};

fn due(index: &str, member: &str, at: Option<u64>) -> IndexChange {
    IndexChange {
        index: index.into(),
        member: member.into(),
        at: at.map(Micros),
    }
}

pub(super) async fn a_document_is_created_replaced_and_deleted_by_version(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    for kind in DocKind::ALL {
        let key = DocKey::by_id(kind, "one");
        assert_eq!(store.load(&key).await.unwrap(), None);
        assert!(store.swap(&key, 0, Some(b"first"), &[]).await.unwrap());
        let doc = store.load(&key).await.unwrap().unwrap();
        assert_eq!((doc.version, doc.body.as_slice()), (1, b"first".as_slice()));
        assert!(store.swap(&key, 1, Some(b"second"), &[]).await.unwrap());
        let doc = store.load(&key).await.unwrap().unwrap();
        assert_eq!((doc.version, doc.body.as_slice()), (2, b"second".as_slice()));
        assert!(store.swap(&key, 2, None, &[]).await.unwrap());
        assert_eq!(store.load(&key).await.unwrap(), None);
        assert!(store.list(kind, key.shard, None, 10).await.unwrap().is_empty());
        assert!(store.swap(&key, 0, Some(b"third"), &[]).await.unwrap());
        assert_eq!(store.load(&key).await.unwrap().unwrap().version, 1);
    }
}

pub(super) async fn a_swap_against_another_version_changes_nothing(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let key = DocKey::by_id(DocKind::Work, "one");
    let change = [due("due", "one", Some(5))];
    assert!(!store.swap(&key, 1, Some(b"x"), &change).await.unwrap());
    assert!(!store.swap(&key, 1, None, &change).await.unwrap());
    assert!(store.swap(&key, 0, Some(b"first"), &[]).await.unwrap());
    for wrong in [0, 2, u64::MAX - 1] {
        assert!(!store.swap(&key, wrong, Some(b"x"), &change).await.unwrap());
        assert!(!store.swap(&key, wrong, None, &change).await.unwrap());
    }
    assert_eq!(store.load(&key).await.unwrap().unwrap().body, b"first");
    assert_eq!(store.index_until("due", Micros(u64::MAX), 10).await.unwrap(), vec![]);
    // Index entries may also change beside an absent document that stays absent.
    let other = DocKey::by_id(DocKind::Work, "two");
    assert!(store.swap(&other, 0, None, &change).await.unwrap());
    assert_eq!(
        store.index_until("due", Micros(5), 10).await.unwrap(),
        vec![("one".into(), Micros(5))]
    );
}

pub(super) async fn sixteen_writers_lose_no_change(make: &impl AsyncFn() -> Arc<dyn Store>) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 25;
    let store = make().await;
    for kind in [DocKind::Work, DocKind::Budget] {
        let key = DocKey::by_id(kind, "counter");
        let tasks = (0..WRITERS).map(|writer| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move {
                for n in 0..EACH {
                    loop {
                        let (version, mut body) = match store.load(&key).await.unwrap() {
                            Some(doc) => (doc.version, doc.body),
                            None => (0, Vec::new()),
                        };
                        body.extend_from_slice(format!("{writer}.{n};").as_bytes());
                        let change = [due("all", &format!("{writer}.{n}"), Some(version))];
                        if store.swap(&key, version, Some(&body), &change).await.unwrap() {
                            break;
                        }
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let doc = store.load(&key).await.unwrap().unwrap();
        assert_eq!(doc.version, WRITERS * EACH);
        let text = String::from_utf8(doc.body).unwrap();
        for writer in 0..WRITERS {
            for n in 0..EACH {
                assert_eq!(
                    text.split(';')
                        .filter(|entry| *entry == format!("{writer}.{n}"))
                        .count(),
                    1
                );
            }
        }
    }
    let entries = store.index_summary("all", Micros(u64::MAX)).await.unwrap();
    assert!(entries.count >= WRITERS * EACH);
}

pub(super) async fn ids_are_listed_in_order_and_in_pieces(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let shard = Shard(9);
    let names = ["b", "a", "B", "é", "a:b", "10", "9", "[x", "(x"];
    for name in names {
        for kind in [DocKind::Account, DocKind::Budget] {
            let key = DocKey {
                kind,
                shard,
                id: name.into(),
            };
            assert!(store.swap(&key, 0, Some(b"x"), &[]).await.unwrap());
        }
    }
    let elsewhere = DocKey {
        kind: DocKind::Account,
        shard: Shard(10),
        id: "c".into(),
    };
    assert!(store.swap(&elsewhere, 0, Some(b"x"), &[]).await.unwrap());
    let mut expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    for kind in [DocKind::Account, DocKind::Budget] {
        let mut listed: Vec<String> = Vec::new();
        loop {
            let piece = store
                .list(kind, shard, listed.last().map(String::as_str), 4)
                .await
                .unwrap();
            assert!(piece.len() <= 4);
            if piece.is_empty() {
                break;
            }
            listed.extend(piece);
        }
        assert_eq!(listed, expected);
    }
    assert!(store.list(DocKind::Work, shard, None, 4).await.unwrap().is_empty());
}

pub(super) async fn an_index_returns_what_is_due_oldest_first(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let key = |shard| DocKey {
        kind: DocKind::Work,
        shard: Shard(shard),
        id: "x".into(),
    };
    let changes = [
        due("look:1", "late", Some(300)),
        due("look:1", "b", Some(100)),
        due("look:1", "a", Some(100)),
        due("look:1", "first", Some(1)),
        due("other", "not this", Some(1)),
    ];
    assert!(store.swap(&key(3), 0, Some(b"x"), &changes).await.unwrap());
    assert!(
        store
            .swap(&key(200), 0, Some(b"x"), &[due("look:1", "far", Some(100))])
            .await
            .unwrap()
    );
    let read = async |until, limit| -> Vec<(String, u64)> {
        let due = store.index_until("look:1", Micros(until), limit).await.unwrap();
        due.into_iter().map(|(member, at)| (member, at.0)).collect()
    };
    let mut all = read(299, 10).await;
    // Only the order within a shard is promised.
    let far = all.iter().position(|(member, _)| member == "far").unwrap();
    assert_eq!(all.remove(far), ("far".into(), 100));
    assert_eq!(all, [("first".into(), 1), ("a".into(), 100), ("b".into(), 100)]);
    assert_eq!(read(299, 1).await.len(), 2, "one of either shard");
    assert_eq!(read(1, 10).await, [("first".into(), 1)]);
    assert_eq!(read(0, 10).await, []);
    // Moved and removed with a later swap.
    let changes = [
        due("look:1", "first", Some(900)),
        due("look:1", "a", None),
        due("look:1", "never there", None),
    ];
    assert!(store.swap(&key(3), 1, Some(b"x"), &changes).await.unwrap());
    assert_eq!(read(100, 10).await.len(), 2);
    assert_eq!(read(1000, 10).await.len(), 4);
    // Deleting the document leaves the index to the changes that come with it.
    assert!(
        store
            .swap(&key(200), 1, None, &[due("look:1", "far", None)])
            .await
            .unwrap()
    );
    assert_eq!(read(100, 10).await, [("b".into(), 100)]);
}

pub(super) async fn an_index_is_summed_up(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    assert_eq!(
        store.index_summary("due", Micros(u64::MAX)).await.unwrap(),
        IndexSummary::default()
    );
    for (n, shard) in [(50, 1), (20, 1), (70, 2), (90, 255)] {
        let key = DocKey {
            kind: DocKind::Work,
            shard: Shard(shard),
            id: n.to_string(),
        };
        assert!(
            store
                .swap(&key, 0, Some(b"x"), &[due("due", &n.to_string(), Some(n))])
                .await
                .unwrap()
        );
    }
    let sum = async |until| {
        let sum = store.index_summary("due", Micros(until)).await.unwrap();
        (sum.count, sum.oldest.map(|at| at.0))
    };
    assert_eq!(sum(19).await, (0, None));
    assert_eq!(sum(20).await, (1, Some(20)));
    assert_eq!(sum(70).await, (3, Some(20)));
    assert_eq!(sum(u64::MAX).await, (4, Some(20)));
    // An index of budgets is the same to whoever reads it.
    let budget = DocKey::by_id(DocKind::Budget, "b");
    assert!(
        store
            .swap(&budget, 0, Some(b"x"), &[due("due", "b", Some(3))])
            .await
            .unwrap()
    );
    assert_eq!(sum(u64::MAX).await, (5, Some(3)));
    assert_eq!(
        store.index_until("due", Micros(3), 10).await.unwrap(),
        vec![("b".into(), Micros(3))]
    );
}

pub(super) async fn documents_hold_any_bytes_under_any_id(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let bodies: [&[u8]; 4] = [b"", b"\0\xff\r\n", &[0x7f; 70_000], "🙂".as_bytes()];
    for (n, body) in bodies.into_iter().enumerate() {
        let id = format!("odd|name {{s000}} ü\n\"{n}'");
        let key = DocKey::by_id(DocKind::Route, id);
        assert!(store.swap(&key, 0, Some(body), &[]).await.unwrap());
        assert_eq!(store.load(&key).await.unwrap().unwrap().body, body);
        assert!(
            store
                .list(DocKind::Route, key.shard, None, 10)
                .await
                .unwrap()
                .contains(&key.id)
        );
    }
}

pub(super) async fn namespaces_do_not_see_each_other(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let (one, other) = (make().await, make().await);
    let key = DocKey::by_id(DocKind::Account, "same");
    assert!(
        one.swap(&key, 0, Some(b"one"), &[due("due", "same", Some(1))])
            .await
            .unwrap()
    );
    assert_eq!(other.load(&key).await.unwrap(), None);
    assert!(
        other
            .list(DocKind::Account, key.shard, None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(other.index_until("due", Micros(9), 10).await.unwrap().is_empty());

    let here = super::Opened::on(one).await;
    here.write(super::row("1", 1, 1, "a")).await;
    assert_eq!(other.head(&here.account, here.stream).await.unwrap(), None);
    here.store
        .mark(&here.account, &["1".into()], super::now(), 10)
        .await
        .unwrap();
    assert!(other.dirty(&here.account, 10).await.unwrap().is_empty());
    assert!(
        here.store
            .claim("k", b"v", std::time::Duration::from_secs(60), super::now())
            .await
            .unwrap()
    );
    assert_eq!(other.get("k", super::now()).await.unwrap(), None);
}
