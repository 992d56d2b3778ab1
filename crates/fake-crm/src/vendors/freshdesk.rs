//! Freshdesk, `api/v2`.
//!
//! From Freshdesk's API documentation (contacts, agents, companies, tickets, pagination, rate limit), 2026. Lists are bare
//! arrays, the next page is in the `Link` header, nothing sorts contacts by their last change, and an answer tells what the
//! call cost. Webhooks are an action of an automation rule: what they say is what somebody typed, and so is the header with
//! the secret (`header` of the subscription).
//! **Recalled**: `state=deleted` lists the deleted; the newest contact comes first; a list of tickets costs two calls; a
//! deleted contact is still found by its id.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, iso, page, parse_iso, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Fields, Ticket, User};
use crate::limits::{Charge, LimitSpec, Turn};
use crate::select::{Archived, Order, Selection};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewTicket};

pub(crate) struct Freshdesk;

const CONTACTS_FROM: u64 = 43_000_000_000;
const AGENTS_FROM: usize = 42_000;
const COMPANIES_FROM: u64 = 51_000_000_000;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "minute",
    200,
    Duration::from_secs(60),
    Turn::Fixed,
    |op| match op {
        Op::Token => 0,
        Op::Tickets => 2,
        _ => 1,
    },
)];

impl Vendor for Freshdesk {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["api", "v2", path @ ..] = path.as_slice() else {
            return None;
        };
        let op = match (method, path) {
            ("GET", ["agents", "me"]) => Op::Check,
            ("GET", ["agents"]) => Op::Users,
            ("GET", ["contacts"]) if request.query("state") == Some("deleted") => Op::Deleted,
            ("GET", ["contacts"]) if request.query("_updated_since").is_some() => Op::Changes,
            ("GET", ["contacts"]) => Op::List,
            ("GET", ["contacts", _]) => Op::Batch,
            ("GET", ["companies"] | ["companies", _]) => Op::Companies,
            ("GET", ["tickets"]) => Op::Tickets,
            ("POST", ["contacts"]) => Op::CreateContact,
            ("PUT", ["contacts", _]) => Op::UpdateContact,
            ("POST", ["tickets"]) => Op::CreateTicket,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        let user = request.basic().map(|(user, _)| user);
        state.accepts(user.as_deref())
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.authorization("Basic")
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => {
                let ordinal = state.viewer.unwrap_or(1);
                let user = state.user(ordinal).ok_or_else(no_contact)?;
                Ok(Reply::ok(&agent(ordinal, &user)))
            }
            Op::Users => agents(state, request),
            Op::Deleted => deleted(state, request),
            Op::Changes | Op::List => contacts(state, request),
            Op::Batch => one(state, request),
            Op::Companies => companies(state, request),
            Op::Tickets => tickets(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_ticket(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        match refused {
            Refused::Unauthorized { .. } => Reply::json(
                StatusCode::UNAUTHORIZED,
                &json!({"code": "invalid_credentials", "message": "You have to be logged in to perform this action."}),
            ),
            Refused::NoOperation => Reply::empty(StatusCode::NOT_FOUND),
            Refused::Throttled { seconds, .. } => Reply::json(
                StatusCode::TOO_MANY_REQUESTS,
                &json!({"message": "You have exceeded the limit of requests per minute"}),
            )
            .header("retry-after", seconds),
            Refused::Broken(status) => Reply::empty(*status),
            Refused::Failed(wrong) if wrong.status == StatusCode::NOT_FOUND => Reply::empty(StatusCode::NOT_FOUND),
            Refused::Failed(wrong) => {
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let code = match wrong.code {
                    "bad_request" | "invalid" => "invalid_value",
                    code => code,
                };
                let (field, message) = wrong.message.split_once(": ").unwrap_or(("", &wrong.message));
                let error = json!({"field": field, "message": message, "code": code});
                Reply::json(status, &json!({"description": "Validation failed", "errors": [error]}))
            }
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| {
            reply
                .header("x-ratelimit-total", charge.limit.max)
                .header("x-ratelimit-remaining", charge.remaining)
                .header("x-ratelimit-used-currentrequest", charge.cost)
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -si -u '{token}:X' '{base}/api/v2/contacts?per_page=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
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
        let told = json!({"freshdesk_webhook": {
            "contact_id": CONTACTS_FROM + event.contact,
            "triggered_event": format!("{:?}", event.kind).to_lowercase(),
        }});
        Outgoing::json(hook, told.to_string()).secret(hook)
    }
}

fn agent(at: usize, user: &User) -> Value {
    json!({
        "id": AGENTS_FROM + at, "available": user.active, "occasional": false, "type": "support_agent",
        "ticket_scope": 1, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
        "contact": {
            "active": user.active, "email": user.email, "name": format!("{} {}", user.first_name, user.last_name),
            "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
        },
    })
}

/// Page from 1, and rows per page.
fn window(request: &Request) -> Result<(usize, usize), ApiError> {
    let number = request.number("page")?.unwrap_or(1);
    let size = request.number("per_page")?.unwrap_or(30);
    if number == 0 || !(1..=100).contains(&size) {
        return Err(bad(
            "per_page: It should be a Positive Integer less than or equal to 100",
        ));
    }
    Ok((number, size))
}

/// A bare array, and the address of the next page in the header.
fn listed(request: &Request, list: Vec<Value>, number: usize, more: bool) -> Reply {
    let reply = Reply::ok(&list.into());
    if !more {
        return reply;
    }
    let rest = request.queries().filter(|(name, _)| *name != "page");
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(rest).append_pair("page", &(number + 1).to_string());
    let next = format!("{}{}?{}", request.origin(), request.uri.path(), query.finish());
    reply.header("link", format!("<{next}>; rel=\"next\""))
}

fn contact(person: &Person, deleted: bool) -> Value {
    let row = &person.row;
    let address = [
        row.address.street.as_str(),
        &row.address.zip,
        &row.address.city,
        &row.address.country,
    ];
    let address: Vec<&str> = address.into_iter().filter(|part| !part.is_empty()).collect();
    let mut shown = json!({
        "id": CONTACTS_FROM + person.id,
        "name": person.name(),
        "active": false,
        "email": person.email(0),
        "other_emails": row.emails.iter().skip(1).filter(|email| !email.is_empty()).collect::<Vec<_>>(),
        "phone": person.phone(0),
        "mobile": person.phone(1),
        "job_title": some(&row.job_title),
        "address": some(&address.join(", ")),
        "twitter_id": row.twitter,
        "description": null,
        "language": "en",
        "time_zone": "London",
        "company_id": some(&row.company).map(|_| COMPANIES_FROM + person.id),
        "avatar": row.photo_url.as_ref().map(|url| json!({"avatar_url": url})),
        "view_all_tickets": false,
        "tags": [],
        "custom_fields": {},
        "created_at": iso(person.created),
        "updated_at": iso(person.modified),
    });
    if deleted {
        shown["deleted"] = true.into();
    }
    shown
}

fn since(request: &Request) -> Result<i64, ApiError> {
    let Some(text) = request.query("_updated_since") else {
        return Ok(i64::MIN);
    };
    parse_iso(text).ok_or_else(|| bad("_updated_since: It should be in the 'combined date and time ISO8601' format"))
}

fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (number, size) = window(request)?;
    let selection = Selection {
        since: since(request)?,
        order: Order::IdDown,
        offset: (number - 1) * size,
        limit: size,
        ..Selection::default()
    };
    let (people, more) = page(state, &selection);
    let list = people.iter().map(|person| contact(person, false)).collect();
    Ok(listed(request, list, number, more))
}

fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (number, size) = window(request)?;
    let since = since(request)?;
    let archived = Selection {
        since,
        archived: Archived::Only,
        ..Selection::default()
    };
    let mut people = page(state, &archived).0;
    let gone = state
        .contacts
        .deleted(since, (i64::MIN, 0))
        .filter(|_| !state.knobs.no_tombstones);
    people.extend(gone.map(|(at, id, _)| Person::gone(state, id, at)));
    people.sort_by_key(|person| std::cmp::Reverse(person.id));
    let more = people.len() > number * size;
    let shown = people.iter().skip((number - 1) * size).take(size);
    let list = shown.map(|person| contact(person, true)).collect();
    Ok(listed(request, list, number, more))
}

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Freshdesk.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let selection = Selection {
        archived: Archived::Shown,
        ..Selection::of_ids([id])
    };
    if let Some(person) = page(state, &selection).0.first() {
        return Ok(Reply::ok(&contact(person, person.row.archived)));
    }
    let gone = state.contacts.deleted_at(id).filter(|_| !state.knobs.no_tombstones);
    let at = gone.ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(&Person::gone(state, id, at), true)))
}

