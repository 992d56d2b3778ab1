//! Connections that carry one request at a time, for replies so large that reading them is most of the work: the task
//! that asks reads its reply itself, into a buffer that is used again, and several tasks read at the same time.
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
use tokio::sync::Semaphore;

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
    info: ConnectionInfo,
    /// For one reply, or several that were asked for together.
    limit: Duration,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Pool {
    pub fn new(info: ConnectionInfo, limit: Duration) -> Pool {
        Pool {
            info,
            limit,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
        }
    }

    /// Asks for reads; `doing` completes "redis could not …". An error that the server answers fails the whole.
    pub async fn ask<const N: usize>(&self, doing: &str, asked: &Pipeline) -> Result<[Reply; N], StoreError> {
        // Covers waiting for a place and a new connection too.
        let limit = self.limit * 2;
        let answer = match tokio::time::timeout(limit, self.attempt(asked)).await {
            Ok(Ok(replies)) => return Ok(replies),
            Ok(Err(error)) if error.is_timeout() => failed(doing, error),
            Ok(Err(error)) => return Err(failed(doing, error)),
            Err(_) => too_slow(doing, limit),
        };
        metrics::counter!("snapbridge_redis_timeouts_total", "link" => "page").increment(1);
        self.idle.lock().clear();
        Err(answer)
    }

    async fn attempt<const N: usize>(&self, asked: &Pipeline) -> Result<[Reply; N], RedisError> {
        let _place = self.places.acquire().await;
        let asked = asked.get_packed_pipeline();
        let idle = self.idle.lock().pop();
        if let Some(mut connection) = idle {
            match self.bounded(connection.ask(&asked)).await {
                Ok(replies) => return self.done(connection, replies),
                Err(error) if error.is_timeout() => return Err(error),
                // The server has closed it, and probably the others, since they were used last. These are reads, so they
                // may be asked again.
                Err(_) => self.idle.lock().clear(),
            }
        }
        let mut connection = Connection::open(&self.info).await?;
        let replies = self.bounded(connection.ask(&asked)).await?;
        self.done(connection, replies)
    }

    async fn bounded<T>(&self, act: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(self.limit, act).await.map_err(late)?
    }

    /// All replies have come, so the connection is good for the next request, whatever they say.
    fn done<const N: usize>(&self, connection: Connection, replies: [Reply; N]) -> Result<[Reply; N], RedisError> {
        if connection.buffer.capacity() <= KEPT {
            self.idle.lock().push(connection);
        }
        replies.iter().try_for_each(refused)?;
        Ok(replies)
    }
}

fn refused(reply: &Reply) -> Result<(), RedisError> {
    match reply {
        Reply::Other(Value::ServerError(error)) => Err(error.clone().into()),
        Reply::Other(_) | Reply::Strings(_) => Ok(()),
    }
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
            let [reply] = self.ask(&auth.get_packed_pipeline()).await?;
            refused(&reply)?;
        }
        if redis.db() != 0 {
            let mut select = redis::pipe();
            select.cmd("SELECT").arg(redis.db());
            let [reply] = self.ask(&select.get_packed_pipeline()).await?;
            refused(&reply)?;
        }
        Ok(())
    }

    /// After an error, the connection must not be used again.
    async fn ask<const N: usize>(&mut self, asked: &[u8]) -> Result<[Reply; N], RedisError> {
        self.socket.write_all(asked).await?;
        let mut replies = Vec::with_capacity(N);
        for _ in 0..N {
            replies.push(self.reply().await?);
        }
        if !self.buffer.is_empty() {
            return Err(garbled());
        }
        replies.try_into().map_err(|_| garbled())
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
