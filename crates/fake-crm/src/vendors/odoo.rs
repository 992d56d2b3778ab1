//! Odoo: JSON-RPC as versions 14 to 18 have it, and JSON-2 as version 19 does.
//!
//! From Odoo's documents on its external APIs, from its source (`ir_actions.py` for the webhook, `service/model.py` for the
//! errors) and from a real Odoo 17, 2026. An error of JSON-RPC is a 200; empty is `false`; stamps are shown in whole seconds
//! while the column keeps fractions; `unlink` leaves no trace; archived rows hide; a commit may come late (`hold`). The
//! webhook is unsigned, gives up after a second and never comes again; the secret is the `key` in its address.
//! **Recalled**: status and name of errors of JSON-2 beyond 401 and 404.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::shapes::{self, Person, parse_iso, parse_plain, plain, some};
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, no_contact};
use crate::data::{Address, Fields, Ticket};
use crate::select::{Archived, Order, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};
use crate::writes::{self, NewTicket};

pub(crate) struct Odoo;

/// A call of either API.
struct Call {
    json2: bool,
    db: Option<String>,
    key: Option<String>,
    /// `authenticate` and `version` have no model.
    model: String,
    method: String,
    args: Vec<Value>,
    named: Value,
    id: Value,
}

impl Call {
    fn read(request: &Request) -> Option<Call> {
        let body: Value = serde_json::from_slice(request.body).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match request.target() {
            ("POST", path) if path == ["jsonrpc"] => {
                let params = &body["params"];
                let mut args = params["args"].as_array().cloned().unwrap_or_default();
                let service = params["service"].as_str()?;
                let mut call = Call {
                    json2: false,
                    db: None,
                    key: None,
                    model: String::new(),
                    method: params["method"].as_str()?.to_owned(),
                    args: Vec::new(),
                    named: Value::Null,
                    id: body["id"].clone(),
                };
                args.resize(args.len().max(7), Value::Null);
                match (service, call.method.as_str()) {
                    ("common", "version") => {}
                    ("common", "authenticate" | "login") => {
                        call.db = text(&args[0]);
                        call.key = text(&args[2]);
                    }
                    ("object", "execute_kw") => {
                        call.db = text(&args[0]);
                        call.key = text(&args[2]).filter(|_| args[1].is_u64());
                        call.model = text(&args[3])?;
                        call.method = text(&args[4])?;
                        call.args = args[5].as_array().cloned().unwrap_or_default();
                        call.named = args[6].clone();
                    }
                    _ => return None,
                }
                Some(call)
            }
            ("POST", path) => {
                let ["json", "2", model, method] = path[..] else {
                    return None;
                };
                Some(Call {
                    json2: true,
                    db: request.header("x-odoo-database").map(str::to_owned),
                    key: request.bearer().map(str::to_owned),
                    model: model.to_owned(),
                    method: method.to_owned(),
                    args: Vec::new(),
                    named: body,
                    id: Value::Null,
                })
            }
            _ => None,
        }
    }

    fn op(&self) -> Option<Op> {
        let says = |field: &str| self.domain().iter().any(|leaf| leaf[0] == field);
        let op = match (self.model.as_str(), self.method.as_str()) {
            ("", "version") => Op::Check,
            ("", _) => Op::Token,
            ("res.users", "read" | "context_get") => Op::Check,
            ("res.users", "search_read") => Op::Users,
            ("res.partner", "search") => Op::Ids,
            ("res.partner", "search_read") if says("write_date") => Op::Changes,
            ("res.partner", "search_read") if self.domain().iter().any(|leaf| leaf[0] == "id" && leaf[1] == "in") => {
                Op::Batch
            }
            ("res.partner", "search_read") => Op::List,
            ("res.partner", "read") => Op::Batch,
            ("res.partner", "create") => Op::CreateContact,
            ("res.partner", "write") => Op::UpdateContact,
            ("res.partner", "message_post") => Op::CreateNote,
            (_, "create") => Op::CreateTicket,
            (_, "search_read") => Op::Tickets,
            _ => return None,
        };
        Some(op)
    }

    /// The argument at a place of JSON-RPC, or by its name.
    fn arg(&self, at: usize, name: &str) -> &Value {
        match self.args.get(at) {
            Some(value) if !self.json2 => value,
            _ => &self.named[name],
        }
    }

    fn domain(&self) -> Vec<Value> {
        self.arg(0, "domain").as_array().cloned().unwrap_or_default()
    }

    fn limit(&self) -> usize {
        self.named["limit"].as_u64().map_or(usize::MAX, |limit| limit as usize)
    }

