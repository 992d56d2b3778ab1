//! `health`: asks the process beside it, for orchestrators and for images without any other tool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::{Failure, print, settings};

/// Longer than the probes behind /readyz take.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Fails unless `/readyz` answers 200. `url`: of an admin listener; otherwise the one of the settings.
pub async fn check(config: Option<&Path>, url: Option<&str>) -> Result<(), Failure> {
    let base = match url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(settings(config)?.0.http.admin_listen)),
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .context("the HTTP client")?;
    let asked = client.get(format!("{base}/readyz")).send().await;
    let response = asked.with_context(|| format!("nothing answers at {base}"))?;
    let status = response.status();
    print(&response.text().await.unwrap_or_default());
    if status == reqwest::StatusCode::OK {
        Ok(())
    } else {
        Err(anyhow!("not ready: /readyz answered {status}").into())
    }
}

/// Where to reach a listener that is bound to all addresses.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_machine() {
        for (listen, reached) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("10.0.0.7:9", "10.0.0.7:9"),
            ("127.0.0.1:8081", "127.0.0.1:8081"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
