//! Inboxes: documents of the domain, but what is promised of them hangs on the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use contacts::inbox::{self, Appended, Fill, Item, Settled, Urgency};
use contacts::keys::{Keys, SealError};
use contacts::ports::{DocKey, DocKind};
use contacts::{AccountId, Micros, Store};

use super::any_account;

fn keys(seed: u8) -> Keys {
    let raw = |byte: u8| Box::new([byte; 32]).into();
    Keys::new(&raw(1), &[("k".into(), raw(seed))]).expect("legal keys")
}

async fn put(store: &Arc<dyn Store>, account: &AccountId, key: &str, payload: &str, at: u64) -> Appended {
    put_as(Urgency::News, store, account, (key, payload), at).await
}

async fn put_as(
    urgency: Urgency,
    store: &Arc<dyn Store>,
    account: &AccountId,
    (key, payload): (&str, &str),
    at: u64,
) -> Appended {
    let given = (key, payload.as_bytes(), urgency);
    inbox::append(&**store, &keys(2), account, given, 1_000, Micros(at))
        .await
        .unwrap()
}

async fn peek(store: &Arc<dyn Store>, account: &AccountId, limit: usize, now: u64) -> Vec<Item> {
    inbox::peek(&**store, &keys(2), account, limit, Micros(now))
        .await
        .unwrap()
}

fn texts(items: &[Item]) -> Vec<String> {
    let text = |item: &Item| String::from_utf8(item.payload.clone().unwrap().0).unwrap();
    items.iter().map(text).collect()
}

pub(super) async fn what_was_taken_is_handed_out_once_it_is_due_and_oldest_first(
    make: &impl AsyncFn() -> Arc<dyn Store>,
) {
    let store = make().await;
    let (mine, other) = (any_account(), any_account());
    assert_eq!(inbox::fill(&*store, &mine).await.unwrap(), Fill::default());
    for at in (1..=40).rev() {
        assert_eq!(
            put(&store, &mine, &format!("k{at}"), &format!("{at}"), at).await,
            Appended::New
        );
    }
    put(&store, &other, "k1", "others", 1).await;
    let items = peek(&store, &mine, 3, 100).await;
    assert_eq!(texts(&items), ["1", "2", "3"]);
    assert_eq!(peek(&store, &mine, 100, 20).await.len(), 20, "later ones are not due");

    let settled = [
        (items[0].ticket.clone(), Settled::Gone),
        (
            items[1].ticket.clone(),
            Settled::Later {
                at: Micros(500),
                failed: true,
            },
        ),
        (
            items[2].ticket.clone(),
            Settled::Later {
                at: Micros(600),
                failed: false,
            },
        ),
    ];
    inbox::settle(&*store, &mine, &settled).await.unwrap();
    assert_eq!(texts(&peek(&store, &mine, 2, 100).await), ["4", "5"]);
    let later = peek(&store, &mine, 2, 600).await;
    assert_eq!(texts(&later), ["2", "3"]);
    assert_eq!(later.iter().map(|item| item.failed).collect::<Vec<_>>(), [1, 0]);

    let fill = inbox::fill(&*store, &mine).await.unwrap();
    assert_eq!(
        (fill.waiting, fill.oldest, fill.due),
        (39, Some(Micros(2)), Some(Micros(4)))
    );
    assert_eq!(texts(&peek(&store, &other, 9, 100).await), ["others"]);
    let due = inbox::due(&*store, Micros(100), 100).await.unwrap();
    assert_eq!(due.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&mine, &other]));
    assert_eq!(due.len(), 2, "each once");
}

pub(super) async fn sixteen_senders_lose_nothing_and_double_nothing(make: &impl AsyncFn() -> Arc<dyn Store>) {
    const SENDERS: u64 = 16;
    const EACH: u64 = 20;
    let store = make().await;
    let account = any_account();
    let sending = (0..SENDERS).map(|sender| {
        let (store, account) = (store.clone(), account.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                // Each payload is sent twice, by two senders that may meet.
                let of = (sender / 2 * EACH + n).to_string();
                put(&store, &account, &of, &of, n + 1).await;
            }
        })
    });
    // A worker empties the inbox meanwhile.
    let working = {
        let (store, account) = (store.clone(), account.clone());
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            for _ in 0..20 {
                let items = peek(&store, &account, 10, 1_000).await;
                let gone: Vec<_> = items.iter().map(|item| (item.ticket.clone(), Settled::Gone)).collect();
                seen.extend(texts(&items));
                inbox::settle(&*store, &account, &gone).await.unwrap();
            }
            seen
        })
    };
    for sender in sending.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let mut seen = working.await.unwrap();
    let left = peek(&store, &account, 10_000, 1_000).await;
    let waiting: BTreeSet<String> = texts(&left).into_iter().collect();
    assert_eq!(waiting.len(), left.len(), "nothing waits twice");
    seen.extend(waiting);
    let all: BTreeSet<String> = (0..SENDERS / 2 * EACH).map(|n| n.to_string()).collect();
    assert_eq!(seen, all);
}

