//! A queue in memory with the behaviour of the others, and knobs, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use contacts::queue::{Confirmed, Consumer, DeadSink, Depths, Job, Queue, QueueError, QueueErrorKind, QueueResult};
use contacts::{Clock, Lane};

use crate::SqliteQueue;

/// A queue that is gone with its process. A waiting consumer looks at the clock every 10 ms, so a test's own clock works.
#[derive(Clone)]
pub struct MemoryQueue {
    queue: SqliteQueue,
    down: Arc<AtomicBool>,
    blocked: Arc<AtomicBool>,
}

impl MemoryQueue {
    /// # Errors
    /// `Unavailable` if no thread can be started.
    pub fn new(clock: Arc<dyn Clock>) -> QueueResult<MemoryQueue> {
        Ok(MemoryQueue {
            queue: SqliteQueue::in_memory(clock)?,
            down: Arc::default(),
            blocked: Arc::default(),
        })
    }

    /// While down, publishing, consuming, counting and pinging fail as if the broker were out of reach.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// While blocked, publishing fails and [`Queue::is_blocked`] says so.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }

    /// The readable jobs that wait for a consumer, also those that are not due yet, oldest first.
    pub async fn jobs(&self) -> QueueResult<Vec<Job>> {
        Ok(self
            .queue
            .bodies()
            .await?
            .iter()
            .filter_map(|body| Job::read(body).ok())
            .collect())
    }

    /// Puts any bytes into a lane, as a broken or a newer publisher would.
    pub async fn publish_body(&self, lane: Lane, body: Vec<u8>) -> QueueResult<Confirmed> {
        self.queue.publish_body(lane, body).await
    }

    fn reachable(&self) -> QueueResult<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(QueueError::new(
                QueueErrorKind::Unavailable,
                "the queue in memory is switched off",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, job: &Job) -> QueueResult<Confirmed> {
        self.reachable()?;
        if self.is_blocked() {
            return Err(QueueError::new(
                QueueErrorKind::Unavailable,
                "the queue in memory is switched to blocked",
            ));
        }
        self.queue.publish(job).await
    }

    async fn consume(&self, lanes: &[Lane], slots: usize) -> QueueResult<Box<dyn Consumer>> {
        self.reachable()?;
        self.queue.consume(lanes, slots).await
    }

    async fn depth(&self) -> QueueResult<Depths> {
        self.reachable()?;
        self.queue.depth().await
    }

    async fn drain_dead(&self, sink: &dyn DeadSink) -> QueueResult<u64> {
        self.reachable()?;
        self.queue.drain_dead(sink).await
    }

    fn describe(&self) -> String {
        self.queue.describe()
    }

    async fn ping(&self) -> QueueResult<()> {
        self.reachable()
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use contacts::SystemClock;

    use super::*;
    use crate::suite;

    struct Memory(MemoryQueue);

    #[async_trait]
    impl suite::Bench for Memory {
        fn queue(&self) -> &dyn Queue {
            &self.0
        }

        async fn publish_body(&self, lane: Lane, body: &[u8]) {
            let _confirmed = self.0.publish_body(lane, body.to_vec()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_queue_in_memory_passes_the_suite() {
        suite::run(&Memory(MemoryQueue::new(Arc::new(SystemClock)).unwrap())).await;
    }

    #[tokio::test]
    async fn switched_off_it_refuses_and_switched_on_it_goes_on() {
        let queue = MemoryQueue::new(Arc::new(SystemClock)).unwrap();
        let job = suite::job(Lane::Build);
        queue.set_down(true);
        assert_eq!(queue.publish(&job).await.unwrap_err().kind, QueueErrorKind::Unavailable);
        assert!(queue.ping().await.is_err());
        queue.set_down(false);
        let _confirmed = queue.publish(&job).await.unwrap();
        assert_eq!(queue.jobs().await.unwrap(), [job]);
        let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
        let delivery = tokio::time::timeout(Duration::from_secs(10), consumer.next())
            .await
            .unwrap();
        assert!(delivery.is_some());
    }
}
