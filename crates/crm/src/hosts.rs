//! Which hosts may be called. `site`, `account` and page links come from outside, so each URL is checked after parsing
//! (IP literals never reach a resolver) and each address after DNS (a name may point inwards, now or later).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use regex::Regex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Hosts that the operator of an integration has named, beyond the connector's own pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowHosts {
    /// `https://crm.example:8443`, `http://127.0.0.1:18069`: exactly these, wherever they point.
    origins: Vec<Origin>,
    /// `*.example.com`: https on port 443 at public addresses.
    suffixes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// An entry of `allow_hosts` that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no entry for allow_hosts: write `host`, `*.domain`, or `http://host:port`")]
pub struct BadAllowHost(String);

/// A host that must not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    #[error("the URL cannot be read")]
    Unreadable,
    #[error("the URL carries a user name or password")]
    UserInfo,
    #[error("`{0}` is not called over {1}: only https on port 443, unless allow_hosts names it")]
    SchemeOrPort(String, String),
    #[error("`{0}` is not a host of this connector; name it in allow_hosts to allow it")]
    NotOurs(String),
    #[error("`{0}` has no public address; name it in allow_hosts to allow it")]
    Inward(String),
}

impl AllowHosts {
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<AllowHosts, BadAllowHost> {
        let mut allow = AllowHosts::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            let bad = || BadAllowHost(entry.to_owned());
            if let Some(suffix) = entry.strip_prefix("*.") {
                let url = Url::parse(&format!("https://{suffix}")).map_err(|_| bad())?;
                let domain = url.domain().filter(|domain| domain.contains('.') && *domain == suffix);
                allow.suffixes.push(format!(".{}", domain.ok_or_else(bad)?));
                continue;
            }
            let text = if entry.contains("://") {
                entry.to_owned()
            } else {
                format!("https://{entry}")
            };
            let url = Url::parse(&text).map_err(|_| bad())?;
            let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            if !plain || !matches!(url.scheme(), "http" | "https") || url.username() != "" || url.password().is_some() {
                return Err(bad());
            }
            allow
                .origins
                .push(Origin::of(&url).filter(Origin::is_plain).ok_or_else(bad)?);
        }
        Ok(allow)
    }

    fn names(&self, url: &Url) -> bool {
        Origin::of(url).is_some_and(|origin| self.origins.contains(&origin))
    }

    /// Names that may point to addresses inside.
    fn inward(&self) -> BTreeSet<String> {
        self.origins.iter().map(|origin| origin.host.clone()).collect()
    }
}

impl Origin {
    fn of(url: &Url) -> Option<Origin> {
        let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Origin {
            scheme: url.scheme().to_owned(),
            host,
            port: url.port_or_known_default()?,
        })
    }

    /// The URL standard lets more characters into a host than any host has.
    fn is_plain(&self) -> bool {
        self.host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
    }
}

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    Origin::of(a).is_some() && Origin::of(a) == Origin::of(b)
}

/// Judges a parsed URL. `pattern` is the connector's, over the lower-case host name.
pub fn check(url: &Url, pattern: &Regex, allow: &AllowHosts) -> Result<(), HostRefused> {
    let shown = url.host_str().unwrap_or_default().to_owned();
    if url.username() != "" || url.password().is_some() {
        return Err(HostRefused::UserInfo);
    }
    if allow.names(url) {
        return Ok(());
    }
    let Some(host) = url.host() else {
        return Err(HostRefused::Unreadable);
    };
    let Host::Domain(name) = host else {
        return Err(HostRefused::Inward(shown));
    };
    let ours = pattern.is_match(name) || allow.suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()));
    if !ours || !name.contains('.') || name.ends_with('.') {
        return Err(HostRefused::NotOurs(shown));
    }
    if url.scheme() != "https" || url.port_or_known_default() != Some(443) {
        let port = url
            .port_or_known_default()
            .map_or_else(String::new, |port| format!(" on port {port}"));
        return Err(HostRefused::SchemeOrPort(shown, format!("{}{port}", url.scheme())));
    }
    Ok(())
}

/// Whether an address lies in the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// After the IANA registry of special-purpose addresses (IPv4).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!(
            (a, b, c),
            (0 | 224..=255, _, _) | (100, 64..=127, _) | (198, 18 | 19, _) | (192, 0, 0) | (192, 88, 99)
        );
    !special
}

/// After the IANA registry (IPv6): only 2000::/3 is handed out, and parts of it are special or carry an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = (0x2000..=0x3fff).contains(&a);
    let teredo_and_protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !teredo_and_protocols && !documentation && !six_to_four
}

/// Addresses that even an entry of allow_hosts does not reach through a name: cloud metadata lives on link-local ones.
fn is_never_meant(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_multicast() || address.is_unspecified(),
        IpAddr::V6(address) => {
            address.is_multicast() || address.is_unspecified() || (address.segments()[0] & 0xffc0) == 0xfe80
        }
    }
}

/// A resolver that drops addresses inside. The client connects to what it returns, so a name that changes its mind
/// between check and use gains nothing.
pub(crate) struct GuardedDns {
    inward: Arc<BTreeSet<String>>,
}

