//! Who is calling, as far as `auth` says: roles of fields and their canonical form.

use std::collections::BTreeMap;

use url::Url;

use crate::spec::{Field, FieldSource, FieldType, Role, Spec};

/// The canonical form of an `auth`.
#[derive(Clone, PartialEq, Eq)]
pub struct Canonical {
    /// Goes into the keyed hash that is the fingerprint. Holds secrets: never store or log it.
    pub fingerprint_input: Vec<u8>,
    /// The locator fields, normalised: which CRM or tenant is meant. For one locator its value, for several a list.
    pub locator: String,
    /// The principal field, if the connector has one.
    pub principal: String,
}

impl std::fmt::Debug for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canonical")
            .field("locator", &self.locator)
            .finish_non_exhaustive()
    }
}

/// Version of the encoding: another one would be another fingerprint for everybody.
const ENCODING: u8 = 1;

pub(crate) fn canonical(spec: &Spec, auth: &BTreeMap<String, String>) -> Canonical {
    let mut input = vec![ENCODING];
    put(&mut input, b'c', &spec.id);
    let (mut locators, mut principal) = (Vec::new(), String::new());
    let of_auth = |field: &&Field| field.source == FieldSource::Auth;
    for (name, field) in spec.connection.fields.iter().filter(|(_, field)| of_auth(field)) {
        let tag = match field.role {
            Some(Role::Locator) => b'l',
            Some(Role::Principal) => b'p',
            Some(Role::Secret) => b's',
            Some(Role::Ignored) | None => continue,
        };
        put(&mut input, b'k', name);
        let Some(value) = auth.get(name).or(field.default.as_ref()) else {
            input.push(b'-');
            continue;
        };
        let value = if tag == b'l' {
            normal_locator(field, value)
        } else {
            value.clone()
        };
        put(&mut input, tag, &value);
        match tag {
            b'l' => locators.push(value),
            b'p' => principal = value,
            _ => {}
        }
    }
    Canonical {
        fingerprint_input: input,
        locator: joined(&locators),
        principal,
    }
}

/// One type tag, the length, the bytes: no two lists of values have the same encoding.
fn put(input: &mut Vec<u8>, tag: u8, text: &str) {
    input.push(tag);
    input.extend_from_slice(&(text.len() as u64).to_be_bytes());
    input.extend_from_slice(text.as_bytes());
}

fn joined(parts: &[String]) -> String {
    match parts {
        [one] => one.clone(),
        parts => {
            let escaped: Vec<String> = parts
                .iter()
                .map(|part| part.replace('%', "%25").replace('|', "%7C"))
                .collect();
            escaped.join("|")
        }
    }
}

/// The same site written in several ways is one site. What cannot be read stays as it is: the call will refuse it.
fn normal_locator(field: &Field, value: &str) -> String {
    let value = value.trim();
    match field.kind {
        FieldType::Site => site(value).unwrap_or_else(|| value.to_owned()),
        FieldType::Host => host(value).unwrap_or_else(|| value.to_owned()),
        FieldType::Text | FieldType::Int | FieldType::Secret => value.to_owned(),
    }
}

/// `https://ACME.example/web?x` → `https://acme.example`. IDNA and default ports are put right by the URL parser.
pub(crate) fn site(text: &str) -> Option<String> {
    let text = text.trim();
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&text).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.username() != "" || url.password().is_some() {
        return None;
    }
    let host = url
        .host_str()
        .map(|host| host.trim_end_matches('.'))
        .filter(|host| !host.is_empty())?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{host}{port}", url.scheme()))
}

/// A bare host name, lower-case.
pub(crate) fn host(text: &str) -> Option<String> {
    let origin = site(text)?;
    let url = Url::parse(&origin).ok()?;
    let plain = url.port().is_none();
    url.domain().filter(|_| plain).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_site_has_one_form() {
        for text in [
            "acme.example",
            "https://ACME.example",
            "https://acme.example:443/web#x",
            " acme.example./ ",
        ] {
            assert_eq!(site(text).as_deref(), Some("https://acme.example"), "{text}");
        }
        assert_eq!(
            site("http://127.0.0.1:18069/").as_deref(),
            Some("http://127.0.0.1:18069")
        );
        assert_eq!(site("http://0x7f.1/").as_deref(), Some("http://127.0.0.1"));
        assert_eq!(
            site("b\u{fc}cher.example").as_deref(),
            Some("https://xn--bcher-kva.example")
        );
        for bad in ["", "https://", "ftp://acme.example", "https://u:p@acme.example", "a b"] {
            assert_eq!(site(bad), None, "{bad}");
        }
        assert_eq!(host("Acme.example").as_deref(), Some("acme.example"));
        assert_eq!(host("acme.example:8443"), None);
        assert_eq!(host("127.0.0.1"), None);
    }
}
