//! What callers make and change.

use serde_json::{Value, json};

use super::reading::contact;
use super::{Web1on1, organization};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::{Address, Fields};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{Person, some};
use crate::wire::{Reply, Request};
use crate::writes;

/// A whole profile: what is not in it is gone.
fn profile(profile: &Value) -> Fields {
    let text = |name: &str| profile[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| {
        profile[name]
            .as_str()
            .and_then(some)
            .map(str::to_owned)
            .into_iter()
            .collect()
    };
    let address = &profile["address"];
    let line = |name: &str| address[name].as_str().unwrap_or_default().to_owned();
    Fields {
        first_name: Some(text("givenName")),
        last_name: Some(text("familyName")),
        company: Some(text("company")),
        job_title: Some(text("jobTitle")),
        emails: Some(list("email")),
        phones: Some(list("telephone")),
        website: Some(text("website")),
        address: Some(Address {
            street: line("street"),
            city: line("city"),
            zip: line("postalCode"),
            country: line("country"),
        }),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64) -> Result<Value, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(contact(state, &Person::new(state, id, record)))
}

pub(super) fn patch(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Web1on1.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let body = request.json()?;
    let known = body.as_object().ok_or_else(|| bad("a contact is an object"))?;
    if let Some(other) = known
        .keys()
        .find(|name| !matches!(name.as_str(), "links" | "profile" | "meta"))
    {
        return Err(bad(format!("{other} cannot be changed")));
    }
    let links = match &body["links"] {
        Value::Null => None,
        Value::Array(links) => Some(links.clone()),
        _ => return Err(bad("links is an array")),
    };
    let profile = match &body["profile"] {
        Value::Null => Fields::default(),
        whole => profile(whole),
    };
    let fields = Fields { links, ..profile };
    if !writes::change(state, id, &fields) {
        return Err(no_contact());
    }
    Ok(Reply::ok(&shown(state, id)?))
}

/// A contact is made through its conversation.
pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let given = &body["contact"]["profile"];
    if body["organization"] != organization(state) || !given.is_object() {
        return Err(bad("organization and contact.profile are needed"));
    }
    let id = writes::contact(state, &profile(given));
    let contact = shown(state, id)?;
    let conversation = contact["conversation"].clone();
    Ok(Reply::created(
        &json!({"id": conversation, "type": "contact", "contact": contact}),
    ))
}

pub(super) fn note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let hex = body["conversation"]
        .as_str()
        .and_then(|id| id.strip_prefix("60aa00000c04"));
    let contact = hex
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or_else(no_contact)?;
    let note = writes::note(
        state,
        contact,
        None,
        body["text"].as_str().unwrap_or_default().to_owned(),
    )?;
    Ok(Reply::created(
        &json!({"id": note.id, "conversation": body["conversation"], "text": note.body}),
    ))
}
