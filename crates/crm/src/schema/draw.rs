//! From what was asked of tables to the shape of each kind of table, and on to the schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Words;
use crate::load::{Form, Visit};

/// One kind of table.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub keys: BTreeMap<&'static str, Key>,
    /// Keys are the author's names; the form of the values.
    pub open: Option<Form>,
    pub decides: Option<Decides>,
    /// In which places it stands, without the author's names.
    pub places: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Key {
    pub forms: Vec<Form>,
    /// Must be there, whatever else is.
    pub needed: bool,
}

/// A key whose word decides which other keys there are.
#[derive(Debug)]
pub(super) struct Decides {
    pub key: &'static str,
    pub words: Vec<&'static str>,
    pub by_word: BTreeMap<String, Variant>,
}

#[derive(Debug, Default)]
pub(super) struct Variant {
    pub keys: BTreeSet<&'static str>,
    pub needed: BTreeSet<&'static str>,
}

/// Tables that are the same wherever they stand go by one name.
fn name_of(pattern: &str) -> String {
    let last = pattern.rsplit('.').next().unwrap_or_default();
    match last {
        "request" | "create" | "renew" | "delete" | "refresh" | "by_email" | "by_phone" => "request",
        "page" | "since" | "headers" | "query" | "form" | "signal" => last,
        "retry_after[]" | "used" | "reset" => "signal",
        _ if pattern.is_empty() => "file",
        _ => pattern,
    }
    .to_owned()
}

pub(super) fn shapes(visits: &[Visit]) -> BTreeMap<String, Shape> {
    let mut grouped: BTreeMap<String, Vec<&Visit>> = BTreeMap::new();
    for visit in visits {
        grouped.entry(name_of(&visit.pattern)).or_default().push(visit);
    }
    grouped
        .into_iter()
        .map(|(name, visits)| (name, shape(&visits)))
        .collect()
}

fn shape(visits: &[&Visit]) -> Shape {
    let mut shape = Shape::default();
    for visit in visits {
        shape.places.insert(visit.pattern.clone());
        shape.open = shape.open.take().or(visit.open.clone());
        for asked in &visit.asked {
            if matches!(asked.form, Form::Any | Form::Needed) {
                continue;
            }
            let key = shape.keys.entry(asked.key).or_default();
            if !key.forms.contains(&asked.form) {
                key.forms.push(asked.form.clone());
            }
        }
    }
    for (name, key) in &mut shape.keys {
        key.needed = visits.iter().all(|visit| needs(visit, name));
    }
    shape.decides = decides(visits, &shape.keys);
    shape
}

fn needs(visit: &Visit, key: &str) -> bool {
    visit
        .asked
        .iter()
        .any(|asked| asked.key == key && asked.form == Form::Needed)
}

fn decides(visits: &[&Visit], keys: &BTreeMap<&'static str, Key>) -> Option<Decides> {
    const DECIDERS: [&str; 3] = ["kind", "mode", "type"];
    let (key, words) = DECIDERS.iter().find_map(|decider| {
        let (name, key) = keys.get_key_value(decider)?;
        let words = key.forms.iter().find_map(|form| match form {
            Form::Choice(words) => Some(words.clone()),
            _ => None,
        })?;
        key.needed.then_some((*name, words))
    })?;
    let mut by_word: BTreeMap<String, Variant> = BTreeMap::new();
    for visit in visits {
        let Some(word) = visit.words.get(key) else { continue };
        let first = !by_word.contains_key(word);
        let variant = by_word.entry(word.clone()).or_default();
        let asked = visit.asked.iter().filter(|asked| keys.contains_key(asked.key));
        variant.keys.extend(asked.map(|asked| asked.key));
        let needed: BTreeSet<&'static str> = keys.keys().copied().filter(|key| needs(visit, key)).collect();
        variant.needed = match first {
            true => needed,
            false => variant.needed.intersection(&needed).copied().collect(),
        };
    }
    let mut sets = by_word.values().map(|variant| &variant.keys);
    let first = sets.next()?;
    (sets.any(|set| set != first)).then_some(Decides { key, words, by_word })
}

