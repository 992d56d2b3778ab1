//! Zendesk Support, `api/v2`: contacts are users with the role `end-user`.
//!
//! From Zendesk's API reference (incremental exports, users, tickets, webhooks and their verification, rate limits, Talk
//! Partner Edition), 2026. The incremental export leaves the newest minute out (knob `hold_back_ms`), shows agents among
//! the others, and the deleted with `active: false`; its last cursor goes on to be good.
//! **Recalled**: `users/me` answers a caller without credentials as an anonymous user; 422 for a start within the last
//! minute; deleted users are still found by id; an edit of the notes is told as `user.notes_changed`.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, base64, iso, number_of, opaque, page, parse_iso, read_opaque, sha256, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, invalid, no_contact};
use crate::clock;
use crate::data::{Fields, Ticket, User};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::select::{Archived, Selection};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

pub(crate) struct Zendesk;

const CONTACTS_FROM: u64 = 900_000_000;
const AGENTS_FROM: usize = 100;
const ORGANIZATIONS_FROM: u64 = 360_000_000;

const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("account", 200, Duration::from_secs(60), Turn::Fixed, each_call),
    LimitSpec::new("export", 10, Duration::from_secs(60), Turn::Fixed, |op| {
        u64::from(op == Op::Changes)
    }),
];

