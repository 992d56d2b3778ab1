//! The vendor's API: what each operation answers, given the state. No faults and no limits here.

use std::collections::BTreeSet;

use axum::extract::Query;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::account::State;
use crate::data::{self, Row, Ticket, User};
use crate::knobs::EndlessCursor;
use crate::state::Record;
use crate::writes;

/// An operation of the vendor's API, as counters and the knob `fault_ops` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = "check")]
    Check,
    #[serde(rename = "contacts.list")]
    List,
    #[serde(rename = "contacts.changes")]
    Changes,
    #[serde(rename = "contacts.batch")]
    Batch,
    #[serde(rename = "contacts.deleted")]
    Deleted,
    #[serde(rename = "contacts.ids")]
    Ids,
    #[serde(rename = "users")]
    Users,
    #[serde(rename = "contact.tickets")]
    Tickets,
    #[serde(rename = "contacts.create")]
    CreateContact,
    #[serde(rename = "tickets.create")]
    CreateTicket,
    #[serde(rename = "calls.create")]
    CreateCall,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Check => "check",
            Op::List => "contacts.list",
            Op::Changes => "contacts.changes",
            Op::Batch => "contacts.batch",
            Op::Deleted => "contacts.deleted",
            Op::Ids => "contacts.ids",
            Op::Users => "users",
            Op::Tickets => "contact.tickets",
            Op::CreateContact => "contacts.create",
            Op::CreateTicket => "tickets.create",
            Op::CreateCall => "calls.create",
        }
    }

    /// Pages of contacts, after which rows may move (knob `edits_per_page`).
    pub(crate) fn is_page(self) -> bool {
        matches!(self, Op::List | Op::Changes | Op::Ids)
    }

    /// Calls that make something: answered 201.
    pub(crate) fn is_write(self) -> bool {
        matches!(self, Op::CreateContact | Op::CreateTicket | Op::CreateCall)
    }
}

/// One call, taken apart.
pub(crate) struct Call<'a> {
    pub op: Op,
    /// The contact in the path.
    pub contact: Option<u64>,
    pub uri: &'a Uri,
    pub body: &'a [u8],
}

/// Which operation a method and the path below the account ask for.
pub(crate) fn route(method: &Method, path: &str) -> Option<(Op, Option<u64>)> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = match (method.as_str(), segments.as_slice()) {
        ("GET", ["me"]) => (Op::Check, None),
        ("GET", ["contacts"]) => (Op::List, None),
        ("GET", ["contacts", "changes"]) => (Op::Changes, None),
        ("POST", ["contacts", "batch"]) => (Op::Batch, None),
        ("GET", ["contacts", "deleted"]) => (Op::Deleted, None),
        ("GET", ["contacts", "ids"]) => (Op::Ids, None),
        ("GET", ["users"]) => (Op::Users, None),
        ("GET", ["contacts", id, "tickets"]) => (Op::Tickets, Some(id.parse().unwrap_or(0))),
        ("POST", ["contacts"]) => (Op::CreateContact, None),
        ("POST", ["contacts", id, "tickets"]) => (Op::CreateTicket, Some(id.parse().unwrap_or(0))),
        ("POST", ["contacts", id, "calls"]) => (Op::CreateCall, Some(id.parse().unwrap_or(0))),
        _ => return None,
    };
    Some(found)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

pub(crate) fn bad(message: impl Into<String>) -> ApiError {
    ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "bad_request",
        message: message.into(),
    }
}

/// The JSON of a successful call.
pub(crate) fn answer(state: &mut State, account: &str, call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
    let json = match call.op {
        Op::Check => json(&me(state, account)),
        Op::List => json(&list(state, &query(call.uri)?)?),
        Op::Changes => json(&changes(state, &query(call.uri)?)?),
        Op::Batch => json(&batch(state, call.body)?),
        Op::Deleted => json(&deleted(state, &query(call.uri)?)?),
        Op::Ids => json(&ids(state, &query(call.uri)?)?),
        Op::Users => json(&users(state, &query(call.uri)?)?),
        Op::Tickets => json(&tickets(state, call.contact.unwrap_or(0))?),
        Op::CreateContact => json(&writes::contact(state, call.body)?),
        Op::CreateTicket => json(&writes::ticket(state, call.contact.unwrap_or(0), call.body)?),
        Op::CreateCall => json(&writes::call(state, call.contact.unwrap_or(0), call.body)?),
    };
    Ok(json)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data becomes JSON")
}

fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, ApiError> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| bad(error.body_text()))
}

#[derive(Serialize)]
struct Page<T> {
    results: Vec<T>,
    paging: Option<Paging>,
}

#[derive(Serialize)]
struct Results<T> {
    results: Vec<T>,
}

#[derive(Serialize)]
struct Paging {
    next: String,
}