/// A name that may stand in a reference.
fn definition(name: &str) -> String {
    name.replace("[]", "-item").replace('*', "entry")
}

pub(super) fn schema(shapes: &BTreeMap<String, Shape>, words: &Words) -> Value {
    let mut definitions = Map::new();
    for (name, shape) in shapes {
        definitions.insert(definition(name), object(name, shape, shapes, words));
    }
    let file = definitions.remove("file").unwrap_or_default();
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "snapbridge connector",
    });
    let top = schema.as_object_mut().expect("an object");
    top.extend(file.as_object().cloned().unwrap_or_default());
    top.insert("definitions".to_owned(), Value::Object(definitions));
    schema
}

fn object(name: &str, shape: &Shape, shapes: &BTreeMap<String, Shape>, words: &Words) -> Value {
    let said = |key: &str| words.get(name).and_then(|keys| keys.get(key)).cloned();
    let mut object = json!({ "type": "object" });
    if let Some(text) = said("") {
        object["description"] = json!(text);
    }
    if let Some(form) = &shape.open {
        object["additionalProperties"] = value(form, shape, "*", shapes);
        return object;
    }
    let mut properties = Map::new();
    for (key, known) in &shape.keys {
        let mut forms: Vec<Value> = known.forms.iter().map(|form| value(form, shape, key, shapes)).collect();
        forms.dedup();
        let mut property = match forms.len() {
            1 => forms.remove(0),
            _ => json!({ "anyOf": forms }),
        };
        if let Some(text) = said(key) {
            property["description"] = json!(text);
        }
        properties.insert((*key).to_owned(), property);
    }
    object["properties"] = Value::Object(properties);
    object["additionalProperties"] = json!(false);
    let needed: Vec<&str> = shape
        .keys
        .iter()
        .filter(|(_, key)| key.needed)
        .map(|(key, _)| *key)
        .collect();
    if !needed.is_empty() {
        object["required"] = json!(needed);
    }
    if let Some(decides) = &shape.decides {
        let cases = decides
            .by_word
            .iter()
            .map(|(word, variant)| case(shape, decides.key, word, variant));
        object["allOf"] = Value::Array(cases.collect());
    }
    object
}

fn case(shape: &Shape, key: &str, word: &str, variant: &Variant) -> Value {
    let absent: Map<String, Value> = shape
        .keys
        .keys()
        .filter(|key| !variant.keys.contains(*key))
        .map(|key| ((*key).to_owned(), json!(false)))
        .collect();
    let mut then = json!({ "properties": absent });
    if !variant.needed.is_empty() {
        then["required"] = json!(variant.needed);
    }
    json!({ "if": { "properties": { key: { "const": word } } }, "then": then })
}

fn value(form: &Form, shape: &Shape, key: &str, shapes: &BTreeMap<String, Shape>) -> Value {
    // A table goes by the name of any of its places.
    let table = |suffix: &str| {
        let mut places = shape.places.iter().map(|place| match place.as_str() {
            "" => format!("{key}{suffix}"),
            place => format!("{place}.{key}{suffix}"),
        });
        let found = places.find_map(|place| shapes.contains_key(&name_of(&place)).then(|| name_of(&place)));
        match found {
            Some(name) => json!({ "allOf": [{ "$ref": format!("#/definitions/{}", definition(&name)) }] }),
            None => json!({ "type": "object" }),
        }
    };
    match form {
        Form::Any | Form::Needed => json!({}),
        Form::Text | Form::Expr | Form::Template | Form::Json => json!({ "type": "string" }),
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Share => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Form::Duration => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Form::Choice(words) => json!({ "enum": words }),
        Form::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Form::TextOrTexts => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
        }
        Form::Table => table(""),
        Form::Tables => {
            let item = table("[]");
            json!({ "anyOf": [{ "type": "array", "items": item }, item] })
        }
    }
}
