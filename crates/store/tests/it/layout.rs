//! Layout steps: from nothing, twice, and what is refused.

use std::sync::Arc;

use contacts::ports::{Commit, HeadChange, Snapshots, StoreErrorKind};
use contacts::{AccountId, Clock, Fence, Generation, Position, Stream, SystemClock};
use store::suite::{EVERYTHING, any_account, removal, row};
use store::{RedisStore, SqliteStore, StepState, StoreUrl};

use crate::server::{Shared, patient};

fn states(reports: &[store::StepReport]) -> Vec<StepState> {
    assert!(
        reports
            .iter()
            .zip(1..)
            .all(|(report, number)| report.number == number && !report.name.is_empty())
    );
    reports.iter().map(|report| report.state).collect()
}

#[tokio::test]
async fn sqlite_steps_are_applied_once_and_a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("sqlite:{}", dir.path().display()).parse().unwrap();
    let all = migrations::sqlite::STEPS.len();
    assert_eq!(
        states(&store::migrate(&url, "", true).await.unwrap()),
        vec![StepState::Pending; all]
    );
    assert!(!dir.path().join("store.db").exists(), "a dry run leaves no trace");
    assert_eq!(
        states(&store::migrate(&url, "", false).await.unwrap()),
        vec![StepState::Applied; all]
    );
    assert_eq!(
        states(&store::migrate(&url, "", false).await.unwrap()),
        vec![StepState::Done; all]
    );
    drop(SqliteStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap());
    assert_eq!(
        states(&store::migration_status(&url, "").await.unwrap()),
        vec![StepState::Done; all]
    );

    for file in ["budget.db", "store.db"] {
        let db = rusqlite::Connection::open(dir.path().join(file)).unwrap();
        db.execute(
            "INSERT INTO layout VALUES (?1, 'from_the_future', '')",
            [all as i64 + 1],
        )
        .unwrap();
        let refused = [
            SqliteStore::open(dir.path(), Arc::new(SystemClock))
                .await
                .err()
                .unwrap(),
            SqliteStore::open_read_only(dir.path()).await.err().unwrap(),
            store::migrate(&url, "", false).await.err().unwrap(),
            store::migration_status(&url, "").await.err().unwrap(),
        ];
        for error in refused {
            assert_eq!(error.kind, StoreErrorKind::Unreadable);
            assert!(error.message.contains("is newer than this build knows"), "{error}");
        }
        db.execute("DELETE FROM layout WHERE name = 'from_the_future'", [])
            .unwrap();
    }
    SqliteStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.db"), vec![b'x'; 10_000]).unwrap();
    let error = SqliteStore::open(dir.path(), Arc::new(SystemClock))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, StoreErrorKind::Unreadable, "{error:?}");
}

/// A snapshot as step 1 had it: three contacts that share key 7, of whom the last is gone, and `more` with a key each.
async fn first_layout(server: &Shared, namespace: &str, more: u64) -> AccountId {
    let account = any_account();
    let key = |part: &str| format!("{{{}}}:{namespace}:v1:snap:{account}:contacts:{part}", account.shard());
    let layout = format!("{{s000}}:{namespace}:layout");
    let mut all = redis::pipe();
    all.hset(layout, 1, "first_keys");
    let packed = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_be_bytes()).collect() };
    let mut write = |id: &str, position: u64, keys: &[u64]| {
        let row = row(id, 5, 5, "old");
        let known = packed(&[&[position, 5, 5, row.hash], keys].concat());
        let member = [format!("{position:016x}{:016x}", 5).as_bytes(), &row.body].concat();
        all.zadd(key("bodies"), member, 0).hset(key("ids"), id, known);
        for lookup in keys {
            all.zadd(key("lookups"), format!("{lookup:016x}{id}"), 0);
        }
    };
    write("a", 10, &[7, u64::MAX]);
    write("b", 11, &[7]);
    for n in 0..more {
        write(&format!("m{n}"), 100 + n, &[1000 + n]);
    }
    let zero = format!("{:016x}", 0);
    all.hset(key("ids"), "c", packed(&[0, 5, 6, 0]))
        .zadd(key("stones"), format!("{:016x}c", 6), 0);
    all.hset_multiple(
        key("head"),
        &[
            ("generation", format!("{:016x}", 9)),
            ("fence", format!("{:016x}", 3)),
            ("position", format!("{:016x}", 100 + more)),
            ("ready", "1".into()),
            ("watermark", zero.clone()),
            ("count", (2 + more).to_string()),
            ("progress", "somewhere".into()),
            ("committed", zero.clone()),
            ("fresh", zero),
        ],
    );
    server.pipeline(&all).await;
    account
}

