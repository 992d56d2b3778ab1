//! What is read: contacts and what belongs to them.

use serde_json::{Value, json};

use super::{PAGE_MAX, Twenty, uuid};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::Ticket;
use crate::select::{Archived, Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, iso_ms, opaque, page, page_behind, parse_iso, read_opaque, some};
use crate::wire::{Reply, Request};

/// One condition: field, operator, value.
type Condition = (String, String, String);

/// `updatedAt[gte]:"…",id[gt]:"…"`, also within `and(…)`.
fn conditions(filter: &str) -> Result<Vec<Condition>, ApiError> {
    let inner = filter
        .strip_prefix("and(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(filter);
    let (mut parts, mut part, mut quoted, mut depth) = (Vec::new(), String::new(), false, 0);
    for c in inner.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '(' if !quoted => depth += 1,
            ']' | ')' if !quoted => depth -= 1,
            _ => {}
        }
        if c == ',' && !quoted && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    let read = |part: &String| {
        let (field, rest) = part.split_once('[')?;
        let (operator, value) = rest.split_once("]:")?;
        Some((field.trim().to_owned(), operator.to_owned(), value.trim().to_owned()))
    };
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts
        .map(|part| read(part).ok_or_else(|| bad(format!("'filter' invalid. '{part}' is no condition"))))
        .collect()
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

fn sign(operator: &str) -> &str {
    match operator {
        "gt" => ">",
        "gte" => ">=",
        "lt" => "<",
        "lte" => "<=",
        "eq" => "=",
        other => other,
    }
}

fn size(request: &Request) -> Result<usize, ApiError> {
    match request.number("limit")?.unwrap_or(PAGE_MAX) {
        size if (1..=PAGE_MAX).contains(&size) => Ok(size),
        size => Err(bad(format!(
            "limit '{size}' is invalid. Should be between 1 and {PAGE_MAX}"
        ))),
    }
}

fn place(request: &Request) -> Result<Option<(i64, u64)>, ApiError> {
    let Some(token) = request.query("starting_after") else {
        return Ok(None);
    };
    let decoded = read_opaque(token);
    let place = decoded.as_deref().and_then(|text| text.split_once('/'));
    let place = place.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    place.map(Some).ok_or_else(|| bad("Invalid cursor"))
}

pub(super) fn person(person: &Person, deleted_at: Option<i64>, deep: bool) -> Value {
    let row = &person.row;
    let emails: Vec<&String> = row.emails.iter().filter(|email| !email.is_empty()).collect();
    let phone = |phone: &str| {
        let codes = [("+351", "PT"), ("+49", "DE"), ("+1", "US")];
        match codes.into_iter().find(|(code, _)| phone.starts_with(code)) {
            Some((code, country)) => (phone[code.len()..].trim().to_owned(), country, code),
            None => (phone.to_owned(), "", ""),
        }
    };
    let (number, country, calling) = person.phone(0).map_or((String::new(), "", ""), phone);
    let others = row.phones.iter().skip(1).filter(|text| !text.is_empty()).map(|text| {
        let (number, country, calling) = phone(text);
        json!({"number": number, "countryCode": country, "callingCode": calling})
    });
    let others: Vec<Value> = others.collect();
    let company = some(&row.company).map(|name| json!({"id": uuid("20201111", person.id), "name": name}));
    let deleted_at = deleted_at.or_else(|| row.archived.then_some(person.modified));
    let mut shown = json!({
        "id": Twenty.contact_id(person.id),
        "name": {"firstName": row.first_name, "lastName": row.last_name},
        "emails": {
            "primaryEmail": emails.first().map_or("", |email| email.as_str()),
            "additionalEmails": emails.iter().skip(1).collect::<Vec<_>>(),
        },
        "phones": {
            "primaryPhoneNumber": number, "primaryPhoneCountryCode": country, "primaryPhoneCallingCode": calling,
            "additionalPhones": others,
        },
        "jobTitle": row.job_title,
        "city": row.address.city,
        "avatarUrl": row.photo_url.as_deref().unwrap_or_default(),
        "linkedinLink": {"primaryLinkLabel": "", "primaryLinkUrl": "", "secondaryLinks": []},
        "xLink": {"primaryLinkLabel": "", "primaryLinkUrl": row.twitter.as_deref().unwrap_or_default(), "secondaryLinks": []},
        "companyId": company.as_ref().map(|company| company["id"].clone()),
        "createdAt": iso_ms(person.created),
        "updatedAt": iso_ms(person.modified),
        "deletedAt": deleted_at.map(iso_ms),
    });
    if deep {
        shown["company"] = company.into();
    }
    shown
}

fn listed(name: &str, list: Vec<Value>, next: Option<String>, total: usize) -> Reply {
    let mut data = json!({});
    data[name] = list.into();
    Reply::ok(&json!({
        "data": data, "totalCount": total,
        "pageInfo": {"hasNextPage": next.is_some(), "startCursor": null, "endCursor": next},
    }))
}

pub(super) fn people(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let limit = size(request)?;
    let mut selection = Selection {
        limit,
        ..Selection::default()
    };
    let mut gone = false;
    for (field, operator, value) in conditions(request.query("filter").unwrap_or_default())? {
        let known = match (field.as_str(), operator.as_str()) {
            ("updatedAt", operator) => {
                let at = parse_iso(unquoted(&value)).ok_or_else(|| bad(format!("invalid date {value}")))?;
                selection.compare_time(sign(operator), at)
            }
            ("id", "in") => {
                let ids = value.trim_matches(['[', ']']).split(',');
                selection.among(ids.filter_map(|id| Twenty.contact_of(unquoted(id))));
                true
            }
            ("id", operator) => selection.compare_id(sign(operator), Twenty.contact_of(unquoted(&value)).unwrap_or(0)),
            ("deletedAt", "is") => {
                gone = value == "NOT_NULL";
                true
            }
            _ => return Err(bad(format!("field '{field}' cannot be filtered on by this fake"))),
        };
        if !known {
            return Err(bad(format!("'filter' invalid. operator '{operator}' is unknown")));
        }
    }
    let orders = request.query("order_by").unwrap_or("id").split(',');
    let orders: Vec<(&str, bool)> = orders
        .map(|part| {
            part.trim()
                .split_once('[')
                .map_or((part, false), |(field, way)| (field, way.starts_with("Desc")))
        })
        .collect();
    selection.order = match orders.as_slice() {
        [("id", false), ..] => Order::Id,
        [("id", true), ..] => Order::IdDown,
        [("updatedAt", false), ..] => Order::Time,
        [("updatedAt", true), ..] => Order::TimeDown,
        _ => return Err(bad("'order_by' invalid for this fake")),
    };
    let deep = request.query("depth").is_some_and(|depth| depth != "0");
    let place = place(request)?;
    if gone {
        return Ok(deleted(state, &selection, place, deep));
    }
    let (found, more) = match place {
        None => page(state, &selection),
        Some(place) => page_behind(state, &selection, place),
    };
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| opaque(&format!("{}/{}", last.modified, last.id)));
    let list = found.iter().map(|one| person(one, None, deep)).collect();
    Ok(listed("people", list, next, selection.count(state)))
}

