//! A cursor over a parsed TOML table that remembers which keys were asked for: what is left over is unknown, and what
//! was asked for is the list to suggest from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::visit::{Asked, Form, Visit};
use super::{Reader, suggest};
use crate::expr::{Expr, Names, Template, Tree};

/// One table of the file.
pub(crate) struct Table<'r, 's> {
    pub reader: &'r Reader<'s>,
    /// Dotted name, for messages: `contacts.changes`.
    pub path: String,
    /// The same without the author's own names: `connection.fields.*`, `limits[]`.
    pattern: String,
    pub at: usize,
    entries: &'r DeTable<'s>,
    asked: RefCell<Vec<Asked>>,
    /// Whether unknown keys are not reported: names of the author's choosing, or a table of an unknown kind.
    open: std::cell::Cell<bool>,
}

type Entry<'r, 's> = (usize, &'r Spanned<DeValue<'s>>);

impl<'r, 's> Table<'r, 's> {
    pub fn root(reader: &'r Reader<'s>, entries: &'r DeTable<'s>) -> Table<'r, 's> {
        Table::new(reader, String::new(), String::new(), 0, entries)
    }

    fn new(
        reader: &'r Reader<'s>,
        path: String,
        pattern: String,
        at: usize,
        entries: &'r DeTable<'s>,
    ) -> Table<'r, 's> {
        Table {
            reader,
            path,
            pattern,
            at,
            entries,
            asked: RefCell::default(),
            open: false.into(),
        }
    }

    fn name(&self, key: &str) -> String {
        below(&self.path, key)
    }

    fn find(&self, key: &'static str, form: Form) -> Option<Entry<'r, 's>> {
        self.asked.borrow_mut().push(Asked { key, form });
        self.entries
            .iter()
            .find(|(known, _)| known.get_ref() == key)
            .map(|(known, value)| (known.span().start, value))
    }

    /// Where a key stands, for problems about its value.
    pub fn place(&self, key: &'static str) -> usize {
        self.find(key, Form::Any).map_or(self.at, |(at, _)| at)
    }

    pub fn has(&self, key: &'static str) -> bool {
        self.find(key, Form::Any).is_some()
    }

    /// Reports a key that must be there and is not.
    fn need(&self, key: &'static str) {
        if self.find(key, Form::Needed).is_none() {
            self.missing(key);
        }
    }

    fn missing(&self, key: &str) {
        self.reader
            .problem(self.at, format!("`{}` is missing", self.name(key)), None);
    }

    fn wrong(&self, at: usize, key: &str, wanted: &str, value: &DeValue<'_>) {
        let what = format!(
            "`{}` must be {wanted}, not {}",
            self.name(key),
            article(value.type_str())
        );
        self.reader.problem(at, what, None);
    }

