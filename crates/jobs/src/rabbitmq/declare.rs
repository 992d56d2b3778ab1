//! Looks at the broker's objects and declares them. Each look that finds something missing or different costs the
//! channel, so all of this runs on channels of its own.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::layout::{ExchangeSpec, Layout, QueueSpec};
use super::link::{Fault, bounded};

/// How one recorded object was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The recorded step that it belongs to.
    pub step: u32,
    /// `queue NAME` or `exchange NAME`.
    pub object: String,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There, as recorded.
    Present,
    /// Not there (dry run).
    Missing,
    /// Was not there, and is now.
    Created,
    /// There, but not as recorded: what the broker says about it.
    Differs(String),
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            State::Present => write!(f, "{}: as recorded", self.object),
            State::Missing => write!(f, "{}: missing", self.object),
            State::Created => write!(f, "{}: created", self.object),
            State::Differs(how) => write!(
                f,
                "{} is not as recorded ({how}). Let it run empty, delete it on the broker and run `migrate`, or use another \
                 namespace",
                self.object
            ),
        }
    }
}

/// Whether and when to declare what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declare {
    Never,
    AtOnce,
    /// First give the broker time to tell the consumers of a queue that was just deleted. RabbitMQ 3.10 does so about
    /// 30 ms later, and not at all if by then there is a queue of that name again: it counts them as consumers of the new
    /// queue, but its jobs never get through to them.
    AfterAWhile,
}

/// Looks at every object of the layout and declares what is missing.
pub(super) async fn bring(
    connection: &Connection,
    layout: &Layout,
    limit: Duration,
    declare: Declare,
) -> Result<Vec<Report>, Fault> {
    let mut scratch = Scratch {
        connection,
        limit,
        channel: None,
        declare,
    };
    let mut reports = Vec::new();
    for spec in &layout.exchanges {
        let state = scratch.exchange(spec).await?;
        reports.push(Report {
            step: spec.step,
            object: format!("exchange {}", spec.name),
            state,
        });
    }
    for spec in &layout.queues {
        let state = scratch.queue(spec).await?;
        reports.push(Report {
            step: spec.step,
            object: format!("queue {}", spec.name),
            state,
        });
    }
    Ok(reports)
}

/// Deletes every object of the layout, with what it holds.
pub(super) async fn delete(connection: &Connection, layout: &Layout, limit: Duration) -> Result<(), Fault> {
    let mut scratch = Scratch {
        connection,
        limit,
        channel: None,
        declare: Declare::Never,
    };
    for spec in &layout.queues {
        let channel = scratch.channel().await?;
        let call = channel.queue_delete(spec.name.as_str().into(), QueueDeleteOptions::default());
        bounded("deleting a queue", limit, call).await?;
    }
    for spec in &layout.exchanges {
        let channel = scratch.channel().await?;
        let call = channel.exchange_delete(spec.name.as_str().into(), ExchangeDeleteOptions::default());
        bounded("deleting an exchange", limit, call).await?;
    }
    Ok(())
}

/// How many messages of each queue are ready; `None` for one that is missing.
pub(super) async fn count(
    connection: &Connection,
    queues: &[&str],
    limit: Duration,
) -> Result<Vec<Option<u64>>, Fault> {
    let mut scratch = Scratch {
        connection,
        limit,
        channel: None,
        declare: Declare::Never,
    };
    let mut counts = Vec::new();
    for queue in queues {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = scratch.channel().await?;
        let call = channel.queue_declare((*queue).into(), options, FieldTable::default());
        counts.push(match bounded("counting a queue", limit, call).await {
            Ok(queue) => Some(u64::from(queue.message_count())),
            Err(fault) if is_missing(&fault) => None,
            Err(fault) => return Err(fault),
        });
    }
    Ok(counts)
}

/// 404 also says that a queue's node is away; declaring it again would then help nobody.
fn is_missing(fault: &Fault) -> bool {
    let text = match fault {
        Fault::Failed(_, error) => error.to_string(),
        Fault::Slow(..) | Fault::Down(_) => return false,
    };
    fault.code() == Some(404) && (text.contains("no queue") || text.contains("no exchange"))
}

struct Scratch<'a> {
    connection: &'a Connection,
    limit: Duration,
    channel: Option<Channel>,
    declare: Declare,
}

impl Scratch<'_> {
    async fn channel(&mut self) -> Result<Channel, Fault> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = bounded("opening a channel", self.limit, self.connection.create_channel()).await?;
        Ok(self.channel.insert(channel).clone())
    }

    async fn declare_exchange(&mut self, spec: &ExchangeSpec, passive: bool) -> Result<(), Fault> {
        let options = ExchangeDeclareOptions {
            passive,
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let channel = self.channel().await?;
        let call = channel.exchange_declare(
            spec.name.as_str().into(),
            spec.kind.clone(),
            options,
            FieldTable::default(),
        );
        bounded("declaring an exchange", self.limit, call).await
    }

    async fn declare_queue(&mut self, spec: &QueueSpec, passive: bool) -> Result<(), Fault> {
        let options = QueueDeclareOptions {
            passive,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await?;
        let call = channel.queue_declare(spec.name.as_str().into(), options, spec.arguments.clone());
        bounded("declaring a queue", self.limit, call).await.map(drop)
    }

    async fn exchange(&mut self, spec: &ExchangeSpec) -> Result<State, Fault> {
        let found = self.declare_exchange(spec, true).await;
        if self.declare == Declare::Never && is_absent(&found) {
            return Ok(State::Missing);
        }
        // A passive look does not compare; declaring what is there does, and changes nothing.
        verdict(found, self.declare_exchange(spec, false).await)
    }

    async fn queue(&mut self, spec: &QueueSpec) -> Result<State, Fault> {
        let found = self.declare_queue(spec, true).await;
        if is_absent(&found) {
            match self.declare {
                Declare::Never => return Ok(State::Missing),
                Declare::AtOnce => {}
                Declare::AfterAWhile => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    // Once is enough: the others have been gone as long.
                    self.declare = Declare::AtOnce;
                }
            }
        }
        let state = verdict(found, self.declare_queue(spec, false).await)?;
        if self.declare != Declare::Never && !matches!(state, State::Differs(_)) {
            // Bindings cannot be looked at; binding again what is bound changes nothing.
            let (queue, exchange) = (spec.name.as_str().into(), spec.exchange.as_str().into());
            let key = spec.routing_key.as_str().into();
            let channel = self.channel().await?;
            let call = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
            bounded("binding a queue", self.limit, call).await?;
        }
        Ok(state)
    }
}

fn is_absent(found: &Result<(), Fault>) -> bool {
    matches!(found, Err(fault) if is_missing(fault))
}

fn verdict(found: Result<(), Fault>, declared: Result<(), Fault>) -> Result<State, Fault> {
    match (found, declared) {
        (Ok(()), Ok(())) => Ok(State::Present),
        (Err(missing), Ok(())) if is_missing(&missing) => Ok(State::Created),
        (Err(fault), Ok(())) => Err(fault),
        (_, Err(Fault::Failed(what, error))) => {
            let fault = Fault::Failed(what, error.clone());
            if fault.code() == Some(406) {
                Ok(State::Differs(error.to_string()))
            } else {
                Err(fault)
            }
        }
        (_, Err(fault)) => Err(fault),
    }
}
