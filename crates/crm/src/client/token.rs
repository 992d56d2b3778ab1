//! Access tokens of OAuth 2: the one that Talkdesk brought, or one that is minted at the token endpoint.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contacts::ErrorKind;
use contacts::minted::Minted;
use http::{HeaderMap, HeaderValue, Method, header};
use minijinja::Value;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;
use url::{Url, form_urlencoded};

use super::{Client, Entry, Kept, prepare};
use crate::error::{CrmError, CrmResult};
use crate::expr::{ExprError, scope};
use crate::http::{Prepared, RawReply, header_pair};
use crate::reply::{Judged, Reply, Tests, holds, judge};
use crate::spec::{ClientAuth, Grant, Oauth2};

/// Minting is charged and counted as this operation.
const OPERATION: &str = "login";

impl Client {
    /// The token that Talkdesk brought, else a minted one.
    pub(super) async fn token_entry(&self, oauth: &Oauth2) -> CrmResult<Entry> {
        if let Some(brought) = self.brought_token(oauth) {
            return Ok(Entry {
                value: Some(session_of(&brought)),
                kept: Kept::Nothing,
                fresh: true,
            });
        }
        let Some(grant) = self.connector.minting() else {
            // The fields were checked when the client was made.
            return Err(CrmError::new(ErrorKind::Credentials, "`auth` brings no access token"));
        };
        let minted = self
            .mint
            .token(&self.mint_key, || self.mint_token(oauth, grant))
            .await?;
        Ok(Entry {
            value: Some(session_of(&minted.token)),
            kept: Kept::Token(minted.token),
            fresh: minted.fresh,
        })
    }

    fn brought_token(&self, oauth: &Oauth2) -> Option<SecretString> {
        oauth.token_fields.iter().find_map(|field| self.field(field))
    }

    fn field(&self, name: &str) -> Option<SecretString> {
        let value = self.conn.get_attr(name).ok()?;
        let text = value.as_str().filter(|text| !text.is_empty())?;
        Some(SecretString::from(text.to_owned()))
    }

    /// One call to the token endpoint.
    async fn mint_token(&self, oauth: &Oauth2, grant: Grant) -> CrmResult<Minted> {
        let spec = self.spec();
        let names = vec![
            ("conn", self.conn.clone()),
            ("now", prepare::now_value(self.clock.now())),
        ];
        let url = token_url(oauth, &self.conn)?;
        self.http.check(&url, &spec.connection.hosts)?;
        let prepared = self.token_request(oauth, grant, url, &scope(names))?;

        let charges = self.connector.charges(OPERATION, &self.conn, self.clock.now())?;
        let slot = self.pacer.slot(&charges).await?;
        let asked_at = self.clock.now();
        let sent = self.http.send(prepared).await;
        match &sent {
            Err(error) if error.kind == ErrorKind::HostRefused => self.pacer.give_back(slot).await,
            _ => self.pacer.settle(slot).await,
        }
        let outcome = if sent.is_ok() { "answered" } else { "failed" };
        metrics::counter!("snapbridge_crm_calls_total", "connector" => spec.id.clone(), "operation" => OPERATION, "outcome" => outcome)
            .increment(1);
        let raw = sent?;
        match read(&raw) {
            Said::Token { token, life } => {
                tracing::debug!(connector = spec.id, grant = grant.as_str(), "a token was minted");
                return Ok(Minted::new(token, asked_at, life.or(oauth.lifetime)));
            }
            Said::Refused(error) => {
                let message = format!("the token endpoint refused the credentials ({error})");
                return Err(CrmError::new(ErrorKind::Credentials, message));
            }
            Said::Wrong(error) => {
                let message = format!("the token endpoint refused the request ({error})");
                return Err(CrmError::new(ErrorKind::Rejected, message));
            }
            Said::Other => {}
        }

        // Slowed down, out of order, or something else in its place: as with any other call.
        let reply = Reply::new(&raw);
        let now = self.clock.now();
        let names = scope([("conn", self.conn.clone()), ("response", reply.value.clone())]);
        let settings = &self.http.settings;
        if !charges.is_empty() {
            for none_left in holds(spec, &reply, &names, settings, now) {
                self.pacer.none_left(&none_left, &charges, asked_at).await?;
            }
        }
        let scrub = |text: &str| self.scrub(text, None);
        let error = match judge(spec, Tests::default(), &reply, &names, settings, &scrub, now) {
            // Whatever it is, it is no word about the credentials: a login page, an API's envelope, a proxy's 403.
            Ok(Judged::Ok | Judged::Empty) => {
                CrmError::new(ErrorKind::BadReply, "the token endpoint gave no access token")
            }
            Err(error) if error.kind == ErrorKind::Credentials => CrmError::new(
                ErrorKind::BadReply,
                format!("the token endpoint answered {} without a reason", raw.status),
            ),
            Err(error) => error,
        };
        if !charges.is_empty() {
            for stop in self.connector.hold_for(error.kind, OPERATION) {
                self.pacer.hold(&stop).await?;
            }
        }
        Err(error)
    }