    /// A text and the offset of its first character.
    fn text_at(&self, key: &'static str, form: Form) -> Option<(String, usize)> {
        let (at, value) = self.find(key, form)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), self.inside(value, text))),
            other => {
                self.wrong(at, key, "a text", other);
                None
            }
        }
    }

    /// The offset of the first character within the quotes.
    fn inside(&self, value: &Spanned<DeValue<'_>>, text: &str) -> usize {
        let span = value.span();
        let raw = self.reader.text.get(span.clone()).unwrap_or_default();
        let first = text.trim_start().lines().next().unwrap_or_default();
        if first.is_empty() {
            span.start
        } else {
            span.start + raw.find(first).unwrap_or(0)
        }
    }

    pub fn text(&self, key: &'static str) -> Option<String> {
        self.text_at(key, Form::Text).map(|(text, _)| text)
    }

    pub fn need_text(&self, key: &'static str) -> Option<String> {
        self.need(key);
        self.text(key)
    }

    pub fn is_text(&self, key: &'static str) -> bool {
        self.find(key, Form::Any)
            .is_some_and(|(_, value)| value.get_ref().is_str())
    }

    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let (at, value) = self.find(key, Form::Boolean)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong(at, key, "true or false", value.get_ref());
        }
        found
    }

    /// A whole number within `range`.
    pub fn number(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (at, value) = self.find(key, Form::Number(*range.start(), *range.end()))?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong(at, key, "a whole number", value.get_ref());
            return None;
        };
        let found = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|n| range.contains(n));
        if found.is_none() {
            let what = format!(
                "`{}` must lie between {} and {}",
                self.name(key),
                range.start(),
                range.end()
            );
            self.reader.problem(at, what, None);
        }
        found
    }

    /// A share: 0 < share <= 1.
    pub fn share(&self, key: &'static str) -> Option<f64> {
        let (at, value) = self.find(key, Form::Share)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => None,
        };
        let found = number.filter(|share: &f64| *share > 0.0 && *share <= 1.0);
        if found.is_none() {
            self.reader.problem(
                at,
                format!("`{}` must be a number above 0 and up to 1", self.name(key)),
                None,
            );
        }
        found
    }

    /// `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"90d"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let (text, at) = self.text_at(key, Form::Duration)?;
        let found = parse_duration(&text);
        if found.is_none() {
            let hint = Some("a number and one of ms, s, m, h, d: \"10m\"".to_owned());
            self.reader
                .problem(at, format!("`{}` is not a duration: {text:?}", self.name(key)), hint);
        }
        found
    }

    /// One of a closed list of words.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let form = Form::Choice(words.iter().map(|(word, _)| *word).collect());
        let (text, at) = self.text_at(key, form)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = suggest(&text, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")));
            self.reader
                .problem(at, format!("`{}` does not know `{text}`", self.name(key)), Some(hint));
        }
        found
    }

    pub fn need_choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        if self.find(key, Form::Needed).is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = Some(format!("there are {}", known.join(", ")));
            self.reader
                .problem(self.at, format!("`{}` is missing", self.name(key)), hint);
        }
        let found = self.choice(key, words);
        // Without it nobody asks for the other keys, and all of them would look unknown.
        self.open.set(self.open.get() || found.is_none());
        found
    }

    pub fn texts(&self, key: &'static str) -> Option<Vec<(String, usize)>> {
        let (at, value) = self.find(key, Form::Texts)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong(at, key, "a list of texts", value.get_ref());
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push((text.to_owned(), item.span().start)),
                None => self.wrong(item.span().start, key, "a list of texts", item.get_ref()),
            }
        }
        Some(texts)
    }

    pub fn table(&self, key: &'static str) -> Option<Table<'r, 's>> {
        let (at, value) = self.find(key, Form::Table)?;
        match value.get_ref().as_table() {
            Some(entries) => Some(self.child(key, key, at, entries)),
            None => {
                self.wrong(at, key, "a table", value.get_ref());
                None
            }
        }
    }

    pub fn need_table(&self, key: &'static str) -> Option<Table<'r, 's>> {
        self.need(key);
        self.table(key)
    }

    /// `[[key]]`, or a single `[key]`.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'r, 's>> {
        let Some((at, value)) = self.find(key, Form::Tables) else {
            return Vec::new();
        };
        let pattern = format!("{key}[]");
        match value.get_ref() {
            DeValue::Table(entries) => vec![self.child(key, &pattern, at, entries)],
            DeValue::Array(list) => list
                .iter()
                .enumerate()
                .filter_map(|(i, item)| match item.get_ref().as_table() {
                    Some(entries) => Some(self.child(&format!("{key}[{i}]"), &pattern, item.span().start, entries)),
                    None => {
                        self.wrong(item.span().start, key, "a list of tables", item.get_ref());
                        None
                    }
                })
                .collect(),
            other => {
                self.wrong(at, key, "a table or a list of tables", other);
                Vec::new()
            }
        }
    }

    fn child(&self, name: &str, pattern: &str, at: usize, entries: &'r DeTable<'s>) -> Table<'r, 's> {
        Table::new(self.reader, self.name(name), below(&self.pattern, pattern), at, entries)
    }

    /// The keys are the author's own names, the values of one form.
    fn open_for(&self, form: Form) {
        self.open.set(true);
        self.reader.visited(|| Visit::open(&self.pattern, form));
    }

    /// The entries of a table whose keys are the author's own names.
    pub fn named<T>(&self, mut read: impl FnMut(&str, usize, Table<'r, 's>) -> Option<T>) -> BTreeMap<String, T> {
        self.open_for(Form::Table);
        let mut found = BTreeMap::new();
        for (key, value) in self.entries.iter() {
            let (name, at) = (key.get_ref().to_string(), key.span().start);
            match value.get_ref().as_table() {
                Some(entries) => {
                    let table = self.child(&name, "*", at, entries);
                    found.extend(read(&name, at, table).map(|item| (name, item)));
                }
                None => self.wrong(at, &name, "a table", value.get_ref()),
            }
        }
        found
    }

    /// Like [`Table::named`] for texts: (name, text, offset of the text).
    pub fn named_texts(&self) -> Vec<(String, String, usize)> {
        self.open_for(Form::Text);
        let mut found = Vec::new();
        for (key, value) in self.entries.iter() {
            let name = key.get_ref().to_string();
            match value.get_ref() {
                DeValue::String(text) => found.push((name, text.to_string(), self.inside(value, text))),
                other => self.wrong(key.span().start, &name, "a text", other),
            }
        }
        found
    }

    /// Like [`Table::named_texts`], where a value may also be a list of texts.
    pub fn named_text_lists(&self) -> Vec<(String, Vec<(String, usize)>)> {
        self.open_for(Form::TextOrTexts);
        let mut found = Vec::new();
        for (key, value) in self.entries.iter() {
            let name = key.get_ref().to_string();
            let items: Vec<&Spanned<DeValue<'s>>> = match value.get_ref() {
                DeValue::Array(list) => list.iter().collect(),
                _ => vec![value],
            };
            let mut texts = Vec::new();
            for item in items {
                match item.get_ref() {
                    DeValue::String(text) => texts.push((text.to_string(), self.inside(item, text))),
                    other => self.wrong(key.span().start, &name, "a text or a list of texts", other),
                }
            }
            found.push((name, texts));
        }
        found
    }

    /// The entries of a table whose keys are names and whose values are whole numbers: (name, number, offset).
    pub fn named_numbers(&self, range: std::ops::RangeInclusive<u64>) -> Vec<(String, u64, usize)> {
        self.open_for(Form::Number(*range.start(), *range.end()));
        let mut found = Vec::new();
        for (key, value) in self.entries.iter() {
            let (name, at) = (key.get_ref().to_string(), key.span().start);
            let integer = value.get_ref().as_integer();
            let number = integer.and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
            match number.filter(|number| range.contains(number)) {
                Some(number) => found.push((name, number, at)),
                None => {
                    let what = format!(
                        "`{}` must lie between {} and {}",
                        self.name(&name),
                        range.start(),
                        range.end()
                    );
                    self.reader.problem(at, what, None);
                }
            }
        }
        found
    }

    pub fn expr(&self, key: &'static str, names: &Names) -> Option<Expr> {
        let (text, at) = self.text_at(key, Form::Expr)?;
        self.compile(&text, at, names)
    }

    pub fn need_expr(&self, key: &'static str, names: &Names) -> Option<Expr> {
        self.need(key);
        self.expr(key, names)
    }

    pub fn compile(&self, text: &str, at: usize, names: &Names) -> Option<Expr> {
        Expr::compile(text, at, names)
            .map_err(|error| self.reader.expr_problem(at, error))
            .ok()
    }

    pub fn template(&self, key: &'static str, names: &Names) -> Option<Template> {
        let (text, at) = self.text_at(key, Form::Template)?;
        self.compile_template(&text, at, names)
    }

    pub fn need_template(&self, key: &'static str, names: &Names) -> Option<Template> {
        self.need(key);
        self.template(key, names)
    }

    pub fn compile_template(&self, text: &str, at: usize, names: &Names) -> Option<Template> {
        let locate = |piece: &str| self.locate(at, piece);
        Template::compile(text, names, &locate)
            .map_err(|(at, error)| self.reader.expr_problem(at, error))
            .ok()
    }

    /// A JSON text whose strings are templates.
    pub fn tree(&self, key: &'static str, names: &Names) -> Option<Tree> {
        let (text, at) = self.text_at(key, Form::Json)?;
        let json: serde_json::Value = match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(error) => {
                let lines_before: usize = text
                    .lines()
                    .take(error.line().saturating_sub(1))
                    .map(|line| line.len() + 1)
                    .sum();
                let skipped = text.len() - text.trim_start().len();
                let at = at + (lines_before + error.column()).saturating_sub(1 + skipped);
                self.reader
                    .problem(at, format!("`{}` is not JSON: {error}", self.name(key)), None);
                return None;
            }
        };
        let locate = |piece: &str| self.locate(at, piece);
        Tree::compile(&json, names, &locate)
            .map_err(|(at, error)| self.reader.expr_problem(at, error))
            .ok()
    }

    /// Where `piece` stands at or after `at`; escapes in the file may hide it, then it is `at`.
    fn locate(&self, at: usize, piece: &str) -> usize {
        let rest = self.reader.text.get(at..).unwrap_or_default();
        rest.find(piece).map_or(at, |found| at + found)
    }

    pub fn problem(&self, key: &'static str, what: impl Into<String>, hint: Option<&str>) {
        self.reader.problem(self.place(key), what, hint.map(str::to_owned));
    }

    /// The texts of the table, which may be words that decide which other keys it has.
    fn words(&self) -> BTreeMap<String, String> {
        let texts = self.entries.iter().filter_map(|(key, value)| {
            let text = value.get_ref().as_str()?;
            Some((key.get_ref().to_string(), text.to_owned()))
        });
        texts.collect()
    }

    /// Reports the keys that nobody asked for. Call it last.
    pub fn finish(self) {
        if self.open.get() {
            return;
        }
        let asked = self.asked.borrow();
        self.reader.visited(|| Visit::of(&self.pattern, &asked, self.words()));
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref();
            if !asked.iter().any(|asked| asked.key == name) {
                let mut known: Vec<&str> = asked.iter().map(|asked| asked.key).collect();
                known.sort_unstable();
                known.dedup();
                let hint = suggest(name, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")));
                self.reader.problem(
                    key.span().start,
                    format!("unknown key `{}`", self.name(name)),
                    Some(hint),
                );
            }
        }
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}
