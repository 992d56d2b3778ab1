//! Twenty, REST.
//!
//! From Twenty's API and webhook documents and its source (`parameters.utils.ts`, `call-webhook.job.ts`), 2026: pages of 60
//! at most, conditions as `field[operator]:value`, records that are deleted softly, webhooks that are sent once and dropped
//! when there are too many (`drop_every`). Where document and source differ on a webhook's body, this is the source's.
//! **Recalled**: paths of subscriptions (`rest/metadata/webhooks`); 400 for a page that is too large; notes and tasks that
//! are tied to a person by a target of their own.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, iso_ms, opaque, page, page_behind, parse_iso, read_opaque, sha256, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Fields, Ticket};
use crate::limits::{LimitSpec, Turn, each_call};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewTicket};

pub(crate) struct Twenty;

const PAGE_MAX: usize = 60;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "minute",
    100,
    Duration::from_secs(60),
    Turn::Rolling,
    each_call,
)];

impl Vendor for Twenty {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["rest", path @ ..] = path.as_slice() else {
            return None;
        };
        let path = path.strip_prefix(&["metadata"]).unwrap_or(path);
        let filter = request.query("filter").unwrap_or_default();
        let op = match (method, path) {
            ("GET", ["people"]) if filter.contains("NOT_NULL") => Op::Deleted,
            ("GET", ["people"]) if filter.contains("updatedAt[") => Op::Changes,
            ("GET", ["people"]) if filter.contains("id[in]") => Op::Batch,
            ("GET", ["people"]) => Op::List,
            ("GET", ["people", _]) => Op::Batch,
            ("GET", ["workspaceMembers"]) if request.query("limit") == Some("1") => Op::Check,
            ("GET", ["workspaceMembers"]) => Op::Users,
            ("GET", ["opportunities"]) => Op::Tickets,
            ("GET", ["taskTargets"]) => Op::Activities,
            ("POST", ["people"]) => Op::CreateContact,
            ("PATCH", ["people", _]) => Op::UpdateContact,
            ("POST", ["tasks" | "taskTargets"]) => Op::CreateTicket,
            ("POST", ["notes" | "noteTargets"]) => Op::CreateNote,
            ("GET", ["webhooks"]) => Op::Hooks,
            ("POST", ["webhooks"]) => Op::Subscribe,
            ("DELETE", ["webhooks", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Batch if !request.segment(2).is_empty() => one(state, request),
            Op::List | Op::Changes | Op::Batch | Op::Deleted => people(state, request),
            Op::Check | Op::Users => members(state, request),
            Op::Tickets | Op::Activities => things(state, op, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket | Op::CreateNote => draft(state, request),
            Op::Hooks => Ok(hooks(state)),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, error: &str, message: &str| {
            let body = json!({"statusCode": status.as_u16(), "error": error, "messages": [message]});
            Reply::json(status, &body)
        };
        match refused {
            Refused::Unauthorized { given } => {
                let message = if given.is_some() {
                    "Token invalid."
                } else {
                    "Missing authentication token"
                };
                error(StatusCode::UNAUTHORIZED, "UnauthorizedException", message)
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "NotFoundException", "Cannot find the path"),
            Refused::Throttled { .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequestsException",
                "Limit reached (100 tokens per 60000 ms)",
            ),
            Refused::Broken(status) => error(*status, "InternalServerErrorException", "Internal server error"),
            Refused::Failed(wrong) => {
                let (status, name) = match wrong.status {
                    StatusCode::NOT_FOUND => (StatusCode::NOT_FOUND, "NotFoundException"),
                    _ => (StatusCode::BAD_REQUEST, "BadRequestException"),
                };
                error(status, name, &wrong.message)
            }
        }
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/rest/people?limit=2'")
    }

    fn contact_id(&self, id: u64) -> String {
        uuid("20202020", id)
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        number_in(id, "20202020")
    }

    fn user_id(&self, ordinal: usize) -> String {
        uuid("20209999", ordinal as u64)
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let name = event_name(event.kind);
        let now = hook.state.contacts.newest(event.contact);
        let record = match now {
            Some(record) => person(&Person::new(hook.state, event.contact, record), None, false),
            None => person(
                &Person::gone(hook.state, event.contact, event.at),
                Some(event.at),
                false,
            ),
        };
        let mut body = json!({
            "targetUrl": hook.webhook.url, "eventName": name,
            "objectMetadata": {"id": uuid("0b0ec700", 1), "nameSingular": "person"},
            "workspaceId": uuid("00004059", shapes::number_of(&hook.state.account, 8)),
            "webhookId": uuid("00003002", hook.id.len() as u64), "eventDate": iso_ms(event.at), "record": record,
        });
        if event.kind == EventKind::Updated {
            body["updatedFields"] = json!(["jobTitle"]);
        }
        let (body, timestamp) = (body.to_string(), hook.now_ms.to_string());
        let signature = sha256(&hook.webhook.secret, &[timestamp.as_bytes(), b":", body.as_bytes()]);
        Outgoing::json(hook, body)
            .header("x-twenty-webhook-signature", hex::encode(signature))
            .header("x-twenty-webhook-timestamp", timestamp)
            .header("x-twenty-webhook-nonce", format!("{:032x}", event.number))
    }

    fn hook_attempts(&self) -> u32 {
        1
    }
}

fn uuid(kind: &str, id: u64) -> String {
    format!("{kind}-0000-4000-8000-{id:012x}")
}

fn number_in(id: &str, kind: &str) -> Option<u64> {
    let hex = id
        .strip_prefix(kind)?
        .strip_prefix("-0000-4000-8000-")
        .filter(|hex| hex.len() == 12)?;
    u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
}

fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "person.created",
        EventKind::Updated => "person.updated",
        EventKind::Archived | EventKind::Deleted => "person.deleted",
        EventKind::Merged => "person.destroyed",
    }
}

// ---- reading

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

fn person(person: &Person, deleted_at: Option<i64>, deep: bool) -> Value {
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

fn people(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = Twenty.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    let found = page(state, &Selection::of_ids([id])).0;
    let one = found.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&json!({"data": {"person": person(one, None, true)}})))
}

