//! A small bridge over contacts in memory: sound, but for one defect, named by the rule that it breaks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::routing::any;

use super::others::{action, agent_sync, auth_validation, interaction_update};
use super::*;

/// Contacts of the account, and of a page.
pub const CONTACTS: usize = 47;
pub const PAGE: usize = 10;

pub struct Bridge {
    pub defect: &'static str,
    /// Answers carry a `context`, which is not looked at.
    with_context: bool,
    /// Before which requests (from 0) what happens to which contact (from 1).
    changes: Box<dyn Fn(usize) -> Option<(usize, Change)> + Send + Sync>,
    state: Mutex<Run>,
}

/// A refusal: status and message.
pub struct No(u16, &'static str);

impl No {
    pub fn into_response(self) -> Response {
        error(self.0, self.1)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// It moves to the end, with another title.
    Edit,
    /// It moves to the end.
    Touch,
    Delete,
}

/// What the broken ones remember and a sound one has no need of.
#[derive(Default)]
struct Run {
    requests: usize,
    number: usize,
    unfinished: Option<usize>,
    last_offset: Option<usize>,
    used: HashSet<usize>,
    finished: HashSet<usize>,
    /// Position, number and version of each contact, in order.
    contacts: Vec<(usize, usize, usize)>,
}

impl Run {
    fn change(&mut self, number: usize, change: Change) {
        let Some(index) = self.contacts.iter().position(|(_, known, _)| *known == number) else {
            return;
        };
        let (_, _, version) = self.contacts.remove(index);
        let end = self.contacts.last().map_or(0, |(place, ..)| *place) + 1;
        match change {
            Change::Edit => self.contacts.push((end, number, version + 1)),
            Change::Touch => self.contacts.push((end, number, version)),
            Change::Delete => {}
        }
    }
}

impl Bridge {
    pub fn new(defect: &'static str) -> Bridge {
        Bridge {
            defect,
            with_context: false,
            changes: Box::new(|_| None),
            state: Mutex::new(Run {
                contacts: (1..=CONTACTS).map(|number| (number, number, 0)).collect(),
                ..Run::default()
            }),
        }
    }

    pub fn with_context(mut self) -> Bridge {
        self.with_context = true;
        self
    }

    pub fn changing(mut self, changes: impl Fn(usize) -> Option<(usize, Change)> + Send + Sync + 'static) -> Bridge {
        self.changes = Box::new(changes);
        self
    }

    pub async fn start(self) -> Server {
        let app = Router::new()
            .route("/b/contact_sync", any(contact_sync))
            .route("/b/auth_validation", post(auth_validation))
            .route("/b/agent_sync", post(agent_sync))
            .route("/b/interaction_update", post(interaction_update))
            .route("/b/actions/{name}", post(action))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::new(self));
        Server::start(app).await
    }

    pub fn is(&self, rule: &str) -> bool {
        self.defect == rule
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.state.lock().unwrap()
    }

    /// Refuses credentials that will not do. `leak`: the rule that lets wrong ones pass.
    pub fn admit(&self, auth: Option<&Value>, leak: &str) -> Result<(), No> {
        let text = |key: &str| match auth?.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if !self.is("request.auth-number") => Some(number.to_string()),
            _ => None,
        };
        let good = (text("account"), text("token")) == (Some(ACCOUNT.into()), Some(TOKEN.into()));
        let none = auth.is_none_or(|auth| auth.is_null() || auth == &json!({}));
        let for_contacts = leak == "credentials.wrong";
        if good || (none && for_contacts && self.is("credentials.missing")) || (!none && self.is(leak)) {
            return Ok(());
        }
        let forbidden = (for_contacts && self.is("credentials.status"))
            || (leak == "validate.refuses" && self.is("validate.unauthorized"));
        Err(No(if forbidden { 403 } else { 401 }, "the CRM does not know you"))
    }

    fn contact(&self, number: usize, version: usize) -> Value {
        let mut contact = json!({
            "id": format!("k-{number}"),
            "name": format!("Contact {number}"),
            "emails": [format!("c{number}@example.com")],
            "phones": ["+15555555555"],
            "title": format!("CTO {version}"),
            "url": format!("https://crm.example/{number}"),
            "websites": ["www.example.com"],
        });
        if number == 5 {
            match self.defect {
                "contact.object" => return json!("k-5"),
                "contact.id" => contact["id"] = json!(5),
                "contact.name" => contact["name"] = json!(" "),
                "contact.text" => contact["company"] = json!(7),
                "contact.list" => contact["emails"] = json!("c5@example.com"),
                "contact.null" => contact["title"] = Value::Null,
                "contact.keys" => contact["tags"] = json!([]),
                "contact.phone" => contact["phones"] = json!(["555-5555"]),
                "contact.link" => contact["url"] = json!("javascript:alert(1)"),
                _ => {}
            }
        }
        contact
    }
}