fn agents(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (number, size) = window(request)?;
    let all: Vec<_> = (1..=state.users.len())
        .filter_map(|at| Some((at, state.user(at)?)))
        .collect();
    let shown = all.iter().skip((number - 1) * size).take(size);
    let list = shown.map(|(at, user)| agent(*at, user)).collect();
    Ok(listed(request, list, number, all.len() > number * size))
}

fn companies(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let company = |person: &Person| {
        json!({
            "id": COMPANIES_FROM + person.id, "name": person.row.company, "domains": [],
            "created_at": iso(person.created), "updated_at": iso(person.modified),
        })
    };
    if let Some(id) = some(request.segment(3)) {
        let id = id
            .parse::<u64>()
            .ok()
            .and_then(|id| id.checked_sub(COMPANIES_FROM))
            .ok_or_else(no_contact)?;
        let people = page(state, &Selection::of_ids([id])).0;
        let person = people
            .first()
            .filter(|person| !person.row.company.is_empty())
            .ok_or_else(no_contact)?;
        return Ok(Reply::ok(&company(person)));
    }
    let (number, size) = window(request)?;
    let selection = Selection {
        offset: (number - 1) * size,
        limit: size,
        ..Selection::default()
    };
    let (people, more) = page(state, &selection);
    let list = people
        .iter()
        .filter(|person| !person.row.company.is_empty())
        .map(company)
        .collect();
    Ok(listed(request, list, number, more))
}

