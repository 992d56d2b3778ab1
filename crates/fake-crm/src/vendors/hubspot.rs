//! HubSpot CRM, v3 objects (and v4 associations).
//!
//! From HubSpot's public API specifications (contacts, tickets, owners, account info) and its pages on search, usage limits,
//! webhooks and request validation, 2026. Search lags behind the objects, which the list and `batch/read` show at once, as
//! do webhooks.
//! **Recalled**: policy name `SECONDLY` of the search limit; 207 for a batch in which ids are missing; association type ids;
//! stages 1 to 4 of the default ticket pipeline; a contact that was merged away is in no list.

mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{Person, base64, number_of, sha256};
use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::webhooks::{Event, EventKind};
use crate::wire::{Reply, Request};

pub(crate) struct HubSpot;

const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("ten_secondly", 100, Duration::from_secs(10), Turn::Rolling, |op| {
        u64::from(!matches!(op, Op::Changes | Op::Token))
    }),
    LimitSpec::new("search", 5, Duration::from_secs(1), Turn::Rolling, |op| {
        u64::from(op == Op::Changes)
    }),
    LimitSpec::new("daily", 250_000, Duration::from_secs(86_400), Turn::Daily, each_call),
];

const DEFAULT_PROPERTIES: [&str; 6] = [
    "createdate",
    "email",
    "firstname",
    "hs_object_id",
    "lastmodifieddate",
    "lastname",
];

impl Vendor for HubSpot {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let archived = request.query("archived") == Some("true");
        let op = match (method, path.as_slice()) {
            ("GET", ["account-info", "v3", "details"]) => Op::Check,
            ("GET", ["crm", "v3", "objects", "contacts"]) if archived => Op::Deleted,
            ("GET", ["crm", "v3", "objects", "contacts"]) => Op::List,
            ("POST", ["crm", "v3", "objects", "contacts"]) => Op::CreateContact,
            ("POST", ["crm", "v3", "objects", "contacts", "search"]) => Op::Changes,
            ("POST", ["crm", "v3", "objects", "contacts", "batch", "read"]) => Op::Batch,
            ("PATCH", ["crm", "v3", "objects", "contacts", _]) => Op::UpdateContact,
            ("GET", ["crm", "v3", "owners"]) => Op::Users,
            ("GET", ["crm", "v4", "objects", "contacts", _, "associations", "tickets"]) => Op::Tickets,
            ("POST", ["crm", "v3", "objects", "tickets", "batch", "read"]) => Op::TicketBatch,
            ("POST", ["crm", "v3", "objects", "tickets"]) => Op::CreateTicket,
            ("POST", ["crm", "v3", "objects", "notes"]) => Op::CreateNote,
            ("POST", ["crm", "v3", "objects", "calls"]) => Op::CreateCall,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(details(state)),
            Op::List => reading::list(state, request),
            Op::Deleted => reading::archived(state, request),
            Op::Changes => reading::search(state, request),
            Op::Batch => reading::batch(state, request),
            Op::Users => reading::owners(state, request),
            Op::Tickets => reading::associations(state, request),
            Op::TicketBatch => reading::tickets(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_ticket(state, request),
            Op::CreateNote => writing::create_note(state, request),
            Op::CreateCall => writing::create_call(state, request),
            _ => Err(ApiError::new(404, "OBJECT_NOT_FOUND", "no such operation")),
        }
    }

    fn refuse(&self, state: &State, _: &Request, refused: &Refused) -> Reply {
        let correlation = correlation(state);
        let error = |status: StatusCode, category: &str, message: &str| {
            let body = json!({
                "status": "error", "message": message, "correlationId": correlation, "category": category,
            });
            Reply::json(status, &body)
        };
        match refused {
            Refused::Unauthorized { given } => {
                let message = match given {
                    Some(_) => "The OAuth token used to make this call is not valid.",
                    None => "Authentication credentials not found.",
                };
                error(StatusCode::UNAUTHORIZED, "INVALID_AUTHENTICATION", message)
            }
            Refused::NoOperation => Reply::bytes(
                StatusCode::NOT_FOUND,
                "text/html; charset=utf-8",
                b"<html><body><h1>404 Not Found</h1></body></html>".to_vec(),
            ),
            Refused::Throttled { why, charge, .. } => {
                let policy = match (why, charge.map(|charge| charge.name)) {
                    (Throttle::Window, Some("daily")) => "DAILY",
                    (_, Some("search")) => "SECONDLY",
                    _ => "TEN_SECONDLY_ROLLING",
                };
                let body = json!({
                    "status": "error", "message": format!("You have reached your {} limit.", policy.to_lowercase()),
                    "errorType": "RATE_LIMIT", "correlationId": correlation, "policyName": policy,
                });
                Reply::json(StatusCode::TOO_MANY_REQUESTS, &body)
            }
            Refused::Broken(status) => error(*status, "SERVER_ERROR", "internal error"),
            Refused::Failed(wrong) => {
                // The CRM knows no 422: what it does not like is a 400.
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let category = match status {
                    StatusCode::NOT_FOUND => "OBJECT_NOT_FOUND",
                    StatusCode::CONFLICT => "CONFLICT",
                    _ => "VALIDATION_ERROR",
                };
                error(status, category, &wrong.message)
            }
        }
    }

