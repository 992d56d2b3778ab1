//! Queries: what is read, nearly all of it by SOQL.

use serde_json::{Map, Value, json};

use super::{LOCATORS, Locator, Salesforce, long_id, number_in, organization};
use crate::account::State;
use crate::api::{ApiError, Op, bad};
use crate::data::Ticket;
use crate::select::{Archived, Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, parse_iso, some};
use crate::vendors::soql::{self, Condition, Literal, Query};
use crate::wire::{Reply, Request};

/// Which operation a query is, for the counters.
pub(super) fn asked(query: &str) -> Op {
    let Ok(query) = soql::parse(query) else { return Op::List };
    let on = |name: &str| {
        query
            .conditions
            .iter()
            .any(|known| known.field.eq_ignore_ascii_case(name))
    };
    let by_ids = query.conditions.iter().any(|known| known.operator == "IN");
    match query.object.to_lowercase().as_str() {
        "user" => Op::Users,
        "organization" => Op::Check,
        "case" => Op::Tickets,
        "task" => Op::Activities,
        _ if by_ids => Op::Batch,
        _ if on("SystemModstamp") || on("LastModifiedDate") => Op::Changes,
        _ if query.fields.iter().all(|field| field.eq_ignore_ascii_case("Id")) => Op::Ids,
        _ => Op::List,
    }
}

fn stamp(ms: i64) -> String {
    shapes::iso(ms).replace('Z', ".000+0000")
}

fn no_column(field: &str, object: &str) -> ApiError {
    let message = format!("No such column '{field}' on entity '{object}'.");
    ApiError::new(400, "INVALID_FIELD", message)
}

/// Bare dates only: one in quotes is another mistake than one that is no date.
fn date(condition: &Condition) -> Result<i64, ApiError> {
    let field = &condition.field;
    match &condition.values[0] {
        Literal::Text(_) => {
            let message = format!(
                "value of filter criterion for field '{field}' must be of type dateTime and should not be enclosed in quotes"
            );
            Err(ApiError::new(400, "INVALID_FIELD", message))
        }
        Literal::Bare(text) => {
            let zoned = match text.rsplit_once('+') {
                Some((date, "0000")) => format!("{date}Z"),
                _ => text.clone(),
            };
            let wrong = || ApiError::new(400, "MALFORMED_QUERY", format!("line 1: invalid date {text}"));
            parse_iso(&zoned).ok_or_else(wrong)
        }
    }
}

fn quoted(condition: &Condition) -> Result<Vec<&str>, ApiError> {
    let text = |value: &'_ Literal| match value {
        Literal::Text(_) => Ok(()),
        Literal::Bare(word) => {
            let message = format!(
                "value of filter criterion for field '{}' must be enclosed in quotes: {word}",
                condition.field
            );
            Err(ApiError::new(400, "INVALID_FIELD", message))
        }
    };
    condition.values.iter().try_for_each(text)?;
    let texts = condition.values.iter().filter_map(|value| match value {
        Literal::Text(text) => Some(text.as_str()),
        Literal::Bare(_) => None,
    });
    Ok(texts.collect())
}

fn selection(query: &Query, all: bool) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        archived: if all { Archived::Shown } else { Archived::Hidden },
        offset: query.offset,
        limit: query.limit.unwrap_or(usize::MAX),
        ..Selection::default()
    };
    for condition in &query.conditions {
        let known = match condition.field.to_lowercase().as_str() {
            "systemmodstamp" | "lastmodifieddate" => {
                let at = date(condition)?;
                selection.compare_time(&condition.operator, at)
            }
            "id" => {
                let ids: Vec<u64> = quoted(condition)?
                    .into_iter()
                    .map(|id| Salesforce.contact_of(id).unwrap_or(0))
                    .collect();
                match condition.operator.as_str() {
                    "IN" => {
                        selection.among(ids);
                        true
                    }
                    operator => selection.compare_id(operator, ids[0]),
                }
            }
            "isdeleted" => condition.operator == "=" && flag(condition, &mut selection),
            _ => return Err(no_column(&condition.field, "Contact")),
        };
        if !known {
            let message = format!("operator {} does not fit {}", condition.operator, condition.field);
            return Err(ApiError::new(400, "INVALID_QUERY_FILTER_OPERATOR", message));
        }
    }
    let first = query.order.first().map(|(field, down)| (field.to_lowercase(), *down));
    selection.order = match first.as_ref().map(|(field, down)| (field.as_str(), *down)) {
        None | Some(("id", false)) => Order::Id,
        Some(("id", true)) => Order::IdDown,
        Some(("systemmodstamp" | "lastmodifieddate", false)) => Order::Time,
        Some(("systemmodstamp" | "lastmodifieddate", true)) => Order::TimeDown,
        Some((other, _)) => return Err(no_column(other, "Contact")),
    };
    Ok(selection)
}

