//! What the reader asks a table for. The reader is the only place that knows the whole vocabulary, so the JSON Schema of
//! connector files is drawn from what it asks (`crate::schema`), and cannot say anything else.

use std::collections::BTreeMap;

/// A key that the reader asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub key: &'static str,
    pub form: Form,
}

/// What a key was asked for as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Only whether it is there, or where.
    Any,
    /// That it must be there.
    Needed,
    Text,
    Expr,
    Template,
    /// A JSON text whose strings are templates.
    Json,
    Boolean,
    Number(u64, u64),
    Share,
    Duration,
    Choice(Vec<&'static str>),
    Texts,
    TextOrTexts,
    Table,
    Tables,
}

/// One table as it was read.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "recorded for the schema, which a test draws"))]
pub(crate) struct Visit {
    /// `contacts.full.page`, `limits[]`, `connection.fields.*`.
    pub pattern: String,
    pub asked: Vec<Asked>,
    /// The texts in the table, by key.
    pub words: BTreeMap<String, String>,
    /// The keys are the author's own names, and this is the form of the values.
    pub open: Option<Form>,
}

impl Visit {
    pub fn of(pattern: &str, asked: &[Asked], words: BTreeMap<String, String>) -> Visit {
        Visit {
            pattern: pattern.to_owned(),
            asked: asked.to_vec(),
            words,
            open: None,
        }
    }

    pub fn open(pattern: &str, form: Form) -> Visit {
        Visit {
            pattern: pattern.to_owned(),
            asked: Vec::new(),
            words: BTreeMap::new(),
            open: Some(form),
        }
    }
}
