//! What is read: contacts and what belongs to them.

use serde_json::{Value, json};

use super::{AGENTS_FROM, CONTACTS_FROM, ORGANIZATIONS_FROM, Zendesk};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::{Ticket, User};
use crate::select::{Archived, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, iso, opaque, page, parse_iso, read_opaque, some};
use crate::wire::{Reply, Request};

pub(super) fn end_user(person: &Person, active: bool) -> Value {
    let row = &person.row;
    json!({
        "id": CONTACTS_FROM + person.id,
        "url": format!("https://example.zendesk.com/api/v2/users/{}.json", CONTACTS_FROM + person.id),
        "name": person.name(),
        "email": person.email(0),
        "phone": person.phone(0),
        "shared_phone_number": null,
        "role": "end-user",
        "active": active && !row.archived,
        "suspended": false,
        "verified": true,
        "notes": row.job_title,
        "details": row.website.as_deref().unwrap_or_default(),
        "organization_id": some(&row.company).map(|_| ORGANIZATIONS_FROM + person.id),
        "photo": row.photo_url.as_ref().map(|url| json!({"content_url": url, "content_type": "image/jpeg"})),
        "user_fields": {"job_title": row.job_title},
        "tags": [],
        "created_at": iso(person.created),
        "updated_at": iso(person.modified),
    })
}

fn agent(at: usize, user: &User) -> Value {
    json!({
        "id": AGENTS_FROM + at,
        "name": format!("{} {}", user.first_name, user.last_name),
        "email": user.email,
        "role": if at == 1 { "admin" } else { "agent" },
        "active": true,
        "suspended": !user.active,
        "created_at": "2023-01-01T00:00:00Z",
        "updated_at": "2023-01-01T00:00:00Z",
    })
}

pub(super) fn me(state: &State) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let mut user = state.user(ordinal).map_or(Value::Null, |user| agent(ordinal, &user));
    user["url"] = format!(
        "https://{}.zendesk.com/api/v2/users/{}.json",
        state.account,
        AGENTS_FROM + ordinal
    )
    .into();
    Reply::ok(&json!({"user": user}))
}

/// Where the export goes on: behind this time and this id.
type Place = (i64, u64);

fn place(request: &Request) -> Result<Option<Place>, ApiError> {
    let Some(cursor) = request.query("cursor") else {
        return Ok(None);
    };
    let decoded = read_opaque(cursor);
    let place = decoded.as_deref().and_then(|text| text.split_once('|'));
    let place = place.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    place.map(Some).ok_or_else(|| bad("cursor is invalid"))
}

/// Everybody by the time of the last change, up to what is held back.
pub(super) fn export(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let until = state.crm_now() - state.knobs.hold_back_ms as i64;
    let limit = request.number("per_page")?.unwrap_or(1_000).clamp(1, 1_000);
    let (first, place) = match (place(request)?, request.number::<i64>("start_time")?) {
        (Some(place), _) => (false, place),
        (None, Some(start)) if start.saturating_mul(1000) > until => {
            let message = "Too recent start_time. Use a start_time older than 60 seconds";
            return Err(ApiError::new(422, "StartTimeTooRecent", message));
        }
        (None, Some(start)) => (true, (start.saturating_mul(1000), 0)),
        (None, None) => return Err(bad("start_time is missing")),
    };
    let contacts = &state.contacts;
    let living = contacts
        .modified_within(place.0, until)
        .filter(|(id, _)| crate::api::shown(state, *id));
    let living = living.map(|(id, record)| ((record.modified, id), Some(record)));
    let living = living.filter(|(at, _)| *at > place).take(limit + 1);
    let gone = contacts.deleted(place.0, place).filter(|_| !state.knobs.no_tombstones);
    let gone = gone.take_while(|(at, _, _)| *at < until).take(limit + 1);
    let mut found: Vec<_> = living.chain(gone.map(|(at, id, _)| ((at, id), None))).collect();
    found.sort_by_key(|(at, _)| *at);
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map_or(place, |(at, _)| *at);
    let mut users: Vec<Value> = Vec::new();
    if first && place.0 < 1_672_531_200_000 {
        let agents = (1..=state.users.len()).filter_map(|at| Some(agent(at, &state.user(at)?)));
        users.extend(agents);
    }
    users.extend(found.into_iter().map(|((at, id), record)| match record {
        Some(record) => end_user(&Person::new(state, id, record), true),
        None => end_user(&Person::gone(state, id, at), false),
    }));
    let cursor = opaque(&format!("{}|{}", last.0, last.1));
    let url = format!(
        "{}/api/v2/incremental/users/cursor.json?cursor={cursor}",
        request.origin()
    );
    Ok(Reply::ok(&json!({
        "users": users, "after_cursor": cursor, "after_url": url, "before_cursor": null, "before_url": null,
        "end_of_stream": !more,
    })))
}

fn many(request: &Request) -> Result<Vec<u64>, ApiError> {
    let ids = request.query("ids").unwrap_or_default().split(',');
    let ids: Result<Vec<u64>, _> = ids.map(|id| id.trim().parse()).collect();
    match ids {
        Ok(ids) if ids.len() <= 100 => Ok(ids),
        Ok(_) => Err(bad("at most 100 ids")),
        Err(_) => Err(bad("ids must be numbers")),
    }
}

