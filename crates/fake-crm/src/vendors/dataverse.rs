//! Microsoft Dynamics 365: the Web API of Dataverse, `api/data/v9.2`, with the token endpoint of Microsoft Entra.
//!
//! From Microsoft's documents on paging, change tracking, service protection limits, webhooks and their registration, 2026.
//! A page holds what `Prefer: odata.maxpagesize` says each time, a delta link is good for seven days (`token_life_ms`), and
//! refuses filters and orders. Deactivated contacts stay in lists, with `statecode` 1.
//! **Recalled**: 410 and the code `0x80044352` of an expired delta link; seconds as the precision of stamps; `WhoAmI`.
//!
//! The key of a webhook is in the query (`code`), or in the `header` of the subscription.

mod reading;
mod writing;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::shapes::{Grant, number_of};
use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};

pub(crate) struct Dataverse;

const PAGE_MAX: usize = 5_000;

const LIMITS: &[LimitSpec] = &[LimitSpec::new(
    "requests",
    6_000,
    Duration::from_secs(300),
    Turn::Rolling,
    each_call,
)];

impl Vendor for Dataverse {
    fn route(&self, request: &Request) -> Option<Op> {
        let (method, path) = request.target();
        let path = match path.as_slice() {
            [_, "oauth2", "v2.0", "token"] if method == "POST" => return Some(Op::Token),
            ["api", "data", "v9.2", path @ ..] => path,
            _ => return None,
        };
        let filter = request.query("$filter").unwrap_or_default();
        let tracks = request.query("$deltatoken").is_some() || prefers(request, "odata.track-changes").is_some();
        let op = match (method, path) {
            ("GET", ["WhoAmI" | "WhoAmI()"]) => Op::Check,
            ("GET", ["contacts"]) if tracks => Op::Changes,
            ("GET", ["contacts"]) if filter.contains("modifiedon") => Op::Changes,
            ("GET", ["contacts"]) if filter.contains(" or ") || filter.contains("CRM.In(") => Op::Batch,
            ("GET", ["contacts"]) if request.query("$select") == Some("contactid") => Op::Ids,
            ("GET", ["contacts"]) => Op::List,
            ("GET", [one]) if one.starts_with("contacts(") => Op::Batch,
            ("GET", ["systemusers"]) => Op::Users,
            ("GET", ["incidents"] | [_, "incident_customer_contacts"]) => Op::Tickets,
            ("POST", ["contacts"]) => Op::CreateContact,
            ("PATCH", [one]) if one.starts_with("contacts(") => Op::UpdateContact,
            ("POST", ["incidents"]) => Op::CreateTicket,
            ("POST", ["annotations"]) => Op::CreateNote,
            ("POST", ["phonecalls"]) => Op::CreateCall,
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
            Op::Check => Ok(who(state)),
            Op::Users => reading::users(state, request),
            Op::Tickets => reading::incidents(state, request),
            Op::CreateContact => writing::create(state, request),
            Op::UpdateContact => writing::update(state, request),
            Op::CreateTicket => writing::create_incident(state, request),
            Op::CreateNote => writing::create_note(state, request),
            Op::CreateCall => writing::create_call(state, request),
            Op::Batch if request.segment(3) != "contacts" => reading::one(state, request),
            Op::Changes if request.query("$deltatoken").is_some() => reading::delta(state, request),
            _ => reading::contacts(state, request),
        }
    }

    fn refuse(&self, _: &State, _: &Request, refused: &Refused) -> Reply {
        let error = |status: StatusCode, code: &str, message: &str| {
            Reply::json(status, &json!({"error": {"code": code, "message": message}}))
        };
        match refused {
            Refused::Unauthorized { .. } => Reply::empty(StatusCode::UNAUTHORIZED).header(
                "www-authenticate",
                "Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize",
            ),
            Refused::NoOperation => error(
                StatusCode::NOT_FOUND,
                "0x8006088a",
                "Resource not found for the segment",
            ),
            Refused::Throttled { why, seconds, .. } => {
                let (code, message) = match why {
                    Throttle::Concurrency => ("0x80072326", "Number of concurrent requests exceeded the limit of 52."),
                    _ => (
                        "0x80072322",
                        "Number of requests exceeded the limit over the time window of 300 seconds.",
                    ),
                };
                error(StatusCode::TOO_MANY_REQUESTS, code, message).header("retry-after", seconds)
            }
            Refused::Broken(status) => error(*status, "0x80040216", "An unexpected error occurred."),
            Refused::Failed(wrong) => {
                let status = match wrong.status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let code = match wrong.code {
                    "not_found" => "0x80040217",
                    "bad_request" | "invalid" => "0x0",
                    code => code,
                };
                error(status, code, &wrong.message)
            }
        }
    }

    fn stamp(&self, _: &State, reply: Reply, charges: &[Charge]) -> Reply {
        charges.iter().fold(reply, |reply, charge| {
            reply
                .header("x-ms-ratelimit-burst-remaining-xrm-requests", charge.remaining)
                .header("x-ms-ratelimit-time-remaining-xrm-requests", "1,199.54")
        })
    }