async fn is_served(store: &RedisStore, account: &AccountId, more: u64) {
    let stream = Stream::Contacts;
    let find = async |key| store.find(account, stream, key).await.unwrap();
    assert_eq!(
        (find(7).await, find(u64::MAX).await),
        (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned()])
    );
    for n in 0..more {
        assert_eq!(find(1000 + n).await, [format!("m{n}")]);
    }
    let head = store.head(account, stream).await.unwrap().unwrap();
    assert_eq!(
        (head.generation, head.count, head.ready),
        (Generation(9), 2 + more, true)
    );
    assert_eq!(
        (head.fence, head.progress.as_slice()),
        (Fence(3), b"somewhere".as_slice())
    );
    let page = store.page(account, stream, &EVERYTHING).await.unwrap();
    assert_eq!(
        (page.bodies.len() as u64, page.last),
        (2 + more, Some(Position(100 + more - 1).max(Position(11))))
    );
}

#[tokio::test]
async fn the_lookup_keys_of_step_1_are_found_after_the_others() {
    const MORE: u64 = 450;
    Shared::with(async |server| {
        let (url, namespace) = (server.url(), server.namespace());
        let StoreUrl::Redis(target) = url else {
            panic!("not a Redis: {url}")
        };
        let mut accounts = Vec::new();
        for _ in 0..6 {
            accounts.push(first_layout(server, &namespace, MORE).await);
        }
        // Another installation, whose name begins in the same way, is left alone.
        let other = format!("{namespace}x");
        let stranger = first_layout(server, &other, 1).await;
        let key = |account: &AccountId, part: &str| {
            format!("{{{}}}:{namespace}:v1:snap:{account}:contacts:{part}", account.shard())
        };
        let behind = RedisStore::connect(target, &namespace, patient()).await.err().unwrap();
        assert!(behind.message.contains("run `snapbridge migrate` first"), "{behind}");
        let dry = states(&store::migrate(url, &namespace, true).await.unwrap());
        assert_eq!(dry, [StepState::Done, StepState::Pending, StepState::Pending]);

        // Interrupted by a snapshot that is damaged: some are converted, and the step is not recorded.
        let blocked = key(&accounts[3], "holders");
        let () = server.command(redis::cmd("SET").arg(&blocked).arg("damaged")).await;
        let error = store::migrate(url, &namespace, false).await.err().unwrap();
        assert_eq!(error.kind, StoreErrorKind::Unreadable, "{error}");
        assert!(RedisStore::connect(target, &namespace, patient()).await.is_err());
        // And one in the middle of a snapshot.
        let half = &accounts[4];
        let () = server
            .command(redis::cmd("ZREM").arg(key(half, "lookups")).arg(format!("{:016x}a", 7)))
            .await;
        let held = redis::cmd("HSET")
            .arg(key(half, "holders"))
            .arg(&7_u64.to_be_bytes())
            .arg("a")
            .clone();
        let () = server.command(&held).await;
        let () = server.command(redis::cmd("DEL").arg(&blocked)).await;

        // Then in the next step: some have all their pairs in both places.
        let bucket = key(&accounts[2], "keys:07");
        let () = server.command(redis::cmd("RPUSH").arg(&bucket).arg("damaged")).await;
        let error = store::migrate(url, &namespace, false).await.err().unwrap();
        assert_eq!(error.kind, StoreErrorKind::Unreadable, "{error}");
        let between = states(&store::migration_status(url, &namespace).await.unwrap());
        assert_eq!(between, [StepState::Done, StepState::Done, StepState::Pending]);
        for account in &accounts {
            let left: u64 = server.command(redis::cmd("ZCARD").arg(key(account, "lookups"))).await;
            assert_eq!(left, 1, "of key 7 one is held, the other one shares it");
        }
        let () = server.command(redis::cmd("DEL").arg(&bucket)).await;

        for expected in [StepState::Applied, StepState::Done] {
            let taken = states(&store::migrate(url, &namespace, false).await.unwrap());
            assert_eq!(taken, [StepState::Done, StepState::Done, expected]);
            let store = RedisStore::connect(target, &namespace, patient()).await.unwrap();
            for account in &accounts {
                is_served(&store, account, MORE).await;
                let old = redis::cmd("EXISTS")
                    .arg(key(account, "lookups"))
                    .arg(key(account, "holders"))
                    .clone();
                let left: u64 = server.command(&old).await;
                assert_eq!(left, 0, "nothing is left of the old places");
            }
        }
        let untouched: u64 = server
            .command(redis::cmd("ZCARD").arg(format!(
                "{{{}}}:{other}:v1:snap:{stranger}:contacts:lookups",
                stranger.shard()
            )))
            .await;
        assert_eq!(untouched, 4);

        // What is written from now on goes by the new places.
        let store = RedisStore::connect(target, &namespace, patient()).await.unwrap();
        for account in &accounts {
            let mut moved = row("b", 6, 7, "new");
            moved.keys = vec![1000];
            let commit = Commit {
                fence: Fence(3),
                generation: Generation(9),
                now: SystemClock.now(),
                rows: vec![moved],
                removals: vec![removal("a", 0, 8), removal("m1", 0, 8)],
                head: HeadChange::default(),
            };
            let done = store.commit(account, Stream::Contacts, &commit).await.unwrap();
            assert_eq!((done.written, done.removed), (1, 2));
            let find = async |key| store.find(account, Stream::Contacts, key).await.unwrap();
            assert!(find(7).await.is_empty() && find(u64::MAX).await.is_empty() && find(1001).await.is_empty());
            assert_eq!(find(1000).await, ["b", "m0"]);
        }
    })
    .await;
}

