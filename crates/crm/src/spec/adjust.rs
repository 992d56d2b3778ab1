//! What an integration changes of a connector: expressions in the place of the mapping's, further fields to ask for, and
//! which contacts are wanted.

use std::collections::BTreeMap;

use super::{Mapping, Spec, Vocabulary};
use crate::expr::{Attributes, Expr, Names};
use crate::load::suggest;

/// The settings of an integration that change its connector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adjustments {
    /// By the names of `contacts.map`.
    pub map: BTreeMap<String, String>,
    pub props: Vec<String>,
    /// Over `item`, `conn`, the mapping's own names, and the mapped `contact`.
    pub filter: Option<String>,
}

impl Adjustments {
    pub fn is_empty(&self) -> bool {
        self.map.is_empty() && self.props.is_empty() && self.filter.is_none()
    }
}

/// What an integration may map otherwise; with `id`, what its filter sees. `id` and `updated` are what versions and deletions rest
/// on, so they are the connector's alone.
const FIELDS: [&str; 10] = [
    "name",
    "company",
    "title",
    "emails",
    "phones",
    "photo_url",
    "address",
    "websites",
    "twitter",
    "url",
];

/// Changes the spec; `evaluates` tries an expression on an empty row, as those of the file are tried.
///
/// # Errors
/// One sentence per problem, with the setting's name; then nothing is changed.
pub(crate) fn adjust(
    spec: &mut Spec,
    adjustments: &Adjustments,
    evaluates: &dyn Fn(&Spec, &Expr) -> Result<(), String>,
) -> Result<(), Vec<String>> {
    let names = names(spec);
    let mut problems = Vec::new();
    let mut compiled = Vec::new();
    for (field, text) in &adjustments.map {
        if !FIELDS.contains(&field.as_str()) {
            let hint = suggest(field, &FIELDS).unwrap_or_else(|| format!("there are {}", FIELDS.join(", ")));
            problems.push(format!("map.{field}: no such field of a contact ({hint})"));
            continue;
        }
        match compile(spec, text, &names, evaluates) {
            Ok(expr) => compiled.push((field.as_str(), expr)),
            Err(problem) => problems.push(format!("map.{field}: {problem}")),
        }
    }
    let with_contact = names.with("contact", Attributes::only(std::iter::once("id").chain(FIELDS)));
    let filter = adjustments.filter.as_deref();
    let filter = filter.map(|text| compile(spec, text, &with_contact, evaluates));
    let filter = match filter.transpose() {
        Ok(filter) => filter,
        Err(problem) => {
            problems.push(format!("filter: {problem}"));
            None
        }
    };
    if !adjustments.props.is_empty() && spec.contacts.props.is_empty() {
        problems.push("props: the connector asks for no fields by name, so there are none to add to".to_owned());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for (field, expr) in compiled {
        if let Some(place) = place(&mut spec.contacts.map, field) {
            *place = Some(expr);
        }
    }
    spec.contacts.map.filter = filter;
    for prop in &adjustments.props {
        if !spec.contacts.props.contains(prop) {
            spec.contacts.props.push(prop.clone());
        }
    }
    Ok(())
}

fn compile(
    spec: &Spec,
    text: &str,
    names: &Names,
    evaluates: &dyn Fn(&Spec, &Expr) -> Result<(), String>,
) -> Result<Expr, String> {
    let expr = Expr::compile(text, 0, names).map_err(|error| match error.hint {
        Some(hint) => format!("{} ({hint})", error.what),
        None => error.what,
    })?;
    evaluates(spec, &expr)?;
    Ok(expr)
}

/// What the mapping's own expressions may use.
fn names(spec: &Spec) -> Names {
    let fields = &spec.connection.fields;
    let vocabulary = Vocabulary {
        fields: fields.keys().cloned().collect(),
        secrets: fields
            .iter()
            .filter(|(_, field)| field.kind == super::FieldType::Secret)
            .map(|(name, _)| name.clone())
            .collect(),
        learned: spec.check.learn.keys().cloned().collect(),
        ..Vocabulary::default()
    };
    let lets = spec.contacts.map.lets.keys();
    let looked_up = spec.contacts.lookups.iter().map(|lookup| lookup.name.clone());
    lets.fold(vocabulary.item_with(looked_up), |names, name| {
        names.with(name.clone(), Attributes::Any)
    })
}

fn place<'a>(map: &'a mut Mapping, field: &str) -> Option<&'a mut Option<Expr>> {
    Some(match field {
        "name" => &mut map.name,
        "company" => &mut map.company,
        "title" => &mut map.title,
        "emails" => &mut map.emails,
        "phones" => &mut map.phones,
        "photo_url" => &mut map.photo_url,
        "address" => &mut map.address,
        "websites" => &mut map.websites,
        "twitter" => &mut map.twitter,
        "url" => &mut map.url,
        _ => return None,
    })
}
