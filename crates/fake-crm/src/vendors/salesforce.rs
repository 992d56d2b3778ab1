//! Salesforce, REST API (any version of `/services/data/vNN.0`) and outbound messages.
//!
//! From Salesforce's REST, SOQL and SOAP outbound message guides, 2026. The base address comes from the token's
//! `instance_url`; error bodies are arrays; the limit header has two pairs; a message wants its `Ack`.
//! **Recalled**: stamps of whole seconds; ten query locators at a time; deletions are listed for 15 days; a message is of
//! what was made or changed, never of what was deleted.

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, parse_iso, some};
use super::soql::{self, Condition, Literal, Query};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, no_contact};
use crate::data::{Address, Fields, Ticket};
use crate::limits::{Charge, LimitSpec, Turn, each_call};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

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
            ("GET", ["query" | "queryAll"]) => asked(request.query("q").unwrap_or_default()),
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
            Op::Deleted => deleted(state, request),
            Op::Batch if request.segment(3) == "composite" => collection(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_case(state, request),
            Op::CreateNote => create_note(state, request),
            Op::CreateCall => create_task(state, request),
            _ if request.segment(4).is_empty() => first_page(state, request),
            _ => next_page(state, request),
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
    let form = request.form();
    let given = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let known = |secret: Option<&str>| secret.is_some_and(|secret| state.tokens.iter().any(|token| token == secret));
    let wrong = match given("grant_type") {
        Some("client_credentials" | "refresh_token" | "password") if given("client_id").is_none() => {
            Some(("invalid_client_id", "client identifier invalid"))
        }
        Some("client_credentials") if known(given("client_secret")) => None,
        Some("client_credentials") => Some(("invalid_client", "invalid client credentials")),
        Some("refresh_token") if known(given("refresh_token")) => None,
        Some("refresh_token") => Some(("invalid_grant", "expired access/refresh token")),
        Some("password") if known(given("password")) => None,
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
    let origin = request.origin();
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
    Reply::ok(&json!({
        "sub": format!("{origin}/id/{organization}/{id}"),
        "user_id": id,
        "organization_id": organization,
        "preferred_username": format!("user{ordinal}@{}.example", state.account),
        "name": user.as_ref().map(|user| format!("{} {}", user.first_name, user.last_name)),
        "email": user.and_then(|user| user.email),
        "zoneinfo": state.knobs.time_zone,
        "active": true,
        "urls": {"rest": format!("{origin}/services/data/v{{version}}/"), "custom_domain": origin},
    }))
}

fn limits(state: &State) -> Reply {
    let daily = &state.limiter.read(LIMITS, &state.knobs.limits)["daily"];
    let max = daily.limit.map_or(0, |limit| u64::from(limit.max));
    Reply::ok(&json!({"DailyApiRequests": {"Max": max, "Remaining": max.saturating_sub(daily.cost)}}))
}

// ---- queries

/// Which operation a query is, for the counters.
fn asked(query: &str) -> Op {
    let Ok(query) = soql::parse(query) else { return Op::List };
    let on = |name: &str| {
        query
            .conditions
            .iter()
            .any(|known| known.field.eq_ignore_ascii_case(name))
    };
    let by_ids = query.conditions.iter().any(|known| known.operator == "IN");
    match query.object.to_lowercase().as_str() {
        "user" => Op::Users,
        "organization" => Op::Check,
        "case" => Op::Tickets,
        "task" => Op::Activities,
        _ if by_ids => Op::Batch,
        _ if on("SystemModstamp") || on("LastModifiedDate") => Op::Changes,
        _ if query.fields.iter().all(|field| field.eq_ignore_ascii_case("Id")) => Op::Ids,
        _ => Op::List,
    }
}

fn stamp(ms: i64) -> String {
    shapes::iso(ms).replace('Z', ".000+0000")
}

fn no_column(field: &str, object: &str) -> ApiError {
    let message = format!("No such column '{field}' on entity '{object}'.");
    ApiError::new(400, "INVALID_FIELD", message)
}

/// Bare dates only: one in quotes is another mistake than one that is no date.
fn date(condition: &Condition) -> Result<i64, ApiError> {
    let field = &condition.field;
    match &condition.values[0] {
        Literal::Text(_) => {
            let message = format!(
                "value of filter criterion for field '{field}' must be of type dateTime and should not be enclosed in quotes"
            );
            Err(ApiError::new(400, "INVALID_FIELD", message))
        }
        Literal::Bare(text) => {
            let zoned = match text.rsplit_once('+') {
                Some((date, "0000")) => format!("{date}Z"),
                _ => text.clone(),
            };
            let wrong = || ApiError::new(400, "MALFORMED_QUERY", format!("line 1: invalid date {text}"));
            parse_iso(&zoned).ok_or_else(wrong)
        }
    }
}

fn quoted(condition: &Condition) -> Result<Vec<&str>, ApiError> {
    let text = |value: &'_ Literal| match value {
        Literal::Text(_) => Ok(()),
        Literal::Bare(word) => {
            let message = format!(
                "value of filter criterion for field '{}' must be enclosed in quotes: {word}",
                condition.field
            );
            Err(ApiError::new(400, "INVALID_FIELD", message))
        }
    };
    condition.values.iter().try_for_each(text)?;
    let texts = condition.values.iter().filter_map(|value| match value {
        Literal::Text(text) => Some(text.as_str()),
        Literal::Bare(_) => None,
    });
    Ok(texts.collect())
}

