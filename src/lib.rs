//! snapbridge: a Talkdesk integration bridge that answers from cached snapshots. This crate is the command line and the
//! HTTP front, and wires the parts together; ARCHITECTURE.md shows the whole.

pub mod cli;
pub mod wiring;

pub mod admin;
pub mod census;
pub mod dealers;
pub mod demo;
pub mod doctor;
pub mod front;
pub mod guard;
pub mod images;
pub mod integrations;
pub mod keyring;
pub mod openapi;
pub mod origin;
pub mod paperwork;
pub mod sampling;
pub mod server;
pub mod starting;
pub mod status;
pub mod tls;
pub mod trial;
pub mod urls;
