//! The other endpoints of the small bridge.

use axum::extract::{Path, State};

use super::bridge::Shared;
use super::*;

pub async fn auth_validation(State(bridge): Shared, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    if let Err(no) = bridge.admit(request.get("auth"), "validate.refuses") {
        return no.into_response();
    }
    match bridge.defect {
        "validate.accepts" => error(401, "I trust nobody"),
        "validate.status" => reply(204, &Value::Null),
        "validate.fields" => reply(200, &json!({"ok": true})),
        _ => reply(200, &json!({"region": "eu-canary"})),
    }
}

pub async fn agent_sync(State(bridge): Shared, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    if let Err(no) = bridge.admit(request.get("auth"), "agents.credentials") {
        return no.into_response();
    }
    let offset = match request.get("meta").map(|meta| meta.get("offset")) {
        None if bridge.is("agents.meta") => return error(400, "no meta"),
        Some(None) if bridge.is("agents.first") => return error(400, "no offset"),
        Some(Some(Value::Null)) if bridge.is("agents.answers") => return error(400, "a null offset"),
        meta => meta.flatten().and_then(Value::as_u64).unwrap_or(0),
    };
    let agent = |number: u64| {
        let same = bridge.is("agents.emails") && number == 3;
        let email = if same {
            "A2@Example.com".into()
        } else {
            format!("a{number}@example.com")
        };
        let mut agent = json!({"id": format!("u-{number}"), "name": "Rosa", "email": email});
        if bridge.is("agents.fields") && number == 3 {
            agent["id"] = json!(3);
        }
        agent
    };
    let first = if bridge.is("agents.unique") {
        offset.saturating_sub(1)
    } else {
        offset
    };
    let mut answer = json!({"agents": (first..(offset + 10).min(25)).map(agent).collect::<Vec<_>>()});
    if bridge.is("agents.array") {
        answer["agents"] = json!({});
    }
    let next = if bridge.is("agents.paging") { 10 } else { offset + 10 };
    if next < 25 {
        answer["next_offset"] = if bridge.is("agents.offset") {
            json!(next.to_string())
        } else {
            json!(next)
        };
    } else if bridge.is("agents.last") {
        answer["next_offset"] = Value::Null;
    }
    reply(200, &answer)
}

pub async fn interaction_update(State(bridge): Shared, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    if let Err(no) = bridge.admit(request.get("auth"), "interactions.credentials") {
        return no.into_response();
    }
    let stored = request["auth"]["region"] == json!("eu-canary");
    assert!(
        stored || bridge.defect.starts_with("validate"),
        "what auth validation returned comes along"
    );
    let known = request["data"]["contact_external_id"]
        .as_str()
        .is_some_and(|id| id.starts_with("k-"));
    if !known && !bridge.is("interactions.stranger") {
        return if bridge.is("interactions.unknown") {
            error(404, "who?")
        } else {
            reply(200, &json!([]))
        };
    }
    let mut list = json!([
        {"id": "t-1", "type": "ticket", "subject": "Broken", "date": "2012-11-21 17:53:51 UTC", "description": "It is.",
         "url": "https://crm.example/t/1", "priority": "high", "status": "open"},
        {"id": "t-2", "type": "Case", "subject": "Again", "date": "2024-05-13T16:02:00Z"},
    ]);
    match bridge.defect {
        "interactions.answers" => return error(404, "who?"),
        "interactions.array" => list = json!({"interactions": list}),
        "interactions.fields" => list[1]["subject"] = Value::Null,
        "interactions.optional" => list[0]["priority"] = json!("huge"),
        "interactions.unique" => list[1]["id"] = json!("t-1"),
        "interactions.type" => list[1]["type"] = json!("call"),
        "interactions.date" => list[1]["date"] = json!("yesterday"),
        _ => {}
    }
    reply(200, &list)
}

pub async fn action(State(bridge): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let malformed = !request.is_object() || request["auth"].is_number();
    if malformed && !bridge.is("action.malformed") {
        return error(400, "malformed");
    }
    if !malformed && let Err(no) = bridge.admit(request.get("auth"), "action.credentials") {
        let silent = bridge.is("action.message");
        return if silent {
            reply(401, &json!({}))
        } else {
            no.into_response()
        };
    }
    if name != "create_ticket" && !bridge.is("action.unknown") {
        return error(404, "no such action");
    }
    let lenient = ["action.malformed", "action.credentials", "action.unknown"].contains(&bridge.defect);
    if request["data"]["subject"].as_str().is_none_or(str::is_empty) && !lenient {
        return error(400, "the subject is missing");
    }
    let mut answer = json!({"message": "Ticket created", "external_id": "t-91", "contact_external_id": "c-1",
                            "contact_external_url": "https://crm.example/c/1"});
    match bridge.defect {
        "action.answer" => answer["external_id"] = json!(91),
        "action.contact-url" => drop(answer.as_object_mut().unwrap().remove("contact_external_url")),
        _ => {}
    }
    reply(if bridge.is("action.success") { 200 } else { 201 }, &answer)
}
