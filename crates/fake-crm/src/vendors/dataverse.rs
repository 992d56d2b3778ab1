//! Microsoft Dynamics 365: the Web API of Dataverse, `api/data/v9.2`, with the token endpoint of Microsoft Entra.
//!
//! From Microsoft's documents on paging, change tracking, service protection limits, webhooks and their registration, 2026.
//! A page holds what `Prefer: odata.maxpagesize` says each time, a delta link is good for seven days (`token_life_ms`), and
//! refuses filters and orders. Deactivated contacts stay in lists, with `statecode` 1.
//! **Recalled**: 410 and the code `0x80044352` of an expired delta link; seconds as the precision of stamps; `WhoAmI`.
//!
//! The key of a webhook is in the query (`code`), or in the `header` of the subscription.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, iso, number_of, opaque, page, page_behind, parse_iso, read_opaque, some};
use super::{Hook, Outgoing, Refused, Throttle, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::clock;
use crate::data::{Address, Fields};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

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
            ("GET", ["incidents"]) => Op::Tickets,
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
            Op::Users => users(state, request),
            Op::Tickets => incidents(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_incident(state, request),
            Op::CreateNote => create_note(state, request),
            Op::CreateCall => create_call(state, request),
            Op::Batch if request.segment(3) != "contacts" => one(state, request),
            Op::Changes if request.query("$deltatoken").is_some() => delta(state, request),
            _ => contacts(state, request),
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
            "OperationCreatedOn": format!("/Date({}+0000)/", event.at), "OperationId": guid("09000000", event.number),
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
    let form = request.form();
    let given = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let known = given("client_secret").is_some_and(|secret| state.tokens.iter().any(|token| token == secret));
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

// ---- reading

fn contact(person: &Person, wanted: Option<&str>) -> Value {
    const ANNOTATION: &str = "_parentcustomerid_value@OData.Community.Display.V1.FormattedValue";
    let row = &person.row;
    let address = [
        row.address.street.as_str(),
        &row.address.zip,
        &row.address.city,
        &row.address.country,
    ];
    let address: Vec<&str> = address.into_iter().filter(|part| !part.is_empty()).collect();
    let all = json!({
        "fullname": some(&person.name()),
        "firstname": some(&row.first_name),
        "lastname": some(&row.last_name),
        "jobtitle": some(&row.job_title),
        "emailaddress1": person.email(0),
        "emailaddress2": person.email(1),
        "emailaddress3": person.email(2),
        "telephone1": person.phone(0),
        "mobilephone": person.phone(1),
        "telephone2": person.phone(2),
        "address1_composite": some(&address.join("\r\n")),
        "address1_line1": some(&row.address.street),
        "address1_city": some(&row.address.city),
        "address1_postalcode": some(&row.address.zip),
        "address1_country": some(&row.address.country),
        "websiteurl": row.website.as_deref().and_then(some),
        "_parentcustomerid_value": some(&row.company).map(|_| guid("acc00000", person.id)),
        "statecode": i32::from(row.archived),
        "createdon": iso(person.created),
        "modifiedon": iso(person.modified),
    });
    let mut shown = Map::new();
    shown.insert("@odata.etag".to_owned(), format!("W/\"{}\"", row.version).into());
    shown.insert("contactid".to_owned(), Dataverse.contact_id(person.id).into());
    let wants = |name: &str| wanted.is_none_or(|wanted| wanted.split(',').any(|known| known.trim() == name));
    for (name, value) in all.as_object().into_iter().flatten() {
        if wants(name) {
            shown.insert(name.clone(), value.clone());
        }
    }
    if wants("_parentcustomerid_value") && !row.company.is_empty() {
        shown.insert(ANNOTATION.to_owned(), row.company.clone().into());
    }
    shown.into()
}

/// Conditions joined by `and`; ids also by `or` or `In`.
fn filtered(filter: &str) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        archived: Archived::Shown,
        ..Selection::default()
    };
    let wrong = |text: &str| ApiError::new(400, "0x80060888", format!("Syntax error in $filter: {text}"));
    if filter.contains("Microsoft.Dynamics.CRM.In(") {
        let values = filter
            .split_once("PropertyValues=[")
            .and_then(|(_, rest)| rest.split_once(']'));
        let (values, _) = values.ok_or_else(|| wrong(filter))?;
        selection.among(values.split(',').filter_map(|id| Dataverse.contact_of(id.trim())));
        return Ok(selection);
    }
    if filter.contains(" or ") {
        let ids = filter
            .trim_matches(['(', ')'])
            .split(" or ")
            .map(|part| match part.trim().split_once(" eq ") {
                Some(("contactid", id)) => Ok(Dataverse.contact_of(id.trim())),
                _ => Err(wrong(part)),
            });
        let ids = ids.collect::<Result<Vec<_>, ApiError>>()?;
        selection.among(ids.into_iter().flatten());
        return Ok(selection);
    }
    for part in filter.split(" and ").map(str::trim).filter(|part| !part.is_empty()) {
        let words: Vec<&str> = part.trim_matches(['(', ')']).split_whitespace().collect();
        let [field, operator, value] = words.as_slice() else {
            return Err(wrong(part));
        };
        let operator = match *operator {
            "ge" => ">=",
            "gt" => ">",
            "le" => "<=",
            "lt" => "<",
            "eq" => "=",
            _ => return Err(wrong(part)),
        };
        let known = match *field {
            "modifiedon" => selection.compare_time(operator, parse_iso(value).ok_or_else(|| wrong(part))?),
            "contactid" => selection.compare_id(operator, Dataverse.contact_of(value).unwrap_or(0)),
            "statecode" if operator == "=" => {
                selection.archived = if *value == "0" {
                    Archived::Hidden
                } else {
                    Archived::Only
                };
                true
            }
            _ => false,
        };
        if !known {
            return Err(ApiError::new(
                400,
                "0x80060888",
                format!("Could not find a property named '{field}'"),
            ));
        }
    }
    Ok(selection)
}

