//! Snapshots: pages, and what else is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use contacts::ports::Slice;
use contacts::{Micros, Position, Store};

use super::{EVERYTHING, Opened, ids, removal, row};

async fn numbered(make: &impl AsyncFn() -> Arc<dyn Store>, count: usize) -> Opened {
    let at = Opened::new(make).await;
    let rows: Vec<_> = (0..count).map(|n| row(&n.to_string(), n as u64 + 1, 1, "x")).collect();
    for piece in rows.chunks(100) {
        at.commit(piece.to_vec(), vec![]).await;
    }
    at
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub(super) async fn pages_cover_everything_once_and_in_order(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = numbered(make, 250).await;
    // Whatever bounds a page: together they are the snapshot, and each ends where the next begins (invariant 2).
    for (rows, bytes) in [
        (1, usize::MAX),
        (7, usize::MAX),
        (250, usize::MAX),
        (9999, 1),
        (9999, 100),
        (9999, 5000),
        (30, 700),
    ] {
        let mut slice = Slice {
            rows,
            bytes,
            ..EVERYTHING
        };
        let mut read = Vec::new();
        loop {
            let page = at.page(&slice).await;
            assert!(page.bodies.len() <= rows);
            let total: usize = page.bodies.iter().map(bytes::Bytes::len).sum();
            assert!(page.bodies.len() == 1 || total <= bytes);
            read.extend(ids(&page));
            let Some(last) = page.last else {
                panic!("a page that has no end, rows {rows}, bytes {bytes}")
            };
            assert!(last > slice.after);
            assert_eq!(page.more, read.len() < 250, "rows {rows}, bytes {bytes}");
            slice.after = last;
            if !page.more {
                break;
            }
        }
        assert_eq!(read, names(0..250));
        let page = at.page(&slice).await;
        assert_eq!((page.bodies.len(), page.last, page.more), (0, None, false));
    }
}

pub(super) async fn a_slice_is_bounded_by_positions_rows_and_bytes(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = numbered(make, 20).await;
    let fifth = at.known("4").await.unwrap().position;
    let tenth = at.known("9").await.unwrap().position;
    let slice = Slice {
        after: fifth,
        until: Some(tenth),
        ..EVERYTHING
    };
    let page = at.page(&slice).await;
    assert_eq!(ids(&page), names(5..10), "after is exclusive, until inclusive");
    assert_eq!((page.last, page.more), (Some(tenth), false));
    let page = at.page(&Slice { rows: 5, ..slice }).await;
    assert_eq!(
        (ids(&page).len(), page.more),
        (5, false),
        "what lies beyond until does not count as more"
    );
    let page = at.page(&Slice { rows: 4, ..slice }).await;
    assert_eq!(
        (ids(&page), page.last, page.more),
        (names(5..9), Some(at.known("8").await.unwrap().position), true)
    );
    let page = at
        .page(&Slice {
            until: Some(fifth),
            ..slice
        })
        .await;
    assert_eq!((page.bodies.len(), page.last, page.more), (0, None, false));
    let page = at
        .page(&Slice {
            after: tenth,
            until: Some(fifth),
            ..slice
        })
        .await;
    assert_eq!((page.bodies.len(), page.last, page.more), (0, None, false));
    // Positions between two records.
    let between = Slice {
        after: Position(fifth.0 - 1),
        until: Some(Position(fifth.0)),
        ..EVERYTHING
    };
    assert_eq!(at.ids(&between).await, ["4"]);

    // Bytes: nothing is added that does not fit, but one record always is.
    let length = row("5", 0, 0, "x").body.len();
    let page = at
        .page(&Slice {
            bytes: 2 * length,
            ..slice
        })
        .await;
    assert_eq!((ids(&page), page.more), (names(5..7), true));
    let page = at
        .page(&Slice {
            bytes: 2 * length - 1,
            ..slice
        })
        .await;
    assert_eq!(ids(&page), names(5..6));
    let page = at.page(&Slice { bytes: 0, ..slice }).await;
    assert_eq!(ids(&page), names(5..6));
    let page = at
        .page(&Slice {
            bytes: 5 * length,
            ..slice
        })
        .await;
    assert_eq!((ids(&page), page.more), (names(5..10), false));
}

pub(super) async fn records_that_are_not_newer_are_passed_over(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = numbered(make, 10).await;
    // The record at place n has CRM time n + 1.
    let slice = Slice {
        newer_than: Some(Micros(7)),
        ..EVERYTHING
    };
    let page = at.page(&slice).await;
    assert_eq!((ids(&page), page.more), (names(7..10), false));
    let page = at.page(&Slice { rows: 4, ..slice }).await;
    assert_eq!(
        (page.bodies.len(), page.more),
        (0, true),
        "rows bound what is looked at"
    );
    assert_eq!(page.last, Some(at.known("3").await.unwrap().position));
    let page = at
        .page(&Slice {
            after: page.last.unwrap(),
            rows: 4,
            ..slice
        })
        .await;
    assert_eq!((ids(&page), page.more), (names(7..8), true));
    let page = at
        .page(&Slice {
            newer_than: Some(Micros(99)),
            ..slice
        })
        .await;
    assert_eq!((page.bodies.len(), page.more), (0, false));
    assert_eq!(page.last, Some(at.known("9").await.unwrap().position));
    // The same content under a newer CRM time keeps its place and is newer.
    assert_eq!(at.write(row("0", 50, 2, "x")).await, (0, 1, 0));
    assert_eq!(at.ids(&slice).await, ["0", "7", "8", "9"]);
    assert_eq!(at.count().await, 10);
}

pub(super) async fn a_record_that_changes_while_it_is_read_moves_behind_the_reader(
    make: &impl AsyncFn() -> Arc<dyn Store>,
) {
    let at = numbered(make, 6).await;
    let end = at.store.head(&at.account, at.stream).await.unwrap().unwrap().position;
    let first = at
        .page(&Slice {
            rows: 2,
            until: Some(end),
            ..EVERYTHING
        })
        .await;
    assert_eq!(ids(&first), ["0", "1"]);
    at.commit(
        vec![row("0", 50, 2, "new"), row("3", 50, 2, "new"), row("6", 50, 2, "new")],
        vec![removal("4", 0, 2)],
    )
    .await;
    let after = first.last.unwrap();
    let rest = at
        .page(&Slice {
            after,
            until: Some(end),
            ..EVERYTHING
        })
        .await;
    assert_eq!(
        (ids(&rest), rest.more),
        (vec!["2".into(), "5".into()], false),
        "the run's end stays where it was"
    );
    let next = at
        .page(&Slice {
            after: end,
            ..EVERYTHING
        })
        .await;
    assert_eq!(ids(&next), ["0", "3", "6"]);
}

/// A lease has one holder, but nothing may rest on that: writers that meet get on one after the other.
pub(super) async fn invariant_1_a_reader_behind_several_writers_misses_nothing(
    make: &impl AsyncFn() -> Arc<dyn Store>,
) {
    const WRITERS: usize = 4;
    const COMMITS: usize = 15;
    let at = Opened::new(make).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, account, stream) = (Arc::clone(&at.store), at.account.clone(), at.stream);
            let commits: Vec<_> = (0..COMMITS)
                .map(|n| {
                    let mut own = row(&format!("{writer}.{n}"), 1, 1, "own");
                    own.keys = vec![7];
                    let turn = (writer + n * WRITERS) as u64;
                    at.commit_of(vec![own, row("all", 1 + turn, 1, &turn.to_string())], vec![])
                })
                .collect();
            tokio::spawn(async move {
                for commit in commits {
                    store.commit(&account, stream, &commit).await.expect("commits");
                }
            })
        })
        .collect();
    let (mut seen, mut after) = (Vec::new(), Position::START);
    let mut read_on = async |seen: &mut Vec<String>| {
        let head = at.store.head(&at.account, at.stream).await.unwrap().unwrap();
        let page = at
            .page(&Slice {
                after,
                until: Some(head.position),
                ..EVERYTHING
            })
            .await;
        seen.extend(ids(&page));
        // As a run that is complete does: nothing may come to lie at or behind the head it saw.
        after = head.position;
    };
    while writers.iter().any(|writer| !writer.is_finished()) {
        read_on(&mut seen).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    read_on(&mut seen).await;
    let mut own: Vec<String> = seen.iter().filter(|id| *id != "all").cloned().collect();
    own.sort();
    let mut expected: Vec<String> = (0..WRITERS)
        .flat_map(|writer| (0..COMMITS).map(move |n| format!("{writer}.{n}")))
        .collect();
    expected.sort();
    assert_eq!(own, expected, "each record once");
    assert_eq!(at.count().await, expected.len() as u64 + 1);
    assert_eq!(at.store.find(&at.account, at.stream, 7).await.unwrap(), expected);
    let last = (WRITERS * COMMITS) as u64;
    assert_eq!(
        at.known("all").await.unwrap().updated,
        Micros(last),
        "the newest version won"
    );
}

