//! Who may do what on the ops page and the operators' API: three tokens of rising power, and sessions of the page.
//!
//! The API takes a token (`Authorization: Bearer`), the page a session cookie, and neither the other's: what a browser
//! sends by itself opens no API, and a form of another site has no CSRF token of the session.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use contacts::Micros;
use contacts::keys::{Keys, Purpose};
use data_encoding::BASE64URL_NOPAD;
use process::secrets::Secrets;
use process::settings::Ops;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token allows; each includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    Read,
    Operate,
    Admin,
}

impl Grant {
    pub const ALL: [Grant; 3] = [Grant::Read, Grant::Operate, Grant::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Grant::Read => "read",
            Grant::Operate => "operate",
            Grant::Admin => "admin",
        }
    }
}

/// Somebody who proved a grant. The name is only what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    pub grant: Grant,
}

/// The header in which API clients say who they are.
pub const NAME_HEADER: &str = "x-snapbridge-operator";
pub const COOKIE: &str = "snapbridge_ops";
const LONGEST_NAME: usize = 60;

pub struct Access {
    tokens: [(Grant, Secrets); 3],
    session: Duration,
}

/// What a session cookie seals.
#[derive(Serialize, Deserialize)]
struct Session {
    name: String,
    grant: Grant,
    until: Micros,
    /// Of the grant's tokens: rotating them ends the session.
    tokens: String,
}

impl Access {
    pub fn new(ops: &Ops) -> Access {
        Access {
            tokens: [
                (Grant::Read, ops.read.clone()),
                (Grant::Operate, ops.operate.clone()),
                (Grant::Admin, ops.admin.clone()),
            ],
            session: ops.session,
        }
    }

    /// Nobody can have a token: there is no ops page.
    pub fn is_closed(&self) -> bool {
        self.tokens.iter().all(|(_, tokens)| tokens.is_empty())
    }

    pub fn session_life(&self) -> Duration {
        self.session
    }

    /// The highest grant of a token. All are compared, each in constant time.
    pub fn grant_of(&self, token: &str) -> Option<Grant> {
        let admitted = |(grant, tokens): &(Grant, Secrets)| tokens.admit(token).then_some(*grant);
        self.tokens.iter().filter_map(admitted).max()
    }

    pub fn by_token(&self, headers: &HeaderMap) -> Option<Operator> {
        let token = headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")?;
        let grant = self.grant_of(token.trim())?;
        let name = headers.get(NAME_HEADER).and_then(|name| name.to_str().ok());
        let name = clean_name(name.unwrap_or_default());
        Some(Operator { name, grant })
    }

    /// The value of a session cookie.
    pub fn open_session(&self, keys: &Keys, name: &str, grant: Grant, now: Micros) -> String {
        let session = Session {
            name: clean_name(name),
            grant,
            until: now.plus(self.session),
            tokens: self.digest(grant),
        };
        let plain = serde_json::to_vec(&session).unwrap_or_default();
        let (kid, sealed) = keys.seal(Purpose::Sessions, "ops", &plain);
        format!("{kid}.{}", BASE64URL_NOPAD.encode(&sealed))
    }

    pub fn by_session(&self, keys: &Keys, cookie: &str, now: Micros) -> Option<Operator> {
        let (kid, sealed) = cookie.split_once('.')?;
        let sealed = BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?;
        let plain = keys.open(Purpose::Sessions, "ops", kid, &sealed).ok()?;
        let session: Session = serde_json::from_slice(&plain).ok()?;
        let holds = session.until > now && session.tokens == self.digest(session.grant);
        holds.then_some(Operator {
            name: session.name,
            grant: session.grant,
        })
    }

    fn digest(&self, grant: Grant) -> String {
        let of = self.tokens.iter().find(|(known, _)| *known == grant);
        of.map(|(_, tokens)| tokens.digest()).unwrap_or_default()
    }
}

pub fn cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE);
    let pairs = all
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == wanted).then_some(value))
}

/// The token of a session's forms. A cookie is secret and of its session alone, so its hash is too.
pub fn csrf(cookie: &str) -> String {
    let hash = Sha256::new().chain_update(b"csrf|").chain_update(cookie).finalize();
    BASE64URL_NOPAD.encode(&hash[..24])
}

/// A request that a page of another site made. Browsers that say nothing are left to the CSRF token.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, from)| from != host),
        _ => false,
    }
}

fn clean_name(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    let name = name.trim();
    if name.is_empty() { "someone" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const LOOK: &str = "look-look-look-look";
    const ALL: &str = "admin-admin-admin-admin";

    fn access(admin: &str) -> Access {
        let ops = Ops {
            read: Secrets::read([LOOK]).unwrap(),
            operate: Secrets::default(),
            admin: Secrets::read([admin]).unwrap(),
            session: Duration::from_secs(3600),
            audit: 1,
            chart: Duration::from_secs(600),
            forget_wait: Duration::ZERO,
            try_wait: Duration::ZERO,
            doctor_accounts: 0,
        };
        Access::new(&ops)
    }

    fn keys(seed: u8) -> Keys {
        let raw = |byte: u8| Box::new([byte; 32]).into();
        Keys::new(&raw(seed), &[("k1".to_owned(), raw(seed + 1))]).unwrap()
    }

    #[test]
    fn a_token_gives_its_grant_and_nothing_else_gives_any() {
        let access = access(ALL);
        assert_eq!(access.grant_of(LOOK), Some(Grant::Read));
        assert_eq!(access.grant_of(ALL), Some(Grant::Admin));
        for wrong in ["", "look-look-look-loo", "admin-admin-admin-admin "] {
            assert_eq!(access.grant_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_session_ends_with_its_time_its_token_and_its_keys() {
        let (keys, now) = (keys(1), Micros::from_secs(1_000));
        let access = access(ALL);
        let cookie = access.open_session(&keys, " Ann\n ", Grant::Admin, now);
        let ann = Operator {
            name: "Ann".into(),
            grant: Grant::Admin,
        };
        assert_eq!(access.by_session(&keys, &cookie, now), Some(ann));
        let later = now.plus(Duration::from_secs(3601));
        assert_eq!(access.by_session(&keys, &cookie, later), None);
        assert_eq!(
            super::tests::access("another-admin-token").by_session(&keys, &cookie, now),
            None
        );
        assert_eq!(access.by_session(&super::tests::keys(7), &cookie, now), None);
        let mut forged = cookie.clone();
        forged.pop();
        assert_eq!(access.by_session(&keys, &forged, now), None);
    }

    #[test]
    fn a_request_of_another_site_is_told_from_one_of_our_own() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect::<HeaderMap>()
        };
        assert!(!is_foreign(&headers(&[("host", "a:1")])));
        assert!(!is_foreign(&headers(&[("host", "a:1"), ("origin", "http://a:1")])));
        assert!(!is_foreign(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(is_foreign(&headers(&[("sec-fetch-site", "cross-site")])));
        assert!(is_foreign(&headers(&[("host", "a:1"), ("origin", "http://a:2")])));
        assert!(is_foreign(&headers(&[("host", "a:1"), ("origin", "null")])));
    }
}