impl Vendor for Zendesk {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["api", "v2", path @ ..] = path.as_slice() else {
            return None;
        };
        let path: Vec<&str> = path.iter().map(|part| part.trim_end_matches(".json")).collect();
        let op = match (method, path.as_slice()) {
            ("GET", ["users", "me"]) => Op::Check,
            ("GET", ["incremental", "users", "cursor"]) => Op::Changes,
            ("GET", ["users", "show_many"]) => Op::Batch,
            ("GET", ["users"]) if roles(request).contains(&"end-user") => Op::List,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["deleted_users"]) => Op::Deleted,
            ("GET", ["users", _, "tickets", "requested"]) => Op::Tickets,
            ("GET", ["organizations", "show_many"]) => Op::Companies,
            ("POST", ["users"]) => Op::CreateContact,
            ("PUT", ["users", _]) => Op::UpdateContact,
            ("POST", ["tickets"]) => Op::CreateTicket,
            ("POST", ["channels", "voice", "tickets"]) => Op::CreateCall,
            ("GET", ["webhooks"] | ["webhooks", _, "signing_secret"]) => Op::Hooks,
            ("POST", ["webhooks"]) => Op::Subscribe,
            ("DELETE", ["webhooks", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        if let Some((user, password)) = request.basic() {
            return user.ends_with("/token") && state.accepts(Some(&password));
        }
        state.accepts(request.bearer())
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.bearer().or_else(|| request.authorization("Basic"))
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(me(state)),
            Op::Changes => export(state, request),
            Op::Batch => show_many(state, request),
            Op::List => list(state, request),
            Op::Users => agents(state, request),
            Op::Deleted => deleted(state, request),
            Op::Tickets => requested(state, request),
            Op::Companies => organizations(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_ticket(state, request),
            Op::CreateCall => create_call(state, request),
            Op::Hooks => hooks(state, request),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(ApiError::new(404, "InvalidEndpoint", "Not found")),
        }
    }

    fn refuse(&self, _: &State, request: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, description: &str| {
            Reply::json(status, &json!({"error": code, "description": description}))
        };
        match refused {
            Refused::Unauthorized { given: None } if self.route(request) == Some(Op::Check) => {
                let nobody =
                    json!({"id": null, "name": "Anonymous user", "email": "invalid@example.com", "role": "end-user"});
                Reply::ok(&json!({"user": nobody}))
            }
            Refused::Unauthorized { .. } => {
                Reply::json(StatusCode::UNAUTHORIZED, &json!({"error": "Couldn't authenticate you"}))
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "InvalidEndpoint", "Not found"),
            Refused::Throttled { seconds, .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "APIRateLimitExceeded",
                "Number of allowed API requests per minute exceeded",
            )
            .header("retry-after", seconds),
            Refused::Broken(status) => error(*status, "InternalError", "Something went wrong"),
            Refused::Failed(wrong) if wrong.status == StatusCode::UNPROCESSABLE_ENTITY => {
                let code = if wrong.code == "invalid" {
                    "RecordInvalid"
                } else {
                    wrong.code
                };
                error(wrong.status, code, &wrong.message)
            }
            Refused::Failed(wrong) if wrong.status == StatusCode::NOT_FOUND => {
                error(wrong.status, "RecordNotFound", "Not found")
            }
            Refused::Failed(wrong) => error(wrong.status, "InvalidValue", &wrong.message),
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| match charge.name {
            "account" => reply
                .header("x-rate-limit", charge.limit.max)
                .header("x-rate-limit-remaining", charge.remaining)
                .header("ratelimit-limit", charge.limit.max)
                .header("ratelimit-remaining", charge.remaining)
                .header("ratelimit-reset", charge.reset_seconds()),
            _ => {
                let (max, left, reset) = (charge.limit.max, charge.remaining, charge.reset_seconds());
                let told = format!("total={max}; remaining={left}; resets={reset}");
                reply.header("zendesk-ratelimit-incremental-exports", told)
            }
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -u 'admin@example.com/token:{token}' '{base}/api/v2/incremental/users/cursor?start_time=0'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.hold_back_ms = 60_000;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        (CONTACTS_FROM + id).to_string()
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        id.parse::<u64>().ok()?.checked_sub(CONTACTS_FROM).filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        (AGENTS_FROM + ordinal).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let id = self.contact_id(event.contact);
        let account = number_of(&hook.state.account, 8);
        let now = hook.state.contacts.newest(event.contact);
        let person = now.map(|record| Person::new(hook.state, event.contact, record));
        let uuid = format!("5b3b6bd2-0000-4000-8000-{:012x}", event.number);
        let mut told = json!({
            "type": format!("zen:event-type:user.{}", kind(event.kind)),
            "account_id": account,
            "id": uuid,
            "time": iso(event.at),
            "zen_event_version": "2022-06-20",
            "subject": format!("zen:user:{id}"),
            "detail": {
                "id": id, "role": "end-user", "email": person.as_ref().and_then(|person| person.email(0)),
                "created_at": person.as_ref().map(|person| iso(person.created)),
                "updated_at": person.as_ref().map(|person| iso(person.modified)),
            },
            "event": {},
        });
        if let Some(into) = event.into {
            told["event"] = json!({"user": {"id": self.contact_id(into)}});
        }
        let body = told.to_string();
        let timestamp = iso(hook.now_ms);
        let signature = sha256(&hook.webhook.secret, &[timestamp.as_bytes(), body.as_bytes()]);
        Outgoing::json(hook, body)
            .header("x-zendesk-account-id", account)
            .header("x-zendesk-webhook-id", hook.id)
            .header("x-zendesk-webhook-invocation-id", uuid)
            .header("x-zendesk-webhook-signature", base64(signature))
            .header("x-zendesk-webhook-signature-timestamp", timestamp)
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "created",
        EventKind::Updated => "notes_changed",
        EventKind::Merged => "merged",
        EventKind::Deleted | EventKind::Archived => "deleted",
    }
}

fn roles<'a>(request: &'a Request) -> Vec<&'a str> {
    let roles = request.queries().filter(|(name, _)| matches!(*name, "role" | "role[]"));
    roles.map(|(_, role)| role).collect()
}

// ---- reading

fn end_user(person: &Person, active: bool) -> Value {
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

fn me(state: &State) -> Reply {
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
fn export(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn show_many(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn list(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn agents(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (limit, after) = cursor(request)?;
    let users = (after as usize + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut users: Vec<_> = users.take(limit + 1).collect();
    let more = users.len() > limit;
    users.truncate(limit);
    let next = users.last().filter(|_| more).map(|(at, _)| *at as u64);
    let shown = users.iter().map(|(at, user)| agent(*at, user)).collect();
    Ok(paged(request, "users", shown, next))
}

fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn ticket(ticket: &Ticket, requester: u64) -> Value {
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

fn requested(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = Zendesk.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let shown: Vec<Value> = tickets.iter().map(|one| ticket(one, contact)).collect();
    let count = shown.len();
    Ok(Reply::ok(
        &json!({"tickets": shown, "count": count, "next_page": null, "previous_page": null}),
    ))
}

fn organizations(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

// ---- writing

fn given(user: &Value) -> Fields {
    let name = user["name"]
        .as_str()
        .map(|name| name.split_once(' ').unwrap_or((name, "")));
    let list = |name: &str| user[name].as_str().map(|text| vec![text.to_owned()]);
    Fields {
        first_name: name.map(|(first, _)| first.to_owned()),
        last_name: name.map(|(_, last)| last.to_owned()),
        emails: list("email"),
        phones: list("phone"),
        job_title: user["notes"].as_str().map(str::to_owned),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::json(
        status,
        &json!({"user": end_user(&Person::new(state, id, record), true)}),
    ))
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let new = given(&body["user"]);
    if new.first_name.as_deref().is_none_or(|name| name.trim().is_empty()) {
        return Err(invalid("Name: cannot be blank"));
    }
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if let Some(email) = email.filter(|email| shapes::somebody_with_email(state, email).is_some()) {
        return Err(invalid(format!("Email: {email} is already being used by another user")));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED)
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Zendesk
        .contact_of(request.segment(3).trim_end_matches(".json"))
        .ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?["user"])) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

fn requester(ticket: &Value) -> Result<u64, ApiError> {
    let id = ticket["requester_id"]
        .as_u64()
        .and_then(|id| id.checked_sub(CONTACTS_FROM));
    id.ok_or_else(|| invalid("Requester: is not valid"))
}

fn assignee(ticket: &Value) -> Option<String> {
    let ordinal = ticket["assignee_id"].as_u64()?.saturating_sub(AGENTS_FROM as u64);
    Some(format!("u-{ordinal}"))
}

fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["ticket"];
    let text = asked["comment"]["body"].as_str().and_then(some);
    let text = text.ok_or_else(|| invalid("Description: cannot be blank"))?;
    let new = NewTicket {
        subject: asked["subject"].as_str().unwrap_or(text).to_owned(),
        description: text.to_owned(),
        priority: asked["priority"].as_str().map(str::to_owned),
        due_at: asked["due_at"].as_str().map(str::to_owned),
        agent_id: assignee(asked),
    };
    let contact = requester(asked)?;
    let made = writes::ticket(state, contact, new)?;
    Ok(Reply::created(&json!({"ticket": ticket(&made.ticket, contact)})))
}

/// A call is a ticket with a voice comment: `via_id` 45 came in, 46 went out.
fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["ticket"];
    let voice = &asked["voice_comment"];
    let direction = match asked["via_id"].as_u64() {
        Some(45) => "inbound",
        Some(46) => "outbound",
        _ => return Err(invalid("via_id must be 45 or 46")),
    };
    let other = if direction == "inbound" { "from" } else { "to" };
    let started = voice["started_at"].as_str().and_then(parse_iso);
    let new = NewCall {
        direction: direction.to_owned(),
        started_at: started.ok_or_else(|| invalid("started_at is not valid"))?,
        duration_s: voice["call_duration"]
            .as_u64()
            .ok_or_else(|| invalid("call_duration is not valid"))?,
        phone: voice[other].as_str().map(str::to_owned),
        recording_url: voice["recording_url"].as_str().map(str::to_owned),
        notes: asked["description"]
            .as_str()
            .or(asked["comment"]["body"].as_str())
            .map(str::to_owned),
        agent_id: assignee(asked),
    };
    writes::call(state, requester(asked)?, new)?;
    let id = 8_000_000 + state.made.calls.len();
    Ok(Reply::created(
        &json!({"ticket": {"id": id, "subject": asked["subject"], "status": "open"}}),
    ))
}

// ---- webhooks

fn hook(id: &str, known: &Subscription) -> Value {
    json!({
        "id": id, "name": known.made_of["name"], "endpoint": known.webhook.url, "http_method": "POST",
        "request_format": "json", "status": "active", "subscriptions": known.made_of["subscriptions"],
    })
}

fn hooks(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let subscriptions = &state.outbox.subscriptions;
    if request.segment(3).is_empty() {
        let hooks: Vec<Value> = subscriptions.iter().map(|(id, known)| hook(id, known)).collect();
        return Ok(Reply::ok(&json!({"webhooks": hooks, "meta": {"has_more": false}})));
    }
    let known = subscriptions.get(request.segment(3)).ok_or_else(no_contact)?;
    let secret = json!({"algorithm": "SHA256", "secret": known.webhook.secret});
    Ok(Reply::ok(&json!({"signing_secret": secret})))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["webhook"];
    let endpoint = asked["endpoint"].as_str().ok_or_else(|| bad("endpoint is missing"))?;
    let every = [
        EventKind::Created,
        EventKind::Updated,
        EventKind::Deleted,
        EventKind::Merged,
        EventKind::Archived,
    ];
    let wanted = asked["subscriptions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let wanted: Vec<&str> = wanted
        .filter_map(|name| name.strip_prefix("zen:event-type:user."))
        .collect();
    if wanted.is_empty() {
        return Err(bad("this fake tells of zen:event-type:user.* only"));
    }
    let kinds = every.into_iter().filter(|event| wanted.contains(&kind(*event)));
    let mark = format!("{} {endpoint} {}", state.account, clock::now_ms());
    let secret = base64(sha256("secret of a webhook", &[mark.as_bytes()]));
    let webhook = Webhook::new(endpoint, secret.clone());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds: kinds.collect(),
        made_of: asked.clone(),
        ..Subscription::new(webhook)
    };
    if subscription.kinds.is_empty() {
        return Err(bad("this fake makes none of these events"));
    }
    let id = state.add_hook(|number| format!("01ABCDEFGHJKMNPQRSTVWX{number:04}"), subscription);
    let mut made = hook(&id, &state.outbox.subscriptions[&id]);
    made["signing_secret"] = json!({"algorithm": "SHA256", "secret": secret});
    Ok(Reply::created(&json!({"webhook": made})))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    if state.outbox.unsubscribe(request.segment(3)) {
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    } else {
        Err(no_contact())
    }
}
