//! Pipedrive: v2 for persons, organizations, deals and activities, v1 for users, notes and webhooks.
//!
//! From Pipedrive's OpenAPI documents v1 and v2 (`x-token-cost` included), its page on rate limiting and its guide to
//! webhooks v2, 2026. Stamps have whole seconds, and a filter with a fraction is refused.
//! **Recalled**: deleted persons are left out of lists unless asked for by id, where they come with `is_deleted`; costs of
//! writes; the fields of a webhook's `meta` beyond `action`, `entity` and `entity_id`.

mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, iso, number_of, opaque, page, parse_iso, read_opaque, some};
use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad};
use crate::data::Ticket;
use crate::limits::{Charge, LimitSpec, Turn};
use crate::select::{Order, Selection};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};

pub(crate) struct Pipedrive;

/// The daily budget of one seat on the smallest plan, and the burst of an API token there.
const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("daily", 30_000, Duration::from_secs(86_400), Turn::Daily, tokens),
    LimitSpec::new("burst", 20, Duration::from_secs(2), Turn::Rolling, |op| {
        u64::from(op != Op::Token)
    }),
];

fn tokens(op: Op) -> u64 {
    match op {
        Op::Token => 0,
        Op::Check => 2,
        Op::Users => 20,
        Op::List | Op::Changes | Op::Batch | Op::Companies | Op::Tickets | Op::Activities | Op::Hooks => 10,
        Op::Unsubscribe => 6,
        _ => 5,
    }
}