    /// RFC 6749, sections 2.3.1, 4.3.2 and 4.4.2.
    fn token_request(&self, oauth: &Oauth2, grant: Grant, url: Url, names: &Value) -> CrmResult<Prepared> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", grant.as_str());
        let secret = |name: &str| {
            let missing = || {
                CrmError::new(
                    ErrorKind::Credentials,
                    format!("`{name}` is missing, so no token is minted"),
                )
            };
            self.field(name).ok_or_else(missing)
        };
        let (id, client_secret) = (secret("client_id")?, secret("client_secret")?);
        match oauth.client_auth {
            ClientAuth::Body => {
                form.append_pair("client_id", id.expose_secret());
                form.append_pair("client_secret", client_secret.expose_secret());
            }
            ClientAuth::Basic => {
                let pair = format!(
                    "{}:{}",
                    encoded(id.expose_secret()),
                    encoded(client_secret.expose_secret())
                );
                let value = format!("Basic {}", STANDARD.encode(pair));
                if let Some((name, value)) = header_pair("authorization", &value) {
                    headers.insert(name, value);
                }
            }
        }
        if grant == Grant::Password {
            form.append_pair("username", secret("username")?.expose_secret());
            form.append_pair("password", secret("password")?.expose_secret());
        }
        if let Some(scope) = &oauth.scope {
            form.append_pair("scope", scope);
        }
        for (name, template) in &oauth.params {
            if let Some(value) = template.render_optional(names).map_err(CrmError::request)? {
                form.append_pair(name, &value);
            }
        }
        Ok(Prepared {
            method: Method::POST,
            url,
            headers,
            body: Some(form.finish().into_bytes()),
        })
    }
}

