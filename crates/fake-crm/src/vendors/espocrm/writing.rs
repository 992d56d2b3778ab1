//! What callers make and change.

use serde_json::{Value, json};

use super::EspoCrm;
use super::reading::{case, contact};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Fields;
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, parse_plain, some};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

pub(super) fn text(body: &Value, name: &str) -> Option<String> {
    body[name].as_str().and_then(some).map(str::to_owned)
}

fn several(body: &Value, data: &str, one: &str, name: &str) -> Option<Vec<String>> {
    let items = body[data]
        .as_array()
        .map(|items| items.iter().filter_map(|item| text(item, name)).collect());
    items.or_else(|| Some(vec![text(body, one)?]))
}

fn given(body: &Value) -> Fields {
    let mut fields = Fields {
        first_name: text(body, "firstName"),
        last_name: text(body, "lastName"),
        job_title: text(body, "title"),
        emails: several(body, "emailAddressData", "emailAddress", "emailAddress"),
        phones: several(body, "phoneNumberData", "phoneNumber", "phoneNumber"),
        ..Fields::default()
    };
    let parts = ["addressStreet", "addressCity", "addressPostalCode", "addressCountry"].map(|name| text(body, name));
    if parts.iter().any(Option::is_some) {
        let [street, city, zip, country] = parts.map(Option::unwrap_or_default);
        fields.address = Some(crate::Address {
            street,
            city,
            zip,
            country,
        });
    }
    fields
}

/// 409 with the possible duplicates, unless the caller knows better.
pub(super) fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if text(&body, "lastName").is_none() {
        return Err(bad(
            "Field validation failure; entityType: Contact, field: lastName, type: required.",
        ));
    }
    let new = given(&body);
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    let careful = request.header("x-skip-duplicate-check") != Some("true");
    if careful && let Some(known) = email.and_then(|email| shapes::somebody_with_email(state, email)) {
        return Err(ApiError::new(409, "duplicate", EspoCrm.contact_id(known)));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id)
}

fn shown(state: &State, id: u64) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(&Person::new(state, id, record))))
}

pub(super) fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = EspoCrm.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id)
}

/// The contact that a record is for: `contactId`, the first of `contactsIds`, or the parent.
fn whom(body: &Value) -> Result<u64, ApiError> {
    let parent = body["parentId"].as_str().filter(|_| body["parentType"] == "Contact");
    let id = body["contactId"]
        .as_str()
        .or(body["contactsIds"][0].as_str())
        .or(parent);
    id.and_then(|id| EspoCrm.contact_of(id)).ok_or_else(no_contact)
}

fn agent(body: &Value) -> Result<Option<String>, ApiError> {
    let Some(id) = text(body, "assignedUserId") else {
        return Ok(None);
    };
    let ordinal = id
        .strip_prefix("5a005")
        .and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let ordinal = ordinal.ok_or_else(|| bad("Field validation failure; field: assignedUser, type: exists."))?;
    Ok(Some(format!("u-{ordinal}")))
}

pub(super) fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body)?;
    let subject = text(&body, "name");
    let subject =
        subject.ok_or_else(|| bad("Field validation failure; entityType: Case, field: name, type: required."))?;
    let new = NewTicket {
        subject,
        description: text(&body, "description").unwrap_or_default(),
        priority: text(&body, "priority").map(|priority| priority.to_lowercase()),
        due_at: None,
        agent_id: agent(&body)?,
    };
    let made = writes::ticket(state, contact, new)?;
    Ok(Reply::ok(&case(&made.ticket, &EspoCrm.contact_id(contact))))
}

pub(super) fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if body["type"] != "Post" {
        return Err(ApiError::new(403, "forbidden", "Only Post notes can be created"));
    }
    let note = writes::note(state, whom(&body)?, None, text(&body, "post").unwrap_or_default())?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(Reply::ok(
        &json!({"id": format!("5a00e{id:012x}"), "type": "Post", "post": note.body}),
    ))
}

pub(super) fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body)?;
    let time = |name: &str| {
        let at = body[name].as_str().and_then(parse_plain);
        at.ok_or_else(|| {
            bad(format!(
                "Field validation failure; entityType: Call, field: {name}, type: valid."
            ))
        })
    };
    let (start, end) = (time("dateStart")?, time("dateEnd")?);
    let new = NewCall {
        direction: text(&body, "direction")
            .unwrap_or_else(|| "Outbound".to_owned())
            .to_lowercase(),
        started_at: start,
        duration_s: ((end - start) / 1000).unsigned_abs(),
        notes: text(&body, "description").or_else(|| text(&body, "name")),
        agent_id: agent(&body)?,
        ..NewCall::default()
    };
    writes::call(state, contact, new)?;
    let id = state.made.calls.len();
    let made = json!({
        "id": format!("5a0cc{id:012x}"), "name": body["name"], "status": body["status"], "direction": body["direction"],
        "dateStart": body["dateStart"], "dateEnd": body["dateEnd"],
    });
    Ok(Reply::ok(&made))
}
