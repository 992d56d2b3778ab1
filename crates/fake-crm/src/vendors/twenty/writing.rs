//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::reading::person;
use super::{Twenty, number_in, uuid};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Fields;
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewTicket};

fn given(body: &Value) -> Fields {
    let text = |value: &Value| value.as_str().and_then(some).map(str::to_owned);
    let phone = text(&body["phones"]["primaryPhoneNumber"]).map(|number| {
        let code = body["phones"]["primaryPhoneCallingCode"].as_str().unwrap_or_default();
        format!("{code}{number}")
    });
    Fields {
        first_name: text(&body["name"]["firstName"]),
        last_name: text(&body["name"]["lastName"]),
        job_title: text(&body["jobTitle"]),
        emails: text(&body["emails"]["primaryEmail"]).map(|email| vec![email]),
        phones: phone.map(|phone| vec![phone]),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode, name: &str) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let mut data = json!({});
    data[name] = person(&Person::new(state, id, record), None, false);
    Ok(Reply::json(status, &json!({"data": data})))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let new = given(&request.json()?);
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if email.is_some_and(|email| shapes::somebody_with_email(state, email).is_some()) {
        return Err(bad("A duplicate entry was detected"));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED, "createPerson")
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Twenty.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK, "updatePerson")
}

/// A note or a task is nobody's until a target ties it to a person.
pub(super) fn draft(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let made = |name: &str, id: &str| {
        let mut data = json!({});
        data[name] = json!({"id": id});
        Reply::created(&json!({"data": data}))
    };
    let tied = |name: &str| {
        let id = body[name].as_str().unwrap_or_default().to_owned();
        let contact = body["personId"].as_str().and_then(|id| Twenty.contact_of(id));
        Ok::<_, ApiError>((id, contact.ok_or_else(no_contact)?))
    };
    match request.segment(1) {
        kind @ ("notes" | "tasks") => {
            let id = uuid("20205555", state.drafts.len() as u64 + 1);
            state.drafts.insert(id.clone(), body);
            Ok(made(if kind == "notes" { "createNote" } else { "createTask" }, &id))
        }
        "noteTargets" => {
            let (id, contact) = tied("noteId")?;
            let note = state.drafts.get(&id).ok_or_else(no_contact)?;
            let text = note["bodyV2"]["markdown"]
                .as_str()
                .or(note["title"].as_str())
                .unwrap_or_default()
                .to_owned();
            writes::note(state, contact, None, text)?;
            Ok(made(
                "createNoteTarget",
                &uuid("20206666", state.made.notes.len() as u64),
            ))
        }
        _ => {
            let (id, contact) = tied("taskId")?;
            let task = state.drafts.get(&id).ok_or_else(no_contact)?.clone();
            let agent = task["assigneeId"].as_str().and_then(|id| number_in(id, "20209999"));
            let new = NewTicket {
                subject: task["title"].as_str().unwrap_or_default().to_owned(),
                description: task["bodyV2"]["markdown"].as_str().unwrap_or_default().to_owned(),
                due_at: task["dueAt"].as_str().map(str::to_owned),
                agent_id: agent.map(|ordinal| format!("u-{ordinal}")),
                ..NewTicket::default()
            };
            writes::ticket(state, contact, new)?;
            Ok(made(
                "createTaskTarget",
                &uuid("20206666", state.made.tickets.len() as u64),
            ))
        }
    }
}
