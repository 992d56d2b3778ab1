//! Redis that crashes, hangs, forgets, fills up or is set up wrongly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contacts::ports::{
    Commit, Dirty, DocKey, DocKind, Documents, HeadChange, Probe, Scratch, Slice, Snapshots, StoreErrorKind,
};
use contacts::{AccountId, Clock, Fence, Generation, Micros, StoreError, Stream, SystemClock};
use store::suite::{EVERYTHING, any_account, ids, removal, row, wait_until};
use store::{RedisStore, StoreUrl};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use crate::server::{Server, connect, patient, quick};

const STREAM: Stream = Stream::Contacts;

fn commit(name: &str) -> Commit {
    let rows = vec![row(name, 1, 1, "a")];
    Commit {
        fence: Fence(1),
        generation: Generation(7),
        now: SystemClock.now(),
        rows,
        removals: vec![],
        head: HeadChange::default(),
    }
}

async fn opened(store: &RedisStore) -> AccountId {
    let account = any_account();
    store
        .open(&account, STREAM, Fence(1), Generation(7))
        .await
        .expect("opens");
    account
}

fn kind<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> StoreErrorKind {
    answer.expect_err("must be refused").kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_that_was_answered() {
    let Some(mut server) = Server::start(&[]).await else {
        return;
    };
    let store = Arc::new(server.store(quick()).await);
    let account = opened(&store).await;
    let answered = Arc::new(AtomicU64::new(0));
    let writing = {
        let (store, account, answered) = (Arc::clone(&store), account.clone(), Arc::clone(&answered));
        // Writes until the crash; what was answered before it must be there after.
        tokio::spawn(async move {
            for n in 0.. {
                if store.commit(&account, STREAM, &commit(&n.to_string())).await.is_err() {
                    return;
                }
                answered.store(n + 1, Ordering::SeqCst);
            }
        })
    };
    wait_until("two hundred commits", async || answered.load(Ordering::SeqCst) > 200).await;
    store.page(&account, STREAM, &EVERYTHING).await.unwrap();
    server.crash();
    writing.await.unwrap();
    assert_eq!(kind(store.head(&account, STREAM).await), StoreErrorKind::Unavailable);
    assert_eq!(
        kind(store.page(&account, STREAM, &EVERYTHING).await),
        StoreErrorKind::Unavailable
    );
    server.restart().await;
    wait_until("the store is back", async || store.head(&account, STREAM).await.is_ok()).await;

    let answered = answered.load(Ordering::SeqCst);
    let head = store
        .head(&account, STREAM)
        .await
        .unwrap()
        .expect("the snapshot is there");
    assert_eq!(head.generation, Generation(7));
    let expected: Vec<String> = (0..answered).map(|n| n.to_string()).collect();
    let found = ids(&store.page(&account, STREAM, &EVERYTHING).await.unwrap());
    assert_eq!(found[..expected.len()], expected, "answered commits are lost");
    // The script cache went with the process; the next commit brings its script along.
    let after = async || store.commit(&account, STREAM, &commit("after")).await.is_ok();
    wait_until("writes work again", after).await;
    assert!(store.head(&account, STREAM).await.unwrap().unwrap().position > head.position);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_and_then_works_again() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(quick()).await;
    let account = opened(&store).await;
    store.page(&account, STREAM, &EVERYTHING).await.unwrap();
    server.signal("STOP");
    assert_eq!(kind(store.head(&account, STREAM).await), StoreErrorKind::Unavailable);
    assert_eq!(
        kind(store.page(&account, STREAM, &EVERYTHING).await),
        StoreErrorKind::Unavailable
    );
    assert_eq!(
        kind(store.commit(&account, STREAM, &commit("1")).await),
        StoreErrorKind::Unavailable
    );
    server.signal("CONT");
    wait_until("reads work again", async || store.head(&account, STREAM).await.is_ok()).await;
    // The commit that was not answered may have been done; repeating it is harmless.
    wait_until("writes work again", async || {
        store.commit(&account, STREAM, &commit("1")).await.is_ok()
    })
    .await;
    assert_eq!(ids(&store.page(&account, STREAM, &EVERYTHING).await.unwrap()), ["1"]);
}

/// Passes bytes on to a server. `swallow` leaves all connections there are open and silent, as a lost network does.
struct Relay {
    url: StoreUrl,
    era: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
}

impl Relay {
    async fn to(server: &Server) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (era, eras) = watch::channel(0);
        let accepted = Arc::new(AtomicU64::new(0));
        let (socket, count) = (server.socket(), Arc::clone(&accepted));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (socket, mut eras) = (socket.clone(), eras.clone());
                tokio::spawn(async move {
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    eras.mark_unchanged();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = eras.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Relay { url, era, accepted }
    }

    fn swallow(&self) {
        self.era.send_modify(|era| *era += 1);
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced() {
    let Some(server) = Server::start(&[]).await else { return };
    let relay = Relay::to(&server).await;
    store::migrate(&relay.url, "own", false).await.unwrap();
    let store = connect(&relay.url, "own", quick()).await;
    let account = opened(&store).await;
    let before = relay.accepted.load(Ordering::SeqCst);
    relay.swallow();
    assert_eq!(kind(store.head(&account, STREAM).await), StoreErrorKind::Unavailable);
    // Nobody calls: the pings find out.
    wait_until("both connections are replaced", async || {
        relay.accepted.load(Ordering::SeqCst) >= before + 2
    })
    .await;
    wait_until("reads work again", async || store.head(&account, STREAM).await.is_ok()).await;
    wait_until("writes work again", async || {
        store.commit(&account, STREAM, &commit("1")).await.is_ok()
    })
    .await;
    // Without pings that would notice, the commands themselves find out.
    let slow = store::RedisSettings {
        ping_every: Duration::from_secs(3600),
        ..quick()
    };
    let store = connect(&relay.url, "own", slow).await;
    relay.swallow();
    assert_eq!(kind(store.head(&account, STREAM).await), StoreErrorKind::Unavailable);
    wait_until("reads work again", async || store.head(&account, STREAM).await.is_ok()).await;
}

#[tokio::test]
async fn a_page_finds_out_itself_that_its_connection_is_dead() {
    let Some(mut server) = Server::start(&[]).await else {
        return;
    };
    let relay = Relay::to(&server).await;
    store::migrate(&relay.url, "own", false).await.unwrap();
    let store = connect(&relay.url, "own", quick()).await;
    let account = opened(&store).await;
    store.commit(&account, STREAM, &commit("1")).await.unwrap();
    let page = async || {
        let page = store.page(&account, STREAM, &EVERYTHING).await;
        page.map(|page| ids(&page))
    };
    assert_eq!(page().await.unwrap(), ["1"]);
    relay.swallow();
    assert_eq!(kind(page().await), StoreErrorKind::Unavailable);
    assert_eq!(page().await.unwrap(), ["1"], "the next one has a new connection");
    // Closed while idle: nobody notices but the one who asks next, and it asks again.
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.ok();
    assert_eq!(page().await.unwrap(), ["1"]);
    server.crash();
    assert_eq!(kind(page().await), StoreErrorKind::Unavailable);
    server.restart().await;
    wait_until("pages are read again", async || page().await.is_ok()).await;
}

#[tokio::test]
async fn a_commit_finds_out_itself_that_its_connection_is_dead() {
    let Some(mut server) = Server::start(&[]).await else {
        return;
    };
    let relay = Relay::to(&server).await;
    store::migrate(&relay.url, "own", false).await.unwrap();
    let store = connect(&relay.url, "own", quick()).await;
    let account = opened(&store).await;
    let write = async |name: &str| store.commit(&account, STREAM, &commit(name)).await;
    assert_eq!(write("1").await.unwrap().written, 1);
    relay.swallow();
    assert_eq!(kind(write("2").await), StoreErrorKind::Unavailable);
    assert_eq!(
        write("2").await.unwrap().written,
        1,
        "the next one has a new connection"
    );
    // Closed while idle: nothing was written yet, so it begins anew.
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.ok();
    assert_eq!(write("3").await.unwrap().written, 1);
    server.crash();
    assert_eq!(kind(write("4").await), StoreErrorKind::Unavailable);
    server.restart().await;
    wait_until("commits work again", async || write("4").await.is_ok()).await;
    wait_until("reads work again", async || store.head(&account, STREAM).await.is_ok()).await;
    let page = store.page(&account, STREAM, &EVERYTHING).await.unwrap();
    assert_eq!(ids(&page), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_done_whole_or_not_at_all() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    for polls in 0..40 {
        let account = opened(&store).await;
        let mut both = commit("1");
        both.rows.push(row("2", 1, 1, "a"));
        both.head.progress = Some(b"done".to_vec());
        let mut given_up = store.commit(&account, STREAM, &both);
        for _ in 0..polls {
            if futures::poll!(&mut given_up).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        // What it watched does not stand in the way of another one on another connection, or the same.
        let gone = Commit {
            rows: vec![row("3", 1, 1, "a")],
            ..commit("")
        };
        store.commit(&account, STREAM, &gone).await.unwrap();
        let head = store.head(&account, STREAM).await.unwrap().unwrap();
        let found = ids(&store.page(&account, STREAM, &EVERYTHING).await.unwrap());
        let whole = head.progress == b"done" && head.count == 3 && found.len() == 3;
        let nothing = head.progress.is_empty() && head.count == 1 && found == ["3"];
        assert!(whole || nothing, "{head:?} {found:?}");
    }
}

#[tokio::test]
async fn a_page_that_nobody_waits_for_leaves_nothing_to_the_next_one() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    let account = opened(&store).await;
    for name in ["1", "2", "3"] {
        store.commit(&account, STREAM, &commit(name)).await.unwrap();
    }
    let slice = |rows| Slice { rows, ..EVERYTHING };
    for polls in 0..30 {
        let two = slice(2);
        let mut given_up = store.page(&account, STREAM, &two);
        for _ in 0..polls {
            if futures::poll!(&mut given_up).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        let page = store.page(&account, STREAM, &slice(1)).await.unwrap();
        assert_eq!((ids(&page), page.more), (vec!["1".to_owned()], true));
    }
}

#[tokio::test]
async fn a_server_that_forgot_everything_is_never_an_empty_snapshot() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    let account = opened(&store).await;
    let before = store.commit(&account, STREAM, &commit("1")).await.unwrap();
    server.command(&["FLUSHALL"]).await.unwrap();
    assert_eq!(store.head(&account, STREAM).await.unwrap(), None);
    assert_eq!(
        kind(store.page(&account, STREAM, &EVERYTHING).await),
        StoreErrorKind::NoSnapshot
    );
    assert_eq!(
        kind(store.commit(&account, STREAM, &commit("2")).await),
        StoreErrorKind::NoSnapshot
    );
    let head = store.open(&account, STREAM, Fence(1), Generation(8)).await.unwrap();
    assert_eq!((head.generation, head.count), (Generation(8), 0));
    assert_eq!(
        kind(store.commit(&account, STREAM, &commit("1")).await),
        StoreErrorKind::Fenced,
        "who opened it in its former life knows of pages that it never got"
    );
    let commit = Commit {
        generation: Generation(8),
        ..commit("1")
    };
    assert!(store.commit(&account, STREAM, &commit).await.unwrap().position > before.position);
}

#[tokio::test]
async fn a_snapshot_that_lost_a_part_counts_as_lost() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    for part in ["bodies", "ids", "stones", "head"] {
        let account = opened(&store).await;
        store.commit(&account, STREAM, &commit("1")).await.unwrap();
        let gone = Commit {
            rows: vec![],
            removals: vec![removal("2", 0, 1)],
            ..commit("")
        };
        store.commit(&account, STREAM, &gone).await.unwrap();
        let key = format!("{{{}}}:own:v1:snap:{account}:contacts:{part}", account.shard());
        assert_eq!(
            server.command(&["DEL", &key]).await.unwrap(),
            redis::Value::Int(1),
            "{key}"
        );
        assert_eq!(store.head(&account, STREAM).await.unwrap(), None, "without {part}");
        assert_eq!(
            kind(store.commit(&account, STREAM, &commit("2")).await),
            StoreErrorKind::NoSnapshot
        );
        if part != "head" {
            assert_eq!(
                kind(store.open(&account, STREAM, Fence(0), Generation(8)).await),
                StoreErrorKind::Fenced
            );
        }
        let head = store.open(&account, STREAM, Fence(1), Generation(8)).await.unwrap();
        assert_eq!((head.generation, head.count), (Generation(8), 0));
        assert!(ids(&store.page(&account, STREAM, &EVERYTHING).await.unwrap()).is_empty());
        let commit = Commit {
            generation: Generation(8),
            ..commit("2")
        };
        assert_eq!(store.commit(&account, STREAM, &commit).await.unwrap().written, 1);
    }
}

#[tokio::test]
async fn a_full_server_refuses_whole_writes_and_serves_reads() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    let account = opened(&store).await;
    store.commit(&account, STREAM, &commit("1")).await.unwrap();
    let work = DocKey::of_account(DocKind::Work, &account);
    assert!(store.swap(&work, 0, Some(b"work"), &[]).await.unwrap());
    let head = store.head(&account, STREAM).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();

    let now = SystemClock.now();
    let minute = Duration::from_secs(60);
    let mut both = commit("2");
    both.rows.push(row("1", 2, 2, "changed"));
    both.removals.push(removal("1", 0, 9));
    assert_eq!(kind(store.commit(&account, STREAM, &both).await), StoreErrorKind::Full);
    let only_removals = Commit { rows: vec![], ..both };
    assert_eq!(
        kind(store.commit(&account, STREAM, &only_removals).await),
        StoreErrorKind::Full
    );
    assert_eq!(
        kind(store.open(&account, STREAM, Fence(2), Generation(8)).await),
        StoreErrorKind::Full
    );
    assert_eq!(
        kind(store.swap(&work, 1, Some(b"more"), &[]).await),
        StoreErrorKind::Full
    );
    assert_eq!(
        kind(store.mark(&account, &["9".into()], now, 10).await),
        StoreErrorKind::Full
    );
    assert_eq!(kind(store.put("k", b"v", minute, now).await), StoreErrorKind::Full);
    assert_eq!(kind(store.claim("k", b"v", minute, now).await), StoreErrorKind::Full);

    assert_eq!(
        store.head(&account, STREAM).await.unwrap(),
        head,
        "nothing is half done"
    );
    assert_eq!(
        store.page(&account, STREAM, &EVERYTHING).await.unwrap().bodies,
        [row("1", 1, 1, "a").body]
    );
    assert_eq!(store.load(&work).await.unwrap().unwrap().body, b"work");
    assert!(store.dirty(&account, 10).await.unwrap().is_empty());
    assert!(store.bodies(&account, STREAM, &["1".into()]).await.unwrap()[0].is_some());
    store.ping().await.unwrap();
    // What frees memory works.
    assert_eq!(
        store.sweep_tombstones(&account, STREAM, Micros(99), 10).await.unwrap(),
        0
    );
    assert!(store.swap(&work, 1, None, &[]).await.unwrap());
    store.drop_snapshot(&account, STREAM).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    store.open(&account, STREAM, Fence(2), Generation(8)).await.unwrap();
}

#[tokio::test]
async fn set_ups_that_lose_data_are_refused_or_warned_of() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    assert!(store.warnings().await.unwrap().is_empty());
    server.command(&["CONFIG", "SET", "appendonly", "no"]).await.unwrap();
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    let warnings = store.warnings().await.unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("allkeys-lru") && warnings[1].contains("append-only"),
        "{warnings:?}"
    );
    let StoreUrl::Redis(target) = server.url() else {
        panic!("not a Redis")
    };
    let refused = RedisStore::connect(&target, "own", patient()).await.err().unwrap();
    assert!(
        refused.message.contains("allkeys-lru") && refused.message.contains("noeviction"),
        "{refused}"
    );
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await
        .unwrap();
    RedisStore::connect(&target, "own", patient()).await.unwrap();
}

#[tokio::test]
async fn an_emptied_script_cache_is_harmless() {
    let Some(server) = Server::start(&[]).await else { return };
    let store = server.store(patient()).await;
    let account = opened(&store).await;
    for n in 0..20 {
        server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
        assert_eq!(
            store
                .commit(&account, STREAM, &commit(&n.to_string()))
                .await
                .unwrap()
                .written,
            1
        );
        assert_eq!(
            store
                .mark(&account, &[n.to_string()], SystemClock.now(), 99)
                .await
                .unwrap()
                .waiting,
            n + 1
        );
    }
    assert_eq!(store.head(&account, STREAM).await.unwrap().unwrap().count, 20);
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let Some(server) = Server::start(&["--requirepass", "hunter2"]).await else {
        return;
    };
    let with = |password: &str| -> StoreUrl {
        format!("redis+unix://{}?pass={password}&db=3", server.socket().display())
            .parse()
            .unwrap()
    };
    store::migrate(&with("hunter2"), "own", false).await.unwrap();
    let store = connect(&with("hunter2"), "own", patient()).await;
    store.ping().await.unwrap();
    // Pages have connections of their own, to the same database.
    let account = opened(&store).await;
    store.commit(&account, STREAM, &commit("1")).await.unwrap();
    assert_eq!(ids(&store.page(&account, STREAM, &EVERYTHING).await.unwrap()), ["1"]);
    assert!(!store.describe().contains("hunter2"), "{}", store.describe());
    for url in [with("hunter3"), server.url()] {
        let refused = store::migrate(&url, "own", true).await.err().unwrap();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable);
        assert!(
            !format!("{refused} {refused:?} {url} {url:?}").contains("hunter"),
            "{refused:?}"
        );
    }
}
