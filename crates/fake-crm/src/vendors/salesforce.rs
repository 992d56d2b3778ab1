//! Salesforce, REST API (any version of `/services/data/vNN.0`) and outbound messages.
//!
//! From Salesforce's REST, SOQL and SOAP outbound message guides, 2026. The base address comes from the token's
//! `instance_url`, and from `urls.custom_domain` of userinfo; error bodies are arrays; the limit header has two pairs; a
//! message wants its `Ack`.
//! **Recalled**: stamps of whole seconds; ten query locators at a time; deletions are listed for 15 days; a message is of
//! what was made or changed, never of what was deleted.

mod queries;
mod writing;

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::shapes::{self, Grant, Person};
use super::soql::Query;
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};

pub(crate) struct Salesforce;

const LIMITS: &[LimitSpec] = &[
    LimitSpec::new("daily", 100_000, Duration::from_secs(86_400), Turn::Rolling, each_call),
    LimitSpec::new("bursts", 750, Duration::from_secs(20), Turn::Rolling, each_call),
];

const LOCATORS: usize = 10;

/// A query whose later pages can be asked for.
pub(crate) struct Locator {
    id: String,
    query: Query,
    all: bool,
    size: usize,
    ids: Vec<u64>,
}

impl Vendor for Salesforce {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let path = match path.as_slice() {
            ["services", "oauth2", "token"] if method == "POST" => return Some(Op::Token),
            ["services", "oauth2", "userinfo"] => return Some(Op::Check),
            ["services", "data", version, rest @ ..] if version.starts_with('v') => rest,
            _ => return None,
        };
        let op = match (method, path) {
            ("GET", ["limits"]) => Op::Check,
            ("GET", ["query" | "queryAll"]) => queries::asked(request.query("q").unwrap_or_default()),
            ("GET", ["query" | "queryAll", locator]) => match locator.split_once('L') {
                Some(("01gC", _)) => Op::Changes,
                _ => Op::List,
            },
            ("GET", ["sobjects", "Contact", "deleted"]) => Op::Deleted,
            ("GET", ["composite", "sobjects", "Contact"]) => Op::Batch,
            ("POST", ["sobjects", "Contact"]) => Op::CreateContact,
            ("PATCH", ["sobjects", "Contact", _]) => Op::UpdateContact,
            ("POST", ["sobjects", "Case"]) => Op::CreateTicket,
            ("POST", ["sobjects", "Note"]) => Op::CreateNote,
            ("POST", ["sobjects", "Task"]) => Op::CreateCall,
            _ => return None,
        };
        Some(op)
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        self.route(request) == Some(Op::Token) || state.accepts(request.bearer())
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        match op {
            Op::Token => Ok(token(state, request)),
            Op::Check if request.segment(1) == "oauth2" => Ok(userinfo(state, request)),
            Op::Check => Ok(limits(state)),
            Op::Deleted => queries::deleted(state, request),
            Op::Batch if request.segment(3) == "composite" => queries::collection(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_case(state, request),
            Op::CreateNote => writing::create_note(state, request),
            Op::CreateCall => writing::create_task(state, request),
            _ if request.segment(4).is_empty() => queries::first_page(state, request),
            _ => queries::next_page(state, request),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, message: &str| {
            Reply::json(status, &json!([{"message": message, "errorCode": code}]))
        };
        match refused {
            Refused::Unauthorized { .. } => error(
                StatusCode::UNAUTHORIZED,
                "INVALID_SESSION_ID",
                "Session expired or invalid",
            ),
            Refused::NoOperation => error(
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "The requested resource does not exist",
            ),
            Refused::Throttled { .. } => error(
                StatusCode::FORBIDDEN,
                "REQUEST_LIMIT_EXCEEDED",
                "TotalRequests Limit exceeded.",
            ),
            Refused::Broken(status) => error(*status, "SERVER_UNAVAILABLE", "Server is temporarily unavailable."),
            Refused::Failed(wrong) => match (wrong.status, wrong.code) {
                (StatusCode::UNPROCESSABLE_ENTITY, _) => error(
                    StatusCode::BAD_REQUEST,
                    "FIELD_CUSTOM_VALIDATION_EXCEPTION",
                    &wrong.message,
                ),
                (status, "bad_request") => error(status, "INVALID_FIELD", &wrong.message),
                (status, "not_found") => error(status, "NOT_FOUND", &wrong.message),
                (status, code) => error(status, code, &wrong.message),
            },
        }
    }

    /// Used and limit, one pair for each limit.
    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        let pair = |charge: &Charge| {
            let name = if charge.name == "daily" { "usage" } else { "bursts" };
            let used = u64::from(charge.limit.max) - charge.remaining;
            format!("api-{name}={used}/{}", charge.limit.max)
        };
        let pairs: Vec<String> = charges.iter().map(pair).collect();
        if pairs.is_empty() {
            return reply;
        }
        reply.header("sforce-limit-info", pairs.join("; "))
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!(
            "curl -s {base}/services/oauth2/token -d grant_type=client_credentials -d client_id=any -d client_secret={token}"
        )
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        long_id(&format!("0035e{id:010}"))
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        number_in(id, "0035e")
    }

    fn user_id(&self, ordinal: usize) -> String {
        long_id(&format!("0055e{ordinal:010}"))
    }

