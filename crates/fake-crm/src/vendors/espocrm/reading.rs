//! What is read: contacts and what belongs to them.

use serde_json::{Map, Value, json};

use super::{EspoCrm, PAGE_MAX};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::Ticket;
use crate::select::{Archived, Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, page, parse_plain, plain, some};
use crate::wire::{Reply, Request};

#[derive(PartialEq, Eq)]
pub(super) enum Filtered {
    No,
    Times,
    Ids,
}

pub(super) fn filtered(request: &Request) -> Filtered {
    let items = filters(request);
    let on = |attribute: &str| items.iter().any(|item| item.attribute == attribute);
    if items.iter().any(|item| item.kind == "in") {
        Filtered::Ids
    } else if on("modifiedAt") {
        Filtered::Times
    } else {
        Filtered::No
    }
}

/// One item of `whereGroup`.
#[derive(Default)]
struct Filter {
    kind: String,
    attribute: String,
    values: Vec<String>,
}

/// `whereGroup[0][type]=…&whereGroup[0][attribute]=…&whereGroup[0][value]=…`
fn filters(request: &Request) -> Vec<Filter> {
    let mut items: std::collections::BTreeMap<String, Filter> = std::collections::BTreeMap::new();
    for (name, value) in request.queries() {
        let Some(rest) = name.strip_prefix("whereGroup[").or_else(|| name.strip_prefix("where[")) else {
            continue;
        };
        let Some((index, rest)) = rest.split_once(']') else {
            continue;
        };
        let item = items.entry(index.to_owned()).or_default();
        match rest.trim_start_matches('[').split(']').next() {
            Some("type") => value.clone_into(&mut item.kind),
            Some("attribute" | "field") => value.clone_into(&mut item.attribute),
            Some("value") => item.values.push(value.to_owned()),
            _ => {}
        }
    }
    items.into_values().collect()
}

fn narrow(selection: &mut Selection, filter: &Filter) -> Result<(), ApiError> {
    let value = filter.values.first().map(String::as_str).unwrap_or_default();
    let comparison = match filter.kind.as_str() {
        "greaterThan" | "after" => ">",
        "greaterThanOrEquals" => ">=",
        "lessThan" | "before" => "<",
        "lessThanOrEquals" => "<=",
        "equals" => "=",
        other => other,
    };
    let id = |text: &String| EspoCrm.contact_of(text).unwrap_or(u64::MAX);
    let known = match (filter.attribute.as_str(), comparison) {
        ("modifiedAt", comparison) => {
            let at = parse_plain(value).ok_or_else(|| bad(format!("Bad value {value} of modifiedAt")))?;
            selection.compare_time(comparison, at)
        }
        ("id", "in") => {
            selection.among(filter.values.iter().map(id));
            true
        }
        ("id", comparison) => selection.compare_id(comparison, filter.values.first().map_or(0, id)),
        _ => false,
    };
    if known {
        Ok(())
    } else {
        Err(bad(format!(
            "Not allowed where item {} of {}",
            filter.kind, filter.attribute
        )))
    }
}

/// Offset and size, and 403 past the largest page.
fn window(request: &Request) -> Result<(usize, usize), ApiError> {
    let size = request.number("maxSize")?.unwrap_or(20);
    if size > PAGE_MAX {
        return Err(ApiError::new(
            403,
            "forbidden",
            format!("Max size should not exceed {PAGE_MAX}. Use offset and limit."),
        ));
    }
    Ok((request.number("offset")?.unwrap_or(0), size))
}

fn listed(request: &Request, list: Vec<Value>, total: usize, more: bool) -> Reply {
    let total = match (request.header("x-no-total"), more) {
        (Some("true"), true) => -1,
        (Some("true"), false) => -2,
        _ => total as i64,
    };
    Reply::ok(&json!({"total": total, "list": list}))
}

fn selected(request: &Request, contact: Value) -> Value {
    let Some(wanted) = request.query("attributeSelect").or_else(|| request.query("select")) else {
        return contact;
    };
    let Value::Object(all) = contact else { return contact };
    let wanted: Vec<&str> = wanted.split(',').chain(["id"]).collect();
    let kept: Map<String, Value> = all
        .into_iter()
        .filter(|(name, _)| wanted.contains(&name.as_str()))
        .collect();
    kept.into()
}

pub(super) fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let down = match request.query("order").map(str::to_lowercase).as_deref() {
        Some("asc" | "false") => false,
        Some("desc" | "true") => true,
        None => request.query("orderBy").is_none(),
        Some(other) => return Err(bad(format!("Bad order {other}"))),
    };
    let order = match (request.query("orderBy"), down) {
        (None | Some("id" | "createdAt"), false) => Order::Id,
        (None | Some("id" | "createdAt"), true) => Order::IdDown,
        (Some("modifiedAt"), false) => Order::Time,
        (Some("modifiedAt"), true) => Order::TimeDown,
        (Some(other), _) => return Err(bad(format!("Bad orderBy {other}"))),
    };
    let mut selection = Selection {
        archived: Archived::Hidden,
        order,
        offset,
        limit,
        ..Selection::default()
    };
    for filter in filters(request) {
        narrow(&mut selection, &filter)?;
    }
    let (people, more) = page(state, &selection);
    let list = people.iter().map(|person| selected(request, contact(person))).collect();
    let total = match request.header("x-no-total") {
        Some("true") => 0,
        _ => selection.count(state),
    };
    Ok(listed(request, list, total, more))
}

