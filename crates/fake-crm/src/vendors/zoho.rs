//! Zoho CRM, `crm/v8`.
//!
//! From Zoho's API specifications (records, deleted records, users, organisation, notifications) and its pages on API limits
//! and on paging, 2026. Pages 1 to 10 have numbers, later ones a token; nothing to tell is 204, or 304 when asked since.
//! Stamps carry the offset of the organisation's time zone.
//! **Recalled**: a token call that fails is answered 200 with an `error`; a channel lives a day at most; codes of the
//! errors of paging; the fields of a notification beyond `ids`, `operation`, `channel_id` and `token`.

use std::time::Duration;

use http::StatusCode;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, number_of, opaque, page, parse_iso, read_opaque, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, bad, invalid, no_contact};
use crate::clock;
use crate::data::{Address, Fields};
use crate::limits::{Charge, LimitSpec, Turn};
use crate::select::{Order, Selection};
use crate::webhooks::{EventKind, Subscription, Webhook};
use crate::wire::{Reply, Request};
use crate::writes::{self, NewCall, NewTicket};

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
            Op::Batch | Op::List | Op::Changes => contacts(state, request),
            Op::Deleted => deleted(state, request),
            Op::Tickets => cases(state, request),
            Op::CreateContact => create(state, request),
            Op::UpdateContact => update(state, request),
            Op::CreateTicket => create_case(state, request),
            Op::CreateNote => create_note(state, request),
            Op::CreateCall => create_call(state, request),
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

// ---- reading

