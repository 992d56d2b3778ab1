//! Publishes and waits for the confirmation, on a connection of its own: while the broker blocks publishers, nothing at
//! all is written on theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contacts::queue::{Confirmed, QueueError, QueueErrorKind, QueueResult};
use contacts::{JobId, Lane};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;

use super::RabbitSettings;
use super::keeper::Keeper;
use super::link::{Fault, Link, Live, bounded};
use crate::with_source;

/// After so many unconfirmed publishes in a row the connection is taken for dead.
const SILENT: u32 = 3;
const TRIES: u32 = 3;

pub(super) struct Publisher {
    link: Link,
    keeper: Arc<Keeper>,
    settings: RabbitSettings,
    open: Mutex<Option<Open>>,
    unconfirmed: AtomicU32,
}

/// A channel in confirm mode, shared by all who publish.
#[derive(Clone)]
struct Open {
    live: Arc<Live>,
    channel: Channel,
}

struct Message<'a> {
    exchange: &'a str,
    routing_key: &'a str,
    body: &'a [u8],
    id: Option<&'a JobId>,
}

impl Publisher {
    pub(super) fn new(link: Link, keeper: Arc<Keeper>, settings: RabbitSettings) -> Publisher {
        Publisher {
            link,
            keeper,
            settings,
            open: Mutex::new(None),
            unconfirmed: AtomicU32::new(0),
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.link.current().is_some_and(|live| live.is_blocked())
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Puts a body into a lane, no earlier than `after`.
    pub(super) async fn publish(
        &self,
        lane: Lane,
        after: Duration,
        body: &[u8],
        id: Option<&JobId>,
    ) -> QueueResult<Confirmed> {
        let jobs = self.keeper.layout.jobs_exchange();
        let exchange = self.keeper.layout.wait_exchange(after).unwrap_or(&jobs);
        let message = Message {
            exchange,
            routing_key: lane.as_str(),
            body,
            id,
        };
        let limit = self.settings.confirm_timeout;
        let result = match tokio::time::timeout(limit, self.insist(&message)).await {
            Ok(result) => result,
            Err(_) => {
                self.count_unconfirmed();
                let why = format!("RabbitMQ did not confirm within {limit:?}; the job may be there or not");
                Err(QueueError::new(QueueErrorKind::Unavailable, why))
            }
        };
        let outcome = match &result {
            Ok(_) => "confirmed",
            Err(error) => match error.kind {
                QueueErrorKind::Unavailable => "unavailable",
                QueueErrorKind::Refused => "refused",
                QueueErrorKind::Topology => "topology",
            },
        };
        metrics::counter!("snapbridge_queue_publishes_total", "outcome" => outcome).increment(1);
        result
    }

    /// Publishes again after a lost channel (the job may then be there twice, which is harmless) and after a repair.
    async fn insist(&self, message: &Message<'_>) -> QueueResult<Confirmed> {
        self.keeper.check()?;
        let mut tries = 1;
        loop {
            let open = self.open().await?;
            if open.live.is_blocked() {
                let why = "RabbitMQ blocks publishers (memory or disk alarm)";
                return Err(QueueError::new(QueueErrorKind::Unavailable, why));
            }
            let last = tries == TRIES;
            tries += 1;
            match send(&open.channel, message, self.settings.confirm_timeout).await {
                Ok(Confirmation::Ack(None)) => {
                    self.unconfirmed.store(0, Ordering::Relaxed);
                    return Ok(Confirmed);
                }
                // Returned, since the message is mandatory: its queue or binding is missing.
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) if last => {
                    let why = format!(
                        "RabbitMQ has no queue for {} in {}",
                        message.routing_key, message.exchange
                    );
                    return Err(QueueError::new(QueueErrorKind::Topology, why));
                }
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => self.keeper.repair().await?,
                Ok(Confirmation::Nack(None)) => {
                    let why = format!(
                        "RabbitMQ refused the job: the queue of lane {} is full or has no leader",
                        message.routing_key
                    );
                    return Err(QueueError::new(QueueErrorKind::Refused, why));
                }
                Ok(Confirmation::NotRequested) => {
                    let why = "RabbitMQ does not confirm on this channel";
                    return Err(QueueError::new(QueueErrorKind::Unavailable, why));
                }
                Err(fault) if last => return Err(fault.into()),
                Err(fault) if fault.code() == Some(404) => self.keeper.repair().await?,
                Err(fault) => {
                    tracing::debug!(error = with_source(&fault), "publishing again");
                    if open.live.stands() {
                        continue;
                    }
                    let gone = self.link.gone(&open.live);
                    drop(tokio::time::timeout(self.settings.outage_wait, gone).await);
                }
            }
        }
    }

    /// The shared channel, opened anew where it was lost.
    async fn open(&self) -> Result<Open, Fault> {
        let live = self.link.live_within(self.settings.outage_wait).await?;
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && open.live.is(&live)
            && open.channel.status().connected()
        {
            return Ok(open.clone());
        }
        let limit = self.settings.connect_timeout;
        let channel = live.channel(limit).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        bounded("asking for confirmations", limit, confirms).await?;
        Ok(open.insert(Open { live, channel }).clone())
    }

    fn count_unconfirmed(&self) {
        if self.unconfirmed.fetch_add(1, Ordering::Relaxed) + 1 < SILENT {
            return;
        }
        self.unconfirmed.store(0, Ordering::Relaxed);
        if let Some(live) = self.link.current()
            && !live.is_blocked()
        {
            self.link.give_up(&live);
        }
    }
}

async fn send(channel: &Channel, message: &Message<'_>, limit: Duration) -> Result<Confirmation, Fault> {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into());
    // An id read from a queue may be of any length; AMQP's short strings may not.
    if let Some(id) = message.id.filter(|id| id.0.len() <= 64) {
        properties = properties.with_message_id(id.0.as_str().into());
    }
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let (exchange, key) = (message.exchange.into(), message.routing_key.into());
    let publish = async {
        channel
            .basic_publish(exchange, key, options, message.body, properties)
            .await?
            .await
    };
    bounded("publishing", limit, publish).await
}