impl GuardedDns {
    pub fn new(allow: &AllowHosts) -> GuardedDns {
        GuardedDns {
            inward: Arc::new(allow.inward()),
        }
    }
}

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let inward = self.inward.clone();
        Box::pin(async move {
            let host = name.as_str().to_ascii_lowercase();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let passed = admitted(&found, inward.contains(&host));
            if passed.is_empty() {
                return Err(Box::new(HostRefused::Inward(host)) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(passed.into_iter()) as Addrs)
        })
    }
}

fn admitted(found: &[SocketAddr], inward: bool) -> Vec<SocketAddr> {
    let admit = |address: IpAddr| {
        if inward {
            !is_never_meant(address)
        } else {
            is_public(address)
        }
    };
    found.iter().copied().filter(|address| admit(address.ip())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> (Regex, AllowHosts) {
        let pattern = Regex::new(r"^(?:[a-z0-9-]{1,63}\.crm\.example)$").unwrap();
        let allow = AllowHosts::parse(&["http://127.0.0.1:18069", "self.hosted.example", "*.partner.example"]).unwrap();
        (pattern, allow)
    }

    #[test]
    fn hosts_of_the_connector_and_of_the_operator_pass() {
        let (pattern, allow) = rule();
        for good in [
            "https://acme.crm.example",
            "https://ACME.crm.example/x?y",
            "https://acme.crm.example:443/",
            "http://127.0.0.1:18069/jsonrpc",
            "https://self.hosted.example/",
            "https://a.partner.example/",
            "https://b.a.partner.example/",
        ] {
            assert_eq!(check(&Url::parse(good).unwrap(), &pattern, &allow), Ok(()), "{good}");
        }
    }

    #[test]
    fn hostile_hosts_are_refused() {
        let (pattern, allow) = rule();
        let hostile = [
            "http://acme.crm.example/",
            "https://acme.crm.example:8443/",
            "https://acme.crm.example:80/",
            "ftp://acme.crm.example/",
            "https://user@acme.crm.example/",
            "https://user:pw@acme.crm.example/",
            "https://:pw@acme.crm.example/",
            "https://acme.crm.example@evil.example/",
            "https://acme.crm.example./",
            "https://acme.crm.example.evil.example/",
            "https://evil.example/acme.crm.example",
            "https://evil.example#.crm.example",
            "https://evil.example?.crm.example",
            "https://evil.example\\.crm.example/",
            "https://a.b.crm.example/",
            "https://crm.example/",
            "https://.crm.example/",
            "https://xacme.crmxexample/",
            "https://acme.crm.exampl\u{435}/",
            "https://acme\u{3002}crm\u{3002}evil.example/",
            "https://localhost/",
            "https://localhost:443/",
            "http://localhost:18069/",
            "https://localhost.localdomain/",
            "https://metadata/",
            "https://metadata.google.internal/",
            "https://127.0.0.1/",
            "https://127.0.0.1:18069/",
            "http://127.0.0.1/",
            "http://127.0.0.1:18070/",
            "http://127.0.0.2:18069/",
            "http://127.1:18070/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0/",
            "https://0.0.0.0/",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.64.0.1/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://8.8.8.8/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[fd00:ec2::254]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:db8::1]/",
            "https://[ff02::1]/",
            "https://[2606:4700::1111]/",
            "https://partner.example/",
            "http://a.partner.example/",
            "https://a.partner.example:8443/",
            "https://apartner.example/",
            "http://self.hosted.example/",
            "https://self.hosted.example:8443/",
            "https://x.self.hosted.example/",
            "https://xn--acme-crm-example.evil/",
            "https://a%2ecrm.example.evil/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:18069/",
            "data:text/plain,hi",
        ];
        for url in hostile {
            // What does not even parse is refused before it comes here.
            if let Ok(parsed) = Url::parse(url) {
                assert!(check(&parsed, &pattern, &allow).is_err(), "{url}");
            }
        }
    }

    #[test]
    fn a_wide_pattern_still_keeps_ip_literals_and_bare_names_out() {
        let pattern = Regex::new("^(?:.*)$").unwrap();
        let allow = AllowHosts::default();
        for url in [
            "https://127.0.0.1/",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "https://localhost/",
        ] {
            assert!(check(&Url::parse(url).unwrap(), &pattern, &allow).is_err(), "{url}");
        }
        assert!(check(&Url::parse("https://any.example/").unwrap(), &pattern, &allow).is_ok());
    }

    #[test]
    fn only_public_addresses_come_out_of_dns_unless_the_name_is_allowed() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let inside = [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.100.0.1",
            "0.1.2.3",
            "192.0.0.8",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.19.0.1",
            "192.88.99.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
        ];
        for text in inside {
            assert!(admitted(&[address(text)], false).is_empty(), "{text}");
            assert_eq!(admitted(&[address(text)], true).len(), 1, "{text}");
        }
        for text in ["169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::"] {
            assert!(admitted(&[address(text)], true).is_empty(), "{text}");
            assert!(admitted(&[address(text)], false).is_empty(), "{text}");
        }
        for text in ["8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1"] {
            assert_eq!(admitted(&[address("10.0.0.1"), address(text)], false), [address(text)]);
        }
    }

    #[test]
    fn entries_of_allow_hosts_are_origins_or_domains() {
        for bad in [
            "",
            "*",
            "*.",
            "*.com",
            "http://",
            "http://u@h",
            "http://h/path",
            "ftp://h",
            "http://h?x",
            "*.A.example",
        ] {
            assert!(AllowHosts::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
