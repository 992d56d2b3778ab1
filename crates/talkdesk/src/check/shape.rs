//! The shape of a contact sync answer (Talkdesk contact sync, response). Pure: what is wrong is told, what can be used is
//! handed on.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

use super::report::Findings;
use super::rules::{
    CONTACT_ID, CONTACT_KEYS, CONTACT_LINK, CONTACT_LIST, CONTACT_NAME, CONTACT_NULL, CONTACT_OBJECT, CONTACT_PHONE,
    CONTACT_TEXT, CONTACT_UNIQUE, PAGE_CHECKPOINT, PAGE_CONTACTS, PAGE_LAST, PAGE_OFFSET,
};
use super::sync::{Meta, Page, Row};

const TEXTS: [&str; 6] = ["company", "title", "photo_url", "address", "twitter", "url"];
const LISTS: [&str; 3] = ["emails", "phones", "websites"];

/// Reads a page. `None`: there is no page to go on with. `place` begins each finding.
pub(super) fn page(json: &Value, meta: Meta, place: &str, findings: &mut Findings) -> Option<Page> {
    let Some(contacts) = json.get("contacts").and_then(Value::as_array) else {
        findings.add(&PAGE_CONTACTS, format!("{place}: {}", kind(json.get("contacts"))));
        return None;
    };
    let mut rows: Vec<Row> = Vec::with_capacity(contacts.len());
    let mut ids = HashSet::new();
    for (index, contact) in contacts.iter().enumerate() {
        let place = format!("{place}, contact {}", index + 1);
        let Some(row) = row(contact, &place, findings) else {
            continue;
        };
        if ids.insert(row.id.clone()) {
            rows.push(row);
        } else {
            findings.add(&CONTACT_UNIQUE, format!("{place}: id {} again", quoted(&row.id)));
        }
    }
    let checkpoint = match json.get("synchronization_checkpoint") {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        other => {
            findings.add(&PAGE_CHECKPOINT, format!("{place}: {}", kind(other)));
            None
        }
    };
    Some(Page {
        meta,
        rows,
        checkpoint,
        next: next_offset(json.get("next_offset"), place, findings),
        context: json.get("context").cloned(),
    })
}

fn next_offset(value: Option<&Value>, place: &str, findings: &mut Findings) -> Option<String> {
    match value {
        None => None,
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Null | Value::String(_)) => {
            findings.add(&PAGE_LAST, format!("{place}: {}", kind(value)));
            None
        }
        Some(other) => {
            findings.add(&PAGE_OFFSET, format!("{place}: {}", kind(value)));
            // A number is as good as its text to go on with.
            other.as_number().map(ToString::to_string)
        }
    }
}

fn row(contact: &Value, place: &str, findings: &mut Findings) -> Option<Row> {
    let Value::Object(fields) = contact else {
        findings.add(&CONTACT_OBJECT, format!("{place}: {}", kind(Some(contact))));
        return None;
    };
    let id = match fields.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Some(id.clone()),
        other => {
            findings.add(&CONTACT_ID, format!("{place}: {}", kind(other)));
            other.and_then(Value::as_number).map(ToString::to_string)
        }
    };
    let name = fields.get("name").and_then(Value::as_str);
    if name.is_none_or(|name| name.trim().is_empty()) {
        findings.add(&CONTACT_NAME, format!("{place}: {}", kind(fields.get("name"))));
    }
    optional_fields(fields, place, findings);
    let mut hasher = DefaultHasher::new();
    contact.to_string().hash(&mut hasher);
    id.map(|id| Row {
        id,
        hash: hasher.finish(),
    })
}

fn optional_fields(fields: &Map<String, Value>, place: &str, findings: &mut Findings) {
    for (key, value) in fields {
        let key = key.as_str();
        let seen = || format!("{place}: `{key}` is {}", kind(Some(value)));
        match key {
            "id" | "name" => {}
            _ if !TEXTS.contains(&key) && !LISTS.contains(&key) => {
                findings.add(&CONTACT_KEYS, format!("{place}: `{key}`"));
            }
            _ if value.is_null() => findings.add(&CONTACT_NULL, seen()),
            _ if TEXTS.contains(&key) => match value.as_str() {
                None => findings.add(&CONTACT_TEXT, seen()),
                Some(link) if key.ends_with("url") && !is_link(link) => findings.add(&CONTACT_LINK, seen()),
                Some(_) => {}
            },
            _ => {
                let texts = value.as_array().into_iter().flatten().map(Value::as_str);
                match texts.collect::<Option<Vec<_>>>() {
                    Some(texts) if value.is_array() => {
                        if key == "phones" && !texts.iter().all(|phone| is_e164(phone)) {
                            findings.add(&CONTACT_PHONE, format!("{place}: a number of another form"));
                        }
                    }
                    _ => findings.add(&CONTACT_LIST, seen()),
                }
            }
        }
    }
}

/// What a value is, without its content: that may be personal.
pub(super) fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(number)) if number.is_f64() => "a fraction",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(text)) if text.trim().is_empty() => "an empty string",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(items)) if items.is_empty() => "an empty array",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}

/// An id as it is told.
pub(super) fn quoted(id: &str) -> String {
    format!("{id:?}")
}

fn is_e164(phone: &str) -> bool {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
}

fn is_link(link: &str) -> bool {
    url::Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_and_links_are_told_from_others() {
        assert!(is_e164("+15555555555") && is_e164("+4930123456"));
        for wrong in [
            "",
            "+",
            "15555555555",
            "+1 555",
            "+0151234567",
            "+1234567890123456",
            "+1555x12",
        ] {
            assert!(!is_e164(wrong), "{wrong}");
        }
        assert!(is_link("http://example.com/users/1/") && is_link("HTTPS://example.com"));
        for wrong in [
            "",
            "www.example.com",
            "javascript:alert(1)",
            "/users/1",
            "ftp://example.com/",
        ] {
            assert!(!is_link(wrong), "{wrong}");
        }
    }
}
