//! What the APIs of all vendors have in common: operations, and why a call fails.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::account::State;
use crate::data;

/// An operation of a vendor's API, as counters and the knob `fault_ops` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = "token")]
    Token,
    #[serde(rename = "check")]
    Check,
    #[serde(rename = "contacts.list")]
    List,
    #[serde(rename = "contacts.changes")]
    Changes,
    #[serde(rename = "contacts.batch")]
    Batch,
    #[serde(rename = "contacts.deleted")]
    Deleted,
    #[serde(rename = "contacts.ids")]
    Ids,
    #[serde(rename = "contacts.find")]
    Find,
    #[serde(rename = "users")]
    Users,
    #[serde(rename = "companies")]
    Companies,
    #[serde(rename = "contact.tickets")]
    Tickets,
    #[serde(rename = "tickets.batch")]
    TicketBatch,
    #[serde(rename = "contact.activities")]
    Activities,
    #[serde(rename = "contacts.create")]
    CreateContact,
    #[serde(rename = "contacts.update")]
    UpdateContact,
    #[serde(rename = "tickets.create")]
    CreateTicket,
    #[serde(rename = "notes.create")]
    CreateNote,
    #[serde(rename = "calls.create")]
    CreateCall,
    #[serde(rename = "hooks.list")]
    Hooks,
    #[serde(rename = "hooks.create")]
    Subscribe,
    #[serde(rename = "hooks.update")]
    RenewHook,
    #[serde(rename = "hooks.delete")]
    Unsubscribe,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Token => "token",
            Op::Check => "check",
            Op::List => "contacts.list",
            Op::Changes => "contacts.changes",
            Op::Batch => "contacts.batch",
            Op::Deleted => "contacts.deleted",
            Op::Ids => "contacts.ids",
            Op::Find => "contacts.find",
            Op::Users => "users",
            Op::Companies => "companies",
            Op::Tickets => "contact.tickets",
            Op::TicketBatch => "tickets.batch",
            Op::Activities => "contact.activities",
            Op::CreateContact => "contacts.create",
            Op::UpdateContact => "contacts.update",
            Op::CreateTicket => "tickets.create",
            Op::CreateNote => "notes.create",
            Op::CreateCall => "calls.create",
            Op::Hooks => "hooks.list",
            Op::Subscribe => "hooks.create",
            Op::RenewHook => "hooks.update",
            Op::Unsubscribe => "hooks.delete",
        }
    }

    /// Pages of contacts, after which rows may move (knob `edits_per_page`).
    pub(crate) fn is_page(self) -> bool {
        matches!(self, Op::List | Op::Changes | Op::Ids)
    }

    /// Calls that make or change what people work with.
    pub(crate) fn is_write(self) -> bool {
        matches!(
            self,
            Op::CreateContact | Op::UpdateContact | Op::CreateTicket | Op::CreateNote | Op::CreateCall
        )
    }
}

/// Why a call that was let in failed. Each vendor has its own way to say it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            code,
            message: message.into(),
        }
    }
}

pub(crate) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "bad_request", message)
}

pub(crate) fn no_contact() -> ApiError {
    ApiError::new(404, "not_found", "no such contact")
}

pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(422, "invalid", message)
}

/// Knobs `own_contacts` and `shown_percent`.
pub(crate) fn shown(state: &State, id: u64) -> bool {
    let others = |user| data::owner(id, state.users.len()) != user;
    if state.knobs.own_contacts && state.viewer.is_some_and(others) {
        return false;
    }
    let percent = state.knobs.shown_percent;
    percent >= 100 || data::percentile(state.contacts.seed, id) < percent
}
