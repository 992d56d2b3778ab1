//! The queue on RabbitMQ 3.10 and newer: quorum queues, publisher confirms, one connection to publish and one to consume.
//!
//! A quorum queue that was declared less than about two seconds before its broker is killed loses what it had confirmed;
//! so does a broker that loses its disk. The store is the second witness: the sweep rings again for work that is due.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::Lane;
use contacts::queue::{
    Confirmed, Consumer, DeadSink, Depth, Depths, Job, Queue, QueueError, QueueErrorKind, QueueResult,
};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use tokio_util::task::AbortOnDropHandle;

use self::consumer::RabbitConsumer;
use self::declare::Declare;
use self::keeper::Keeper;
use self::layout::Layout;
use self::link::{Fault, Link, Target, bounded};
use self::publisher::Publisher;

pub use self::declare::{Report, State};

mod consumer;
mod declare;
mod keeper;
mod layout;
mod link;
mod publisher;

/// How patient the queue is with its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitSettings {
    /// A broker that is silent for twice as long counts as gone. Whole seconds.
    pub heartbeat: Duration,
    /// Limit of an attempt to connect, and of each call but publishing.
    pub connect_timeout: Duration,
    /// Limit of a publish from the call to the confirmation.
    pub confirm_timeout: Duration,
    /// How long a publish waits for a reconnect before it gives up.
    pub outage_wait: Duration,
    /// How long a delivery that was dropped unsettled is held back for the first time; doubles up to 15 s.
    pub redelivery: Duration,
    /// A subscription that delivered nothing for so long is made anew. A consumer whose queue somebody deletes and declares
    /// again at once gets nothing ever after, and is told nothing.
    pub renewal: Duration,
    /// Waits beside the recorded ones, for tests.
    pub extra_tiers: Vec<Duration>,
}

impl Default for RabbitSettings {
    fn default() -> RabbitSettings {
        RabbitSettings {
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            confirm_timeout: Duration::from_secs(5),
            outage_wait: Duration::from_secs(1),
            redelivery: Duration::from_secs(1),
            renewal: Duration::from_secs(60),
            extra_tiers: Vec::new(),
        }
    }
}

/// Jobs in RabbitMQ.
pub struct RabbitQueue {
    shared: Arc<Shared>,
    place: String,
    _watch: AbortOnDropHandle<()>,
}

/// What consumers and their deliveries need, also after the queue's handle is gone.
struct Shared {
    settings: RabbitSettings,
    /// Everything but publishing: consuming, counting, declaring. Never blocked by the broker's alarms.
    control: Arc<Link>,
    keeper: Arc<Keeper>,
    publisher: Publisher,
}

impl RabbitQueue {
    /// Starts to connect and waits a little for the first look at the topology. A broker that is away, or a queue that
    /// differs from what is recorded, is no error here (a front serves without a queue): publishing and consuming say so.
    ///
    /// # Errors
    /// `Unavailable` if the URL is none, `Topology` if the namespace is illegal.
    pub async fn connect(url: &str, namespace: &str, settings: RabbitSettings) -> QueueResult<RabbitQueue> {
        let target = target(url, &settings)?;
        let layout = Layout::new(namespace, &settings.extra_tiers)?;
        let place = place(&target.uri, namespace);
        let control = Arc::new(Link::start("control", target.clone()));
        let keeper = Arc::new(Keeper::new(layout, control.clone(), settings.connect_timeout));
        let publisher = Publisher::new(Link::start("publisher", target), keeper.clone(), settings.clone());
        let watch = AbortOnDropHandle::new(tokio::spawn(keeper.clone().watch()));
        if let Err(error) = keeper.first_look(settings.connect_timeout).await {
            tracing::error!(error = crate::with_source(&error), "nothing can be published");
        }
        Ok(RabbitQueue {
            shared: Arc::new(Shared {
                settings,
                control,
                keeper,
                publisher,
            }),
            place,
            _watch: watch,
        })
    }

    /// Puts any bytes into a lane. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub async fn publish_body(&self, lane: Lane, body: &[u8]) -> QueueResult<Confirmed> {
        self.shared.publisher.publish(lane, Duration::ZERO, body, None).await
    }

    async fn live(&self) -> Result<Arc<link::Live>, Fault> {
        self.shared.control.live_within(self.shared.settings.outage_wait).await
    }
}

fn target(url: &str, settings: &RabbitSettings) -> QueueResult<Target> {
    // The parser's own message may repeat the URL, which holds a password.
    let illegal = |_| {
        QueueError::new(
            QueueErrorKind::Unavailable,
            "the queue's URL is not of the form amqp://user:password@host:5672/vhost",
        )
    };
    let mut uri: AMQPUri = url.parse().map_err(illegal)?;
    if uri.scheme == AMQPScheme::AMQPS {
        let why = "this build speaks amqp only; put a TLS tunnel before the broker, or build with TLS";
        return Err(QueueError::new(QueueErrorKind::Unavailable, why));
    }
    uri.query.heartbeat = Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1));
    uri.query.connection_timeout = Some(u64::try_from(settings.connect_timeout.as_millis()).unwrap_or(u64::MAX));
    Ok(Target {
        uri,
        limit: settings.connect_timeout,
    })
}

fn place(uri: &AMQPUri, namespace: &str) -> String {
    let authority = &uri.authority;
    format!(
        "rabbitmq {}:{} vhost {} namespace {namespace}",
        authority.host, authority.port, uri.vhost
    )
}