pub(super) async fn unseen_records_are_found_in_pieces(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = numbered(make, 700).await;
    let seen: Vec<_> = (100..700)
        .filter(|n| n % 3 == 0)
        .map(|n| row(&n.to_string(), n + 1, 500, "x"))
        .collect();
    for piece in seen.chunks(100) {
        assert_eq!(at.commit(piece.to_vec(), vec![]).await.same as usize, piece.len());
    }
    at.commit(vec![], vec![removal("0", 0, 2), removal("never", 0, 2)])
        .await;
    let all = async |before| {
        let mut found = BTreeSet::new();
        let mut cursor = String::new();
        loop {
            let (ids, next) = at
                .store
                .unseen(&at.account, at.stream, Micros(before), &cursor, 50)
                .await
                .unwrap();
            found.extend(ids);
            match next {
                Some(next) => cursor = next,
                None => return found,
            }
        }
    };
    let expected: BTreeSet<String> = (1..700)
        .filter(|n| *n < 100 || n % 3 != 0)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(all(500).await, expected);
    assert_eq!(all(501).await.len(), 699);
    assert!(all(1).await.is_empty());
}

pub(super) async fn lookup_keys_follow_the_content(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let with = |id: &str, observed, text: &str, keys: &[u64]| {
        let mut row = row(id, 1, observed, text);
        row.keys = keys.to_vec();
        row
    };
    let find = async |key| at.store.find(&at.account, at.stream, key).await.unwrap();
    at.commit(vec![with("b", 1, "x", &[10, 11]), with("a", 1, "x", &[11, 12])], vec![])
        .await;
    assert_eq!(
        (find(10).await, find(11).await, find(13).await),
        (vec!["b".into()], vec!["a".into(), "b".into()], vec![])
    );
    // Changed content brings its own keys; the same content keeps those it had.
    at.commit(vec![with("b", 2, "y", &[11, 13]), with("a", 2, "x", &[99])], vec![])
        .await;
    assert_eq!(
        (find(10).await, find(13).await, find(99).await),
        (vec![], vec!["b".to_owned()], vec![])
    );
    assert_eq!(find(11).await, ["a", "b"]);
    assert_eq!(at.known("b").await.unwrap().keys, [11, 13]);
    assert_eq!(at.known("a").await.unwrap().keys, [11, 12]);
    at.commit(vec![], vec![removal("a", 0, 3)]).await;
    assert_eq!((find(11).await, find(12).await), (vec!["b".to_owned()], vec![]));
    let asked = ["b", "a", "nobody", "b"].map(str::to_owned);
    let body = row("b", 0, 0, "y").body;
    let expected = [Some(body.clone().into()), None, None, Some(body.into())];
    assert_eq!(at.store.bodies(&at.account, at.stream, &asked).await.unwrap(), expected);
}

