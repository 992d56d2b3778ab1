//! The same random history on all backends: each must decide as the model does.

use std::sync::Arc;

use contacts::ports::{Commit, Head, HeadChange, Slice};
use contacts::record::{Known, Removal, Row};
use contacts::{AccountId, Clock, Fence, Generation, Micros, Position, Store, Stream, SystemClock};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use store::suite::{EVERYTHING, any_account, ids, removal, row};
use store::{MemoryStore, SqliteStore};

use crate::server::Shared;

const STREAM: Stream = Stream::Contacts;
const IDS: [&str; 6] = ["1", "2", "3", "ä", "x y", "0"];

#[derive(Clone, Debug)]
enum Step {
    Open {
        fence: u64,
        generation: u64,
    },
    Commit {
        fence: u64,
        /// Of the snapshot's life before this one.
        late: bool,
        rows: Vec<Row>,
        removals: Vec<Removal>,
        head: HeadChange,
    },
    Sweep {
        before: u64,
        limit: usize,
    },
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || prop::sample::select(IDS.as_slice());
    let keys = prop::collection::vec(0..4_u64, 0..3);
    let a_row =
        (id(), 0..5_u64, 0..14_u64, 0..3_u8, any::<bool>(), keys).prop_map(|(id, u, o, text, indexed, keys)| Row {
            indexed,
            keys,
            ..row(id, u, o, &text.to_string())
        });
    let a_removal = (id(), 0..5_u64, 0..14_u64).prop_map(|(id, u, o)| removal(id, u, o));
    let option = || prop::option::of(0..9_u64);
    let head =
        (prop::option::of(any::<bool>()), option(), option(), option()).prop_map(|(ready, w, p, f)| HeadChange {
            ready,
            watermark: w.map(Micros),
            progress: p.map(|p| vec![p as u8; p as usize]),
            fresh: f.map(Micros),
        });
    let commit = (
        1..4_u64,
        prop::bool::weighted(0.1),
        prop::collection::vec(a_row, 0..5),
        prop::collection::vec(a_removal, 0..3),
        head,
    )
        .prop_map(|(fence, late, rows, removals, head)| Step::Commit {
            fence,
            late,
            rows,
            removals,
            head,
        });
    let step = prop_oneof![
        14 => commit,
        2 => (1..4_u64, 1..9_u64).prop_map(|(fence, generation)| Step::Open { fence, generation }),
        1 => (0..16_u64, 1..3_usize).prop_map(|(before, limit)| Step::Sweep { before, limit }),
        1 => Just(Step::Drop),
    ];
    prop::collection::vec(step, 1..30)
}

/// Everything that can be seen of a snapshot, with positions replaced by their rank.
#[derive(Debug, PartialEq)]
struct Seen {
    answer: String,
    head: Option<Head>,
    order: Vec<String>,
    newer: Vec<String>,
    known: Vec<Option<Known>>,
    unseen: Vec<String>,
    found: Vec<Vec<String>>,
    bodies: Vec<Option<bytes::Bytes>>,
}

