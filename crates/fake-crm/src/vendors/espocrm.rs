//! EspoCRM 9, `api/v1`.
//!
//! From EspoCRM's OpenAPI document and its documentation (API, search parameters, webhooks), and from the source for the
//! page limit of 200, for totals that are switched off and for the two signatures, 2026. The product has no rate limit and
//! no list of what was deleted. A webhook is of one event; it takes a batch of up to 50.
//! **Recalled**: `X-Status-Reason` beside an error, whose body is empty; the default order, which is newest first.
//!
//! A token with a colon is an API key and a secret of a user who signs each request.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, base64, page, parse_plain, plain, sha256, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Fields, Ticket};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

pub(crate) struct EspoCrm;

const PAGE_MAX: usize = 200;

impl Vendor for EspoCrm {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["api", "v1", path @ ..] = path.as_slice() else {
            return None;
        };
        let op = match (method, path) {
            ("GET", ["App", "user"]) => Op::Check,
            ("GET", ["Contact"]) => match filtered(request) {
                Filtered::Ids => Op::Batch,
                Filtered::Times => Op::Changes,
                Filtered::No => Op::List,
            },
            ("GET", ["Contact", _]) => Op::Batch,
            ("GET", ["Contact", _, "cases"]) => Op::Tickets,
            ("GET", ["Contact", _, "calls" | "meetings"]) => Op::Activities,
            ("GET", ["User"]) => Op::Users,
            ("POST", ["Contact"]) => Op::CreateContact,
            ("PUT" | "PATCH", ["Contact", _]) => Op::UpdateContact,
            ("POST", ["Case"]) => Op::CreateTicket,
            ("POST", ["Note"]) => Op::CreateNote,
            ("POST", ["Call"]) => Op::CreateCall,
            ("GET", ["Webhook"]) => Op::Hooks,
            ("POST", ["Webhook"]) => Op::Subscribe,
            ("DELETE", ["Webhook", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        state.viewer = None;
        match (self.credential(request), request.header("x-hmac-authorization")) {
            (Some(key), _) => !key.contains(':') && state.accepts(Some(key)),
            (None, Some(signed)) => state.tokens.iter().any(|token| is_signed(token, signed, request)),
            (None, None) => false,
        }
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.header("x-api-key")
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(app_user(state)),
            Op::Batch if !request.segment(3).is_empty() => one(state, request),
            Op::List | Op::Changes | Op::Batch => contacts(state, request),
            Op::Users => users(state, request),
            Op::Tickets => cases(state, request),
            Op::Activities => activities(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_case(state, request),
            Op::CreateNote => create_note(state, request),
            Op::CreateCall => create_call(state, request),
            Op::Hooks => Ok(hooks(state)),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(ApiError::new(404, "not_found", "no such operation")),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let reason = |status: StatusCode, reason: &str| Reply::empty(status).header("x-status-reason", reason);
        match refused {
            Refused::Unauthorized { .. } => Reply::empty(StatusCode::UNAUTHORIZED),
            Refused::NoOperation => reason(StatusCode::NOT_FOUND, "Route not found"),
            // What stands before an EspoCRM may have a limit; the product has none.
            Refused::Throttled { seconds, .. } => {
                Reply::empty(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds)
            }
            Refused::Broken(status) => Reply::empty(*status),
            Refused::Failed(wrong) if wrong.status == StatusCode::UNPROCESSABLE_ENTITY => {
                reason(StatusCode::BAD_REQUEST, &wrong.message)
            }
            Refused::Failed(wrong) if wrong.status == StatusCode::CONFLICT => {
                Reply::json(StatusCode::CONFLICT, &json!([{"id": wrong.message}])).header("x-status-reason", wrong.code)
            }
            Refused::Failed(wrong) => reason(wrong.status, &wrong.message),
        }
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'X-Api-Key: {token}' '{base}/api/v1/Contact?maxSize=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.no_tombstones = true;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        format!("5a00c{id:012x}")
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        let hex = id.strip_prefix("5a00c").filter(|hex| hex.len() == 12)?;
        u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        format!("5a005{ordinal:012x}")
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let told = hook.events.iter().map(|event| {
            let id = self.contact_id(event.contact);
            let now = hook.state.contacts.newest(event.contact);
            match (event.kind, now) {
                (EventKind::Created, Some(record)) => contact(&Person::new(hook.state, event.contact, record)),
                // What changed, and no more.
                (EventKind::Updated, Some(record)) => {
                    let person = Person::new(hook.state, event.contact, record);
                    json!({"id": id, "title": person.row.job_title, "modifiedAt": plain(person.modified)})
                }
                _ => json!({"id": id}),
            }
        });
        let body = Value::from(told.collect::<Vec<Value>>()).to_string();
        let digest = sha256(&hook.webhook.secret, &[body.as_bytes()]);
        let signature = base64(format!("{}:{}", hook.id, hex::encode(&digest)));
        let legacy = base64([hook.id.as_bytes(), b":", &digest].concat());
        Outgoing::json(hook, body)
            .header("signature", signature)
            .header("x-signature", legacy)
    }

    fn hook_batch(&self) -> usize {
        50
    }

    fn hook_one_kind(&self) -> bool {
        true
    }
}

/// base64(key:HMAC-SHA256(secret, `METHOD /uri`)), the URI being the path below `api/v1/`; hexadecimal, or raw as it was
/// before version 9.
fn is_signed(token: &str, signed: &str, request: &Request) -> bool {
    use ::base64::Engine as _;
    let Some((key, secret)) = token.split_once(':') else {
        return false;
    };
    let Ok(signed) = ::base64::engine::general_purpose::STANDARD.decode(signed) else {
        return false;
    };
    let uri = request.uri.path().trim_start_matches("/api/v1/");
    let digest = sha256(secret, &[request.method.as_str().as_bytes(), b" /", uri.as_bytes()]);
    let prefix = [key.as_bytes(), b":"].concat();
    [hex::encode(&digest).into_bytes(), digest]
        .iter()
        .any(|digest| signed == [prefix.as_slice(), digest].concat())
}

fn app_user(state: &State) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    Reply::ok(&json!({
        "user": {
            "id": EspoCrm.user_id(ordinal),
            "userName": format!("api-{}", state.account),
            "name": user.as_ref().map(|user| format!("{} {}", user.first_name, user.last_name)),
            "emailAddress": user.and_then(|user| user.email),
            "type": "api",
        },
        "acl": {"table": {"Contact": {"read": "all"}}},
        "preferences": {},
        "settings": {"siteUrl": format!("https://{}.espocrm.example", state.account), "timeZone": state.knobs.time_zone},
    }))
}

// ---- reading

#[derive(PartialEq, Eq)]
enum Filtered {
    No,
    Times,
    Ids,
}

fn filtered(request: &Request) -> Filtered {
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

fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = EspoCrm.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let people = page(state, &Selection::of_ids([id])).0;
    let person = people.first().ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(person)))
}

