//! Consumes, and goes on consuming: over reconnects, over deleted queues, over what the broker cancels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contacts::Lane;
use contacts::queue::{Consumer, Delivery, QueueError, QueueErrorKind, QueueResult, Settle, Settler};
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, Channel};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::link::{Fault, Live, bounded, delays, next_delay};
use super::{RabbitSettings, Shared};
use crate::{redelivery_delay, with_source};

/// RabbitMQ's bound for a quorum queue.
const LARGEST_PREFETCH: usize = 2000;

pub(super) struct RabbitConsumer {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    drivers: TaskTracker,
    _stop_on_drop: DropGuard,
}

/// A delivery that nobody has asked for yet. Their number is bounded by the prefetch.
struct Incoming {
    lane: Lane,
    body: Vec<u8>,
    held: Held,
}

impl RabbitConsumer {
    /// One driver per lane, so that a lane whose queue is away does not hold up the others. Each lane prefetches `slots`.
    pub(super) fn start(shared: Arc<Shared>, lanes: &[Lane], slots: usize) -> QueueResult<RabbitConsumer> {
        let slots = slots.clamp(1, LARGEST_PREFETCH);
        let (sender, incoming) = mpsc::unbounded_channel();
        let (stop, drivers) = (CancellationToken::new(), TaskTracker::new());
        for lane in lanes {
            let queue = shared.keeper.layout.lane_queue(*lane)?.to_owned();
            let (shared, sender, stop) = (shared.clone(), sender.clone(), stop.clone());
            drivers.spawn(
                Driver {
                    shared,
                    lane: *lane,
                    queue,
                    prefetch: slots,
                    sender,
                    stop,
                }
                .run(),
            );
        }
        drivers.close();
        let (slots, guard) = (Arc::new(Semaphore::new(slots)), stop.clone().drop_guard());
        Ok(RabbitConsumer {
            shared,
            incoming,
            slots,
            stop,
            drivers,
            _stop_on_drop: guard,
        })
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        if self.stop.is_cancelled() {
            return None;
        }
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        loop {
            let incoming = self.incoming.recv().await?;
            // Of a connection that is gone: it comes again on the next one.
            if incoming.held.is_current() {
                let Incoming { lane, body, held } = incoming;
                let shared = self.shared.clone();
                let out = Out {
                    held: Some(held),
                    settings: shared.settings.clone(),
                    runtime: Handle::current(),
                };
                return Some(Delivery::new(
                    body,
                    Box::new(RabbitSettler {
                        lane,
                        out,
                        shared,
                        _slot: slot,
                    }),
                ));
            }
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.drivers.wait().await;
        while let Ok(incoming) = self.incoming.try_recv() {
            incoming.held.give_back(self.shared.settings.connect_timeout).await;
        }
    }
}

/// How a subscription ended without an error.
enum End {
    Stopped,
    /// Nothing came for a while.
    Idle,
    /// By the broker: the queue was deleted, or it had another reason. No end for us.
    Cancelled,
}

struct Driver {
    shared: Arc<Shared>,
    lane: Lane,
    queue: String,
    prefetch: usize,
    sender: mpsc::UnboundedSender<Incoming>,
    stop: CancellationToken,
}

impl Driver {
    async fn run(self) {
        let stop = self.stop.clone();
        let mut delays_left = delays();
        loop {
            let live = tokio::select! {
                () = stop.cancelled() => return,
                live = self.shared.control.live() => live,
            };
            let began = Instant::now();
            let ended = self.subscribe_and_forward(&live).await;
            if stop.is_cancelled() {
                return;
            }
            match ended {
                Ok(End::Stopped) => return,
                Ok(End::Idle) => continue,
                Ok(End::Cancelled) => {
                    tracing::warn!(lane = %self.lane, "the broker ended the subscription; subscribing again")
                }
                Err(fault) => {
                    tracing::warn!(lane = %self.lane, error = with_source(&fault), "the subscription ended; subscribing again")
                }
            }
            // The connection stands, so it is the queue: deleted, or moved away.
            if live.stands()
                && let Err(error) = self.shared.keeper.repair().await
            {
                tracing::warn!(lane = %self.lane, error = with_source(&error), "the queue is not there to consume from");
            }
            if began.elapsed() > Duration::from_secs(10) {
                delays_left = delays();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next_delay(&mut delays_left)) => {}
            }
        }
    }