fn selection(query: &Query, all: bool) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        archived: if all { Archived::Shown } else { Archived::Hidden },
        offset: query.offset,
        limit: query.limit.unwrap_or(usize::MAX),
        ..Selection::default()
    };
    for condition in &query.conditions {
        let known = match condition.field.to_lowercase().as_str() {
            "systemmodstamp" | "lastmodifieddate" => {
                let at = date(condition)?;
                selection.compare_time(&condition.operator, at)
            }
            "id" => {
                let ids: Vec<u64> = quoted(condition)?
                    .into_iter()
                    .map(|id| Salesforce.contact_of(id).unwrap_or(0))
                    .collect();
                match condition.operator.as_str() {
                    "IN" => {
                        selection.among(ids);
                        true
                    }
                    operator => selection.compare_id(operator, ids[0]),
                }
            }
            "isdeleted" => condition.operator == "=" && flag(condition, &mut selection),
            _ => return Err(no_column(&condition.field, "Contact")),
        };
        if !known {
            let message = format!("operator {} does not fit {}", condition.operator, condition.field);
            return Err(ApiError::new(400, "INVALID_QUERY_FILTER_OPERATOR", message));
        }
    }
    let first = query.order.first().map(|(field, down)| (field.to_lowercase(), *down));
    selection.order = match first.as_ref().map(|(field, down)| (field.as_str(), *down)) {
        None | Some(("id", false)) => Order::Id,
        Some(("id", true)) => Order::IdDown,
        Some(("systemmodstamp" | "lastmodifieddate", false)) => Order::Time,
        Some(("systemmodstamp" | "lastmodifieddate", true)) => Order::TimeDown,
        Some((other, _)) => return Err(no_column(other, "Contact")),
    };
    Ok(selection)
}

fn flag(condition: &Condition, selection: &mut Selection) -> bool {
    match &condition.values[0] {
        Literal::Bare(word) if word.eq_ignore_ascii_case("true") => selection.archived = Archived::Only,
        Literal::Bare(word) if word.eq_ignore_ascii_case("false") => selection.archived = Archived::Hidden,
        _ => return false,
    }
    true
}

