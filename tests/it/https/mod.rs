//! HTTPS of the public listener, against certificates of a CA that is made here.

mod files;
mod proxies;
mod serving;

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::faults::child::Process;

/// A CA, and the certificates that it gives.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
    /// Unix time.
    pub expires: i64,
}

impl Ca {
    pub fn new() -> Ca {
        process::tls::install_provider();
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    /// For 127.0.0.1, until the end of this year.
    pub fn pair(&self, year: i32) -> Pair {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let expires = params.not_after.unix_timestamp();
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().to_vec(),
            expires,
        }
    }

    /// Trusts this CA and no other, and says whose certificate it met.
    pub fn client(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.0.pem().as_bytes()).expect("the CA's certificate");
        reqwest::Client::builder()
            .no_proxy()
            .timeout(crate::harness::PATIENCE)
            .tls_certs_only([ca])
            .tls_info(true)
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

impl Pair {
    /// The settings that name the files in `folder`, which are written.
    pub fn settings(&self, folder: &Path) -> String {
        self.write(folder);
        "http.tls.cert = \"tls.crt\"\nhttp.tls.key = \"tls.key\"".to_owned()
    }

    pub fn write(&self, folder: &Path) {
        replace(folder, "tls.key", &self.key);
        replace(folder, "tls.crt", &self.cert);
    }
}

/// The file as a whole, as who cares for it would.
pub fn replace(folder: &Path, name: &str, text: &str) {
    let new = folder.join("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, folder.join(name)).expect("renamed");
}

/// Talks to the process over TLS from now on.
pub fn over_tls(process: &mut Process, client: reqwest::Client) {
    process.url = process.url.replace("http://", "https://");
    process.http = client;
}

pub fn address(url: &str) -> SocketAddr {
    let address = url.rsplit("//").next().expect("an address");
    address.parse().expect("an address")
}

/// The certificate at the other end of the connection that brought this answer.
pub fn certificate(answer: &reqwest::Response) -> Vec<u8> {
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>();
    let der = info.and_then(|info| info.peer_certificate());
    der.expect("a certificate").to_owned()
}