const PRIORITIES: [&str; 4] = ["low", "normal", "high", "urgent"];

fn ticket(ticket: &Ticket, contact: u64) -> Value {
    let status = match ticket.status.as_str() {
        "pending" => 3,
        "solved" => 4,
        _ => 2,
    };
    let priority = PRIORITIES
        .iter()
        .position(|known| *known == ticket.priority)
        .unwrap_or(0)
        + 1;
    json!({
        "id": shapes::ticket_number(ticket), "subject": ticket.subject, "status": status, "priority": priority,
        "source": 2, "requester_id": CONTACTS_FROM + contact, "created_at": parse_iso(&ticket.created_at).map(iso),
        "updated_at": parse_iso(&ticket.updated_at).map(iso), "tags": [], "spam": false,
    })
}

fn tickets(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (number, size) = window(request)?;
    let id = request.query("requester_id").and_then(|id| Freshdesk.contact_of(id));
    let id = id.ok_or_else(|| bad("requester_id: There is no contact matching the given requester_id"))?;
    let tickets = shapes::tickets_of(state, id).unwrap_or_default();
    let described = request
        .query("include")
        .is_some_and(|include| include.contains("description"));
    let shown = tickets.iter().skip((number - 1) * size).take(size).map(|one| {
        let mut shown = ticket(one, id);
        if described {
            shown["description_text"] = one.description.clone().into();
        }
        shown
    });
    Ok(listed(request, shown.collect(), number, tickets.len() > number * size))
}

// ---- writing

fn given(body: &Value) -> Fields {
    let text = |name: &str| body[name].as_str().and_then(some).map(str::to_owned);
    let name = body["name"]
        .as_str()
        .map(|name| name.split_once(' ').unwrap_or((name, "")));
    let phones: Vec<String> = ["phone", "mobile"].iter().filter_map(|name| text(name)).collect();
    let others = body["other_emails"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let emails: Vec<String> = text("email").into_iter().chain(others.map(str::to_owned)).collect();
    Fields {
        first_name: name.map(|(first, _)| first.to_owned()),
        last_name: name.map(|(_, last)| last.to_owned()),
        job_title: text("job_title"),
        emails: Some(emails).filter(|emails| !emails.is_empty()),
        phones: Some(phones).filter(|phones| !phones.is_empty()),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::json(status, &contact(&Person::new(state, id, record), false)))
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let new = given(&body);
    if new.first_name.as_deref().is_none_or(str::is_empty) {
        return Err(ApiError::new(400, "missing_field", "name: It should be a/an String"));
    }
    if new.emails.is_none() && new.phones.is_none() && body["twitter_id"].is_null() {
        let message = "email: Please fill at least 1 of email, mobile, phone, twitter_id, unique_external_id fields.";
        return Err(ApiError::new(400, "missing_field", message));
    }
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if email.is_some_and(|email| shapes::somebody_with_email(state, email).is_some()) {
        return Err(ApiError::new(
            409,
            "duplicate_value",
            "email: It should be a unique value",
        ));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED)
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Freshdesk.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let missing = |name: &str| ApiError::new(400, "missing_field", format!("{name}: It should be present"));
    let text = |name: &str| {
        body[name]
            .as_str()
            .and_then(some)
            .map(str::to_owned)
            .ok_or_else(|| missing(name))
    };
    let number = |name: &str| body[name].as_u64().ok_or_else(|| missing(name));
    let contact = number("requester_id")?
        .checked_sub(CONTACTS_FROM)
        .ok_or_else(no_contact)?;
    if !(2..=5).contains(&number("status")?) {
        return Err(bad("status: It should be one of these values: '2,3,4,5'"));
    }
    let priority = PRIORITIES.get((number("priority")? as usize).wrapping_sub(1));
    let priority = priority.ok_or_else(|| bad("priority: It should be one of these values: '1,2,3,4'"))?;
    let agent = body["responder_id"]
        .as_u64()
        .map(|id| format!("u-{}", id.saturating_sub(AGENTS_FROM as u64)));
    let new = NewTicket {
        subject: text("subject")?,
        description: text("description")?,
        priority: Some((*priority).to_owned()),
        due_at: body["due_by"].as_str().map(str::to_owned),
        agent_id: agent,
    };
    let made = writes::ticket(state, contact, new)?;
    Ok(Reply::created(&ticket(&made.ticket, contact)))
}
