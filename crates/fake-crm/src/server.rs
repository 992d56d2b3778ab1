//! The HTTP side: who may call, how often, and what goes wrong on the way back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;

use crate::FakeCrm;
use crate::account::{Account, State};
use crate::api::{ApiError, Op, invalid};
use crate::control::{Control, ControlReply, Refusal, RefusalCode};
use crate::knobs::Knobs;
use crate::limits::Charge;
use crate::profile::Profile;
use crate::vendors::shapes::Grant;
use crate::vendors::{Refused, Throttle, Vendor, house};
use crate::wire::{JSON, Reply, Request};

pub(crate) fn router(crm: FakeCrm) -> Router {
    Router::new()
        .route("/_truth", get(truth))
        .route("/_history", get(history))
        .route("/_stats", get(stats))
        .route("/_control", post(control))
        // What is not the operator's is the vendor's, with the vendor's own paths.
        .fallback(vendor)
        .with_state(crm)
}

struct Answer {
    reply: Reply,
    date_ms: i64,
    way: Way,
}

/// Faults of the way back.
#[derive(Default)]
struct Way {
    freeze: bool,
    slow: Duration,
    cut: bool,
    drip: Option<(usize, Duration)>,
    truncate: bool,
    padding: u64,
}

async fn vendor(Extract(crm): Extract<FakeCrm>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let request = Request::new(&method, &uri, &headers, &body);
    let Some(account) = called(&crm, &request) else {
        return error_response(StatusCode::NOT_FOUND, "not_found", "no such account");
    };
    let answer = decide(&account, &request);
    account.ensure_dispatcher_if_needed();
    let presence = Presence(account.clone());
    if answer.way.freeze {
        account.thawed().await;
    }
    if !answer.way.slow.is_zero() {
        tokio::time::sleep(answer.way.slow).await;
    }
    send(answer, presence)
}

/// The account whose credentials come with the call; without good ones the first that knows the path, or any of a vendor.
fn called(crm: &FakeCrm, request: &Request) -> Option<Arc<Account>> {
    let accounts = &crm.inner.order;
    let claiming: Vec<_> = accounts
        .iter()
        .filter(|account| account.profile.vendor().claims(&account.name, request))
        .collect();
    let admitting = |account: &&&Arc<Account>| {
        let (vendor, mut state) = (account.profile.vendor(), account.lock());
        let grant = Grant::read(request);
        if vendor.route(request) == Some(Op::Token) && grant.secret().is_some() {
            return grant.is_good(&state);
        }
        vendor.admits(&mut state, request)
    };
    let found = match claiming.as_slice() {
        [one] => Some(*one),
        several => several.iter().find(admitting).or(several.first()).copied(),
    };
    let any = || accounts.iter().find(|account| account.profile != Profile::House);
    found.or_else(any).cloned()
}

/// A call that [`decide`] counted as being under way, until its last byte has left or the caller has gone.
struct Presence(Arc<Account>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.lock().meter.leave();
    }
}

fn decide(account: &Account, request: &Request) -> Answer {
    let since_start = account.since_start();
    let vendor = account.profile.vendor();
    let mut state = account.lock();
    let state = &mut *state;
    state.meter.enter();
    let op = vendor.route(request);
    let name = op.map_or("unknown", Op::name);
    *state.meter.stats.calls.entry(name.to_owned()).or_default() += 1;

    let valid = vendor.admits(state, request);
    let reply = if valid && state.knobs.revoke_after != Some(0) {
        if let Some(left) = &mut state.knobs.revoke_after {
            *left -= 1;
        }
        let charges = state.count_call(op, since_start);
        let reply = admitted(state, vendor, op, request, &charges);
        vendor.stamp(state, reply, &charges)
    } else {
        let given = vendor.credential(request);
        vendor.refuse(state, request, &Refused::Unauthorized { given })
    };
    let way = match op {
        Some(op) => way(&mut state.knobs, op, reply.is_whole()),
        None => Way::default(),
    };
    *state.meter.stats.statuses.entry(reply.status.as_u16()).or_default() += 1;
    Answer {
        reply,
        date_ms: state.crm_now(),
        way,
    }
}