impl Vendor for Pipedrive {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let path = match path.as_slice() {
            ["api", rest @ ..] => rest,
            rest @ ["v1", ..] => rest,
            _ => return None,
        };
        let asks = |name| request.query(name).is_some();
        let op = match (method, path) {
            ("GET", ["v1", "users", "me"]) => Op::Check,
            ("GET", ["v1", "users"]) => Op::Users,
            ("GET", ["v2", "persons"]) if asks("ids") => Op::Batch,
            ("GET", ["v2", "persons"]) if asks("updated_since") || asks("updated_until") => Op::Changes,
            ("GET", ["v2", "persons"]) => Op::List,
            ("GET", ["v2", "organizations"]) => Op::Companies,
            ("GET", ["v2", "deals"]) => Op::Tickets,
            ("GET", ["v2", "activities"]) => Op::Activities,
            ("POST", ["v2", "persons"]) => Op::CreateContact,
            ("PATCH", ["v2", "persons", _]) => Op::UpdateContact,
            ("POST", ["v1", "notes"]) => Op::CreateNote,
            ("POST", ["v2", "activities"]) => Op::CreateCall,
            ("GET", ["v1", "webhooks"]) => Op::Hooks,
            ("POST", ["v1", "webhooks"]) => Op::Subscribe,
            ("DELETE", ["v1", "webhooks", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        state.accepts(self.credential(request))
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.header("x-api-token").or_else(|| request.bearer())
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(me(state)),
            Op::Users => Ok(users(state)),
            Op::Batch => batch(state, request),
            Op::List | Op::Changes => persons(state, request),
            Op::Companies => organizations(state, request),
            Op::Tickets => deals(state, request),
            Op::Activities => activities(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateNote => writing::note(state, request),
            Op::CreateCall => writing::activity(state, request),
            Op::Hooks => Ok(hooks(state)),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(ApiError::new(404, "ERR_NOT_FOUND", "no such operation")),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, message: &str| {
            let body = json!({
                "success": false, "error": message, "code": code,
                "error_info": "Please check developers.pipedrive.com for more information about Pipedrive API.",
            });
            Reply::json(status, &body)
        };
        match refused {
            Refused::Unauthorized { .. } => {
                let body = json!({"success": false, "error": "unauthorized access", "errorCode": 401});
                Reply::json(StatusCode::UNAUTHORIZED, &body)
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "ERR_NOT_FOUND", "Unknown method ."),
            Refused::Throttled { why, charge, .. } => {
                let daily = *why == Throttle::Window && charge.is_some_and(|charge| charge.name == "daily");
                let message = if daily {
                    "request over daily limit"
                } else {
                    "request over limit"
                };
                let body = json!({"success": false, "error": message, "errorCode": 429});
                Reply::json(StatusCode::TOO_MANY_REQUESTS, &body)
            }
            Refused::Broken(status) => error(*status, "ERR_INTERNAL", "Internal server error"),
            Refused::Failed(wrong) => {
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let code = match status {
                    StatusCode::NOT_FOUND => "ERR_NOT_FOUND",
                    _ => "ERR_SCHEMA_VALIDATION_FAILED",
                };
                error(status, code, &wrong.message)
            }
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| match charge.name {
            "burst" => reply
                .header("x-ratelimit-limit", charge.limit.max)
                .header("x-ratelimit-remaining", charge.remaining)
                .header("x-ratelimit-reset", charge.reset_seconds()),
            _ => reply
                .header("x-daily-ratelimit-token-limit", charge.limit.max)
                .header("x-daily-ratelimit-token-remaining", charge.remaining)
                .header("x-daily-requests-left", charge.remaining),
        })
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'x-api-token: {token}' '{base}/api/v2/persons?limit=2'")
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        // A merge is told as the deletion of one and the change of the other, which comes as an event of its own.
        let action = match event.kind {
            EventKind::Created => "create",
            EventKind::Updated => "change",
            EventKind::Deleted | EventKind::Archived | EventKind::Merged => "delete",
        };
        let now = hook.state.contacts.newest(event.contact).filter(|_| action != "delete");
        let data = now.map(|record| person(&Person::new(hook.state, event.contact, record)));
        let mut meta = json!({
            "action": action,
            "entity": "person",
            "entity_id": event.contact.to_string(),
            "company_id": number_of(&hook.state.account, 7).to_string(),
            "webhook_id": hook.id,
            "attempt": hook.attempt,
            "timestamp": iso(event.at),
            "version": "2.0",
        });
        meta["id"] = format!("00000000-0000-4000-8000-{:012x}", event.number).into();
        let body = json!({"meta": meta, "data": data, "previous": null}).to_string();
        let outgoing = Outgoing::json(hook, body);
        match some(&hook.webhook.secret) {
            Some(user_and_password) => {
                let basic = format!("Basic {}", shapes::base64(user_and_password));
                outgoing.header("authorization", basic)
            }
            None => outgoing,
        }
    }
}

fn data(data: impl Into<Value>, additional: Value) -> Reply {
    let mut body = json!({"success": true, "data": data.into()});
    if !additional.is_null() {
        body["additional_data"] = additional;
    }
    Reply::ok(&body)
}

fn me(state: &State) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    let me = json!({
        "id": ordinal,
        "name": user.as_ref().map(|user| format!("{} {}", user.first_name, user.last_name)),
        "email": user.and_then(|user| user.email),
        "is_admin": 1,
        "active_flag": true,
        "company_id": number_of(&state.account, 7),
        "company_name": format!("Company of {}", state.account),
        "company_domain": state.account,
        "timezone_name": state.knobs.time_zone,
    });
    data(me, Value::Null)
}

/// All of them, without pages.
fn users(state: &State) -> Reply {
    let users = (1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let users = users.map(|(at, user)| {
        json!({
            "id": at, "name": format!("{} {}", user.first_name, user.last_name), "email": user.email,
            "active_flag": user.active, "is_deleted": false,
        })
    });
    data(users.collect::<Vec<Value>>(), Value::Null)
}

fn labelled(values: &[String], labels: [&str; 2]) -> Value {
    let show = |(at, value): (usize, &String)| json!({"value": value, "primary": at == 0, "label": labels[at.min(1)]});
    values.iter().enumerate().map(show).collect()
}

/// One organization for each person that has one; its id is the person's and a million.
fn organization(person: &Person) -> Option<u64> {
    some(&person.row.company).map(|_| 1_000_000 + person.id)
}

fn person(person: &Person) -> Value {
    let row = &person.row;
    let address = &row.address;
    let line = [address.street.as_str(), &address.city, &address.zip, &address.country];
    let line: Vec<&str> = line.into_iter().filter(|part| !part.is_empty()).collect();
    json!({
        "id": person.id,
        "name": person.name(),
        "first_name": some(&row.first_name),
        "last_name": some(&row.last_name),
        "owner_id": 1,
        "org_id": organization(person),
        "add_time": iso(person.created),
        "update_time": iso(person.modified),
        "emails": labelled(&row.emails, ["work", "home"]),
        "phones": labelled(&row.phones, ["work", "mobile"]),
        "is_deleted": row.archived,
        "visible_to": 3,
        "label_ids": [],
        "picture_id": null,
        "job_title": some(&row.job_title),
        "postal_address": if line.is_empty() { Value::Null } else { json!({
            "value": line.join(", "), "country": address.country, "locality": address.city,
            "postal_code": address.zip, "route": address.street,
        }) },
        "custom_fields": {},
    })
}

/// RFC 3339 in whole seconds.
fn time(request: &Request, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = request.query(name) else {
        return Ok(None);
    };
    match parse_iso(text).filter(|_| !text.contains('.')) {
        Some(at) => Ok(Some(at)),
        None => Err(bad(format!(
            "Parameter '{name}' must be an RFC3339 date-time without fractions"
        ))),
    }
}

fn limit(request: &Request) -> Result<usize, ApiError> {
    match request.number("limit")?.unwrap_or(100) {
        size if (1..=500).contains(&size) => Ok(size),
        size => Err(bad(format!("Parameter 'limit' must be 1 to 500, not {size}"))),
    }
}

/// A cursor is where the list goes on: (time, id) or, sorted by id, the id.
fn persons(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let limit = limit(request)?;
    let since = time(request, "updated_since")?.unwrap_or(i64::MIN);
    let until = time(request, "updated_until")?.unwrap_or(i64::MAX);
    let down = match request.query("sort_direction") {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => return Err(bad(format!("sort_direction {other}"))),
    };
    let by_time = match request.query("sort_by") {
        None | Some("id" | "add_time") => false,
        Some("update_time") => true,
        Some(other) => return Err(bad(format!("sort_by {other}"))),
    };
    let cursor = match request.query("cursor") {
        None => None,
        Some(token) => {
            let decoded = read_opaque(token);
            let place = decoded.as_deref().and_then(|text| text.split_once('/'));
            let place = place.and_then(|(at, id)| Some((at.parse::<i64>().ok()?, id.parse::<u64>().ok()?)));
            Some(place.ok_or_else(|| bad("Invalid cursor"))?)
        }
    };
    let order = match (by_time, down) {
        (false, false) => Order::Id,
        (false, true) => Order::IdDown,
        (true, false) => Order::Time,
        (true, true) => Order::TimeDown,
    };
    let selection = Selection {
        since,
        until,
        order,
        limit,
        ..Selection::default()
    };
    let (people, more) = match cursor {
        None => page(state, &selection),
        Some(place) => shapes::page_behind(state, &selection, place),
    };
    let next = people
        .last()
        .filter(|_| more)
        .map(|last| opaque(&format!("{}/{}", last.modified, last.id)));
    let shown: Vec<Value> = people.iter().map(person).collect();
    Ok(data(shown, json!({"next_cursor": next})))
}

fn ids(request: &Request) -> Result<Vec<u64>, ApiError> {
    let text = request.query("ids").unwrap_or_default();
    let ids: Result<Vec<u64>, _> = text.split(',').map(|id| id.trim().parse()).collect();
    let ids = ids.map_err(|_| bad("Parameter 'ids' must be numbers"))?;
    if ids.len() > 100 {
        return Err(bad("Parameter 'ids' must hold at most 100"));
    }
    Ok(ids)
}

fn batch(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let ids = ids(request)?;
    let selection = Selection {
        archived: crate::select::Archived::Shown,
        ..Selection::of_ids(ids.iter().copied())
    };
    let mut found: Vec<Value> = page(state, &selection).0.iter().map(person).collect();
    if !state.knobs.no_tombstones {
        let gone = state.contacts.deleted(i64::MIN, (i64::MIN, 0));
        for (at, id, _) in gone.filter(|(_, id, _)| ids.contains(id)) {
            let mut shown = person(&Person::gone(state, id, at));
            shown["is_deleted"] = true.into();
            found.push(shown);
        }
    }
    Ok(data(found, json!({"next_cursor": null})))
}

fn organizations(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let wanted = ids(request)?;
    let people = Selection {
        archived: crate::select::Archived::Shown,
        ..Selection::of_ids(wanted.iter().filter_map(|id| id.checked_sub(1_000_000)))
    };
    let people = page(state, &people).0;
    let known = people.iter().filter_map(|person| {
        Some(json!({"id": organization(person)?, "name": person.row.company, "is_deleted": false}))
    });
    Ok(data(known.collect::<Vec<Value>>(), json!({"next_cursor": null})))
}

fn person_asked(request: &Request) -> Result<u64, ApiError> {
    request.number("person_id")?.ok_or_else(|| bad("give person_id"))
}

fn deals(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = person_asked(request)?;
    let tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    let deal = |ticket: &Ticket| {
        let status = if ticket.status == "solved" { "won" } else { "open" };
        json!({
            "id": shapes::ticket_number(ticket), "title": ticket.subject, "status": status, "person_id": contact,
            "owner_id": 1, "value": 0, "currency": "EUR", "stage_id": 1, "pipeline_id": 1,
            "add_time": whole(&ticket.created_at), "update_time": whole(&ticket.updated_at), "is_deleted": false,
        })
    };
    Ok(data(
        tickets.iter().map(deal).collect::<Vec<Value>>(),
        json!({"next_cursor": null}),
    ))
}

fn whole(stamp: &str) -> String {
    parse_iso(stamp).map(iso).unwrap_or_default()
}

fn activities(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = person_asked(request)?.to_string();
    let calls = state.made.calls.iter().enumerate();
    let calls = calls.filter(|(_, call)| call.contact_id == contact).map(|(at, call)| {
        json!({
            "id": at + 1, "subject": call.notes, "type": "call", "done": true, "person_id": call.contact_id,
            "due_date": iso(call.started_at).get(..10), "add_time": iso(call.started_at),
            "note": call.notes, "is_deleted": false,
        })
    });
    Ok(data(calls.collect::<Vec<Value>>(), json!({"next_cursor": null})))
}

// ---- webhooks

fn hook(id: &str, subscription: &Subscription) -> Value {
    let mut hook = subscription.made_of.clone();
    if hook.is_null() {
        hook = json!({"event_action": "*", "event_object": "person", "version": "2.0"});
    }
    hook["id"] = id.parse::<u64>().unwrap_or_default().into();
    hook["subscription_url"] = subscription.webhook.url.clone().into();
    hook["is_active"] = 1.into();
    hook
}

fn hooks(state: &State) -> Reply {
    let hooks = state.outbox.subscriptions.iter().map(|(id, known)| hook(id, known));
    let body = json!({"status": "ok", "success": true, "data": hooks.collect::<Vec<Value>>()});
    Reply::ok(&body)
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let text = |name: &str| body[name].as_str().and_then(some).map(str::to_owned);
    let url = text("subscription_url").ok_or_else(|| bad("subscription_url is missing"))?;
    let kinds = match text("event_action").as_deref() {
        Some("*") => Vec::new(),
        Some("create") => vec![EventKind::Created],
        Some("change") => vec![EventKind::Updated],
        Some("delete") => vec![EventKind::Deleted, EventKind::Archived, EventKind::Merged],
        _ => return Err(bad("event_action must be create, change, delete or *")),
    };
    if !matches!(text("event_object").as_deref(), Some("person" | "*")) {
        return Err(bad("this fake tells of event_object person only"));
    }
    if text("version").as_deref() != Some("2.0") {
        return Err(bad("this fake sends version 2.0 only"));
    }
    let secret = match (text("http_auth_user"), text("http_auth_password")) {
        (Some(user), Some(password)) => format!("{user}:{password}"),
        _ => String::new(),
    };
    let webhook = Webhook::new(url, secret);
    webhook.check().map_err(bad)?;
    if let Some(body) = body.as_object_mut() {
        body.remove("http_auth_password");
    }
    let subscription = Subscription {
        kinds,
        made_of: body,
        ..Subscription::new(webhook)
    };
    let id = state.add_hook(|number| number.to_string(), subscription);
    let made = hook(&id, &state.outbox.subscriptions[&id]);
    Ok(Reply::created(&json!({"status": "ok", "success": true, "data": made})))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let (_, path) = request.target();
    let id = path.last().copied().unwrap_or_default();
    if state.outbox.unsubscribe(id) {
        Ok(Reply::ok(&json!({"status": "ok", "success": true})))
    } else {
        Err(ApiError::new(404, "ERR_NOT_FOUND", "webhook not found"))
    }
}
