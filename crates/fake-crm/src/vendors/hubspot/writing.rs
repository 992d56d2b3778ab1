//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::reading::{contact, number, properties, time};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Fields;
use crate::vendors::shapes::{self, Person, iso_ms, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

fn given(properties: &Value) -> Result<Fields, ApiError> {
    let Some(map) = properties.as_object() else {
        return Err(bad("properties is missing"));
    };
    let mut fields = Fields::default();
    let mut phones: Vec<String> = Vec::new();
    for (name, value) in map {
        let text = value.as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "firstname" => fields.first_name = Some(text),
            "lastname" => fields.last_name = Some(text),
            "company" => fields.company = Some(text),
            "jobtitle" => fields.job_title = Some(text),
            "website" => fields.website = Some(text),
            "email" if !text.contains('@') => {
                return Err(bad(format!(
                    "Property values were not valid: Email address {text} is invalid"
                )));
            }
            "email" => fields.emails = Some(vec![text]),
            "phone" => phones.insert(0, text),
            "mobilephone" => phones.push(text),
            "address" => fields.address.get_or_insert_default().street = text,
            "city" => fields.address.get_or_insert_default().city = text,
            "zip" => fields.address.get_or_insert_default().zip = text,
            "country" => fields.address.get_or_insert_default().country = text,
            "hubspot_owner_id" | "lifecyclestage" | "hs_lead_status" | "state" => {}
            other => return Err(bad(format!("Property \"{other}\" does not exist"))),
        }
    }
    fields.phones = Some(phones).filter(|phones| !phones.is_empty());
    Ok(fields)
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let fields = given(&request.json()?["properties"])?;
    let email = fields.emails.as_ref().and_then(|emails| emails.first());
    if let Some(id) = email.and_then(|email| shapes::somebody_with_email(state, email)) {
        let message = format!("Contact already exists. Existing ID: {id}");
        return Err(ApiError::new(409, "CONFLICT", message));
    }
    let mut whole = Fields::empty();
    whole.lay_over(&fields);
    let id = writes::contact(state, &whole);
    shown(state, id, StatusCode::CREATED)
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let person = Person::new(state, id, record);
    let every: Vec<String> = properties(&person).keys().cloned().collect();
    Ok(Reply::json(status, &contact(&person, &every)))
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = request.segment(4).parse().map_err(|_| no_contact())?;
    let fields = given(&request.json()?["properties"])?;
    if !writes::change(state, id, &fields) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

/// The contact that an object is to be associated with, by the one type that fits.
fn associated(body: &Value, type_id: u64) -> Result<u64, ApiError> {
    let association = &body["associations"][0];
    let fits = |kind: &Value| kind["associationCategory"] == "HUBSPOT_DEFINED" && kind["associationTypeId"] == type_id;
    if !association["types"]
        .as_array()
        .is_some_and(|types| types.iter().any(fits))
    {
        return Err(bad(format!("the association needs the type HUBSPOT_DEFINED {type_id}")));
    }
    number(&association["to"]["id"])
}

fn owner(properties: &Value) -> Result<Option<String>, ApiError> {
    let Some(id) = properties["hubspot_owner_id"].as_str().and_then(some) else {
        return Ok(None);
    };
    let ordinal = id.parse::<usize>().ok().and_then(|id| id.checked_sub(10_000));
    let ordinal = ordinal.ok_or_else(|| bad(format!("Owner {id} does not exist")))?;
    Ok(Some(format!("u-{ordinal}")))
}

fn text(properties: &Value, name: &str) -> Option<String> {
    properties[name].as_str().and_then(some).map(str::to_owned)
}

fn needed(properties: &Value, name: &str) -> Result<String, ApiError> {
    text(properties, name).ok_or_else(|| bad(format!("required property {name} is missing")))
}

fn made(id: u64, properties: &Value, at: i64) -> Reply {
    let mut shown = properties.clone();
    shown["hs_object_id"] = id.to_string().into();
    Reply::created(&json!({
        "id": id.to_string(), "properties": shown, "createdAt": iso_ms(at), "updatedAt": iso_ms(at), "archived": false,
    }))
}

pub(super) fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 16)?;
    needed(properties, "hs_pipeline_stage")?;
    let priority = match properties["hs_ticket_priority"].as_str() {
        None => None,
        Some("MEDIUM") => Some("normal".to_owned()),
        Some(other @ ("LOW" | "HIGH" | "URGENT")) => Some(other.to_lowercase()),
        Some(other) => return Err(bad(format!("{other} was not one of the allowed options"))),
    };
    let new = NewTicket {
        subject: needed(properties, "subject")?,
        description: text(properties, "content").unwrap_or_default(),
        priority,
        due_at: None,
        agent_id: owner(properties)?,
    };
    let ticket = writes::ticket(state, contact, new)?.ticket;
    Ok(made(shapes::ticket_number(&ticket), properties, state.crm_now()))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 202)?;
    time(&properties["hs_timestamp"])?;
    let agent = owner(properties)?;
    let note = writes::note(state, contact, agent, needed(properties, "hs_note_body")?)?;
    let id = 7_000_000 + note.id.parse::<u64>().unwrap_or_default();
    Ok(made(id, properties, state.crm_now()))
}

pub(super) fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 194)?;
    let direction = needed(properties, "hs_call_direction")?;
    let milliseconds = match &properties["hs_call_duration"] {
        Value::Null => 0,
        duration => number(duration)?,
    };
    let other = if direction == "INBOUND" {
        "hs_call_from_number"
    } else {
        "hs_call_to_number"
    };
    let new = NewCall {
        direction: direction.to_lowercase(),
        started_at: time(&properties["hs_timestamp"])?,
        duration_s: milliseconds / 1000,
        phone: text(properties, other),
        recording_url: text(properties, "hs_call_recording_url"),
        notes: text(properties, "hs_call_body"),
        agent_id: owner(properties)?,
    };
    writes::call(state, contact, new)?;
    let id = 8_000_000 + state.made.calls.len() as u64;
    Ok(made(id, properties, state.crm_now()))
}
