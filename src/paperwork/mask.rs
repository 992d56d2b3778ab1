//! What examples must not show: credentials, and people.

use serde_json::Value;

use super::configuration::MASK;

/// Masks every value of `auth`, and wherever else one of them, or another of `secrets`, turns up.
pub fn secrets(body: &mut Value, secrets: &[String]) {
    if let Some(auth) = body.get_mut("auth").and_then(Value::as_object_mut) {
        auth.values_mut().for_each(|value| *value = MASK.into());
    }
    let long: Vec<String> = secrets
        .iter()
        .filter(|secret| secret.len() >= SHORTEST)
        .cloned()
        .collect();
    replace(body, &long, MASK);
}

/// Puts a masked field into `auth`, where a body has one.
pub fn sent(body: &mut Value, field: &str) {
    if let Some(auth) = body.get_mut("auth").and_then(Value::as_object_mut) {
        auth.insert(field.to_owned(), MASK.into());
    }
}

/// Texts shorter than this are too common to be looked for.
const SHORTEST: usize = 4;

/// Puts `by` in the place of each of `texts`, wherever a string holds one.
pub fn replace(value: &mut Value, texts: &[String], by: &str) {
    match value {
        Value::String(text) => {
            for old in texts {
                if text.contains(old.as_str()) {
                    *text = text.replace(old.as_str(), by);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, texts, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, texts, by)),
        _ => {}
    }
}

/// Keys whose values are the contract's, not anybody's: everything else is about people.
const PLAIN: [&str; 21] = [
    "agent_external_id",
    "code",
    "contact_external_id",
    "contact_external_type",
    "context",
    "date",
    "delivered",
    "external_id",
    "id",
    "interaction_types",
    "mode",
    "next_offset",
    "offset",
    "page",
    "priority",
    "run",
    "status",
    "synced_at",
    "synchronization_checkpoint",
    "type",
    "auth",
];

/// Replaces what is said of people by its shape: `Ines Marchetti` is `Ixxx Mxxxxxxxx`, `+4722334455` is `+4700000000`.
pub fn people(value: &mut Value) {
    match value {
        Value::String(text) => *text = shape(text),
        Value::Array(items) => items.iter_mut().for_each(people),
        Value::Object(fields) => {
            let about_people = fields.iter_mut().filter(|(key, _)| !PLAIN.contains(&key.as_str()));
            about_people.for_each(|(_, field)| people(field));
        }
        _ => {}
    }
}

fn shape(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let mut begun = false;
    let mut digits = 0;
    let letters = rest.chars().map(|c| {
        let within = begun;
        begun = c.is_alphanumeric();
        match c {
            c if c.is_ascii_digit() => {
                digits += 1;
                if digits > 2 { '0' } else { c }
            }
            // A letter without a case may be a whole name.
            c if c.is_alphabetic() && (within || !(c.is_uppercase() || c.is_lowercase())) => 'x',
            c => c,
        }
    });
    scheme + &letters.collect::<String>()
}