pub(super) async fn news_go_ahead_of_what_was_looked_up(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    let put = |urgency, key: &'static str, payload: &'static str, at| {
        let (store, account) = (&store, &account);
        async move { put_as(urgency, store, account, (key, payload), at).await }
    };
    for (at, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        assert_eq!(put(Urgency::Bulk, key, key, at as u64 + 1).await, Appended::New);
    }
    put(Urgency::News, "e", "e", 9).await;
    // Told of while it waits, with the same words and with others; and looked up while news of it wait.
    assert_eq!(put(Urgency::News, "d", "d", 10).await, Appended::Waiting);
    assert_eq!(put(Urgency::News, "c", "C", 10).await, Appended::Replaced);
    assert_eq!(put(Urgency::Bulk, "e", "E", 11).await, Appended::Replaced);
    assert_eq!(put(Urgency::Bulk, "d", "d", 11).await, Appended::Waiting);
    let items = peek(&store, &account, 100, 100).await;
    assert_eq!(texts(&items), ["C", "d", "E", "a", "b"]);
    let bulk = |item: &Item| item.urgency == Urgency::Bulk;
    assert_eq!(
        items.iter().map(bulk).collect::<Vec<_>>(),
        [false, false, false, true, true]
    );
    // What was put off is as urgent as before.
    let off = |item: &Item| {
        (
            item.ticket.clone(),
            Settled::Later {
                at: Micros(50),
                failed: true,
            },
        )
    };
    inbox::settle(&*store, &account, &items.iter().map(off).collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(peek(&store, &account, 100, 49).await.is_empty());
    assert_eq!(texts(&peek(&store, &account, 100, 50).await), ["C", "d", "E", "a", "b"]);
}

pub(super) async fn a_full_inbox_takes_nothing_and_loses_nothing(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    let limit = 2 * usize::from(inbox::DRAWERS);
    let mut taken = BTreeSet::new();
    for n in 0..1_000u64 {
        let key = n.to_string();
        let given = (key.as_str(), key.as_bytes(), Urgency::News);
        let appended = inbox::append(&*store, &keys(2), &account, given, limit, Micros(n)).await;
        match appended.unwrap() {
            Appended::New => assert!(taken.insert(key)),
            Appended::Full => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken.len(), limit, "it fills up, and no further");
    let waiting = peek(&store, &account, 10_000, 2_000).await;
    assert_eq!(texts(&waiting).into_iter().collect::<BTreeSet<_>>(), taken);
    // What waits is still known and replaced, and whoever comes again finds the room that was made.
    let first = taken.first().unwrap().clone();
    let again = |payload: &'static [u8]| {
        let (store, account, first) = (&store, &account, &first);
        async move {
            let appended = inbox::append(
                &**store,
                &keys(2),
                account,
                (first, payload, Urgency::News),
                limit,
                Micros(9),
            )
            .await;
            appended.unwrap()
        }
    };
    assert_eq!(again(b"other").await, Appended::Replaced);
    assert_eq!(again(b"other").await, Appended::Waiting);
    let gone: Vec<_> = peek(&store, &account, 10_000, 2_000)
        .await
        .into_iter()
        .map(|item| (item.ticket, Settled::Gone))
        .collect();
    inbox::settle(&*store, &account, &gone).await.unwrap();
    assert_eq!(again(b"other").await, Appended::New);
}

pub(super) async fn what_was_replaced_meanwhile_is_not_settled(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    put(&store, &account, "a", "first", 1).await;
    let in_hand = peek(&store, &account, 1, 10).await.remove(0);
    assert_eq!(put(&store, &account, "a", "first", 2).await, Appended::Waiting);
    assert_eq!(put(&store, &account, "a", "second", 3).await, Appended::Replaced);
    for settled in [
        Settled::Gone,
        Settled::Later {
            at: Micros(99),
            failed: true,
        },
    ] {
        inbox::settle(&*store, &account, &[(in_hand.ticket.clone(), settled)])
            .await
            .unwrap();
        let left = peek(&store, &account, 9, 10).await;
        assert_eq!((texts(&left), left[0].failed), (vec!["second".to_owned()], 0));
    }
    // The same text again, once it was done, is new work, and the first worker's word does not count for it either.
    let second = peek(&store, &account, 1, 10).await.remove(0);
    inbox::settle(&*store, &account, &[(second.ticket, Settled::Gone)])
        .await
        .unwrap();
    assert_eq!(put(&store, &account, "a", "first", 4).await, Appended::New);
    inbox::settle(&*store, &account, &[(in_hand.ticket, Settled::Gone)])
        .await
        .unwrap();
    assert_eq!(texts(&peek(&store, &account, 9, 10).await), ["first"]);
}

pub(super) async fn invariant_12_payloads_lie_sealed_for_their_account_alone(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let (mine, other) = (any_account(), any_account());
    put(&store, &mine, "canary-key", "canary-payload", 1).await;
    let names = store.list(DocKind::Inbox, mine.shard(), None, 10).await.unwrap();
    let name = names.iter().find(|name| name.starts_with(mine.as_str())).unwrap();
    let key = |id: &str, account: &AccountId| DocKey {
        kind: DocKind::Inbox,
        shard: account.shard(),
        id: id.to_owned(),
    };
    let doc = store.load(&key(name, &mine)).await.unwrap().unwrap();
    assert!(!name.contains("canary") && !String::from_utf8_lossy(&doc.body).contains("canary"));

    let moved = name.replace(mine.as_str(), other.as_str());
    assert!(store.swap(&key(&moved, &other), 0, Some(&doc.body), &[]).await.unwrap());
    assert_eq!(peek(&store, &other, 1, 10).await[0].payload, Err(SealError::Forged));
    let rotated = Keys::new(&Box::new([1; 32]).into(), &[("new".into(), Box::new([9; 32]).into())]).unwrap();
    let items = inbox::peek(&*store, &rotated, &mine, 1, Micros(10)).await.unwrap();
    assert_eq!(
        items[0].payload,
        Err(SealError::UnknownKey),
        "it is handed out, so that somebody buries it"
    );
    assert!(!format!("{:?}", peek(&store, &mine, 1, 10).await).contains("canary"));
}

pub(super) async fn a_forgotten_inbox_is_empty_and_due_for_nobody(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    for n in 0..40 {
        put(&store, &account, &n.to_string(), "x", n).await;
    }
    inbox::forget(&*store, &account).await.unwrap();
    assert_eq!(inbox::fill(&*store, &account).await.unwrap(), Fill::default());
    assert!(
        inbox::due(&*store, Micros(u64::MAX >> 1), 100)
            .await
            .unwrap()
            .is_empty()
    );
    let summary = store.index_summary(inbox::INBOX, Micros(u64::MAX >> 1)).await.unwrap();
    assert_eq!((summary.count, summary.oldest), (0, None));
    put(&store, &account, "a", "again", 1).await;
    assert_eq!(texts(&peek(&store, &account, 9, 1).await), ["again"]);
}

/// An older build had fewer drawers, so what waits may lie in another one than its key says now.
pub(super) async fn what_lies_in_another_drawer_is_worked_off(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let account = any_account();
    for n in 0..3 {
        put(&store, &account, &n.to_string(), &n.to_string(), n).await;
    }
    let shard = account.shard();
    let mine = async || -> Vec<String> {
        let names = store.list(DocKind::Inbox, shard, None, 10_000).await.unwrap();
        names
            .into_iter()
            .filter(|name| name.starts_with(account.as_str()))
            .collect()
    };
    let key = |id: &str| DocKey {
        kind: DocKind::Inbox,
        shard,
        id: id.to_owned(),
    };
    let names = mine().await;
    for (n, name) in names.iter().enumerate() {
        let doc = store.load(&key(name)).await.unwrap().unwrap();
        let old = key(&format!("{account}|old{n}"));
        assert!(store.swap(&old, 0, Some(&doc.body), &[]).await.unwrap());
        assert!(store.swap(&key(name), doc.version, None, &[]).await.unwrap());
    }
    assert_eq!(inbox::fill(&*store, &account).await.unwrap().waiting, 3);
    let items = peek(&store, &account, 9, 9).await;
    assert_eq!(texts(&items), ["0", "1", "2"]);
    let later = Settled::Later {
        at: Micros(99),
        failed: true,
    };
    let settled = [
        (items[0].ticket.clone(), Settled::Gone),
        (items[1].ticket.clone(), later),
    ];
    inbox::settle(&*store, &account, &settled).await.unwrap();
    assert_eq!(texts(&peek(&store, &account, 9, 9).await), ["2"]);
    assert_eq!(peek(&store, &account, 9, 99).await[0].failed, 1);
    // What comes now lies where it belongs, and both are found.
    put(&store, &account, "2", "new", 8).await;
    assert_eq!(texts(&peek(&store, &account, 9, 9).await), ["2", "new"]);
    inbox::forget(&*store, &account).await.unwrap();
    assert!(mine().await.is_empty());
}
