//! The fake's own API: everything a bridge needs, in the plainest form, and every trap behind a knob.

mod people;

use std::collections::BTreeSet;

use axum::extract::Query;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact, shown};
use crate::data::{self, Row, Ticket, User};
use crate::knobs::EndlessCursor;
use crate::limits::Charge;
use crate::state::Record;
use crate::webhooks::{SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};
use crate::wire::{JSON, Reply, Request};
use crate::writes;

pub(crate) struct House;

impl Vendor for House {
    fn claims(&self, account: &str, request: &Request) -> bool {
        request.segment(0) == "api" && request.segment(1) == account
    }

    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let op = match (method, path.get(2..)?) {
            ("GET", ["me"]) => Op::Check,
            ("GET", ["contacts"]) => Op::List,
            ("GET", ["contacts", "changes"]) => Op::Changes,
            ("POST", ["contacts", "batch"]) => Op::Batch,
            ("GET", ["contacts", "deleted"]) => Op::Deleted,
            ("GET", ["contacts", "ids"]) => Op::Ids,
            ("GET", ["contacts", "find"]) => Op::Find,
            ("GET", ["contacts", _]) => Op::Batch,
            ("PATCH", ["contacts", _]) => Op::UpdateContact,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["contacts", _, "tickets"]) => Op::Tickets,
            ("POST", ["contacts"]) => Op::CreateContact,
            ("POST", ["contacts", _, "tickets"]) => Op::CreateTicket,
            ("POST", ["contacts", _, "calls"]) => Op::CreateCall,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        let (uri, body) = (request.uri, request.body);
        let contact = request.segment(3).parse().unwrap_or(0);
        let json = match op {
            Op::Check => json(&me(state)),
            Op::List => json(&list(state, &query(uri)?)?),
            Op::Changes => json(&changes(state, &query(uri)?)?),
            Op::Find => json(&people::find(state, &query(uri)?)?),
            Op::Batch if request.method == http::Method::GET => json(&people::one(state, contact)?),
            Op::Batch => json(&batch(state, body)?),
            Op::UpdateContact => json(&people::change(state, contact, body)?),
            Op::Deleted => json(&deleted(state, &query(uri)?)?),
            Op::Ids => json(&ids(state, &query(uri)?)?),
            Op::Users => json(&users(state, &query(uri)?)?),
            Op::Tickets => json(&tickets(state, contact)?),
            Op::CreateContact => json(&writes::read_contact(state, body)?),
            Op::CreateTicket => json(&writes::read_ticket(state, contact, body)?),
            Op::CreateCall => json(&writes::read_call(state, contact, body)?),
            _ => return Err(ApiError::new(404, "not_found", "no such operation")),
        };
        let status = if op.is_write() && op != Op::UpdateContact {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(Reply::bytes(status, JSON, json))
    }

    fn refuse(&self, state: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status, code, message: &str| Reply::bytes(status, JSON, error_body(code, message));
        match refused {
            Refused::Unauthorized { given } => {
                let message = match given {
                    Some(_) => "the token is not valid",
                    None => "send Authorization: Bearer TOKEN",
                };
                failed(state, &ApiError::new(401, "unauthorized", message), *given)
            }
            Refused::NoOperation => failed(state, &ApiError::new(404, "not_found", "no such operation"), None),
            Refused::Failed(wrong) => failed(state, wrong, None),
            Refused::Throttled { why, seconds, .. } => {
                let message = match why {
                    Throttle::Window => "too many calls in this window",
                    Throttle::Concurrency => "too many calls at the same time",
                    Throttle::Burst => "too many calls",
                };
                error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).header("retry-after", seconds)
            }
            Refused::Broken(status) => error(*status, "unavailable", "something broke"),
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| {
            reply
                .header("x-ratelimit-limit", charge.limit.max)
                .header("x-ratelimit-remaining", charge.remaining)
                .header("x-ratelimit-reset", charge.reset_seconds())
        })
    }

    fn example(&self, base: &str, account: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/api/{account}/contacts?limit=2'")
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let timestamp = hook.now_ms.to_string();
        let body = serde_json::to_vec(hook.events).unwrap_or_default();
        Outgoing::json(hook, body.clone())
            .header(SIGNATURE_HEADER, signature(&hook.webhook.secret, &timestamp, &body))
            .header(TIMESTAMP_HEADER, timestamp)
    }

    fn hook_batch(&self) -> usize {
        100
    }
}

/// 400, 401 and 404, or what Odoo makes of them: 200 and an `error` that tells more than it should.
fn failed(state: &State, error: &ApiError, token: Option<&str>) -> Reply {
    if !state.knobs.errors_as_200 {
        return Reply::bytes(error.status, JSON, error_body(error.code, &error.message));
    }
    let debug = format!(
        "Traceback (most recent call last):\n  File \"crm/dispatch.py\", line 71, in call\n\
         \x20   session.check({:?})\nAccessDenied: {}",
        token.unwrap_or_default(),
        error.message
    );
    let error = json!({"error": {"code": error.code, "message": error.message, "data": {"debug": debug}}});
    Reply::ok(&error)
}

pub(crate) fn error_body(code: &str, message: &str) -> Vec<u8> {
    json!({"error": {"code": code, "message": message}})
        .to_string()
        .into_bytes()
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

fn rows<'a>(state: &State, records: impl IntoIterator<Item = (u64, &'a Record)>) -> Vec<Row> {
    let whole_seconds = state.knobs.whole_second_stamps;
    records
        .into_iter()
        .map(|(id, record)| state.contacts.row(id, record, whole_seconds))
        .collect()
}

fn me(state: &State) -> serde_json::Value {
    let account = &state.account;
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    let own = state.knobs.own_contacts && state.viewer.is_some();
    json!({
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
