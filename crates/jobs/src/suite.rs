//! What every backend of the queue must do. A backend's tests call [`run`] on a queue of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use contacts::queue::{Consumer, DeadSink, Delivery, Depths, Job, Queue, Settle, Unreadable};
use contacts::{AccountId, JobId, Kind, Lane, Micros};
use parking_lot::Mutex;

use crate::DELIVERY_LIMIT;

/// A queue under test. It must be empty, hold back a dropped delivery for no time at all, and have a wait of at most a
/// second for [`BRIEFLY`].
#[async_trait]
pub trait Bench: Send + Sync {
    fn queue(&self) -> &dyn Queue;

    /// Puts bytes into a lane that [`Queue::publish`] would never write.
    async fn publish_body(&self, lane: Lane, body: &[u8]);
}

/// The wait that the suite asks for in [`Settle::Later`] and [`Settle::PutOff`].
pub const BRIEFLY: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every part on one queue, one after the other; each leaves it empty.
///
/// # Panics
/// When the backend does not behave.
pub async fn run(bench: &dyn Bench) {
    a_published_job_is_delivered(bench).await;
    a_stuck_lane_does_not_stop_another(bench).await;
    slots_bound_the_deliveries_that_are_out(bench).await;
    settled_later_it_comes_again_as_asked(bench).await;
    put_off_the_same_body_comes_again(bench).await;
    a_dropped_delivery_comes_again(bench).await;
    broken_and_newer_bodies_are_delivered(bench).await;
    depth_follows(bench).await;
    stop_ends_next_but_not_what_is_out(bench).await;
    a_thousand_jobs_come_once_each(bench).await;
    a_job_that_is_never_settled_ends_among_the_dead(bench).await;
    bench.queue().ping().await.expect("the queue is reachable");
    assert!(!bench.queue().is_blocked());
}

/// A job for a random account.
pub fn job(lane: Lane) -> Job {
    let letters = |n: u128| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(n % 32) as usize]);
    let random: u128 = rand::random();
    let account: String = (0..26).map(|place| letters(random.rotate_left(place * 5))).collect();
    Job {
        v: contacts::queue::JOB_VERSION,
        id: JobId::random(),
        kind: Kind::Changes,
        account: account.parse::<AccountId>().expect("26 legal characters"),
        lane,
        attempt: 1,
        at: Micros(1_700_000_000_000_000),
        trace: None,
    }
}

/// The next delivery.
///
/// # Panics
/// When none comes within a minute.
pub async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
    next.expect("a delivery within a minute")
        .expect("the consumer was not stopped")
}