/// The same address with another token in its query.
fn link(request: &Request, name: &str, value: &str) -> String {
    let kept = request
        .queries()
        .filter(|(known, _)| !matches!(*known, "$skiptoken" | "$deltatoken"));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(kept).append_pair(name, value);
    // Spaces as a server of OData writes them.
    let query = query.finish().replace('+', "%20").replace("%24", "$");
    format!("{}{}?{query}", request.origin(), request.uri.path())
}

fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if request.query("$skip").is_some() {
        return Err(ApiError::new(
            400,
            "0x80060888",
            "The query parameter $skip is not supported.",
        ));
    }
    let tracks = prefers(request, "odata.track-changes").is_some();
    let given = ["$filter", "$orderby", "$top", "$expand"]
        .into_iter()
        .find(|name| request.query(name).is_some());
    if let Some(name) = given.filter(|_| tracks) {
        let message = format!("The \"{name}\" query parameter isn't supported when tracking changes.");
        return Err(ApiError::new(400, "0x80060888", message));
    }
    let mut selection = filtered(request.query("$filter").unwrap_or_default())?;
    let orders = request.query("$orderby").unwrap_or("contactid asc").split(',');
    let orders: Vec<&str> = orders.map(str::trim).collect();
    selection.order = match orders.as_slice() {
        ["contactid" | "contactid asc"] => Order::Id,
        ["contactid desc"] => Order::IdDown,
        ["modifiedon" | "modifiedon asc"] | ["modifiedon" | "modifiedon asc", "contactid" | "contactid asc"] => {
            Order::Time
        }
        ["modifiedon desc"] | ["modifiedon desc", "contactid desc"] => Order::TimeDown,
        _ => return Err(bad("this fake does not order so")),
    };
    let top: Option<usize> = request.number("$top")?;
    selection.limit = top.map_or_else(|| size(request), |top| top.min(PAGE_MAX));
    // A delta covers from before the first page on.
    let mut covered = (state.contacts.settled_version(), clock::now_ms());
    let (people, more) = match request.query("$skiptoken") {
        None => page(state, &selection),
        Some(cookie) => {
            let text = read_opaque(cookie).unwrap_or_default();
            let parts: Vec<i64> = text.split('/').filter_map(|part| part.parse().ok()).collect();
            let [at, id, version, made] = parts[..] else {
                return Err(ApiError::new(400, "0x80060888", "Malformed skiptoken"));
            };
            covered = (version.unsigned_abs(), made);
            page_behind(state, &selection, (at, id.unsigned_abs()))
        }
    };
    let wanted = request.query("$select");
    let value: Vec<Value> = people.iter().map(|person| contact(person, wanted)).collect();
    let mut body =
        json!({"@odata.context": format!("{}/api/data/v9.2/$metadata#contacts", request.origin()), "value": value});
    match people.last().filter(|_| more && top.is_none()) {
        Some(last) => {
            let cookie = opaque(&format!("{}/{}/{}/{}", last.modified, last.id, covered.0, covered.1));
            body["@odata.nextLink"] = link(request, "$skiptoken", &cookie).into();
        }
        None if tracks => {
            let token = opaque(&format!("{}/{}/0", covered.0, covered.1));
            body["@odata.deltaLink"] = link(request, "$deltatoken", &token).into();
        }
        None => {}
    }
    Ok(Reply::ok(&body))
}

