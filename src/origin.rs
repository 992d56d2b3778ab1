//! How a request came: from whom, by TLS or not, for which host. What a proxy says of it is believed from trusted ones
//! alone (`http.trusted_proxies`).

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use process::settings::Settings;

use crate::server::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where a request came from; an extension of every request that passed [`Rule::origin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The nearest address that is no trusted proxy's.
    pub client: IpAddr,
    /// Whether it came by TLS all the way to us, or to a trusted proxy.
    pub https: bool,
    /// Host and port the client named.
    pub host: Option<Authority>,
}

/// Whose word counts, and what is asked of a request.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub trusted_proxies: Vec<IpNet>,
    pub require_https: bool,
}

impl Rule {
    pub fn of(settings: &Settings) -> Rule {
        Rule {
            trusted_proxies: settings.http.trusted_proxies.clone(),
            require_https: settings.http.require_https,
        }
    }

    /// What to make of a request's headers.
    pub fn origin(&self, peer: Peer, headers: &HeaderMap) -> Origin {
        let host = one(headers, &header::HOST);
        if !self.trusts(peer.ip) {
            return Origin {
                client: peer.ip,
                https: peer.tls,
                host,
            };
        }
        let forwarded = headers.contains_key(FORWARDED_PROTO);
        // Several values are of several hops, and the first may be the client's own invention: all must say https.
        let told = forwarded && list(headers, &FORWARDED_PROTO).all(|proto| proto.eq_ignore_ascii_case("https"));
        Origin {
            client: self.client(peer.ip, headers),
            // A proxy that speaks TLS to us may still have been spoken to without.
            https: told || (peer.tls && !forwarded),
            host: match headers.contains_key(FORWARDED_HOST) {
                true => one(headers, &FORWARDED_HOST),
                false => host,
            },
        }
    }

    /// Each hop wrote the address of the one before it at the end of the list, so it is read from there.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let hops: Vec<&str> = list(headers, &FORWARDED_FOR).collect();
        for hop in hops.into_iter().rev() {
            let Some(address) = address(hop) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&ip))
    }
}

impl Origin {
    /// `https://host`, as far as it is known.
    pub fn base(&self) -> Option<String> {
        let scheme = if self.https { "https" } else { "http" };
        self.host.as_ref().map(|host| format!("{scheme}://{host}"))
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.to_str().unwrap_or_default().split(',').map(str::trim))
}

/// The value, if there is one and one only.
fn one(headers: &HeaderMap, name: &HeaderName) -> Option<Authority> {
    let mut values = list(headers, name);
    let value = values.next()?.parse().ok();
    values.next().is_none().then_some(value)?
}

/// Some proxies add the port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|hop| hop.strip_suffix(']'))
        .unwrap_or(hop);
    let parsed = bare.parse::<IpAddr>().ok();
    parsed
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|ip| ip.to_canonical())
}

/// Whether credentials may cross the network readably: nothing here has TLS, and others can reach the listener.
pub fn is_exposed(settings: &Settings, listening: IpAddr) -> bool {
    let public_https = settings
        .http
        .public_url
        .as_ref()
        .is_some_and(|url| url.scheme() == "https");
    settings.http_tls.cert.is_none() && !public_https && !settings.http.require_https && !listening.is_loopback()
}

#[cfg(test)]
mod tests {
    use process::settings::Source;

    use super::*;

    const PROXY: &str = "10.0.0.9";
    const STRANGER: &str = "203.0.113.7";