/// A call of somebody with valid credentials.
fn admitted(state: &mut State, vendor: &dyn Vendor, op: Option<Op>, request: &Request, charges: &[Charge]) -> Reply {
    let Some(op) = op else {
        return vendor.refuse(state, request, &Refused::NoOperation);
    };
    if let Some(over) = charges.iter().find(|charge| charge.over) {
        return throttled(state, vendor, request, Throttle::Window, Some(over));
    }
    let bound = state.knobs.concurrency;
    if bound.is_some_and(|bound| state.meter.stats.in_flight > bound) {
        state.meter.stats.over_concurrency += 1;
        return throttled(state, vendor, request, Throttle::Concurrency, None);
    }
    let faulty = state.knobs.fault_ops.is_empty() || state.knobs.fault_ops.contains(&op);
    if faulty && take(&mut state.knobs.burst_429) {
        return throttled(state, vendor, request, Throttle::Burst, charges.first());
    }
    if faulty && take(&mut state.knobs.fail_5xx) {
        let status = StatusCode::from_u16(state.knobs.fail_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return vendor.refuse(state, request, &Refused::Broken(status));
    }
    if faulty && take(&mut state.knobs.html_200) {
        let page = b"<!doctype html><title>Sign in</title><form method=post><input name=user></form>".to_vec();
        return Reply::bytes(StatusCode::OK, "text/html; charset=utf-8", page);
    }
    if faulty && op.is_write() && take(&mut state.knobs.refuse_writes) {
        let error = invalid("a rule of this account forbids it");
        return vendor.refuse(state, request, &Refused::Failed(&error));
    }
    if state.knobs.forbidden_ops.contains(&op) {
        let error = ApiError::new(403, "forbidden", format!("{} is not allowed", op.name()));
        return vendor.refuse(state, request, &Refused::Failed(&error));
    }
    match vendor.answer(state, op, request) {
        Ok(reply) => {
            if op.is_page() {
                state.move_rows();
            }
            reply
        }
        Err(error) => vendor.refuse(state, request, &Refused::Failed(&error)),
    }
}

/// The vendor's way to say "later", with the knob `retry_after` in place of what it would tell.
fn throttled(state: &State, vendor: &dyn Vendor, request: &Request, why: Throttle, charge: Option<&Charge>) -> Reply {
    const NAME: &str = "retry-after";
    let seconds = charge.map_or(1, Charge::reset_seconds);
    let mut reply = vendor.refuse(state, request, &Refused::Throttled { why, charge, seconds });
    if let Some(text) = &state.knobs.retry_after {
        reply.headers.retain(|(name, _)| *name != NAME);
        reply.headers.push((NAME, text.clone()));
    }
    reply
}

/// One of the next n.
fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// `whole`: the answer has a body that is worth spoiling.
fn way(knobs: &mut Knobs, op: Op, whole: bool) -> Way {
    if !knobs.fault_ops.is_empty() && !knobs.fault_ops.contains(&op) {
        return Way::default();
    }
    Way {
        freeze: knobs.frozen,
        slow: Duration::from_millis(knobs.slow_ms),
        cut: take(&mut knobs.cut),
        drip: (knobs.drip_ms > 0).then(|| (knobs.drip_bytes.max(1), Duration::from_millis(knobs.drip_ms))),
        truncate: whole && take(&mut knobs.truncate),
        padding: if whole && take(&mut knobs.huge_body) {
            knobs.huge_bytes
        } else {
            0
        },
    }
}

fn send(answer: Answer, presence: Presence) -> Response {
    let Answer { reply, date_ms, way } = answer;
    let Reply {
        status,
        content_type,
        body,
        headers: told,
    } = reply;
    let length = body.len();
    let body = if way.truncate {
        body[..length / 2].to_vec()
    } else {
        body
    };
    let drips = way.drip.is_some();
    let body = if way.cut {
        // It fails before anything of the answer was flushed.
        Body::from_stream(stream::once(async move {
            drop(presence);
            Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
        }))
    } else if way.truncate || way.padding > 0 || drips {
        Body::from_stream(pieces(body, way.padding, way.drip, presence))
    } else {
        Body::from(body)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if way.truncate {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(date) = http_date(date_ms) {
        headers.insert(header::DATE, date);
    }
    for (name, value) in told {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A body without a known length: white space first, then the bytes, in pieces.
fn pieces(
    body: Vec<u8>,
    padding: u64,
    drip: Option<(usize, Duration)>,
    presence: Presence,
) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    const BLOCK: usize = 64 * 1024;
    let space = Bytes::from(vec![b' '; BLOCK]);
    let padding = stream::unfold(padding, move |left| {
        let piece = space.slice(..left.min(BLOCK as u64) as usize);
        async move { (left > 0).then(|| (piece.clone(), left - piece.len() as u64)) }
    });
    let (size, pause) = drip.unwrap_or((usize::MAX, Duration::ZERO));
    let body = stream::unfold((Bytes::from(body), presence), move |(mut left, presence)| async move {
        if left.is_empty() {
            // A body that ends before its promised length breaks the connection, and what the server has not
            // flushed by then is lost, headers included. It flushes while it waits for more.
            tokio::task::yield_now().await;
            return None;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let piece = left.split_to(size.min(left.len()));
        Some((piece, (left, presence)))
    });
    padding.chain(body).map(Ok)
}

fn http_date(ms: i64) -> Option<HeaderValue> {
    let stamp = jiff::Timestamp::from_millisecond(ms).ok()?;
    let text = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&stamp)
        .ok()?;
    HeaderValue::from_str(&text).ok()
}

fn error_response(status: StatusCode, code: &str, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], house::error_body(code, message)).into_response()
}

// ---- the operator's side: not counted, no token

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    account: Option<String>,
}

fn which(crm: &FakeCrm, which: &Which) -> Result<Arc<Account>, Refusal> {
    crm.account_or_first(which.account.as_deref())
}

async fn truth(Extract(crm): Extract<FakeCrm>, Query(query): Query<Which>) -> Response {
    match which(&crm, &query) {
        Ok(account) => {
            let contacts = crate::truth_of(&account);
            let state = account.lock();
            Json(json!({"contacts": contacts, "tickets": state.made.tickets, "calls": state.made.calls, "notes": state.made.notes}))
                .into_response()
        }
        Err(refusal) => refusal_response(&refusal),
    }
}

async fn history(Extract(crm): Extract<FakeCrm>, Query(query): Query<Which>) -> Response {
    match which(&crm, &query) {
        Ok(account) => Json(json!({"edits": account.lock().contacts.history.all()})).into_response(),
        Err(refusal) => refusal_response(&refusal),
    }
}

async fn stats(Extract(crm): Extract<FakeCrm>, Query(query): Query<Which>) -> Response {
    match which(&crm, &query) {
        Ok(account) => {
            let stats = account.lock().stats();
            let mut shown = json!(stats);
            shown["used_ratio"] = json!(stats.used_ratio());
            Json(shown).into_response()
        }
        Err(refusal) => refusal_response(&refusal),
    }
}

async fn control(Extract(crm): Extract<FakeCrm>, body: Bytes) -> Response {
    match serde_json::from_slice::<Control>(&body) {
        Err(error) => refusal_response(&Refusal::bad(error.to_string())),
        Ok(control) => match crm.control(control) {
            ControlReply::Ok(done) => Json(ControlReply::Ok(done)).into_response(),
            ControlReply::Error(refusal) => refusal_response(&refusal),
        },
    }
}

fn refusal_response(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        RefusalCode::BadControl => StatusCode::BAD_REQUEST,
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
    };
    (status, Json(ControlReply::Error(refusal.clone()))).into_response()
}
