//! A Redis server to connect to, shown without its secrets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::url::NotAStoreUrl;

/// Parsed from `redis://…` or `redis+unix://…`.
#[derive(Clone)]
pub struct RedisTarget {
    info: ConnectionInfo,
}

impl RedisTarget {
    /// With what every connection of ours has: RESP3 (a closed socket is noticed while idle) and keepalive.
    pub(super) fn connection_info(&self) -> ConnectionInfo {
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(probes);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let redis = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        self.info.clone().set_tcp_settings(tcp).set_redis_settings(redis)
    }
}

impl FromStr for RedisTarget {
    type Err = NotAStoreUrl;

    fn from_str(text: &str) -> Result<RedisTarget, NotAStoreUrl> {
        let schemes = ["redis://", "rediss://", "redis+unix://", "unix://"];
        if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(NotAStoreUrl("the scheme is unknown".into()));
        }
        // The client's errors name what is wrong and do not quote the URL.
        let info = text
            .into_connection_info()
            .map_err(|error| NotAStoreUrl(error.to_string()))?;
        Ok(RedisTarget { info })
    }
}

impl fmt::Display for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}/{}", self.info.addr(), self.info.redis_settings().db())
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
