//! One person: found, read and changed, as a Dealer Management System lets others do it.

use serde::Deserialize;

use super::{Results, limit, rows};
use crate::account::State;
use crate::api::{ApiError, bad, invalid, no_contact, shown};
use crate::data::{Fields, Row, Web1on1Link};
use crate::needles::same_number;
use crate::state::Record;
use crate::writes;

const FOUND_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FindQuery {
    email: Option<String>,
    phone: Option<String>,
    limit: Option<usize>,
}

/// Both together are joined with "and". An address counts in small letters, a number by its last eight digits.
pub(super) fn find(state: &mut State, query: &FindQuery) -> Result<Results<Row>, ApiError> {
    let limit = limit(query.limit, 20, FOUND_MAX)?;
    let (email, phone) = (query.email.as_deref(), query.phone.as_deref());
    let needle = email.or(phone).ok_or_else(|| bad("give `email` or `phone`"))?;
    let ids = state.contacts.candidates(needle);
    let state = &*state;
    let readable = |id: &u64| shown(state, *id);
    let found = ids.into_iter().filter(readable).filter_map(|id| {
        let record = state.contacts.get(id)?;
        Some((id, record)).filter(|_| !record.archived)
    });
    let same = |own: &String, wanted: &str| own.trim().to_lowercase() == wanted.trim().to_lowercase();
    let mut results = rows(state, found);
    results.retain(|row| {
        email.is_none_or(|email| row.emails.iter().any(|own| same(own, email)))
            && phone.is_none_or(|phone| row.phones.iter().any(|own| same_number(own, phone)))
    });
    results.truncate(limit);
    Ok(Results { results })
}

pub(super) fn one(state: &State, id: u64) -> Result<Row, ApiError> {
    let record = state.contacts.get(id).filter(|_| shown(state, id));
    row(state, id, record)
}

fn row(state: &State, id: u64, record: Option<&Record>) -> Result<Row, ApiError> {
    let found = record.map(|record| (id, record));
    rows(state, found).pop().ok_or_else(no_contact)
}

/// What is absent stays; lists and `web1on1` are replaced, and `web1on1: null` empties that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    first_name: Option<String>,
    last_name: Option<String>,
    emails: Option<Vec<String>>,
    phones: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    web1on1: Option<Option<Web1on1Link>>,
}

/// `null` is something else than nothing.
fn given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<Web1on1Link>>, D::Error> {
    Option::deserialize(value).map(Some)
}

pub(super) fn change(state: &mut State, id: u64, body: &[u8]) -> Result<Row, ApiError> {
    let patch: Patch = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if let Some(email) = patch.emails.iter().flatten().find(|email| !email.contains('@')) {
        return Err(invalid(format!("`{email}` is no e-mail address")));
    }
    let fields = Fields {
        first_name: patch.first_name,
        last_name: patch.last_name,
        emails: patch.emails,
        phones: patch.phones,
        web1on1: patch.web1on1.map(Option::unwrap_or_default),
        ..Fields::default()
    };
    if !shown(state, id) || !writes::change(state, id, &fields) {
        return Err(no_contact());
    }
    row(state, id, state.contacts.newest(id))
}
