//! What every role does the same way: settings, key files, telemetry, stop, the lock of a data folder.
//!
//! This crate knows no other crate of the workspace, and nothing here reads the process environment by itself: the
//! caller hands in a map, so that tests never touch what is global.

pub mod keys;
pub mod lock;
#[cfg(feature = "otel")]
pub mod otel;
pub mod secrets;
pub mod settings;
pub mod stop;
pub mod telemetry;
pub mod tls;

pub use secrets::Secrets;
pub use settings::{Problem, Settings, Source};
pub use telemetry::chain;
