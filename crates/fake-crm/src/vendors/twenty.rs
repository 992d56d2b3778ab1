//! Twenty, REST.
//!
//! From Twenty's API and webhook documents and its source (`parameters.utils.ts`, `call-webhook.job.ts`), 2026: pages of 60
//! at most, conditions as `field[operator]:value`, records that are deleted softly, webhooks that are sent once and dropped
//! when there are too many (`drop_every`). Where document and source differ on a webhook's body, this is the source's.
//! Subscriptions (`rest/metadata/webhooks`) are bare rows, as `webhook.controller.ts` answers them.
//! **Recalled**: 400 for a page that is too large; notes and tasks that are tied to a person by a target of their own.

mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{self, Person, iso_ms, sha256};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::limits::{LimitSpec, Turn, each_call};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};

pub(crate) struct Twenty;

const PAGE_MAX: usize = 60;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "minute",
    100,
    Duration::from_secs(60),
    Turn::Rolling,
    each_call,
)];

impl Vendor for Twenty {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["rest", path @ ..] = path.as_slice() else {
            return None;
        };
        let path = path.strip_prefix(&["metadata"]).unwrap_or(path);
        let filter = request.query("filter").unwrap_or_default();
        let op = match (method, path) {
            ("GET", ["people"]) if filter.contains("NOT_NULL") => Op::Deleted,
            ("GET", ["people"]) if filter.contains("updatedAt[") => Op::Changes,
            ("GET", ["people"]) if filter.contains("id[in]") => Op::Batch,
            ("GET", ["people"]) => Op::List,
            ("GET", ["people", _]) => Op::Batch,
            ("GET", ["workspaceMembers"]) if request.query("limit") == Some("1") => Op::Check,
            ("GET", ["workspaceMembers"]) => Op::Users,
            ("GET", ["opportunities"]) => Op::Tickets,
            ("GET", ["taskTargets"]) => Op::Activities,
            ("POST", ["people"]) => Op::CreateContact,
            ("PATCH", ["people", _]) => Op::UpdateContact,
            ("POST", ["tasks" | "taskTargets"]) => Op::CreateTicket,
            ("POST", ["notes" | "noteTargets"]) => Op::CreateNote,
            ("GET", ["webhooks"]) => Op::Hooks,
            ("POST", ["webhooks"]) => Op::Subscribe,
            ("DELETE", ["webhooks", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Batch if !request.segment(2).is_empty() => reading::one(state, request),
            Op::List | Op::Changes | Op::Batch | Op::Deleted => reading::people(state, request),
            Op::Check | Op::Users => reading::members(state, request),
            Op::Tickets | Op::Activities => reading::things(state, op, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket | Op::CreateNote => writing::draft(state, request),
            Op::Hooks => Ok(hooks(state)),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(no_contact()),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, error: &str, message: &str| {
            let body = json!({"statusCode": status.as_u16(), "error": error, "messages": [message]});
            Reply::json(status, &body)
        };
        match refused {
            Refused::Unauthorized { given } => {
                let message = if given.is_some() {
                    "Token invalid."
                } else {
                    "Missing authentication token"
                };
                error(StatusCode::UNAUTHORIZED, "UnauthorizedException", message)
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "NotFoundException", "Cannot find the path"),
            Refused::Throttled { .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequestsException",
                "Limit reached (100 tokens per 60000 ms)",
            ),
            Refused::Broken(status) => error(*status, "InternalServerErrorException", "Internal server error"),
            Refused::Failed(wrong) => {
                let (status, name) = match wrong.status {
                    StatusCode::NOT_FOUND => (StatusCode::NOT_FOUND, "NotFoundException"),
                    _ => (StatusCode::BAD_REQUEST, "BadRequestException"),
                };
                error(status, name, &wrong.message)
            }
        }
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/rest/people?limit=2'")
    }

    fn contact_id(&self, id: u64) -> String {
        uuid("20202020", id)
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        number_in(id, "20202020")
    }

    fn user_id(&self, ordinal: usize) -> String {
        uuid("20209999", ordinal as u64)
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let name = event_name(event.kind);
        let now = hook.state.contacts.newest(event.contact);
        let record = match now {
            Some(record) => reading::person(&Person::new(hook.state, event.contact, record), None, false),
            None => reading::person(
                &Person::gone(hook.state, event.contact, event.at),
                Some(event.at),
                false,
            ),
        };
        let mut body = json!({
            "targetUrl": hook.webhook.url, "eventName": name,
            "objectMetadata": {"id": uuid("0b0ec700", 1), "nameSingular": "person"},
            "workspaceId": uuid("00004059", shapes::number_of(&hook.state.account, 8)),
            "webhookId": uuid("00003002", hook.id.len() as u64), "eventDate": iso_ms(event.at), "record": record,
        });
        if event.kind == EventKind::Updated {
            body["updatedFields"] = json!(["jobTitle"]);
        }
        let (body, timestamp) = (body.to_string(), hook.now_ms.to_string());
        let signature = sha256(&hook.webhook.secret, &[timestamp.as_bytes(), b":", body.as_bytes()]);
        Outgoing::json(hook, body)
            .header("x-twenty-webhook-signature", hex::encode(signature))
            .header("x-twenty-webhook-timestamp", timestamp)
            .header("x-twenty-webhook-nonce", format!("{:032x}", event.number))
    }

    fn hook_attempts(&self) -> u32 {
        1
    }
}

fn uuid(kind: &str, id: u64) -> String {
    format!("{kind}-0000-4000-8000-{id:012x}")
}

fn number_in(id: &str, kind: &str) -> Option<u64> {
    let hex = id
        .strip_prefix(kind)?
        .strip_prefix("-0000-4000-8000-")
        .filter(|hex| hex.len() == 12)?;
    u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
}

fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "person.created",
        EventKind::Updated => "person.updated",
        EventKind::Archived | EventKind::Deleted => "person.deleted",
        EventKind::Merged => "person.destroyed",
    }
}

// ---- webhooks

fn hook(id: &str, known: &Subscription) -> Value {
    json!({
        "id": id, "targetUrl": known.webhook.url, "operations": known.made_of["operations"],
        "description": known.made_of["description"],
    })
}

fn hooks(state: &State) -> Reply {
    let hooks: Vec<Value> = state
        .outbox
        .subscriptions
        .iter()
        .map(|(id, known)| hook(id, known))
        .collect();
    Reply::ok(&json!(hooks))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let url = body["targetUrl"].as_str().ok_or_else(|| bad("targetUrl is missing"))?;
    let operations: Vec<&str> = body["operations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let every = [
        EventKind::Created,
        EventKind::Updated,
        EventKind::Deleted,
        EventKind::Archived,
        EventKind::Merged,
    ];
    let all = operations.iter().any(|name| matches!(*name, "*.*" | "person.*"));
    let kinds: Vec<EventKind> = every
        .into_iter()
        .filter(|kind| all || operations.contains(&event_name(*kind)))
        .collect();
    if kinds.is_empty() {
        return Err(bad("this fake tells of person.* only"));
    }
    let webhook = Webhook::new(url, body["secret"].as_str().unwrap_or_default());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds,
        made_of: json!({"operations": operations, "description": body["description"]}),
        ..Subscription::new(webhook)
    };
    let id = state.add_hook(|number| uuid("20207777", number), subscription);
    let made = hook(&id, &state.outbox.subscriptions[&id]);
    Ok(Reply::created(&made))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let (_, path) = request.target();
    let id = path.last().copied().unwrap_or_default().to_owned();
    if state.outbox.unsubscribe(&id) {
        Ok(Reply::ok(&json!(true)))
    } else {
        Err(no_contact())
    }
}