#[tokio::test]
async fn redis_steps_are_applied_once_and_other_layouts_are_refused() {
    Shared::with(async |server| {
        let (url, namespace) = (server.url(), server.namespace());
        let StoreUrl::Redis(target) = url else {
            panic!("not a Redis: {url}")
        };
        let all = migrations::redis::STEPS.len();
        let refused = async || RedisStore::connect(target, &namespace, patient()).await.err().unwrap();

        assert!(refused().await.message.contains("run `snapbridge migrate` first"));
        assert_eq!(
            states(&store::migrate(url, &namespace, true).await.unwrap()),
            vec![StepState::Pending; all]
        );
        assert_eq!(
            refused().await.kind,
            StoreErrorKind::Unreadable,
            "a dry run applies nothing"
        );
        assert_eq!(
            states(&store::migrate(url, &namespace, false).await.unwrap()),
            vec![StepState::Applied; all]
        );
        assert_eq!(
            states(&store::migrate(url, &namespace, false).await.unwrap()),
            vec![StepState::Done; all]
        );
        assert_eq!(
            states(&store::migration_status(url, &namespace).await.unwrap()),
            vec![StepState::Done; all]
        );
        RedisStore::connect(target, &namespace, patient()).await.unwrap();

        let key = format!("{{s000}}:{namespace}:layout");
        let () = server
            .command(redis::cmd("HSET").arg(&key).arg(all + 1).arg("from_the_future"))
            .await;
        assert!(refused().await.message.contains("is newer than this build knows"));
        let newer = store::migrate(url, &namespace, false).await.err().unwrap();
        assert!(newer.message.contains("is newer than this build knows"), "{newer}");
        let () = server.command(redis::cmd("HDEL").arg(&key).arg(all + 1)).await;
        let () = server
            .command(redis::cmd("HSET").arg(&key).arg(1).arg("something_else"))
            .await;
        assert!(refused().await.message.contains("written by something else"));
    })
    .await;
}

/// Pairs that come and go for ever: buckets of lookup keys do not grow with them.
#[tokio::test]
async fn a_bucket_of_lookup_keys_that_is_mostly_worn_is_written_anew() {
    Shared::with(async |server| {
        let (url, namespace) = (server.url(), server.namespace());
        let StoreUrl::Redis(target) = url else {
            panic!("not a Redis: {url}")
        };
        store::migrate(url, &namespace, false).await.unwrap();
        let store = RedisStore::connect(target, &namespace, patient()).await.unwrap();
        let (account, stream) = (any_account(), Stream::Contacts);
        store.open(&account, stream, Fence(1), Generation(1)).await.unwrap();
        let key = |part: &str| format!("{{{}}}:{namespace}:v1:snap:{account}:contacts:{part}", account.shard());
        // In buckets 0 to 9, ten that stay and ten that change their key each time.
        let mut longest = 0;
        for version in 0..200 {
            let row = |id: u64| {
                let version = if id < 10 { 0 } else { version };
                let mut row = row(&id.to_string(), 1 + version, 1 + version, &version.to_string());
                row.keys = vec![id % 10 + 64 * version];
                row
            };
            let commit = Commit {
                fence: Fence(1),
                generation: Generation(1),
                now: SystemClock.now(),
                rows: (0..20).map(row).collect(),
                removals: Vec::new(),
                head: HeadChange::default(),
            };
            store.commit(&account, stream, &commit).await.unwrap();
            let length: u64 = server
                .command(redis::cmd("STRLEN").arg(key(&format!("keys:{:02x}", version % 10))))
                .await;
            longest = longest.max(length);
        }
        // 200 changes would be 400 entries of 14 bytes. Ten buckets come due at a time, and have to wait for each other.
        assert!((2_000..2_400).contains(&longest), "{longest}");
        for id in 0..10 {
            let find = async |key| store.find(&account, stream, key).await.unwrap();
            assert_eq!(find(id).await, [id.to_string()]);
            assert_eq!(find(id + 64 * 199).await, [(id + 10).to_string()]);
            assert!(find(id + 64 * 198).await.is_empty());
        }
        let worn: u64 = server.command(redis::cmd("HLEN").arg(key("worn"))).await;
        assert!(worn > 0);
        store.drop_snapshot(&account, stream).await.unwrap();
        let mut left = redis::cmd("EXISTS");
        left.arg(key("worn"));
        for bucket in 0..64 {
            left.arg(key(&format!("keys:{bucket:02x}")));
        }
        let left: u64 = server.command(&left).await;
        assert_eq!(left, 0);
    })
    .await;
}
