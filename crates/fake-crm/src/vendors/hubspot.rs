//! HubSpot CRM, v3 objects (and v4 associations).
//!
//! From HubSpot's public API specifications (contacts, tickets, owners, account info) and its pages on search, usage limits,
//! webhooks and request validation, 2026. Search lags behind the objects, which the list and `batch/read` show at once, as
//! do webhooks.
//! **Recalled**: policy name `SECONDLY` of the search limit; 207 for a batch in which ids are missing; association type ids;
//! stages 1 to 4 of the default ticket pipeline; a contact that was merged away is in no list.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, base64, iso_ms, number_of, page, parse_iso, sha256, some};
use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Fields, Ticket, User};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::{Event, EventKind};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

pub(crate) struct HubSpot;

const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("ten_secondly", 100, Duration::from_secs(10), Turn::Rolling, |op| {
        u64::from(!matches!(op, Op::Changes | Op::Token))
    }),
    LimitSpec::new("search", 5, Duration::from_secs(1), Turn::Rolling, |op| {
        u64::from(op == Op::Changes)
    }),
    LimitSpec::new("daily", 250_000, Duration::from_secs(86_400), Turn::Daily, each_call),
];

const DEFAULT_PROPERTIES: [&str; 6] = [
    "createdate",
    "email",
    "firstname",
    "hs_object_id",
    "lastmodifieddate",
    "lastname",
];

impl Vendor for HubSpot {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let archived = request.query("archived") == Some("true");
        let op = match (method, path.as_slice()) {
            ("GET", ["account-info", "v3", "details"]) => Op::Check,
            ("GET", ["crm", "v3", "objects", "contacts"]) if archived => Op::Deleted,
            ("GET", ["crm", "v3", "objects", "contacts"]) => Op::List,
            ("POST", ["crm", "v3", "objects", "contacts"]) => Op::CreateContact,
            ("POST", ["crm", "v3", "objects", "contacts", "search"]) => Op::Changes,
            ("POST", ["crm", "v3", "objects", "contacts", "batch", "read"]) => Op::Batch,
            ("PATCH", ["crm", "v3", "objects", "contacts", _]) => Op::UpdateContact,
            ("GET", ["crm", "v3", "owners"]) => Op::Users,
            ("GET", ["crm", "v4", "objects", "contacts", _, "associations", "tickets"]) => Op::Tickets,
            ("POST", ["crm", "v3", "objects", "tickets", "batch", "read"]) => Op::TicketBatch,
            ("POST", ["crm", "v3", "objects", "tickets"]) => Op::CreateTicket,
            ("POST", ["crm", "v3", "objects", "notes"]) => Op::CreateNote,
            ("POST", ["crm", "v3", "objects", "calls"]) => Op::CreateCall,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(details(state)),
            Op::List => list(state, request),
            Op::Deleted => archived(state, request),
            Op::Changes => search(state, request),
            Op::Batch => batch(state, request),
            Op::Users => owners(state, request),
            Op::Tickets => associations(state, request),
            Op::TicketBatch => tickets(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_ticket(state, request),
            Op::CreateNote => create_note(state, request),
            Op::CreateCall => create_call(state, request),
            _ => Err(ApiError::new(404, "OBJECT_NOT_FOUND", "no such operation")),
        }
    }

