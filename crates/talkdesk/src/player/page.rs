//! One answer, read as any bridge may write it.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::io;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What of a page counts. Contacts stay as they were written.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub contacts: Vec<Row<'a>>,
    pub checkpoint: Option<String>,
    pub next_offset: Option<String>,
    pub context: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Row<'a> {
    pub id: Cow<'a, str>,
    json: &'a RawValue,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    contacts: Vec<&'a RawValue>,
    #[serde(default)]
    synchronization_checkpoint: Option<Value>,
    #[serde(default)]
    next_offset: Option<Value>,
    #[serde(default)]
    context: Option<Value>,
}

#[derive(Deserialize)]
struct Identified {
    id: Value,
}

impl<'a> Page<'a> {
    /// The error says where it goes wrong, not what stands there.
    pub fn parse(body: &'a [u8]) -> Result<Self, String> {
        let at = |error: serde_json::Error| {
            let what = if error.is_data() {
                "not of the shape of the contract"
            } else {
                "not JSON"
            };
            format!("{what} at line {}, column {}", error.line(), error.column())
        };
        let wire: Wire<'_> = serde_json::from_slice(body).map_err(at)?;
        let contacts = wire
            .contacts
            .into_iter()
            .enumerate()
            .map(|(index, json)| row(index, json));
        Ok(Self {
            contacts: contacts.collect::<Result<_, _>>()?,
            checkpoint: token(wire.synchronization_checkpoint, "synchronization_checkpoint")?,
            next_offset: token(wire.next_offset, "next_offset")?,
            context: wire.context,
        })
    }
}

impl Row<'_> {
    /// Writes the contact as one line.
    pub fn write_line(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let json = self.json.get();
        // JSON text has raw line breaks between its tokens only, never within a string.
        if json.contains(['\n', '\r']) {
            let value: Value = serde_json::from_str(json)?;
            serde_json::to_writer(&mut *out, &value)?;
        } else {
            out.write_all(json.as_bytes())?;
        }
        out.write_all(b"\n")
    }
}

fn row(index: usize, json: &RawValue) -> Result<Row<'_>, String> {
    let id = match serde_json::from_str(json.get()) {
        Ok(Identified { id: Value::String(id) }) if !id.is_empty() => id,
        Ok(Identified { id: Value::Number(id) }) => id.to_string(),
        _ => return Err(format!("contact {} of the page has no id", index + 1)),
    };
    Ok(Row { id: id.into(), json })
}

/// A string, or leniently a number; null and "" are nothing.
fn token(value: Option<Value>, name: &str) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

/// Counts different texts by their hash: 8 bytes each, so that a run of millions fits. Two of a million texts share one
/// with a chance of about one in forty million.
#[derive(Default)]
pub(super) struct Distinct {
    state: RandomState,
    seen: std::collections::HashSet<u64>,
}

impl Distinct {
    /// False where the text was there before.
    pub fn insert(&mut self, text: &str) -> bool {
        self.seen.insert(self.state.hash_one(text))
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_and_its_contacts_written_one_a_line() {
        let body = br#"{ "contacts": [ {"id": "a", "x": "1\n2"}, {
            "id": 7, "name": "B" } ],
            "next_offset": 3, "context": {"k": [1]}, "synchronization_checkpoint": "c", "more": true }"#;
        let page = Page::parse(body).unwrap();
        assert_eq!(
            (page.checkpoint.as_deref(), page.next_offset.as_deref()),
            (Some("c"), Some("3"))
        );
        assert_eq!(page.context, Some(serde_json::json!({"k": [1]})));
        let mut lines = Vec::new();
        for row in &page.contacts {
            row.write_line(&mut lines).unwrap();
        }
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            "{\"id\": \"a\", \"x\": \"1\\n2\"}\n{\"id\":7,\"name\":\"B\"}\n"
        );
        assert_eq!(
            page.contacts.iter().map(|row| row.id.as_ref()).collect::<Vec<_>>(),
            ["a", "7"]
        );
    }

    #[test]
    fn null_and_empty_tokens_are_nothing() {
        let page = Page::parse(br#"{"contacts":[],"next_offset":"","synchronization_checkpoint":null,"context":null}"#)
            .unwrap();
        assert!(page.checkpoint.is_none() && page.next_offset.is_none() && page.context.is_none());
    }

    #[test]
    fn what_is_no_page_is_refused_by_its_place() {
        for (body, expected) in [
            ("<html>canary", "not JSON at line 1"),
            ("{\"contacts\": [", "not JSON at line 1"),
            ("[]", "not of the shape"),
            ("{}", "not of the shape"),
            ("{\"contacts\": {}}", "not of the shape"),
            (
                "{\"contacts\": [{\"id\": \"1\"}, {\"name\": \"canary\"}]}",
                "contact 2 of the page has no id",
            ),
            (
                "{\"contacts\": [], \"next_offset\": {\"a\": 1}}",
                "`next_offset` is not a string",
            ),
        ] {
            let error = Page::parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("canary"), "{body}: {error}");
        }
    }

    #[test]
    fn repeats_are_told_from_new_texts() {
        let mut distinct = Distinct::default();
        assert!(distinct.insert("a") && distinct.insert("b") && !distinct.insert("a"));
        assert_eq!(distinct.len(), 2);
    }
}