/// Waits until the depth is as described.
///
/// # Panics
/// When it is not within a minute.
pub async fn wait_for_depth(queue: &dyn Queue, what: &str, is: impl Fn(&Depths) -> bool) {
    let started = tokio::time::Instant::now();
    loop {
        let seen = queue.depth().await;
        if seen.as_ref().is_ok_and(&is) {
            return;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "waited for {what}, but it stayed {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn ready(depths: &Depths, lane: Lane) -> u64 {
    depths
        .lanes
        .iter()
        .filter(|depth| depth.lane == lane)
        .map(|depth| depth.ready)
        .sum()
}

fn empty(depths: &Depths) -> bool {
    depths.lanes.len() == Lane::ALL.len()
        && Lane::ALL.iter().all(|lane| ready(depths, *lane) == 0)
        && depths.waiting == 0
        && depths.dead == 0
}

async fn publish(bench: &dyn Bench, job: &Job) {
    let _confirmed = bench.queue().publish(job).await.expect("the job is confirmed");
}

async fn consume(bench: &dyn Bench, lanes: &[Lane], slots: usize) -> Box<dyn Consumer> {
    bench.queue().consume(lanes, slots).await.expect("a consumer")
}

async fn ack(delivery: Delivery) {
    delivery.settle(&Settle::Ack).await.expect("settled");
}

/// Stops the consumer and checks that nothing is left.
async fn finish(bench: &dyn Bench, mut consumer: Box<dyn Consumer>) {
    consumer.stop().await;
    drop(consumer);
    wait_for_depth(bench.queue(), "an empty queue", empty).await;
}

async fn a_published_job_is_delivered(bench: &dyn Bench) {
    let mut consumer = consume(bench, &Lane::ALL, 3).await;
    for lane in Lane::ALL {
        let sent = job(lane);
        publish(bench, &sent).await;
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.job(), Ok(&sent));
        assert_eq!(delivery.body(), sent.to_json());
        ack(delivery).await;
    }
    finish(bench, consumer).await;
}

async fn a_stuck_lane_does_not_stop_another(bench: &dyn Bench) {
    let mut slow = consume(bench, &[Lane::Reconcile], 1).await;
    let mut quick = consume(bench, &[Lane::Build], 1).await;
    for _ in 0..5 {
        publish(bench, &job(Lane::Reconcile)).await;
    }
    let stuck = take(&mut slow).await;
    let urgent = job(Lane::Build);
    publish(bench, &urgent).await;
    let delivery = take(&mut quick).await;
    assert_eq!(delivery.job(), Ok(&urgent));
    ack(delivery).await;
    ack(stuck).await;
    for _ in 0..4 {
        ack(take(&mut slow).await).await;
    }
    quick.stop().await;
    finish(bench, slow).await;
}

async fn slots_bound_the_deliveries_that_are_out(bench: &dyn Bench) {
    for _ in 0..4 {
        publish(bench, &job(Lane::Refresh)).await;
    }
    let mut consumer = consume(bench, &[Lane::Refresh, Lane::Build], 2).await;
    let first = take(&mut consumer).await;
    let second = take(&mut consumer).await;
    // A third would have come at once: the jobs are there. Giving up on `next` loses none of them.
    let third = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
    assert!(third.is_err(), "two slots gave out three deliveries");
    ack(first).await;
    let third = take(&mut consumer).await;
    ack(second).await;
    let fourth = take(&mut consumer).await;
    ack(third).await;
    ack(fourth).await;
    finish(bench, consumer).await;
}

async fn settled_later_it_comes_again_as_asked(bench: &dyn Bench) {
    let mut consumer = consume(bench, &Lane::ALL, 2).await;
    for after in [Duration::ZERO, BRIEFLY] {
        let first = job(Lane::Build);
        publish(bench, &first).await;
        let again = Job {
            attempt: 2,
            lane: Lane::Refresh,
            ..first
        };
        let settle = Settle::Later {
            job: again.clone(),
            after,
        };
        let published = tokio::time::Instant::now();
        take(&mut consumer).await.settle(&settle).await.expect("settled");
        let delivery = take(&mut consumer).await;
        assert!(published.elapsed() >= after, "it came back before it was wanted");
        assert_eq!(delivery.job(), Ok(&again));
        // Its own lane, not only the one in the body.
        delivery
            .settle(&Settle::PutOff { after: Duration::ZERO })
            .await
            .expect("settled");
        let mut lane = consume(bench, &[Lane::Refresh], 1).await;
        consumer.stop().await;
        drop(consumer);
        ack(take(&mut lane).await).await;
        finish(bench, lane).await;
        consumer = consume(bench, &Lane::ALL, 2).await;
    }
    finish(bench, consumer).await;
}

async fn put_off_the_same_body_comes_again(bench: &dyn Bench) {
    let sent = job(Lane::Reconcile);
    publish(bench, &sent).await;
    let mut consumer = consume(bench, &[Lane::Reconcile], 1).await;
    for after in [BRIEFLY, Duration::ZERO] {
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.body(), sent.to_json());
        delivery.settle(&Settle::PutOff { after }).await.expect("settled");
    }
    ack(take(&mut consumer).await).await;
    finish(bench, consumer).await;
}

async fn a_dropped_delivery_comes_again(bench: &dyn Bench) {
    let sent = job(Lane::Build);
    publish(bench, &sent).await;
    let mut consumer = consume(bench, &[Lane::Build], 1).await;
    for _ in 0..2 {
        let dropped = take(&mut consumer).await;
        assert_eq!(dropped.job(), Ok(&sent));
        drop(dropped);
    }
    ack(take(&mut consumer).await).await;
    finish(bench, consumer).await;
}

async fn broken_and_newer_bodies_are_delivered(bench: &dyn Bench) {
    let mut consumer = consume(bench, &[Lane::Refresh], 1).await;
    bench.publish_body(Lane::Refresh, b"\xff\x00 no job").await;
    let broken = take(&mut consumer).await;
    assert!(matches!(broken.job(), Err(Unreadable::Broken(_))), "{broken:?}");
    ack(broken).await;

    let body = br#"{"v":99,"shape":"unknown"}"#;
    bench.publish_body(Lane::Refresh, body).await;
    let newer = take(&mut consumer).await;
    assert_eq!(newer.job(), Err(&Unreadable::Newer(99)));
    newer.settle(&Settle::PutOff { after: BRIEFLY }).await.expect("settled");
    let again = take(&mut consumer).await;
    assert_eq!(again.body(), body);
    ack(again).await;
    finish(bench, consumer).await;
}

