//! What was given, before it has types: a tree of values, each with the place it came from.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};
use super::source::FileText;

/// A value as it was written. No `Debug`: it may be a secret.
pub(crate) enum Given {
    /// From a variable or a default: text that may stand for any type.
    Loose(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Given>),
    /// A type that no setting has, or an integer out of range.
    Other,
}

pub(crate) enum Node {
    Value(Given),
    Table(Tree),
}

pub(crate) struct Spot {
    pub place: Place,
    pub node: Node,
}

pub(crate) type Tree = BTreeMap<String, Spot>;

/// Collects problems while reading goes on, and remembers where each setting came from.
#[derive(Default)]
pub(crate) struct Log {
    pub problems: Vec<Problem>,
    /// Dotted name → place, for checks that come later.
    pub places: BTreeMap<String, Place>,
    /// Dotted names that already have a problem: what hangs on them is not judged.
    pub bad: BTreeSet<String>,
}

impl Log {
    pub fn problem(&mut self, place: Place, what: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem {
            place,
            what: what.into(),
            hint,
        });
    }
}

/// Parses the file. Syntax errors go to the log, all of them; what could be read is returned.
pub(crate) fn parse(file: &FileText, log: &mut Log) -> Tree {
    let lines = Lines { file };
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    for error in errors {
        let start = error.span().map_or(0, |span| span.start);
        // Only the message: the error's Display would print the line, and with it perhaps a secret.
        log.problem(lines.place(start), error.message().trim().replace('\n', ", "), None);
    }
    lines.tree(table.get_ref())
}

struct Lines<'a> {
    file: &'a FileText,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.file.text.get(..offset).unwrap_or(&self.file.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: self.file.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn tree(&self, table: &DeTable<'_>) -> Tree {
        table
            .iter()
            .map(|(key, value)| {
                let node = match value.get_ref() {
                    DeValue::Table(table) => Node::Table(self.tree(table)),
                    other => Node::Value(given(other)),
                };
                let place = self.place(key.span().start);
                (key.get_ref().to_string(), Spot { place, node })
            })
            .collect()
    }
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Given::Other, Given::Integer)
        }
        DeValue::Float(number) => number.as_str().parse().map_or(Given::Other, Given::Float),
        DeValue::Array(items) => Given::List(items.iter().map(|item| given(item.get_ref())).collect()),
        DeValue::Boolean(value) => Given::Bool(*value),
        DeValue::Datetime(_) | DeValue::Table(_) => Given::Other,
    }
}