    async fn subscribe_and_forward(&self, live: &Live) -> Result<End, Fault> {
        let limit = self.shared.settings.connect_timeout;
        let channel = live.channel(limit).await?;
        let prefetch = u16::try_from(self.prefetch).unwrap_or(u16::MAX);
        // Not global: quorum queues refuse that.
        bounded(
            "setting the prefetch",
            limit,
            channel.basic_qos(prefetch, BasicQosOptions::default()),
        )
        .await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let subscribe = channel.basic_consume(self.queue.as_str().into(), "".into(), options, arguments);
        let mut deliveries = bounded("subscribing", limit, subscribe).await?;
        let end = loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => break End::Stopped,
                next = deliveries.next() => next,
                () = tokio::time::sleep(self.shared.settings.renewal) => break End::Idle,
            };
            match next {
                Some(Ok(delivery)) => self.forward(&channel, delivery),
                Some(Err(error)) => return Err(Fault::Failed("consuming", error)),
                None => return Ok(End::Cancelled),
            }
        };
        // No more deliveries, but those that came meanwhile count.
        bounded(
            "cancelling",
            limit,
            channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()),
        )
        .await?;
        while let Ok(Some(Ok(delivery))) = tokio::time::timeout(limit, deliveries.next()).await {
            self.forward(&channel, delivery);
        }
        Ok(end)
    }

    fn forward(&self, channel: &Channel, delivery: lapin::message::Delivery) {
        let earlier = earlier_deliveries(delivery.properties.headers().as_ref());
        let held = Held {
            acker: delivery.acker,
            earlier,
            _channel: channel.clone(),
        };
        // It fails only when the consumer is gone; the channel's end then gives the delivery back.
        drop(self.sender.send(Incoming {
            lane: self.lane,
            body: delivery.data,
            held,
        }));
    }
}

fn earlier_deliveries(headers: Option<&FieldTable>) -> u32 {
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    match count {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongUInt(count)) => *count,
        Some(AMQPValue::ShortShortUInt(count)) => u32::from(*count),
        _ => 0,
    }
}

/// A delivery that the broker counts as out. While one is held its channel stays open.
struct Held {
    acker: Acker,
    earlier: u32,
    _channel: Channel,
}

impl Held {
    fn is_current(&self) -> bool {
        self.acker.usable()
    }

    /// Reject, not nack: a nack is not counted by RabbitMQ 4.3, so that the delivery limit would never be reached.
    async fn give_back(self, limit: Duration) {
        let rejected = bounded(
            "giving back a delivery",
            limit,
            self.acker.reject(BasicRejectOptions { requeue: true }),
        )
        .await;
        if let Err(fault) = rejected {
            // The channel's end gives it back.
            tracing::debug!(error = with_source(&fault), "a delivery was not given back");
        }
    }
}

/// A delivery that its consumer holds. Dropped unsettled, it is given back after a while.
struct Out {
    held: Option<Held>,
    settings: RabbitSettings,
    runtime: Handle,
}

impl Out {
    /// `Ok(false)`: the connection is gone.
    async fn acknowledge(mut self) -> Result<bool, Fault> {
        let Some(held) = self.held.take() else { return Ok(false) };
        bounded(
            "acknowledging",
            self.settings.connect_timeout,
            held.acker.ack(BasicAckOptions::default()),
        )
        .await
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let Some(held) = self.held.take().filter(Held::is_current) else {
            return;
        };
        let delay = redelivery_delay(self.settings.redelivery, held.earlier);
        let limit = self.settings.connect_timeout;
        self.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            held.give_back(limit).await;
        });
    }
}

struct RabbitSettler {
    lane: Lane,
    out: Out,
    shared: Arc<Shared>,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Settler for RabbitSettler {
    async fn settle(self: Box<Self>, body: &[u8], how: &Settle) -> QueueResult<()> {
        let publisher = &self.shared.publisher;
        match how {
            Settle::Ack => {}
            Settle::Later { job, after } => {
                let _confirmed = publisher
                    .publish(job.lane, *after, &job.to_json(), Some(&job.id))
                    .await?;
            }
            Settle::PutOff { after } => {
                let _confirmed = publisher.publish(self.lane, *after, body, None).await?;
            }
        }
        match self.out.acknowledge().await {
            Ok(true) => return Ok(()),
            // The broker gives it out again on the next connection.
            Ok(false) => {}
            Err(fault) => tracing::debug!(error = with_source(&fault), "an acknowledgement did not get through"),
        }
        metrics::counter!("snapbridge_queue_unsettled_total").increment(1);
        let why = "the connection was lost before the job was acknowledged, so it comes again";
        Err(QueueError::new(QueueErrorKind::Unavailable, why))
    }
}