pub type Shared = State<Arc<Bridge>>;

async fn contact_sync(State(bridge): Shared, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    if method != Method::POST {
        let status = if bridge.is("http.method") { 404 } else { 405 };
        let mut response = error(status, "POST only");
        response.headers_mut().insert("allow", "POST".parse().unwrap());
        return response;
    }
    let mut response = page(&bridge, &headers, &body).unwrap_or_else(No::into_response);
    if !response.status().is_success() && bridge.is("http.error-message") {
        return (response.status(), "no").into_response();
    }
    if bridge.is("http.content-type") {
        response
            .headers_mut()
            .insert("content-type", "text/plain".parse().unwrap());
    }
    response
}

/// A request's `meta`, taken apart.
struct Asked {
    checkpoint: Option<String>,
    /// Run, lower bound (of the run's checkpoint), last position delivered.
    offset: Option<(usize, usize, usize)>,
    has_context: bool,
}

fn page(bridge: &Bridge, headers: &HeaderMap, body: &[u8]) -> Result<Response, No> {
    if body.len() > 256 << 10 && !bridge.is("http.oversize") {
        return Err(No(413, "too large"));
    }
    let plain = headers
        .get("content-type")
        .is_some_and(|name| name == "application/json");
    if bridge.is("http.request-type") && !plain {
        return Err(No(415, "JSON only"));
    }
    let malformed = || No(if bridge.is("http.malformed") { 500 } else { 400 }, "malformed");
    let request = match serde_json::from_slice(body) {
        Ok(Value::Object(request)) => request,
        _ => return Err(malformed()),
    };
    let auth = request.get("auth");
    if auth.is_some_and(|auth| !auth.is_object() && !auth.is_null()) {
        return Err(malformed());
    }
    let leak = match request.get("meta").and_then(|meta| meta.get("offset")) {
        Some(_) => "credentials.wrong",
        None if bridge.is("credentials.wrong") => "nothing",
        None => "credentials.wrong",
    };
    bridge.admit(auth, leak)?;
    if bridge.is("request.unknown") && request.len() > 2 {
        return Err(No(400, "unknown key"));
    }
    let meta = match request.get("meta") {
        None | Some(Value::Null) if bridge.is("request.meta") => return Err(No(400, "no meta")),
        None | Some(Value::Null) => json!({}),
        Some(Value::Object(meta)) => meta.clone().into(),
        Some(_) => return Err(malformed()),
    };
    let asked = asked(bridge, &meta, malformed)?;
    Ok(answer(bridge, &asked))
}

fn asked(bridge: &Bridge, meta: &Value, malformed: impl Fn() -> No) -> Result<Asked, No> {
    let fields = meta.as_object().unwrap();
    let refused = |rule: &'static str, what: bool| {
        if what && bridge.is(rule) {
            Err(No(400, rule))
        } else {
            Ok(())
        }
    };
    let has = |key: &str, value: Value| fields.get(key) == Some(&value);
    let tokens = ["synchronization_checkpoint", "offset"];
    let known = ["synchronization_checkpoint", "offset", "context"];
    refused(
        "request.unknown",
        fields.keys().any(|key| !known.contains(&key.as_str())),
    )?;
    refused("request.null", tokens.iter().any(|key| has(key, Value::Null)))?;
    refused("request.empty", tokens.iter().any(|key| has(key, json!(""))))?;
    refused("context.null", has("context", Value::Null))?;
    refused("context.foreign", meta["context"].is_array())?;
    let checkpoint = match &meta["synchronization_checkpoint"] {
        Value::Number(number) if !bridge.is("checkpoint.number") => Some(number.to_string()),
        other => other.as_str().map(str::to_owned).filter(|text| !text.is_empty()),
    };
    let readable = checkpoint.as_deref().is_none_or(|text| position(text).is_some());
    refused("checkpoint.unreadable", !readable)?;
    let text = match &meta["offset"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(_) if bridge.is("offset.number") => return Err(No(400, "the offset is a number")),
        Value::Number(number) => Some(number.to_string()),
        _ => return Err(malformed()),
    };
    let offset = match text.map(|text| text.parse::<usize>()) {
        None => None,
        Some(Ok(code)) => Some((code / 1_000_000, code / 1_000 % 1_000, code % 1_000)),
        Some(Err(_)) if bridge.is("offset.unreadable") => None,
        Some(Err(_)) => return Err(No(400, "the offset cannot be read")),
    };
    let has_context = !meta["context"].is_null();
    refused("context.needed", offset.is_some() && !has_context)?;
    Ok(Asked {
        checkpoint,
        offset,
        has_context,
    })
}