    fn refuse(&self, state: &State, _: &Request, refused: &Refused) -> Reply {
        let correlation = correlation(state);
        let error = |status: StatusCode, category: &str, message: &str| {
            let body = json!({
                "status": "error", "message": message, "correlationId": correlation, "category": category,
            });
            Reply::json(status, &body)
        };
        match refused {
            Refused::Unauthorized { given } => {
                let message = match given {
                    Some(_) => "The OAuth token used to make this call is not valid.",
                    None => "Authentication credentials not found.",
                };
                error(StatusCode::UNAUTHORIZED, "INVALID_AUTHENTICATION", message)
            }
            Refused::NoOperation => Reply::bytes(
                StatusCode::NOT_FOUND,
                "text/html; charset=utf-8",
                b"<html><body><h1>404 Not Found</h1></body></html>".to_vec(),
            ),
            Refused::Throttled { why, charge, .. } => {
                let policy = match (why, charge.map(|charge| charge.name)) {
                    (Throttle::Window, Some("daily")) => "DAILY",
                    (_, Some("search")) => "SECONDLY",
                    _ => "TEN_SECONDLY_ROLLING",
                };
                let body = json!({
                    "status": "error", "message": format!("You have reached your {} limit.", policy.to_lowercase()),
                    "errorType": "RATE_LIMIT", "correlationId": correlation, "policyName": policy,
                });
                Reply::json(StatusCode::TOO_MANY_REQUESTS, &body)
            }
            Refused::Broken(status) => error(*status, "SERVER_ERROR", "internal error"),
            Refused::Failed(wrong) => {
                // The CRM knows no 422: what it does not like is a 400.
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let category = match status {
                    StatusCode::NOT_FOUND => "OBJECT_NOT_FOUND",
                    StatusCode::CONFLICT => "CONFLICT",
                    _ => "VALIDATION_ERROR",
                };
                error(status, category, &wrong.message)
            }
        }
    }