pub(super) async fn a_lookup_key_of_many_loses_one_at_a_time(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let with = |id: &str, version, keys: &[u64]| {
        let mut row = row(id, version, version, &version.to_string());
        row.keys = keys.to_vec();
        row
    };
    let find = async |key| at.store.find(&at.account, at.stream, key).await.unwrap();
    at.commit(["a", "b", "c", "d"].map(|id| with(id, 1, &[5, 5])).into(), vec![])
        .await;
    assert_eq!(find(5).await, ["a", "b", "c", "d"]);
    at.commit(vec![with("a", 2, &[])], vec![]).await;
    assert_eq!(find(5).await, ["b", "c", "d"], "the first one is gone");
    at.commit(vec![with("e", 2, &[5])], vec![removal("c", 0, 2)]).await;
    assert_eq!(find(5).await, ["b", "d", "e"], "one comes while another goes");
    at.commit(vec![with("a", 3, &[5]), with("e", 3, &[6])], vec![removal("b", 0, 3)])
        .await;
    assert_eq!(
        (find(5).await, find(6).await),
        (vec!["a".into(), "d".into()], vec!["e".into()])
    );
    at.commit(vec![], ["a", "d", "e"].map(|id| removal(id, 0, 9)).into())
        .await;
    assert_eq!((find(5).await, find(6).await), (vec![], vec![]));
    at.commit(vec![with("d", 10, &[5])], vec![]).await;
    assert_eq!(find(5).await, ["d"]);
}