fn contact(person: &Person, fields: &[String]) -> Result<Value, ApiError> {
    let row = &person.row;
    let id = Salesforce.contact_id(person.id);
    let mut shown = Map::new();
    let url = format!("/services/data/v61.0/sobjects/Contact/{id}");
    shown.insert("attributes".to_owned(), json!({"type": "Contact", "url": url}));
    let name = person.name();
    for field in fields {
        let text = |value: Option<&str>| json!(value);
        let value = match field.to_lowercase().as_str() {
            "id" => json!(id),
            "name" => text(some(&name)),
            "firstname" => text(some(&row.first_name)),
            "lastname" => text(some(&row.last_name)),
            "title" => text(some(&row.job_title)),
            "email" => text(person.email(0)),
            "phone" => text(person.phone(0)),
            "mobilephone" => text(person.phone(1)),
            "homephone" => text(person.phone(2)),
            "otherphone" | "mailingstate" | "ownerid" => Value::Null,
            "accountid" => json!(some(&row.company).map(|_| long_id(&format!("0015e{:010}", person.id)))),
            "account.name" => {
                let account = some(&row.company).map(|name| json!({"attributes": {"type": "Account"}, "Name": name}));
                shown.insert("Account".to_owned(), json!(account));
                continue;
            }
            "mailingstreet" => text(some(&row.address.street)),
            "mailingcity" => text(some(&row.address.city)),
            "mailingpostalcode" => text(some(&row.address.zip)),
            "mailingcountry" => text(some(&row.address.country)),
            "mailingaddress" => json!({
                "street": some(&row.address.street), "city": some(&row.address.city), "state": null,
                "postalCode": some(&row.address.zip), "country": some(&row.address.country),
                "latitude": null, "longitude": null, "geocodeAccuracy": null,
            }),
            "photourl" => json!(row.photo_url),
            "isdeleted" => json!(row.archived),
            "createddate" => json!(stamp(person.created)),
            "systemmodstamp" | "lastmodifieddate" => json!(stamp(person.modified)),
            _ => return Err(no_column(field, "Contact")),
        };
        shown.insert(field.clone(), value);
    }
    Ok(shown.into())
}

fn size(request: &Request) -> usize {
    let asked = request
        .header("sforce-query-options")
        .and_then(|text| text.trim().strip_prefix("batchSize="));
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(2_000_usize)
        .clamp(200, 2_000)
}

fn whole(records: Vec<Value>) -> Reply {
    Reply::ok(&json!({"totalSize": records.len(), "done": true, "records": records}))
}

fn first_page(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let text = request
        .query("q")
        .ok_or_else(|| ApiError::new(400, "MALFORMED_QUERY", "q is missing"))?;
    let query = soql::parse(text)?;
    match query.object.to_lowercase().as_str() {
        "contact" => {}
        "user" => return users(state, &query),
        "case" => return cases(state, &query),
        "task" => return tasks(state, &query),
        "organization" => {
            let id = organization(state);
            return Ok(whole(vec![
                json!({"attributes": {"type": "Organization"}, "Id": id, "Name": state.account}),
            ]));
        }
        other => {
            let message = format!("sObject type '{other}' is not supported.");
            return Err(ApiError::new(400, "INVALID_TYPE", message));
        }
    }
    let all = request.segment(3) == "queryAll";
    let mut ids: Vec<u64> = selection(&query, all)?
        .run(state)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    if all && !state.knobs.no_tombstones {
        let selection = selection(&query, all)?;
        let gone = state.contacts.deleted(selection.since, (i64::MIN, 0));
        let gone = gone.filter(|(at, id, _)| {
            selection.window().contains(at)
                && selection.archived != Archived::Hidden
                && (selection.after..selection.before).contains(id)
                && *id != selection.after
                && selection.ids.as_ref().is_none_or(|ids| ids.contains(id))
        });
        ids.extend(gone.map(|(_, id, _)| id));
        if selection.order == Order::Id {
            ids.sort_unstable();
        }
    }
    // A field that is not there is refused, whether there are rows or not.
    contact(&Person::gone(state, 1, 0), &query.fields)?;
    let kind = if asked(text) == Op::Changes { "C" } else { "A" };
    let locator = Locator {
        id: format!("01g{kind}L{:010}", state.meter.stats.counted),
        all,
        size: size(request),
        query,
        ids,
    };
    let (reply, more) = batch(state, &locator, 0)?;
    if more {
        state.locators.push_back(locator);
        if state.locators.len() > LOCATORS {
            state.locators.pop_front();
        }
    }
    Ok(reply)
}

