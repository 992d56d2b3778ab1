//! The depths that `/metrics` shows against RabbitMQ's own list of queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::{Job, JobId, Kind, Lane, Micros, SystemClock};

use super::Watched;
use crate::faults::rabbit::Rabbit;
use crate::faults::{NAMESPACE, Rig};
use crate::harness::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depths_are_the_brokers_own_counts() {
    let Some(redis) = crate::faults::own_redis().await else {
        return;
    };
    let Some(rabbit) = Rabbit::start().await else { return };
    let url = rabbit.url();
    let rig = Rig::new(1, &redis.url(), &url).await;
    assert_eq!(rig.command(&["migrate"]).await.0, Some(0));
    let mut front = rig.start("serve");
    front.until_ready().await;
    let settings = jobs::RabbitSettings::default();
    let queue = jobs::connect(&url, NAMESPACE, settings, Arc::new(SystemClock))
        .await
        .expect("the queue");
    let publish = async |lane, jobs: u32| {
        for _ in 0..jobs {
            let _confirmed = queue.publish(&job(lane)).await.expect("published");
        }
    };
    // What the broker gives up on: jobs of a lane where they expire at once.
    let lane = format!("^{NAMESPACE}\\.v1\\.reconcile$");
    rabbit
        .control(&[
            "set_policy",
            "expire",
            &lane,
            r#"{"message-ttl":1}"#,
            "--apply-to",
            "queues",
        ])
        .await;
    publish(Lane::Reconcile, 5).await;
    let counts = async || {
        let listed = rabbit
            .control(&["list_queues", "--quiet", "name", "messages_ready"])
            .await;
        let lines = listed.lines().filter_map(|line| line.split_once('\t'));
        let prefix = format!("{NAMESPACE}.v1.");
        lines
            .filter_map(|(name, count)| Some((name.strip_prefix(&prefix)?.to_owned(), count.parse::<u32>().ok()?)))
            .collect::<BTreeMap<_, _>>()
    };
    until("they are dead", async || counts().await.get("dead") == Some(&5)).await;
    rabbit.control(&["clear_policy", "expire"]).await;
    // What waits: jobs that a worker put off.
    publish(Lane::Refresh, 4).await;
    let mut consumer = queue.consume(&[Lane::Refresh], 4).await.expect("a consumer");
    for _ in 0..4 {
        let delivery = consumer.next().await.expect("a job");
        let hour = std::time::Duration::from_secs(3_600);
        delivery
            .settle(&contacts::queue::Settle::PutOff { after: hour })
            .await
            .expect("put off");
    }
    consumer.stop().await;
    let ready = [(Lane::Build, 3), (Lane::Refresh, 2), (Lane::Reconcile, 1)];
    for (lane, jobs) in ready {
        publish(lane, jobs).await;
    }

    let watched = Watched::new(rig, vec![front]);
    let shows = async |name: &str, label: &str, jobs: u32| {
        until(&format!("{name} {label} {jobs}"), async || {
            watched.value(name, label).await == f64::from(jobs)
        })
        .await;
    };
    for (lane, jobs) in ready {
        shows("snapbridge_queue_depth", &format!("lane=\"{lane}\""), jobs).await;
    }
    shows("snapbridge_queue_waiting", "", 4).await;
    shows("snapbridge_queue_dead", "", 5).await;
    let counts = counts().await;
    let counted = ["build", "refresh", "reconcile", "wait.1h", "dead"].map(|name| counts.get(name).copied());
    assert_eq!(counted, [3, 2, 1, 4, 5].map(Some), "the broker's own count: {counts:?}");
}

fn job(lane: Lane) -> Job {
    let account = "abcdefghijklmnopqrstuvwx23".parse().expect("an account id");
    let at = Micros::from_secs(1);
    Job {
        v: contacts::queue::JOB_VERSION,
        id: JobId::random(),
        kind: Kind::Changes,
        account,
        lane,
        attempt: 1,
        at,
        trace: None,
    }
}