pub(super) async fn odd_ids_and_texts_come_back_as_they_were(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let at = Opened::new(make).await;
    let odd = [
        "0",
        "00",
        "-1",
        " ",
        "a b",
        "A",
        "a",
        "ä",
        "🙂",
        "{x}",
        "[x",
        "(x",
        "+",
        "-",
        "x:y|z",
        "%",
        "'",
        "\\",
        "\n",
        "\0",
        "g",
        "ffff",
        "\u{10ffff}",
        "0123456789abcdef",
    ];
    let rows: Vec<_> = odd
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let text = format!("Zoë \"{id}\" 'O\\'Neil' \u{2028} 日本 </script> {{}} \u{7f}");
            let body = serde_json::to_vec(&serde_json::json!({ "id": id, "name": text })).unwrap();
            let mut row = row(id, 1, 1, "");
            row.hash = contacts::contact::content_hash(&body);
            (row.body, row.keys) = (body, vec![n as u64 % 3]);
            row
        })
        .collect();
    assert_eq!(at.commit(rows.clone(), vec![]).await.written as usize, odd.len());
    let page = at.page(&EVERYTHING).await;
    assert_eq!(page.bodies, rows.iter().map(|row| row.body.clone()).collect::<Vec<_>>());
    assert_eq!(ids(&page), odd);
    let asked: Vec<String> = odd.iter().map(|id| (*id).to_owned()).collect();
    let bodies = at.store.bodies(&at.account, at.stream, &asked).await.unwrap();
    assert!(
        bodies
            .iter()
            .zip(&rows)
            .all(|(body, row)| body.as_deref() == Some(row.body.as_slice()))
    );
    let known = at.store.known(&at.account, at.stream, &asked).await.unwrap();
    assert!(
        known
            .iter()
            .zip(&rows)
            .all(|(known, row)| known.as_ref().is_some_and(|known| known.hash == row.hash))
    );
    for key in 0..3_usize {
        let mut expected: Vec<String> = asked.iter().skip(key).step_by(3).cloned().collect();
        expected.sort();
        assert_eq!(
            at.store.find(&at.account, at.stream, key as u64).await.unwrap(),
            expected
        );
    }
    let gone = odd.iter().map(|id| removal(id, 0, 2)).collect();
    assert_eq!(at.commit(vec![], gone).await.removed as usize, odd.len());
    assert_eq!(at.count().await, 0);
    assert_eq!(
        at.store
            .sweep_tombstones(&at.account, at.stream, Micros(3), 100)
            .await
            .unwrap() as usize,
        odd.len()
    );
    assert_eq!(at.known("\0").await, None);
}