fn next_page(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let invalid = || ApiError::new(400, "INVALID_QUERY_LOCATOR", "invalid query locator");
    let (id, from) = request.segment(4).split_once('-').ok_or_else(invalid)?;
    let from: usize = from.parse().map_err(|_| invalid())?;
    let locator = state.locators.iter().find(|known| known.id == id).ok_or_else(invalid)?;
    Ok(batch(state, locator, from)?.0)
}

fn batch(state: &State, locator: &Locator, from: usize) -> Result<(Reply, bool), ApiError> {
    let mut records = Vec::new();
    for id in locator.ids.iter().skip(from).take(locator.size) {
        match state.contacts.get(*id) {
            Some(record) => records.push(contact(&Person::new(state, *id, record), &locator.query.fields)?),
            None if locator.all => {
                let mut person = Person::gone(state, *id, state.contacts.deleted_at(*id).unwrap_or_default());
                person.row.archived = true;
                records.push(contact(&person, &locator.query.fields)?);
            }
            None => {}
        }
    }
    let next = from + locator.size;
    let more = next < locator.ids.len();
    let mut body = json!({"totalSize": locator.ids.len(), "done": !more, "records": records});
    if more {
        body["nextRecordsUrl"] = format!("/services/data/v61.0/query/{}-{next}", locator.id).into();
    }
    Ok((Reply::ok(&body), more))
}

fn users(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let mut active = None;
    let mut after = 0;
    for condition in &query.conditions {
        match (
            condition.field.to_lowercase().as_str(),
            condition.operator.as_str(),
            &condition.values[0],
        ) {
            ("isactive", "=", Literal::Bare(word)) => active = Some(word.eq_ignore_ascii_case("true")),
            ("id", ">", Literal::Text(id)) => after = number_in(id, "0055e").unwrap_or(0),
            ("usertype", "=", Literal::Text(_)) => {}
            _ => return Err(no_column(&condition.field, "User")),
        }
    }
    let users = (1..=state.users.len()).filter_map(|at| Some((at, state.user(at)?)));
    let users = users.filter(|(at, user)| *at as u64 > after && active.is_none_or(|active| user.active == active));
    let records = users.take(query.limit.unwrap_or(2_000)).map(|(at, user)| {
        json!({
            "attributes": {"type": "User"}, "Id": Salesforce.user_id(at), "FirstName": user.first_name,
            "LastName": user.last_name, "Name": format!("{} {}", user.first_name, user.last_name),
            "Email": user.email, "IsActive": user.active, "Username": format!("user{at}@example.com"),
        })
    });
    Ok(whole(records.collect()))
}

/// The contact in the one condition that a query of its things has.
fn of_contact(query: &Query, field: &str) -> Result<u64, ApiError> {
    let found = query
        .conditions
        .iter()
        .find(|known| known.field.eq_ignore_ascii_case(field));
    let condition = found
        .filter(|known| known.operator == "=")
        .ok_or_else(|| bad(format!("give {field} = 'id'")))?;
    let ids = quoted(condition)?;
    Ok(ids.first().and_then(|id| Salesforce.contact_of(id)).unwrap_or(0))
}