    fn tells(&self, kind: EventKind) -> bool {
        matches!(kind, EventKind::Created | EventKind::Updated)
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let organization = organization(hook.state);
        let mut body = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n\
             <soapenv:Body>\n<notifications xmlns=\"http://soap.sforce.com/2005/09/outbound\">\n",
        );
        let _ = write!(
            body,
            "<OrganizationId>{organization}</OrganizationId>\n<ActionId>{}</ActionId>\n\
             <SessionId xsi:nil=\"true\"/>\n<EnterpriseUrl>https://example.my.salesforce.com/services/Soap/c/61.0</EnterpriseUrl>\n\
             <PartnerUrl>https://example.my.salesforce.com/services/Soap/u/61.0</PartnerUrl>\n",
            long_id("04k5e0000000001"),
        );
        for event in hook.events {
            let now = hook.state.contacts.newest(event.contact);
            let name = now.map(|record| Person::new(hook.state, event.contact, record).name());
            let _ = write!(
                body,
                "<Notification>\n<Id>{}</Id>\n<sObject xsi:type=\"sf:Contact\" \
                 xmlns:sf=\"urn:sobject.enterprise.soap.sforce.com\">\n<sf:Id>{}</sf:Id>\n<sf:Name>{}</sf:Name>\n\
                 </sObject>\n</Notification>\n",
                long_id(&format!("04l5e{:010}", event.number)),
                self.contact_id(event.contact),
                escaped(&name.unwrap_or_default()),
            );
        }
        body.push_str("</notifications>\n</soapenv:Body>\n</soapenv:Envelope>");
        Outgoing {
            headers: vec![
                ("content-type", "text/xml; charset=utf-8".to_owned()),
                ("soapaction", "\"\"".to_owned()),
            ],
            expects: Some("Ack>true</".to_owned()),
            ..Outgoing::json(hook, body)
        }
    }

    fn hook_batch(&self) -> usize {
        100
    }
}

/// 15 characters, and three that tell their upper case from their lower.
fn long_id(short: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    let suffix = short.as_bytes().chunks(5).map(|chunk| {
        let upper = |(at, byte): (usize, &u8)| usize::from(byte.is_ascii_uppercase()) << at;
        char::from(LETTERS[chunk.iter().enumerate().map(upper).sum::<usize>() % 32])
    });
    short.chars().chain(suffix).collect()
}

fn number_in(id: &str, prefix: &str) -> Option<u64> {
    let digits = id
        .strip_prefix(prefix)?
        .get(..10)
        .filter(|_| matches!(id.len(), 15 | 18))?;
    digits.parse().ok().filter(|&id| id > 0)
}

fn organization(state: &State) -> String {
    long_id(&format!("00D5e{:010}", shapes::number_of(&state.account, 8)))
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.chars().filter(|c| !c.is_control()).collect()
}

// ---- credentials and whom they are of

fn token(state: &mut State, request: &Request) -> Reply {
    let grant = Grant::read(request);
    let given = |name: &str| grant.get(name);
    let known = grant.is_good(state);
    let wrong = match given("grant_type") {
        Some("client_credentials" | "refresh_token" | "password") if given("client_id").is_none() => {
            Some(("invalid_client_id", "client identifier invalid"))
        }
        Some("client_credentials") if known => None,
        Some("client_credentials") => Some(("invalid_client", "invalid client credentials")),
        Some("refresh_token") if known => None,
        Some("refresh_token") => Some(("invalid_grant", "expired access/refresh token")),
        Some("password") if known => None,
        Some("password") => Some(("invalid_grant", "authentication failure")),
        _ => Some(("unsupported_grant_type", "grant type not supported")),
    };
    if let Some((error, description)) = wrong {
        return Reply::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": error, "error_description": description}),
        );
    }
    // Its life is told nowhere.
    let (access_token, _) = state.mint();
    let origin = state.knobs.instance_url.clone().unwrap_or_else(|| request.origin());
    Reply::ok(&json!({
        "access_token": access_token,
        "instance_url": origin,
        "id": format!("{origin}/id/{}/{}", organization(state), Salesforce.user_id(1)),
        "token_type": "Bearer",
        "scope": "api refresh_token",
        "issued_at": state.crm_now().to_string(),
        "signature": shapes::base64(shapes::sha256("signature", &[access_token.as_bytes()])),
    }))
}

fn userinfo(state: &State, request: &Request) -> Reply {
    let ordinal = state.viewer.unwrap_or(1);
    let user = state.user(ordinal);
    let (organization, id) = (organization(state), Salesforce.user_id(ordinal));
    let origin = request.origin();
    let own = state.knobs.instance_url.clone().unwrap_or_else(|| origin.clone());
    Reply::ok(&json!({
        "sub": format!("{origin}/id/{organization}/{id}"),
        "user_id": id,
        "organization_id": organization,
        "preferred_username": format!("user{ordinal}@{}.example", state.account),
        "name": user.as_ref().map(|user| format!("{} {}", user.first_name, user.last_name)),
        "email": user.and_then(|user| user.email),
        "zoneinfo": state.knobs.time_zone,
        "active": true,
        "urls": {"rest": format!("{own}/services/data/v{{version}}/"), "custom_domain": own},
    }))
}

fn limits(state: &State) -> Reply {
    let daily = &state.limiter.read(LIMITS, &state.knobs.limits)["daily"];
    let max = daily.limit.map_or(0, |limit| u64::from(limit.max));
    Reply::ok(&json!({"DailyApiRequests": {"Max": max, "Remaining": max.saturating_sub(daily.cost)}}))
}
