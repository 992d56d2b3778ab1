//! The reference for people: one table of keys per kind of table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Words;
use super::draw::{Key, Shape};
use crate::load::Form;

pub(super) fn markdown(shapes: &BTreeMap<String, Shape>, words: &Words) -> String {
    let mut text = String::from(
        "# The format of connector files\n\n\
         Every table and every key of `connector.toml`. How to write one, on a worked example: [README.md](README.md).\n\
         Drawn from the program that reads the files; `connector.schema.json` says the same to editors.\n\n\
         An *expression* is one of [minijinja](https://docs.rs/minijinja) (`item.email or item.name`), a *template* is a text with\n\
         `${expression}` in it; a template that is nothing but one `${…}` keeps the type of its value. A *duration* is a number and\n\
         one of `ms`, `s`, `m`, `h`, `d`. **Bold** keys must be there.\n",
    );
    let file = shapes.get_key_value("file");
    let others = shapes.iter().filter(|(name, _)| *name != "file");
    for (name, shape) in file.into_iter().chain(others) {
        section(&mut text, name, shape, words);
    }
    text
}

fn section(text: &mut String, name: &str, shape: &Shape, words: &Words) {
    let said = |key: &str| {
        words
            .get(name)
            .and_then(|keys| keys.get(key))
            .map_or("", String::as_str)
    };
    let title = match name {
        "file" => "The file".to_owned(),
        _ => format!("`{}`", heading(name)),
    };
    let _ = write!(text, "\n## {title}\n\n{}\n", said(""));
    let elsewhere: Vec<String> = shape
        .places
        .iter()
        .filter(|place| *place != name && !place.is_empty())
        .map(|place| format!("`{place}`"))
        .collect();
    if !elsewhere.is_empty() {
        let _ = writeln!(text, "\nStands in {}.", elsewhere.join(", "));
    }
    if let Some(form) = &shape.open {
        let _ = writeln!(
            text,
            "\nThe keys are names of your choice; each value is {}.",
            form_words(form)
        );
    }
    if shape.keys.is_empty() {
        return;
    }
    text.push_str("\n| key | value | meaning |\n| --- | --- | --- |\n");
    for (key, known) in &shape.keys {
        let shown = if known.needed {
            format!("**`{key}`**")
        } else {
            format!("`{key}`")
        };
        let only = only_with(shape, key).map_or_else(String::new, |words| format!(" *Only with {words}.*"));
        let meaning = said(key).replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(text, "| {shown} | {} | {meaning}{only} |", values(known));
    }
}

fn heading(name: &str) -> String {
    match name.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None if ["request", "page", "since", "headers", "query", "form", "signal"].contains(&name) => name.to_owned(),
        None => format!("[{name}]"),
    }
}

/// The words of the deciding key with which this one goes, unless it goes with all.
fn only_with(shape: &Shape, key: &str) -> Option<String> {
    let decides = shape.decides.as_ref()?;
    let with: Vec<&String> = decides
        .by_word
        .iter()
        .filter(|(_, variant)| variant.keys.contains(key))
        .map(|(word, _)| word)
        .collect();
    if with.len() == decides.by_word.len() {
        return None;
    }
    let words: Vec<String> = with
        .iter()
        .map(|word| format!("`{} = \"{word}\"`", decides.key))
        .collect();
    Some(words.join(", "))
}

fn values(key: &Key) -> String {
    let mut words: Vec<String> = key.forms.iter().map(form_words).collect();
    words.dedup();
    words.join(" or ")
}

fn form_words(form: &Form) -> String {
    match form {
        Form::Any | Form::Needed => String::new(),
        Form::Text => "text".to_owned(),
        Form::Expr => "expression".to_owned(),
        Form::Template => "template".to_owned(),
        Form::Json => "JSON text; its strings are templates".to_owned(),
        Form::Boolean => "true, false".to_owned(),
        Form::Number(least, most) if least == most => format!("{least}"),
        Form::Number(least, most) => format!("{least} to {most}"),
        Form::Share => "above 0, up to 1".to_owned(),
        Form::Duration => "duration".to_owned(),
        Form::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Form::Texts => "list of texts".to_owned(),
        Form::TextOrTexts => "a text or a list of texts".to_owned(),
        Form::Table => "table".to_owned(),
        Form::Tables => "table, or list of tables".to_owned(),
    }
}