/// By id, whatever order was asked for.
fn deleted(state: &State, selection: &Selection, place: Option<(i64, u64)>, deep: bool) -> Reply {
    let after = place.map_or(selection.after, |(_, id)| id.max(selection.after));
    let archived = Selection {
        archived: Archived::Only,
        order: Order::Id,
        limit: usize::MAX,
        after,
        ..selection.clone()
    };
    let mut found: Vec<(Person, Option<i64>)> = page(state, &archived).0.into_iter().map(|one| (one, None)).collect();
    let gone = state
        .contacts
        .deleted(selection.since, (i64::MIN, 0))
        .filter(|_| !state.knobs.no_tombstones);
    let gone = gone.filter(|(at, id, _)| {
        selection.window().contains(at) && *id > after && selection.ids.as_ref().is_none_or(|ids| ids.contains(id))
    });
    found.extend(gone.map(|(at, id, _)| (Person::gone(state, id, at), Some(at))));
    found.sort_by_key(|(one, _)| one.id);
    let total = found.len();
    found.truncate(selection.limit);
    let more = total > found.len();
    let next = found
        .last()
        .filter(|_| more)
        .map(|(last, _)| opaque(&format!("{}/{}", last.modified, last.id)));
    let list = found.iter().map(|(one, at)| person(one, *at, deep)).collect();
    listed("people", list, next, total)
}

pub(super) fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Twenty.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let found = page(state, &Selection::of_ids([id])).0;
    let one = found.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&json!({"data": {"person": person(one, None, true)}})))
}

pub(super) fn members(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let limit = size(request)?;
    let after = place(request)?.map_or(0, |(_, at)| at as usize);
    let all = (after + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut all: Vec<_> = all.filter(|(_, user)| user.active).collect();
    let total = all.len();
    all.truncate(limit);
    let next = all
        .last()
        .filter(|_| total > limit)
        .map(|(at, _)| opaque(&format!("0/{at}")));
    let list = all.iter().map(|(at, user)| {
        json!({
            "id": Twenty.user_id(*at), "name": {"firstName": user.first_name, "lastName": user.last_name},
            "userEmail": user.email, "userId": uuid("20208888", *at as u64),
        })
    });
    Ok(listed("workspaceMembers", list.collect(), next, total))
}

/// Opportunities of a person, or tasks that are tied to one.
pub(super) fn things(state: &State, op: Op, request: &Request) -> Result<Reply, ApiError> {
    let field = if op == Op::Tickets {
        "pointOfContactId"
    } else {
        "personId"
    };
    let conditions = conditions(request.query("filter").unwrap_or_default())?;
    let of = conditions
        .iter()
        .find(|(known, operator, _)| known == field && operator == "eq");
    let contact = of.and_then(|(_, _, value)| Twenty.contact_of(unquoted(value)));
    let contact = contact.ok_or_else(|| bad(format!("this fake finds by {field}[eq]")))?;
    let tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    let id = |kind: &str, ticket: &Ticket| uuid(kind, shapes::ticket_number(ticket));
    let list = tickets.iter().map(|ticket| {
        if op == Op::Tickets {
            let stage = if ticket.status == "solved" {
                "CUSTOMER"
            } else {
                "MEETING"
            };
            return json!({
                "id": id("20202222", ticket), "name": ticket.subject, "stage": stage, "createdAt": ticket.created_at,
                "updatedAt": ticket.updated_at, "pointOfContactId": Twenty.contact_id(contact),
            });
        }
        let status = match ticket.status.as_str() {
            "solved" => "DONE",
            "new" => "TODO",
            _ => "IN_PROGRESS",
        };
        let task = json!({
            "id": id("20203333", ticket), "title": ticket.subject, "bodyV2": {"markdown": ticket.description},
            "status": status, "createdAt": ticket.created_at, "updatedAt": ticket.updated_at,
        });
        json!({"id": id("20204444", ticket), "personId": Twenty.contact_id(contact), "task": task})
    });
    let name = if op == Op::Tickets {
        "opportunities"
    } else {
        "taskTargets"
    };
    let list: Vec<Value> = list.collect();
    let total = list.len();
    Ok(listed(name, list, None, total))
}
