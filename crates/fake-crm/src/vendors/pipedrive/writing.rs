//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::person;
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Fields;
use crate::vendors::shapes::{Person, parse_iso, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall};

fn values(list: &Value) -> Option<Vec<String>> {
    let items = list.as_array()?.iter().filter_map(|item| item["value"].as_str());
    Some(items.map(str::to_owned).collect())
}

fn given(body: &Value) -> Fields {
    let name = body["name"]
        .as_str()
        .map(|name| name.split_once(' ').unwrap_or((name, "")));
    let job_title = body["job_title"].as_str().map(str::to_owned);
    Fields {
        first_name: name.map(|(first, _)| first.to_owned()),
        last_name: name.map(|(_, last)| last.to_owned()),
        emails: values(&body["emails"]),
        phones: values(&body["phones"]),
        job_title,
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let body = json!({"success": true, "data": person(&Person::new(state, id, record))});
    Ok(Reply::json(status, &body))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if body["name"].as_str().is_none_or(|name| name.trim().is_empty()) {
        return Err(bad("name: Required"));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&given(&body));
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED)
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = request.segment(3).parse().map_err(|_| no_contact())?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

fn agent(value: &Value) -> Option<String> {
    value.as_u64().map(|id| format!("u-{id}"))
}

pub(super) fn note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = body["person_id"]
        .as_u64()
        .ok_or_else(|| bad("give deal_id, lead_id, person_id or org_id"))?;
    let content = body["content"].as_str().unwrap_or_default().to_owned();
    let made = writes::note(state, contact, agent(&body["user_id"]), content)?;
    let id: u64 = made.id.parse().unwrap_or_default();
    let shown = json!({"success": true, "data": {
        "id": id, "content": made.body, "person_id": contact, "add_time": made.created_at,
    }});
    Ok(Reply::created(&shown))
}

/// An activity of the type `call` that is done is a logged call.
pub(super) fn activity(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = body["participants"][0]["person_id"]
        .as_u64()
        .ok_or_else(|| bad("participants is missing"))?;
    let date = body["due_date"].as_str().unwrap_or_default();
    let hour = body["due_time"].as_str().and_then(some).unwrap_or("00:00");
    let seconds = if hour.len() == 5 { ":00" } else { "" };
    let started_at =
        parse_iso(&format!("{date}T{hour}{seconds}Z")).ok_or_else(|| bad("due_date must be YYYY-MM-DD"))?;
    let duration = body["duration"].as_str().unwrap_or("00:00").split(':');
    let duration = duration
        .map(|part| part.parse::<u64>().ok())
        .collect::<Option<Vec<u64>>>();
    let duration_s = match duration.as_deref() {
        Some([hours, minutes]) => (hours * 60 + minutes) * 60,
        Some([hours, minutes, seconds]) => (hours * 60 + minutes) * 60 + seconds,
        _ => return Err(bad("duration must be HH:MM")),
    };
    let subject = body["subject"].as_str().unwrap_or_default();
    let inbound = subject.to_lowercase().contains("inbound");
    let new = NewCall {
        direction: if inbound { "inbound" } else { "outbound" }.to_owned(),
        started_at,
        duration_s,
        notes: body["note"].as_str().or(Some(subject)).map(str::to_owned),
        agent_id: agent(&body["owner_id"]),
        ..NewCall::default()
    };
    writes::call(state, contact, new)?;
    let id = state.made.calls.len();
    let shown = json!({"success": true, "data": {
        "id": id, "subject": subject, "type": body["type"], "done": body["done"], "owner_id": body["owner_id"],
    }});
    Ok(Reply::created(&shown))
}