fn stamp(ms: i64, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

fn contact(person: &Person, fields: &[&str], zone: &TimeZone) -> Value {
    let row = &person.row;
    let account =
        some(&row.company).map(|name| json!({"name": name, "id": (FROM + 900_000_000_000 + person.id).to_string()}));
    let all = json!({
        "Full_Name": some(&person.name()),
        "First_Name": some(&row.first_name),
        "Last_Name": some(&row.last_name),
        "Account_Name": account,
        "Title": some(&row.job_title),
        "Email": person.email(0),
        "Secondary_Email": person.email(1),
        "Phone": person.phone(0),
        "Mobile": person.phone(1),
        "Home_Phone": person.phone(2),
        "Other_Phone": null,
        "Mailing_Street": some(&row.address.street),
        "Mailing_City": some(&row.address.city),
        "Mailing_State": null,
        "Mailing_Zip": some(&row.address.zip),
        "Mailing_Country": some(&row.address.country),
        "Twitter": row.twitter,
        "Created_Time": stamp(person.created, zone),
        "Modified_Time": stamp(person.modified, zone),
    });
    let mut shown: Map<String, Value> = Map::new();
    shown.insert("id".to_owned(), Zoho.contact_id(person.id).into());
    for field in fields {
        if let Some(value) = all.get(*field) {
            shown.insert((*field).to_owned(), value.clone());
        }
    }
    shown.into()
}

/// What a page token holds: how many rows came before, where it goes on, and when it was made.
struct PageToken {
    rows: usize,
    at: i64,
    id: u64,
    made_ms: i64,
}

impl PageToken {
    fn write(&self) -> String {
        opaque(&format!("{}/{}/{}/{}", self.rows, self.at, self.id, self.made_ms))
    }

    fn read(token: &str) -> Option<PageToken> {
        let text = read_opaque(token)?;
        let mut parts = text.split('/');
        Some(PageToken {
            rows: parts.next()?.parse().ok()?,
            at: parts.next()?.parse().ok()?,
            id: parts.next()?.parse().ok()?,
            made_ms: parts.next()?.parse().ok()?,
        })
    }
}

fn since(request: &Request) -> Result<Option<i64>, ApiError> {
    match request.header("if-modified-since").map(parse_iso) {
        None => Ok(None),
        Some(Some(at)) => Ok(Some(at)),
        Some(None) => Err(bad("If-Modified-Since must be ISO 8601")),
    }
}

fn contacts(state: &State, request: &Request) -> Result<Reply, ApiError> {
    let fields = request.query("fields").and_then(some);
    let missing = || {
        ApiError::new(
            400,
            "REQUIRED_PARAM_MISSING",
            "One of the expected parameter is missing: fields",
        )
    };
    let fields: Vec<&str> = fields.ok_or_else(missing)?.split(',').map(str::trim).collect();
    if fields.len() > 50 {
        return Err(ApiError::new(400, "LIMIT_EXCEEDED", "at most 50 fields"));
    }
    let token = match request.query("page_token") {
        None => None,
        Some(_) if request.query("page").is_some() => {
            return Err(ApiError::new(
                400,
                "AMBIGUITY_DURING_PROCESSING",
                "page and page_token exclude each other",
            ));
        }
        Some(token) => Some(PageToken::read(token).ok_or_else(|| bad("page_token is invalid"))?),
    };
    let now = clock::now_ms();
    let life = state.knobs.token_life_ms as i64;
    if token.as_ref().is_some_and(|token| now - token.made_ms > life) {
        return Err(ApiError::new(400, "EXPIRED_VALUE", "page_token has expired"));
    }
    let (number, limit) = numbered(request)?;
    if token.is_none() && number > PAGES {
        let message = "page numbers end with the 2000th record; use page_token";
        return Err(ApiError::new(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", message));
    }
    let before = token.as_ref().map_or((number - 1) * limit, |token| token.rows);
    if before + limit > ROWS_MAX {
        return Err(ApiError::new(
            400,
            "PAGINATION_LIMIT_EXCEEDED",
            "at most 100000 records",
        ));
    }
    let up = request.query("sort_order") == Some("asc");
    let sort_by = request.query("sort_by").unwrap_or("id");
    let order = match (sort_by, up) {
        ("id" | "Created_Time", true) => Order::Id,
        ("id" | "Created_Time", false) => Order::IdDown,
        ("Modified_Time", true) => Order::Time,
        ("Modified_Time", false) => Order::TimeDown,
        (other, _) => return Err(bad(format!("sort_by {other}"))),
    };
    let since = since(request)?;
    let mut selection = Selection {
        since: since.unwrap_or(i64::MIN),
        order,
        offset: before,
        limit,
        ..Selection::default()
    };
    if let Some(ids) = request.query("ids") {
        let ids: Vec<&str> = ids.split(',').collect();
        if ids.len() > 100 {
            return Err(ApiError::new(400, "LIMIT_EXCEEDED", "at most 100 ids"));
        }
        selection.among(ids.iter().filter_map(|id| Zoho.contact_of(id.trim())));
    }
    // A token goes on behind the last row that was shown, whatever has moved since.
    let (people, more) = match &token {
        None => page(state, &selection),
        Some(token) => {
            selection.offset = 0;
            shapes::page_behind(state, &selection, (token.at, token.id))
        }
    };
    if people.is_empty() {
        let nothing = if since.is_some() {
            StatusCode::NOT_MODIFIED
        } else {
            StatusCode::NO_CONTENT
        };
        return Ok(Reply::empty(nothing));
    }
    let zone = state.knobs.zone();
    let next = people.last().filter(|_| more).map(|last| {
        let token = PageToken {
            rows: before + people.len(),
            at: last.modified,
            id: last.id,
            made_ms: now,
        };
        token.write()
    });
    let info = json!({
        "per_page": limit, "count": people.len(), "page": before / limit + 1, "sort_by": sort_by,
        "sort_order": if up { "asc" } else { "desc" }, "more_records": more, "next_page_token": next,
        "previous_page_token": null, "page_token_expiry": next.as_ref().map(|_| stamp(now + life, &zone)),
    });
    let data: Vec<Value> = people.iter().map(|person| contact(person, &fields, &zone)).collect();
    Ok(Reply::ok(&json!({"data": data, "info": info})))
}

fn deleted(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if !matches!(request.query("type"), Some("all" | "recycle" | "permanent")) {
        return Err(bad("type must be all, recycle or permanent"));
    }
    let (zone, since) = (state.knobs.zone(), since(request)?);
    let gone = state.contacts.deleted(since.unwrap_or(i64::MIN), (i64::MIN, 0));
    let gone = gone.filter(|_| !state.knobs.no_tombstones).map(|(at, id, _)| {
        json!({
            "id": Zoho.contact_id(id), "deleted_time": stamp(at, &zone), "type": "recycle",
            "display_name": Person::gone(state, id, at).name(), "deleted_by": {"id": Zoho.user_id(1)},
        })
    });
    let archived = Selection {
        since: since.unwrap_or(i64::MIN),
        archived: crate::select::Archived::Only,
        ..Selection::default()
    };
    let archived = page(state, &archived).0;
    let archived = archived.iter().map(|person| {
        json!({
            "id": Zoho.contact_id(person.id), "deleted_time": stamp(person.modified, &zone), "type": "recycle",
            "display_name": person.name(), "deleted_by": {"id": Zoho.user_id(1)},
        })
    });
    let mut all: Vec<Value> = gone.chain(archived).collect();
    all.sort_by(|one, other| other["deleted_time"].as_str().cmp(&one["deleted_time"].as_str()));
    numbered_list(request, "data", &all)
}

fn cases(state: &State, request: &Request) -> Result<Reply, ApiError> {
    if request.query("fields").is_none() {
        return Err(ApiError::new(
            400,
            "REQUIRED_PARAM_MISSING",
            "One of the expected parameter is missing: fields",
        ));
    }
    let contact = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let tickets = shapes::tickets_of(state, contact).ok_or_else(no_contact)?;
    let zone = state.knobs.zone();
    let time = |text: &str| parse_iso(text).map(|at| stamp(at, &zone));
    let all = tickets.iter().map(|ticket| {
        let number = shapes::ticket_number(ticket);
        json!({
            "id": (FROM + 700_000_000_000 + number).to_string(), "Case_Number": number, "Subject": ticket.subject,
            "Description": ticket.description, "Status": ticket.status, "Priority": ticket.priority,
            "Created_Time": time(&ticket.created_at), "Modified_Time": time(&ticket.updated_at),
        })
    });
    numbered_list(request, "data", &all.collect::<Vec<Value>>())
}

// ---- writing

fn record(request: &Request) -> Result<Value, ApiError> {
    let mut body = request.json()?;
    match body["data"].get_mut(0) {
        Some(record) => Ok(record.take()),
        None => Err(ApiError::new(
            400,
            "MANDATORY_NOT_FOUND",
            "required field not found: data",
        )),
    }
}

fn text(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().and_then(some).map(str::to_owned)
}

fn required(record: &Value, name: &str) -> Result<String, ApiError> {
    let missing = || ApiError::new(400, "MANDATORY_NOT_FOUND", format!("required field not found: {name}"));
    text(record, name).ok_or_else(missing)
}

fn given(record: &Value) -> Fields {
    let list = |names: [&str; 2]| {
        let found: Vec<String> = names.iter().filter_map(|name| text(record, name)).collect();
        Some(found).filter(|found| !found.is_empty())
    };
    let street = text(record, "Mailing_Street");
    Fields {
        first_name: text(record, "First_Name"),
        last_name: text(record, "Last_Name"),
        job_title: text(record, "Title"),
        emails: list(["Email", "Secondary_Email"]),
        phones: list(["Phone", "Mobile"]),
        company: record["Account_Name"]["name"].as_str().map(str::to_owned),
        address: street.map(|street| Address {
            street,
            city: text(record, "Mailing_City").unwrap_or_default(),
            zip: text(record, "Mailing_Zip").unwrap_or_default(),
            country: text(record, "Mailing_Country").unwrap_or_default(),
        }),
        website: None,
    }
}

fn done(status: StatusCode, id: u64, message: &str) -> Reply {
    let done = json!({"code": "SUCCESS", "details": {"id": id.to_string()}, "message": message, "status": "success"});
    Reply::json(status, &json!({"data": [done]}))
}

fn create(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    required(&record, "Last_Name")?;
    let mut fields = Fields::empty();
    fields.lay_over(&given(&record));
    let id = writes::contact(state, &fields);
    Ok(done(StatusCode::CREATED, FROM + id, "record added"))
}

fn update(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let id = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    if !writes::change(state, id, &given(&record(request)?)) {
        return Err(no_contact());
    }
    Ok(done(StatusCode::OK, FROM + id, "record updated"))
}

fn whom(value: &Value) -> Result<u64, ApiError> {
    let id = value["id"].as_str().or(value.as_str());
    id.and_then(|id| Zoho.contact_of(id))
        .ok_or_else(|| invalid("the given id seems to be invalid"))
}

fn agent(record: &Value) -> Option<String> {
    let id: u64 = record["Owner"]["id"].as_str()?.parse().ok()?;
    Some(format!("u-{}", id.saturating_sub(FROM + 500_000_000_000)))
}

fn create_case(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    required(&record, "Status")?;
    required(&record, "Case_Origin")?;
    let related = if record["Related_To"].is_null() {
        "Contact_Name"
    } else {
        "Related_To"
    };
    let new = NewTicket {
        subject: required(&record, "Subject")?,
        description: text(&record, "Description").unwrap_or_default(),
        priority: text(&record, "Priority").map(|priority| match priority.as_str() {
            "Medium" => "normal".to_owned(),
            other => other.to_lowercase(),
        }),
        due_at: None,
        agent_id: agent(&record),
    };
    let made = writes::ticket(state, whom(&record[related])?, new)?;
    let id = FROM + 700_000_000_000 + shapes::ticket_number(&made.ticket);
    Ok(done(StatusCode::CREATED, id, "record added"))
}

fn create_note(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    let contact = Zoho.contact_of(request.segment(3)).ok_or_else(no_contact)?;
    let note = writes::note(state, contact, agent(&record), required(&record, "Note_Content")?)?;
    let id: u64 = note.id.parse().unwrap_or_default();
    Ok(done(StatusCode::CREATED, FROM + 800_000_000_000 + id, "record added"))
}

fn create_call(state: &mut State, request: &Request) -> Result<Reply, ApiError> {
    let record = record(request)?;
    let start = parse_iso(&required(&record, "Call_Start_Time")?);
    let duration = required(&record, "Call_Duration")?;
    let parts = duration.split(':').map(|part| part.parse::<u64>().ok());
    let duration_s = parts
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| invalid("Call_Duration must be MM:SS"))?;
    let new = NewCall {
        direction: required(&record, "Call_Type")?.to_lowercase(),
        started_at: start.ok_or_else(|| invalid("Call_Start_Time must be a datetime"))?,
        duration_s: duration_s.into_iter().fold(0, |sum, part| sum * 60 + part),
        notes: text(&record, "Description").or_else(|| text(&record, "Subject")),
        agent_id: agent(&record),
        ..NewCall::default()
    };
    writes::call(state, whom(&record["Who_Id"])?, new)?;
    let id = FROM + 600_000_000_000 + state.made.calls.len() as u64;
    Ok(done(StatusCode::CREATED, id, "record added"))
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
            "token": known.webhook.secret, "channel_expiry": known.until.map(|until| stamp(until, &zone)),
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
        let url = required(asked, "notify_url")?;
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
        "channel_expiry": stamp(until, &state.knobs.zone()), "resource_uri": "https://www.zohoapis.com/crm/v8/Contacts",
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
