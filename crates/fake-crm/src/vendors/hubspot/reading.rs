//! What is read: contacts and what belongs to them.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{DEFAULT_PROPERTIES, HubSpot};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::data::{Ticket, User};
use crate::select::{Archived, Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, iso_ms, page, parse_iso, some};
use crate::wire::{Reply, Request};

pub(super) fn properties(person: &Person) -> Map<String, Value> {
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

pub(super) fn contact(person: &Person, wanted: &[String]) -> Value {
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

pub(super) fn list(state: &State, request: &Request) -> Result<Reply, ApiError> {
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
pub(super) fn archived(state: &State, request: &Request) -> Result<Reply, ApiError> {
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
pub(super) fn time(value: &Value) -> Result<i64, ApiError> {
    let text = word(value);
    let number = text.parse().ok().or_else(|| parse_iso(&text));
    number.ok_or_else(|| bad(format!("{text} is not a valid long")))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn number(value: &Value) -> Result<u64, ApiError> {
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

pub(super) fn search(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

pub(super) fn batch(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

pub(super) fn owners(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

pub(super) fn associations(state: &State, request: &Request) -> Result<Reply, ApiError> {
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

pub(super) fn tickets(state: &State, request: &Request) -> Result<Reply, ApiError> {
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
