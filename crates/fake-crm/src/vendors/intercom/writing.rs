//! What callers make and change.

use serde_json::{Value, json};

use super::{Intercom, as_ticket, contact};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Fields;
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewTicket};

fn given(body: &Value) -> Fields {
    let name = body["name"]
        .as_str()
        .map(|name| name.split_once(' ').unwrap_or((name, "")));
    let list = |name: &str| body[name].as_str().and_then(some).map(|text| vec![text.to_owned()]);
    Fields {
        first_name: name.map(|(first, _)| first.to_owned()),
        last_name: name.map(|(_, last)| last.to_owned()),
        emails: list("email"),
        phones: list("phone"),
        job_title: body["custom_attributes"]["job_title"].as_str().map(str::to_owned),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(state, &Person::new(state, id, record))))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if ["email", "role", "external_id"]
        .iter()
        .all(|name| body[*name].is_null())
    {
        return Err(bad("give email, external_id or role"));
    }
    let new = given(&body);
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if let Some(known) = email.and_then(|email| shapes::somebody_with_email(state, email)) {
        let id = Intercom.contact_id(known);
        let message = format!("A contact matching those details already exists with id={id}");
        return Err(ApiError::new(409, "conflict", message));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id)
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Intercom.contact_of(request.segment(1)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id)
}

pub(super) fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if body["ticket_type_id"].is_null() {
        return Err(bad("ticket_type_id is missing"));
    }
    let contact = body["contacts"][0]["id"]
        .as_str()
        .and_then(|id| Intercom.contact_of(id));
    let text = |name: &str| body["ticket_attributes"][name].as_str().unwrap_or_default().to_owned();
    let new = NewTicket {
        subject: text("_default_title_"),
        description: text("_default_description_"),
        ..NewTicket::default()
    };
    let made = writes::ticket(state, contact.ok_or_else(no_contact)?, new)?;
    Ok(Reply::ok(&as_ticket(&made.ticket)))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = Intercom.contact_of(request.segment(1)).ok_or_else(no_contact)?;
    let agent = body["admin_id"].as_str().and_then(|id| id.parse::<u64>().ok());
    let agent = agent.map(|id| format!("u-{}", id.saturating_sub(991_267_000)));
    let note = writes::note(
        state,
        contact,
        agent,
        body["body"].as_str().unwrap_or_default().to_owned(),
    )?;
    Ok(Reply::ok(
        &json!({"type": "note", "id": note.id, "body": note.body, "created_at": state.crm_now() / 1000}),
    ))
}