    fn ids(&self) -> Vec<u64> {
        let ids = self.arg(0, "ids");
        match ids.as_u64() {
            Some(id) => vec![id],
            None => ids.as_array().into_iter().flatten().filter_map(Value::as_u64).collect(),
        }
    }

    fn result(&self, result: Value) -> Reply {
        if self.json2 {
            return Reply::ok(&result);
        }
        Reply::ok(&json!({"jsonrpc": "2.0", "id": self.id, "result": result}))
    }

    /// `name` is the exception's class.
    fn error(&self, status: u16, name: &str, message: &str) -> Reply {
        let debug = format!(
            "Traceback (most recent call last):\n  File \"odoo/service/model.py\", line 1, in dispatch: {}\n{name}: {message}\n",
            self.key.as_deref().unwrap_or_default()
        );
        let data = json!({"name": name, "message": message, "arguments": [message], "context": {}, "debug": debug});
        if self.json2 {
            return Reply::json(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &data);
        }
        let error = json!({"code": 200, "message": "Odoo Server Error", "data": data});
        Reply::ok(&json!({"jsonrpc": "2.0", "id": self.id, "error": error}))
    }
}

impl Vendor for Odoo {
    fn claims(&self, account: &str, request: &Request) -> bool {
        let call = Call::read(request);
        call.is_some_and(|call| call.db.is_none_or(|db| db == account))
    }

    fn route(&self, request: &Request) -> Option<Op> {
        Call::read(request)?.op()
    }

    fn admits(&self, state: &mut State, request: &Request) -> bool {
        let Some(call) = Call::read(request) else { return false };
        if call.op() == Some(Op::Check) && call.method == "version" {
            return true;
        }
        let db = call.db.as_deref().is_none_or(|db| db == state.account);
        db && state.accepts(call.key.as_deref())
    }

    fn answer(&self, state: &mut State, op: Op, request: &Request) -> Result<Reply, ApiError> {
        let call = Call::read(request).ok_or_else(no_contact)?;
        let result = match op {
            Op::Check if call.method == "version" => json!({
                "server_version": "17.0", "server_version_info": [17, 0, 0, "final", 0, ""], "server_serie": "17.0",
                "protocol_version": 1,
            }),
            Op::Token => uid(state).into(),
            Op::Check if call.method == "context_get" => {
                json!({"lang": "en_US", "tz": state.knobs.time_zone, "uid": uid(state)})
            }
            Op::Check | Op::Users => users(state, &call)?,
            Op::Ids => {
                let selection = selection(&call)?;
                selection
                    .run(state)
                    .into_iter()
                    .map(|(id, _)| id)
                    .collect::<Vec<u64>>()
                    .into()
            }
            Op::Batch if call.method == "read" => {
                let fields = fields(call.arg(1, "fields"));
                partners(
                    state,
                    &call,
                    &Selection {
                        archived: Archived::Shown,
                        ..Selection::of_ids(call.ids())
                    },
                    &fields,
                )?
            }
            Op::List | Op::Changes | Op::Batch => {
                let fields = fields(match call.args.get(1) {
                    Some(fields) if !call.json2 => fields,
                    _ => &call.named["fields"],
                });
                partners(state, &call, &selection(&call)?, &fields)?
            }
            Op::Tickets => tickets(state, &call)?,
            Op::CreateContact => create(state, &call)?,
            Op::UpdateContact => {
                let changed = given(call.arg(1, "vals"));
                for id in call.ids() {
                    if !writes::change(state, id, &changed) {
                        return Err(no_contact());
                    }
                }
                true.into()
            }
            Op::CreateNote => {
                let body = call.named["body"].as_str().unwrap_or_default().to_owned();
                let contact = call.ids().first().copied().unwrap_or_default();
                let note = writes::note(state, contact, None, body)?;
                json!(note.id.parse::<u64>().unwrap_or_default())
            }
            Op::CreateTicket => create_ticket(state, &call)?,
            _ => return Err(no_contact()),
        };
        Ok(call.result(result))
    }