fn members(state: &State, request: &Request) -> Result<Reply, ApiError> {
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
fn things(state: &State, op: Op, request: &Request) -> Result<Reply, ApiError> {
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

// ---- writing

fn given(body: &Value) -> Fields {
    let text = |value: &Value| value.as_str().and_then(some).map(str::to_owned);
    let phone = text(&body["phones"]["primaryPhoneNumber"]).map(|number| {
        let code = body["phones"]["primaryPhoneCallingCode"].as_str().unwrap_or_default();
        format!("{code}{number}")
    });
    Fields {
        first_name: text(&body["name"]["firstName"]),
        last_name: text(&body["name"]["lastName"]),
        job_title: text(&body["jobTitle"]),
        emails: text(&body["emails"]["primaryEmail"]).map(|email| vec![email]),
        phones: phone.map(|phone| vec![phone]),
        ..Fields::default()
    }
}

fn shown(state: &State, id: u64, status: StatusCode, name: &str) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let mut data = json!({});
    data[name] = person(&Person::new(state, id, record), None, false);
    Ok(Reply::json(status, &json!({"data": data})))
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let new = given(&request.json()?);
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    if email.is_some_and(|email| shapes::somebody_with_email(state, email).is_some()) {
        return Err(bad("A duplicate entry was detected"));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id, StatusCode::CREATED, "createPerson")
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Twenty.contact_of(request.segment(2)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK, "updatePerson")
}

/// A note or a task is nobody's until a target ties it to a person.
fn draft(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let made = |name: &str, id: &str| {
        let mut data = json!({});
        data[name] = json!({"id": id});
        Reply::created(&json!({"data": data}))
    };
    let tied = |name: &str| {
        let id = body[name].as_str().unwrap_or_default().to_owned();
        let contact = body["personId"].as_str().and_then(|id| Twenty.contact_of(id));
        Ok::<_, ApiError>((id, contact.ok_or_else(no_contact)?))
    };
    match request.segment(1) {
        kind @ ("notes" | "tasks") => {
            let id = uuid("20205555", state.drafts.len() as u64 + 1);
            state.drafts.insert(id.clone(), body);
            Ok(made(if kind == "notes" { "createNote" } else { "createTask" }, &id))
        }
        "noteTargets" => {
            let (id, contact) = tied("noteId")?;
            let note = state.drafts.get(&id).ok_or_else(no_contact)?;
            let text = note["bodyV2"]["markdown"]
                .as_str()
                .or(note["title"].as_str())
                .unwrap_or_default()
                .to_owned();
            writes::note(state, contact, None, text)?;
            Ok(made(
                "createNoteTarget",
                &uuid("20206666", state.made.notes.len() as u64),
            ))
        }
        _ => {
            let (id, contact) = tied("taskId")?;
            let task = state.drafts.get(&id).ok_or_else(no_contact)?.clone();
            let agent = task["assigneeId"].as_str().and_then(|id| number_in(id, "20209999"));
            let new = NewTicket {
                subject: task["title"].as_str().unwrap_or_default().to_owned(),
                description: task["bodyV2"]["markdown"].as_str().unwrap_or_default().to_owned(),
                due_at: task["dueAt"].as_str().map(str::to_owned),
                agent_id: agent.map(|ordinal| format!("u-{ordinal}")),
                ..NewTicket::default()
            };
            writes::ticket(state, contact, new)?;
            Ok(made(
                "createTaskTarget",
                &uuid("20206666", state.made.tickets.len() as u64),
            ))
        }
    }
}

// ---- webhooks

fn hook(id: &str, known: &Subscription) -> Value {
    json!({
        "id": id, "targetUrl": known.webhook.url, "operations": known.made_of["operations"],
        "description": known.made_of["description"],
    })
}

fn hooks(state: &State) -> Reply {
    let hooks: Vec<Value> = state
        .outbox
        .subscriptions
        .iter()
        .map(|(id, known)| hook(id, known))
        .collect();
    Reply::ok(&json!({"data": {"webhooks": hooks}}))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let url = body["targetUrl"].as_str().ok_or_else(|| bad("targetUrl is missing"))?;
    let operations: Vec<&str> = body["operations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let every = [
        EventKind::Created,
        EventKind::Updated,
        EventKind::Deleted,
        EventKind::Archived,
        EventKind::Merged,
    ];
    let all = operations.iter().any(|name| matches!(*name, "*.*" | "person.*"));
    let kinds: Vec<EventKind> = every
        .into_iter()
        .filter(|kind| all || operations.contains(&event_name(*kind)))
        .collect();
    if kinds.is_empty() {
        return Err(bad("this fake tells of person.* only"));
    }
    let webhook = Webhook::new(url, body["secret"].as_str().unwrap_or_default());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds,
        made_of: json!({"operations": operations, "description": body["description"]}),
        ..Subscription::new(webhook)
    };
    let id = state.add_hook(|number| uuid("20207777", number), subscription);
    let made = hook(&id, &state.outbox.subscriptions[&id]);
    Ok(Reply::created(&json!({"data": {"createWebhook": made}})))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let (_, path) = request.target();
    let id = path.last().copied().unwrap_or_default().to_owned();
    if state.outbox.unsubscribe(&id) {
        Ok(Reply::ok(&json!({"data": {"deleteWebhook": {"id": id}}})))
    } else {
        Err(no_contact())
    }
}