pub(super) fn show_many(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let ids: Vec<u64> = many(request)?
        .into_iter()
        .filter_map(|id| id.checked_sub(CONTACTS_FROM))
        .collect();
    let selection = Selection {
        archived: Archived::Shown,
        ..Selection::of_ids(ids.iter().copied())
    };
    let living = page(state, &selection).0;
    let mut users: Vec<Value> = living.iter().map(|person| end_user(person, true)).collect();
    let gone = state.contacts.deleted(i64::MIN, (i64::MIN, 0));
    let gone = gone.filter(|(_, id, _)| !state.knobs.no_tombstones && ids.contains(id));
    users.extend(gone.map(|(at, id, _)| end_user(&Person::gone(state, id, at), false)));
    let count = users.len();
    Ok(Reply::ok(
        &json!({"users": users, "count": count, "next_page": null, "previous_page": null}),
    ))
}

/// Cursor paging: `page[size]` and `page[after]`.
fn cursor(request: &Request) -> Result<(usize, u64), ApiError> {
    let size = match request
        .number("page[size]")?
        .or(request.number("per_page")?)
        .unwrap_or(100)
    {
        size if (1..=100).contains(&size) => size,
        size => return Err(bad(format!("page[size] must be 1 to 100, not {size}"))),
    };
    let after = request.query("page[after]").map(read_opaque);
    let after = after.map(|text| {
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| bad("page[after] is invalid"))
    });
    Ok((size, after.transpose()?.unwrap_or(0)))
}

fn paged(request: &Request, name: &str, list: Vec<Value>, next: Option<u64>) -> Reply {
    let after = next.map(|place| opaque(&place.to_string()));
    let url = after
        .as_ref()
        .map(|after| format!("{}{}?page[after]={after}", request.origin(), request.uri.path()));
    let mut body = json!({"meta": {"has_more": after.is_some(), "after_cursor": after}, "links": {"next": url}});
    body[name] = list.into();
    Reply::ok(&body)
}

pub(super) fn list(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (limit, after) = cursor(request)?;
    let selection = Selection {
        after,
        limit,
        ..Selection::default()
    };
    let (people, more) = page(state, &selection);
    let next = people.last().filter(|_| more).map(|person| person.id);
    let users = people.iter().map(|person| end_user(person, true)).collect();
    Ok(paged(request, "users", users, next))
}

pub(super) fn agents(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (limit, after) = cursor(request)?;
    let users = (after as usize + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut users: Vec<_> = users.take(limit + 1).collect();
    let more = users.len() > limit;
    users.truncate(limit);
    let next = users.last().filter(|_| more).map(|(at, _)| *at as u64);
    let shown = users.iter().map(|(at, user)| agent(*at, user)).collect();
    Ok(paged(request, "users", shown, next))
}

pub(super) fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (limit, after) = cursor(request)?;
    let gone = state.contacts.deleted(i64::MIN, (i64::MIN, 0));
    let mut gone: Vec<_> = gone
        .filter(|(_, id, _)| *id > after && !state.knobs.no_tombstones)
        .collect();
    gone.sort_by_key(|(_, id, _)| *id);
    let more = gone.len() > limit;
    gone.truncate(limit);
    let next = gone.last().filter(|_| more).map(|(_, id, _)| *id);
    let users = gone
        .iter()
        .map(|(at, id, _)| end_user(&Person::gone(state, *id, *at), false))
        .collect();
    Ok(paged(request, "deleted_users", users, next))
}

pub(super) fn ticket(ticket: &Ticket, requester: u64) -> Value {
    json!({
        "id": shapes::ticket_number(ticket),
        "url": ticket.url,
        "subject": ticket.subject,
        "description": ticket.description,
        "status": ticket.status,
        "priority": ticket.priority,
        "requester_id": CONTACTS_FROM + requester,
        "created_at": parse_iso(&ticket.created_at).map(iso),
        "updated_at": parse_iso(&ticket.updated_at).map(iso),
    })
}

pub(super) fn requested(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = Zendesk.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let shown: Vec<Value> = tickets.iter().map(|one| ticket(one, contact)).collect();
    let count = shown.len();
    Ok(Reply::ok(
        &json!({"tickets": shown, "count": count, "next_page": null, "previous_page": null}),
    ))
}

pub(super) fn organizations(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let ids = many(request)?
        .into_iter()
        .filter_map(|id| id.checked_sub(ORGANIZATIONS_FROM));
    let people = page(state, &Selection::of_ids(ids)).0;
    let known = people.iter().filter(|person| !person.row.company.is_empty());
    let known = known.map(|person| json!({"id": ORGANIZATIONS_FROM + person.id, "name": person.row.company}));
    let known: Vec<Value> = known.collect();
    let count = known.len();
    Ok(Reply::ok(
        &json!({"organizations": known, "count": count, "next_page": null}),
    ))
}