/// `session`, for the headers that send a token.
pub(crate) fn session_of(token: &SecretString) -> Value {
    scope([("access_token", Value::from(token.expose_secret()))])
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The token endpoint. Its parts may come from outside: what is no legal part of a plain URL is refused, and the host
/// rule is for the caller to ask.
pub(crate) fn token_url(oauth: &Oauth2, conn: &Value) -> CrmResult<Url> {
    let refused = |what: &str| CrmError::new(ErrorKind::HostRefused, what);
    let Some(template) = &oauth.token_url else {
        return Err(refused("there is no token endpoint"));
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%?=&+".contains(c);
    let text = template
        .render_with(&scope([("conn", conn.clone())]), |part| {
            if part.chars().all(legal) {
                Ok(part.to_owned())
            } else {
                Err(ExprError::new(
                    "a part of the token endpoint holds characters that no URL needs",
                ))
            }
        })
        .map_err(|error| {
            CrmError::because(
                ErrorKind::HostRefused,
                "the token endpoint cannot be put together",
                error,
            )
        })?;
    Url::parse(&text).map_err(|error| CrmError::because(ErrorKind::HostRefused, "the token endpoint is no URL", error))
}

/// What a token endpoint said.
#[derive(Debug)]
enum Said {
    Token {
        token: SecretString,
        life: Option<Duration>,
    },
    /// It does not take the credentials; the error's code.
    Refused(&'static str),
    /// The request is wrong, whoever asks.
    Wrong(&'static str),
    /// Nothing that RFC 6749 knows.
    Other,
}

/// Errors of RFC 6749, section 5.2, and what comes of them. Some servers send them with 200, 403 or 500; the code is what
/// counts. A bare 401 is the one status that is an answer by itself.
fn read(raw: &RawReply) -> Said {
    const REFUSED: [&str; 5] = [
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "access_denied",
        "invalid_client_id",
    ];
    const WRONG: [&str; 3] = ["invalid_request", "unsupported_grant_type", "invalid_scope"];
    let body: Json = serde_json::from_slice(&raw.body).unwrap_or_default();
    let good = (200..300).contains(&raw.status);
    let token = body.get("access_token").and_then(Json::as_str);
    if let Some(token) = token.filter(|token| good && !token.is_empty()) {
        return Said::Token {
            token: token.to_owned().into(),
            life: body.get("expires_in").and_then(life),
        };
    }
    let error = body.get("error").and_then(Json::as_str).unwrap_or_default();
    if let Some(error) = REFUSED.iter().find(|known| **known == error) {
        return Said::Refused(error);
    }
    if let Some(error) = WRONG.iter().find(|known| **known == error) {
        return Said::Wrong(error);
    }
    if raw.status == 401 {
        return Said::Refused("status 401");
    }
    Said::Other
}

/// `expires_in`: seconds, which some servers write as text. What is no time counts as not said.
fn life(value: &Json) -> Option<Duration> {
    let seconds = match value {
        Json::Number(number) => number.as_f64()?,
        Json::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // Salesforce's kind of "not telling" is 0.
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(1e9)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(status: u16, body: &str) -> String {
        let raw = RawReply {
            status,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        match read(&raw) {
            Said::Token { token, life } => format!("{} {life:?}", token.expose_secret()),
            Said::Refused(error) => format!("refused {error}"),
            Said::Wrong(error) => format!("wrong {error}"),
            Said::Other => "other".to_owned(),
        }
    }

    #[test]
    fn the_code_of_an_error_counts_and_not_its_status() {
        for (status, body, expected) in [
            (200, r#"{"access_token":"t","expires_in":3600}"#, "t Some(3600s)"),
            (200, r#"{"access_token":"t","expires_in":"90"}"#, "t Some(90s)"),
            (200, r#"{"access_token":"t","expires_in":0}"#, "t None"),
            (201, r#"{"access_token":"t"}"#, "t None"),
            (400, r#"{"error":"invalid_grant"}"#, "refused invalid_grant"),
            (200, r#"{"error":"invalid_client"}"#, "refused invalid_client"),
            (403, r#"{"error":"unauthorized_client"}"#, "refused unauthorized_client"),
            (401, "", "refused status 401"),
            (400, r#"{"error":"invalid_scope"}"#, "wrong invalid_scope"),
            (403, "<html>blocked</html>", "other"),
            (503, r#"{"error":"temporarily_unavailable"}"#, "other"),
            (500, r#"{"access_token":"t"}"#, "other"),
            (200, r#"{"access_token":""}"#, "other"),
            (200, "<html>sign in</html>", "other"),
            (429, "", "other"),
        ] {
            assert_eq!(said(status, body), expected, "{status} {body}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_token_endpoint_sends_is_read(status in 100..600u16, body in ".{0,80}") {
            said(status, &body);
        }

        #[test]
        fn a_life_is_a_time_or_none(number in any::<f64>(), text in "[0-9eE.+-]{0,12}") {
            for value in [Json::from(number), Json::from(text.clone())] {
                if let Some(life) = life(&value) {
                    prop_assert!(life <= Duration::from_secs(1_000_000_000));
                }
            }
        }
    }
}