fn flag(condition: &Condition, selection: &mut Selection) -> bool {
    match &condition.values[0] {
        Literal::Bare(word) if word.eq_ignore_ascii_case("true") => selection.archived = Archived::Only,
        Literal::Bare(word) if word.eq_ignore_ascii_case("false") => selection.archived = Archived::Hidden,
        _ => return false,
    }
    true
}

fn contact(person: &Person, fields: &[String]) -> Result<Value, ApiError> {
    let row = &person.row;
    let id = Salesforce.contact_id(person.id);
    let mut shown = Map::new();
    let url = format!("/services/data/v61.0/sobjects/Contact/{id}");
    shown.insert("attributes".to_owned(), json!({"type": "Contact", "url": url}));
    let name = person.name();
    for field in fields {
        let text = |value: Option<&str>| json!(value);
        let value = match field.to_lowercase().as_str() {
            "id" => json!(id),
            "name" => text(some(&name)),
            "firstname" => text(some(&row.first_name)),
            "lastname" => text(some(&row.last_name)),
            "title" => text(some(&row.job_title)),
            "email" => text(person.email(0)),
            "phone" => text(person.phone(0)),
            "mobilephone" => text(person.phone(1)),
            "homephone" => text(person.phone(2)),
            "otherphone" | "mailingstate" | "ownerid" => Value::Null,
            "accountid" => json!(some(&row.company).map(|_| long_id(&format!("0015e{:010}", person.id)))),
            "account.name" => {
                let account = some(&row.company).map(|name| json!({"attributes": {"type": "Account"}, "Name": name}));
                shown.insert("Account".to_owned(), json!(account));
                continue;
            }
            "mailingstreet" => text(some(&row.address.street)),
            "mailingcity" => text(some(&row.address.city)),
            "mailingpostalcode" => text(some(&row.address.zip)),
            "mailingcountry" => text(some(&row.address.country)),
            "mailingaddress" => json!({
                "street": some(&row.address.street), "city": some(&row.address.city), "state": null,
                "postalCode": some(&row.address.zip), "country": some(&row.address.country),
                "latitude": null, "longitude": null, "geocodeAccuracy": null,
            }),
            "photourl" => json!(row.photo_url),
            "isdeleted" => json!(row.archived),
            "createddate" => json!(stamp(person.created)),
            "systemmodstamp" | "lastmodifieddate" => json!(stamp(person.modified)),
            _ => return Err(no_column(field, "Contact")),
        };
        shown.insert(field.clone(), value);
    }
    Ok(shown.into())
}

fn size(request: &Request) -> usize {
    let asked = request
        .header("sforce-query-options")
        .and_then(|text| text.trim().strip_prefix("batchSize="));
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(2_000_usize)
        .clamp(200, 2_000)
}

fn whole(records: Vec<Value>) -> Reply {
    Reply::ok(&json!({"totalSize": records.len(), "done": true, "records": records}))
}

