//! The envelope of an event. Repeated deliveries differ in `timestamp`, the time of sending, and in nothing else.

use serde_json::{Value, json};

use super::reading::{contact, user};
use super::{Web1on1, caller, organization};
use crate::account::State;
use crate::vendors::shapes::{Person, iso_ms};
use crate::vendors::{Hook, Vendor as _};
use crate::webhooks::{Event, EventKind};

const API: &str = "https://api.web1on1.chat/v2";

pub(super) fn told(hook: &Hook) -> Value {
    let (state, event) = (hook.state, &hook.events[0]);
    let (resource, id) = if event.user {
        ("user", Web1on1.user_id(event.contact as usize))
    } else {
        ("contact", Web1on1.contact_id(event.contact))
    };
    let (action, verb) = match event.kind {
        EventKind::Created => ("create", "Create"),
        EventKind::Deleted | EventKind::Merged => ("delete", "Delete"),
        EventKind::Updated | EventKind::Archived => ("update", "Update"),
    };
    // What people do is another user's doing.
    let actor = if event.by_api { caller(state) } else { 2 };
    let own = format!("{API}/{resource}s/{id}");
    let mut data = json!({"links": {resource: own}});
    data[resource] = if event.user {
        user(state, event.contact as usize)
    } else {
        then(state, event)
    };
    json!({
        "id": format!("6f1c2a50-0000-4000-8000-{:012x}", event.number), "event": format!("{resource}.{action}"),
        "timestamp": iso_ms(hook.now_ms), "organization": organization(state),
        "activity": {
            "type": verb, "published": iso_ms(event.at), "summary": format!("{resource} {action}d"),
            "actor": {"id": format!("{API}/users/{}", Web1on1.user_id(actor)), "type": "Person"},
            "object": {"id": own, "type": "Object"},
        },
        "data": data,
    })
}

/// The contact as the event left it. Of one that is gone the ids are told.
fn then(state: &State, event: &Event) -> Value {
    match &event.record {
        Some(record) => contact(state, &Person::new(state, event.contact, record)),
        None => json!({
            "id": Web1on1.contact_id(event.contact), "organization": organization(state),
            "conversation": Web1on1.conversation_id(event.contact),
        }),
    }
}
