//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Salesforce, long_id, number_in};
use crate::account::State;
use crate::api::{ApiError, no_contact};
use crate::data::{Address, Fields};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, parse_iso, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

fn text(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().and_then(some).map(str::to_owned)
}

fn required(record: &Value, name: &str) -> Result<String, ApiError> {
    let missing = || {
        ApiError::new(
            400,
            "REQUIRED_FIELD_MISSING",
            format!("Required fields are missing: [{name}]"),
        )
    };
    text(record, name).ok_or_else(missing)
}

fn given(record: &Value) -> Fields {
    let phones: Vec<String> = ["Phone", "MobilePhone", "HomePhone"]
        .iter()
        .filter_map(|name| text(record, name))
        .collect();
    Fields {
        first_name: text(record, "FirstName"),
        last_name: text(record, "LastName"),
        job_title: text(record, "Title"),
        emails: text(record, "Email").map(|email| vec![email]),
        phones: Some(phones).filter(|phones| !phones.is_empty()),
        address: text(record, "MailingStreet").map(|street| Address {
            street,
            city: text(record, "MailingCity").unwrap_or_default(),
            zip: text(record, "MailingPostalCode").unwrap_or_default(),
            country: text(record, "MailingCountry").unwrap_or_default(),
        }),
        ..Fields::default()
    }
}

fn done(id: &str) -> Reply {
    Reply::created(&json!({"id": id, "success": true, "errors": []}))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    required(&record, "LastName")?;
    let mut fields = Fields::empty();
    fields.lay_over(&given(&record));
    let id = writes::contact(state, &fields);
    Ok(done(&Salesforce.contact_id(id)))
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Salesforce.contact_of(request.segment(5)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn whom(record: &Value, name: &str) -> Result<u64, ApiError> {
    let id = record[name].as_str().unwrap_or_default();
    let wrong = || ApiError::new(400, "MALFORMED_ID", format!("{name}: id value of incorrect type: {id}"));
    Salesforce.contact_of(id).ok_or_else(wrong)
}

fn owner(record: &Value) -> Option<String> {
    let ordinal = number_in(record["OwnerId"].as_str()?, "0055e")?;
    Some(format!("u-{ordinal}"))
}

pub(super) fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    let new = NewTicket {
        subject: text(&record, "Subject").unwrap_or_else(|| "(no subject)".to_owned()),
        description: text(&record, "Description").unwrap_or_default(),
        priority: text(&record, "Priority").map(|priority| match priority.as_str() {
            "Medium" => "normal".to_owned(),
            other => other.to_lowercase(),
        }),
        due_at: None,
        agent_id: owner(&record),
    };
    let made = writes::ticket(state, whom(&record, "ContactId")?, new)?;
    Ok(done(&long_id(&format!(
        "5005e{:010}",
        shapes::ticket_number(&made.ticket)
    ))))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    required(&record, "Title")?;
    let note = writes::note(
        state,
        whom(&record, "ParentId")?,
        owner(&record),
        required(&record, "Body")?,
    )?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(done(&long_id(&format!("0025e{id:010}"))))
}

/// A task is a logged call when its subtype says so, else a note.
pub(super) fn create_task(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    let contact = whom(&record, "WhoId")?;
    if record["TaskSubtype"] != "Call" {
        let note = writes::note(state, contact, owner(&record), required(&record, "Subject")?)?;
        let id: u64 = note.id.parse().unwrap_or_default();
        return Ok(done(&long_id(&format!("00T9e{id:010}"))));
    }
    let started = record["ActivityDate"]
        .as_str()
        .and_then(|date| parse_iso(&format!("{date}T00:00:00Z")));
    let new = NewCall {
        direction: required(&record, "CallType")?.to_lowercase(),
        started_at: started.unwrap_or_else(|| state.crm_now()),
        duration_s: record["CallDurationInSeconds"].as_u64().unwrap_or_default(),
        notes: text(&record, "Description").or_else(|| text(&record, "Subject")),
        agent_id: owner(&record),
        ..NewCall::default()
    };
    writes::call(state, contact, new)?;
    Ok(done(&long_id(&format!("00T5e{:010}", state.made.calls.len()))))
}