/// What changed since a delta link was made: rows as they are now, and ids of those that are gone.
fn delta(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let text = request.query("$deltatoken").and_then(read_opaque).unwrap_or_default();
    let parts: Vec<u64> = text.split('/').filter_map(|part| part.parse().ok()).collect();
    let [version, made, passed] = parts[..] else {
        return Err(ApiError::new(400, "0x80060888", "Malformed deltatoken"));
    };
    let now = clock::now_ms();
    if now - made as i64 > state.knobs.token_life_ms as i64 {
        let message = "Version stamp associated with the client has expired. Please perform a full sync.";
        return Err(ApiError::new(410, "0x80044352", message));
    }
    let covered = state.contacts.settled_version();
    let wanted = request.query("$select");
    let living = state
        .contacts
        .after(0)
        .filter(|(id, record)| record.version > version && crate::api::shown(state, *id));
    let living = living.map(|(id, record)| (record.version, contact(&Person::new(state, id, record), wanted)));
    let context = format!("{}/api/data/v9.2/$metadata#contacts/$deletedEntity", request.origin());
    let gone = state.contacts.deleted_after(version);
    let gone = gone.map(|(version, id)| {
        (
            version,
            json!({"@odata.context": context, "id": Dataverse.contact_id(id), "reason": "deleted"}),
        )
    });
    let mut found: Vec<(u64, Value)> = living.chain(gone.filter(|_| !state.knobs.no_tombstones)).collect();
    found.sort_by_key(|(version, _)| *version);
    // Pages of one delta count from its start.
    let rest: Vec<(u64, Value)> = found.into_iter().skip(passed as usize).collect();
    let size = size(request);
    let more = rest.len() > size;
    let value: Vec<Value> = rest.into_iter().take(size).map(|(_, row)| row).collect();
    let mut body = json!({
        "@odata.context": format!("{}/api/data/v9.2/$metadata#contacts/$delta", request.origin()), "value": value,
    });
    if more {
        let token = opaque(&format!("{version}/{made}/{}", passed as usize + size));
        body["@odata.nextLink"] = link(request, "$deltatoken", &token).into();
    } else {
        body["@odata.deltaLink"] = link(request, "$deltatoken", &opaque(&format!("{covered}/{now}/0"))).into();
    }
    Ok(Reply::ok(&body))
}

fn in_path(segment: &str) -> Result<u64, ApiError> {
    let id = segment
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or_default();
    let gone = || {
        ApiError::new(
            404,
            "not_found",
            format!("Entity 'contact' With Id = {id} Does Not Exist"),
        )
    };
    Dataverse.contact_of(id).ok_or_else(gone)
}

