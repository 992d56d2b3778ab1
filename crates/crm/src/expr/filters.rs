//! The filters and tests of the language. They take whatever a CRM sends: a missing field, `null`, `false` and `""` are
//! all "nothing" (Odoo writes an empty field as `false`).

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Longest list and text a filter makes: fuel does not count the work inside filters.
pub(crate) const LONGEST_LIST: usize = 10_000;
const LONGEST_TEXT: usize = 1 << 20;

pub(super) const FILTERS: &[&str] = &[
    "compact", "digits", "first", "flatten", "int", "join", "label", "last", "lower", "map", "odata", "put", "replace",
    "soql", "split", "string", "trim", "unique", "upper", "wrap",
];

pub(super) const TESTS: &[&str] = &[
    "containing",
    "defined",
    "endingwith",
    "mapping",
    "number",
    "sequence",
    "startingwith",
    "string",
];

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("compact", |list: Value| Ok(compact(items(&list)?)));
    environment.add_filter("digits", digits);
    environment.add_filter("first", |list: Value| Ok(first(items(&list)?)));
    environment.add_filter("flatten", |list: Value| flatten(items(&list)?));
    environment.add_filter("int", int);
    environment.add_filter("join", |list: Value, glue: Option<String>| {
        join(&items(&list)?, glue.as_deref().unwrap_or_default())
    });
    environment.add_filter("label", |list: Value| Ok(label(items(&list)?)));
    environment.add_filter("last", |list: Value| Ok(items(&list)?.pop().unwrap_or_default()));
    environment.add_filter("lower", |value: Value| scalar(&value).to_lowercase());
    environment.add_filter("map", map);
    environment.add_filter("odata", |value: Value| quoted(&value, "''"));
    environment.add_filter("put", put);
    environment.add_filter("replace", |value: Value, from: String, to: String| {
        replace(&value, &from, &to)
    });
    environment.add_filter("soql", |value: Value| quoted(&value, "\\'"));
    environment.add_filter("split", |value: Value, separator: String| split(&value, &separator));
    environment.add_filter("string", |value: Value| scalar(&value).into_owned());
    environment.add_filter("trim", |value: Value| scalar(&value).trim().to_owned());
    environment.add_filter("unique", unique);
    environment.add_filter("upper", |value: Value| scalar(&value).to_uppercase());
    environment.add_filter("wrap", wrap);

    environment.add_test("containing", |value: Value, part: String| {
        scalar(&value).contains(&part)
    });
    environment.add_test("defined", |value: Value| !value.is_undefined());
    environment.add_test("endingwith", |value: Value, part: String| {
        scalar(&value).ends_with(&part)
    });
    environment.add_test("mapping", |value: Value| value.kind() == ValueKind::Map);
    environment.add_test("number", |value: Value| value.kind() == ValueKind::Number);
    environment.add_test("sequence", |value: Value| value.kind() == ValueKind::Seq);
    environment.add_test("startingwith", |value: Value, part: String| {
        scalar(&value).starts_with(&part)
    });
    environment.add_test("string", |value: Value| value.kind() == ValueKind::String);
}

/// Missing, `null`, `false`, blank text, empty list or object.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => true,
        ValueKind::Bool => !value.is_true(),
        ValueKind::String => value.as_str().is_some_and(|text| text.trim().is_empty()),
        ValueKind::Seq | ValueKind::Map => value.len() == Some(0),
        _ => false,
    }
}

/// Text of a scalar; `""` for nothing, lists and objects.
pub(super) fn scalar(value: &Value) -> Cow<'_, str> {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().into(),
        ValueKind::Number => value.to_string().into(),
        ValueKind::Bool if value.is_true() => "true".into(),
        _ => "".into(),
    }
}

pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    if is_empty(value) {
        return Ok(Vec::new());
    }
    // A slice of a list is an iterable.
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(vec![value.clone()]);
    }
    if value.len().is_some_and(|length| length > LONGEST_LIST) {
        return Err(too_long());
    }
    Ok(value.try_iter()?.take(LONGEST_LIST).collect())
}

fn too_long() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a list or text is too long for a filter")
}

pub(super) fn compact(mut list: Vec<Value>) -> Vec<Value> {
    list.retain(|item| !is_empty(item));
    list
}

/// A phone number as it is dialled, without what people write between the digits.
fn digits(value: Value) -> String {
    scalar(&value).chars().filter(char::is_ascii_digit).collect()
}

pub(super) fn flatten(list: Vec<Value>) -> Result<Vec<Value>, Error> {
    let mut flat = Vec::with_capacity(list.len());
    for item in list {
        if item.kind() == ValueKind::Seq {
            flat.extend(items(&item)?)
        } else {
            flat.push(item)
        }
        if flat.len() > LONGEST_LIST {
            return Err(too_long());
        }
    }
    Ok(flat)
}