/// Declares what is recorded for the namespace, or (with `dry_run`) only looks.
///
/// # Errors
/// `Unavailable` if the broker cannot be reached. A queue that differs is no error but a report.
pub async fn migrate(url: &str, namespace: &str, dry_run: bool) -> QueueResult<Vec<Report>> {
    let settings = RabbitSettings::default();
    let (target, layout) = (target(url, &settings)?, Layout::new(namespace, &[])?);
    let connection = target.connect("migrate").await?;
    let declare = if dry_run { Declare::Never } else { Declare::AtOnce };
    let reports = declare::bring(&connection, &layout, LONG, declare).await?;
    close(connection).await;
    Ok(reports)
}

/// Deletes everything of a namespace, with the jobs in it. For tests.
pub async fn delete_namespace(url: &str, namespace: &str, settings: &RabbitSettings) -> QueueResult<()> {
    let (target, layout) = (target(url, settings)?, Layout::new(namespace, &settings.extra_tiers)?);
    let connection = target.connect("delete").await?;
    declare::delete(&connection, &layout, LONG).await?;
    close(connection).await;
    Ok(())
}

/// Limit of a call where nobody waits for an answer in a request: a busy broker may take a while to make a queue.
const LONG: Duration = Duration::from_secs(30);

async fn close(connection: lapin::Connection) {
    if let Err(fault) = bounded("closing", Duration::from_secs(3), connection.close(200, "done".into())).await {
        tracing::debug!(
            error = crate::with_source(&fault),
            "the connection was not closed in an orderly way"
        );
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn publish(&self, job: &Job) -> QueueResult<Confirmed> {
        self.shared
            .publisher
            .publish(job.lane, Duration::ZERO, &job.to_json(), Some(&job.id))
            .await
    }

    /// Each lane prefetches `slots`, of which at most `slots` over all lanes are handed out: call it once per lane where
    /// lanes are to have slots of their own.
    async fn consume(&self, lanes: &[Lane], slots: usize) -> QueueResult<Box<dyn Consumer>> {
        self.shared.keeper.check()?;
        Ok(Box::new(RabbitConsumer::start(self.shared.clone(), lanes, slots)?))
    }

    async fn depth(&self) -> QueueResult<Depths> {
        let layout = &self.shared.keeper.layout;
        let dead = layout.dead_queue();
        let mut queues = vec![dead.as_str()];
        for lane in Lane::ALL {
            queues.push(layout.lane_queue(lane)?);
        }
        queues.extend(layout.wait_queues());
        let live = self.live().await?;
        let counts = declare::count(&live.connection, &queues, self.shared.settings.connect_timeout).await?;
        // A queue that is missing holds nothing; whoever publishes or consumes next declares it again.
        let counts: Vec<u64> = counts.into_iter().map(Option::unwrap_or_default).collect();
        let (dead, rest) = counts
            .split_first()
            .map_or((0, &[][..]), |(first, rest)| (*first, rest));
        let (lanes, waits) = rest.split_at(Lane::ALL.len().min(rest.len()));
        let lanes = Lane::ALL.iter().zip(lanes).map(|(lane, ready)| Depth {
            lane: *lane,
            ready: *ready,
        });
        Ok(Depths {
            lanes: lanes.collect(),
            waiting: waits.iter().sum(),
            dead,
        })
    }

    async fn drain_dead(&self, sink: &dyn DeadSink) -> QueueResult<u64> {
        /// A sink that fails so often in a row is out of order.
        const ENOUGH: usize = 10;
        let limit = self.shared.settings.connect_timeout;
        let channel = self.live().await?.channel(limit).await?;
        let queue = self.shared.keeper.layout.dead_queue();
        let (mut drained, mut kept) = (0, Vec::new());
        while kept.len() < ENOUGH {
            let get = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
            let Some(message) = bounded("taking a dead job", limit, get).await? else {
                break;
            };
            match sink.put(&message.delivery.data, &reason(&message)).await {
                Ok(()) => {
                    let ack = message.delivery.acker.ack(BasicAckOptions::default());
                    // Unacknowledged it stays, and is stored once more the next time.
                    if !bounded("acknowledging a dead job", limit, ack).await? {
                        break;
                    }
                    drained += 1;
                }
                Err(error) => {
                    tracing::warn!(
                        error = crate::with_source(&*error),
                        "a dead job stays in the queue: it could not be stored"
                    );
                    kept.push(message);
                }
            }
        }
        // Given back only now, or they would be taken again at once.
        for message in kept {
            let back = message.delivery.acker.reject(BasicRejectOptions { requeue: true });
            bounded("giving back a dead job", limit, back).await?;
        }
        Ok(drained)
    }

    fn describe(&self) -> String {
        self.place.clone()
    }

    async fn ping(&self) -> QueueResult<()> {
        let shared = &self.shared;
        shared.keeper.check()?;
        let publisher = shared.publisher.link().live_within(shared.settings.outage_wait).await?;
        if publisher.is_blocked() {
            let why = "RabbitMQ blocks publishers (memory or disk alarm)";
            return Err(QueueError::new(QueueErrorKind::Unavailable, why));
        }
        publisher.channel(shared.settings.connect_timeout).await?;
        Ok(())
    }

    fn is_blocked(&self) -> bool {
        self.shared.publisher.is_blocked()
    }
}

/// Why the broker gave up on a job, and where, from the headers it adds.
fn reason(message: &BasicGetMessage) -> String {
    let header = |name: &str| {
        let headers = message.delivery.properties.headers().as_ref()?;
        match headers.inner().get(&ShortString::from(name))? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    };
    let why = header("x-first-death-reason").unwrap_or_else(|| "dead-lettered".to_owned());
    let queue = header("x-first-death-queue").unwrap_or_else(|| "an unknown queue".to_owned());
    format!("{why} in {queue}")
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
