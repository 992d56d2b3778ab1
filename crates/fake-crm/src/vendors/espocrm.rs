//! EspoCRM 9, `api/v1`.
//!
//! From EspoCRM's OpenAPI document and its documentation (API, search parameters, webhooks), and from the source for the
//! page limit of 200, for totals that are switched off and for the two signatures, 2026. The product has no rate limit and
//! no list of what was deleted. A webhook is of one event; it takes a batch of up to 50.
//! **Recalled**: `X-Status-Reason` beside an error, whose body is empty; the default order, which is newest first.
//!
//! A token with a colon is an API key and a secret of a user who signs each request.

mod reading;
mod writing;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{Person, base64, plain, sha256};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};

pub(crate) struct EspoCrm;

const PAGE_MAX: usize = 200;

impl Vendor for EspoCrm {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["api", "v1", path @ ..] = path.as_slice() else {
            return None;
        };
        let op = match (method, path) {
            ("GET", ["App", "user"]) => Op::Check,
            ("GET", ["Contact"]) => match reading::filtered(request) {
                reading::Filtered::Ids => Op::Batch,
                reading::Filtered::Times => Op::Changes,
                reading::Filtered::No => Op::List,
            },
            ("GET", ["Contact", _]) => Op::Batch,
            ("GET", ["Contact", _, "cases"]) => Op::Tickets,
            ("GET", ["Contact", _, "calls" | "meetings"]) => Op::Activities,
            ("GET", ["User"]) => Op::Users,
            ("POST", ["Contact"]) => Op::CreateContact,
            ("PUT" | "PATCH", ["Contact", _]) => Op::UpdateContact,
            ("POST", ["Case"]) => Op::CreateTicket,
            ("POST", ["Note"]) => Op::CreateNote,
            ("POST", ["Call"]) => Op::CreateCall,
            ("GET", ["Webhook"]) => Op::Hooks,
            ("POST", ["Webhook"]) => Op::Subscribe,
            ("DELETE", ["Webhook", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        state.viewer = None;
        match (self.credential(request), request.header("x-hmac-authorization")) {
            (Some(key), _) => !key.contains(':') && state.accepts(Some(key)),
            (None, Some(signed)) => state.tokens.iter().any(|token| is_signed(token, signed, request)),
            (None, None) => false,
        }
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.header("x-api-key")
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(app_user(state)),
            Op::Batch if !request.segment(3).is_empty() => reading::one(state, request),
            Op::List | Op::Changes | Op::Batch => reading::contacts(state, request),
            Op::Users => reading::users(state, request),
            Op::Tickets => reading::cases(state, request),
            Op::Activities => reading::activities(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_case(state, request),
            Op::CreateNote => writing::create_note(state, request),
            Op::CreateCall => writing::create_call(state, request),
            Op::Hooks => Ok(hooks(state)),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(ApiError::new(404, "not_found", "no such operation")),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let reason = |status: StatusCode, reason: &str| Reply::empty(status).header("x-status-reason", reason);
        match refused {
            Refused::Unauthorized { .. } => Reply::empty(StatusCode::UNAUTHORIZED),
            Refused::NoOperation => reason(StatusCode::NOT_FOUND, "Route not found"),
            // What stands before an EspoCRM may have a limit; the product has none.
            Refused::Throttled { seconds, .. } => {
                Reply::empty(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds)
            }
            Refused::Broken(status) => Reply::empty(*status),
            Refused::Failed(wrong) if wrong.status == StatusCode::UNPROCESSABLE_ENTITY => {
                reason(StatusCode::BAD_REQUEST, &wrong.message)
            }
            Refused::Failed(wrong) if wrong.status == StatusCode::CONFLICT => {
                Reply::json(StatusCode::CONFLICT, &json!([{"id": wrong.message}])).header("x-status-reason", wrong.code)
            }
            Refused::Failed(wrong) => reason(wrong.status, &wrong.message),
        }
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'X-Api-Key: {token}' '{base}/api/v1/Contact?maxSize=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.no_tombstones = true;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        format!("5a00c{id:012x}")
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        let hex = id.strip_prefix("5a00c").filter(|hex| hex.len() == 12)?;
        u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        format!("5a005{ordinal:012x}")
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let told = hook.events.iter().map(|event| {
            let id = self.contact_id(event.contact);
            let now = hook.state.contacts.newest(event.contact);
            match (event.kind, now) {
                (EventKind::Created, Some(record)) => reading::contact(&Person::new(hook.state, event.contact, record)),
                // What changed, and no more.
                (EventKind::Updated, Some(record)) => {
                    let person = Person::new(hook.state, event.contact, record);
                    json!({"id": id, "title": person.row.job_title, "modifiedAt": plain(person.modified)})
                }
                _ => json!({"id": id}),
            }
        });
        let body = Value::from(told.collect::<Vec<Value>>()).to_string();
        let digest = sha256(&hook.webhook.secret, &[body.as_bytes()]);
        let signature = base64(format!("{}:{}", hook.id, hex::encode(&digest)));
        let legacy = base64([hook.id.as_bytes(), b":", &digest].concat());
        Outgoing::json(hook, body)
            .header("signature", signature)
            .header("x-signature", legacy)
    }

    fn hook_batch(&self) -> usize {
        50
    }

    fn hook_one_kind(&self) -> bool {
        true
    }
}

/// base64(key:HMAC-SHA256(secret, `METHOD /uri`)), the URI being the path below `api/v1/`; hexadecimal, or raw as it was
/// before version 9.
fn is_signed(token: &str, signed: &str, request: &Request) -> bool {
    use ::base64::Engine as _;
    let Some((key, secret)) = token.split_once(':') else {
        return false;
    };
    let Ok(signed) = ::base64::engine::general_purpose::STANDARD.decode(signed) else {
        return false;
    };
    let uri = request.uri.path().trim_start_matches("/api/v1/");
    let digest = sha256(secret, &[request.method.as_str().as_bytes(), b" /", uri.as_bytes()]);
    let prefix = [key.as_bytes(), b":"].concat();
    [hex::encode(&digest).into_bytes(), digest]
        .iter()
        .any(|digest| signed == [prefix.as_slice(), digest].concat())
}

fn app_user(state: &State) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    Reply::ok(&json!({
        "user": {
            "id": EspoCrm.user_id(ordinal),
            "userName": format!("api-{}", state.account),
            "name": user.as_ref().map(|user| format!("{} {}", user.first_name, user.last_name)),
            "emailAddress": user.and_then(|user| user.email),
            "type": "api",
        },
        "acl": {"table": {"Contact": {"read": "all"}}},
        "preferences": {},
        "settings": {"siteUrl": format!("https://{}.espocrm.example", state.account), "timeZone": state.knobs.time_zone},
    }))
}

// ---- webhooks

fn hooks(state: &State) -> Reply {
    let hooks = state.outbox.subscriptions.iter().map(
        |(id, known)| json!({"id": id, "event": known.made_of["event"], "url": known.webhook.url, "isActive": true}),
    );
    let list: Vec<Value> = hooks.collect();
    Reply::ok(&json!({"total": list.len(), "list": list}))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let (Some(event), Some(url)) = (writing::text(&body, "event"), writing::text(&body, "url")) else {
        return Err(bad("Field validation failure; entityType: Webhook, type: required."));
    };
    let kinds = match event.as_str() {
        "Contact.create" => vec![EventKind::Created],
        "Contact.update" => vec![EventKind::Updated],
        "Contact.delete" => vec![EventKind::Deleted, EventKind::Archived, EventKind::Merged],
        other => {
            return Err(ApiError::new(
                403,
                "forbidden",
                format!("Event {other} is not available"),
            ));
        }
    };
    let made = state.outbox.subscriptions.len();
    let mark = format!("{} {event} {url} {made} {}", state.account, state.meter.stats.counted);
    let secret = hex::encode(&sha256("secret of a webhook", &[mark.as_bytes()])[..16]);
    let webhook = Webhook::new(url.clone(), secret.clone());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds,
        made_of: json!({"event": event}),
        ends_when_gone: true,
        ..Subscription::new(webhook)
    };
    let id = state.add_hook(|number| format!("5a00b{number:012x}"), subscription);
    Ok(Reply::ok(
        &json!({"id": id, "event": event, "url": url, "secretKey": secret, "isActive": true}),
    ))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    if state.outbox.unsubscribe(request.segment(3)) {
        Ok(Reply::ok(&json!(true)))
    } else {
        Err(ApiError::new(404, "not_found", "no such webhook"))
    }
}
