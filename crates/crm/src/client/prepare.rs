//! From a request of the connector to one that can be sent.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contacts::{ErrorKind, Micros};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::tz::TimeZone;
use minijinja::Value;
use sha2::Sha256;
use url::{Url, form_urlencoded};

use crate::error::{CrmError, CrmResult};
use crate::expr::{ExprError, Template, scope, value_of};
use crate::http::{Prepared, header_pair};
use crate::spec::{AuthSpec, Body, Request, Spec, Wire};

/// `now`, for expressions.
pub(crate) fn now_value(now: Micros) -> Value {
    scope(time_value(None, now))
}

/// A time for expressions: `epoch_s`, `epoch_ms`, `iso`, and `wire` as the connector declares it, in the CRM's time zone.
pub(crate) fn time_value(wire: Option<(&Wire, &TimeZone)>, time: Micros) -> Vec<(&'static str, Value)> {
    let mut names = vec![
        ("epoch_s", Value::from(time.0 / 1_000_000)),
        ("epoch_ms", Value::from(time.millis())),
        ("iso", value_of(&Wire::Iso.write(time))),
    ];
    names.extend(wire.map(|(wire, zone)| ("wire", value_of(&wire.write_in(time, zone)))));
    names
}

/// The rendered base URL. Parts of it that come from outside may only be what belongs into a host, a site or a path
/// segment: the URL is never put together from raw text.
pub(crate) fn base_url(spec: &Spec, fields: &BTreeMap<String, String>) -> CrmResult<Url> {
    let scope = scope([("conn", value_of(fields))]);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']');
    let text = spec
        .connection
        .base_url
        .render_with(&scope, |part| match part.chars().all(legal) {
            true => Ok(part.to_owned()),
            false => Err(ExprError::new(
                "a part of the base URL holds characters that no host has",
            )),
        })
        .map_err(|error| {
            CrmError::because(
                ErrorKind::HostRefused,
                "the CRM's address cannot be put together",
                error,
            )
        })?;
    let url = Url::parse(&text)
        .map_err(|error| CrmError::because(ErrorKind::HostRefused, "the CRM's address is no URL", error))?;
    if !url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err(CrmError::new(
            ErrorKind::HostRefused,
            "the CRM's address is no plain base URL",
        ));
    }
    Ok(url)
}

/// Renders a request. `logged_in` adds what a session sends with every call.
pub(crate) fn prepare(
    spec: &Spec,
    request: &Request,
    base: &Url,
    url: Option<&Url>,
    scope: &Value,
    logged_in: bool,
) -> CrmResult<Prepared> {
    let url = match url {
        Some(url) => url.clone(),
        None => request_url(request, base, scope)?,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    add_headers(&mut headers, &spec.connection.headers, scope)?;
    let path = url
        .path()
        .strip_prefix(base.path().trim_end_matches('/'))
        .unwrap_or(url.path());
    add_auth(&mut headers, &spec.auth, (&request.method, path), scope, logged_in)?;
    let body = match &request.body {
        Body::None => None,
        Body::Json(tree) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let json = tree.render(scope).map_err(CrmError::request)?;
            Some(json.to_string().into_bytes())
        }
        Body::Form(fields) => {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            let mut form = form_urlencoded::Serializer::new(String::new());
            for (name, template) in fields {
                if let Some(value) = template.render_optional(scope).map_err(CrmError::request)? {
                    form.append_pair(name, &value);
                }
            }
            Some(form.finish().into_bytes())
        }
    };
    add_headers(&mut headers, &request.headers, scope)?;
    Ok(Prepared {
        method: request.method.clone(),
        url,
        headers,
        body,
    })
}

