//! One supervised connection: connects, watches, reconnects without end. lapin's own recovery is not used: once its
//! attempts are used up, a consumer is silent for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use contacts::queue::{QueueError, QueueErrorKind};
use futures::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::with_source;

/// A call to the broker that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0} took longer than {1:?}")]
    Slow(&'static str, Duration),
    #[error("{0} failed")]
    Failed(&'static str, #[source] lapin::Error),
    #[error("RabbitMQ is not connected ({0})")]
    Down(String),
}

impl Fault {
    /// AMQP's reply code: 404 missing, 406 differs.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Fault::Failed(_, error) => match error.kind() {
                lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
                _ => None,
            },
            Fault::Slow(..) | Fault::Down(_) => None,
        }
    }
}

impl From<Fault> for QueueError {
    fn from(fault: Fault) -> QueueError {
        let message = fault.to_string();
        match fault {
            Fault::Failed(_, error) => QueueError::because(QueueErrorKind::Unavailable, message, error),
            Fault::Slow(..) | Fault::Down(_) => QueueError::new(QueueErrorKind::Unavailable, message),
        }
    }
}

/// No call of lapin has a time limit of its own.
pub(super) async fn bounded<T>(
    what: &'static str,
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::Failed(what, error)),
        Err(_) => Err(Fault::Slow(what, limit)),
    }
}

/// Delays between attempts: 0.2 s doubling to 5 s, plus a random part as long again, without end.
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .with_jitter_seed(rand::random())
        .without_max_times()
        .build()
}

pub(super) fn next_delay(delays: &mut ExponentialBackoff) -> Duration {
    delays.next().unwrap_or(Duration::from_secs(10))
}

/// What to connect to, and how patiently.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    /// Limit of a connection attempt, and of each single call.
    pub(super) limit: Duration,
}

impl Target {
    pub(super) async fn connect(&self, role: &'static str) -> Result<Connection, Fault> {
        let name = format!("snapbridge {role} {}", std::process::id());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        bounded(
            "connecting",
            self.limit,
            Connection::connect_uri(self.uri.clone(), properties),
        )
        .await
    }

    /// Whether something behind the port speaks. lapin leaves a thread and a socket behind for each handshake that is
    /// never answered (a frozen broker accepts connections), so after one of these the port is asked first.
    async fn speaks(&self) -> bool {
        let ask = async {
            let authority = &self.uri.authority;
            let mut socket = tokio::net::TcpStream::connect((authority.host.as_str(), authority.port)).await?;
            socket.write_all(b"AMQP\x00\x00\x09\x01").await?;
            socket.read_u8().await
        };
        matches!(tokio::time::timeout(self.limit, ask).await, Ok(Ok(_)))
    }
}

/// A connection that stands, or stood.
pub(super) struct Live {
    pub(super) connection: Connection,
    number: u64,
}

impl Live {
    pub(super) async fn channel(&self, limit: Duration) -> Result<Channel, Fault> {
        bounded("opening a channel", limit, self.connection.create_channel()).await
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(super) fn stands(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn is(&self, other: &Live) -> bool {
        self.number == other.number
    }
}

#[derive(Clone)]
enum State {
    Down(String),
    Up(Arc<Live>),
}

/// Keeps one connection for as long as it lives.
pub(super) struct Link {
    state: watch::Receiver<State>,
    suspect: Arc<Notify>,
    _supervisor: AbortOnDropHandle<()>,
}

impl Link {
    pub(super) fn start(role: &'static str, target: Target) -> Link {
        let (sender, state) = watch::channel(State::Down("not connected yet".to_owned()));
        let suspect = Arc::new(Notify::new());
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervise(role, target, sender, suspect.clone())));
        Link {
            state,
            suspect,
            _supervisor: supervisor,
        }
    }

    pub(super) fn current(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Up(live) => Some(live.clone()),
            State::Down(_) => None,
        }
    }

    /// The connection, once there is one, however long that takes.
    pub(super) async fn live(&self) -> Arc<Live> {
        let mut state = self.state.clone();
        loop {
            if let State::Up(live) = &*state.borrow_and_update() {
                return live.clone();
            }
            if state.changed().await.is_err() {
                // The supervisor ends only with the link.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) async fn live_within(&self, wait: Duration) -> Result<Arc<Live>, Fault> {
        if let Ok(live) = tokio::time::timeout(wait, self.live()).await {
            return Ok(live);
        }
        Err(Fault::Down(match &*self.state.borrow() {
            State::Down(why) => why.clone(),
            State::Up(_) => "just connecting".to_owned(),
        }))
    }

    /// Returns once `live` is no longer the current connection.
    pub(super) async fn gone(&self, live: &Live) {
        let mut state = self.state.clone();
        let changed = state.wait_for(|state| !matches!(state, State::Up(current) if current.is(live)));
        drop(changed.await);
    }

    /// Gives up a connection on which calls stay without answer, sooner than its heartbeat would.
    pub(super) fn give_up(&self, live: &Live) {
        if self.current().is_some_and(|current| current.is(live)) {
            self.suspect.notify_one();
        }
    }
}

async fn supervise(role: &'static str, target: Target, state: watch::Sender<State>, suspect: Arc<Notify>) {
    let mut delays_left = delays();
    let mut unanswered = false;
    for number in 1.. {
        let result = if unanswered && !target.speaks().await {
            Err(Fault::Slow("connecting", target.limit))
        } else {
            target.connect(role).await
        };
        unanswered = matches!(result, Err(Fault::Slow(..)));
        let why = match result {
            Ok(connection) => {
                tracing::info!(role, "connected to RabbitMQ");
                let began = Instant::now();
                let live = Arc::new(Live { connection, number });
                state.send_replace(State::Up(live.clone()));
                let why = ended(role, &live, &suspect).await;
                // One that broke at once is no reason to hurry.
                if began.elapsed() > Duration::from_secs(10) {
                    delays_left = delays();
                }
                why
            }
            Err(fault) => with_source(&fault),
        };
        metrics::counter!("snapbridge_queue_disconnects_total", "role" => role).increment(1);
        let delay = next_delay(&mut delays_left);
        tracing::warn!(role, error = why, again_in = ?delay, "not connected to RabbitMQ");
        state.send_replace(State::Down(why));
        tokio::time::sleep(delay).await;
    }
}

/// Waits for the end of a connection and returns its reason.
async fn ended(role: &'static str, live: &Live, suspect: &Notify) -> String {
    let mut events = std::pin::pin!(live.connection.events_listener());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::error!(role, reason, "RabbitMQ blocks publishers until its alarm is over");
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!(role, "RabbitMQ takes messages again");
                }
                // Errors of a channel are announced here as well.
                Some(Event::Error(error)) if !live.stands() => break error.to_string(),
                Some(_) => {}
                None => break "the connection ended".to_owned(),
            },
            () = suspect.notified() => break "calls stayed without answer".to_owned(),
            // An error between connecting and listening raises no event.
            () = tokio::time::sleep(Duration::from_millis(500)) => if !live.stands() {
                break "the connection ended".to_owned();
            },
        }
    }
}