fn case(ticket: &Ticket) -> Value {
    let number = shapes::ticket_number(ticket);
    let status = match ticket.status.as_str() {
        "solved" => "Closed",
        "pending" => "On Hold",
        "open" => "Working",
        _ => "New",
    };
    let time = |text: &str| parse_iso(text).map(stamp);
    json!({
        "attributes": {"type": "Case"}, "Id": long_id(&format!("5005e{number:010}")),
        "CaseNumber": format!("{number:08}"), "Subject": ticket.subject, "Description": ticket.description,
        "Status": status, "Priority": ticket.priority, "IsClosed": status == "Closed",
        "CreatedDate": time(&ticket.created_at), "LastModifiedDate": time(&ticket.updated_at),
    })
}

fn cases(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let contact = of_contact(query, "ContactId")?;
    let mut tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    tickets.sort_by(|one, other| other.created_at.cmp(&one.created_at));
    tickets.truncate(query.limit.unwrap_or(2_000));
    Ok(whole(tickets.iter().map(case).collect()))
}

fn tasks(state: &State, query: &Query) -> Result<Reply, ApiError> {
    let contact = of_contact(query, "WhoId")?.to_string();
    let calls = state
        .made
        .calls
        .iter()
        .enumerate()
        .filter(|(_, call)| call.contact_id == contact);
    let records = calls.map(|(at, call)| {
        json!({
            "attributes": {"type": "Task"}, "Id": long_id(&format!("00T5e{:010}", at + 1)), "Subject": call.notes,
            "TaskSubtype": "Call", "Status": "Completed", "CreatedDate": stamp(call.started_at),
        })
    });
    Ok(whole(records.collect()))
}

fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let time = |name: &str| {
        let text = request.query(name).unwrap_or_default();
        let zoned = text.replace("+0000", "Z").replace("+00:00", "Z");
        parse_iso(&zoned).ok_or_else(|| ApiError::new(400, "INVALID_REPLICATION_DATE", format!("{name} is no date")))
    };
    let (start, end) = (time("start")?, time("end")?);
    let earliest = state.crm_now() - 15 * 24 * 3600 * 1000;
    if start < earliest || end < start + 60_000 {
        let message = "start must be within 15 days, and end at least a minute later";
        return Err(ApiError::new(400, "INVALID_REPLICATION_DATE", message));
    }
    let gone = state
        .contacts
        .deleted(start, (i64::MIN, 0))
        .filter(|(at, _, _)| *at < end && !state.knobs.no_tombstones);
    let archived = Selection {
        since: start,
        until: end,
        archived: Archived::Only,
        ..Selection::default()
    };
    let archived = archived
        .run(state)
        .into_iter()
        .map(|(id, record)| (record.modified, id));
    let all = gone.map(|(at, id, _)| (at, id)).chain(archived);
    let records = all.map(|(at, id)| json!({"id": Salesforce.contact_id(id), "deletedDate": stamp(at)}));
    let records: Vec<Value> = records.collect();
    Ok(Reply::ok(&json!({
        "deletedRecords": records, "earliestDateAvailable": stamp(earliest),
        "latestDateCovered": stamp(end.min(state.crm_now())),
    })))
}

/// In the order asked for, null for what is not there.
fn collection(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let text = |name: &str| {
        request
            .query(name)
            .unwrap_or_default()
            .split(',')
            .map(|part| part.trim().to_owned())
    };
    let (ids, fields): (Vec<String>, Vec<String>) = (text("ids").collect(), text("fields").collect());
    if ids.len() > 800 {
        return Err(bad("at most 800 ids"));
    }
    let mut records = Vec::new();
    for id in ids {
        let found = Salesforce
            .contact_of(&id)
            .and_then(|id| Some((id, state.contacts.get(id)?)));
        let found = found.filter(|(id, record)| !record.archived && crate::api::shown(state, *id));
        records.push(match found {
            Some((id, record)) => contact(&Person::new(state, id, record), &fields)?,
            None => Value::Null,
        });
    }
    Ok(Reply::ok(&records.into()))
}

// ---- writing

fn text(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().and_then(some).map(str::to_owned)
}

