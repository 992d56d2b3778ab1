//! HTTPS of the public listener: the certificate and its key, looked at again while the process runs.
//!
//! Both files are read whole and compared by what they hold, so that links that are turned over (certbot, Kubernetes) and
//! files that are written in place are seen alike. A pair that cannot be used leaves the old one in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use parking_lot::RwLock;
use process::settings::Settings;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use talkdesk::wire::ErrorBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use x509_cert::der::{DateTime, Decode};

/// First byte of a TLS record that holds a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// How much of a plain HTTP request is read before the connection is closed.
const PLAIN_BYTES: usize = 64 * 1024;

pub struct Tls {
    files: Files,
    served: Arc<Served>,
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
    reload: Duration,
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What the files hold, not understood yet.
struct Raw {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A certificate that its key belongs to.
#[derive(Clone, Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    /// Of the files' bytes.
    digest: [u8; 32],
    not_before: DateTime,
    not_after: DateTime,
}

/// The pair that new connections get.
#[derive(Debug)]
struct Served(RwLock<Pair>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().certified.clone())
    }
}

impl Tls {
    /// The pair of the settings; `None` where none is set. `folder` is where relative paths start.
    pub async fn load(settings: &Settings, folder: &Path) -> anyhow::Result<Option<Arc<Tls>>> {
        let (Some(cert), Some(key)) = (&settings.http_tls.cert, &settings.http_tls.key) else {
            return Ok(None);
        };
        let files = Files {
            cert: folder.join(cert),
            key: folder.join(key),
        };
        let pair = files.read().await?.pair(&files)?;
        let served = Arc::new(Served(RwLock::new(pair)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("the TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(Tls {
            files,
            served,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshake_timeout: settings.http_tls.handshake_timeout,
            reload: settings.http_tls.reload,
        })))
    }

    /// The handshake. `None`: the client is gone, for a reason that has been counted.
    pub async fn greet(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let greeted = tokio::time::timeout(self.handshake_timeout, self.shake_hands(stream)).await;
        let why = match greeted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(why)) => why,
            Err(_) => Ungreeted::TooSlow,
        };
        if let Some(label) = why.label() {
            metrics::counter!("snapbridge_tls_handshake_failures_total", "why" => label).increment(1);
        }
        tracing::debug!(?why, "no TLS handshake");
        None
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Ungreeted> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => self.acceptor.accept(stream).await.map_err(|_| Ungreeted::Failed),
            Ok(1) if first[0].is_ascii_uppercase() => {
                let _ = turn_away(stream).await;
                Err(Ungreeted::PlainHttp)
            }
            Ok(1) => Err(Ungreeted::Failed),
            // A look whether the port is open, as load balancers take it.
            _ => Err(Ungreeted::Closed),
        }
    }

    /// Looks at the files until `stop`, and tells when the certificate expires.
    pub async fn watch(self: Arc<Tls>, stop: CancellationToken) {
        let pair = self.served.0.read().clone();
        pair.tell(&self.files, "serving HTTPS");
        // `None`: unreadable. What was judged once is not judged again until it changes.
        let mut judged = Some(pair.digest);
        let mut seen = judged;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.reload) => {}
            }
            let raw = self.files.read().await;
            let found = raw.as_ref().ok().map(Raw::digest);
            // Two looks must agree: files that are being written, one after the other, belong together only in the end.
            let settled = std::mem::replace(&mut seen, found) == found;
            if !settled || found == judged {
                continue;
            }
            judged = found;
            let result = match raw.and_then(|raw| raw.pair(&self.files)) {
                Ok(pair) => {
                    *self.served.0.write() = pair.clone();
                    pair.tell(&self.files, "the certificate has been renewed");
                    "ok"
                }
                Err(error) => {
                    let error = process::chain(error.as_ref());
                    tracing::error!(error, "the new certificate cannot be used, the old one stays");
                    "failed"
                }
            };
            metrics::counter!("snapbridge_tls_reloads_total", "result" => result).increment(1);
        }
    }
}

/// Why there was no handshake.
#[derive(Clone, Copy, Debug)]
enum Ungreeted {
    Closed,
    Failed,
    PlainHttp,
    TooSlow,
}

