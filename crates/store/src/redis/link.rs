//! A connection that heals. The client's own manager replaces a connection that was closed, but never one whose other
//! side silently vanished: its commands time out for ever. So a manager that misses several pings, or times out several
//! commands in a row, is replaced whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use contacts::StoreError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation};

use super::error::{failed, too_slow};

/// Commands in a row that time out before the connection is given up without waiting for a ping.
const TIMEOUTS: u32 = 5;
/// For one attempt to connect, greeting included.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Commands that wait for the socket before others wait for a place.
const BUFFER: usize = 512;

pub(super) struct Link {
    /// For logs and metrics: `read` or `write`.
    name: &'static str,
    client: Client,
    config: ConnectionManagerConfig,
    limit: Duration,
    current: ArcSwap<ConnectionManager>,
    timeouts: AtomicU32,
}

impl Link {
    /// Connects. Fails if the server does not answer or does not know us.
    pub async fn open(name: &'static str, client: Client, limit: Duration) -> Result<Link, StoreError> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(limit))
            .set_connection_timeout(Some(CONNECT))
            // Whoever waits shall learn soon that the server is away. The next command, or ping, tries again.
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_pipeline_buffer_size(BUFFER);
        let manager = ConnectionManager::new_with_config(client.clone(), config.clone());
        let manager = match tokio::time::timeout(CONNECT * 3, manager).await {
            Ok(manager) => manager.map_err(|error| failed("be reached", error))?,
            Err(_) => return Err(too_slow("answer", CONNECT * 3)),
        };
        let current = ArcSwap::from_pointee(manager);
        Ok(Link {
            name,
            client,
            config,
            limit,
            current,
            timeouts: AtomicU32::new(0),
        })
    }

    /// `doing` completes "redis could not …".
    pub async fn query<T: FromRedisValue>(&self, doing: &str, command: &Cmd) -> Result<T, StoreError> {
        self.bounded(
            doing,
            |mut manager| async move { command.query_async(&mut manager).await },
        )
        .await
    }

    pub async fn pipeline<T: FromRedisValue>(&self, doing: &str, pipeline: &Pipeline) -> Result<T, StoreError> {
        self.bounded(
            doing,
            |mut manager| async move { pipeline.query_async(&mut manager).await },
        )
        .await
    }

    pub async fn script<T: FromRedisValue>(&self, doing: &str, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.bounded(
            doing,
            |mut manager| async move { script.invoke_async(&mut manager).await },
        )
        .await
    }

    async fn bounded<T, A: Future<Output = Result<T, RedisError>>>(
        &self,
        doing: &str,
        act: impl Fn(ConnectionManager) -> A,
    ) -> Result<T, StoreError> {
        let used = self.current.load_full();
        let manager = || ConnectionManager::clone(&used);
        // The manager's own limit does not cover waiting for a new connection.
        let limit = self.limit * 2;
        let attempt = async {
            match act(manager()).await {
                // The manager keeps a failed attempt to connect until somebody has seen it, and tries anew then. The
                // command was never sent, so it may go out now.
                Err(error) if error.is_connection_refusal() => act(manager()).await,
                answer => answer,
            }
        };
        let answer = match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(value)) => {
                self.timeouts.store(0, Ordering::Relaxed);
                return Ok(value);
            }
            Ok(Err(error)) if error.is_timeout() => failed(doing, error),
            Ok(Err(error)) => return Err(failed(doing, error)),
            Err(_) => too_slow(doing, limit),
        };
        metrics::counter!("snapbridge_redis_timeouts_total", "link" => self.name).increment(1);
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
            self.replace(&used, "several commands in a row timed out");
        }
        Err(answer)
    }

    /// Forgets a manager; the new one connects with its first command. Only once for each: many commands find out at
    /// the same time.
    fn replace(&self, used: &Arc<ConnectionManager>, reason: &'static str) {
        let fresh = match ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            Ok(fresh) => Arc::new(fresh),
            Err(error) => {
                tracing::error!(link = self.name, %error, "a new connection to redis could not be prepared");
                return;
            }
        };
        let before = self.current.compare_and_swap(used, fresh);
        if Arc::ptr_eq(&before, used) {
            self.timeouts.store(0, Ordering::Relaxed);
            metrics::counter!("snapbridge_redis_connections_replaced_total", "link" => self.name).increment(1);
            tracing::warn!(link = self.name, reason, "the connection to redis is replaced");
        }
    }

    async fn ping(&self, limit: Duration) -> bool {
        let command = redis::cmd("PING");
        let ping = self.query("answer a ping", &command);
        matches!(
            tokio::time::timeout(limit, ping).await,
            Ok(Ok(redis::Value::SimpleString(_)))
        )
    }
}

/// Pings links for ever and replaces the connection of one that misses `misses` pings in a row.
pub(super) async fn watch(links: [Arc<Link>; 2], every: Duration, limit: Duration, misses: u32) {
    let watch_one = async |link: &Link| {
        let mut missed = 0;
        loop {
            tokio::time::sleep(every).await;
            let used = link.current.load_full();
            if link.ping(limit).await {
                missed = 0;
                continue;
            }
            missed += 1;
            if missed >= misses {
                link.replace(&used, "several pings in a row were missed");
                missed = 0;
            }
        }
    };
    tokio::join!(watch_one(&links[0]), watch_one(&links[1]));
}
