//! Odoo: JSON-RPC as versions 14 to 18 have it, and JSON-2 as version 19 does.
//!
//! From Odoo's documents on its external APIs, from its source (`ir_actions.py` for the webhook, `service/model.py` for the
//! errors) and from a real Odoo 17, 2026. An error of JSON-RPC is a 200; empty is `false`; stamps are shown in whole seconds
//! while the column keeps fractions; `unlink` leaves no trace; archived rows hide; a commit may come late (`hold`). The
//! webhook is unsigned, gives up after a second and never comes again; the secret is the `key` in its address.
//! **Recalled**: status and name of errors of JSON-2 beyond 401 and 404.

mod reading;
mod writing;

use http::StatusCode;
use serde_json::{Value, json};

use super::shapes::Person;
use super::{Hook, Outgoing, Refused, Vendor};
use crate::account::State;
use crate::api::{ApiError, Op, no_contact};
use crate::select::{Archived, Selection};
use crate::webhooks::EventKind;
use crate::wire::{Reply, Request};
use crate::writes::{self};

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
            ("res.partner", "search_read") if says("email") || says("phone") => Op::Find,
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
            Op::Check | Op::Users => reading::users(state, &call)?,
            Op::Ids => {
                let selection = reading::selection(&call)?;
                selection
                    .run(state)
                    .into_iter()
                    .map(|(id, _)| id)
                    .collect::<Vec<u64>>()
                    .into()
            }
            Op::Batch if call.method == "read" => {
                let fields = fields(call.arg(1, "fields"));
                reading::partners(
                    state,
                    &call,
                    &Selection {
                        archived: Archived::Shown,
                        ..Selection::of_ids(call.ids())
                    },
                    &fields,
                )?
            }
            Op::List | Op::Changes | Op::Find | Op::Batch => {
                let fields = fields(match call.args.get(1) {
                    Some(fields) if !call.json2 => fields,
                    _ => &call.named["fields"],
                });
                let selection = reading::selection(&call)?;
                match op {
                    Op::Find => reading::found(state, &call, selection, &fields)?,
                    _ => reading::partners(state, &call, &selection, &fields)?,
                }
            }
            Op::Tickets => reading::tickets(state, &call)?,
            Op::CreateContact => writing::create(state, &call)?,
            Op::UpdateContact => {
                let changed = writing::given(call.arg(1, "vals"));
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
            Op::CreateTicket => writing::create_ticket(state, &call)?,
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
