//! Connections that carry one request at a time. For pages, because reading the reply is most of the work: the task that
//! asks reads it itself, into a buffer that is used again, and several tasks read at the same time. For commits, because
//! what a transaction watches belongs to its connection.
//!
//! None can stay half open: a connection that fails or times out is closed, and the idle ones with it; a request whose
//! caller went away takes its connection along.

use std::time::Duration;

use bytes::BytesMut;
use contacts::StoreError;
use parking_lot::Mutex;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::SockRef;
use redis::{ConnectionAddr, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{failed, too_slow};
use super::frame::{Frame, Reply};
use super::link::CONNECT;

/// Requests at a time. More would only queue up at the server, which does one thing at a time.
const CONNECTIONS: usize = 16;
/// Room for one read from the socket: at least and at most.
const ROOM: (usize, usize) = (64 << 10, 1 << 20);
/// A larger buffer is not kept: one huge page must not hold memory for ever.
const KEPT: usize = 2 << 20;

pub(super) struct Pool {
    /// For metrics: `page` or `commit`.
    name: &'static str,
    info: ConnectionInfo,
    /// For the replies to what is asked together.
    limit: Duration,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

/// Requests one after the other on a connection that nobody else uses meanwhile. Dropped instead of
/// [kept](Conversation::keep), it closes the connection, and what the server holds for it is gone.
pub(super) struct Conversation<'a> {
    pool: &'a Pool,
    connection: Connection,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    pub fn new(name: &'static str, info: ConnectionInfo, limit: Duration) -> Pool {
        Pool {
            name,
            info,
            limit,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
        }
    }

    /// Asks for reads; `doing` completes "redis could not …". An error that the server answers fails the whole.
    pub async fn ask<const N: usize>(&self, doing: &str, asked: &Pipeline) -> Result<[Reply; N], StoreError> {
        self.within(doing, async {
            let (conversation, replies) = self.begin(doing, asked, N).await?;
            conversation.keep();
            replies.try_into().map_err(|_| self.failed(doing, garbled()))
        })
        .await
    }

    /// Begins a conversation with reads, which may go out a second time if the first connection turns out to be closed.
    /// `replies`: how many are expected.
    pub async fn begin(
        &self,
        doing: &str,
        asked: &Pipeline,
        replies: usize,
    ) -> Result<(Conversation<'_>, Vec<Reply>), StoreError> {
        let asked = asked.get_packed_pipeline();
        let (conversation, replies) = self
            .attempt(&asked, replies)
            .await
            .map_err(|error| self.failed(doing, error))?;
        // All replies have come, so the connection is good for the next request, whatever they say.
        match refused(&replies) {
            Ok(()) => Ok((conversation, replies)),
            Err(error) => {
                conversation.keep();
                Err(failed(doing, error))
            }
        }
    }

    /// Covers what the limits of single requests leave out: waiting for a place and for a new connection.
    pub async fn within<T>(
        &self,
        doing: &str,
        act: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.limit * 2;
        match tokio::time::timeout(limit, act).await {
            Ok(answer) => answer,
            Err(_) => {
                self.give_up();
                Err(too_slow(doing, limit))
            }
        }
    }

    async fn attempt(&self, asked: &[u8], count: usize) -> Result<(Conversation<'_>, Vec<Reply>), RedisError> {
        // Never closed.
        let place = self.places.acquire().await.map_err(|_| garbled())?;
        let idle = self.idle.lock().pop();
        if let Some(mut connection) = idle {
            match self.bounded(connection.ask(asked, count)).await {
                Ok(replies) => return Ok((self.conversation(connection, place), replies)),
                Err(error) if error.is_timeout() => return Err(error),
                // The server has closed it, and probably the others, since they were used last. These are reads, so they
                // may be asked again.
                Err(_) => self.idle.lock().clear(),
            }
        }
        let mut connection = Connection::open(&self.info).await?;
        let replies = self.bounded(connection.ask(asked, count)).await?;
        Ok((self.conversation(connection, place), replies))
    }

    fn conversation<'a>(&'a self, connection: Connection, place: SemaphorePermit<'a>) -> Conversation<'a> {
        Conversation {
            pool: self,
            connection,
            _place: place,
        }
    }

    async fn bounded<T>(&self, act: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(self.limit, act).await.map_err(late)?
    }

    fn failed(&self, doing: &str, error: RedisError) -> StoreError {
        if error.is_timeout() {
            self.give_up();
        }
        failed(doing, error)
    }

    /// After a timeout the other connections are not trusted either.
    fn give_up(&self) {
        metrics::counter!("snapbridge_redis_timeouts_total", "link" => self.name).increment(1);
        self.idle.lock().clear();
    }
}

impl Conversation<'_> {
    /// Asks once. An error that the server answers fails the whole.
    pub async fn ask(&mut self, doing: &str, asked: &Pipeline, replies: usize) -> Result<Vec<Reply>, StoreError> {
        let asked = asked.get_packed_pipeline();
        let answer = self.pool.bounded(self.connection.ask(&asked, replies)).await;
        let replies = answer.map_err(|error| self.pool.failed(doing, error))?;
        refused(&replies).map_err(|error| failed(doing, error))?;
        Ok(replies)
    }

    /// The connection may serve the next one. Not after an error of [`Conversation::ask`].
    pub fn keep(self) {
        if self.connection.buffer.capacity() <= KEPT {
            self.pool.idle.lock().push(self.connection);
        }
    }
}