    fn refuse(&self, state: &State, request: &Request, refused: &Refused) -> Reply {
        let page = |status: StatusCode| {
            let text = format!("<html><body><h1>{status}</h1></body></html>");
            Reply::bytes(status, "text/html; charset=utf-8", text.into_bytes())
        };
        let call = match refused {
            // What stands before an Odoo knows no JSON.
            Refused::Throttled { seconds, .. } => {
                return page(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds);
            }
            Refused::Broken(status) => return page(*status),
            _ => match Call::read(request) {
                Some(call) => call,
                None => return page(StatusCode::NOT_FOUND),
            },
        };
        match refused {
            Refused::Unauthorized { .. } => {
                let db = call.db.as_deref().filter(|db| *db != state.account);
                match db {
                    Some(db) if !call.json2 => {
                        let message = format!("FATAL:  database \"{db}\" does not exist\n");
                        call.error(500, "psycopg2.OperationalError", &message)
                    }
                    Some(_) => call.error(404, "werkzeug.exceptions.NotFound", "no such database"),
                    None if call.json2 => call.error(401, "werkzeug.exceptions.Unauthorized", "Invalid apikey"),
                    None if call.model.is_empty() => call.result(false.into()),
                    None => call.error(401, "odoo.exceptions.AccessDenied", "Access Denied"),
                }
            }
            Refused::Failed(wrong) => match wrong.code {
                "not_found" => call.error(
                    404,
                    "odoo.exceptions.MissingError",
                    "Record does not exist or has been deleted.",
                ),
                "no_model" if call.json2 => call.error(404, "werkzeug.exceptions.NotFound", &wrong.message),
                "no_model" => call.error(404, "odoo.exceptions.UserError", &wrong.message),
                "invalid" => call.error(422, "odoo.exceptions.ValidationError", &wrong.message),
                _ => call.error(422, "builtins.ValueError", &wrong.message),
            },
            _ => call.error(
                404,
                "builtins.AttributeError",
                &format!("no method {} of {}", call.method, call.model),
            ),
        }
    }

    fn example(&self, base: &str, account: &str, token: &str) -> String {
        let args = format!("[\"{account}\", \"any\", \"{token}\", {{}}]");
        let params = format!("{{\"service\": \"common\", \"method\": \"authenticate\", \"args\": {args}}}");
        format!(
            "curl -s {base}/jsonrpc -d '{{\"jsonrpc\": \"2.0\", \"method\": \"call\", \"id\": 1, \"params\": {params}}}'"
        )
    }

    fn knobs(&self, knobs: &mut crate::Knobs) {
        knobs.whole_second_stamps = true;
        knobs.no_tombstones = true;
        knobs.hide_archived = true;
    }

    fn user_id(&self, ordinal: usize) -> String {
        (ordinal + 1).to_string()
    }

    fn hook(&self, hook: &Hook) -> Outgoing {
        let event = &hook.events[0];
        let now = hook.state.contacts.newest(event.contact);
        let name = now.map(|record| Person::new(hook.state, event.contact, record).name());
        let body = json!({
            "_action": "Send Webhook Notification(#471)", "_id": event.contact, "_model": "res.partner", "id": event.contact,
            "name": name,
        });
        let outgoing = Outgoing::json(hook, body.to_string());
        if hook.webhook.secret.is_empty() || hook.webhook.url.contains("key=") {
            return outgoing;
        }
        let joint = if hook.webhook.url.contains('?') { '&' } else { '?' };
        let key: String = url::form_urlencoded::byte_serialize(hook.webhook.secret.as_bytes()).collect();
        Outgoing {
            url: format!("{}{joint}key={key}", hook.webhook.url),
            ..outgoing
        }
    }

    /// The rule is one "on save".
    fn tells(&self, kind: EventKind) -> bool {
        !matches!(kind, EventKind::Deleted | EventKind::Merged)
    }

    fn hook_attempts(&self) -> u32 {
        1
    }

    fn hook_timeout_ms(&self) -> u64 {
        1_000
    }
}

fn uid(state: &State) -> u64 {
    state.viewer.unwrap_or(1) as u64 + 1
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::new(422, "value", message)
}

fn fields(value: &Value) -> Vec<String> {
    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

// ---- reading

fn selection(call: &Call) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        offset: call.named["offset"].as_u64().unwrap_or(0) as usize,
        limit: call.limit(),
        ..Selection::default()
    };
    if call.named["context"]["active_test"] == false {
        selection.archived = Archived::Shown;
    }
    for leaf in call.domain() {
        if leaf == "&" {
            continue;
        }
        let (Some(field), Some(operator)) = (leaf[0].as_str(), leaf[1].as_str()) else {
            return Err(wrong(format!("this fake knows no domain with {leaf}")));
        };
        let value = &leaf[2];
        let known = match (field, operator) {
            ("id", "in") => {
                selection.among(value.as_array().into_iter().flatten().filter_map(Value::as_u64));
                true
            }
            ("id", operator) => selection.compare_id(operator, value.as_u64().unwrap_or(0)),
            ("write_date", operator) => {
                let at = value.as_str().and_then(parse_plain);
                let at =
                    at.ok_or_else(|| wrong(format!("time data {value} does not match format '%Y-%m-%d %H:%M:%S'")))?;
                selection.compare_time(operator, at)
            }
            ("active", "=") => {
                selection.archived = if value == true {
                    Archived::Hidden
                } else {
                    Archived::Only
                };
                true
            }
            ("active", "in") => {
                selection.archived = Archived::Shown;
                true
            }
            // Every contact of the fake is a person.
            ("is_company", "=") => {
                if value == true {
                    selection.among([]);
                }
                true
            }
            _ => return Err(wrong(format!("Invalid field 'res.partner.{field}' in leaf {leaf}"))),
        };
        if !known {
            return Err(wrong(format!("Invalid operator {operator} in domain")));
        }
    }
    let order: Vec<&str> = call.named["order"]
        .as_str()
        .unwrap_or("id asc")
        .split(',')
        .map(str::trim)
        .collect();
    selection.order = match order.as_slice() {
        ["id" | "id asc"] => Order::Id,
        ["id desc"] => Order::IdDown,
        ["write_date" | "write_date asc", ..] => Order::Time,
        ["write_date desc", ..] => Order::TimeDown,
        _ => return Err(wrong(format!("this fake does not order by {}", order.join(", ")))),
    };
    Ok(selection)
}

