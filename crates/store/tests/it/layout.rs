//! Layout steps: from nothing, twice, and what is refused.

use std::sync::Arc;

use contacts::SystemClock;
use contacts::ports::StoreErrorKind;
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