const PAGE_MAX: usize = 500;
const IDS_MAX: usize = 5_000;
const BATCH_MAX: usize = 100;

fn limit(asked: Option<usize>, default: usize, max: usize) -> Result<usize, ApiError> {
    match asked.unwrap_or(default) {
        n if (1..=max).contains(&n) => Ok(n),
        n => Err(bad(format!("limit must be 1 to {max}, not {n}"))),
    }
}

/// Page tokens are opaque to callers: the list they belong to, the place, and a lap that makes endless ones differ.
fn token(list: &str, place: &str, lap: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{place}:{lap}"))
}

fn place<'a>(list: &str, token: &str, decoded: &'a mut String) -> Result<&'a str, ApiError> {
    let wrong = || bad("`after` is no token of this list");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    *decoded = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (place, _lap) = decoded
        .strip_prefix(list)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|rest| rest.rsplit_once(':'))
        .ok_or_else(wrong)?;
    Ok(place)
}

/// The `paging` of a list, with the knob `endless_cursor` applied.
fn paging(state: &mut State, list: &str, sent: Option<&str>, next: Option<String>, first: &str) -> Option<Paging> {
    let next = match (state.knobs.endless_cursor, sent, next) {
        (EndlessCursor::Same, Some(sent), _) => sent.to_owned(),
        (EndlessCursor::Off | EndlessCursor::Same, _, next) => token(list, &next?, 0),
        (EndlessCursor::Cycle, _, next) => {
            state.lap += 1;
            token(list, next.as_deref().unwrap_or(first), state.lap)
        }
    };
    Some(Paging { next })
}

/// Knobs `own_contacts` and `shown_percent`.
fn shown(state: &State, id: u64) -> bool {
    let others = |user| data::owner(id, state.users.len()) != user;
    if state.knobs.own_contacts && state.viewer.is_some_and(others) {
        return false;
    }
    let percent = state.knobs.shown_percent;
    percent >= 100 || data::percentile(state.contacts.seed, id) < percent
}

fn rows<'a>(state: &State, records: impl IntoIterator<Item = (u64, &'a Record)>) -> Vec<Row> {
    let whole_seconds = state.knobs.whole_second_stamps;
    records
        .into_iter()
        .map(|(id, record)| state.contacts.row(id, record, whole_seconds))
        .collect()
}