async fn depth_follows(bench: &dyn Bench) {
    for (lane, jobs) in [(Lane::Build, 1), (Lane::Refresh, 3)] {
        for _ in 0..jobs {
            publish(bench, &job(lane)).await;
        }
    }
    let queue = bench.queue();
    wait_for_depth(queue, "1 + 3 ready jobs", |d| {
        ready(d, Lane::Build) == 1 && ready(d, Lane::Refresh) == 3
    })
    .await;
    let mut consumer = consume(bench, &[Lane::Build], 1).await;
    let delivery = take(&mut consumer).await;
    wait_for_depth(queue, "no ready build job", |d| ready(d, Lane::Build) == 0).await;
    delivery
        .settle(&Settle::PutOff {
            after: Duration::from_secs(2),
        })
        .await
        .expect("settled");
    wait_for_depth(queue, "a waiting job", |d| d.waiting == 1).await;
    ack(take(&mut consumer).await).await;
    consumer.stop().await;
    let mut consumer = consume(bench, &[Lane::Refresh], 3).await;
    for _ in 0..3 {
        ack(take(&mut consumer).await).await;
    }
    finish(bench, consumer).await;
}

async fn stop_ends_next_but_not_what_is_out(bench: &dyn Bench) {
    for _ in 0..3 {
        publish(bench, &job(Lane::Build)).await;
    }
    let mut consumer = consume(bench, &[Lane::Build], 2).await;
    let out = take(&mut consumer).await;
    consumer.stop().await;
    assert!(consumer.next().await.is_none());
    ack(out).await;
    // What the stopped consumer had not handed out belongs to others again.
    let mut other = consume(bench, &[Lane::Build], 2).await;
    for _ in 0..2 {
        ack(take(&mut other).await).await;
    }
    finish(bench, other).await;
}

async fn a_thousand_jobs_come_once_each(bench: &dyn Bench) {
    const JOBS: u64 = 1000;
    let jobs: Vec<Job> = Lane::ALL
        .iter()
        .cycle()
        .take(JOBS as usize)
        .map(|lane| job(*lane))
        .collect();
    let seen = Mutex::new(BTreeMap::<JobId, u32>::new());
    let settled = AtomicU64::new(0);
    let publish_all = async {
        for batch in jobs.chunks(100) {
            futures::future::join_all(batch.iter().map(|job| publish(bench, job))).await;
        }
    };
    let consume_some = || async {
        let mut consumer = consume(bench, &Lane::ALL, 8).await;
        while settled.load(Ordering::SeqCst) < JOBS {
            // The last job may go to another consumer, so look up from time to time.
            let Ok(next) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await else {
                continue;
            };
            let delivery = next.expect("the consumer was not stopped");
            let id = delivery.job().expect("readable").id.clone();
            *seen.lock().entry(id).or_default() += 1;
            ack(delivery).await;
            settled.fetch_add(1, Ordering::SeqCst);
        }
        consumer.stop().await;
    };
    let all = async { tokio::join!(publish_all, consume_some(), consume_some(), consume_some()) };
    tokio::time::timeout(PATIENCE * 2, all)
        .await
        .expect("a thousand jobs within two minutes");
    wait_for_depth(bench.queue(), "an empty queue", empty).await;
    let seen = seen.into_inner();
    assert_eq!(seen.len(), jobs.len());
    assert!(
        seen.values().all(|times| *times == 1),
        "a job came twice although nothing failed"
    );
}

async fn a_job_that_is_never_settled_ends_among_the_dead(bench: &dyn Bench) {
    let sent = job(Lane::Refresh);
    publish(bench, &sent).await;
    let mut consumer = consume(bench, &[Lane::Refresh], 1).await;
    for _ in 0..=DELIVERY_LIMIT {
        drop(take(&mut consumer).await);
    }
    wait_for_depth(bench.queue(), "a dead job", |depths| depths.dead == 1).await;

    let full = Sink {
        bodies: Mutex::default(),
        fails: true,
    };
    assert_eq!(bench.queue().drain_dead(&full).await.expect("drained"), 0);
    assert_eq!(full.bodies.lock().len(), 1, "the sink was asked");
    wait_for_depth(bench.queue(), "the dead job still there", |depths| depths.dead == 1).await;

    let sink = Sink {
        bodies: Mutex::default(),
        fails: false,
    };
    assert_eq!(bench.queue().drain_dead(&sink).await.expect("drained"), 1);
    let bodies = sink.bodies.into_inner();
    assert_eq!(bodies[0].0, sent.to_json());
    assert!(!bodies[0].1.is_empty(), "a reason is given");
    finish(bench, consumer).await;
}

struct Sink {
    bodies: Mutex<Vec<(Vec<u8>, String)>>,
    fails: bool,
}

#[async_trait]
impl DeadSink for Sink {
    async fn put(&self, body: &[u8], reason: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.bodies.lock().push((body.to_vec(), reason.to_owned()));
        if self.fails {
            Err("the sink is full".into())
        } else {
            Ok(())
        }
    }
}
