//! The connector engine: a TOML file becomes requests, paging, mapping, webhook verification and local pacing. This crate
//! alone in the project calls hosts that others name.
//!
//! In reading order: [`Connector::load`] reads a file with the types of [`spec`] and the language of [`expr`];
//! [`Client`] calls one account's CRM with it, through [`Http`] (which hosts, how much) and [`Pacer`] (how often);
//! [`Hooks`] verifies and reads what the CRM sends by itself.

pub mod expr;
mod load;
pub mod spec;

mod connector;
mod identity;
mod inputs;
mod sample;
#[cfg(test)]
mod schema;
mod shipped;

mod error;
mod hosts;
mod http;
mod link;
mod mint;
mod pacer;
mod rehearsal;
mod reply;
mod walk;

mod client;
mod map;
mod webhook;

pub use client::{
    AgentsPage, Checked, Client, Connection, Deed, Deleted, DeletedPage, Done, Hook, IdsPage, Interaction,
    Interactions, LinkTo, Linked, Many, Page, Person, Sent, Subscribed, Watch, Window,
};
pub use connector::{Connector, Deletions, Delta};
pub use error::{CrmError, CrmResult, Fate, Reached};
pub use hosts::{AllowHosts, BadAllowHost, HostRefused, is_public};
pub use http::{ClientSettings, Http};
pub use identity::Canonical;
pub use inputs::{BadInputs, Inputs};
pub use load::Problem;
pub use map::{Counts, Observed, Region, e164};
pub use mint::{Mint, TokenKeep};
pub use pacer::{Budgets, Pacer, Patience};
pub use spec::{Adjustments, Field, FieldSource, FieldType, Grant, Role};
pub use webhook::{Event, Hooks, LinkNews, Made, Refused, Verified, WebhookRequest};
