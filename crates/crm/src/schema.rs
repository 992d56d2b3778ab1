//! The JSON Schema of connector files, for editors, and the reference for people, drawn from what the reader asks of the
//! shipped connectors and of the samples of every capability (`tests/capabilities.toml`), with the words of `schema/words.toml`.
//! Both are committed; these tests tell when they no longer say what the reader does.

mod draw;
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use self::draw::{Shape, shapes};
use crate::connector::Connector;
use crate::load::{Reader, Visit};
use crate::{sample, spec};

/// What a table is, and what each of its keys means; `""` is the table itself.
type Words = BTreeMap<String, BTreeMap<String, String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn words() -> Words {
    toml::from_str(include_str!("schema/words.toml")).expect("words.toml is TOML")
}

#[derive(Deserialize)]
struct Samples {
    base: String,
    capability: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    name: String,
    put: Vec<(String, String)>,
}

/// Right files: those shipped and a sample of each capability.
fn corpus() -> Vec<(String, String)> {
    let shipped = Connector::shipped_ids().filter_map(|id| Some((id.to_owned(), Connector::shipped(id)?.to_owned())));
    let mut files: Vec<(String, String)> = shipped.collect();
    let samples: Samples = toml::from_str(include_str!("../tests/capabilities.toml")).expect("the samples are TOML");
    for (number, sample) in samples.capability.iter().enumerate() {
        let put = |text: String, (from, to): &(String, String)| text.replacen(from.as_str(), to, 1);
        let text = sample.put.iter().fold(samples.base.clone(), put);
        files.push((format!("{number} {}", sample.name), text));
    }
    files.sort();
    files
}

fn visits() -> Vec<Visit> {
    let mut visits = Vec::new();
    for (name, text) in corpus() {
        let reader = Reader::recording(&name, &text);
        if let Some(spec) = spec::parse(&reader) {
            sample::check(&reader, &spec);
        }
        visits.extend(reader.visits());
        let problems: Vec<String> = reader.into_problems().iter().map(ToString::to_string).collect();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
    visits
}

fn drawn() -> BTreeMap<String, Shape> {
    shapes(&visits())
}

/// Compares with the committed file, or writes it if UPDATE_SCHEMA is set.
fn committed(path: &str, now: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, now).expect("the file can be written");
    }
    let then = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        then == now,
        "{path} no longer says what the reader does. UPDATE_SCHEMA=1 cargo test -p crm --lib schema writes it anew"
    );
}

#[test]
fn every_key_that_is_read_has_words_and_no_words_are_left_over() {
    let (shapes, words) = (drawn(), words());
    let mut wrong = Vec::new();
    for (name, shape) in &shapes {
        let known = words.get(name);
        let wanted = std::iter::once("").chain(shape.keys.keys().copied());
        wrong.extend(
            wanted
                .filter(|key| known.is_none_or(|known| !known.contains_key(*key)))
                .map(|key| format!("no words for {name}.{key}")),
        );
    }
    for (name, keys) in &words {
        for key in keys.keys().filter(|key| !key.is_empty()) {
            let known = shapes
                .get(name)
                .is_some_and(|shape| shape.keys.contains_key(key.as_str()));
            if !known {
                wrong.push(format!("nothing reads {name}.{key}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A choice whose word decides which other keys there are is drawn from samples, so each word needs one.
#[test]
fn every_word_that_decides_about_keys_is_shown_by_a_sample() {
    let missing: Vec<String> = drawn()
        .iter()
        .filter_map(|(name, shape)| Some((name, shape.decides.as_ref()?)))
        .flat_map(|(name, decides)| {
            let unseen = decides
                .words
                .iter()
                .filter(|word| !decides.by_word.contains_key(**word));
            unseen.map(move |word| format!("no sample has {name}.{} = {word:?}", decides.key))
        })
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_schema_is_what_the_reader_asks_for() {
    let schema = draw::schema(&drawn(), &words());
    let mut text = serde_json::to_string_pretty(&schema).expect("JSON");
    text.push('\n');
    committed("connectors/connector.schema.json", &text);
}

#[test]
fn the_reference_is_what_the_reader_asks_for() {
    committed("connectors/FORMAT.md", &reference::markdown(&drawn(), &words()));
}

fn as_json(text: &str) -> Value {
    let value: toml::Value = toml::from_str(text).expect("TOML");
    json!(value)
}

#[test]
fn the_schema_takes_every_right_file() {
    let schema = jsonschema::validator_for(&draw::schema(&drawn(), &words())).expect("a schema");
    for (name, text) in corpus() {
        let file = as_json(&text);
        let errors: Vec<String> = schema
            .iter_errors(&file)
            .map(|error| format!("{name}: {} {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}

#[test]
fn the_schema_refuses_what_an_editor_can_know_to_be_wrong() {
    let schema = jsonschema::validator_for(&draw::schema(&drawn(), &words())).expect("a schema");
    let good = Connector::shipped("demo").expect("the demo's connector");
    let wrong: &[(&str, &str)] = &[
        ("format = 1", "format = 2"),
        ("[check]", "[chekc]"),
        ("kind = \"keyset\"", "kind = \"keysets\""),
        ("kind = \"keyset\"", "kind = \"token\""),
        ("overlap = \"", "overlap = \"x"),
        ("type = \"secret\"", "type = 7"),
    ];
    for (from, to) in wrong {
        assert!(good.contains(from), "{from} is not in the file");
        let file = as_json(&good.replace(from, to));
        assert!(!schema.is_valid(&file), "{from} → {to} is taken");
    }
}