fn me(state: &State, account: &str) -> serde_json::Value {
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    let own = state.knobs.own_contacts && state.viewer.is_some();
    serde_json::json!({
        "account": {"id": account, "name": format!("Fake CRM of {account}")},
        "user": {"id": format!("u-{ordinal}"), "email": user.and_then(|user| user.email)},
        "visibility": if own { "own" } else { "all" },
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    archived: bool,
}

fn list(state: &mut State, query: &ListQuery) -> Result<Page<Row>, ApiError> {
    let limit = limit(query.limit, 100, PAGE_MAX)?;
    let after = match &query.after {
        None => 0,
        Some(token) => place("list", token, &mut String::new())?
            .parse()
            .map_err(|_| bad("`after` is broken"))?,
    };
    let listed = |(id, record): &(u64, &Record)| (query.archived || !record.archived) && shown(state, *id);
    let wanted = state.contacts.after(after).filter(listed);
    let mut records: Vec<_> = wanted.take(limit + 1).collect();
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|(id, _)| id.to_string());
    let results = rows(state, records);
    let paging = paging(state, "list", query.after.as_deref(), next, "0");
    Ok(Page { results, paging })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangesQuery {
    since: i64,
    until: i64,
    after_id: Option<u64>,
    offset: Option<u64>,
    limit: Option<usize>,
    archived: Option<bool>,
}

fn changes(state: &mut State, query: &ChangesQuery) -> Result<Results<Row>, ApiError> {
    let limit = limit(query.limit, 100, PAGE_MAX)?;
    let window = (query.since, query.until);
    let archived = query.archived.unwrap_or(!state.knobs.hide_archived);
    let keep = |id: u64, record: &Record| (archived || !record.archived) && shown(state, id);
    let records = match (query.offset, query.after_id) {
        (Some(_), Some(_)) => return Err(bad("give `offset` or `after_id`, not both")),
        (Some(offset), None) => {
            if offset.saturating_add(limit as u64) > state.knobs.cap {
                let message = format!("offset paging ends after {} results", state.knobs.cap);
                return Err(ApiError {
                    code: "paging_cap",
                    ..bad(message)
                });
            }
            let found = state.contacts.modified_within(query.since, query.until);
            found
                .filter(|(id, record)| keep(*id, record))
                .skip(offset as usize)
                .take(limit)
                .collect()
        }
        (None, after) => {
            let after = match state.knobs.endless_cursor {
                EndlessCursor::Same => 0,
                _ => after.unwrap_or(0),
            };
            let mut found = state.contacts.modified_after(window, after, limit, keep);
            if state.knobs.endless_cursor == EndlessCursor::Cycle {
                let missing = limit - found.len();
                found.extend(state.contacts.modified_after(window, 0, missing, keep));
            }
            found
        }
    };
    Ok(Results {
        results: rows(state, records),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    ids: Vec<String>,
}

fn batch(state: &State, body: &[u8]) -> Result<Results<Row>, ApiError> {
    let body: BatchBody = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if body.ids.len() > BATCH_MAX {
        return Err(bad(format!("at most {BATCH_MAX} ids")));
    }
    let ids = body
        .ids
        .iter()
        .map(|id| id.parse::<u64>().map_err(|_| bad(format!("`{id}` is no contact id"))));
    // A set: like a database, the answer is in the table's order and names nobody twice.
    let ids = ids.collect::<Result<BTreeSet<u64>, ApiError>>()?;
    let records = ids
        .into_iter()
        .filter(|id| shown(state, *id))
        .filter_map(|id| Some((id, state.contacts.get(id)?)));
    Ok(Results {
        results: rows(state, records),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeletedQuery {
    #[serde(default)]
    since: i64,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Tombstone {
    id: String,
    deleted_at: String,
    merged_into: Option<String>,
}

fn deleted(state: &mut State, query: &DeletedQuery) -> Result<Page<Tombstone>, ApiError> {
    let limit = limit(query.limit, 100, PAGE_MAX)?;
    let after = match &query.after {
        None => (i64::MIN, 0),
        Some(token) => {
            let mut decoded = String::new();
            let parts = place("deleted", token, &mut decoded)?.split_once('/');
            parts
                .and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)))
                .ok_or_else(|| bad("`after` is broken"))?
        }
    };
    let all = state.contacts.deleted(query.since, after);
    let mut found: Vec<_> = all.take(limit + 1).collect();
    if state.knobs.no_tombstones {
        found.clear();
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(at, id, _)| format!("{at}/{id}"));
    let whole_seconds = state.knobs.whole_second_stamps;
    let results = found
        .into_iter()
        .map(|(at, id, into)| Tombstone {
            id: id.to_string(),
            deleted_at: data::stamp_text(at, whole_seconds),
            merged_into: into.map(|id| id.to_string()),
        })
        .collect();
    let paging = paging(state, "deleted", query.after.as_deref(), next, "0/0");
    Ok(Page { results, paging })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdsQuery {
    #[serde(default)]
    after_id: u64,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Ids {
    ids: Vec<String>,
}

fn ids(state: &State, query: &IdsQuery) -> Result<Ids, ApiError> {
    let limit = limit(query.limit, 1_000, IDS_MAX)?;
    let listed = |(id, record): &(u64, &Record)| !record.archived && shown(state, *id);
    let live = |after| state.contacts.after(after).filter(listed).map(|(id, _)| id.to_string());
    let ids = match state.knobs.endless_cursor {
        EndlessCursor::Off => live(query.after_id).take(limit).collect(),
        EndlessCursor::Same => live(0).take(limit).collect(),
        EndlessCursor::Cycle => live(query.after_id).chain(live(0)).take(limit).collect(),
    };
    Ok(Ids { ids })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersQuery {
    after: Option<String>,
    limit: Option<usize>,
}

fn users(state: &mut State, query: &UsersQuery) -> Result<Page<User>, ApiError> {
    let limit = limit(query.limit, 100, PAGE_MAX)?;
    let after: usize = match &query.after {
        None => 0,
        Some(token) => place("users", token, &mut String::new())?
            .parse()
            .map_err(|_| bad("`after` is broken"))?,
    };
    let mut rest = (after.saturating_add(1)..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let (places, results): (Vec<usize>, Vec<User>) = rest.by_ref().take(limit).unzip();
    let next = rest.next().and(places.last()).map(usize::to_string);
    let paging = paging(state, "users", query.after.as_deref(), next, "0");
    Ok(Page { results, paging })
}

/// Those of what was merged into the contact are its own now.
fn tickets(state: &State, contact: u64) -> Result<Results<Ticket>, ApiError> {
    let record = state.contacts.get(contact).ok_or_else(no_contact)?;
    let merged = record.more.as_ref().map(|more| more.merged.as_slice());
    let mut results = Vec::new();
    for id in std::iter::once(&contact).chain(merged.unwrap_or_default()) {
        results.extend(data::tickets(state.contacts.seed, *id));
        results.extend(state.made.tickets_of(*id));
    }
    Ok(Results { results })
}

pub(crate) fn no_contact() -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        message: "no such contact".to_owned(),
    }
}
