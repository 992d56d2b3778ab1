//! What is read: contacts and what belongs to them.

use serde_json::{Map, Value, json};

use super::{Dataverse, PAGE_MAX, guid, prefers, size};
use crate::account::State;
use crate::api::{ApiError, bad};
use crate::clock;
use crate::select::{Archived, Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, iso, opaque, page, page_behind, parse_iso, read_opaque, some};
use crate::wire::{Reply, Request};

pub(super) fn contact(person: &Person, wanted: Option<&str>) -> Value {
    const ANNOTATION: &str = "_parentcustomerid_value@OData.Community.Display.V1.FormattedValue";
    let row = &person.row;
    let address = [
        row.address.street.as_str(),
        &row.address.zip,
        &row.address.city,
        &row.address.country,
    ];
    let address: Vec<&str> = address.into_iter().filter(|part| !part.is_empty()).collect();
    let all = json!({
        "fullname": some(&person.name()),
        "firstname": some(&row.first_name),
        "lastname": some(&row.last_name),
        "jobtitle": some(&row.job_title),
        "emailaddress1": person.email(0),
        "emailaddress2": person.email(1),
        "emailaddress3": person.email(2),
        "telephone1": person.phone(0),
        "mobilephone": person.phone(1),
        "telephone2": person.phone(2),
        "address1_composite": some(&address.join("\r\n")),
        "address1_line1": some(&row.address.street),
        "address1_city": some(&row.address.city),
        "address1_postalcode": some(&row.address.zip),
        "address1_country": some(&row.address.country),
        "websiteurl": row.website.as_deref().and_then(some),
        "_parentcustomerid_value": some(&row.company).map(|_| guid("acc00000", person.id)),
        "statecode": i32::from(row.archived),
        "createdon": iso(person.created),
        "modifiedon": iso(person.modified),
    });
    let mut shown = Map::new();
    shown.insert("@odata.etag".to_owned(), format!("W/\"{}\"", row.version).into());
    shown.insert("contactid".to_owned(), Dataverse.contact_id(person.id).into());
    let wants = |name: &str| wanted.is_none_or(|wanted| wanted.split(',').any(|known| known.trim() == name));
    for (name, value) in all.as_object().into_iter().flatten() {
        if wants(name) {
            shown.insert(name.clone(), value.clone());
        }
    }
    if wants("_parentcustomerid_value") && !row.company.is_empty() {
        shown.insert(ANNOTATION.to_owned(), row.company.clone().into());
    }
    shown.into()
}

/// Conditions joined by `and`; ids also by `or` or `In`.
fn filtered(filter: &str) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        archived: Archived::Shown,
        ..Selection::default()
    };
    let wrong = |text: &str| ApiError::new(400, "0x80060888", format!("Syntax error in $filter: {text}"));
    if filter.contains("Microsoft.Dynamics.CRM.In(") {
        let values = filter
            .split_once("PropertyValues=[")
            .and_then(|(_, rest)| rest.split_once(']'));
        let (values, _) = values.ok_or_else(|| wrong(filter))?;
        selection.among(values.split(',').filter_map(|id| Dataverse.contact_of(id.trim())));
        return Ok(selection);
    }
    if filter.contains(" or ") {
        let ids = filter
            .trim_matches(['(', ')'])
            .split(" or ")
            .map(|part| match part.trim().split_once(" eq ") {
                Some(("contactid", id)) => Ok(Dataverse.contact_of(id.trim())),
                _ => Err(wrong(part)),
            });
        let ids = ids.collect::<Result<Vec<_>, ApiError>>()?;
        selection.among(ids.into_iter().flatten());
        return Ok(selection);
    }
    for part in filter.split(" and ").map(str::trim).filter(|part| !part.is_empty()) {
        let words: Vec<&str> = part.trim_matches(['(', ')']).split_whitespace().collect();
        let [field, operator, value] = words.as_slice() else {
            return Err(wrong(part));
        };
        let operator = match *operator {
            "ge" => ">=",
            "gt" => ">",
            "le" => "<=",
            "lt" => "<",
            "eq" => "=",
            _ => return Err(wrong(part)),
        };
        let known = match *field {
            "modifiedon" => selection.compare_time(operator, parse_iso(value).ok_or_else(|| wrong(part))?),
            "contactid" => selection.compare_id(operator, Dataverse.contact_of(value).unwrap_or(0)),
            "statecode" if operator == "=" => {
                selection.archived = if *value == "0" {
                    Archived::Hidden
                } else {
                    Archived::Only
                };
                true
            }
            _ => false,
        };
        if !known {
            return Err(ApiError::new(
                400,
                "0x80060888",
                format!("Could not find a property named '{field}'"),
            ));
        }
    }
    Ok(selection)
}