fn required(record: &Value, name: &str) -> Result<String, ApiError> {
    let missing = || {
        ApiError::new(
            400,
            "REQUIRED_FIELD_MISSING",
            format!("Required fields are missing: [{name}]"),
        )
    };
    text(record, name).ok_or_else(missing)
}

fn given(record: &Value) -> Fields {
    let phones: Vec<String> = ["Phone", "MobilePhone", "HomePhone"]
        .iter()
        .filter_map(|name| text(record, name))
        .collect();
    Fields {
        first_name: text(record, "FirstName"),
        last_name: text(record, "LastName"),
        job_title: text(record, "Title"),
        emails: text(record, "Email").map(|email| vec![email]),
        phones: Some(phones).filter(|phones| !phones.is_empty()),
        address: text(record, "MailingStreet").map(|street| Address {
            street,
            city: text(record, "MailingCity").unwrap_or_default(),
            zip: text(record, "MailingPostalCode").unwrap_or_default(),
            country: text(record, "MailingCountry").unwrap_or_default(),
        }),
        ..Fields::default()
    }
}

fn done(id: &str) -> Reply {
    Reply::created(&json!({"id": id, "success": true, "errors": []}))
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    required(&record, "LastName")?;
    let mut fields = Fields::empty();
    fields.lay_over(&given(&record));
    let id = writes::contact(state, &fields);
    Ok(done(&Salesforce.contact_id(id)))
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Salesforce.contact_of(request.segment(5)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&request.json()?)) {
        return Err(no_contact());
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn whom(record: &Value, name: &str) -> Result<u64, ApiError> {
    let id = record[name].as_str().unwrap_or_default();
    let wrong = || ApiError::new(400, "MALFORMED_ID", format!("{name}: id value of incorrect type: {id}"));
    Salesforce.contact_of(id).ok_or_else(wrong)
}

fn owner(record: &Value) -> Option<String> {
    let ordinal = number_in(record["OwnerId"].as_str()?, "0055e")?;
    Some(format!("u-{ordinal}"))
}

fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    let new = NewTicket {
        subject: text(&record, "Subject").unwrap_or_else(|| "(no subject)".to_owned()),
        description: text(&record, "Description").unwrap_or_default(),
        priority: text(&record, "Priority").map(|priority| match priority.as_str() {
            "Medium" => "normal".to_owned(),
            other => other.to_lowercase(),
        }),
        due_at: None,
        agent_id: owner(&record),
    };
    let made = writes::ticket(state, whom(&record, "ContactId")?, new)?;
    Ok(done(&long_id(&format!(
        "5005e{:010}",
        shapes::ticket_number(&made.ticket)
    ))))
}

fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    required(&record, "Title")?;
    let note = writes::note(
        state,
        whom(&record, "ParentId")?,
        owner(&record),
        required(&record, "Body")?,
    )?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(done(&long_id(&format!("0025e{id:010}"))))
}

/// A task is a logged call when its subtype says so, else a note.
fn create_task(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = request.json()?;
    let contact = whom(&record, "WhoId")?;
    if record["TaskSubtype"] != "Call" {
        let note = writes::note(state, contact, owner(&record), required(&record, "Subject")?)?;
        let id: u64 = note.id.parse().unwrap_or_default();
        return Ok(done(&long_id(&format!("00T9e{id:010}"))));
    }
    let started = record["ActivityDate"]
        .as_str()
        .and_then(|date| parse_iso(&format!("{date}T00:00:00Z")));
    let new = NewCall {
        direction: required(&record, "CallType")?.to_lowercase(),
        started_at: started.unwrap_or_else(|| state.crm_now()),
        duration_s: record["CallDurationInSeconds"].as_u64().unwrap_or_default(),
        notes: text(&record, "Description").or_else(|| text(&record, "Subject")),
        agent_id: owner(&record),
        ..NewCall::default()
    };
    writes::call(state, contact, new)?;
    Ok(done(&long_id(&format!("00T5e{:010}", state.made.calls.len()))))
}
