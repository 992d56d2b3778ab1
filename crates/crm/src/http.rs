//! The outgoing side: one HTTP client per integration that follows no redirect, knows no proxy, resolves through the
//! guard, and reads no more than it was told to.

use std::sync::Arc;
use std::time::Duration;

use contacts::ErrorKind;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use regex::Regex;
use url::Url;

use crate::error::{CrmError, CrmResult, Reached};
use crate::hosts::{self, AllowHosts, GuardedDns, HostRefused};

/// How patient and how generous calls are.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub connect_timeout: Duration,
    /// The longest silence between two pieces of a reply.
    pub read_timeout: Duration,
    /// The whole call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// Bytes of a reply, after decompression.
    pub body_limit: usize,
    /// Rows of a page.
    pub rows_limit: usize,
    /// What a 429 without a wait is worth.
    pub throttle_default: Duration,
    /// The shortest and longest wait that is believed.
    pub throttle_min: Duration,
    pub throttle_max: Duration,
    /// The longest wait for a quota.
    pub quota_max: Duration,
    pub user_agent: String,
}

impl Default for ClientSettings {
    fn default() -> ClientSettings {
        ClientSettings {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            body_limit: 32 << 20,
            rows_limit: 10_000,
            throttle_default: Duration::from_secs(30),
            throttle_min: Duration::from_secs(1),
            throttle_max: Duration::from_secs(15 * 60),
            quota_max: Duration::from_secs(24 * 3600),
            user_agent: concat!("snapbridge/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// An HTTP client for one integration; clones share its connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    allow: Arc<AllowHosts>,
    pub(crate) settings: Arc<ClientSettings>,
}

/// A request that is ready to go.
pub(crate) struct Prepared {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
}

/// A reply that was read to its end.
pub(crate) struct RawReply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    pub fn new(settings: ClientSettings, allow: AllowHosts) -> CrmResult<Http> {
        install_tls_provider();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .timeout(settings.call_timeout)
            .user_agent(&settings.user_agent)
            .dns_resolver(Arc::new(GuardedDns::new(&allow)))
            .build()
            .map_err(|error| CrmError::because(ErrorKind::Unavailable, "the HTTP client cannot be set up", error))?;
        Ok(Http {
            client,
            allow: Arc::new(allow),
            settings: Arc::new(settings),
        })
    }

    /// Refuses hosts that `pattern` and the integration's allow_hosts do not name.
    pub(crate) fn check(&self, url: &Url, pattern: &Regex) -> CrmResult<()> {
        hosts::check(url, pattern, &self.allow)
            .map_err(|refused| CrmError::because(ErrorKind::HostRefused, "the host may not be called", refused))
    }

    /// Sends a request whose URL was checked, and reads the whole reply.
    pub(crate) async fn send(&self, request: Prepared) -> CrmResult<RawReply> {
        let mut call = self
            .client
            .request(request.method, request.url)
            .headers(request.headers);
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let reply = call.send().await.map_err(failed)?;
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let limit = self.settings.body_limit;
        let too_large = || {
            CrmError::new(ErrorKind::BadReply, format!("the reply is larger than {limit} bytes"))
                .reaching(Reached::Perhaps)
        };
        if reply.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut stream = reply.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(failed)?;
            if body.len() + piece.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(RawReply { status, headers, body })
    }
}

impl RawReply {
    pub fn is_json(&self) -> bool {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    }
}

/// A header value; secrets in it are not shown by debug output.
pub(crate) fn header_pair(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(name).ok()?, value))
}

/// reqwest is built without a TLS provider of its own and panics where none is installed.
fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Lost only against another thread that installs one in the same moment.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn failed(error: reqwest::Error) -> CrmError {
    // URLs may carry what a connector puts there; they are logged by host only.
    let error = error.without_url();
    if let Some(refused) = find_refused(&error) {
        return CrmError::because(ErrorKind::HostRefused, "the host may not be called", refused);
    }
    // A connection that never stood has carried nothing; of every other failure one cannot know.
    let reached = if error.is_connect() {
        Reached::Nobody
    } else {
        Reached::Perhaps
    };
    let (kind, what) = match reached {
        _ if error.is_timeout() => (ErrorKind::Timeout, "the CRM did not answer in time"),
        Reached::Nobody => (ErrorKind::Unavailable, "the CRM could not be reached"),
        _ if error.is_decode() => (ErrorKind::BadReply, "the reply is incomplete or cannot be unpacked"),
        _ => (ErrorKind::Unavailable, "the connection to the CRM broke off"),
    };
    CrmError::because(kind, what, error).reaching(reached)
}

fn find_refused(error: &reqwest::Error) -> Option<HostRefused> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<HostRefused>() {
            return Some(refused.clone());
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_points_inwards_is_refused_after_dns() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let http = Http::new(ClientSettings::default(), AllowHosts::default()).unwrap();
        let prepared = Prepared {
            method: Method::GET,
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            body: None,
        };
        let error = http
            .send(prepared)
            .await
            .map(|reply| reply.status)
            .expect_err("refused");
        assert_eq!(error.kind, ErrorKind::HostRefused, "{error:?}");
    }
}