pub(super) fn first_page(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let text = request
        .query("q")
        .ok_or_else(|| ApiError::new(400, "MALFORMED_QUERY", "q is missing"))?;
    let query = soql::parse(text)?;
    match query.object.to_lowercase().as_str() {
        "contact" => {}
        "user" => return users(state, &query),
        "case" => return cases(state, &query),
        "task" => return tasks(state, &query),
        "organization" => {
            let id = organization(state);
            return Ok(whole(vec![
                json!({"attributes": {"type": "Organization"}, "Id": id, "Name": state.account}),
            ]));
        }
        other => {
            let message = format!("sObject type '{other}' is not supported.");
            return Err(ApiError::new(400, "INVALID_TYPE", message));
        }
    }
    let all = request.segment(3) == "queryAll";
    let mut ids: Vec<u64> = selection(&query, all)?
        .run(state)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    if all && !state.knobs.no_tombstones {
        let selection = selection(&query, all)?;
        let gone = state.contacts.deleted(selection.since, (i64::MIN, 0));
        let gone = gone.filter(|(at, id, _)| {
            selection.window().contains(at)
                && selection.archived != Archived::Hidden
                && (selection.after..selection.before).contains(id)
                && *id != selection.after
                && selection.ids.as_ref().is_none_or(|ids| ids.contains(id))
        });
        ids.extend(gone.map(|(_, id, _)| id));
        if selection.order == Order::Id {
            ids.sort_unstable();
        }
    }
    // A field that is not there is refused, whether there are rows or not.
    contact(&Person::gone(state, 1, 0), &query.fields)?;
    let kind = if asked(text) == Op::Changes { "C" } else { "A" };
    let locator = Locator {
        id: format!("01g{kind}L{:010}", state.meter.stats.counted),
        all,
        size: size(request),
        query,
        ids,
    };
    let (reply, more) = batch(state, &locator, 0)?;
    if more {
        state.locators.push_back(locator);
        if state.locators.len() > LOCATORS {
            state.locators.pop_front();
        }
    }
    Ok(reply)
}

pub(super) fn next_page(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let invalid = || ApiError::new(400, "INVALID_QUERY_LOCATOR", "invalid query locator");
    let (id, from) = request.segment(4).split_once('-').ok_or_else(invalid)?;
    let from: usize = from.parse().map_err(|_| invalid())?;
    let locator = state.locators.iter().find(|known| known.id == id).ok_or_else(invalid)?;
    Ok(batch(state, locator, from)?.0)
}

fn batch(state: &State, locator: &Locator, from: usize) -> Result<(Reply, bool), ApiError> {
    let mut records = Vec::new();
    for id in locator.ids.iter().skip(from).take(locator.size) {
        match state.contacts.get(*id) {
            Some(record) => records.push(contact(&Person::new(state, *id, record), &locator.query.fields)?),
            None if locator.all => {
                let mut person = Person::gone(state, *id, state.contacts.deleted_at(*id).unwrap_or_default());
                person.row.archived = true;
                records.push(contact(&person, &locator.query.fields)?);
            }
            None => {}
        }
    }
    let next = from + locator.size;
    let more = next < locator.ids.len();
    let mut body = json!({"totalSize": locator.ids.len(), "done": !more, "records": records});
    if more {
        body["nextRecordsUrl"] = format!("/services/data/v61.0/query/{}-{next}", locator.id).into();
    }
    Ok((Reply::ok(&body), more))
}

