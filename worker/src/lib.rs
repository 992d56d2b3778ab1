//! The worker: takes jobs, runs slices of refresh work under a lease, settles them; and sweeps for what is due.
//!
//! `requests` is the side that the front uses too: mark contacts dirty and ring, park and unpark.

pub mod crash;
pub mod deps;
pub mod requests;
pub mod source;

pub mod consume;
mod drain;
pub mod erase;
pub mod held;
mod lease;
pub mod life;
pub mod linking;
pub mod progress;
mod slice;
pub mod subscriptions;
pub mod sweep;
pub mod trace;

pub use consume::run;
pub use deps::{Deps, Plan, Policy};
pub use requests::Requests;
pub use slice::row;
pub use source::{CrmSource, Handled, Linker, Source, Sources, Subscribing, Traits};