fn contact(person: &Person) -> Value {
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

fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

fn case(ticket: &Ticket, contact: &str) -> Value {
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

fn cases(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (offset, limit) = window(request)?;
    let id = request.segment(3);
    let contact = EspoCrm.contact_of(id).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let page = tickets.iter().skip(offset).take(limit).map(|ticket| case(ticket, id));
    let more = offset + limit < tickets.len();
    Ok(listed(request, page.collect(), tickets.len(), more))
}

fn activities(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

// ---- writing

fn text(body: &Value, name: &str) -> Option<String> {
    body[name].as_str().and_then(some).map(str::to_owned)
}

fn several(body: &Value, data: &str, one: &str, name: &str) -> Option<Vec<String>> {
    let items = body[data]
        .as_array()
        .map(|items| items.iter().filter_map(|item| text(item, name)).collect());
    items.or_else(|| Some(vec![text(body, one)?]))
}

fn given(body: &Value) -> Fields {
    let mut fields = Fields {
        first_name: text(body, "firstName"),
        last_name: text(body, "lastName"),
        job_title: text(body, "title"),
        emails: several(body, "emailAddressData", "emailAddress", "emailAddress"),
        phones: several(body, "phoneNumberData", "phoneNumber", "phoneNumber"),
        ..Fields::default()
    };
    let parts = ["addressStreet", "addressCity", "addressPostalCode", "addressCountry"].map(|name| text(body, name));
    if parts.iter().any(Option::is_some) {
        let [street, city, zip, country] = parts.map(Option::unwrap_or_default);
        fields.address = Some(crate::Address {
            street,
            city,
            zip,
            country,
        });
    }
    fields
}

/// 409 with the possible duplicates, unless the caller knows better.
fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if text(&body, "lastName").is_none() {
        return Err(bad(
            "Field validation failure; entityType: Contact, field: lastName, type: required.",
        ));
    }
    let new = given(&body);
    let email = new.emails.as_ref().and_then(|emails| emails.first());
    let careful = request.header("x-skip-duplicate-check") != Some("true");
    if careful && let Some(known) = email.and_then(|email| shapes::somebody_with_email(state, email)) {
        return Err(ApiError::new(409, "duplicate", EspoCrm.contact_id(known)));
    }
    let mut fields = Fields::empty();
    fields.lay_over(&new);
    let id = writes::contact(state, &fields);
    shown(state, id)
}

fn shown(state: &State, id: u64) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(Reply::ok(&contact(&Person::new(state, id, record))))
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = EspoCrm.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    shown(state, id)
}

/// The contact that a record is for: `contactId`, the first of `contactsIds`, or the parent.
fn whom(body: &Value) -> Result<u64, ApiError> {
    let parent = body["parentId"].as_str().filter(|_| body["parentType"] == "Contact");
    let id = body["contactId"]
        .as_str()
        .or(body["contactsIds"][0].as_str())
        .or(parent);
    id.and_then(|id| EspoCrm.contact_of(id)).ok_or_else(no_contact)
}

fn agent(body: &Value) -> Result<Option<String>, ApiError> {
    let Some(id) = text(body, "assignedUserId") else {
        return Ok(None);
    };
    let ordinal = id
        .strip_prefix("5a005")
        .and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let ordinal = ordinal.ok_or_else(|| bad("Field validation failure; field: assignedUser, type: exists."))?;
    Ok(Some(format!("u-{ordinal}")))
}

fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body)?;
    let subject = text(&body, "name");
    let subject =
        subject.ok_or_else(|| bad("Field validation failure; entityType: Case, field: name, type: required."))?;
    let new = NewTicket {
        subject,
        description: text(&body, "description").unwrap_or_default(),
        priority: text(&body, "priority").map(|priority| priority.to_lowercase()),
        due_at: None,
        agent_id: agent(&body)?,
    };
    let made = writes::ticket(state, contact, new)?;
    Ok(Reply::ok(&case(&made.ticket, &EspoCrm.contact_id(contact))))
}

fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    if body["type"] != "Post" {
        return Err(ApiError::new(403, "forbidden", "Only Post notes can be created"));
    }
    let note = writes::note(state, whom(&body)?, None, text(&body, "post").unwrap_or_default())?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(Reply::ok(
        &json!({"id": format!("5a00e{id:012x}"), "type": "Post", "post": note.body}),
    ))
}

fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body)?;
    let time = |name: &str| {
        let at = body[name].as_str().and_then(parse_plain);
        at.ok_or_else(|| {
            bad(format!(
                "Field validation failure; entityType: Call, field: {name}, type: valid."
            ))
        })
    };
    let (start, end) = (time("dateStart")?, time("dateEnd")?);
    let new = NewCall {
        direction: text(&body, "direction")
            .unwrap_or_else(|| "Outbound".to_owned())
            .to_lowercase(),
        started_at: start,
        duration_s: ((end - start) / 1000).unsigned_abs(),
        notes: text(&body, "description").or_else(|| text(&body, "name")),
        agent_id: agent(&body)?,
        ..NewCall::default()
    };
    writes::call(state, contact, new)?;
    let id = state.made.calls.len();
    let made = json!({
        "id": format!("5a0cc{id:012x}"), "name": body["name"], "status": body["status"], "direction": body["direction"],
        "dateStart": body["dateStart"], "dateEnd": body["dateEnd"],
    });
    Ok(Reply::ok(&made))
}

// ---- webhooks

fn hooks(state: &State) -> Reply {
    let hooks = state.outbox.subscriptions.iter().map(
        |(id, known)| json!({"id": id, "event": known.made_of["event"], "url": known.webhook.url, "isActive": true}),
    );
    let list: Vec<Value> = hooks.collect();
    Reply::ok(&json!({"total": list.len(), "list": list}))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let (Some(event), Some(url)) = (text(&body, "event"), text(&body, "url")) else {
        return Err(bad("Field validation failure; entityType: Webhook, type: required."));
    };
    let kinds = match event.as_str() {
        "Contact.create" => vec![EventKind::Created],
        "Contact.update" => vec![EventKind::Updated],
        "Contact.delete" => vec![EventKind::Deleted, EventKind::Archived, EventKind::Merged],
        other => {
            return Err(ApiError::new(
                403,
                "forbidden",
                format!("Event {other} is not available"),
            ));
        }
    };
    let made = state.outbox.subscriptions.len();
    let mark = format!("{} {event} {url} {made} {}", state.account, state.meter.stats.counted);
    let secret = hex::encode(&sha256("secret of a webhook", &[mark.as_bytes()])[..16]);
    let webhook = Webhook::new(url.clone(), secret.clone());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds,
        made_of: json!({"event": event}),
        ends_when_gone: true,
        ..Subscription::new(webhook)
    };
    let id = state.add_hook(|number| format!("5a00b{number:012x}"), subscription);
    Ok(Reply::ok(
        &json!({"id": id, "event": event, "url": url, "secretKey": secret, "isActive": true}),
    ))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    if state.outbox.unsubscribe(request.segment(3)) {
        Ok(Reply::ok(&json!(true)))
    } else {
        Err(ApiError::new(404, "not_found", "no such webhook"))
    }
}