    /// Answers to searches tell nothing of limits, and no answer to an OAuth call tells of the day.
    fn stamp(&self, state: &State, reply: Reply, charges: &[Charge]) -> Reply {
        let of = |name| charges.iter().find(|charge| charge.name == name);
        let Some(ten) = of("ten_secondly") else { return reply };
        let reply = reply
            .header("x-hubspot-ratelimit-max", ten.limit.max)
            .header("x-hubspot-ratelimit-remaining", ten.remaining)
            .header(
                "x-hubspot-ratelimit-interval-milliseconds",
                ten.limit.window.as_millis(),
            );
        match of("daily").filter(|_| state.viewer.is_none()) {
            None => reply,
            Some(daily) => reply
                .header("x-hubspot-ratelimit-daily", daily.limit.max)
                .header("x-hubspot-ratelimit-daily-remaining", daily.remaining),
        }
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/crm/v3/objects/contacts?limit=2'")
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn tells_at_once(&self) -> bool {
        true
    }

    fn user_id(&self, ordinal: usize) -> String {
        (10_000 + ordinal).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let events: Vec<Value> = hook.events.iter().map(|event| told(hook, event)).collect();
        let body = Value::from(events).to_string();
        let timestamp = hook.now_ms.to_string();
        let signed = sha256(
            &hook.webhook.secret,
            &[
                b"POST",
                hook.webhook.url.as_bytes(),
                body.as_bytes(),
                timestamp.as_bytes(),
            ],
        );
        Outgoing::json(hook, body)
            .header("x-hubspot-signature-version", "v3")
            .header("x-hubspot-signature-v3", base64(signed))
            .header("x-hubspot-request-timestamp", timestamp)
    }

    fn hook_batch(&self) -> usize {
        100
    }
}

fn correlation(state: &State) -> String {
    let number = state.meter.stats.counted;
    format!("aeb5f871-7f07-4993-9211-{number:012x}")
}

fn portal(state: &State) -> u64 {
    number_of(&state.account, 8)
}

fn details(state: &State) -> Reply {
    let offset = state.knobs.zone().to_offset(jiff::Timestamp::now()).seconds();
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    Reply::ok(&json!({
        "portalId": portal(state),
        "accountType": "STANDARD",
        "timeZone": state.knobs.time_zone,
        "companyCurrency": "EUR",
        "additionalCurrencies": [],
        "utcOffset": format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
        "utcOffsetMilliseconds": offset * 1000,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }))
}

// ---- webhooks

fn told(hook: &Hook, event: &Event) -> Value {
    let portal = portal(hook.state);
    let kind = match event.kind {
        EventKind::Created => "contact.creation",
        EventKind::Updated => "contact.propertyChange",
        EventKind::Deleted | EventKind::Archived => "contact.deletion",
        EventKind::Merged => "contact.merge",
    };
    let mut told = json!({
        "eventId": event.number,
        "subscriptionId": 1_000 + event.kind as u64,
        "portalId": portal,
        "appId": 1_160_452,
        "occurredAt": event.at,
        "subscriptionType": kind,
        "attemptNumber": hook.attempt - 1,
        "objectId": event.contact,
        "changeSource": "CRM",
    });
    match (event.kind, event.into) {
        (EventKind::Updated, _) => {
            told["propertyName"] = "jobtitle".into();
            let now = hook.state.contacts.newest(event.contact);
            let value = now.map(|record| Person::new(hook.state, event.contact, record).row.job_title);
            told["propertyValue"] = value.into();
        }
        (EventKind::Merged, Some(into)) => {
            told["objectId"] = into.into();
            told["primaryObjectId"] = into.into();
            told["mergedObjectIds"] = json!([event.contact]);
            told["numberOfPropertiesMoved"] = 0.into();
        }
        _ => {}
    }
    told
}
