//! Zoho CRM, `crm/v8`.
//!
//! From Zoho's API specifications (records, deleted records, users, organisation, notifications) and its pages on API limits
//! and on paging, 2026. Pages 1 to 10 have numbers, later ones a token; nothing to tell is 204, or 304 when asked since.
//! Stamps carry the offset of the organisation's time zone.
//! **Recalled**: a token call that fails is answered 200 with an `error`; a channel lives a day at most; codes of the
//! errors of paging; the fields of a notification beyond `ids`, `operation`, `channel_id` and `token`.

mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{number_of, parse_iso};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, invalid};
use crate::clock;
use crate::limits::{Charge, LimitSpec, Turn};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};

pub(crate) struct Zoho;

const FROM: u64 = 5_725_767_000_000_000_000;
const PAGE_MAX: usize = 200;
const PAGES: usize = 10;
const ROWS_MAX: usize = 100_000;
const CHANNEL_LIFE_MS: i64 = 24 * 3600 * 1000;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "credits",
    50_000,
    Duration::from_secs(86_400),
    Turn::Rolling,
    |op| match op {
        Op::Token => 0,
        Op::Deleted => 2,
        _ => 1,
    },
)];

impl Vendor for Zoho {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let path = match path.as_slice() {
            ["oauth", "v2", "token"] if method == "POST" => return Some(Op::Token),
            ["crm", "v8", rest @ ..] => rest,
            _ => return None,
        };
        let since = request.header("if-modified-since").is_some();
        let op = match (method, path) {
            ("GET", ["org"]) => Op::Check,
            ("GET", ["users"]) if request.query("type") == Some("CurrentUser") => Op::Check,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["Contacts"]) if request.query("ids").is_some() => Op::Batch,
            ("GET", ["Contacts"]) if since => Op::Changes,
            ("GET", ["Contacts"]) => Op::List,
            ("GET", ["Contacts", "deleted"]) => Op::Deleted,
            ("GET", ["Contacts", _, "Cases"]) => Op::Tickets,
            ("POST", ["Contacts"]) => Op::CreateContact,
            ("PUT", ["Contacts", _]) => Op::UpdateContact,
            ("POST", ["Cases"]) => Op::CreateTicket,
            ("POST", ["Contacts", _, "Notes"]) => Op::CreateNote,
            ("POST", ["Calls"]) => Op::CreateCall,
            ("GET", ["actions", "watch"]) => Op::Hooks,
            ("POST", ["actions", "watch"]) => Op::Subscribe,
            ("PUT" | "PATCH", ["actions", "watch"]) => Op::RenewHook,
            ("DELETE", ["actions", "watch"]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        if self.route(request) == Some(Op::Token) {
            return true;
        }
        state.accepts(self.credential(request))
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.authorization("Zoho-oauthtoken")
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Token => Ok(token(state, request)),
            Op::Check => Ok(check(state, request)),
            Op::Users => users(state, request),
            Op::Batch | Op::List | Op::Changes => reading::contacts(state, request),
            Op::Deleted => reading::deleted(state, request),
            Op::Tickets => reading::cases(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_case(state, request),
            Op::CreateNote => writing::create_note(state, request),
            Op::CreateCall => writing::create_call(state, request),
            Op::Hooks => Ok(channels(state, request)),
            Op::Subscribe | Op::RenewHook => watch(state, op, request),
            Op::Unsubscribe => unwatch(state, request),
            _ => Err(ApiError::new(404, "INVALID_URL_PATTERN", "no such operation")),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, message: &str| {
            Reply::json(
                status,
                &json!({"code": code, "details": {}, "message": message, "status": "error"}),
            )
        };
        match refused {
            Refused::Unauthorized { .. } => error(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", "invalid oauth token"),
            Refused::NoOperation => error(
                StatusCode::NOT_FOUND,
                "INVALID_URL_PATTERN",
                "Please check if the URL trying to access is a correct one",
            ),
            Refused::Throttled { .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_REQUESTS",
                "Number of API requests for the 24 hour period is exceeded or the concurrency limit of the user for the app is exceeded",
            ),
            Refused::Broken(status) => error(*status, "INTERNAL_ERROR", "Internal Server Error"),
            Refused::Failed(wrong) => {
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let code = match wrong.code {
                    "bad_request" | "invalid" | "not_found" => "INVALID_DATA",
                    code => code,
                };
                error(status, code, &wrong.message)
            }
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| {
            reply.header("x-api-credits-remaining", charge.remaining)
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!(
            "curl -s -H 'Authorization: Zoho-oauthtoken {token}' '{base}/crm/v8/Contacts?fields=Full_Name,Email&per_page=2'"
        )
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.token_life_ms = 24 * 3600 * 1000;
        knobs.concurrency = knobs.concurrency.or(Some(10));
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        (FROM + id).to_string()
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        id.parse::<u64>().ok()?.checked_sub(FROM).filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        (FROM + 500_000_000_000 + ordinal as u64).to_string()
    }

    /// Ids only, and the subscriber's own word in the body.
    fn hook(&self, hook: &Hook) -> Outgoing {
        let kind = hook.events.first().map(|event| event.kind);
        let operation = match kind {
            Some(EventKind::Created) => "insert",
            Some(EventKind::Updated) => "update",
            _ => "delete",
        };
        let ids: Vec<String> = hook.events.iter().map(|event| self.contact_id(event.contact)).collect();
        let body = json!({
            "server_time": hook.now_ms,
            "module": "Contacts",
            "resource_uri": "https://www.zohoapis.com/crm/v8/Contacts",
            "operation": operation,
            "ids": ids,
            "affected_fields": [],
            "affected_values": [],
            "query_params": {},
            "channel_id": hook.id,
            "token": hook.webhook.secret,
        });
        Outgoing::json(hook, body.to_string())
    }

    fn hook_batch(&self) -> usize {
        100
    }

    fn hook_one_kind(&self) -> bool {
        true
    }
}

// ---- credentials and whom they are of

fn token(state: &mut State, request: &Request) -> Reply {
    let form = request.form();
    let given = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let known = |secret: Option<&str>| secret.is_some_and(|secret| state.tokens.iter().any(|token| token == secret));
    let error = match given("grant_type") {
        Some("client_credentials") if known(given("client_secret")) => None,
        Some("client_credentials") => Some("invalid_client"),
        Some("refresh_token") if known(given("refresh_token")) => None,
        Some("refresh_token") => Some("invalid_code"),
        _ => Some("unsupported_grant_type"),
    };
    if let Some(error) = error {
        return Reply::ok(&json!({"error": error}));
    }
    let (access_token, seconds) = state.mint();
    Reply::ok(&json!({
        "access_token": access_token, "api_domain": request.origin(), "token_type": "Bearer", "expires_in": seconds,
        "scope": "ZohoCRM.modules.ALL ZohoCRM.users.READ ZohoCRM.org.READ ZohoCRM.notifications.ALL",
    }))
}

fn user(state: &State, at: usize) -> Option<Value> {
    let user = state.user(at)?;
    Some(json!({
        "id": Zoho.user_id(at),
        "full_name": format!("{} {}", user.first_name, user.last_name),
        "first_name": user.first_name,
        "last_name": user.last_name,
        "email": user.email,
        "status": if user.active { "active" } else { "inactive" },
        "time_zone": state.knobs.time_zone,
    }))
}

fn check(state: &State, request: &Request) -> Reply {
    if request.segment(2) == "users" {
        return Reply::ok(&json!({"users": [user(state, state.viewer.unwrap_or(1))]}));
    }
    Reply::ok(&json!({"org": [{
        "id": (FROM + 20_000_000).to_string(),
        "zgid": number_of(&state.account, 9).to_string(),
        "company_name": format!("Company of {}", state.account),
        "domain_name": format!("org{}", number_of(&state.account, 9)),
        "time_zone": state.knobs.time_zone,
        "country_code": "PT",
    }]}))
}

/// `page` from 1 and `per_page`.
fn numbered(request: &Request) -> Result<(usize, usize), ApiError> {
    let number = request.number("page")?.unwrap_or(1);
    let size = request.number("per_page")?.unwrap_or(PAGE_MAX);
    if number == 0 || !(1..=PAGE_MAX).contains(&size) {
        return Err(bad(format!("page must be at least 1, per_page 1 to {PAGE_MAX}")));
    }
    Ok((number, size))
}

/// One page of a whole list; 204 when it is empty.
fn numbered_list(request: &Request, name: &str, all: &[Value]) -> Result<Reply, ApiError> {
    let (number, size) = numbered(request)?;
    let shown: Vec<&Value> = all.iter().skip((number - 1) * size).take(size).collect();
    if shown.is_empty() {
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    }
    let more = number * size < all.len();
    let info = json!({"per_page": size, "count": shown.len(), "page": number, "more_records": more});
    let mut body = json!({"info": info});
    body[name] = json!(shown);
    Ok(Reply::ok(&body))
}

fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let active = match request.query("type") {
        None | Some("AllUsers") => None,
        Some("ActiveUsers") => Some("active"),
        Some("DeactiveUsers") => Some("inactive"),
        Some(other) => return Err(bad(format!("type {other}"))),
    };
    let all = (1..=state.users.len()).filter_map(|at| user(state, at));
    let all: Vec<Value> = all
        .filter(|user| active.is_none_or(|status| user["status"] == status))
        .collect();
    numbered_list(request, "users", &all)
}

// ---- notifications

/// The live channels.
fn channels(state: &State, request: &Request) -> Reply {
    let now = clock::now_ms();
    let zone = state.knobs.zone();
    let asked = request.query("channel_id");
    let live = state.outbox.subscriptions.iter().filter(|(id, known)| {
        known.until.is_none_or(|until| now < until) && asked.is_none_or(|asked| asked == id.as_str())
    });
    let shown = live.map(|(id, known)| {
        json!({
            "channel_id": id, "events": known.made_of["events"], "notify_url": known.webhook.url,
            "token": known.webhook.secret, "channel_expiry": known.until.map(|until| reading::stamp(until, &zone)),
            "resource_name": "Contacts",
        })
    });
    let shown: Vec<Value> = shown.collect();
    if shown.is_empty() {
        return Reply::empty(StatusCode::NO_CONTENT);
    }
    Reply::ok(&json!({"watch": shown}))
}

/// Makes a channel under the id that the subscriber chose, or gives it another end.
fn watch(state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["watch"][0];
    let id = asked["channel_id"]
        .as_str()
        .map(str::to_owned)
        .or_else(|| asked["channel_id"].as_u64().map(|id| id.to_string()));
    let id = id.ok_or_else(|| ApiError::new(400, "MANDATORY_NOT_FOUND", "required field not found: channel_id"))?;
    let now = clock::now_ms();
    let until = match asked["channel_expiry"].as_str() {
        None => now + 3600 * 1000,
        Some(text) => parse_iso(text).ok_or_else(|| invalid("channel_expiry must be a datetime"))?,
    };
    if until <= now || until > now + CHANNEL_LIFE_MS {
        return Err(invalid("channel_expiry must be within a day"));
    }
    let token = asked["token"].as_str().unwrap_or_default();
    if token.len() > 50 {
        return Err(invalid("token must have at most 50 characters"));
    }
    if op == Op::RenewHook {
        let known = state
            .outbox
            .subscriptions
            .get_mut(&id)
            .filter(|known| known.until.is_none_or(|until| now < until));
        let known = known.ok_or_else(|| ApiError::new(400, "NOT_SUBSCRIBED", "the channel is not subscribed"))?;
        known.until = Some(until);
        if !token.is_empty() {
            token.clone_into(&mut known.webhook.secret);
        }
    } else {
        let url = writing::required(asked, "notify_url")?;
        let events: Vec<&str> = asked["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut kinds = Vec::new();
        for event in &events {
            kinds.extend(match *event {
                "Contacts.all" => vec![
                    EventKind::Created,
                    EventKind::Updated,
                    EventKind::Deleted,
                    EventKind::Archived,
                    EventKind::Merged,
                ],
                "Contacts.create" => vec![EventKind::Created],
                "Contacts.edit" => vec![EventKind::Updated],
                "Contacts.delete" => vec![EventKind::Deleted, EventKind::Archived, EventKind::Merged],
                other => return Err(invalid(format!("event {other}"))),
            });
        }
        if kinds.is_empty() {
            return Err(ApiError::new(
                400,
                "MANDATORY_NOT_FOUND",
                "required field not found: events",
            ));
        }
        let webhook = Webhook::new(url, token);
        webhook.check().map_err(invalid)?;
        let subscription = Subscription {
            kinds,
            until: Some(until),
            made_of: json!({"events": events}),
            ..Subscription::new(webhook)
        };
        state.add_hook(|_| id.clone(), subscription);
    }
    let event = json!({
        "channel_expiry": reading::stamp(until, &state.knobs.zone()), "resource_uri": "https://www.zohoapis.com/crm/v8/Contacts",
        "resource_name": "Contacts", "channel_id": id,
    });
    let done = json!({
        "code": "SUCCESS", "details": {"events": [event]}, "status": "success",
        "message": "Successfully subscribed for actions-watch of the given module",
    });
    let status = if op == Op::RenewHook {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(Reply::json(status, &json!({"watch": [done]})))
}

fn unwatch(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let ids = request.query("channel_ids").unwrap_or_default();
    let mut gone = 0;
    for id in ids.split(',') {
        gone += usize::from(state.outbox.unsubscribe(id.trim()));
    }
    if gone == 0 {
        return Err(ApiError::new(400, "NOT_SUBSCRIBED", "the channel is not subscribed"));
    }
    Ok(Reply::ok(
        &json!({"watch": [{"code": "SUCCESS", "status": "success", "details": {}, "message": "unsubscribed"}]}),
    ))
}