/// The same address with another token in its query.
fn link(request: &Request, name: &str, value: &str) -> String {
    let kept = request
        .queries()
        .filter(|(known, _)| !matches!(*known, "$skiptoken" | "$deltatoken"));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(kept).append_pair(name, value);
    // Spaces as a server of OData writes them.
    let query = query.finish().replace('+', "%20").replace("%24", "$");
    format!("{}{}?{query}", request.origin(), request.uri.path())
}

pub(super) fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if request.query("$skip").is_some() {
        return Err(ApiError::new(
            400,
            "0x80060888",
            "The query parameter $skip is not supported.",
        ));
    }
    let tracks = prefers(request, "odata.track-changes").is_some();
    let given = ["$filter", "$orderby", "$top", "$expand"]
        .into_iter()
        .find(|name| request.query(name).is_some());
    if let Some(name) = given.filter(|_| tracks) {
        let message = format!("The \"{name}\" query parameter isn't supported when tracking changes.");
        return Err(ApiError::new(400, "0x80060888", message));
    }
    let mut selection = filtered(request.query("$filter").unwrap_or_default())?;
    let orders = request.query("$orderby").unwrap_or("contactid asc").split(',');
    let orders: Vec<&str> = orders.map(str::trim).collect();
    selection.order = match orders.as_slice() {
        ["contactid" | "contactid asc"] => Order::Id,
        ["contactid desc"] => Order::IdDown,
        ["modifiedon" | "modifiedon asc"] | ["modifiedon" | "modifiedon asc", "contactid" | "contactid asc"] => {
            Order::Time
        }
        ["modifiedon desc"] | ["modifiedon desc", "contactid desc"] => Order::TimeDown,
        _ => return Err(bad("this fake does not order so")),
    };
    let top: Option<usize> = request.number("$top")?;
    selection.limit = top.map_or_else(|| size(request), |top| top.min(PAGE_MAX));
    // A delta covers from before the first page on.
    let mut covered = (state.contacts.settled_version(), clock::now_ms());
    let (people, more) = match request.query("$skiptoken") {
        None => page(state, &selection),
        Some(cookie) => {
            let text = read_opaque(cookie).unwrap_or_default();
            let parts: Vec<i64> = text.split('/').filter_map(|part| part.parse().ok()).collect();
            let [at, id, version, made] = parts[..] else {
                return Err(ApiError::new(400, "0x80060888", "Malformed skiptoken"));
            };
            covered = (version.unsigned_abs(), made);
            page_behind(state, &selection, (at, id.unsigned_abs()))
        }
    };
    let wanted = request.query("$select");
    let value: Vec<Value> = people.iter().map(|person| contact(person, wanted)).collect();
    let mut body =
        json!({"@odata.context": format!("{}/api/data/v9.2/$metadata#contacts", request.origin()), "value": value});
    match people.last().filter(|_| more && top.is_none()) {
        Some(last) => {
            let cookie = opaque(&format!("{}/{}/{}/{}", last.modified, last.id, covered.0, covered.1));
            body["@odata.nextLink"] = link(request, "$skiptoken", &cookie).into();
        }
        None if tracks => {
            let token = opaque(&format!("{}/{}/0", covered.0, covered.1));
            body["@odata.deltaLink"] = link(request, "$deltatoken", &token).into();
        }
        None => {}
    }
    Ok(Reply::ok(&body))
}

/// What changed since a delta link was made: rows as they are now, and ids of those that are gone.
pub(super) fn delta(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let text = request.query("$deltatoken").and_then(read_opaque).unwrap_or_default();
    let parts: Vec<u64> = text.split('/').filter_map(|part| part.parse().ok()).collect();
    let [version, made, passed] = parts[..] else {
        return Err(ApiError::new(400, "0x80060888", "Malformed deltatoken"));
    };
    let now = clock::now_ms();
    if now - made as i64 > state.knobs.token_life_ms as i64 {
        let message = "Version stamp associated with the client has expired. Please perform a full sync.";
        return Err(ApiError::new(410, "0x80044352", message));
    }
    let covered = state.contacts.settled_version();
    let wanted = request.query("$select");
    let living = state
        .contacts
        .after(0)
        .filter(|(id, record)| record.version > version && crate::api::shown(state, *id));
    let living = living.map(|(id, record)| (record.version, contact(&Person::new(state, id, record), wanted)));
    let context = format!("{}/api/data/v9.2/$metadata#contacts/$deletedEntity", request.origin());
    let gone = state.contacts.deleted_after(version);
    let gone = gone.map(|(version, id)| {
        (
            version,
            json!({"@odata.context": context, "id": Dataverse.contact_id(id), "reason": "deleted"}),
        )
    });
    let mut found: Vec<(u64, Value)> = living.chain(gone.filter(|_| !state.knobs.no_tombstones)).collect();
    found.sort_by_key(|(version, _)| *version);
    // Pages of one delta count from its start.
    let rest: Vec<(u64, Value)> = found.into_iter().skip(passed as usize).collect();
    let size = size(request);
    let more = rest.len() > size;
    let value: Vec<Value> = rest.into_iter().take(size).map(|(_, row)| row).collect();
    let mut body = json!({
        "@odata.context": format!("{}/api/data/v9.2/$metadata#contacts/$delta", request.origin()), "value": value,
    });
    if more {
        let token = opaque(&format!("{version}/{made}/{}", passed as usize + size));
        body["@odata.nextLink"] = link(request, "$deltatoken", &token).into();
    } else {
        body["@odata.deltaLink"] = link(request, "$deltatoken", &opaque(&format!("{covered}/{now}/0"))).into();
    }
    Ok(Reply::ok(&body))
}

