//! Dirty ids and scratch values.

use std::sync::Arc;
use std::time::Duration;

use contacts::Store;
use contacts::ports::{DirtyId, Marked};

use super::{any_account, now, wait_until};

fn ids(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) async fn a_mark_made_during_a_fetch_outlives_it(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    assert!(store.dirty(&account, 10).await.unwrap().is_empty());
    assert_eq!(store.clear(&account, &[]).await.unwrap(), 0);
    let marked = store
        .mark(&account, &ids(&["a", "b", "c", "ü \"'"]), now(), 10)
        .await
        .unwrap();
    assert_eq!(
        marked,
        Marked {
            waiting: 4,
            overflow: false
        }
    );

    let fetched = store.dirty(&account, 3).await.unwrap();
    assert_eq!(
        fetched.iter().map(|dirty| dirty.id.as_str()).collect::<Vec<_>>(),
        ["a", "b", "c"],
        "oldest first"
    );
    assert!(fetched.is_sorted_by(|a, b| a.mark < b.mark));
    let marked = store.mark(&account, &ids(&["b"]), now(), 10).await.unwrap();
    assert_eq!(
        marked,
        Marked {
            waiting: 4,
            overflow: false
        }
    );
    assert_eq!(store.clear(&account, &fetched).await.unwrap(), 2);
    let left = store.dirty(&account, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|dirty| dirty.id.as_str()).collect::<Vec<_>>(),
        ["ü \"'", "b"]
    );
    assert!(left[1].mark > fetched[1].mark);
    assert_eq!(store.clear(&account, &left).await.unwrap(), 0);

    // A number is not used again once its id was cleared: the old one must not clear the new mark.
    store.mark(&account, &ids(&["b"]), now(), 10).await.unwrap();
    assert_eq!(store.clear(&account, &left).await.unwrap(), 1);
    assert_eq!(
        store
            .clear(
                &account,
                &[DirtyId {
                    id: "unknown".into(),
                    mark: 1
                }]
            )
            .await
            .unwrap(),
        1
    );
    assert!(store.dirty(&any_account(), 10).await.unwrap().is_empty());
}

pub(super) async fn a_full_dirty_set_says_so(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    let many: Vec<String> = (0..700).map(|n| format!("id{n}")).collect();
    let marked = store.mark(&account, &many, now(), 650).await.unwrap();
    assert_eq!(
        marked,
        Marked {
            waiting: 650,
            overflow: true
        }
    );
    // What waits already fits.
    let marked = store.mark(&account, &many[..650], now(), 650).await.unwrap();
    assert_eq!(
        marked,
        Marked {
            waiting: 650,
            overflow: false
        }
    );
    let dirty = store.dirty(&account, usize::MAX).await.unwrap();
    assert_eq!(dirty.len(), 650);
    assert_eq!(store.dirty(&account, 7).await.unwrap(), dirty[..7]);
    assert_eq!(store.clear(&account, &dirty).await.unwrap(), 0);
    let marked = store.mark(&account, &many, now(), 0).await.unwrap();
    assert_eq!(
        marked,
        Marked {
            waiting: 0,
            overflow: true
        }
    );
}

pub(super) async fn scratch_values_expire(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let long = Duration::from_secs(600);
    assert_eq!(store.get("k", now()).await.unwrap(), None);
    store.put("k", b"\0one\xff", long, now()).await.unwrap();
    assert_eq!(store.get("k", now()).await.unwrap().unwrap(), b"\0one\xff");
    store.put("k", b"", long, now()).await.unwrap();
    assert_eq!(store.get("k", now()).await.unwrap().unwrap(), b"");
    store
        .put("k", b"short", Duration::from_millis(40), now())
        .await
        .unwrap();
    wait_until("a value expires", async || {
        store.get("k", now()).await.unwrap().is_none()
    })
    .await;
    let several = ["a", "odd {b}: ü", "c"].map(str::to_owned);
    assert_eq!(store.there(&several, now()).await.unwrap(), [false; 3]);
    assert!(store.there(&[], now()).await.unwrap().is_empty());
    store.put_all(&[], b"v", long, now()).await.unwrap();
    store.put_all(&several[1..], b"v", long, now()).await.unwrap();
    assert_eq!(store.there(&several, now()).await.unwrap(), [false, true, true]);
    assert_eq!(store.get(&several[1], now()).await.unwrap().unwrap(), b"v");
    let short = Duration::from_millis(40);
    store.put_all(&several[..1], b"v", short, now()).await.unwrap();
    wait_until("one of several expires", async || {
        store.there(&several, now()).await.unwrap() == [false, true, true]
    })
    .await;
    store.put("odd {key}: ü", b"v", long, now()).await.unwrap();
    store.delete("odd {key}: ü").await.unwrap();
    store.delete("never there").await.unwrap();
    assert_eq!(store.get("odd {key}: ü", now()).await.unwrap(), None);
}

pub(super) async fn a_claim_is_given_once(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let long = Duration::from_secs(600);
    let claims = (0..8).map(|n: u8| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.claim("once", &[n], long, now()).await.unwrap() })
    });
    let mut given = 0;
    for claim in claims.collect::<Vec<_>>() {
        given += u32::from(claim.await.unwrap());
    }
    assert_eq!(given, 1);
    assert!(store.get("once", now()).await.unwrap().is_some());
    store.delete("once").await.unwrap();
    assert!(
        store
            .claim("once", b"again", Duration::from_millis(40), now())
            .await
            .unwrap()
    );
    wait_until("a claim expires", async || {
        store.claim("once", b"later", long, now()).await.unwrap()
    })
    .await;
    assert_eq!(store.get("once", now()).await.unwrap().unwrap(), b"later");
}
