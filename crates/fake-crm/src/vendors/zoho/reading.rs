//! What is read: contacts and what belongs to them.

use http::StatusCode;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{FROM, PAGES, ROWS_MAX, Zoho, numbered, numbered_list};
use crate::account::State;
use crate::api::{ApiError, bad, no_contact};
use crate::clock;
use crate::select::{Order, Selection};
use crate::vendors::Vendor as _;
use crate::vendors::shapes::{self, Person, opaque, page, parse_iso, read_opaque, some};
use crate::wire::{Reply, Request};

pub(super) fn stamp(ms: i64, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

fn contact(person: &Person, fields: &[&str], zone: &TimeZone) -> Value {
    let row = &person.row;
    let account =
        some(&row.company).map(|name| json!({"name": name, "id": (FROM + 900_000_000_000 + person.id).to_string()}));
    let all = json!({
        "Full_Name": some(&person.name()),
        "First_Name": some(&row.first_name),
        "Last_Name": some(&row.last_name),
        "Account_Name": account,
        "Title": some(&row.job_title),
        "Email": person.email(0),
        "Secondary_Email": person.email(1),
        "Phone": person.phone(0),
        "Mobile": person.phone(1),
        "Home_Phone": person.phone(2),
        "Other_Phone": null,
        "Mailing_Street": some(&row.address.street),
        "Mailing_City": some(&row.address.city),
        "Mailing_State": null,
        "Mailing_Zip": some(&row.address.zip),
        "Mailing_Country": some(&row.address.country),
        "Twitter": row.twitter,
        "Created_Time": stamp(person.created, zone),
        "Modified_Time": stamp(person.modified, zone),
    });
    let mut shown: Map<String, Value> = Map::new();
    shown.insert("id".to_owned(), Zoho.contact_id(person.id).into());
    for field in fields {
        if let Some(value) = all.get(*field) {
            shown.insert((*field).to_owned(), value.clone());
        }
    }
    shown.into()
}

/// What a page token holds: how many rows came before, where it goes on, and when it was made.
struct PageToken {
    rows: usize,
    at: i64,
    id: u64,
    made_ms: i64,
}

impl PageToken {
    fn write(&self) -> String {
        opaque(&format!("{}/{}/{}/{}", self.rows, self.at, self.id, self.made_ms))
    }

    fn read(token: &str) -> Option<PageToken> {
        let text = read_opaque(token)?;
        let mut parts = text.split('/');
        Some(PageToken {
            rows: parts.next()?.parse().ok()?,
            at: parts.next()?.parse().ok()?,
            id: parts.next()?.parse().ok()?,
            made_ms: parts.next()?.parse().ok()?,
        })
    }
}

fn since(request: &Request) -> Result<Option<i64>, ApiError> {
    match request.header("if-modified-since").map(parse_iso) {
        None => Ok(None),
        Some(Some(at)) => Ok(Some(at)),
        Some(None) => Err(bad("If-Modified-Since must be ISO 8601")),
    }
}

pub(super) fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let fields = request.query("fields").and_then(some);
    let missing = || {
        ApiError::new(
            400,
            "REQUIRED_PARAM_MISSING",
            "One of the expected parameter is missing: fields",
        )
    };
    let fields: Vec<&str> = fields.ok_or_else(missing)?.split(',').map(str::trim).collect();
    if fields.len() > 50 {
        return Err(ApiError::new(400, "LIMIT_EXCEEDED", "at most 50 fields"));
    }
    let token = match request.query("page_token") {
        None => None,
        Some(_) if request.query("page").is_some() => {
            return Err(ApiError::new(
                400,
                "AMBIGUITY_DURING_PROCESSING",
                "page and page_token exclude each other",
            ));
        }
        Some(token) => Some(PageToken::read(token).ok_or_else(|| bad("page_token is invalid"))?),
    };
    let now = clock::now_ms();
    let life = state.knobs.token_life_ms as i64;
    if token.as_ref().is_some_and(|token| now - token.made_ms > life) {
        return Err(ApiError::new(400, "EXPIRED_VALUE", "page_token has expired"));
    }
    let (number, limit) = numbered(request)?;
    if token.is_none() && number > PAGES {
        let message = "page numbers end with the 2000th record; use page_token";
        return Err(ApiError::new(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", message));
    }
    let before = token.as_ref().map_or((number - 1) * limit, |token| token.rows);
    if before + limit > ROWS_MAX {
        return Err(ApiError::new(
            400,
            "PAGINATION_LIMIT_EXCEEDED",
            "at most 100000 records",
        ));
    }
    let up = request.query("sort_order") == Some("asc");
    let sort_by = request.query("sort_by").unwrap_or("id");
    let order = match (sort_by, up) {
        ("id" | "Created_Time", true) => Order::Id,
        ("id" | "Created_Time", false) => Order::IdDown,
        ("Modified_Time", true) => Order::Time,
        ("Modified_Time", false) => Order::TimeDown,
        (other, _) => return Err(bad(format!("sort_by {other}"))),
    };
    let since = since(request)?;
    let mut selection = Selection {
        since: since.unwrap_or(i64::MIN),
        order,
        offset: before,
        limit,
        ..Selection::default()
    };
    if let Some(ids) = request.query("ids") {
        let ids: Vec<&str> = ids.split(',').collect();
        if ids.len() > 100 {
            return Err(ApiError::new(400, "LIMIT_EXCEEDED", "at most 100 ids"));
        }
        selection.among(ids.iter().filter_map(|id| Zoho.contact_of(id.trim())));
    }
    // A token goes on behind the last row that was shown, whatever has moved since.
    let (people, more) = match &token {
        None => page(state, &selection),
        Some(token) => {
            selection.offset = 0;
            shapes::page_behind(state, &selection, (token.at, token.id))
        }
    };
    if people.is_empty() {
        let nothing = if since.is_some() {
            StatusCode::NOT_MODIFIED
        } else {
            StatusCode::NO_CONTENT
        };
        return Ok(Reply::empty(nothing));
    }
    let zone = state.knobs.zone();
    let next = people.last().filter(|_| more).map(|last| {
        let token = PageToken {
            rows: before + people.len(),
            at: last.modified,
            id: last.id,
            made_ms: now,
        };
        token.write()
    });
    let info = json!({
        "per_page": limit, "count": people.len(), "page": before / limit + 1, "sort_by": sort_by,
        "sort_order": if up { "asc" } else { "desc" }, "more_records": more, "next_page_token": next,
        "previous_page_token": null, "page_token_expiry": next.as_ref().map(|_| stamp(now + life, &zone)),
    });
    let data: Vec<Value> = people.iter().map(|person| contact(person, &fields, &zone)).collect();
    Ok(Reply::ok(&json!({"data": data, "info": info})))
}

pub(super) fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if !matches!(request.query("type"), Some("all" | "recycle" | "permanent")) {
        return Err(bad("type must be all, recycle or permanent"));
    }
    let (zone, since) = (state.knobs.zone(), since(request)?);
    let gone = state.contacts.deleted(since.unwrap_or(i64::MIN), (i64::MIN, 0));
    let gone = gone.filter(|_| !state.knobs.no_tombstones).map(|(at, id, _)| {
        json!({
            "id": Zoho.contact_id(id), "deleted_time": stamp(at, &zone), "type": "recycle",
            "display_name": Person::gone(state, id, at).name(), "deleted_by": {"id": Zoho.user_id(1)},
        })
    });
    let archived = Selection {
        since: since.unwrap_or(i64::MIN),
        archived: crate::select::Archived::Only,
        ..Selection::default()
    };
    let archived = page(state, &archived).0;
    let archived = archived.iter().map(|person| {
        json!({
            "id": Zoho.contact_id(person.id), "deleted_time": stamp(person.modified, &zone), "type": "recycle",
            "display_name": person.name(), "deleted_by": {"id": Zoho.user_id(1)},
        })
    });
    let mut all: Vec<Value> = gone.chain(archived).collect();
    all.sort_by(|one, other| other["deleted_time"].as_str().cmp(&one["deleted_time"].as_str()));
    numbered_list(request, "data", &all)
}

pub(super) fn cases(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if request.query("fields").is_none() {
        return Err(ApiError::new(
            400,
            "REQUIRED_PARAM_MISSING",
            "One of the expected parameter is missing: fields",
        ));
    }
    let contact = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let zone = state.knobs.zone();
    let time = |text: &str| parse_iso(text).map(|at| stamp(at, &zone));
    let all = tickets.iter().map(|ticket| {
        let number = shapes::ticket_number(ticket);
        json!({
            "id": (FROM + 700_000_000_000 + number).to_string(), "Case_Number": number, "Subject": ticket.subject,
            "Description": ticket.description, "Status": ticket.status, "Priority": ticket.priority,
            "Created_Time": time(&ticket.created_at), "Modified_Time": time(&ticket.updated_at),
        })
    });
    numbered_list(request, "data", &all.collect::<Vec<Value>>())
}