/// Nothing is `false`.
fn or_false(text: Option<&str>) -> Value {
    text.map_or(Value::Bool(false), Value::from)
}

fn partner(person: &Person, fields: &[String], mobile: bool) -> Result<Value, ApiError> {
    let row = &person.row;
    let country = match row.address.country.as_str() {
        "PT" => json!([183, "Portugal"]),
        "US" => json!([233, "United States"]),
        "DE" => json!([57, "Germany"]),
        _ => json!(false),
    };
    let parent = some(&row.company).map_or(json!(false), |name| json!([1_000_000 + person.id, name]));
    let emails: Vec<&str> = row
        .emails
        .iter()
        .map(|email| email.trim())
        .filter(|email| !email.is_empty())
        .collect();
    let normal = emails
        .first()
        .map(|email| email.to_lowercase())
        .filter(|email| email.contains('@'));
    let mut shown = Map::new();
    shown.insert("id".to_owned(), person.id.into());
    for field in fields {
        let value = match field.as_str() {
            "id" => continue,
            "name" | "display_name" => or_false(some(&person.name())),
            "email" => or_false(some(&emails.join(","))),
            "email_normalized" => or_false(normal.as_deref()),
            "phone" => or_false(person.phone(0)),
            "mobile" if mobile => or_false(person.phone(1)),
            "parent_id" => parent.clone(),
            "company_name" | "street2" | "state_id" | "is_company" => json!(false),
            "function" => or_false(some(&row.job_title)),
            "street" => or_false(some(&row.address.street)),
            "zip" => or_false(some(&row.address.zip)),
            "city" => or_false(some(&row.address.city)),
            "country_id" => country.clone(),
            "website" => or_false(row.website.as_deref().and_then(some)),
            "active" => json!(!row.archived),
            "create_date" => json!(plain(person.created)),
            "write_date" => json!(plain(person.modified)),
            _ => return Err(wrong(format!("Invalid field '{field}' on model 'res.partner'"))),
        };
        shown.insert(field.clone(), value);
    }
    Ok(shown.into())
}

fn partners(state: &State, call: &Call, selection: &Selection, fields: &[String]) -> Result<Value, ApiError> {
    // `mobile` went in version 19.
    let mobile = !call.json2;
    partner(&Person::gone(state, 1, 0), fields, mobile)?;
    let found = selection.run(state).into_iter();
    found
        .map(|(id, record)| partner(&Person::new(state, id, record), fields, mobile))
        .collect()
}

fn users(state: &State, call: &Call) -> Result<Value, ApiError> {
    let (wanted, mut after, only) = if call.method == "read" {
        (fields(call.arg(1, "fields")), 0, Some(call.ids()))
    } else {
        (fields(&call.named["fields"]), 0, None)
    };
    let mut hidden = true;
    for leaf in call.domain().iter().filter(|_| only.is_none()) {
        match (leaf[0].as_str(), leaf[1].as_str()) {
            (Some("share"), Some("=")) => {}
            (Some("id"), Some(">")) => after = leaf[2].as_u64().unwrap_or(0),
            (Some("active"), _) => hidden = false,
            _ => return Err(wrong(format!("this fake knows no domain of users with {leaf}"))),
        }
    }
    let all = (1..=state.users.len()).filter_map(|at| Some((at as u64 + 1, state.user(at)?)));
    let found = all.filter(|(uid, user)| match &only {
        Some(ids) => ids.contains(uid),
        None => *uid > after && (user.active || !hidden),
    });
    let show = |(uid, user): (u64, crate::User)| {
        let all = json!({
            "name": format!("{} {}", user.first_name, user.last_name), "login": format!("user{uid}"),
            "email": or_false(user.email.as_deref()), "active": user.active, "share": false,
        });
        let mut shown = json!({"id": uid});
        for field in &wanted {
            shown[field] = all[field].clone();
        }
        shown
    };
    Ok(found.take(call.limit()).map(show).collect())
}