    fn origin(peer: &str, tls: bool, given: &[(&str, &str)]) -> Origin {
        let rule = Rule {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            require_https: true,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let ip = peer.parse().unwrap();
        rule.origin(Peer { ip, tls }, &headers)
    }

    #[test]
    fn https_is_believed_from_ourselves_and_from_trusted_proxies() {
        const PROTO: &str = "x-forwarded-proto";
        type Row<'a> = (&'a str, bool, &'a [(&'a str, &'a str)], bool);
        let rows: [Row<'_>; 13] = [
            (STRANGER, false, &[], false),
            (STRANGER, true, &[], true),
            (STRANGER, false, &[(PROTO, "https")], false),
            (STRANGER, true, &[(PROTO, "http")], true),
            (PROXY, false, &[], false),
            (PROXY, false, &[(PROTO, "https")], true),
            (PROXY, false, &[(PROTO, "HTTPS")], true),
            (PROXY, false, &[(PROTO, "http")], false),
            (PROXY, false, &[(PROTO, "https, http")], false),
            (PROXY, false, &[(PROTO, "https"), (PROTO, "http")], false),
            (PROXY, false, &[(PROTO, "")], false),
            (PROXY, true, &[], true),
            (PROXY, true, &[(PROTO, "http")], false),
        ];
        for (peer, tls, headers, https) in rows {
            assert_eq!(origin(peer, tls, headers).https, https, "{peer} {tls} {headers:?}");
        }
    }

    #[test]
    fn the_client_is_the_nearest_address_that_nobody_trusted_made_up() {
        const FOR: &str = "x-forwarded-for";
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let rows: [Row<'_>; 11] = [
            (STRANGER, &[(FOR, "198.51.100.1")], STRANGER),
            (PROXY, &[], PROXY),
            (PROXY, &[(FOR, "198.51.100.1")], "198.51.100.1"),
            (PROXY, &[(FOR, "6.6.6.6, 198.51.100.1")], "198.51.100.1"),
            (PROXY, &[(FOR, "6.6.6.6, 198.51.100.1, 10.1.1.1")], "198.51.100.1"),
            (PROXY, &[(FOR, "6.6.6.6"), (FOR, "198.51.100.1")], "198.51.100.1"),
            (PROXY, &[(FOR, "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            (PROXY, &[(FOR, "6.6.6.6, unknown, 10.1.1.1")], "10.1.1.1"),
            (PROXY, &[(FOR, "198.51.100.1:4711")], "198.51.100.1"),
            ("2001:db8::1", &[(FOR, "[2001:db9::7]:4711")], "2001:db9::7"),
            (PROXY, &[(FOR, "[2001:db9::7]")], "2001:db9::7"),
        ];
        for (peer, headers, client) in rows {
            assert_eq!(
                origin(peer, false, headers).client.to_string(),
                client,
                "{peer} {headers:?}"
            );
        }
    }

    #[test]
    fn the_host_is_the_proxy_s_word_or_the_request_s() {
        let host = ("host", "inside:8080");
        let told = ("x-forwarded-host", "bridge.example");
        let https = ("x-forwarded-proto", "https");
        for (peer, headers, base) in [
            (STRANGER, vec![host, told, https], Some("http://inside:8080")),
            (PROXY, vec![host, told, https], Some("https://bridge.example")),
            (PROXY, vec![host, https], Some("https://inside:8080")),
            (PROXY, vec![host, ("x-forwarded-host", "a.example, b.example")], None),
            (PROXY, vec![host, ("x-forwarded-host", "no host at all")], None),
            (STRANGER, vec![], None),
        ] {
            assert_eq!(
                origin(peer, false, &headers).base().as_deref(),
                base,
                "{peer} {headers:?}"
            );
        }
    }

    #[test]
    fn a_listener_without_any_tls_is_exposed_unless_it_is_this_machine_s() {
        for (text, listening, exposed) in [
            ("", "127.0.0.1", false),
            ("", "::1", false),
            ("", "0.0.0.0", true),
            ("", "192.0.2.1", true),
            ("http.public_url = \"https://bridge.example\"", "0.0.0.0", false),
            ("http.public_url = \"http://bridge.example\"", "0.0.0.0", true),
            ("http.tls = {cert = \"c\", key = \"k\"}", "0.0.0.0", false),
            (
                "http = {require_https = true, trusted_proxies = [\"10.0.0.1\"]}",
                "0.0.0.0",
                false,
            ),
        ] {
            let settings = Settings::load(&Source::text(text)).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(
                is_exposed(&settings, listening.parse().unwrap()),
                exposed,
                "{text} {listening}"
            );
        }
    }
}