impl Ungreeted {
    fn label(self) -> Option<&'static str> {
        match self {
            Ungreeted::Closed => None,
            Ungreeted::Failed => Some("failed"),
            Ungreeted::PlainHttp => Some("plain_http"),
            Ungreeted::TooSlow => Some("timeout"),
        }
    }
}

/// Answers plain HTTP on the HTTPS port. What the client sends is read away, as closing over unread bytes would be a
/// reset, which takes the answer with it.
async fn turn_away(mut stream: TcpStream) -> std::io::Result<()> {
    let body = ErrorBody::new("https_required", "This port speaks HTTPS").to_bytes();
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    let mut sink = [0; 4096];
    let mut read = 0;
    while read < PLAIN_BYTES {
        match stream.read(&mut sink).await? {
            0 => break,
            bytes => read += bytes,
        }
    }
    Ok(())
}

impl Files {
    async fn read(&self) -> anyhow::Result<Raw> {
        let cert = tokio::fs::read(&self.cert).await;
        let key = tokio::fs::read(&self.key).await;
        Ok(Raw {
            cert: cert.with_context(|| format!("http.tls.cert: {} cannot be read", self.cert.display()))?,
            key: key
                .map(Zeroizing::new)
                .with_context(|| format!("http.tls.key: {} cannot be read", self.key.display()))?,
        })
    }
}

impl Raw {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update((self.cert.len() as u64).to_be_bytes());
        digest.update(&self.cert);
        digest.update(&*self.key);
        digest.finalize().into()
    }

    /// Errors name the file, and hold nothing of it.
    fn pair(&self, files: &Files) -> anyhow::Result<Pair> {
        let cert = format!("http.tls.cert: {}", files.cert.display());
        let key = format!("http.tls.key: {}", files.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| anyhow!("{cert} is not sound PEM: {}", told(&error)))?;
        let Some(first) = chain.first() else {
            bail!("{cert} holds no certificate in PEM form");
        };
        let parsed = x509_cert::Certificate::from_der(first)
            .map_err(|error| anyhow!("{cert} holds a certificate that cannot be read: {error}"))?;
        let validity = *parsed.tbs_certificate().validity();
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound if is_encrypted(&self.key) => {
                anyhow!("{key} is encrypted; there is nobody to ask for its password")
            }
            pem::Error::NoItemsFound => anyhow!("{key} holds no private key in PEM form"),
            error => anyhow!("{key} is not sound PEM: {}", told(&error)),
        })?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                anyhow!("{key} is not the key of the certificate in {}", files.cert.display())
            }
            rustls::Error::InvalidCertificate(_) => anyhow!("{cert} holds a certificate that cannot be used: {error}"),
            _ => anyhow!("{key} holds a private key that cannot be used; RSA, ECDSA (P-256, P-384) and Ed25519 can be"),
        })?;
        Ok(Pair {
            certified: Arc::new(certified),
            digest: self.digest(),
            not_before: validity.not_before.to_date_time(),
            not_after: validity.not_after.to_date_time(),
        })
    }
}

/// Without the lines that some of these errors hold.
fn told(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a section begins in a wrong way",
        pem::Error::Base64Decode(_) => "its base64 is broken",
        _ => "it cannot be read",
    }
}

fn is_encrypted(key: &[u8]) -> bool {
    String::from_utf8_lossy(key).contains("ENCRYPTED")
}

impl Pair {
    /// Logs and meters the dates.
    fn tell(&self, files: &Files, what: &str) {
        let (not_before, not_after) = (self.not_before, self.not_after);
        metrics::gauge!("snapbridge_tls_certificate_expiry_timestamp_seconds")
            .set(not_after.unix_duration().as_secs_f64());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let cert = files.cert.display();
        if now > not_after.unix_duration() {
            tracing::error!(%cert, %not_after, "{what}: it has expired, nobody will connect");
        } else if now < not_before.unix_duration() {
            tracing::error!(%cert, %not_before, "{what}: it is not valid yet");
        } else {
            tracing::info!(%cert, %not_after, "{what}");
        }
    }
}