fn no_model(call: &Call) -> ApiError {
    ApiError::new(404, "no_model", format!("Object {} doesn't exist", call.model))
}

fn ticket(ticket: &Ticket) -> Value {
    let stage = match ticket.status.as_str() {
        "pending" => json!([3, "On Hold"]),
        "open" => json!([2, "In Progress"]),
        "solved" => json!([4, "Solved"]),
        _ => json!([1, "New"]),
    };
    let priority = match ticket.priority.as_str() {
        "normal" => "1",
        "high" => "2",
        "urgent" => "3",
        _ => "0",
    };
    json!({
        "id": shapes::ticket_number(ticket), "name": ticket.subject, "stage_id": stage, "priority": priority,
        "description": or_false(some(&ticket.description)), "create_date": parse_iso(&ticket.created_at).map(plain),
        "write_date": parse_iso(&ticket.updated_at).map(plain),
    })
}

/// Helpdesk is installed, other applications are not.
fn tickets(state: &State, call: &Call) -> Result<Value, ApiError> {
    if call.model != "helpdesk.ticket" {
        return Err(no_model(call));
    }
    let of = call
        .domain()
        .iter()
        .find(|leaf| leaf[0] == "partner_id")
        .and_then(|leaf| leaf[2].as_u64());
    let contact = of.ok_or_else(|| wrong("this fake finds tickets by partner_id"))?;
    let mut tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    tickets.sort_by(|one, other| other.created_at.cmp(&one.created_at));
    Ok(tickets.iter().take(call.limit()).map(ticket).collect())
}

// ---- writing

fn given(values: &Value) -> Fields {
    let text = |name: &str| values[name].as_str().and_then(some).map(str::to_owned);
    let name = text("name").map(|name| match name.split_once(' ') {
        Some((first, last)) => (first.to_owned(), last.to_owned()),
        None => (name, String::new()),
    });
    let phones: Vec<String> = ["phone", "mobile"].iter().filter_map(|name| text(name)).collect();
    Fields {
        first_name: name.as_ref().map(|(first, _)| first.clone()),
        last_name: name.map(|(_, last)| last),
        company: text("company_name"),
        job_title: text("function"),
        emails: text("email").map(|email| vec![email]),
        phones: Some(phones).filter(|phones| !phones.is_empty()),
        website: text("website"),
        address: text("street").map(|street| Address {
            street,
            city: text("city").unwrap_or_default(),
            zip: text("zip").unwrap_or_default(),
            country: String::new(),
        }),
    }
}

/// One record makes one id, a list of them a list.
fn created(call: &Call, mut make: impl FnMut(&Value) -> Result<u64, ApiError>) -> Result<Value, ApiError> {
    let values = call.arg(0, "vals_list");
    match values.as_array() {
        Some(list) => list.iter().map(|one| make(one).map(Value::from)).collect(),
        None => Ok(make(values)?.into()),
    }
}

fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    created(call, |values| {
        let new = given(values);
        if new.first_name.is_none() {
            return Err(crate::api::invalid("Contacts require a name"));
        }
        let mut fields = Fields::empty();
        fields.lay_over(&new);
        Ok(writes::contact(state, &fields))
    })
}

fn create_ticket(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    if call.model != "helpdesk.ticket" {
        return Err(no_model(call));
    }
    created(call, |values| {
        let priority = match values["priority"].as_str() {
            None => None,
            Some("0") => Some("low"),
            Some("1") => Some("normal"),
            Some("2") => Some("high"),
            Some("3") => Some("urgent"),
            Some(other) => return Err(wrong(format!("Wrong value for helpdesk.ticket.priority: '{other}'"))),
        };
        let new = NewTicket {
            subject: values["name"].as_str().unwrap_or_default().to_owned(),
            description: values["description"].as_str().unwrap_or_default().to_owned(),
            priority: priority.map(str::to_owned),
            due_at: None,
            agent_id: values["user_id"]
                .as_u64()
                .map(|uid| format!("u-{}", uid.saturating_sub(1))),
        };
        let contact = values["partner_id"].as_u64().unwrap_or_default();
        Ok(shapes::ticket_number(&writes::ticket(state, contact, new)?.ticket))
    })
}
