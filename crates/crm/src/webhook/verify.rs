//! The proof of the sender: one routine over ordered byte parts makes every vendor's signature.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contacts::Micros;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, header};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::decode::decode;
use super::{Refused, WebhookRequest};
use crate::expr::scope;
use crate::spec::{Decode, Encoding, HashKind, Part, Timestamp, TimestampUnit, Verify, VerifyKind, Where, Wrap};

pub(crate) fn verify(
    spec: &Verify,
    request: &WebhookRequest<'_>,
    secrets: &[SecretString],
    now: Micros,
) -> Result<(), Refused> {
    match &spec.kind {
        VerifyKind::None => Ok(()),
        VerifyKind::Hmac {
            hash,
            header,
            encoding,
            prefix,
            signed,
            timestamp,
            wrap,
        } => {
            let mut given = header_text(request, header)
                .filter(|given| !given.is_empty())
                .ok_or(Refused::NoProof)?
                .to_owned();
            if *encoding == Encoding::Hex && wrap.is_none() {
                // Hex is hex, in either case.
                given.make_ascii_lowercase();
            }
            let stamp = match timestamp {
                Some(timestamp) => checked_timestamp(request, timestamp, now)?,
                None => String::new(),
            };
            let message = message(signed, request, &stamp);
            any(secrets, |secret| {
                let signature = encoded(&mac(*hash, secret, &message), *encoding);
                let expected = format!("{prefix}{}", wrapped(wrap.as_ref(), &signature, request)?);
                Some(same(given.as_bytes(), expected.as_bytes()))
            })
        }
        VerifyKind::Shared(place) => {
            let given = shared(place, spec.decode, request).ok_or(Refused::NoProof)?;
            any(secrets, |secret| Some(same(given.as_bytes(), secret)))
        }
        VerifyKind::Basic => {
            let given = header_text(request, &header::AUTHORIZATION)
                .and_then(password)
                .ok_or(Refused::NoProof)?;
            any(secrets, |secret| Some(same(&given, secret)))
        }
    }
}

/// Tries every secret, whichever fits. An empty one proves nothing.
fn any(secrets: &[SecretString], fits: impl Fn(&[u8]) -> Option<bool>) -> Result<(), Refused> {
    let secrets = secrets
        .iter()
        .map(|secret| secret.expose_secret().as_bytes())
        .filter(|secret| !secret.is_empty());
    let found = secrets.fold(false, |found, secret| found | fits(secret).unwrap_or(false));
    if found { Ok(()) } else { Err(Refused::BadProof) }
}

/// In constant time for equal lengths.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn header_text<'a>(request: &WebhookRequest<'a>, name: &HeaderName) -> Option<&'a str> {
    request.headers.get(name)?.to_str().ok()
}

fn checked_timestamp(request: &WebhookRequest<'_>, spec: &Timestamp, now: Micros) -> Result<String, Refused> {
    let text = header_text(request, &spec.header).ok_or(Refused::NoProof)?;
    let number = || text.parse::<u64>().ok();
    let at = match spec.unit {
        TimestampUnit::Seconds => number().map(Micros::from_secs),
        TimestampUnit::Millis => number().map(Micros::from_millis),
        TimestampUnit::Rfc3339 => Micros::parse(text),
    };
    let at = at.ok_or(Refused::BadProof)?;
    let distance = now.since(at).max(at.since(now));
    if distance > spec.tolerance {
        return Err(Refused::OutsideWindow);
    }
    Ok(text.to_owned())
}

pub(super) fn message(signed: &[Part], request: &WebhookRequest<'_>, stamp: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(request.body.len() + 256);
    for part in signed {
        match part {
            Part::Method => message.extend_from_slice(request.method.as_bytes()),
            Part::Url => message.extend_from_slice(request.url.as_bytes()),
            Part::UrlHubspot => message.extend_from_slice(hubspot_url(request.url).as_bytes()),
            Part::Timestamp => message.extend_from_slice(stamp.as_bytes()),
            Part::Text(text) => message.extend_from_slice(text.as_bytes()),
            Part::Body => message.extend_from_slice(request.body),
        }
    }
    message
}

/// The twelve percent sequences that HubSpot decodes before it signs (its guide on validating requests).
fn hubspot_url(url: &str) -> Cow<'_, str> {
    const DECODED: [(&str, &str); 12] = [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%3F", "?"),
        ("%40", "@"),
        ("%21", "!"),
        ("%24", "$"),
        ("%27", "'"),
        ("%28", "("),
        ("%29", ")"),
        ("%2A", "*"),
        ("%2C", ","),
        ("%3B", ";"),
    ];
    if !url.contains('%') {
        return Cow::Borrowed(url);
    }
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        let code = rest.get(start..start + 3).unwrap_or("%");
        let plain = DECODED
            .iter()
            .find(|(sequence, _)| sequence.eq_ignore_ascii_case(code))
            .map(|(_, plain)| *plain);
        out.push_str(plain.unwrap_or(code));
        rest = &rest[start + code.len()..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

pub(super) fn mac(hash: HashKind, secret: &[u8], message: &[u8]) -> Vec<u8> {
    // An HMAC takes keys of any length, so the constructors cannot fail.
    match hash {
        HashKind::Sha1 => Hmac::<Sha1>::new_from_slice(secret)
            .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
            .unwrap_or_default(),
        HashKind::Sha256 => Hmac::<Sha256>::new_from_slice(secret)
            .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
            .unwrap_or_default(),
    }
}

pub(super) fn encoded(bytes: &[u8], encoding: Encoding) -> String {
    match encoding {
        Encoding::Hex => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    }
}

pub(super) fn wrapped(wrap: Option<&Wrap>, signature: &str, request: &WebhookRequest<'_>) -> Option<String> {
    let Some(wrap) = wrap else {
        return Some(signature.to_owned());
    };
    let hook = scope([(
        "id",
        request
            .hook_id
            .map_or(minijinja::Value::UNDEFINED, minijinja::Value::from),
    )]);
    let text = wrap
        .template
        .render(&scope([("hook", hook), ("sig", minijinja::Value::from(signature))]))
        .ok()?;
    Some(if wrap.base64 { STANDARD.encode(text) } else { text })
}

fn shared<'a>(place: &Where, form: Decode, request: &WebhookRequest<'a>) -> Option<Cow<'a, str>> {
    match place {
        Where::Header(name) => header_text(request, name).map(Cow::Borrowed),
        Where::Query(name) => request.query.get(name).map(|text| Cow::Borrowed(text.as_str())),
        Where::Body(path) => {
            let body = decode(form, request.body)?;
            let found = path.split('.').try_fold(&body, |value, key| value.get(key))?;
            found.as_str().map(|text| Cow::Owned(text.to_owned()))
        }
    }
}

/// The password of `Authorization: Basic …`.
fn password(header: &str) -> Option<Vec<u8>> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(encoded.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubspot_decodes_its_twelve_sequences_and_no_other() {
        assert_eq!(hubspot_url("https://h/x?a=%3A%2f%20%41%"), "https://h/x?a=:/%20%41%");
        assert_eq!(hubspot_url("https://h/%é"), "https://h/%é");
        assert_eq!(hubspot_url("https://h/"), "https://h/");
    }
}
