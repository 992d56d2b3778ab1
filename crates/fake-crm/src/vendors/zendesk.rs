//! Zendesk Support, `api/v2`: contacts are users with the role `end-user`.
//!
//! From Zendesk's API reference (incremental exports, users, tickets, webhooks and their verification, rate limits, Talk
//! Partner Edition), 2026. The incremental export leaves the newest minute out (knob `hold_back_ms`), shows agents among
//! the others, and the deleted with `active: false`; its last cursor goes on to be good.
//! **Recalled**: `users/me` answers a caller without credentials as an anonymous user; 422 for a start within the last
//! minute; deleted users are still found by id; an edit of the notes is told as `user.notes_changed`.

mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::{Person, base64, iso, number_of, sha256};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::clock;
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};

pub(crate) struct Zendesk;

const CONTACTS_FROM: u64 = 900_000_000;
const AGENTS_FROM: usize = 100;
const ORGANIZATIONS_FROM: u64 = 360_000_000;

const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("account", 200, Duration::from_secs(60), Turn::Fixed, each_call),
    LimitSpec::new("export", 10, Duration::from_secs(60), Turn::Fixed, |op| {
        u64::from(op == Op::Changes)
    }),
];

impl Vendor for Zendesk {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let ["api", "v2", path @ ..] = path.as_slice() else {
            return None;
        };
        let path: Vec<&str> = path.iter().map(|part| part.trim_end_matches(".json")).collect();
        let op = match (method, path.as_slice()) {
            ("GET", ["users", "me"]) => Op::Check,
            ("GET", ["incremental", "users", "cursor"]) => Op::Changes,
            ("GET", ["users", "show_many"]) => Op::Batch,
            ("GET", ["users"]) if roles(request).contains(&"end-user") => Op::List,
            ("GET", ["users"]) => Op::Users,
            ("GET", ["deleted_users"]) => Op::Deleted,
            ("GET", ["users", _, "tickets", "requested"]) => Op::Tickets,
            ("GET", ["organizations", "show_many"]) => Op::Companies,
            ("POST", ["users"]) => Op::CreateContact,
            ("PUT", ["users", _]) => Op::UpdateContact,
            ("POST", ["tickets"]) => Op::CreateTicket,
            ("POST", ["channels", "voice", "tickets"]) => Op::CreateCall,
            ("GET", ["webhooks"] | ["webhooks", _, "signing_secret"]) => Op::Hooks,
            ("POST", ["webhooks"]) => Op::Subscribe,
            ("DELETE", ["webhooks", _]) => Op::Unsubscribe,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        if let Some((user, password)) = request.basic() {
            return user.ends_with("/token") && state.accepts(Some(&password));
        }
        state.accepts(request.bearer())
    }

    fn credential<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.bearer().or_else(|| request.authorization("Basic"))
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Check => Ok(reading::me(state)),
            Op::Changes => reading::export(state, request),
            Op::Batch => reading::show_many(state, request),
            Op::List => reading::list(state, request),
            Op::Users => reading::agents(state, request),
            Op::Deleted => reading::deleted(state, request),
            Op::Tickets => reading::requested(state, request),
            Op::Companies => reading::organizations(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_ticket(state, request),
            Op::CreateCall => writing::create_call(state, request),
            Op::Hooks => hooks(state, request),
            Op::Subscribe => subscribe(state, request),
            Op::Unsubscribe => unsubscribe(state, request),
            _ => Err(ApiError::new(404, "InvalidEndpoint", "Not found")),
        }
    }

    fn refuse(&self, _: &State, request: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, description: &str| {
            Reply::json(status, &json!({"error": code, "description": description}))
        };
        match refused {
            Refused::Unauthorized { given: None } if self.route(request) == Some(Op::Check) => {
                let nobody =
                    json!({"id": null, "name": "Anonymous user", "email": "invalid@example.com", "role": "end-user"});
                Reply::ok(&json!({"user": nobody}))
            }
            Refused::Unauthorized { .. } => {
                Reply::json(StatusCode::UNAUTHORIZED, &json!({"error": "Couldn't authenticate you"}))
            }
            Refused::NoOperation => error(StatusCode::NOT_FOUND, "InvalidEndpoint", "Not found"),
            Refused::Throttled { seconds, .. } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "APIRateLimitExceeded",
                "Number of allowed API requests per minute exceeded",
            )
            .header("retry-after", seconds),
            Refused::Broken(status) => error(*status, "InternalError", "Something went wrong"),
            Refused::Failed(wrong) if wrong.status == StatusCode::UNPROCESSABLE_ENTITY => {
                let code = if wrong.code == "invalid" {
                    "RecordInvalid"
                } else {
                    wrong.code
                };
                error(wrong.status, code, &wrong.message)
            }
            Refused::Failed(wrong) if wrong.status == StatusCode::NOT_FOUND => {
                error(wrong.status, "RecordNotFound", "Not found")
            }
            Refused::Failed(wrong) => error(wrong.status, "InvalidValue", &wrong.message),
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| match charge.name {
            "account" => reply
                .header("x-rate-limit", charge.limit.max)
                .header("x-rate-limit-remaining", charge.remaining)
                .header("ratelimit-limit", charge.limit.max)
                .header("ratelimit-remaining", charge.remaining)
                .header("ratelimit-reset", charge.reset_seconds()),
            _ => {
                let (max, left, reset) = (charge.limit.max, charge.remaining, charge.reset_seconds());
                let told = format!("total={max}; remaining={left}; resets={reset}");
                reply.header("zendesk-ratelimit-incremental-exports", told)
            }
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -u 'admin@example.com/token:{token}' '{base}/api/v2/incremental/users/cursor?start_time=0'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.hold_back_ms = 60_000;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        (CONTACTS_FROM + id).to_string()
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        id.parse::<u64>().ok()?.checked_sub(CONTACTS_FROM).filter(|&id| id > 0)
    }

    fn user_id(&self, ordinal: usize) -> String {
        (AGENTS_FROM + ordinal).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let id = self.contact_id(event.contact);
        let account = number_of(&hook.state.account, 8);
        let now = hook.state.contacts.newest(event.contact);
        let person = now.map(|record| Person::new(hook.state, event.contact, record));
        let uuid = format!("5b3b6bd2-0000-4000-8000-{:012x}", event.number);
        let mut told = json!({
            "type": format!("zen:event-type:user.{}", kind(event.kind)),
            "account_id": account,
            "id": uuid,
            "time": iso(event.at),
            "zen_event_version": "2022-06-20",
            "subject": format!("zen:user:{id}"),
            "detail": {
                "id": id, "role": "end-user", "email": person.as_ref().and_then(|person| person.email(0)),
                "created_at": person.as_ref().map(|person| iso(person.created)),
                "updated_at": person.as_ref().map(|person| iso(person.modified)),
            },
            "event": {},
        });
        if let Some(into) = event.into {
            told["event"] = json!({"user": {"id": self.contact_id(into)}});
        }
        let body = told.to_string();
        let timestamp = iso(hook.now_ms);
        let signature = sha256(&hook.webhook.secret, &[timestamp.as_bytes(), body.as_bytes()]);
        Outgoing::json(hook, body)
            .header("x-zendesk-account-id", account)
            .header("x-zendesk-webhook-id", hook.id)
            .header("x-zendesk-webhook-invocation-id", uuid)
            .header("x-zendesk-webhook-signature", base64(signature))
            .header("x-zendesk-webhook-signature-timestamp", timestamp)
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "created",
        EventKind::Updated => "notes_changed",
        EventKind::Merged => "merged",
        EventKind::Deleted | EventKind::Archived => "deleted",
    }
}