pub(super) fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = EspoCrm.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let people = page(state, &Selection::of_ids([id])).0;
    let person = people.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(person)))
}

pub(super) fn contact(person: &Person) -> Value {
    let row = &person.row;
    let emails = row.emails.iter().filter(|email| !email.is_empty()).enumerate().map(|(at, email)| {
        json!({
            "emailAddress": email, "lower": email.to_lowercase(), "primary": at == 0, "optOut": false, "invalid": false,
        })
    });
    let phones = row
        .phones
        .iter()
        .filter(|phone| !phone.is_empty())
        .enumerate()
        .map(|(at, phone)| {
            let kind = if at == 0 { "Office" } else { "Mobile" };
            json!({"phoneNumber": phone, "primary": at == 0, "type": kind, "optOut": false, "invalid": false})
        });
    let account = some(&row.company);
    json!({
        "id": EspoCrm.contact_id(person.id),
        "name": some(&person.name()),
        "deleted": false,
        "salutationName": null,
        "firstName": some(&row.first_name),
        "lastName": some(&row.last_name),
        "title": some(&row.job_title),
        "description": null,
        "emailAddress": row.emails.iter().find_map(|email| some(email)),
        "emailAddressData": emails.collect::<Vec<Value>>(),
        "phoneNumber": row.phones.iter().find_map(|phone| some(phone)),
        "phoneNumberData": phones.collect::<Vec<Value>>(),
        "addressStreet": some(&row.address.street),
        "addressCity": some(&row.address.city),
        "addressState": null,
        "addressCountry": some(&row.address.country),
        "addressPostalCode": some(&row.address.zip),
        "accountId": account.map(|_| format!("5a0ac{:012x}", person.id)),
        "accountName": account,
        "createdAt": plain(person.created),
        "modifiedAt": plain(person.modified),
    })
}

pub(super) fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let on_active = filters(request)
        .into_iter()
        .find(|filter| filter.attribute == "isActive");
    let active = match on_active {
        None => None,
        Some(filter) => Some(match filter.kind.as_str() {
            "isTrue" => true,
            "isFalse" => false,
            _ => filter
                .values
                .first()
                .is_some_and(|value| value == "true" || value == "1"),
        }),
    };
    let all = (1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let all: Vec<_> = all
        .filter(|(_, user)| active.is_none_or(|active| user.active == active))
        .collect();
    let page = all.iter().skip(offset).take(limit).map(|(at, user)| {
        json!({
            "id": EspoCrm.user_id(*at),
            "userName": format!("user{at}"),
            "name": format!("{} {}", user.first_name, user.last_name),
            "firstName": user.first_name,
            "lastName": user.last_name,
            "emailAddress": user.email,
            "isActive": user.active,
            "type": "regular",
        })
    });
    let more = offset + limit < all.len();
    Ok(listed(request, page.collect(), all.len(), more))
}

pub(super) fn case(ticket: &Ticket, contact: &str) -> Value {
    let status = match ticket.status.as_str() {
        "new" => "New",
        "open" => "Assigned",
        "pending" => "Pending",
        _ => "Closed",
    };
    let priority = match ticket.priority.as_str() {
        "low" => "Low",
        "high" => "High",
        "urgent" => "Urgent",
        _ => "Normal",
    };
    let number = shapes::ticket_number(ticket);
    let time = |stamp: &str| shapes::parse_iso(stamp).map(plain);
    json!({
        "id": format!("5a0ca{number:012x}"),
        "number": number,
        "name": ticket.subject,
        "status": status,
        "priority": priority,
        "description": ticket.description,
        "contactId": contact,
        "createdAt": time(&ticket.created_at),
        "modifiedAt": time(&ticket.updated_at),
    })
}

pub(super) fn cases(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let id = request.segment(3);
    let contact = EspoCrm.contact_of(id).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let page = tickets.iter().skip(offset).take(limit).map(|ticket| case(ticket, id));
    let more = offset + limit < tickets.len();
    Ok(listed(request, page.collect(), tickets.len(), more))
}

pub(super) fn activities(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = EspoCrm
        .contact_of(request.segment(3))
        .ok_or_else(no_contact)?
        .to_string();
    let calls = state.made.calls.iter().enumerate();
    let calls = calls.filter(|(_, call)| call.contact_id == contact && request.segment(4) == "calls");
    let calls: Vec<Value> = calls
        .map(|(at, call)| {
            let direction = if call.direction == "inbound" {
                "Inbound"
            } else {
                "Outbound"
            };
            json!({
                "id": format!("5a0cc{:012x}", at + 1), "name": call.notes, "status": "Held", "direction": direction,
                "dateStart": plain(call.started_at),
                "dateEnd": plain(call.started_at + call.duration_s as i64 * 1000),
            })
        })
        .collect();
    let total = calls.len();
    Ok(listed(request, calls, total, false))
}
