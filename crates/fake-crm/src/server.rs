//! The HTTP side: who may call, how often, and what goes wrong on the way back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;

use crate::FakeCrm;
use crate::account::{Account, State};
use crate::api::{self, ApiError, Call, Op};
use crate::control::{Control, ControlReply, Refusal, RefusalCode};
use crate::knobs::Knobs;
use crate::stats::Quota;

pub(crate) fn router(crm: FakeCrm) -> Router {
    Router::new()
        .route("/api/{account}/{*path}", any(vendor))
        .route("/_truth", get(truth))
        .route("/_history", get(history))
        .route("/_stats", get(stats))
        .route("/_control", post(control))
        .fallback(|| async { error_response(StatusCode::NOT_FOUND, "not_found", "no such path") })
        .with_state(crm)
}

const JSON: &str = "application/json";

/// What leaves the CRM, before the network has its way with it.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    quota: Option<Quota>,
    retry_after: Option<String>,
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

async fn vendor(
    Extract(crm): Extract<FakeCrm>,
    Path((name, path)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(account) = crm.account(&name) else {
        return error_response(StatusCode::NOT_FOUND, "not_found", "no such account");
    };
    account.ensure_dispatcher_if_needed();
    let answer = decide(&account, &method, &path, &uri, &headers, &body);
    let presence = Presence(account.clone());
    if answer.way.freeze {
        account.thawed().await;
    }
    if !answer.way.slow.is_zero() {
        tokio::time::sleep(answer.way.slow).await;
    }
    send(answer, presence)
}

/// A call that [`decide`] counted as being under way, until its last byte has left or the caller has gone.
struct Presence(Arc<Account>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.lock().meter.leave();
    }
}

fn decide(account: &Account, method: &Method, path: &str, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
    let since_start = account.since_start();
    let mut state = account.lock();
    let state = &mut *state;
    state.meter.enter();
    let routed = api::route(method, path);
    let name = routed.map_or("unknown", |(op, _)| op.name());
    *state.meter.stats.calls.entry(name.to_owned()).or_default() += 1;

    let token = bearer(headers);
    let issued = token.and_then(|token| state.issuer.as_ref()?.accepts(token));
    state.viewer = issued
        .filter(|viewer| viewer.account == account.name)
        .map(|viewer| viewer.user);
    let valid = state.viewer.is_some() || token.is_some_and(|token| state.tokens.iter().any(|valid| valid == token));
    let mut answer = if valid && state.knobs.revoke_after != Some(0) {
        if let Some(left) = &mut state.knobs.revoke_after {
            *left -= 1;
        }
        let quota = state.count_call(since_start);
        Answer {
            quota,
            ..admitted(state, &account.name, routed, uri, body, quota)
        }
    } else {
        let message = if token.is_some() {
            "the token is not valid"
        } else {
            "send Authorization: Bearer TOKEN"
        };
        let error = ApiError {
            status: StatusCode::UNAUTHORIZED,
            code: "unauthorized",
            message: message.to_owned(),
        };
        refused(state, &error, token)
    };
    if let Some((op, _)) = routed {
        let whole = answer.status.is_success() && answer.content_type == JSON;
        answer.way = way(&mut state.knobs, op, whole);
    }
    *state.meter.stats.statuses.entry(answer.status.as_u16()).or_default() += 1;
    answer
}

