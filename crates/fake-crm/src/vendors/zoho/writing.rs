//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::{FROM, Zoho};
use crate::account::State;
use crate::api::{ApiError, invalid, no_contact};
use crate::data::{Address, Fields};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, parse_iso, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

fn record(request: &Request) -> Result<Value, ApiError> {
    let mut body = request.json()?;
    match body["data"].get_mut(0) {
        Some(record) => Ok(record.take()),
        None => Err(ApiError::new(
            400,
            "MANDATORY_NOT_FOUND",
            "required field not found: data",
        )),
    }
}

fn text(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().and_then(some).map(str::to_owned)
}

pub(super) fn required(record: &Value, name: &str) -> Result<String, ApiError> {
    let missing = || ApiError::new(400, "MANDATORY_NOT_FOUND", format!("required field not found: {name}"));
    text(record, name).ok_or_else(missing)
}

fn given(record: &Value) -> Fields {
    let list = |names: [&str; 2]| {
        let found: Vec<String> = names.iter().filter_map(|name| text(record, name)).collect();
        Some(found).filter(|found| !found.is_empty())
    };
    let street = text(record, "Mailing_Street");
    Fields {
        first_name: text(record, "First_Name"),
        last_name: text(record, "Last_Name"),
        job_title: text(record, "Title"),
        emails: list(["Email", "Secondary_Email"]),
        phones: list(["Phone", "Mobile"]),
        company: record["Account_Name"]["name"].as_str().map(str::to_owned),
        address: street.map(|street| Address {
            street,
            city: text(record, "Mailing_City").unwrap_or_default(),
            zip: text(record, "Mailing_Zip").unwrap_or_default(),
            country: text(record, "Mailing_Country").unwrap_or_default(),
        }),
        ..Fields::default()
    }
}

fn done(status: StatusCode, id: u64, message: &str) -> Reply {
    let done = json!({"code": "SUCCESS", "details": {"id": id.to_string()}, "message": message, "status": "success"});
    Reply::json(status, &json!({"data": [done]}))
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    required(&record, "Last_Name")?;
    let mut fields = Fields::empty();
    fields.lay_over(&given(&record));
    let id = writes::contact(state, &fields);
    Ok(done(StatusCode::CREATED, FROM + id, "record added"))
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&record(request)?)) {
        return Err(no_contact());
    }
    Ok(done(StatusCode::OK, FROM + id, "record updated"))
}

fn whom(value: &Value) -> Result<u64, ApiError> {
    let id = value["id"].as_str().or(value.as_str());
    id.and_then(|id| Zoho.contact_of(id))
        .ok_or_else(|| invalid("the given id seems to be invalid"))
}

fn agent(record: &Value) -> Option<String> {
    let id: u64 = record["Owner"]["id"].as_str()?.parse().ok()?;
    Some(format!("u-{}", id.saturating_sub(FROM + 500_000_000_000)))
}

pub(super) fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    required(&record, "Status")?;
    required(&record, "Case_Origin")?;
    let related = if record["Related_To"].is_null() {
        "Contact_Name"
    } else {
        "Related_To"
    };
    let new = NewTicket {
        subject: required(&record, "Subject")?,
        description: text(&record, "Description").unwrap_or_default(),
        priority: text(&record, "Priority").map(|priority| match priority.as_str() {
            "Medium" => "normal".to_owned(),
            other => other.to_lowercase(),
        }),
        due_at: None,
        agent_id: agent(&record),
    };
    let made = writes::ticket(state, whom(&record[related])?, new)?;
    let id = FROM + 700_000_000_000 + shapes::ticket_number(&made.ticket);
    Ok(done(StatusCode::CREATED, id, "record added"))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    let contact = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let note = writes::note(state, contact, agent(&record), required(&record, "Note_Content")?)?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(done(StatusCode::CREATED, FROM + 800_000_000_000 + id, "record added"))
}

pub(super) fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    let start = parse_iso(&required(&record, "Call_Start_Time")?);
    let duration = required(&record, "Call_Duration")?;
    let parts = duration.split(':').map(|part| part.parse::<u64>().ok());
    let duration_s = parts
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| invalid("Call_Duration must be MM:SS"))?;
    let new = NewCall {
        direction: required(&record, "Call_Type")?.to_lowercase(),
        started_at: start.ok_or_else(|| invalid("Call_Start_Time must be a datetime"))?,
        duration_s: duration_s.into_iter().fold(0, |sum, part| sum * 60 + part),
        notes: text(&record, "Description").or_else(|| text(&record, "Subject")),
        agent_id: agent(&record),
        ..NewCall::default()
    };
    writes::call(state, whom(&record["Who_Id"])?, new)?;
    let id = FROM + 600_000_000_000 + state.made.calls.len() as u64;
    Ok(done(StatusCode::CREATED, id, "record added"))
}