    /// Answers to searches tell nothing of limits, and no answer to an OAuth call tells of the day.
    fn stamp(&self, state: &State, reply: Reply, charges: &[Charge]) -> Reply {
        let of = |name| charges.iter().find(|charge| charge.name == name);
        let Some(ten) = of("ten_secondly") else { return reply };
        let reply = reply
            .header("x-hubspot-ratelimit-max", ten.limit.max)
            .header("x-hubspot-ratelimit-remaining", ten.remaining)
            .header(
                "x-hubspot-ratelimit-interval-milliseconds",
                ten.limit.window.as_millis(),
            );
        match of("daily").filter(|_| state.viewer.is_none()) {
            None => reply,
            Some(daily) => reply
                .header("x-hubspot-ratelimit-daily", daily.limit.max)
                .header("x-hubspot-ratelimit-daily-remaining", daily.remaining),
        }
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/crm/v3/objects/contacts?limit=2'")
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn tells_at_once(&self) -> bool {
        true
    }

    fn user_id(&self, ordinal: usize) -> String {
        (10_000 + ordinal).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let events: Vec<Value> = hook.events.iter().map(|event| told(hook, event)).collect();
        let body = Value::from(events).to_string();
        let timestamp = hook.now_ms.to_string();
        let signed = sha256(
            &hook.webhook.secret,
            &[
                b"POST",
                hook.webhook.url.as_bytes(),
                body.as_bytes(),
                timestamp.as_bytes(),
            ],
        );
        Outgoing::json(hook, body)
            .header("x-hubspot-signature-version", "v3")
            .header("x-hubspot-signature-v3", base64(signed))
            .header("x-hubspot-request-timestamp", timestamp)
    }

    fn hook_batch(&self) -> usize {
        100
    }
}

fn correlation(state: &State) -> String {
    let number = state.meter.stats.counted;
    format!("aeb5f871-7f07-4993-9211-{number:012x}")
}

fn portal(state: &State) -> u64 {
    number_of(&state.account, 8)
}

fn details(state: &State) -> Reply {
    let offset = state.knobs.zone().to_offset(jiff::Timestamp::now()).seconds();
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    Reply::ok(&json!({
        "portalId": portal(state),
        "accountType": "STANDARD",
        "timeZone": state.knobs.time_zone,
        "companyCurrency": "EUR",
        "additionalCurrencies": [],
        "utcOffset": format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
        "utcOffsetMilliseconds": offset * 1000,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }))
}

// ---- reading

fn properties(person: &Person) -> Map<String, Value> {
    let row = &person.row;
    let additional: Vec<&str> = row.emails.iter().skip(1).map(String::as_str).collect();
    let address = &row.address;
    let mut map = Map::new();
    for (name, value) in [
        ("firstname", some(&row.first_name)),
        ("lastname", some(&row.last_name)),
        ("email", person.email(0)),
        ("hs_additional_emails", some(&additional.join(";"))),
        ("phone", person.phone(0)),
        ("mobilephone", person.phone(1)),
        ("company", some(&row.company)),
        ("jobtitle", some(&row.job_title)),
        ("address", some(&address.street)),
        ("city", some(&address.city)),
        ("state", None),
        ("zip", some(&address.zip)),
        ("country", some(&address.country)),
        ("website", row.website.as_deref().and_then(some)),
        ("twitterhandle", row.twitter.as_deref()),
        ("hs_merged_object_ids", some(&row.merged_ids.join(";"))),
        ("createdate", Some(iso_ms(person.created).as_str())),
        ("lastmodifieddate", Some(iso_ms(person.modified).as_str())),
        ("hs_object_id", Some(row.id.as_str())),
    ] {
        map.insert(name.to_owned(), value.map_or(Value::Null, Value::from));
    }
    map
}

fn contact(person: &Person, wanted: &[String]) -> Value {
    let all = properties(person);
    let wanted = DEFAULT_PROPERTIES
        .iter()
        .copied()
        .chain(wanted.iter().map(String::as_str));
    // Unknown properties are passed over, known ones without a value are null.
    let shown: Map<String, Value> = wanted
        .filter_map(|name| Some((name.to_owned(), all.get(name)?.clone())))
        .collect();
    let mut contact = json!({
        "id": person.row.id,
        "properties": shown,
        "createdAt": iso_ms(person.created),
        "updatedAt": iso_ms(person.modified),
        "archived": person.row.archived,
    });
    if person.row.archived {
        contact["archivedAt"] = iso_ms(person.modified).into();
    }
    contact
}

fn queried(request: &Request) -> Vec<String> {
    let values = request.queries().filter(|(name, _)| *name == "properties");
    let names = values.flat_map(|(_, value)| value.split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

fn size(request: &Request, default: usize, max: usize) -> Result<usize, ApiError> {
    match request.number("limit")?.unwrap_or(default) {
        size if (1..=max).contains(&size) => Ok(size),
        size => Err(bad(format!("limit must be 1 to {max}, not {size}"))),
    }
}

fn results(results: Vec<Value>, next: Option<String>) -> Value {
    let mut body = json!({"results": results});
    if let Some(after) = next {
        body["paging"] = json!({"next": {"after": after, "link": format!("?after={after}")}});
    }
    body
}

fn list(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let selection = Selection {
        after: request.number("after")?.unwrap_or(0),
        limit: size(request, 10, 100)?,
        newest: true,
        ..Selection::default()
    };
    let wanted = queried(request);
    let (people, more) = page(state, &selection);
    let next = people.last().filter(|_| more).map(|person| person.id.to_string());
    let found = people.iter().map(|person| contact(person, &wanted)).collect();
    Ok(Reply::ok(&results(found, next)))
}

/// Those in the recycling bin: archived, or deleted.
fn archived(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (after, limit): (u64, usize) = (request.number("after")?.unwrap_or(0), size(request, 10, 100)?);
    let only = Selection {
        archived: Archived::Only,
        after,
        newest: true,
        ..Selection::default()
    };
    let mut people = page(state, &only).0;
    if !state.knobs.no_tombstones {
        let gone = state.contacts.deleted(i64::MIN, (i64::MIN, 0));
        let gone = gone.filter(|(_, id, into)| *id > after && into.is_none());
        people.extend(gone.map(|(at, id, _)| {
            let mut person = Person::gone(state, id, at);
            person.row.archived = true;
            person
        }));
    }
    people.sort_by_key(|person| person.id);
    let more = people.len() > limit;
    people.truncate(limit);
    let wanted = queried(request);
    let next = people.last().filter(|_| more).map(|person| person.id.to_string());
    let found = people.iter().map(|person| contact(person, &wanted)).collect();
    Ok(Reply::ok(&results(found, next)))
}

/// Values are epoch milliseconds as text; ISO is understood as well.
fn time(value: &Value) -> Result<i64, ApiError> {
    let text = word(value);
    let number = text.parse().ok().or_else(|| parse_iso(&text));
    number.ok_or_else(|| bad(format!("{text} is not a valid long")))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn number(value: &Value) -> Result<u64, ApiError> {
    let text = word(value);
    text.parse().map_err(|_| bad(format!("{text} is not a valid long")))
}

fn narrow(selection: &mut Selection, filter: &Value) -> Result<(), ApiError> {
    let property = filter["propertyName"].as_str().unwrap_or_default();
    let operator = filter["operator"].as_str().unwrap_or_default();
    let comparison = match operator {
        "EQ" => "=",
        "GT" => ">",
        "GTE" => ">=",
        "LT" => "<",
        "LTE" => "<=",
        "BETWEEN" | "IN" => operator,
        _ => return Err(bad(format!("invalid operator {operator}"))),
    };
    let known = match (property, comparison) {
        ("lastmodifieddate", "BETWEEN") => {
            let (from, to) = (time(&filter["value"])?, time(&filter["highValue"])?);
            selection.compare_time(">=", from) && selection.compare_time("<=", to)
        }
        ("lastmodifieddate", comparison) => selection.compare_time(comparison, time(&filter["value"])?),
        ("hs_object_id", "IN") => {
            let ids = filter["values"].as_array().into_iter().flatten().map(number);
            selection.among(ids.collect::<Result<Vec<u64>, ApiError>>()?);
            true
        }
        ("hs_object_id", comparison) => selection.compare_id(comparison, number(&filter["value"])?),
        _ => return Err(bad(format!("Property {property} cannot be filtered on by this fake"))),
    };
    if known {
        Ok(())
    } else {
        Err(bad(format!("operator {operator} does not fit {property}")))
    }
}

fn search(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if request.body.len() > 3_000 {
        return Err(bad("the request body must be no longer than 3000 characters"));
    }
    let body = request.json()?;
    let groups = body["filterGroups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if groups.len() > 1 {
        return Err(bad("this fake searches with one filter group"));
    }
    let filters = groups.first().and_then(|group| group["filters"].as_array());
    let filters = filters.map(Vec::as_slice).unwrap_or_default();
    if filters.len() > 6 {
        return Err(bad("at most 6 filters per group"));
    }
    let limit = body["limit"].as_u64().unwrap_or(10);
    let after = match &body["after"] {
        Value::Null => 0,
        after => number(after)?,
    };
    if limit > 200 {
        return Err(bad(format!("limit must be at most 200, not {limit}")));
    }
    if after + limit > state.knobs.cap {
        return Err(bad(format!("paging ends after {} results", state.knobs.cap)));
    }
    let sort = body["sorts"].get(0);
    let down = sort.is_some_and(|sort| sort["direction"] == "DESCENDING");
    let by = sort.map_or("hs_object_id", |sort| sort["propertyName"].as_str().unwrap_or_default());
    let order = match (by, down) {
        ("hs_object_id" | "createdate", false) => Order::Id,
        ("hs_object_id" | "createdate", true) => Order::IdDown,
        ("lastmodifieddate", false) => Order::Time,
        ("lastmodifieddate", true) => Order::TimeDown,
        _ => return Err(bad(format!("this fake does not sort by {by}"))),
    };
    let mut selection = Selection {
        order,
        offset: after as usize,
        limit: limit as usize,
        ..Selection::default()
    };
    for filter in filters {
        narrow(&mut selection, filter)?;
    }
    let wanted = names(&body["properties"]);
    let (people, more) = page(state, &selection);
    let next = more.then(|| (after + limit).to_string());
    let found = people.iter().map(|person| contact(person, &wanted)).collect();
    let mut shown = results(found, next);
    shown["total"] = selection.count(state).into();
    Ok(Reply::ok(&shown))
}

fn names(value: &Value) -> Vec<String> {
    let names = value.as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn inputs(body: &Value) -> Result<Vec<String>, ApiError> {
    let inputs = body["inputs"].as_array().ok_or_else(|| bad("inputs is missing"))?;
    if inputs.len() > 100 {
        return Err(bad("at most 100 inputs"));
    }
    let id = |input: &Value| input["id"].as_str().map(str::to_owned);
    let ids: Option<Vec<String>> = inputs.iter().map(id).collect();
    ids.ok_or_else(|| bad("every input has an id, which is text"))
}

/// 207 when some are not there.
fn read_batch(found: Vec<Value>, missing: &[String], kind: &str) -> Reply {
    let mut body = json!({"status": "COMPLETE", "results": found});
    if missing.is_empty() {
        return Reply::ok(&body);
    }
    body["numErrors"] = 1.into();
    body["errors"] = json!([{
        "status": "error", "category": "OBJECT_NOT_FOUND",
        "message": format!("Could not get some {kind} objects, they may be deleted or not exist."),
        "context": {"ids": missing},
    }]);
    Reply::json(StatusCode::MULTI_STATUS, &body)
}

fn batch(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let ids = inputs(&body)?;
    let wanted = names(&body["properties"]);
    let selection = Selection {
        newest: true,
        ..Selection::of_ids(ids.iter().filter_map(|id| id.parse().ok()))
    };
    let people = page(state, &selection).0;
    let missing = |id: &&String| people.iter().all(|person| person.row.id != **id);
    let missing: Vec<String> = ids.iter().filter(missing).cloned().collect();
    let found = people.iter().map(|person| contact(person, &wanted)).collect();
    Ok(read_batch(found, &missing, "CONTACT"))
}

fn owners(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let (after, limit): (usize, usize) = (request.number("after")?.unwrap_or(0), size(request, 100, 500)?);
    let archived = request.query("archived") == Some("true");
    let users = (after + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut users: Vec<(usize, User)> = users
        .filter(|(_, user)| user.active != archived)
        .take(limit + 1)
        .collect();
    let more = users.len() > limit;
    users.truncate(limit);
    let next = users.last().filter(|_| more).map(|(at, _)| at.to_string());
    let show = |(at, user): &(usize, User)| {
        json!({
            "id": HubSpot.user_id(*at),
            "email": user.email,
            "type": "PERSON",
            "firstName": user.first_name,
            "lastName": user.last_name,
            "userId": 50_000 + at,
            "createdAt": "2024-01-01T00:00:00.000Z",
            "updatedAt": "2024-01-01T00:00:00.000Z",
            "archived": archived,
        })
    };
    Ok(Reply::ok(&results(users.iter().map(show).collect(), next)))
}

fn associations(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let contact = request.segment(4).parse().map_err(|_| no_contact())?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let type_ = json!([{"category": "HUBSPOT_DEFINED", "typeId": 15, "label": null}]);
    let link = |ticket: &Ticket| json!({"toObjectId": shapes::ticket_number(ticket), "associationTypes": type_});
    Ok(Reply::ok(&results(tickets.iter().map(link).collect(), None)))
}

fn ticket(ticket: &Ticket, wanted: &[String]) -> Value {
    let stage = match ticket.status.as_str() {
        "new" => "1",
        "pending" => "2",
        "open" => "3",
        _ => "4",
    };
    let priority = match ticket.priority.as_str() {
        "normal" => "MEDIUM".to_owned(),
        other => other.to_uppercase(),
    };
    let id = shapes::ticket_number(ticket).to_string();
    let all = [
        ("subject", ticket.subject.as_str()),
        ("content", &ticket.description),
        ("hs_pipeline", "0"),
        ("hs_pipeline_stage", stage),
        ("hs_ticket_priority", &priority),
        ("createdate", &ticket.created_at),
        ("hs_lastmodifieddate", &ticket.updated_at),
        ("hs_object_id", &id),
    ];
    let always = ["createdate", "hs_lastmodifieddate", "hs_object_id"];
    let shown = all
        .into_iter()
        .filter(|(name, _)| always.contains(name) || wanted.iter().any(|want| want == name));
    let shown: Map<String, Value> = shown.map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({
        "id": id, "properties": shown, "createdAt": ticket.created_at, "updatedAt": ticket.updated_at,
        "archived": false,
    })
}

fn tickets(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let wanted = names(&body["properties"]);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for id in inputs(&body)? {
        match id
            .parse()
            .ok()
            .and_then(|number| shapes::ticket_by_number(state, number))
        {
            Some(known) => found.push(ticket(&known, &wanted)),
            None => missing.push(id),
        }
    }
    Ok(read_batch(found, &missing, "TICKET"))
}

// ---- writing

fn given(properties: &Value) -> Result<Fields, ApiError> {
    let Some(map) = properties.as_object() else {
        return Err(bad("properties is missing"));
    };
    let mut fields = Fields::default();
    let mut phones: Vec<String> = Vec::new();
    for (name, value) in map {
        let text = value.as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "firstname" => fields.first_name = Some(text),
            "lastname" => fields.last_name = Some(text),
            "company" => fields.company = Some(text),
            "jobtitle" => fields.job_title = Some(text),
            "website" => fields.website = Some(text),
            "email" if !text.contains('@') => {
                return Err(bad(format!(
                    "Property values were not valid: Email address {text} is invalid"
                )));
            }
            "email" => fields.emails = Some(vec![text]),
            "phone" => phones.insert(0, text),
            "mobilephone" => phones.push(text),
            "address" => fields.address.get_or_insert_default().street = text,
            "city" => fields.address.get_or_insert_default().city = text,
            "zip" => fields.address.get_or_insert_default().zip = text,
            "country" => fields.address.get_or_insert_default().country = text,
            "hubspot_owner_id" | "lifecyclestage" | "hs_lead_status" | "state" => {}
            other => return Err(bad(format!("Property \"{other}\" does not exist"))),
        }
    }
    fields.phones = Some(phones).filter(|phones| !phones.is_empty());
    Ok(fields)
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let fields = given(&request.json()?["properties"])?;
    let email = fields.emails.as_ref().and_then(|emails| emails.first());
    if let Some(id) = email.and_then(|email| shapes::somebody_with_email(state, email)) {
        let message = format!("Contact already exists. Existing ID: {id}");
        return Err(ApiError::new(409, "CONFLICT", message));
    }
    let mut whole = Fields::empty();
    whole.lay_over(&fields);
    let id = writes::contact(state, &whole);
    shown(state, id, StatusCode::CREATED)
}

fn shown(state: &State, id: u64, status: StatusCode) -> Result<Reply, ApiError> {
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let person = Person::new(state, id, record);
    let every: Vec<String> = properties(&person).keys().cloned().collect();
    Ok(Reply::json(status, &contact(&person, &every)))
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = request.segment(4).parse().map_err(|_| no_contact())?;
    let fields = given(&request.json()?["properties"])?;
    if !writes::change(state, id, &fields) {
        return Err(no_contact());
    }
    shown(state, id, StatusCode::OK)
}

/// The contact that an object is to be associated with, by the one type that fits.
fn associated(body: &Value, type_id: u64) -> Result<u64, ApiError> {
    let association = &body["associations"][0];
    let fits = |kind: &Value| kind["associationCategory"] == "HUBSPOT_DEFINED" && kind["associationTypeId"] == type_id;
    if !association["types"]
        .as_array()
        .is_some_and(|types| types.iter().any(fits))
    {
        return Err(bad(format!("the association needs the type HUBSPOT_DEFINED {type_id}")));
    }
    number(&association["to"]["id"])
}

fn owner(properties: &Value) -> Result<Option<String>, ApiError> {
    let Some(id) = properties["hubspot_owner_id"].as_str().and_then(some) else {
        return Ok(None);
    };
    let ordinal = id.parse::<usize>().ok().and_then(|id| id.checked_sub(10_000));
    let ordinal = ordinal.ok_or_else(|| bad(format!("Owner {id} does not exist")))?;
    Ok(Some(format!("u-{ordinal}")))
}

fn text(properties: &Value, name: &str) -> Option<String> {
    properties[name].as_str().and_then(some).map(str::to_owned)
}

fn needed(properties: &Value, name: &str) -> Result<String, ApiError> {
    text(properties, name).ok_or_else(|| bad(format!("required property {name} is missing")))
}

fn made(id: u64, properties: &Value, at: i64) -> Reply {
    let mut shown = properties.clone();
    shown["hs_object_id"] = id.to_string().into();
    Reply::created(&json!({
        "id": id.to_string(), "properties": shown, "createdAt": iso_ms(at), "updatedAt": iso_ms(at), "archived": false,
    }))
}

fn create_ticket(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 16)?;
    needed(properties, "hs_pipeline_stage")?;
    let priority = match properties["hs_ticket_priority"].as_str() {
        None => None,
        Some("MEDIUM") => Some("normal".to_owned()),
        Some(other @ ("LOW" | "HIGH" | "URGENT")) => Some(other.to_lowercase()),
        Some(other) => return Err(bad(format!("{other} was not one of the allowed options"))),
    };
    let new = NewTicket {
        subject: needed(properties, "subject")?,
        description: text(properties, "content").unwrap_or_default(),
        priority,
        due_at: None,
        agent_id: owner(properties)?,
    };
    let ticket = writes::ticket(state, contact, new)?.ticket;
    Ok(made(shapes::ticket_number(&ticket), properties, state.crm_now()))
}

fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 202)?;
    time(&properties["hs_timestamp"])?;
    let agent = owner(properties)?;
    let note = writes::note(state, contact, agent, needed(properties, "hs_note_body")?)?;
    let id = 7_000_000 + note.id.parse::<u64>().unwrap_or_default();
    Ok(made(id, properties, state.crm_now()))
}

fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let properties = &body["properties"];
    let contact = associated(&body, 194)?;
    let direction = needed(properties, "hs_call_direction")?;
    let milliseconds = match &properties["hs_call_duration"] {
        Value::Null => 0,
        duration => number(duration)?,
    };
    let other = if direction == "INBOUND" {
        "hs_call_from_number"
    } else {
        "hs_call_to_number"
    };
    let new = NewCall {
        direction: direction.to_lowercase(),
        started_at: time(&properties["hs_timestamp"])?,
        duration_s: milliseconds / 1000,
        phone: text(properties, other),
        recording_url: text(properties, "hs_call_recording_url"),
        notes: text(properties, "hs_call_body"),
        agent_id: owner(properties)?,
    };
    writes::call(state, contact, new)?;
    let id = 8_000_000 + state.made.calls.len() as u64;
    Ok(made(id, properties, state.crm_now()))
}

// ---- webhooks

fn told(hook: &Hook, event: &Event) -> Value {
    let portal = portal(hook.state);
    let kind = match event.kind {
        EventKind::Created => "contact.creation",
        EventKind::Updated => "contact.propertyChange",
        EventKind::Deleted | EventKind::Archived => "contact.deletion",
        EventKind::Merged => "contact.merge",
    };
    let mut told = json!({
        "eventId": event.number,
        "subscriptionId": 1_000 + event.kind as u64,
        "portalId": portal,
        "appId": 1_160_452,
        "occurredAt": event.at,
        "subscriptionType": kind,
        "attemptNumber": hook.attempt - 1,
        "objectId": event.contact,
        "changeSource": "CRM",
    });
    match (event.kind, event.into) {
        (EventKind::Updated, _) => {
            told["propertyName"] = "jobtitle".into();
            let now = hook.state.contacts.newest(event.contact);
            let value = now.map(|record| Person::new(hook.state, event.contact, record).row.job_title);
            told["propertyValue"] = value.into();
        }
        (EventKind::Merged, Some(into)) => {
            told["objectId"] = into.into();
            told["primaryObjectId"] = into.into();
            told["mergedObjectIds"] = json!([event.contact]);
            told["numberOfPropertiesMoved"] = 0.into();
        }
        _ => {}
    }
    told
}