/// Keeps the first of equal items, in their order: the first e-mail is the primary one.
fn unique(value: Value) -> Result<Vec<Value>, Error> {
    let mut seen = std::collections::HashSet::new();
    let mut list = items(&value)?;
    list.retain(|item| seen.insert((item.kind() as u8, item.to_string())));
    Ok(list)
}

pub(super) fn first(list: Vec<Value>) -> Value {
    list.into_iter().next().unwrap_or_default()
}

fn int(value: Value) -> Value {
    if let Some(number) = value.as_i64() {
        return Value::from(number);
    }
    scalar(&value)
        .trim()
        .parse::<i64>()
        .map_or(Value::UNDEFINED, Value::from)
}

pub(super) fn join(list: &[Value], glue: &str) -> Result<String, Error> {
    let parts: Vec<Cow<'_, str>> = list.iter().map(scalar).collect();
    if parts.iter().map(|part| part.len()).sum::<usize>() > LONGEST_TEXT {
        return Err(too_long());
    }
    Ok(parts.join(glue))
}

/// The text of a pair `[id, label]` (Odoo's many2one); nothing stays nothing.
pub(super) fn label(list: Vec<Value>) -> Value {
    list.into_iter().nth(1).unwrap_or_default()
}

/// Without a separator: into its characters.
pub(super) fn split(value: &Value, separator: &str) -> Vec<String> {
    let text = scalar(value);
    if text.is_empty() {
        return Vec::new();
    }
    if separator.is_empty() {
        return text.chars().take(LONGEST_LIST).map(String::from).collect();
    }
    text.split(separator)
        .take(LONGEST_LIST)
        .map(|part| part.trim().to_owned())
        .collect()
}

pub(super) fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let text = scalar(value);
    if from.is_empty() || text.len().saturating_mul(to.len().max(1)) > LONGEST_TEXT {
        return Err(too_long());
    }
    Ok(text.replace(from, to))
}

/// `list|map(attribute='x')` takes a field of each object, `list|map('int')` and `list|map('string')` convert.
fn map(value: Value, how: Rest<Value>, options: Kwargs) -> Result<Vec<Value>, Error> {
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let list = items(&value)?;
    match (attribute, how.first().and_then(Value::as_str)) {
        (Some(path), None) => list
            .iter()
            .map(|item| {
                path.split('.')
                    .try_fold(item.clone(), |value, key| value.get_attr(key).or(Ok(Value::UNDEFINED)))
            })
            .collect(),
        (None, Some("int")) => Ok(list.into_iter().map(int).collect()),
        (None, Some("string")) => Ok(list.iter().map(|item| Value::from(scalar(item))).collect()),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "map takes attribute='NAME', 'int' or 'string'",
        )),
    }
}

/// `['1', '2']|wrap('id')` is `[{id: '1'}, {id: '2'}]`.
fn wrap(value: Value, key: String) -> Result<Vec<Value>, Error> {
    Ok(items(&value)?
        .into_iter()
        .map(|item| Value::from_pairs([(Value::from(key.as_str()), item)]))
        .collect())
}

/// `record|put(email='a@b')`: the object with these keys put over its own. What is undefined puts nothing; nothing is an empty
/// object.
fn put(value: Value, over: Kwargs) -> Result<Value, Error> {
    let mut object = std::collections::BTreeMap::new();
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                let held = value.get_item(&key)?;
                object.insert(key, held);
            }
        }
        _ if is_empty(&value) => {}
        _ => return Err(Error::new(ErrorKind::InvalidOperation, "put takes an object")),
    }
    for name in over.args() {
        let new: Value = over.get(name)?;
        if !new.is_undefined() {
            object.insert(Value::from(name), new);
        }
    }
    if object.len() > LONGEST_LIST {
        return Err(too_long());
    }
    Ok(Value::from(object))
}

/// A quoted literal of SOQL (`\'`) or OData (`''`). A list becomes several, with commas between them.
fn quoted(value: &Value, quote: &str) -> Result<String, Error> {
    if value.kind() == ValueKind::Seq {
        let literals: Vec<String> = items(value)?.iter().map(|item| literal(item, quote)).collect();
        return Ok(literals.join(","));
    }
    Ok(literal(value, quote))
}

fn literal(value: &Value, quote: &str) -> String {
    let text = scalar(value);
    let text = if quote.starts_with('\\') {
        text.replace('\\', "\\\\").into()
    } else {
        text
    };
    format!("'{}'", text.replace('\'', quote))
}
