//! Intercom, version 2.14.
//!
//! From Intercom's OpenAPI document and its pages on rate limits and webhooks, 2026. A search by time knows whole days of
//! the workspace only; `>=` and `<=` are refused; the newest come first unless told otherwise. Searches lag behind the list
//! (`visibility_lag_ms`).
//! **Recalled**: the shape of a notification; one retry; at most 150 contacts a page (documented for conversations); a
//! company in a contact has no name.

mod writing;

use std::time::Duration;

use http::StatusCode;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::shapes::{self, Person, number_of, opaque, page, page_behind, parse_iso, read_opaque, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Ticket, User};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};

pub(crate) struct Intercom;

/// 10,000 a minute, handed out in slices of ten seconds.
const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "slice",
    1_666,
    Duration::from_secs(10),
    Turn::Fixed,
    each_call,
)];

impl Vendor for Intercom {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let op = match (method, path.as_slice()) {
            ("GET", ["me"]) => Op::Check,
            ("GET", ["contacts"]) => Op::List,
            ("POST", ["contacts", "search"]) => Op::Changes,
            ("GET", ["contacts", _]) => Op::Batch,
            ("GET", ["contacts", _, "companies"] | ["companies", _]) => Op::Companies,
            ("GET", ["admins"]) => Op::Users,
            ("POST", ["conversations" | "tickets", "search"]) => Op::Tickets,
            ("POST", ["contacts"]) => Op::CreateContact,
            ("PUT", ["contacts", _]) => Op::UpdateContact,
            ("POST", ["tickets"]) => Op::CreateTicket,
            ("POST", ["contacts", _, "notes"]) => Op::CreateNote,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(me(state)),
            Op::List => list(state, request),
            Op::Changes => search(state, request),
            Op::Batch => one(state, request),
            Op::Companies => companies(state, request),
            Op::Users => Ok(admins(state)),
            Op::Tickets => tickets(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_ticket(state, request),
            Op::CreateNote => writing::create_note(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, state: &State, _: &Request, refused: &Refused) -> Reply {
        let request_id = format!("req{:012x}", state.meter.stats.counted);
        let error = |status: StatusCode, code: &str, message: &str| {
            let errors = json!([{"code": code, "message": message}]);
            Reply::json(
                status,
                &json!({"type": "error.list", "request_id": request_id, "errors": errors}),
            )
        };
        match refused {
            Refused::Unauthorized { .. } => error(StatusCode::UNAUTHORIZED, "unauthorized", "Access Token Invalid"),
            Refused::NoOperation => error(
                StatusCode::NOT_FOUND,
                "not_found",
                "The requested resource was not found",
            ),
            Refused::Throttled { .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "You have exceeded the rate limit. Please see 'https://developers.intercom.com' for details.",
            ),
            Refused::Broken(status) => error(*status, "server_error", "Internal server error"),
            Refused::Failed(wrong) => {
                let code = match wrong.code {
                    "bad_request" => "parameter_invalid",
                    "invalid" => "unprocessable_entity",
                    code => code,
                };
                error(wrong.status, code, &wrong.message)
            }
        }
    }

    fn stamp(&self, state: &State, reply: Reply, charges: &[Charge]) -> Reply {
        let now = state.crm_now() / 1000;
        charges.iter().fold(reply, |reply, charge| {
            reply
                .header("x-ratelimit-limit", charge.limit.max)
                .header("x-ratelimit-remaining", charge.remaining)
                .header("x-ratelimit-reset", now + charge.reset_seconds() as i64)
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' -H 'Intercom-Version: 2.14' '{base}/contacts?per_page=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.no_tombstones = true;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn tells_at_once(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        format!("6500c0ffee00{id:012x}")
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        let hex = id.strip_prefix("6500c0ffee00").filter(|hex| hex.len() == 12)?;
        u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        (991_267_000 + ordinal).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let topic = match event.kind {
            EventKind::Created => "contact.user.created",
            EventKind::Updated => "contact.user.updated",
            EventKind::Archived => "contact.archived",
            EventKind::Merged => "contact.merged",
            EventKind::Deleted => "contact.deleted",
        };
        let now = hook.state.contacts.newest(event.contact);
        let item = match now {
            Some(record) => contact(hook.state, &Person::new(hook.state, event.contact, record)),
            None => json!({"type": "contact", "id": self.contact_id(event.contact), "deleted": true}),
        };
        notification(hook, topic, &item, event.number)
    }

    fn greets(&self) -> bool {
        true
    }

    fn greeting(&self, hook: &Hook) -> Option<Outgoing> {
        let item = json!({"type": "ping", "message": "something something interzen"});
        Some(notification(hook, "ping", &item, 0))
    }

    fn hook_attempts(&self) -> u32 {
        2
    }
}

fn notification(hook: &Hook, topic: &str, item: &Value, number: u64) -> Outgoing {
    let body = json!({
        "type": "notification_event",
        "app_id": app(hook.state),
        "topic": topic,
        "id": format!("notif_{number:032x}"),
        "data": {"type": "notification_event_data", "item": item},
        "links": {},
        "delivery_status": "pending",
        "delivery_attempts": hook.attempt,
        "delivered_at": 0,
        "first_sent_at": hook.now_ms / 1000,
        "created_at": hook.now_ms / 1000,
        "self": null,
    })
    .to_string();
    let signature = hex::encode(shapes::sha1(&hook.webhook.secret, &[body.as_bytes()]));
    Outgoing::json(hook, body).header("x-hub-signature", format!("sha1={signature}"))
}

fn app(state: &State) -> String {
    format!("app{}", number_of(&state.account, 5))
}

fn admin(at: usize, user: &User) -> Value {
    json!({
        "type": "admin", "id": Intercom.user_id(at), "name": format!("{} {}", user.first_name, user.last_name),
        "email": user.email, "has_inbox_seat": user.active, "away_mode_enabled": false, "team_ids": [],
    })
}

fn me(state: &State) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let mut me = state.user(ordinal).map_or(Value::Null, |user| admin(ordinal, &user));
    me["app"] = json!({
        "type": "app", "id_code": app(state), "name": format!("Workspace of {}", state.account),
        "timezone": state.knobs.time_zone, "region": "US", "created_at": 1_700_000_000, "secure": false,
    });
    Reply::ok(&me)
}

fn admins(state: &State) -> Reply {
    let admins = (1..=state.users.len()).filter_map(|at| Some(admin(at, &state.user(at)?)));
    Reply::ok(&json!({"type": "admin.list", "admins": admins.collect::<Vec<Value>>()}))
}

// ---- reading

fn contact(state: &State, person: &Person) -> Value {
    let row = &person.row;
    let id = Intercom.contact_id(person.id);
    let companies: Vec<Value> = some(&row.company)
        .map(|_| {
            let company = company_id(person.id);
            json!({"type": "company", "id": company, "url": format!("/companies/{company}")})
        })
        .into_iter()
        .collect();
    let profiles: Vec<Value> = row
        .twitter
        .iter()
        .map(|handle| json!({"type": "social_profile", "name": "Twitter", "url": handle}))
        .collect();
    json!({
        "type": "contact",
        "id": id,
        "external_id": person.id.to_string(),
        "workspace_id": app(state),
        "role": "user",
        "email": person.email(0),
        "phone": person.phone(0),
        "name": some(&person.name()),
        "avatar": {"type": "avatar", "image_url": row.photo_url},
        "owner_id": null,
        "social_profiles": {"type": "list", "data": profiles},
        "location": {
            "type": "location", "country": some(&row.address.country), "region": null, "city": some(&row.address.city),
            "country_code": null,
        },
        "companies": {
            "type": "list", "data": companies, "total_count": companies.len(), "has_more": false,
            "url": format!("/contacts/{id}/companies"),
        },
        "custom_attributes": {"job_title": some(&row.job_title), "website": row.website},
        "created_at": person.created / 1000,
        "updated_at": person.modified / 1000,
        "signed_up_at": person.created / 1000,
        "unsubscribed_from_emails": false,
    })
}

fn company_id(contact: u64) -> String {
    format!("6500c0ffee0c{contact:012x}")
}

/// Pages of one list: the size asked for, and where it goes on.
fn paging(size: Option<u64>, after: Option<&str>) -> Result<(usize, Option<(i64, u64)>), ApiError> {
    let size = size.unwrap_or(50);
    if !(1..=150).contains(&size) {
        return Err(bad("per_page must be between 1 and 150"));
    }
    let place = match after {
        None => None,
        Some(token) => {
            let decoded = read_opaque(token);
            let place = decoded.as_deref().and_then(|text| text.split_once('/'));
            let place = place.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
            Some(place.ok_or_else(|| bad("starting_after is invalid"))?)
        }
    };
    Ok((size as usize, place))
}

fn listed(state: &State, selection: &Selection, place: Option<(i64, u64)>) -> Reply {
    let (people, more) = match place {
        None => page(state, selection),
        Some(place) => page_behind(state, selection, place),
    };
    let total = selection.count(state);
    let mut pages = json!({
        "type": "pages", "page": 1, "per_page": selection.limit, "total_pages": total.div_ceil(selection.limit),
    });
    if let Some(last) = people.last().filter(|_| more) {
        let after = opaque(&format!("{}/{}", last.modified, last.id));
        pages["next"] = json!({"page": 2, "starting_after": after});
    }
    let data: Vec<Value> = people.iter().map(|person| contact(state, person)).collect();
    Reply::ok(&json!({"type": "list", "data": data, "total_count": total, "pages": pages}))
}

fn list(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (limit, place) = paging(request.number("per_page")?, request.query("starting_after"))?;
    let selection = Selection {
        order: Order::IdDown,
        limit,
        newest: true,
        ..Selection::default()
    };
    Ok(listed(state, &selection, place))
}

/// First and last millisecond (exclusive) of the day around a time, where the workspace is.
fn day(at_s: i64, zone: &TimeZone) -> (i64, i64) {
    let at = jiff::Timestamp::from_second(at_s)
        .unwrap_or_default()
        .to_zoned(zone.clone());
    let start = at.start_of_day().unwrap_or(at);
    let end = start.tomorrow().unwrap_or_else(|_| start.clone());
    (start.timestamp().as_millisecond(), end.timestamp().as_millisecond())
}

fn narrow(selection: &mut Selection, query: &Value, zone: &TimeZone) -> Result<(), ApiError> {
    let operator = query["operator"].as_str().unwrap_or_default();
    if let Some(parts) = query["value"].as_array().filter(|_| operator == "AND") {
        return parts.iter().try_for_each(|part| narrow(selection, part, zone));
    }
    let value = &query["value"];
    match (query["field"].as_str().unwrap_or_default(), operator) {
        ("updated_at", ">" | "<" | "=") => {
            let seconds = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            let (start, end) = day(seconds.ok_or_else(|| bad("value must be a timestamp"))?, zone);
            match operator {
                ">" => selection.compare_time(">=", end),
                "<" => selection.compare_time("<", start),
                _ => selection.compare_time(">=", start) && selection.compare_time("<", end),
            };
        }
        ("id", "=") => selection.among(value.as_str().and_then(|id| Intercom.contact_of(id))),
        ("id", "IN") => {
            let ids = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            selection.among(ids.filter_map(|id| Intercom.contact_of(id)));
        }
        // The fake's contacts are all users.
        ("role", "=") if value == "user" => {}
        (field, operator) => {
            let message = format!("{operator} is not a valid operator for {field}");
            return Err(ApiError::new(400, "invalid_operator", message));
        }
    }
    Ok(())
}

fn search(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if body["query"].is_null() {
        return Err(bad("query is missing"));
    }
    let pagination = &body["pagination"];
    let (limit, place) = paging(pagination["per_page"].as_u64(), pagination["starting_after"].as_str())?;
    let up = match body["sort"]["order"].as_str() {
        None | Some("descending") => false,
        Some("ascending") => true,
        Some(other) => return Err(bad(format!("sort order {other}"))),
    };
    let order = match (body["sort"]["field"].as_str().unwrap_or("created_at"), up) {
        ("updated_at", true) => Order::Time,
        ("updated_at", false) => Order::TimeDown,
        ("created_at" | "id", true) => Order::Id,
        ("created_at" | "id", false) => Order::IdDown,
        (other, _) => return Err(bad(format!("sort field {other}"))),
    };
    let mut selection = Selection {
        order,
        limit,
        ..Selection::default()
    };
    narrow(&mut selection, &body["query"], &state.knobs.zone())?;
    Ok(listed(state, &selection, place))
}

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Intercom.contact_of(request.segment(1)).ok_or_else(no_contact)?;
    let selection = Selection {
        archived: Archived::Shown,
        newest: true,
        ..Selection::of_ids([id])
    };
    let people = page(state, &selection).0;
    let person = people.first().ok_or_else(no_contact)?;
    let mut shown = contact(state, person);
    if person.row.archived {
        shown["archived"] = true.into();
    }
    Ok(Reply::ok(&shown))
}

fn companies(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let of_contact = request.segment(0) == "contacts";
    let id = if of_contact {
        Intercom.contact_of(request.segment(1))
    } else {
        let hex = request.segment(1).strip_prefix("6500c0ffee0c");
        hex.and_then(|hex| u64::from_str_radix(hex, 16).ok())
    };
    let selection = Selection::of_ids(id);
    let people = page(state, &selection).0;
    let person = people.first().ok_or_else(no_contact)?;
    let company = some(&person.row.company).map(|name| {
        json!({"type": "company", "id": company_id(person.id), "company_id": person.id.to_string(), "name": name})
    });
    match (of_contact, company) {
        (false, None) => Err(no_contact()),
        (false, Some(company)) => Ok(Reply::ok(&company)),
        (true, company) => {
            let data: Vec<Value> = company.into_iter().collect();
            let body = json!({"type": "list", "data": data, "total_count": data.len(), "pages": {"type": "pages"}});
            Ok(Reply::ok(&body))
        }
    }
}

/// The contact that a search for its things names.
fn of_contact(query: &Value) -> Option<u64> {
    if let Some(parts) = query["value"].as_array() {
        return parts.iter().find_map(of_contact);
    }
    let id = query["value"].as_str().filter(|_| query["field"] == "contact_ids")?;
    Intercom.contact_of(id)
}

fn seconds(stamp: &str) -> Option<i64> {
    parse_iso(stamp).map(|at| at / 1000)
}

fn conversation(ticket: &Ticket) -> Value {
    let state = match ticket.status.as_str() {
        "solved" => "closed",
        "pending" => "snoozed",
        _ => "open",
    };
    json!({
        "type": "conversation", "id": shapes::ticket_number(ticket).to_string(), "title": ticket.subject,
        "created_at": seconds(&ticket.created_at), "updated_at": seconds(&ticket.updated_at), "state": state,
        "open": state == "open", "priority": if ticket.priority == "high" { "priority" } else { "not_priority" },
        "source": {"type": "conversation", "subject": ticket.subject, "body": ticket.description},
    })
}

fn as_ticket(ticket: &Ticket) -> Value {
    let category = match ticket.status.as_str() {
        "solved" => "resolved",
        "pending" => "waiting_on_customer",
        "open" => "in_progress",
        _ => "submitted",
    };
    json!({
        "type": "ticket", "id": shapes::ticket_number(ticket).to_string(),
        "ticket_id": shapes::ticket_number(ticket).to_string(),
        "ticket_attributes": {"_default_title_": ticket.subject, "_default_description_": ticket.description},
        "ticket_state": {"type": "ticket_state", "category": category},
        "open": category != "resolved", "created_at": seconds(&ticket.created_at),
        "updated_at": seconds(&ticket.updated_at),
    })
}

fn tickets(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = of_contact(&body["query"]).ok_or_else(|| bad("this fake searches by contact_ids"))?;
    let tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    let conversations = request.segment(0) == "conversations";
    let show = if conversations { conversation } else { as_ticket };
    let shown: Vec<Value> = tickets.iter().map(show).collect();
    let name = if conversations { "conversations" } else { "tickets" };
    let mut body = json!({
        "type": format!("{}.list", name.trim_end_matches('s')), "total_count": shown.len(),
        "pages": {"type": "pages", "page": 1, "per_page": 20, "total_pages": 1},
    });
    body[name] = shown.into();
    Ok(Reply::ok(&body))
}