pub(super) fn in_path(segment: &str) -> Result<u64, ApiError> {
    let id = segment
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or_default();
    let gone = || {
        ApiError::new(
            404,
            "not_found",
            format!("Entity 'contact' With Id = {id} Does Not Exist"),
        )
    };
    Dataverse.contact_of(id).ok_or_else(gone)
}

pub(super) fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = in_path(request.segment(3))?;
    let selection = Selection {
        archived: Archived::Shown,
        ..Selection::of_ids([id])
    };
    let people = page(state, &selection).0;
    let gone = || {
        let id = Dataverse.contact_id(id);
        ApiError::new(
            404,
            "not_found",
            format!("Entity 'contact' With Id = {id} Does Not Exist"),
        )
    };
    let person = people.first().ok_or_else(gone)?;
    Ok(Reply::ok(&contact(person, request.query("$select"))))
}

pub(super) fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let active = match request.query("$filter") {
        None => None,
        Some("isdisabled eq false") => Some(true),
        Some(other) => return Err(bad(format!("this fake does not filter users by {other}"))),
    };
    let after: usize = match request.query("$skiptoken") {
        None => 0,
        Some(cookie) => read_opaque(cookie)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| bad("Malformed skiptoken"))?,
    };
    let users = (after + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut users: Vec<_> = users
        .filter(|(_, user)| active.is_none_or(|active| user.active == active))
        .collect();
    let more = users.len() > size(request);
    users.truncate(size(request));
    let value = users.iter().map(|(at, user)| {
        json!({
            "systemuserid": Dataverse.user_id(*at), "fullname": format!("{} {}", user.first_name, user.last_name),
            "firstname": user.first_name, "lastname": user.last_name, "internalemailaddress": user.email,
            "isdisabled": !user.active,
        })
    });
    let mut body = json!({"@odata.context": "$metadata#systemusers", "value": value.collect::<Vec<Value>>()});
    if let Some((last, _)) = users.last().filter(|_| more) {
        body["@odata.nextLink"] = link(request, "$skiptoken", &opaque(&last.to_string())).into();
    }
    Ok(Reply::ok(&body))
}

pub(super) fn incidents(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let filter = request.query("$filter").unwrap_or_default();
    let id = filter
        .strip_prefix("_customerid_value eq ")
        .and_then(|id| Dataverse.contact_of(id.trim()));
    let id = id.ok_or_else(|| bad("this fake finds incidents by _customerid_value"))?;
    let tickets = shapes::tickets_of(state, id).unwrap_or_default();
    let time = |text: &str| parse_iso(text).map(iso);
    let value = tickets.iter().map(|ticket| {
        let number = shapes::ticket_number(ticket);
        let (state, status) = match ticket.status.as_str() {
            "solved" => (1, "Problem Solved"),
            "pending" => (0, "Waiting for Details"),
            _ => (0, "In Progress"),
        };
        let mut shown = json!({
            "incidentid": guid("1c000000", number), "ticketnumber": format!("CAS-{number:05}"), "title": ticket.subject,
            "description": ticket.description, "statecode": state, "prioritycode": 2,
            "createdon": time(&ticket.created_at), "modifiedon": time(&ticket.updated_at),
        });
        shown["statuscode@OData.Community.Display.V1.FormattedValue"] = status.into();
        shown["prioritycode@OData.Community.Display.V1.FormattedValue"] = ticket.priority.clone().into();
        shown
    });
    Ok(Reply::ok(
        &json!({"@odata.context": "$metadata#incidents", "value": value.collect::<Vec<Value>>()}),
    ))
}
