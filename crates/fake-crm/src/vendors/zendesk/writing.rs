//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::reading::{end_user, ticket};
use super::{AGENTS_FROM, CONTACTS_FROM, Zendesk};
use crate::account::State;
use crate::api::{ApiError, invalid, no_contact};
use crate::data::Fields;
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, parse_iso, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

fn given(user: &Value) -> Fields {
    let name = user["name"]
        .as_str()
        .map(|name| name.split_once(' ').unwrap_or((name, "")));
    let list = |name: &str| user[name].as_str().map(|text| vec![text.to_owned()]);
    Fields {
        first_name: name.map(|(first, _)| first.to_owned()),
        last_name: name.map(|(_, last)| last.to_owned()),
        emails: list("email"),
        phones: list("phone"),
        job_title: user["notes"].as_str().map(str::to_owned),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::json(
        status,
        &json!({"user": end_user(&Person::new(state, id, record), true)}),
    ))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let new = given(&body["user"]);
    if new.first_name.as_deref().is_none_or(|name| name.trim().is_empty()) {
        return Err(invalid("Name: cannot be blank"));
    }
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if let Some(email) = email.filter(|email| shapes::somebody_with_email(state, email).is_some()) {
        return Err(invalid(format!("Email: {email} is already being used by another user")));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED)
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Zendesk
        .contact_of(request.segment(3).trim_end_matches(".json"))
        .ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?["user"])) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

fn requester(ticket: &Value) -> Result<u64, ApiError> {
    let id = ticket["requester_id"]
        .as_u64()
        .and_then(|id| id.checked_sub(CONTACTS_FROM));
    id.ok_or_else(|| invalid("Requester: is not valid"))
}

fn assignee(ticket: &Value) -> Option<String> {
    let ordinal = ticket["assignee_id"].as_u64()?.saturating_sub(AGENTS_FROM as u64);
    Some(format!("u-{ordinal}"))
}

pub(super) fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["ticket"];
    let text = asked["comment"]["body"].as_str().and_then(some);
    let text = text.ok_or_else(|| invalid("Description: cannot be blank"))?;
    let new = NewTicket {
        subject: asked["subject"].as_str().unwrap_or(text).to_owned(),
        description: text.to_owned(),
        priority: asked["priority"].as_str().map(str::to_owned),
        due_at: asked["due_at"].as_str().map(str::to_owned),
        agent_id: assignee(asked),
    };
    let contact = requester(asked)?;
    let made = writes::ticket(state, contact, new)?;
    Ok(Reply::created(&json!({"ticket": ticket(&made.ticket, contact)})))
}

/// A call is a ticket with a voice comment: `via_id` 45 came in, 46 went out.
pub(super) fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["ticket"];
    let voice = &asked["voice_comment"];
    let direction = match asked["via_id"].as_u64() {
        Some(45) => "inbound",
        Some(46) => "outbound",
        _ => return Err(invalid("via_id must be 45 or 46")),
    };
    let other = if direction == "inbound" { "from" } else { "to" };
    let started = voice["started_at"].as_str().and_then(parse_iso);
    let new = NewCall {
        direction: direction.to_owned(),
        started_at: started.ok_or_else(|| invalid("started_at is not valid"))?,
        duration_s: voice["call_duration"]
            .as_u64()
            .ok_or_else(|| invalid("call_duration is not valid"))?,
        phone: voice[other].as_str().map(str::to_owned),
        recording_url: voice["recording_url"].as_str().map(str::to_owned),
        notes: asked["description"]
            .as_str()
            .or(asked["comment"]["body"].as_str())
            .map(str::to_owned),
        agent_id: assignee(asked),
    };
    writes::call(state, requester(asked)?, new)?;
    let id = 8_000_000 + state.made.calls.len();
    Ok(Reply::created(
        &json!({"ticket": {"id": id, "subject": asked["subject"], "status": "open"}}),
    ))
}