/// The first error among the replies, or among the replies that a transaction gathered.
fn refused(replies: &[Reply]) -> Result<(), RedisError> {
    let error = |value: &Value| match value {
        Value::ServerError(error) => Err(error.clone().into()),
        _ => Ok(()),
    };
    replies.iter().try_for_each(|reply| match reply {
        Reply::Other(Value::Array(values)) => values.iter().try_for_each(error),
        Reply::Other(value) => error(value),
        Reply::Strings(_) => Ok(()),
    })
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

struct Connection {
    socket: Box<dyn Socket>,
    buffer: BytesMut,
}

impl Connection {
    async fn open(info: &ConnectionInfo) -> Result<Connection, RedisError> {
        let open = async {
            let mut connection = Connection {
                socket: connect(info).await?,
                buffer: BytesMut::new(),
            };
            connection.greet(info).await?;
            Ok(connection)
        };
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(CONNECT, open).await.map_err(late)?
    }

    /// Says who we are and which database is meant.
    async fn greet(&mut self, info: &ConnectionInfo) -> Result<(), RedisError> {
        let redis = info.redis_settings();
        if let Some(password) = redis.password() {
            let mut auth = redis::pipe();
            auth.cmd("AUTH").arg(redis.username()).arg(password);
            refused(&self.ask(&auth.get_packed_pipeline(), 1).await?)?;
        }
        if redis.db() != 0 {
            let mut select = redis::pipe();
            select.cmd("SELECT").arg(redis.db());
            refused(&self.ask(&select.get_packed_pipeline(), 1).await?)?;
        }
        Ok(())
    }

    /// After an error, the connection must not be used again.
    async fn ask(&mut self, asked: &[u8], count: usize) -> Result<Vec<Reply>, RedisError> {
        self.socket.write_all(asked).await?;
        let mut replies = Vec::with_capacity(count);
        for _ in 0..count {
            replies.push(self.reply().await?);
        }
        if !self.buffer.is_empty() {
            return Err(garbled());
        }
        Ok(replies)
    }

    async fn reply(&mut self) -> Result<Reply, RedisError> {
        let mut frame = Frame::new();
        while let Some(missing) = frame.advance(&self.buffer).map_err(|_| garbled())? {
            self.buffer.reserve(missing.clamp(ROOM.0, ROOM.1));
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        frame.take(&mut self.buffer)
    }
}

fn garbled() -> RedisError {
    (redis::ErrorKind::Parse, "the bytes that came are no reply").into()
}

async fn connect(info: &ConnectionInfo) -> Result<Box<dyn Socket>, RedisError> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            apply(info.tcp_settings(), &socket)?;
            Ok(Box::new(socket))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        // The client refuses such an address before.
        _ => Err((
            redis::ErrorKind::InvalidClientConfig,
            "this kind of address is not built in",
        )
            .into()),
    }
}

/// What the client does for its own connections.
fn apply(settings: &TcpSettings, socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(settings.nodelay())?;
    let socket = SockRef::from(socket);
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(())
}
