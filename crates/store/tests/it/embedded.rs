//! What only the embedded store promises.

use std::sync::Arc;
use std::time::Duration;

use contacts::ports::{
    Commit, Dirty, DocKey, DocKind, Documents, HeadChange, Probe, Scratch, Snapshots, StoreErrorKind,
};
use contacts::{Clock, Fence, Generation, Micros, Store, Stream, SystemClock};
use store::suite::{EVERYTHING, any_account, ids, row, wait_until};
use store::{RedisSettings, SqliteStore, StoreUrl};

async fn open(dir: &std::path::Path) -> SqliteStore {
    SqliteStore::open(dir, Arc::new(SystemClock)).await.unwrap()
}

fn commit(names: &[&str]) -> Commit {
    let rows = names.iter().map(|name| row(name, 1, 1, "a")).collect();
    Commit {
        fence: Fence(1),
        generation: Generation(7),
        now: SystemClock.now(),
        rows,
        removals: vec![],
        head: HeadChange::default(),
    }
}

async fn read(store: &dyn Store, account: &contacts::AccountId) -> Vec<String> {
    ids(&store.page(account, Stream::Contacts, &EVERYTHING).await.unwrap())
}

#[tokio::test]
async fn everything_answered_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let account = any_account();
    let budget = DocKey::by_id(DocKind::Budget, "b");
    let mark;
    {
        let store = open(dir.path()).await;
        store
            .open(&account, Stream::Contacts, Fence(1), Generation(7))
            .await
            .unwrap();
        store
            .commit(&account, Stream::Contacts, &commit(&["1", "2"]))
            .await
            .unwrap();
        assert!(store.swap(&budget, 0, Some(b"budget"), &[]).await.unwrap());
        store.mark(&account, &["9".into()], Micros(5), 10).await.unwrap();
        mark = store.dirty(&account, 1).await.unwrap();
        assert_eq!(store.clear(&account, &mark).await.unwrap(), 0);
        store
            .put("k", b"v", Duration::from_secs(600), SystemClock.now())
            .await
            .unwrap();
    }
    let store = open(dir.path()).await;
    assert_eq!(read(&store, &account).await, ["1", "2"]);
    assert_eq!(store.load(&budget).await.unwrap().unwrap().body, b"budget");
    assert_eq!(store.get("k", SystemClock.now()).await.unwrap().unwrap(), b"v");
    // The number of a mark is not given again, although the set was empty and the clock stands.
    store.mark(&account, &["9".into()], Micros(5), 10).await.unwrap();
    assert!(store.dirty(&account, 1).await.unwrap()[0].mark > mark[0].mark);
    assert!(store.describe().contains("sqlite"));
    store.ping().await.unwrap();
    assert!(store.warnings().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_belongs_to_one_process_and_others_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let account = any_account();
    let missing = SqliteStore::open_read_only(dir.path()).await.err().unwrap();
    assert!(missing.message.contains("does not exist"), "{missing}");
    let store = open(dir.path()).await;
    let second = SqliteStore::open(dir.path(), Arc::new(SystemClock))
        .await
        .err()
        .unwrap();
    assert_eq!(second.kind, StoreErrorKind::Unavailable);
    assert!(second.message.contains("another process"), "{second}");

    store
        .open(&account, Stream::Contacts, Fence(1), Generation(7))
        .await
        .unwrap();
    store.commit(&account, Stream::Contacts, &commit(&["1"])).await.unwrap();
    let looking = SqliteStore::open_read_only(dir.path()).await.unwrap();
    assert_eq!(read(&looking, &account).await, ["1"]);
    store.commit(&account, Stream::Contacts, &commit(&["2"])).await.unwrap();
    assert_eq!(read(&looking, &account).await, ["1", "2"]);
    let refused = looking
        .commit(&account, Stream::Contacts, &commit(&["3"]))
        .await
        .err()
        .unwrap();
    assert!(refused.message.contains("read only"), "{refused}");
    assert!(looking.put("k", b"v", Duration::from_secs(1), Micros(1)).await.is_err());
    drop(store);
    assert_eq!(read(&looking, &account).await, ["1", "2"]);
}

#[tokio::test]
async fn writes_wake_whoever_waits_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let account = any_account();
    let store = open(dir.path()).await;
    let mut changed = store.changed();
    changed.borrow_and_update();
    let waiting = tokio::spawn(async move { changed.changed().await.is_ok() });
    store
        .open(&account, Stream::Contacts, Fence(1), Generation(7))
        .await
        .unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap()
    );
}

#[tokio::test]
async fn what_was_dropped_leaves_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (account, other) = (any_account(), any_account());
    {
        let store = open(dir.path()).await;
        let names: Vec<String> = (0..1300).map(|n| n.to_string()).collect();
        for account in [&account, &other] {
            store
                .open(account, Stream::Contacts, Fence(1), Generation(7))
                .await
                .unwrap();
            for piece in names.chunks(100) {
                let piece: Vec<&str> = piece.iter().map(String::as_str).collect();
                store.commit(account, Stream::Contacts, &commit(&piece)).await.unwrap();
            }
        }
        store.drop_snapshot(&account, Stream::Contacts).await.unwrap();
    }
    // Opening tidies up at once; while running it is done from time to time.
    let store = open(dir.path()).await;
    let rows = || {
        let db = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
        let count = |table| -> i64 {
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                .unwrap()
        };
        (count("body"), count("record"), count("dropped_snapshot"))
    };
    wait_until("the rows of a dropped snapshot are gone", async || {
        rows() == (1300, 1300, 0)
    })
    .await;
    assert_eq!(read(&store, &other).await.len(), 1300);
}

#[tokio::test]
async fn connect_picks_the_backend_by_url() {
    let dir = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("sqlite:{}", dir.path().join("deep/down").display())
        .parse()
        .unwrap();
    let store = store::connect(&url, "unused", RedisSettings::default(), Arc::new(SystemClock))
        .await
        .unwrap();
    assert!(store.describe().starts_with("sqlite in "));
    let url: StoreUrl = "redis://user:hunter2@127.0.0.1:1/0".parse().unwrap();
    let error = store::connect(&url, "ns", RedisSettings::default(), Arc::new(SystemClock))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("hunter2"));
    let error = store::connect(&url, "n:s", RedisSettings::default(), Arc::new(SystemClock))
        .await
        .err()
        .unwrap();
    assert!(error.message.contains("namespace"), "{error}");
}