    fn limits(&self) -> &'static [LimitSpec] {
        LIMITS
    }

    fn example(&self, base: &str, _: &str, token: &str) -> String {
        format!("curl -s -H 'Authorization: Bearer {token}' '{base}/api/data/v9.2/contacts?$select=fullname&$top=2'")
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_columns = true;
        knobs.whole_second_stamps = true;
        knobs.concurrency = knobs.concurrency.or(Some(52));
    }

    fn whole_seconds(&self) -> bool {
        true
    }

    fn contact_id(&self, id: u64) -> String {
        guid("c0ffee00", id)
    }

    fn contact_of(&self, id: &str) -> Option<u64> {
        number_in(id, "c0ffee00")
    }

    fn user_id(&self, ordinal: usize) -> String {
        guid("5e500000", ordinal as u64)
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let message = match event.kind {
            EventKind::Created => "Create",
            EventKind::Updated => "Update",
            EventKind::Archived => "SetState",
            EventKind::Merged => "Merge",
            EventKind::Deleted => "Delete",
        };
        let organization = guid("00600000", number_of(&hook.state.account, 8));
        // A merge is told of the contact that stays.
        let id = self.contact_id(event.into.unwrap_or(event.contact));
        let correlation = guid("c0440000", event.number);
        let mut body = json!({
            "BusinessUnitId": guid("b0000000", 1), "CorrelationId": correlation, "Depth": 1,
            "InitiatingUserId": self.user_id(1), "UserId": self.user_id(1),
            "InputParameters": [{"key": "Target", "value": {"__type": "Entity:http://schemas.microsoft.com/xrm/2011/Contracts",
                "Attributes": [{"key": "contactid", "value": id}], "Id": id, "LogicalName": "contact"}}],
            "IsExecutingOffline": false, "IsInTransaction": false, "IsolationMode": 1, "MessageName": message, "Mode": 1,
            "OperationCreatedOn": format!("/Date({})/", event.at), "OperationId": guid("09000000", event.number),
            "OrganizationId": organization, "OrganizationName": format!("org{}", number_of(&hook.state.account, 8)),
            "OutputParameters": [], "OwningExtension": {"LogicalName": "sdkmessageprocessingstep"},
            "PostEntityImages": [], "PreEntityImages": [],
        });
        body["PrimaryEntityId"] = id.into();
        body["PrimaryEntityName"] = "contact".into();
        body["RequestId"] = correlation.clone().into();
        body["Stage"] = 40.into();
        let outgoing = Outgoing::json(hook, body.to_string())
            .header(
                "x-ms-dynamics-organization",
                format!("org{}.crm.dynamics.com", number_of(&hook.state.account, 8)),
            )
            .header("x-ms-dynamics-entity-name", "contact")
            .header("x-ms-dynamics-request-name", message)
            .header("x-ms-correlation-request-id", correlation);
        if hook.webhook.header.is_some() {
            return outgoing.secret(hook);
        }
        let joint = if hook.webhook.url.contains('?') { '&' } else { '?' };
        let code: String = url::form_urlencoded::byte_serialize(hook.webhook.secret.as_bytes()).collect();
        Outgoing {
            url: format!("{}{joint}code={code}", hook.webhook.url),
            ..outgoing
        }
    }

    fn hook_attempts(&self) -> u32 {
        2
    }

    fn hook_retries(&self, status: u16) -> bool {
        matches!(status, 502..=504)
    }
}

fn guid(kind: &str, id: u64) -> String {
    format!("{kind}-0000-4000-8000-{id:012x}")
}

fn number_in(id: &str, kind: &str) -> Option<u64> {
    let id = id.trim_matches(|c| c == '\'' || c == '"').to_lowercase();
    let hex = id
        .strip_prefix(kind)?
        .strip_prefix("-0000-4000-8000-")
        .filter(|hex| hex.len() == 12)?;
    u64::from_str_radix(hex, 16).ok().filter(|&id| id > 0)
}

/// The value of a preference, empty for one without.
fn prefers<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let all = request
        .headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut all = all.flat_map(|text| text.split([',', ';'])).map(str::trim);
    all.find_map(|one| match one.split_once('=') {
        Some((known, value)) if known == name => Some(value.trim_matches('"')),
        None if one == name => Some(""),
        _ => None,
    })
}

fn size(request: &Request) -> usize {
    let asked = prefers(request, "odata.maxpagesize").and_then(|text| text.parse().ok());
    asked.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)
}

fn token(state: &mut State, request: &Request) -> Reply {
    let grant = Grant::read(request);
    let given = |name: &str| grant.get(name);
    let known = grant.is_good(state);
    let wrong = match (given("grant_type"), given("scope")) {
        (Some("client_credentials"), Some(scope)) if scope.ends_with("/.default") => {
            (!known).then_some((401, "invalid_client", "AADSTS7000215: Invalid client secret provided."))
        }
        (Some("client_credentials"), _) => Some((
            400,
            "invalid_scope",
            "AADSTS1002012: The provided value for scope is not valid.",
        )),
        _ => Some((
            400,
            "unsupported_grant_type",
            "AADSTS70003: The app requested an unsupported grant type.",
        )),
    };
    if let Some((status, error, description)) = wrong {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        return Reply::json(status, &json!({"error": error, "error_description": description}));
    }
    let (access_token, seconds) = state.mint();
    Reply::ok(&json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access_token,
    }))
}

fn who(state: &State) -> Reply {
    Reply::ok(&json!({
        "@odata.context": "$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
        "BusinessUnitId": guid("b0000000", 1),
        "UserId": Dataverse.user_id(state.viewer.unwrap_or(1)),
        "OrganizationId": guid("00600000", number_of(&state.account, 8)),
    }))
}