fn roles<'a>(request: &'a Request) -> Vec<&'a str> {
    let roles = request.queries().filter(|(name, _)| matches!(*name, "role" | "role[]"));
    roles.map(|(_, role)| role).collect()
}

// ---- webhooks

fn hook(id: &str, known: &Subscription) -> Value {
    json!({
        "id": id, "name": known.made_of["name"], "endpoint": known.webhook.url, "http_method": "POST",
        "request_format": "json", "status": "active", "subscriptions": known.made_of["subscriptions"],
    })
}

fn hooks(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let subscriptions = &state.outbox.subscriptions;
    if request.segment(3).is_empty() {
        let hooks: Vec<Value> = subscriptions.iter().map(|(id, known)| hook(id, known)).collect();
        return Ok(Reply::ok(&json!({"webhooks": hooks, "meta": {"has_more": false}})));
    }
    let known = subscriptions.get(request.segment(3)).ok_or_else(no_contact)?;
    let secret = json!({"algorithm": "SHA256", "secret": known.webhook.secret});
    Ok(Reply::ok(&json!({"signing_secret": secret})))
}

fn subscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let asked = &body["webhook"];
    let endpoint = asked["endpoint"].as_str().ok_or_else(|| bad("endpoint is missing"))?;
    let every = [
        EventKind::Created,
        EventKind::Updated,
        EventKind::Deleted,
        EventKind::Merged,
        EventKind::Archived,
    ];
    let wanted = asked["subscriptions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let wanted: Vec<&str> = wanted
        .filter_map(|name| name.strip_prefix("zen:event-type:user."))
        .collect();
    if wanted.is_empty() {
        return Err(bad("this fake tells of zen:event-type:user.* only"));
    }
    let kinds = every.into_iter().filter(|event| wanted.contains(&kind(*event)));
    let mark = format!("{} {endpoint} {}", state.account, clock::now_ms());
    let secret = base64(sha256("secret of a webhook", &[mark.as_bytes()]));
    let webhook = Webhook::new(endpoint, secret.clone());
    webhook.check().map_err(bad)?;
    let subscription = Subscription {
        kinds: kinds.collect(),
        made_of: asked.clone(),
        ..Subscription::new(webhook)
    };
    if subscription.kinds.is_empty() {
        return Err(bad("this fake makes none of these events"));
    }
    let id = state.add_hook(|number| format!("01ABCDEFGHJKMNPQRSTVWX{number:04}"), subscription);
    let mut made = hook(&id, &state.outbox.subscriptions[&id]);
    made["signing_secret"] = json!({"algorithm": "SHA256", "secret": secret});
    Ok(Reply::created(&json!({"webhook": made})))
}

fn unsubscribe(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    if state.outbox.unsubscribe(request.segment(3)) {
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    } else {
        Err(no_contact())
    }
}
