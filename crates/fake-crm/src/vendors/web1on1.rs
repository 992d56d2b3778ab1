//! Web1on1 (ChipChat), `v2`.
//!
//! From Web1on1's pages on API basics, authentication, fetching resources and webhooks, from its recipe on contact
//! synchronisation and from its SDK, 2026. A comparator stands inside a value (`updatedAt=>=…`), the next page is in the
//! `Link` header, and `PATCH` merges the top level only: nested objects and arrays are replaced. A new webhook is asked for
//! a challenge before it is told anything.
//! **Recalled** or guessed, as nothing says it: at most 100 contacts a page; the list of conversations as what happened with
//! a contact; a note as a message; no list of the deleted.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, iso_ms, number_of, page, parse_iso, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::clock;
use crate::data::{Address, Fields};
use crate::limits::{LimitSpec, Turn, each_call};
use crate::select::{Order, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};
use crate::writes;

pub(crate) struct Web1on1;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "second",
    20,
    Duration::from_secs(1),
    Turn::Fixed,
    each_call,
)];

const CHALLENGE: &str = "Qm9uam91ciBsZSBtb25kZQ";

impl Vendor for Web1on1 {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["v2", path @ ..] = path.as_slice() else {
            return None;
        };
        let op = match (method, path) {
            ("POST", ["auth", "token"]) => Op::Token,
            ("GET", ["users", "me"]) => Op::Check,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["contacts"]) if request.query("updatedAt").is_some() => Op::Changes,
            ("GET", ["contacts"]) if request.query("id").is_some_and(|ids| ids.starts_with('[')) => Op::Batch,
            ("GET", ["contacts"]) => Op::List,
            ("GET", ["contacts", _]) => Op::Batch,
            ("PATCH", ["contacts", _]) => Op::UpdateContact,
            ("GET", ["conversations"]) => Op::Tickets,
            ("POST", ["conversations"]) => Op::CreateContact,
            ("POST", ["messages"]) => Op::CreateNote,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        self.route(request) == Some(Op::Token) || state.accepts(request.bearer())
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Token => token(state, request),
            Op::Check => Ok(Reply::ok(&user(state, state.viewer.unwrap_or(1)))),
            Op::Users => users(state, request),
            Op::Batch if !request.segment(2).is_empty() => one(state, request),
            Op::Changes | Op::List | Op::Batch => contacts(state, request),
            Op::UpdateContact => patch(state, request),
            Op::Tickets => conversations(state, request),
            Op::CreateContact => create(state, request),
            Op::CreateNote => note(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, state: &State, request: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, message: &str| Reply::json(status, &json!({"error": {"message": message}}));
        match refused {
            Refused::Unauthorized { given } => {
                let known = request.bearer().is_some_and(|token| state.sessions.contains_key(token));
                let message = match given {
                    Some(_) if known => "jwt expired",
                    Some(_) => "invalid token",
                    None => "no token was given",
                };
                error(StatusCode::UNAUTHORIZED, message)
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "not found"),
            Refused::Throttled { .. } => error(StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Refused::Broken(status) => error(*status, "Something broke"),
            Refused::Failed(wrong) => error(wrong.status, &wrong.message),
        }
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/v2/contacts?limit=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.no_tombstones = true;
        knobs.access_life_ms = 24 * 3600 * 1000;
    }

    fn contact_id(&self, id: u64) -> String {
        format!("60aa0000c0ff{id:012x}")
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        let hex = id.strip_prefix("60aa0000c0ff").filter(|hex| hex.len() == 12)?;
        u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        format!("60aa00005e50{ordinal:012x}")
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let name = if event.kind == EventKind::Created {
            "contact.create"
        } else {
            "contact.update"
        };
        let now = hook.state.contacts.newest(event.contact);
        let contact = now.map(|record| contact(hook.state, &Person::new(hook.state, event.contact, record)));
        let body = json!({
            "id": format!("6f1c2a50-0000-4000-8000-{:012x}", event.number), "event": name, "timestamp": iso_ms(event.at),
            "organization": organization(hook.state), "data": {"contact": contact},
        })
        .to_string();
        let signature = hex::encode(shapes::sha1(&hook.webhook.secret, &[body.as_bytes()]));
        Outgoing::json(hook, body).header("x-hub-signature", format!("sha1={signature}"))
    }

    fn greets(&self) -> bool {
        true
    }

    fn greeting(&self, hook: &Hook) -> Option<Outgoing> {
        let joint = if hook.webhook.url.contains('?') { '&' } else { '?' };
        Some(Outgoing {
            get: true,
            url: format!("{}{joint}type=subscribe&challenge={CHALLENGE}", hook.webhook.url),
            expects: Some(CHALLENGE.to_owned()),
            ..Outgoing::json(hook, "")
        })
    }

    fn tells(&self, kind: EventKind) -> bool {
        matches!(kind, EventKind::Created | EventKind::Updated)
    }
}

fn organization(state: &State) -> String {
    format!("5c1300000000{:012x}", number_of(&state.account, 9))
}

fn token(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let by_password = body["email"].as_str().and(body["password"].as_str());
    let secret = body["clientId"]
        .as_str()
        .and(body["refreshToken"].as_str())
        .or(by_password);
    if !secret.is_some_and(|secret| state.tokens.iter().any(|token| token == secret)) {
        return Err(ApiError::new(401, "unauthorized", "invalid credentials"));
    }
    let refresh = secret.unwrap_or_default().to_owned();
    let (token, seconds) = state.mint();
    let until = clock::now_ms() + seconds as i64 * 1000;
    Ok(Reply::created(&json!({
        "tokenType": "Bearer", "token": token, "refreshToken": refresh, "user": Web1on1.user_id(1),
        "organization": organization(state), "expiresAt": iso_ms(until), "scope": "bot",
    })))
}

fn user(state: &State, at: usize) -> Value {
    let user = state.user(at);
    let named = user.as_ref();
    json!({
        "id": Web1on1.user_id(at), "organization": organization(state), "role": "agent",
        "email": named.and_then(|user| user.email.clone()),
        "status": if named.is_some_and(|user| user.active) { "active" } else { "inactive" },
        "profile": {"givenName": named.map(|user| &user.first_name), "familyName": named.map(|user| &user.last_name)},
    })
}

// ---- reading

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

fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let all: Vec<usize> = (1..=state.users.len()).filter(|at| state.user(*at).is_some()).collect();
    let list = all.iter().skip(offset).take(limit).map(|at| user(state, *at)).collect();
    Ok(listed(
        request,
        list,
        (offset + limit < all.len()).then_some(offset + limit),
    ))
}

