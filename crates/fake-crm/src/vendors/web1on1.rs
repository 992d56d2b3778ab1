//! Web1on1 (ChipChat), `v2`.
//!
//! From Web1on1's pages on API basics, authentication, fetching resources and webhooks, from its recipe on contact
//! synchronisation and from its SDK, 2026. A comparator stands inside a value (`updatedAt=>=…`), the next page is in the
//! `Link` header, filters are joined with "and" and those that it does not know are ignored, and `PATCH` merges the top level
//! only: nested objects and arrays are replaced. A new webhook is asked for a challenge before it is told anything; whatever is
//! written through the API comes back as an event, with the record as it was at that time.
//! **Recalled** or guessed, as nothing says it: at most 100 contacts a page; the list of conversations as what happened with
//! a contact; a note as a message; no list of the deleted; `contact.delete`, and that it holds ids only; the fields of a user.

mod hooks;
mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::shapes::{self, iso_ms, number_of};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, no_contact};
use crate::clock;
use crate::limits::{LimitSpec, Turn, each_call};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};

pub(crate) struct Web1on1;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "second",
    20,
    Duration::from_secs(1),
    Turn::Fixed,
    each_call,
)];

const LIMITS_PER_ADDRESS: &[LimitSpec] = &[LimitSpec::new(
    "address",
    20,
    Duration::from_secs(1),
    Turn::Rolling,
    each_call,
)];

const CHALLENGE: &str = "Qm9uam91ciBsZSBtb25kZQ";

impl Vendor for Web1on1 {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["v2", path @ ..] = path.as_slice() else {
            return None;
        };
        let op = match (method, path) {
            ("POST", ["auth", "token"]) => Op::Token,
            ("GET", ["users", "me"]) => Op::Check,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["contacts"]) if reading::looks_for_somebody(request) => Op::Find,
            ("GET", ["contacts"]) if request.query("updatedAt").is_some() => Op::Changes,
            ("GET", ["contacts"]) if request.query("id").is_some_and(|ids| ids.starts_with('[')) => Op::Batch,
            ("GET", ["contacts"]) => Op::List,
            ("GET", ["contacts", _]) => Op::Batch,
            ("PATCH", ["contacts", _]) => Op::UpdateContact,
            ("GET", ["conversations"]) => Op::Tickets,
            ("POST", ["conversations"]) => Op::CreateContact,
            ("POST", ["messages"]) => Op::CreateNote,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        self.route(request) == Some(Op::Token) || state.accepts(request.bearer())
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Token => token(state, request),
            Op::Check => Ok(Reply::ok(&reading::user(state, caller(state)))),
            Op::Users => reading::users(state, request),
            Op::Batch if !request.segment(2).is_empty() => reading::one(state, request),
            Op::Changes | Op::List | Op::Find | Op::Batch => reading::contacts(state, request),
            Op::UpdateContact => writing::patch(state, request),
            Op::Tickets => reading::conversations(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::CreateNote => writing::note(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, state: &State, request: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, message: &str| Reply::json(status, &json!({"error": {"message": message}}));
        match refused {
            Refused::Unauthorized { given } => {
                let known = request.bearer().is_some_and(|token| state.sessions.contains_key(token));
                let message = match given {
                    Some(_) if known => "jwt expired",
                    Some(_) => "invalid token",
                    None => "no token was given",
                };
                let status = match given {
                    Some(_) if state.knobs.expired_403 => StatusCode::FORBIDDEN,
                    _ => StatusCode::UNAUTHORIZED,
                };
                error(status, message)
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "not found"),
            Refused::Throttled { .. } => error(StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Refused::Broken(status) => error(*status, "Something broke"),
            Refused::Failed(wrong) => error(wrong.status, &wrong.message),
        }
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn limits_per_address(&self) -> &'static [LimitSpec] {
        LIMITS_PER_ADDRESS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/v2/contacts?limit=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.no_tombstones = true;
        knobs.access_life_ms = 24 * 3600 * 1000;
    }

    fn contact_id(&self, id: u64) -> String {
        format!("60aa0000c0ff{id:012x}")
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        let hex = id.strip_prefix("60aa0000c0ff").filter(|hex| hex.len() == 12)?;
        u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        format!("60aa00005e50{ordinal:012x}")
    }

    fn conversation_id(&self, contact: u64) -> Option<String> {
        Some(format!("60aa00000c04{contact:012x}"))
    }

    fn organization_id(&self, account: &str) -> String {
        format!("5c1300000000{:012x}", number_of(account, 9))
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let body = hooks::told(hook).to_string();
        let signature = hex::encode(shapes::sha1(&hook.webhook.secret, &[body.as_bytes()]));
        Outgoing::json(hook, body).header("x-hub-signature", format!("sha1={signature}"))
    }

    fn greets(&self) -> bool {
        true
    }

    fn greeting(&self, hook: &Hook) -> Option<Outgoing> {
        let joint = if hook.webhook.url.contains('?') { '&' } else { '?' };
        Some(Outgoing {
            get: true,
            url: format!("{}{joint}type=subscribe&challenge={CHALLENGE}", hook.webhook.url),
            expects: Some(CHALLENGE.to_owned()),
            ..Outgoing::json(hook, "")
        })
    }

    fn tells(&self, kind: EventKind) -> bool {
        kind != EventKind::Archived
    }

    fn tells_of_users(&self) -> bool {
        true
    }
}

fn organization(state: &State) -> String {
    Web1on1.organization_id(&state.account)
}

/// The user whose token it is.
fn caller(state: &State) -> usize {
    state.viewer.unwrap_or(1)
}

fn token(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let by_password = body["email"].as_str().and(body["password"].as_str());
    let secret = body["clientId"]
        .as_str()
        .and(body["refreshToken"].as_str())
        .or(by_password);
    if !secret.is_some_and(|secret| state.tokens.iter().any(|token| token == secret)) {
        return Err(ApiError::new(401, "unauthorized", "invalid credentials"));
    }
    let refresh = secret.unwrap_or_default().to_owned();
    let (token, seconds) = state.mint();
    let until = clock::now_ms() + seconds as i64 * 1000;
    Ok(Reply::created(&json!({
        "tokenType": "Bearer", "token": token, "refreshToken": refresh, "user": Web1on1.user_id(1),
        "organization": organization(state), "expiresAt": iso_ms(until), "scope": "bot",
    })))
}