fn request_url(request: &Request, base: &Url, scope: &Value) -> CrmResult<Url> {
    let mut path = match &request.base {
        Some(replaced) => replaced.render_with(scope, segment).map_err(CrmError::request)?,
        None => base.path().to_owned(),
    };
    path.truncate(path.trim_end_matches('/').len());
    path.push_str(&request.path.render_with(scope, segment).map_err(CrmError::request)?);
    let mut url = base.clone();
    url.set_path(&path);
    let mut pairs = Vec::new();
    for (name, templates) in &request.query {
        for template in templates {
            let values = template.render_each(scope).map_err(CrmError::request)?;
            pairs.extend(values.into_iter().map(|value| (name, value)));
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(url)
}

/// Percent-encodes a computed part of a path, so that it stays one segment.
fn segment(text: &str) -> Result<String, ExprError> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(ExprError::new("a computed part of a path is empty or dots"));
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(out)
}

fn add_headers(headers: &mut HeaderMap, templates: &BTreeMap<String, Template>, scope: &Value) -> CrmResult<()> {
    for (name, template) in templates {
        if let Some(value) = template.render_optional(scope).map_err(CrmError::request)? {
            add_header(headers, name, &value)?;
        }
    }
    Ok(())
}

fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> CrmResult<()> {
    let pair = header_pair(name, value);
    // The value may be a secret: it is not shown.
    let (name, value) = pair.ok_or_else(|| {
        CrmError::new(
            ErrorKind::Credentials,
            format!("the value for the header `{name}` holds characters no header has"),
        )
    })?;
    headers.insert(name, value);
    Ok(())
}

/// The path is the one below the base URL.
fn add_auth(
    headers: &mut HeaderMap,
    auth: &AuthSpec,
    (method, path): (&Method, &str),
    scope: &Value,
    logged_in: bool,
) -> CrmResult<()> {
    match auth {
        AuthSpec::None => Ok(()),
        AuthSpec::Bearer { token } => {
            let token = token.render(scope).map_err(CrmError::request)?;
            add_header(headers, "authorization", &format!("Bearer {token}"))
        }
        AuthSpec::Basic { user, password } => {
            let user = user.render(scope).map_err(CrmError::request)?;
            let password = password.render(scope).map_err(CrmError::request)?;
            let pair = STANDARD.encode(format!("{user}:{password}"));
            add_header(headers, "authorization", &format!("Basic {pair}"))
        }
        AuthSpec::Header { headers: templates } => add_headers(headers, templates, scope),
        AuthSpec::Session(session) if logged_in => add_headers(headers, &session.headers, scope),
        AuthSpec::Session(_) => Ok(()),
        AuthSpec::Oauth2(oauth) if logged_in && !oauth.headers.is_empty() => {
            add_headers(headers, &oauth.headers, scope)
        }
        AuthSpec::Oauth2(_) if logged_in => {
            let token = scope
                .get_attr("session")
                .and_then(|session| session.get_attr("access_token"));
            let token = token.ok().and_then(|token| token.as_str().map(str::to_owned));
            add_header(
                headers,
                "authorization",
                &format!("Bearer {}", token.unwrap_or_default()),
            )
        }
        AuthSpec::Oauth2(_) => Ok(()),
        AuthSpec::RequestHmac(hmac) => {
            let key_id = hmac.key_id.render(scope).map_err(CrmError::request)?;
            let secret = hmac.secret.render(scope).map_err(CrmError::request)?;
            let signature = signature(&secret, &format!("{method} {path}"));
            let proof = [key_id.as_bytes(), b":", &signature].concat();
            add_header(headers, &hmac.header, &STANDARD.encode(proof))
        }
    }
}

fn signature(secret: &str, message: &str) -> Vec<u8> {
    // An HMAC takes keys of any length, so the constructor cannot fail.
    Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computed_part_stays_within_its_segment() {
        assert_eq!(segment("a/b?c#d e").unwrap(), "a%2Fb%3Fc%23d%20e");
        assert_eq!(segment("%2e%2e").unwrap(), "%252e%252e");
        for bad in ["", ".", ".."] {
            assert!(segment(bad).is_err(), "{bad}");
        }
    }
}