fn users(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let mut active = None;
    let mut after = 0;
    for condition in &query.conditions {
        match (
            condition.field.to_lowercase().as_str(),
            condition.operator.as_str(),
            &condition.values[0],
        ) {
            ("isactive", "=", Literal::Bare(word)) => active = Some(word.eq_ignore_ascii_case("true")),
            ("id", ">", Literal::Text(id)) => after = number_in(id, "0055e").unwrap_or(0),
            ("usertype", "=", Literal::Text(_)) => {}
            _ => return Err(no_column(&condition.field, "User")),
        }
    }
    let users = (1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let users = users.filter(|(at, user)| *at as u64 > after && active.is_none_or(|active| user.active == active));
    let records = users.take(query.limit.unwrap_or(2_000)).map(|(at, user)| {
        json!({
            "attributes": {"type": "User"}, "Id": Salesforce.user_id(at), "FirstName": user.first_name,
            "LastName": user.last_name, "Name": format!("{} {}", user.first_name, user.last_name),
            "Email": user.email, "IsActive": user.active, "Username": format!("user{at}@example.com"),
        })
    });
    Ok(whole(records.collect()))
}

/// The contact in the one condition that a query of its things has.
fn of_contact(query: &Query, field: &str) -> Result<u64, ApiError> {
    let found = query
        .conditions
        .iter()
        .find(|known| known.field.eq_ignore_ascii_case(field));
    let condition = found
        .filter(|known| known.operator == "=")
        .ok_or_else(|| bad(format!("give {field} = 'id'")))?;
    let ids = quoted(condition)?;
    Ok(ids.first().and_then(|id| Salesforce.contact_of(id)).unwrap_or(0))
}

fn case(ticket: &Ticket) -> Value {
    let number = shapes::ticket_number(ticket);
    let status = match ticket.status.as_str() {
        "solved" => "Closed",
        "pending" => "On Hold",
        "open" => "Working",
        _ => "New",
    };
    let time = |text: &str| parse_iso(text).map(stamp);
    json!({
        "attributes": {"type": "Case"}, "Id": long_id(&format!("5005e{number:010}")),
        "CaseNumber": format!("{number:08}"), "Subject": ticket.subject, "Description": ticket.description,
        "Status": status, "Priority": ticket.priority, "IsClosed": status == "Closed",
        "CreatedDate": time(&ticket.created_at), "LastModifiedDate": time(&ticket.updated_at),
    })
}

fn cases(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let contact = of_contact(query, "ContactId")?;
    let mut tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    tickets.sort_by(|one, other| other.created_at.cmp(&one.created_at));
    tickets.truncate(query.limit.unwrap_or(2_000));
    Ok(whole(tickets.iter().map(case).collect()))
}

fn tasks(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let contact = of_contact(query, "WhoId")?.to_string();
    let calls = state
        .made
        .calls
        .iter()
        .enumerate()
        .filter(|(_, call)| call.contact_id == contact);
    let records = calls.map(|(at, call)| {
        json!({
            "attributes": {"type": "Task"}, "Id": long_id(&format!("00T5e{:010}", at + 1)), "Subject": call.notes,
            "TaskSubtype": "Call", "Status": "Completed", "CreatedDate": stamp(call.started_at),
        })
    });
    Ok(whole(records.collect()))
}

pub(super) fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let time = |name: &str| {
        let text = request.query(name).unwrap_or_default();
        let zoned = text.replace("+0000", "Z").replace("+00:00", "Z");
        parse_iso(&zoned).ok_or_else(|| ApiError::new(400, "INVALID_REPLICATION_DATE", format!("{name} is no date")))
    };
    let (start, end) = (time("start")?, time("end")?);
    let earliest = state.crm_now() - 15 * 24 * 3600 * 1000;
    if start < earliest || end < start + 60_000 {
        let message = "start must be within 15 days, and end at least a minute later";
        return Err(ApiError::new(400, "INVALID_REPLICATION_DATE", message));
    }
    let gone = state
        .contacts
        .deleted(start, (i64::MIN, 0))
        .filter(|(at, _, _)| *at < end && !state.knobs.no_tombstones);
    let archived = Selection {
        since: start,
        until: end,
        archived: Archived::Only,
        ..Selection::default()
    };
    let archived = archived
        .run(state)
        .into_iter()
        .map(|(id, record)| (record.modified, id));
    let all = gone.map(|(at, id, _)| (at, id)).chain(archived);
    let records = all.map(|(at, id)| json!({"id": Salesforce.contact_id(id), "deletedDate": stamp(at)}));
    let records: Vec<Value> = records.collect();
    Ok(Reply::ok(&json!({
        "deletedRecords": records, "earliestDateAvailable": stamp(earliest),
        "latestDateCovered": stamp(end.min(state.crm_now())),
    })))
}

/// In the order asked for, null for what is not there.
pub(super) fn collection(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let text = |name: &str| {
        request
            .query(name)
            .unwrap_or_default()
            .split(',')
            .map(|part| part.trim().to_owned())
    };
    let (ids, fields): (Vec<String>, Vec<String>) = (text("ids").collect(), text("fields").collect());
    if ids.len() > 800 {
        return Err(bad("at most 800 ids"));
    }
    let mut records = Vec::new();
    for id in ids {
        let found = Salesforce
            .contact_of(&id)
            .and_then(|id| Some((id, state.contacts.get(id)?)));
        let found = found.filter(|(id, record)| !record.archived && crate::api::shown(state, *id));
        records.push(match found {
            Some((id, record)) => contact(&Person::new(state, id, record), &fields)?,
            None => Value::Null,
        });
    }
    Ok(Reply::ok(&records.into()))
}
