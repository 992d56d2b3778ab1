//! The whole system: front, worker, both backends, a fake CRM, and the player in Talkdesk's place. One binary.

mod harness;

mod architecture;
mod auth;
mod bad_input;
mod compose;
mod faults;
mod metrics;
mod odoo;
mod paperwork;
mod processes;
mod secrets;
mod sync;
mod webhooks;