fn one(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let id = in_path(request.segment(3))?;
    let selection = Selection {
        archived: Archived::Shown,
        ..Selection::of_ids([id])
    };
    let people = page(state, &selection).0;
    let gone = || {
        let id = Dataverse.contact_id(id);
        ApiError::new(
            404,
            "not_found",
            format!("Entity 'contact' With Id = {id} Does Not Exist"),
        )
    };
    let person = people.first().ok_or_else(gone)?;
    Ok(Reply::ok(&contact(person, request.query("$select"))))
}

fn users(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let active = match request.query("$filter") {
        None => None,
        Some("isdisabled eq false") => Some(true),
        Some(other) => return Err(bad(format!("this fake does not filter users by {other}"))),
    };
    let after: usize = match request.query("$skiptoken") {
        None => 0,
        Some(cookie) => read_opaque(cookie)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| bad("Malformed skiptoken"))?,
    };
    let users = (after + 1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let mut users: Vec<_> = users
        .filter(|(_, user)| active.is_none_or(|active| user.active == active))
        .collect();
    let more = users.len() > size(request);
    users.truncate(size(request));
    let value = users.iter().map(|(at, user)| {
        json!({
            "systemuserid": Dataverse.user_id(*at), "fullname": format!("{} {}", user.first_name, user.last_name),
            "firstname": user.first_name, "lastname": user.last_name, "internalemailaddress": user.email,
            "isdisabled": !user.active,
        })
    });
    let mut body = json!({"@odata.context": "$metadata#systemusers", "value": value.collect::<Vec<Value>>()});
    if let Some((last, _)) = users.last().filter(|_| more) {
        body["@odata.nextLink"] = link(request, "$skiptoken", &opaque(&last.to_string())).into();
    }
    Ok(Reply::ok(&body))
}

fn incidents(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let filter = request.query("$filter").unwrap_or_default();
    let id = filter
        .strip_prefix("_customerid_value eq ")
        .and_then(|id| Dataverse.contact_of(id.trim()));
    let id = id.ok_or_else(|| bad("this fake finds incidents by _customerid_value"))?;
    let tickets = shapes::tickets_of(state, id).unwrap_or_default();
    let time = |text: &str| parse_iso(text).map(iso);
    let value = tickets.iter().map(|ticket| {
        let number = shapes::ticket_number(ticket);
        let (state, status) = match ticket.status.as_str() {
            "solved" => (1, "Problem Solved"),
            "pending" => (0, "Waiting for Details"),
            _ => (0, "In Progress"),
        };
        let mut shown = json!({
            "incidentid": guid("1c000000", number), "ticketnumber": format!("CAS-{number:05}"), "title": ticket.subject,
            "description": ticket.description, "statecode": state, "prioritycode": 2,
            "createdon": time(&ticket.created_at), "modifiedon": time(&ticket.updated_at),
        });
        shown["statuscode@OData.Community.Display.V1.FormattedValue"] = status.into();
        shown["prioritycode@OData.Community.Display.V1.FormattedValue"] = ticket.priority.clone().into();
        shown
    });
    Ok(Reply::ok(
        &json!({"@odata.context": "$metadata#incidents", "value": value.collect::<Vec<Value>>()}),
    ))
}

// ---- writing

fn text(body: &Value, name: &str) -> Option<String> {
    body[name].as_str().and_then(some).map(str::to_owned)
}

fn given(body: &Value) -> Fields {
    let list = |names: &[&str]| {
        let found: Vec<String> = names.iter().filter_map(|name| text(body, name)).collect();
        Some(found).filter(|found| !found.is_empty())
    };
    Fields {
        first_name: text(body, "firstname"),
        last_name: text(body, "lastname"),
        job_title: text(body, "jobtitle"),
        website: text(body, "websiteurl"),
        emails: list(&["emailaddress1", "emailaddress2", "emailaddress3"]),
        phones: list(&["telephone1", "mobilephone", "telephone2"]),
        address: text(body, "address1_line1").map(|street| Address {
            street,
            city: text(body, "address1_city").unwrap_or_default(),
            zip: text(body, "address1_postalcode").unwrap_or_default(),
            country: text(body, "address1_country").unwrap_or_default(),
        }),
        ..Fields::default()
    }
}

