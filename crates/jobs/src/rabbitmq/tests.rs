use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use contacts::queue::Settle;

use super::*;
use crate::suite::{self, job, take};
use crate::testing::{in_namespace, service_url, wait_until};

struct OnRabbit(RabbitQueue);

#[async_trait]
impl suite::Bench for OnRabbit {
    fn queue(&self) -> &dyn Queue {
        &self.0
    }

    async fn publish_body(&self, lane: Lane, body: &[u8]) {
        let _confirmed = self.0.publish_body(lane, body).await.unwrap();
    }
}

fn quick() -> RabbitSettings {
    RabbitSettings {
        redelivery: Duration::ZERO,
        extra_tiers: vec![suite::BRIEFLY, Duration::from_secs(2)],
        confirm_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        ..RabbitSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_on_rabbitmq_passes_the_suite() {
    let Some(url) = service_url().await else { return };
    in_namespace(&url.clone(), quick(), |namespace| async move {
        let queue = RabbitQueue::connect(&url, &namespace, quick()).await.unwrap();
        suite::run(&OnRabbit(queue)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_declares_what_is_missing_once_and_names_what_differs() {
    let Some(url) = service_url().await else { return };
    in_namespace(&url.clone(), RabbitSettings::default(), |namespace| async move {
        let states = |reports: &[Report]| reports.iter().map(|report| report.state.clone()).collect::<Vec<_>>();
        let dry = migrate(&url, &namespace, true).await.unwrap();
        assert!(states(&dry).iter().all(|state| *state == State::Missing), "{dry:?}");
        let first = migrate(&url, &namespace, false).await.unwrap();
        assert_eq!(first.len(), dry.len());
        assert!(states(&first).iter().all(|state| *state == State::Created), "{first:?}");
        for dry_run in [false, true] {
            let again = migrate(&url, &namespace, dry_run).await.unwrap();
            assert!(states(&again).iter().all(|state| *state == State::Present), "{again:?}");
        }

        // An operator (or another build) declares a lane otherwise.
        let connection = target(&url, &RabbitSettings::default())
            .unwrap()
            .connect("test")
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let lane = format!("{namespace}.v1.refresh");
        channel
            .queue_delete(lane.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        let durable = QueueDeclareOptions::durable();
        channel
            .queue_declare(lane.as_str().into(), durable, FieldTable::default())
            .await
            .unwrap();

        let reports = migrate(&url, &namespace, false).await.unwrap();
        let different: Vec<&Report> = reports.iter().filter(|report| report.state != State::Present).collect();
        assert_eq!(different.len(), 1, "{different:?}");
        assert_eq!(different[0].object, format!("queue {lane}"));
        let sentence = different[0].to_string();
        assert!(
            sentence.contains("not as recorded") && sentence.contains("delete it"),
            "{sentence}"
        );

        let queue = RabbitQueue::connect(&url, &namespace, RabbitSettings::default())
            .await
            .unwrap();
        for error in [
            queue.publish(&job(Lane::Build)).await.unwrap_err(),
            queue.ping().await.unwrap_err(),
        ] {
            assert_eq!(error.kind, QueueErrorKind::Topology);
            assert!(error.to_string().contains(&lane), "{error}");
        }
        assert_eq!(
            queue.consume(&[Lane::Build], 1).await.err().unwrap().kind,
            QueueErrorKind::Topology
        );

        // Once the operator has deleted it, everything comes back by itself.
        channel
            .queue_delete(lane.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        wait_until("publishing works again", || async {
            queue.publish(&job(Lane::Refresh)).await.is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again_and_its_consumer_goes_on() {
    let Some(url) = service_url().await else { return };
    in_namespace(&url.clone(), quick(), |namespace| async move {
        let queue = RabbitQueue::connect(&url, &namespace, quick()).await.unwrap();
        let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
        let _ = queue.publish(&job(Lane::Build)).await.unwrap();
        take(&mut consumer).await.settle(&Settle::Ack).await.unwrap();
        let connection = target(&url, &quick()).unwrap().connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for lane in ["build", "refresh"] {
            let name = format!("{namespace}.v1.{lane}");
            channel
                .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
                .await
                .unwrap();
        }
        let rung = job(Lane::Build);
        let _ = queue.publish(&rung).await.unwrap();
        assert_eq!(take(&mut consumer).await.job(), Ok(&rung));
        // Nobody consumes this one: the message that came back is the only sign.
        let _ = queue.publish(&job(Lane::Refresh)).await.unwrap();
        suite::wait_for_depth(&queue, "the job", |depths| depths.lanes[1].ready == 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_no_reason_not_to_start() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = RabbitSettings {
        connect_timeout: Duration::from_millis(300),
        outage_wait: Duration::from_millis(100),
        ..RabbitSettings::default()
    };
    let url = format!("amqp://user:hunter2@127.0.0.1:{port}");
    let queue = RabbitQueue::connect(&url, "away", settings).await.unwrap();
    let errors = [
        queue.publish(&job(Lane::Build)).await.unwrap_err(),
        queue.depth().await.unwrap_err(),
        queue.ping().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, QueueErrorKind::Unavailable);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    assert!(!queue.describe().contains("hunter2"));
    let mut consumer = queue.consume(&Lane::ALL, 1).await.unwrap();
    consumer.stop().await;
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn urls_that_are_none_are_refused_without_repeating_them() {
    for url in ["amqp://u:hunter2@h:port", "amqps://u:hunter2@h", "amqp:hunter2"] {
        let error = RabbitQueue::connect(url, "n", RabbitSettings::default())
            .await
            .err()
            .unwrap();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Deleted and declared again at once, as a script of an operator would: the broker does not tell the consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_forgot_finds_out() {
    let Some(url) = service_url().await else { return };
    let settings = || RabbitSettings {
        renewal: Duration::from_secs(1),
        ..quick()
    };
    in_namespace(&url.clone(), settings(), |namespace| async move {
        let queue = RabbitQueue::connect(&url, &namespace, settings()).await.unwrap();
        let mut consumer = queue.consume(&[Lane::Build], 1).await.unwrap();
        let _ = queue.publish(&job(Lane::Build)).await.unwrap();
        take(&mut consumer).await.settle(&Settle::Ack).await.unwrap();
        let connection = target(&url, &quick()).unwrap().connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let layout = Layout::new(&namespace, &[]).unwrap();
        let lane = layout.queues.iter().find(|queue| queue.routing_key == "build").unwrap();
        let name = || ShortString::from(lane.name.as_str());
        channel
            .queue_delete(name(), QueueDeleteOptions::default())
            .await
            .unwrap();
        channel
            .queue_declare(name(), QueueDeclareOptions::durable(), lane.arguments.clone())
            .await
            .unwrap();
        let (exchange, key) = (lane.exchange.as_str().into(), "build".into());
        channel
            .queue_bind(name(), exchange, key, Default::default(), FieldTable::default())
            .await
            .unwrap();
        let rung = job(Lane::Build);
        let _ = queue.publish(&rung).await.unwrap();
        assert_eq!(take(&mut consumer).await.job(), Ok(&rung));
    })
    .await;
}
