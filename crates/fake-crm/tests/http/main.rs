//! The fake CRM through its HTTP API: operations, counters, knobs, webhooks.

mod api;
mod faults;
mod harness;
mod limits;
mod linking;
mod oauth;
mod readme;
mod vendors;
mod visibility;
mod webhooks;
mod writes;
