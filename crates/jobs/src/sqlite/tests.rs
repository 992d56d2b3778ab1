use contacts::SystemClock;
use parking_lot::Mutex;

use super::*;
use crate::DELIVERY_LIMIT;
use crate::suite::{self, job, take};

struct OnDisk {
    queue: SqliteQueue,
    _dir: tempfile::TempDir,
}

#[async_trait]
impl suite::Bench for OnDisk {
    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    async fn publish_body(&self, lane: Lane, body: &[u8]) {
        let _confirmed = self.queue.publish_body(lane, body.to_vec()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_on_disk_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open_with(dir.path(), Arc::new(SystemClock), Duration::ZERO).unwrap();
    suite::run(&OnDisk { queue, _dir: dir }).await;
}

/// A clock that stands until it is moved.
#[derive(Default)]
struct Still(Mutex<Micros>);

impl Clock for Still {
    fn now(&self) -> Micros {
        *self.0.lock()
    }
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_a_restart_and_claims_of_the_dead_process_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let (claimed, waiting) = (job(Lane::Build), job(Lane::Refresh));
    {
        let queue = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
        let _ = queue.publish(&claimed).await.unwrap();
        let _ = queue.publish(&waiting).await.unwrap();
        let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
        let delivery = take(&mut consumer).await;
        // A process that is killed settles nothing and drops nothing. Closing the file without the claim's drop is
        // what comes nearest to it in one process.
        std::mem::forget(delivery);
        let shared = queue.shared.clone();
        drop((queue, consumer));
        shared._lock.as_ref().unwrap().unlock().unwrap();
    }
    let queue = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let mut consumer = queue.consume(&Lane::ALL, 2).await.unwrap();
    let (one, two) = (take(&mut consumer).await, take(&mut consumer).await);
    let mut bodies = [one.body().to_vec(), two.body().to_vec()];
    bodies.sort();
    let mut expected = [claimed.to_json(), waiting.to_json()];
    expected.sort();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn a_second_queue_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let error = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).err().unwrap();
    assert_eq!(error.kind, QueueErrorKind::Unavailable);
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_build_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let newer = Connection::open(dir.path().join(FILE)).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    let error = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).err().unwrap();
    assert_eq!(error.kind, QueueErrorKind::Topology);
    assert!(error.to_string().contains("99"), "{error}");
}

#[tokio::test]
async fn the_clock_decides_when_a_job_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Still::default());
    let queue = SqliteQueue::open(dir.path(), clock.clone()).unwrap();
    let first = job(Lane::Build);
    let _ = queue.publish(&first).await.unwrap();
    let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
    take(&mut consumer)
        .await
        .settle(&Settle::PutOff {
            after: Duration::from_secs(3600),
        })
        .await
        .unwrap();
    *clock.0.lock() = Micros::from_secs(3599);
    assert_eq!(queue.depth().await.unwrap().waiting, 1);
    *clock.0.lock() = Micros::from_secs(3600);
    assert_eq!(take(&mut consumer).await.job(), Ok(&first));
}

#[tokio::test]
async fn status_reads_beside_the_running_process_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(SqliteQueue::open_read_only(dir.path()).is_err(), "nothing is created");
    let queue = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let _ = queue.publish(&job(Lane::Refresh)).await.unwrap();
    let view = SqliteQueue::open_read_only(dir.path()).unwrap();
    assert_eq!(view.depth(SystemClock.now()).unwrap(), queue.depth().await.unwrap());
    drop(queue);
    let view = SqliteQueue::open_read_only(dir.path()).unwrap();
    assert_eq!(view.depth(SystemClock.now()).unwrap().lanes[1].ready, 1);
}

#[tokio::test]
async fn a_claim_whose_consumer_stopped_waiting_is_given_back_uncounted() {
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let _ = queue.publish(&job(Lane::Build)).await.unwrap();
    for _ in 0..=DELIVERY_LIMIT {
        let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
        // Polled once, which sends the claim, and then given up.
        let given_up = futures::poll!(std::pin::pin!(consumer.next()));
        drop(given_up);
    }
    let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
    take(&mut consumer).await.settle(&Settle::Ack).await.unwrap();
    assert_eq!(queue.depth().await.unwrap().dead, 0);
}