/// 204 with the address of what was made, or the thing itself for who prefers it.
fn made(request: &Request, set: &str, id: &str, shown: Value) -> Reply {
    let address = format!("{}/api/data/v9.2/{set}({id})", request.origin());
    let reply = if prefers(request, "return") == Some("representation") {
        Reply::created(&shown)
    } else {
        Reply::empty(StatusCode::NO_CONTENT)
    };
    reply.header("odata-entityid", address)
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let mut fields = Fields::empty();
    fields.lay_over(&given(&request.json()?));
    let id = writes::contact(state, &fields);
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    let shown = contact(&Person::new(state, id, record), None);
    Ok(made(request, "contacts", &Dataverse.contact_id(id), shown))
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = in_path(request.segment(3))?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// `"name@odata.bind": "/set(guid)"`
fn bound(body: &Value, name: &str) -> Option<String> {
    let text = body[format!("{name}@odata.bind")].as_str()?;
    let (_, id) = text.strip_suffix(')')?.split_once('(')?;
    Some(id.to_owned())
}

fn whom(body: &Value, name: &str) -> Result<u64, ApiError> {
    let id = bound(body, name).and_then(|id| Dataverse.contact_of(&id));
    id.ok_or_else(|| bad(format!("{name}@odata.bind is missing or means no contact")))
}

fn owner(body: &Value) -> Option<String> {
    Some(format!("u-{}", number_in(&bound(body, "ownerid")?, "5e500000")?))
}

fn create_incident(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let new = NewTicket {
        subject: text(&body, "title").ok_or_else(|| bad("title is missing"))?,
        description: text(&body, "description").unwrap_or_default(),
        priority: match body["prioritycode"].as_u64() {
            None => None,
            Some(1) => Some("high".to_owned()),
            Some(2) => Some("normal".to_owned()),
            Some(3) => Some("low".to_owned()),
            Some(other) => return Err(bad(format!("prioritycode {other}"))),
        },
        due_at: None,
        agent_id: owner(&body),
    };
    let ticket = writes::ticket(state, whom(&body, "customerid_contact")?, new)?.ticket;
    let id = guid("1c000000", shapes::ticket_number(&ticket));
    Ok(made(
        request,
        "incidents",
        &id,
        json!({"incidentid": id, "title": ticket.subject}),
    ))
}

fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let note = text(&body, "notetext").ok_or_else(|| bad("notetext is missing"))?;
    let note = writes::note(state, whom(&body, "objectid_contact")?, owner(&body), note)?;
    let id = guid("40700000", note.id.parse().unwrap_or_default());
    Ok(made(request, "annotations", &id, json!({"annotationid": id})))
}

fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let body = request.json()?;
    let contact = whom(&body, "regardingobjectid_contact")?;
    let outbound = body["directioncode"].as_bool().unwrap_or(true);
    let start = body["actualstart"].as_str().and_then(parse_iso);
    let new = NewCall {
        direction: if outbound { "outbound" } else { "inbound" }.to_owned(),
        started_at: start.unwrap_or_else(|| state.crm_now()),
        duration_s: body["actualdurationminutes"].as_u64().unwrap_or_default() * 60,
        phone: text(&body, "phonenumber"),
        recording_url: None,
        notes: text(&body, "description").or_else(|| text(&body, "subject")),
        agent_id: owner(&body),
    };
    writes::call(state, contact, new)?;
    let id = guid("ca110000", state.made.calls.len() as u64);
    Ok(made(request, "phonecalls", &id, json!({"activityid": id})))
}
