//! A delivery of our own, as the CRM would send it: to follow a webhook through without waiting for somebody to edit a contact.

use contacts::Micros;
use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;

use super::decode::decode;
use super::verify::{encoded, mac, message, wrapped};
use super::{Hooks, Refused, Verified, WebhookRequest};
use crate::spec::{Decode, TimestampUnit, VerifyKind, Where};

/// What is to be posted.
#[derive(Clone, Debug)]
pub struct Made {
    pub url: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Hooks<'_> {
    /// The body of a delivery that names the contact `id`, made of a sample of the CRM's: its ids become this one, its account
    /// becomes `account`, and what tells its events from others becomes `nonce`.
    ///
    /// # Errors
    /// The sample is none of this connector's, or cannot be made to name the contact.
    pub fn body_for(&self, sample: &str, id: &str, account: Option<&str>, nonce: u64) -> Result<Vec<u8>, Refused> {
        let read = |body: &[u8]| {
            let body = decode(self.spec.verify.decode, body).ok_or(Refused::BadBody)?;
            self.events(&Verified { body })
        };
        let events = read(sample.as_bytes())?;
        let mut changes: Vec<(String, String)> = Vec::new();
        for event in &events {
            changes.extend(event.ids.iter().map(|old| (old.clone(), id.to_owned())));
            let account = event.account.clone().zip(account.map(str::to_owned));
            changes.extend(account);
            changes.extend(event.dedupe.clone().map(|old| (old, nonce.to_string())));
        }
        let body = match self.spec.verify.decode {
            Decode::Json => {
                let mut body: Json = serde_json::from_str(sample).map_err(|_| Refused::BadBody)?;
                replace(&mut body, &changes);
                body.to_string().into_bytes()
            }
            Decode::Xml | Decode::Form => {
                let text = changes
                    .iter()
                    .fold(sample.to_owned(), |text, (old, new)| text.replace(old.as_str(), new));
                text.into_bytes()
            }
        };
        let named = read(&body)?
            .iter()
            .any(|event| event.relevant && event.ids.iter().any(|named| named == id));
        if named { Ok(body) } else { Err(Refused::BadBody) }
    }

    /// Signs a body for `url` as the CRM would.
    pub fn sign(
        &self,
        url: &str,
        mut body: Vec<u8>,
        secret: &SecretString,
        hook_id: Option<&str>,
        now: Micros,
    ) -> Option<Made> {
        let mut headers = HeaderMap::new();
        let kind = match self.spec.verify.decode {
            Decode::Json => "application/json",
            Decode::Xml => "text/xml; charset=utf-8",
            Decode::Form => "application/x-www-form-urlencoded",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let plain = secret.expose_secret();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let mut url = url.to_owned();
        match &self.spec.verify.kind {
            VerifyKind::None => {}
            VerifyKind::Shared(Where::Header(name)) => {
                headers.insert(name.clone(), plain.parse().ok()?);
            }
            VerifyKind::Shared(Where::Query(name)) => {
                url = format!("{url}?{}", query.append_pair(name, plain).finish());
            }
            VerifyKind::Shared(Where::Body(path)) => {
                let mut json: Json = serde_json::from_slice(&body).ok()?;
                *json.pointer_mut(&format!("/{}", path.replace('.', "/")))? = Json::from(plain);
                body = json.to_string().into_bytes();
            }
            VerifyKind::Basic => {
                use base64::Engine as _;
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("snapbridge:{plain}"));
                headers.insert(header::AUTHORIZATION, format!("Basic {pair}").parse().ok()?);
            }
            VerifyKind::Hmac {
                hash,
                header,
                encoding,
                prefix,
                signed,
                timestamp,
                wrap,
            } => {
                if let (Some(_), Some(id)) = (wrap, hook_id) {
                    url = format!("{url}?{}", query.append_pair("hook_id", id).finish());
                }
                let mut stamp = String::new();
                if let Some(timestamp) = timestamp {
                    stamp = match timestamp.unit {
                        TimestampUnit::Seconds => (now.millis() / 1_000).to_string(),
                        TimestampUnit::Millis => now.millis().to_string(),
                        TimestampUnit::Rfc3339 => now.to_string(),
                    };
                    headers.insert(timestamp.header.clone(), stamp.parse().ok()?);
                }
                let nothing = std::collections::BTreeMap::new();
                let request = WebhookRequest {
                    method: "POST",
                    url: &url,
                    headers: &headers,
                    query: &nothing,
                    body: &body,
                    hook_id,
                };
                let message = message(signed, &request, &stamp);
                let signature = encoded(&mac(*hash, plain.as_bytes(), &message), *encoding);
                let signature = format!("{prefix}{}", wrapped(wrap.as_ref(), &signature, &request)?);
                headers.insert(header.clone(), signature.parse().ok()?);
            }
        }
        Some(Made { url, headers, body })
    }
}

/// Puts new texts and numbers in the place of old ones, also at the end of a name such as `zen:user:9001`.
fn replace(body: &mut Json, changes: &[(String, String)]) {
    match body {
        Json::Array(values) => values.iter_mut().for_each(|value| replace(value, changes)),
        Json::Object(fields) => fields.values_mut().for_each(|value| replace(value, changes)),
        Json::Number(number) => {
            let text = number.to_string();
            if let Some((_, new)) = changes.iter().find(|(old, _)| *old == text) {
                *body = new.parse::<u64>().map_or_else(|_| Json::from(new.as_str()), Json::from);
            }
        }
        Json::String(text) => {
            let whole = changes.iter().find(|(old, _)| old == text).map(|(_, new)| new.clone());
            let tail = || {
                let (head, last) = text.rsplit_once(':')?;
                let (_, new) = changes.iter().find(|(old, _)| old == last)?;
                Some(format!("{head}:{new}"))
            };
            if let Some(new) = whole.or_else(tail) {
                *text = new;
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}