fn position(checkpoint: &str) -> Option<usize> {
    checkpoint.parse().ok()
}

fn answer(bridge: &Bridge, asked: &Asked) -> Response {
    let mut run = bridge.run();
    if let Some((number, change)) = (bridge.changes)(run.requests) {
        run.change(number, change);
    }
    run.requests += 1;
    let given = asked.checkpoint.as_deref();
    let (number, lower, mut last) = match asked.offset {
        Some(offset) => offset,
        None => {
            run.number += 1;
            run.used.clear();
            let lower = given.and_then(position).filter(|_| !bridge.is("checkpoint.repeats"));
            (run.number, lower.unwrap_or(0), 0)
        }
    };
    let initial = lower == 0;
    match (asked.offset.is_some(), given.is_some()) {
        (true, false) if bridge.is("sync.next-page") => return error(500, "lost my way"),
        (false, true) if bridge.is("sync.next-run") => return error(500, "lost my way"),
        (true, true) if bridge.is("sync.next-run-page") && !initial => return error(500, "lost my way"),
        (true, true) if bridge.is("offset.alone") && initial => last += PAGE,
        (true, _) if bridge.is("paging.repeats") && initial => last -= 1,
        _ => {}
    }
    if asked.offset.is_some() {
        let code = number * 1_000_000 + lower * 1_000 + last;
        if bridge.is("repeat.refused") && !run.used.insert(code) {
            return error(409, "served already");
        }
        if bridge.is("repeat.differs") && run.last_offset == Some(code) {
            last += PAGE;
        }
        // Its last page may be repeated at once: that is another rule.
        let over = run.finished.contains(&number) && run.last_offset != Some(code);
        run.last_offset = Some(code);
        if over && bridge.is("resume.refused") {
            return error(410, "that run is over");
        }
        if over && bridge.is("resume.differs") {
            return reply(200, &json!({"contacts": [], "synchronization_checkpoint": "47"}));
        }
    } else if let (true, None, Some(place)) = (bridge.is("restart.complete"), given, run.unfinished) {
        last = place;
    }

    let from = last.max(lower);
    let rest = run.contacts.iter().filter(|(place, ..)| *place > from);
    let mut rest: Vec<_> = rest.copied().collect();
    let more = rest.split_off(PAGE.min(rest.len()));
    let end = rest.last().map_or(from, |(place, ..)| *place);
    let contact = |(_, number, version)| bridge.contact(number, version);
    let mut contacts: Vec<Value> = rest.into_iter().map(contact).collect();
    if bridge.is("contact.unique") && from == 0 {
        contacts.push(contacts[4].clone());
    }
    let checkpoint = match bridge.defect {
        "checkpoint.loses" if !more.is_empty() => end + 3,
        "checkpoint.stands" if !more.is_empty() => lower,
        "checkpoint.falls-back" if contacts.is_empty() => 0,
        _ => end,
    };
    let mut body = json!({"contacts": contacts, "synchronization_checkpoint": checkpoint.to_string()});
    let endless = bridge.is("paging.end") && initial;
    if !more.is_empty() || endless {
        let end = if more.is_empty() { end + 1 } else { end };
        let code = match asked.offset {
            Some(_) if bridge.is("paging.progress") && initial => number * 1_000_000 + lower * 1_000 + last,
            _ => number * 1_000_000 + lower * 1_000 + end,
        };
        body["next_offset"] = if bridge.is("page.offset") {
            json!(code)
        } else {
            json!(code.to_string())
        };
        if bridge.with_context || bridge.is("context.needed") {
            body["context"] = json!({"had": asked.has_context});
        }
        run.unfinished = initial.then_some(end);
    } else {
        run.finished.insert(number);
        run.unfinished = None;
        if bridge.is("page.last") {
            body["next_offset"] = Value::Null;
        }
    }
    match bridge.defect {
        "page.contacts" => body["contacts"] = json!({"items": body["contacts"]}),
        "page.checkpoint" if initial && last == PAGE => body["synchronization_checkpoint"] = json!(17),
        _ => {}
    }
    reply(200, &body)
}