fn contact(state: &State, person: &Person) -> Value {
    let row = &person.row;
    let links = state.links.get(&person.id).cloned().unwrap_or_default();
    json!({
        "id": Web1on1.contact_id(person.id),
        "organization": organization(state),
        "conversation": format!("60aa00000c04{:012x}", person.id),
        "links": links,
        "profile": {
            "givenName": some(&row.first_name),
            "familyName": some(&row.last_name),
            "email": person.email(0),
            "telephone": person.phone(0),
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

fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
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
            other => return Err(bad(format!("this fake does not filter by {other}"))),
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
    }
    let (mut people, mut more) = page(state, &selection);
    if !profile.is_empty() {
        people.retain(|person| {
            profile.iter().all(|(name, value)| match *name {
                "profile.email" => person.email(0) == Some(*value),
                _ => person.phone(0) == Some(*value),
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

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Web1on1.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let people = page(state, &Selection::of_ids([id])).0;
    let person = people.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&selected(request, contact(state, person))))
}

fn conversations(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

// ---- writing

/// A whole profile: what is not in it is gone.
fn profile(profile: &Value) -> Fields {
    let text = |name: &str| profile[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| {
        profile[name]
            .as_str()
            .and_then(some)
            .map(str::to_owned)
            .into_iter()
            .collect()
    };
    let address = &profile["address"];
    let line = |name: &str| address[name].as_str().unwrap_or_default().to_owned();
    Fields {
        first_name: Some(text("givenName")),
        last_name: Some(text("familyName")),
        company: Some(text("company")),
        job_title: Some(text("jobTitle")),
        emails: Some(list("email")),
        phones: Some(list("telephone")),
        website: Some(text("website")),
        address: Some(Address {
            street: line("street"),
            city: line("city"),
            zip: line("postalCode"),
            country: line("country"),
        }),
    }
}

fn shown(state: &State, id: u64) -> Result<Value, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(contact(state, &Person::new(state, id, record)))
}

fn patch(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Web1on1.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let body = request.json()?;
    let known = body.as_object().ok_or_else(|| bad("a contact is an object"))?;
    if let Some(other) = known
        .keys()
        .find(|name| !matches!(name.as_str(), "links" | "profile" | "meta"))
    {
        return Err(bad(format!("{other} cannot be changed")));
    }
    let links = match &body["links"] {
        Value::Null => None,
        Value::Array(links) => Some(links.clone()),
        _ => return Err(bad("links is an array")),
    };
    let fields = match &body["profile"] {
        Value::Null => Fields::default(),
        whole => profile(whole),
    };
    if !writes::change(state, id, &fields) {
        return Err(no_contact());
    }
    if let Some(links) = links {
        state.links.insert(id, links);
    }
    Ok(Reply::ok(&shown(state, id)?))
}

/// A contact is made through its conversation.
fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let given = &body["contact"]["profile"];
    if body["organization"] != organization(state) || !given.is_object() {
        return Err(bad("organization and contact.profile are needed"));
    }
    let id = writes::contact(state, &profile(given));
    let contact = shown(state, id)?;
    let conversation = contact["conversation"].clone();
    Ok(Reply::created(
        &json!({"id": conversation, "type": "contact", "contact": contact}),
    ))
}

fn note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let hex = body["conversation"]
        .as_str()
        .and_then(|id| id.strip_prefix("60aa00000c04"));
    let contact = hex
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or_else(no_contact)?;
    let note = writes::note(
        state,
        contact,
        None,
        body["text"].as_str().unwrap_or_default().to_owned(),
    )?;
    Ok(Reply::created(
        &json!({"id": note.id, "conversation": body["conversation"], "text": note.body}),
    ))
}