async fn take(store: &dyn Store, account: &AccountId, step: &Step, last: &mut Position) -> Seen {
    let answer = match step {
        Step::Open { fence, generation } => {
            let opened = store
                .open(account, STREAM, Fence(*fence), Generation(*generation))
                .await;
            opened.map_or_else(
                |error| format!("{:?}", error.kind),
                |head| format!("{:?}", head.generation),
            )
        }
        Step::Commit {
            fence,
            late,
            rows,
            removals,
            head,
        } => {
            let life = store
                .head(account, STREAM)
                .await
                .unwrap()
                .map_or(0, |head| head.generation.0);
            let (rows, removals, head) = (rows.clone(), removals.clone(), head.clone());
            let commit = Commit {
                fence: Fence(*fence),
                generation: Generation(if *late { life + 1 } else { life }),
                now: SystemClock.now(),
                rows,
                removals,
                head,
            };
            match store.commit(account, STREAM, &commit).await {
                Ok(done) => {
                    assert!(done.position >= *last, "positions went back");
                    assert_eq!(
                        done.position > *last,
                        done.written > 0,
                        "a position moves with what was written"
                    );
                    *last = done.position;
                    format!("{} {} {} {}", done.written, done.same, done.stale, done.removed)
                }
                Err(error) => format!("{:?}", error.kind),
            }
        }
        Step::Sweep { before, limit } => {
            format!(
                "{:?}",
                store
                    .sweep_tombstones(account, STREAM, Micros(*before), *limit)
                    .await
                    .unwrap()
            )
        }
        Step::Drop => {
            store.drop_snapshot(account, STREAM).await.unwrap();
            *last = Position::START;
            String::new()
        }
    };
    let asked = IDS.map(str::to_owned);
    let mut known = store.known(account, STREAM, &asked).await.unwrap();
    let mut positions: Vec<Position> = known.iter().flatten().map(|known| known.position).collect();
    positions.sort();
    for known in known.iter_mut().flatten().filter(|known| !known.is_tombstone()) {
        known.position = Position(1 + positions.iter().filter(|other| **other < known.position).count() as u64);
    }
    let read = async |slice: &Slice| {
        store
            .page(account, STREAM, slice)
            .await
            .map(|page| ids(&page))
            .unwrap_or_default()
    };
    let (mut unseen, mut cursor) = (Vec::new(), Some(String::new()));
    while let Some(at) = cursor {
        let (more, next) = store.unseen(account, STREAM, Micros(7), &at, 2).await.unwrap();
        unseen.extend(more);
        cursor = next;
    }
    unseen.sort();
    unseen.dedup();
    let mut found = Vec::new();
    for key in 0..4 {
        found.push(store.find(account, STREAM, key).await.unwrap());
    }
    let mut head = store.head(account, STREAM).await.unwrap();
    if let Some(head) = &mut head {
        assert_eq!(head.position, *last);
        // By the clock of each.
        (head.position, head.committed) = (Position::START, Micros::ZERO);
    }
    Seen {
        answer,
        head,
        order: read(&EVERYTHING).await,
        newer: read(&Slice {
            newer_than: Some(Micros(2)),
            ..EVERYTHING
        })
        .await,
        known,
        unseen,
        found,
        bodies: store.bodies(account, STREAM, &asked).await.unwrap(),
    }
}

async fn compare(stores: &[Arc<dyn Store>], steps: &[Step]) -> Result<(), TestCaseError> {
    let account = any_account();
    let mut lasts = vec![Position::START; stores.len()];
    // Most histories begin with a snapshot.
    let begin = Step::Open {
        fence: 1,
        generation: 1,
    };
    for step in std::iter::once(&begin).chain(steps) {
        let mut model: Option<Seen> = None;
        for (store, last) in stores.iter().zip(&mut lasts) {
            let seen = take(store.as_ref(), &account, step, last).await;
            match &model {
                None => model = Some(seen),
                Some(model) => {
                    prop_assert_eq!(
                        model,
                        &seen,
                        "{} differs from the model at {:?}",
                        store.describe(),
                        step
                    );
                }
            }
        }
    }
    for store in stores {
        store.drop_snapshot(&account, STREAM).await.unwrap();
    }
    Ok(())
}

#[test]
fn every_backend_decides_as_the_model_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap();
        let embedded: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(sqlite)];
        run(&embedded);
        Shared::with(async |redis| run(&[Arc::new(MemoryStore::new()), redis.store().await])).await;
    });
}

fn run(stores: &[Arc<dyn Store>]) {
    let cases = std::env::var("PROPTEST_CASES").map_or(60, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let handle = tokio::runtime::Handle::current();
    let history = |steps: Vec<Step>| tokio::task::block_in_place(|| handle.block_on(compare(stores, &steps)));
    runner
        .run(&steps(), history)
        .unwrap_or_else(|failure| panic!("{failure}"));
}
