//! The whole system: front, worker, both backends, a fake CRM, and the player in Talkdesk's place. One binary.

mod door;
mod harness;

mod accounts;
mod actions;
mod adjusted;
mod agents;
mod architecture;
mod auth;
mod bad_input;
mod canary;
mod check;
mod compose;
mod connector_commands;
mod connectors;
mod contract;
mod deploy;
mod faults;
mod guarded;
mod https;
mod images;
mod interactions;
mod linking;
mod metrics;
mod monitoring;
mod odoo;
mod openapi;
mod ops;
#[cfg(feature = "otel")]
mod otel;
mod paperwork;
mod processes;
mod rolling;
mod secrets;
mod stalled;
mod subscriptions;
mod sync;
mod webhooks;
