//! What is read: contacts, users, conversations.

use serde_json::{Value, json};

use super::{Web1on1, organization};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::select::{Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, iso_ms, page, parse_iso, some};
use crate::wire::{Reply, Request};

/// Filters that compare the whole text.
const PROFILE: [&str; 2] = ["profile.email", "profile.telephone"];

pub(super) fn looks_for_somebody(request: &Request) -> bool {
    PROFILE.iter().any(|name| request.query(name).is_some())
}

pub(super) fn user(state: &State, at: usize) -> Value {
    let user = state.user(at);
    let named = user.as_ref();
    json!({
        "id": Web1on1.user_id(at), "organization": organization(state), "role": "agent",
        "displayName": named.map(|user| format!("{} {}", user.first_name, user.last_name)),
        "email": named.and_then(|user| user.email.clone()),
        "status": if named.is_some_and(|user| user.active) { "active" } else { "inactive" },
        "profile": {"givenName": named.map(|user| &user.first_name), "familyName": named.map(|user| &user.last_name)},
    })
}

fn window(request: &Request) -> Result<(usize, usize), ApiError> {
    let limit = request.number("limit")?.unwrap_or(100);
    if !(1..=100).contains(&limit) {
        return Err(bad("limit must be 1 to 100"));
    }
    Ok((request.number("offset")?.unwrap_or(0), limit))
}

/// A bare array, and the address of the next page in the header.
fn listed(request: &Request, list: Vec<Value>, next: Option<usize>) -> Reply {
    let reply = Reply::ok(&list.into());
    let Some(offset) = next else { return reply };
    let rest = request.queries().filter(|(name, _)| *name != "offset");
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(rest).append_pair("offset", &offset.to_string());
    let next = format!("{}{}?{}", request.origin(), request.uri.path(), query.finish());
    reply.header("link", format!("<{next}>; rel=\"next\""))
}

pub(super) fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let all: Vec<usize> = (1..=state.users.len()).filter(|at| state.user(*at).is_some()).collect();
    let list = all.iter().skip(offset).take(limit).map(|at| user(state, *at)).collect();
    Ok(listed(
        request,
        list,
        (offset + limit < all.len()).then_some(offset + limit),
    ))
}

pub(super) fn contact(state: &State, person: &Person) -> Value {
    let row = &person.row;
    json!({
        "id": Web1on1.contact_id(person.id),
        "organization": organization(state),
        "conversation": Web1on1.conversation_id(person.id),
        "links": row.links,
        "profile": {
            "givenName": some(&row.first_name),
            "familyName": some(&row.last_name),
            "email": person.any_email(),
            "telephone": person.any_phone(),
            "company": some(&row.company),
            "jobTitle": some(&row.job_title),
            "picture": row.photo_url,
            "website": row.website,
            "locale": "en",
            "address": {
                "street": some(&row.address.street), "city": some(&row.address.city),
                "postalCode": some(&row.address.zip), "country": some(&row.address.country),
            },
        },
        "createdAt": iso_ms(person.created),
        "updatedAt": iso_ms(person.modified),
    })
}

/// `>=2020-09-14` is a comparator and a value.
fn compared(value: &str) -> (&str, &str) {
    for operator in [">=", "<=", ">", "<"] {
        if let Some(rest) = value.strip_prefix(operator) {
            return (operator, rest);
        }
    }
    ("=", value)
}

fn time(text: &str) -> Result<i64, ApiError> {
    let day = || parse_iso(&format!("{text}T00:00:00Z"));
    let local = || parse_iso(&format!("{text}Z"));
    parse_iso(text)
        .or_else(local)
        .or_else(day)
        .ok_or_else(|| bad(format!("{text} is no date")))
}

fn selected(request: &Request, mut shown: Value) -> Value {
    if let (Some(select), Some(map)) = (request.query("select"), shown.as_object_mut()) {
        let wanted: Vec<&str> = select
            .split(',')
            .map(|field| field.split('.').next().unwrap_or(field))
            .collect();
        map.retain(|name, _| name == "id" || wanted.contains(&name.as_str()));
    }
    shown
}

pub(super) fn contacts(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let mut selection = Selection {
        offset,
        limit,
        ..Selection::default()
    };
    let mut profile: Vec<(&str, &str)> = Vec::new();
    for (name, value) in request.queries() {
        match name {
            "limit" | "offset" | "sort" | "select" | "populate" => {}
            "organization" if value == organization(state) => {}
            "organization" => selection.among([]),
            "updatedAt" => {
                let (operator, at) = compared(value);
                selection.compare_time(operator, time(at)?);
            }
            "id" => match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(ids) => selection.among(ids.split(',').filter_map(|id| Web1on1.contact_of(id.trim()))),
                None => {
                    let (operator, id) = compared(value);
                    selection.compare_id(operator, Web1on1.contact_of(id).unwrap_or(0));
                }
            },
            "profile.email" | "profile.telephone" => profile.push((name, value)),
            // What it does not know it ignores: who misspells a filter gets everybody.
            _ => {}
        }
    }
    selection.order = match request.query("sort").unwrap_or("id").split(',').next() {
        Some("id" | "createdAt") => Order::Id,
        Some("-id" | "-createdAt") => Order::IdDown,
        Some("updatedAt") => Order::Time,
        Some("-updatedAt") => Order::TimeDown,
        other => return Err(bad(format!("this fake does not sort by {other:?}"))),
    };
    if !profile.is_empty() {
        selection.offset = 0;
        selection.limit = usize::MAX;
        for (_, value) in &profile {
            selection.among(state.contacts.candidates(value));
        }
    }
    let (mut people, mut more) = page(state, &selection);
    if !profile.is_empty() {
        people.retain(|person| {
            profile.iter().all(|(name, value)| match *name {
                "profile.email" => person.any_email() == Some(*value),
                _ => person.any_phone() == Some(*value),
            })
        });
        more = people.len() > offset + limit;
        people = people.into_iter().skip(offset).take(limit).collect();
    }
    let list = people
        .iter()
        .map(|person| selected(request, contact(state, person)))
        .collect();
    Ok(listed(request, list, more.then_some(offset + limit)))
}

pub(super) fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Web1on1.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let people = page(state, &Selection::of_ids([id])).0;
    let person = people.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&selected(request, contact(state, person))))
}

pub(super) fn conversations(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let id = request.query("contact").and_then(|id| Web1on1.contact_of(id));
    let id = id.ok_or_else(|| bad("this fake finds conversations by contact"))?;
    let tickets = shapes::tickets_of(state, id).unwrap_or_default();
    let list = tickets.iter().skip(offset).take(limit).map(|ticket| {
        json!({
            "id": format!("60aa00000c05{:012x}", shapes::ticket_number(ticket)), "contact": Web1on1.contact_id(id),
            "name": ticket.subject, "status": if ticket.status == "solved" { "closed" } else { "active" },
            "type": "contact", "createdAt": ticket.created_at, "updatedAt": ticket.updated_at,
        })
    });
    Ok(listed(
        request,
        list.collect(),
        (offset + limit < tickets.len()).then_some(offset + limit),
    ))
}
