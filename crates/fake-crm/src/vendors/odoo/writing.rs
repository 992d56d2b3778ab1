//! What callers make and change.

use serde_json::Value;

use super::reading::no_model;
use super::{Call, wrong};
use crate::account::State;
use crate::api::ApiError;
use crate::data::{Address, Fields, Web1on1Link};
use crate::vendors::shapes::{self, some};
use crate::writes::{self, NewTicket};

pub(super) fn given(values: &Value) -> Fields {
    let text = |name: &str| values[name].as_str().and_then(some).map(str::to_owned);
    let name = text("name").map(|name| match name.split_once(' ') {
        Some((first, last)) => (first.to_owned(), last.to_owned()),
        None => (name, String::new()),
    });
    let phones: Vec<String> = ["phone", "mobile"].iter().filter_map(|name| text(name)).collect();
    Fields {
        first_name: name.as_ref().map(|(first, _)| first.clone()),
        last_name: name.map(|(_, last)| last),
        company: text("company_name"),
        job_title: text("function"),
        emails: text("email").map(|email| vec![email]),
        phones: Some(phones).filter(|phones| !phones.is_empty()),
        website: text("website"),
        web1on1: web1on1(values),
        address: text("street").map(|street| Address {
            street,
            city: text("city").unwrap_or_default(),
            zip: text("zip").unwrap_or_default(),
            country: String::new(),
        }),
        ..Fields::default()
    }
}

/// Fields that the customer added; `false` empties them, and of two that are written together none is left over.
fn web1on1(values: &Value) -> Option<Web1on1Link> {
    let names = ["x_web1on1_url", "x_web1on1_organization"];
    let [url, organization] = names.map(|name| values[name].as_str().and_then(some).map(str::to_owned));
    names
        .iter()
        .any(|name| values.get(name).is_some())
        .then(|| Web1on1Link {
            url,
            organization,
            ..Web1on1Link::default()
        })
}

/// One record makes one id, a list of them a list.
fn created(call: &Call, mut make: impl FnMut(&Value) -> Result<u64, ApiError>) -> Result<Value, ApiError> {
    let values = call.arg(0, "vals_list");
    match values.as_array() {
        Some(list) => list.iter().map(|one| make(one).map(Value::from)).collect(),
        None => Ok(make(values)?.into()),
    }
}

pub(super) fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    created(call, |values| {
        let new = given(values);
        if new.first_name.is_none() {
            return Err(crate::api::invalid("Contacts require a name"));
        }
        let mut fields = Fields::empty();
        fields.lay_over(&new);
        Ok(writes::contact(state, &fields))
    })
}

pub(super) fn create_ticket(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    if call.model != "helpdesk.ticket" {
        return Err(no_model(call));
    }
    created(call, |values| {
        let priority = match values["priority"].as_str() {
            None => None,
            Some("0") => Some("low"),
            Some("1") => Some("normal"),
            Some("2") => Some("high"),
            Some("3") => Some("urgent"),
            Some(other) => return Err(wrong(format!("Wrong value for helpdesk.ticket.priority: '{other}'"))),
        };
        let new = NewTicket {
            subject: values["name"].as_str().unwrap_or_default().to_owned(),
            description: values["description"].as_str().unwrap_or_default().to_owned(),
            priority: priority.map(str::to_owned),
            due_at: None,
            agent_id: values["user_id"]
                .as_u64()
                .map(|uid| format!("u-{}", uid.saturating_sub(1))),
        };
        let contact = values["partner_id"].as_u64().unwrap_or_default();
        Ok(shapes::ticket_number(&writes::ticket(state, contact, new)?.ticket))
    })
}
