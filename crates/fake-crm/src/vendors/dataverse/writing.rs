//! What callers make and change.

use http::StatusCode;
use serde_json::{Value, json};

use super::reading::{contact, in_path};
use super::{Dataverse, guid, number_in, prefers};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::{Address, Fields};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, parse_iso, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

fn text(body: &Value, name: &str) -> Option<String> {
    body[name].as_str().and_then(some).map(str::to_owned)
}

fn given(body: &Value) -> Fields {
    let list = |names: &[&str]| {
        let found: Vec<String> = names.iter().filter_map(|name| text(body, name)).collect();
        Some(found).filter(|found| !found.is_empty())
    };
    Fields {
        first_name: text(body, "firstname"),
        last_name: text(body, "lastname"),
        job_title: text(body, "jobtitle"),
        website: text(body, "websiteurl"),
        emails: list(&["emailaddress1", "emailaddress2", "emailaddress3"]),
        phones: list(&["telephone1", "mobilephone", "telephone2"]),
        address: text(body, "address1_line1").map(|street| Address {
            street,
            city: text(body, "address1_city").unwrap_or_default(),
            zip: text(body, "address1_postalcode").unwrap_or_default(),
            country: text(body, "address1_country").unwrap_or_default(),
        }),
        ..Fields::default()
    }
}

/// 204 with the address of what was made, or the thing itself for who prefers it.
fn made(request: &Request, set: &str, id: &str, shown: Value) -> Reply {
    let address = format!("{}/api/data/v9.2/{set}({id})", request.origin());
    let reply = if prefers(request, "return") == Some("representation") {
        Reply::created(&shown)
    } else {
        Reply::empty(StatusCode::NO_CONTENT)
    };
    reply.header("odata-entityid", address)
}

pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let mut fields = Fields::empty();
    fields.lay_over(&given(&request.json()?));
    let id = writes::contact(state, &fields);
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let shown = contact(&Person::new(state, id, record), None);
    Ok(made(request, "contacts", &Dataverse.contact_id(id), shown))
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = in_path(request.segment(3))?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// `"name@odata.bind": "/set(guid)"`
fn bound(body: &Value, name: &str) -> Option<String> {
    let text = body[format!("{name}@odata.bind")].as_str()?;
    let (_, id) = text.strip_suffix(')')?.split_once('(')?;
    Some(id.to_owned())
}

fn whom(body: &Value, name: &str) -> Result<u64, ApiError> {
    let id = bound(body, name).and_then(|id| Dataverse.contact_of(&id));
    id.ok_or_else(|| bad(format!("{name}@odata.bind is missing or means no contact")))
}

fn owner(body: &Value) -> Option<String> {
    Some(format!("u-{}", number_in(&bound(body, "ownerid")?, "5e500000")?))
}

pub(super) fn create_incident(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let new = NewTicket {
        subject: text(&body, "title").ok_or_else(|| bad("title is missing"))?,
        description: text(&body, "description").unwrap_or_default(),
        priority: match body["prioritycode"].as_u64() {
            None => None,
            Some(1) => Some("high".to_owned()),
            Some(2) => Some("normal".to_owned()),
            Some(3) => Some("low".to_owned()),
            Some(other) => return Err(bad(format!("prioritycode {other}"))),
        },
        due_at: None,
        agent_id: owner(&body),
    };
    let ticket = writes::ticket(state, whom(&body, "customerid_contact")?, new)?.ticket;
    let id = guid("1c000000", shapes::ticket_number(&ticket));
    Ok(made(
        request,
        "incidents",
        &id,
        json!({"incidentid": id, "title": ticket.subject}),
    ))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let note = text(&body, "notetext").ok_or_else(|| bad("notetext is missing"))?;
    let note = writes::note(state, whom(&body, "objectid_contact")?, owner(&body), note)?;
    let id = guid("40700000", note.id.parse().unwrap_or_default());
    Ok(made(request, "annotations", &id, json!({"annotationid": id})))
}

pub(super) fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body, "regardingobjectid_contact")?;
    let outbound = body["directioncode"].as_bool().unwrap_or(true);
    let start = body["actualstart"].as_str().and_then(parse_iso);
    let new = NewCall {
        direction: if outbound { "outbound" } else { "inbound" }.to_owned(),
        started_at: start.unwrap_or_else(|| state.crm_now()),
        duration_s: body["actualdurationminutes"].as_u64().unwrap_or_default() * 60,
        phone: text(&body, "phonenumber"),
        recording_url: None,
        notes: text(&body, "description").or_else(|| text(&body, "subject")),
        agent_id: owner(&body),
    };
    writes::call(state, contact, new)?;
    let id = guid("ca110000", state.made.calls.len() as u64);
    Ok(made(request, "phonecalls", &id, json!({"activityid": id})))
}
