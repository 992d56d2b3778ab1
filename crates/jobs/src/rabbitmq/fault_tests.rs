//! Faults of a broker of our own. One test, since a start takes seconds: each part begins with a working queue and leaves
//! one behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contacts::queue::{Queue, QueueErrorKind, QueueResult, Settle};
use contacts::{JobId, Lane};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::{RabbitQueue, RabbitSettings, State, migrate};
use crate::suite::{job, take};
use crate::testing::{Broker, wait_until};

const NAMESPACE: &str = "faults";

fn settings() -> RabbitSettings {
    RabbitSettings {
        heartbeat: Duration::from_secs(2),
        confirm_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        ..RabbitSettings::default()
    }
}

/// A queue, and a consumer of its refresh lane that settles whatever comes, for as long as this lives.
struct Set {
    queue: Arc<RabbitQueue>,
    seen: Arc<Mutex<BTreeSet<JobId>>>,
    _consumer: AbortOnDropHandle<()>,
}

impl Set {
    async fn up(broker: &Broker) -> Set {
        let queue = Arc::new(
            RabbitQueue::connect(&broker.url(), NAMESPACE, settings())
                .await
                .unwrap(),
        );
        let mut consumer = queue.consume(&[Lane::Refresh], 4).await.unwrap();
        let seen: Arc<Mutex<BTreeSet<JobId>>> = Arc::default();
        let into = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                let id = delivery.job().unwrap().id.clone();
                // Unsettled it comes again, which is what is wanted of it.
                let _ = delivery.settle(&Settle::Ack).await;
                into.lock().insert(id);
            }
        });
        Set {
            queue,
            seen,
            _consumer: AbortOnDropHandle::new(task),
        }
    }

    async fn publish(&self) -> QueueResult<JobId> {
        let job = job(Lane::Refresh);
        let confirmed = tokio::time::timeout(Duration::from_secs(30), self.queue.publish(&job)).await;
        let _ = confirmed.expect("a publish ends in bounded time")?;
        Ok(job.id)
    }

    /// Publishing works again, and what was published comes through.
    async fn works(&self, after: &str) {
        wait_until(&format!("a confirmed publish after {after}"), || async {
            match self.publish().await {
                Ok(id) => {
                    wait_until(&format!("its delivery after {after}"), || async {
                        self.seen.lock().contains(&id)
                    })
                    .await;
                    true
                }
                Err(_) => false,
            }
        })
        .await;
        wait_until(&format!("a ping after {after}"), || async {
            self.queue.ping().await.is_ok()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_broker() {
    let Some(mut broker) = Broker::start().await else {
        return;
    };
    let reports = migrate(&broker.url(), NAMESPACE, false).await.unwrap();
    assert!(reports.iter().all(|report| report.state == State::Created));
    // A quorum queue loses what it confirmed if its broker is killed within about two seconds of the declaration. That is
    // the broker's fault, not what is tested here.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let set = Set::up(&broker).await;
    set.works("the start").await;

    killed_and_restarted(&set, &mut broker).await;
    all_connections_closed(&set, &broker).await;
    memory_alarm(&set, &broker).await;
    frozen(&set, &broker).await;
    queue_full(&set, &broker).await;
}

/// Nothing confirmed is lost, and everything goes on by itself.
async fn killed_and_restarted(set: &Set, broker: &mut Broker) {
    let confirmed: Mutex<Vec<JobId>> = Mutex::default();
    let restarted = std::sync::atomic::AtomicBool::new(false);
    let publish = async {
        // At least fifty after the restart, however many before.
        let mut left = 50;
        while left > 0 {
            let was_restarted = restarted.load(std::sync::atomic::Ordering::SeqCst);
            match set.publish().await {
                Ok(id) => {
                    confirmed.lock().push(id);
                    left -= usize::from(was_restarted);
                }
                // Nothing was promised for this one.
                Err(error) => assert_eq!(error.kind, QueueErrorKind::Unavailable, "{error}"),
            }
        }
    };
    let kill = async {
        wait_until("300 confirmed jobs", || async { confirmed.lock().len() >= 300 }).await;
        broker.kill();
        broker.restart().await;
        restarted.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    tokio::join!(publish, kill);
    let confirmed = confirmed.into_inner();
    wait_until("every confirmed job", || async {
        let seen = set.seen.lock();
        confirmed.iter().all(|id| seen.contains(id))
    })
    .await;
    set.works("the kill").await;
}

async fn all_connections_closed(set: &Set, broker: &Broker) {
    broker.control(&["close_all_connections", "by the operator"]).await;
    set.works("the forced close").await;
}

/// Publishers are blocked; consumers still settle.
async fn memory_alarm(set: &Set, broker: &Broker) {
    let mut consumer = set.queue.consume(&[Lane::Build], 1).await.unwrap();
    let _ = set.queue.publish(&job(Lane::Build)).await.unwrap();
    let held = take(&mut consumer).await;

    broker.control(&["set_vm_memory_high_watermark", "0.00001"]).await;
    wait_until("a publish that is not confirmed", || async {
        set.publish()
            .await
            .is_err_and(|error| error.kind == QueueErrorKind::Unavailable)
    })
    .await;
    wait_until("the broker's word that it blocks", || async { set.queue.is_blocked() }).await;
    assert!(set.queue.ping().await.is_err());
    held.settle(&Settle::Ack).await.unwrap();
    assert!(set.queue.depth().await.is_ok());

    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    set.works("the alarm").await;
    assert!(!set.queue.is_blocked());
    consumer.stop().await;
}

/// Connections stand and say nothing. Only time limits and heartbeats help.
async fn frozen(set: &Set, broker: &Broker) {
    broker.freeze();
    let error = set.publish().await.unwrap_err();
    assert_eq!(error.kind, QueueErrorKind::Unavailable);
    assert!(set.queue.depth().await.is_err());
    broker.thaw();
    set.works("the freeze").await;
}

async fn queue_full(set: &Set, broker: &Broker) {
    let lane = format!("^{NAMESPACE}\\.v1\\.reconcile$");
    broker
        .control(&[
            "set_policy",
            "full",
            &lane,
            r#"{"max-length":1}"#,
            "--apply-to",
            "queues",
        ])
        .await;
    wait_until("a refusal", || async {
        let published = set.queue.publish(&job(Lane::Reconcile)).await;
        published.is_err_and(|error| error.kind == QueueErrorKind::Refused)
    })
    .await;
    set.works("the refusal").await;
}