/// A call of somebody with a valid token.
fn admitted(
    state: &mut State,
    account: &str,
    routed: Option<(Op, Option<u64>)>,
    uri: &Uri,
    body: &[u8],
    quota: Option<Quota>,
) -> Answer {
    let Some((op, contact)) = routed else {
        let message = "no such operation".to_owned();
        return refused(
            state,
            &ApiError {
                status: StatusCode::NOT_FOUND,
                code: "not_found",
                message,
            },
            None,
        );
    };
    let window = quota.map_or(1, |quota| quota.reset_seconds());
    if quota.is_some_and(|quota| quota.over) {
        return too_many(state, "too many calls in this window", window);
    }
    if state
        .knobs
        .concurrency
        .is_some_and(|bound| state.meter.stats.in_flight > bound)
    {
        state.meter.stats.over_concurrency += 1;
        return too_many(state, "too many calls at the same time", 1);
    }
    let faulty = state.knobs.fault_ops.is_empty() || state.knobs.fault_ops.contains(&op);
    if faulty && take(&mut state.knobs.burst_429) {
        return too_many(state, "too many calls", window);
    }
    if faulty && take(&mut state.knobs.fail_5xx) {
        let status = StatusCode::from_u16(state.knobs.fail_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let error = error_body("unavailable", "something broke");
        return plain(state, status, error);
    }
    if faulty && take(&mut state.knobs.html_200) {
        let page = b"<!doctype html><title>Sign in</title><form method=post><input name=user></form>".to_vec();
        return Answer {
            content_type: "text/html; charset=utf-8",
            ..plain(state, StatusCode::OK, page)
        };
    }
    if faulty && op.is_write() && take(&mut state.knobs.refuse_writes) {
        let error = ApiError {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "invalid",
            message: "a rule of this account forbids it".to_owned(),
        };
        return refused(state, &error, None);
    }
    let call = Call { op, contact, uri, body };
    match api::answer(state, account, &call) {
        Ok(body) => {
            if op.is_page() {
                state.move_rows();
            }
            let status = if op.is_write() {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            plain(state, status, body)
        }
        Err(error) => refused(state, &error, None),
    }
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

fn plain(state: &State, status: StatusCode, body: Vec<u8>) -> Answer {
    Answer {
        status,
        content_type: JSON,
        body,
        quota: None,
        retry_after: None,
        date_ms: state.crm_now(),
        way: Way::default(),
    }
}

fn too_many(state: &State, message: &str, seconds: u64) -> Answer {
    let retry_after = state.knobs.retry_after.clone().unwrap_or_else(|| seconds.to_string());
    let answer = plain(
        state,
        StatusCode::TOO_MANY_REQUESTS,
        error_body("rate_limited", message),
    );
    Answer {
        retry_after: Some(retry_after),
        ..answer
    }
}

/// 400, 401 and 404, or what Odoo makes of them: 200 and an `error` that tells more than it should.
fn refused(state: &State, error: &ApiError, token: Option<&str>) -> Answer {
    if !state.knobs.errors_as_200 {
        return plain(state, error.status, error_body(error.code, &error.message));
    }
    let debug = format!(
        "Traceback (most recent call last):\n  File \"crm/dispatch.py\", line 71, in call\n\
         \x20   session.check({:?})\nAccessDenied: {}",
        token.unwrap_or_default(),
        error.message
    );
    let body = json!({"error": {"code": error.code, "message": error.message, "data": {"debug": debug}}});
    plain(state, StatusCode::OK, body.to_string().into_bytes())
}

fn send(answer: Answer, presence: Presence) -> Response {
    let Answer {
        status,
        content_type,
        body,
        quota,
        retry_after,
        date_ms,
        way,
    } = answer;
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
    if let Some(quota) = quota {
        for (name, value) in [
            ("x-ratelimit-limit", u64::from(quota.max)),
            ("x-ratelimit-remaining", u64::from(quota.remaining)),
            ("x-ratelimit-reset", quota.reset_seconds()),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
    if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(header::RETRY_AFTER, value);
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

fn http_date(ms: i64) -> Option<HeaderValue> {
    let stamp = jiff::Timestamp::from_millisecond(ms).ok()?;
    let text = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&stamp)
        .ok()?;
    HeaderValue::from_str(&text).ok()
}

fn error_body(code: &str, message: &str) -> Vec<u8> {
    json!({"error": {"code": code, "message": message}})
        .to_string()
        .into_bytes()
}

fn error_response(status: StatusCode, code: &str, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], error_body(code, message)).into_response()
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
            Json(json!({"contacts": contacts, "tickets": state.made.tickets, "calls": state.made.calls}))
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
