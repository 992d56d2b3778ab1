//! The shapes of requests and pages as the OpenAPI document shows them. Requests are shown as leniently as they are read;
//! reading itself is `request`'s and `operations`' work.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Agent;

/// A text, a number or a boolean; all are taken for text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Scalar {
    Text(String),
    Number(f64),
    Flag(bool),
}

/// One value, or a list of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Texts {
    One(Scalar),
    Many(Vec<Option<Scalar>>),
}

/// A place in a list: the text of the last answer. Empty and null mean the start.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum OffsetText {
    Text(String),
    Number(f64),
}

/// The configured authentication fields by name; what the connector does not know is ignored.
pub type AuthFields = BTreeMap<String, Option<Scalar>>;

/// Talkdesk authorization validation.
#[derive(Serialize, ToSchema)]
pub struct AuthBody {
    #[schema(inline)]
    pub auth: Option<AuthFields>,
}

/// Talkdesk contact synchronization, request.
#[derive(Serialize, ToSchema)]
pub struct SyncBody {
    #[schema(inline)]
    pub auth: Option<AuthFields>,
    pub meta: Option<SyncMeta>,
}

#[derive(Serialize, ToSchema)]
pub struct SyncMeta {
    /// `next_offset` of the last page; absent on the first page of a run.
    pub offset: Option<OffsetText>,
    /// That of the last run, as it was given; absent on the initial sync. One that cannot be read means a full sync.
    #[schema(value_type = Option<Value>)]
    pub synchronization_checkpoint: Option<Value>,
    /// That of the last page.
    #[schema(value_type = Option<Value>)]
    pub context: Option<Value>,
}

/// A page of contacts (Talkdesk contact synchronization, response).
#[derive(Serialize, ToSchema)]
pub struct SyncPage {
    pub contacts: Vec<Contact>,
    /// Opaque; at most 255 characters of ASCII.
    pub synchronization_checkpoint: String,
    /// Absent on the last page of a run.
    #[schema(nullable = false)]
    pub next_offset: Option<String>,
    /// Beside `next_offset`, for the next request.
    #[schema(value_type = Option<Value>)]
    pub context: Option<Value>,
}

/// The eleven keys of a contact; `id` and `name` are never empty.
#[derive(Serialize, ToSchema)]
pub struct Contact {
    pub id: String,
    pub name: String,
    #[schema(nullable = false)]
    pub company: Option<String>,
    #[schema(nullable = false)]
    pub title: Option<String>,
    pub emails: Vec<String>,
    /// E.164.
    pub phones: Vec<String>,
    #[schema(nullable = false)]
    pub photo_url: Option<String>,
    #[schema(nullable = false)]
    pub address: Option<String>,
    #[schema(nullable = false)]
    pub websites: Option<Vec<String>>,
    /// Without `@`.
    #[schema(nullable = false)]
    pub twitter: Option<String>,
    #[schema(nullable = false)]
    pub url: Option<String>,
}

/// Talkdesk agent synchronization, request.
#[derive(Serialize, ToSchema)]
pub struct AgentBody {
    #[schema(inline)]
    pub auth: Option<AuthFields>,
    pub meta: Option<AgentMeta>,
}

#[derive(Serialize, ToSchema)]
pub struct AgentMeta {
    /// `next_offset` of the last page, also as text; absent or null on the first.
    pub offset: Option<AgentOffset>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum AgentOffset {
    Number(u64),
    Text(String),
}

/// A page of agents (Talkdesk agent synchronization, response).
#[derive(Serialize, ToSchema)]
pub struct AgentPage {
    pub agents: Vec<Agent>,
    /// Absent on the last page.
    #[schema(nullable = false)]
    pub next_offset: Option<u64>,
}

/// Talkdesk interaction retriever, request.
#[derive(Serialize, ToSchema)]
pub struct InteractionBody {
    #[schema(inline)]
    pub auth: Option<AuthFields>,
    pub meta: Option<InteractionMeta>,
    pub data: Option<InteractionData>,
}

#[derive(Serialize, ToSchema)]
pub struct InteractionMeta {
    /// Which types are wanted; absent: all.
    pub interaction_types: Option<Texts>,
}

#[derive(Serialize, ToSchema)]
pub struct InteractionData {
    pub contact_external_id: Option<Scalar>,
    pub contact_name: Option<Scalar>,
    pub contact_emails: Option<Texts>,
    pub contact_phones: Option<Texts>,
}

/// Talkdesk action executor, request.
#[derive(Serialize, ToSchema)]
pub struct ActionBody {
    #[schema(inline)]
    pub auth: Option<AuthFields>,
    pub meta: Option<ActionMeta>,
    /// The inputs of the action by key.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    pub data: Option<BTreeMap<String, Value>>,
}

#[derive(Serialize, ToSchema)]
pub struct ActionMeta {
    pub contact_external_id: Option<Scalar>,
    pub agent_external_id: Option<Scalar>,
}
