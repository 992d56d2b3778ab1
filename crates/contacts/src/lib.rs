//! The domain of snapbridge: what a contact, a position, a checkpoint, an outcome and a budget are, and the ports (traits)
//! of store and queue. No IO happens here: decisions are pure functions with `now` as an argument, and the few `async`
//! functions only drive a port around such a decision.

pub mod time;

pub mod contact;
pub mod ids;
pub mod record;
pub mod remap;

pub mod agents;
pub mod keys;
pub mod reading;
pub mod token;

pub mod accounts;
pub mod audit;
pub mod dead;
pub mod docs;
pub mod erased;
pub mod explain;
pub mod holds;
pub mod inbox;
pub mod ledger;
pub mod life;
pub mod linking;
pub mod minted;
pub mod outcome;
pub mod rotation;
pub mod runs;
pub mod subscription;
pub mod transfer;
pub mod work;

pub mod ports;
pub mod queue;

pub use contact::Contact;
pub use ids::{AccountId, Fence, Generation, JobId, Kind, Lane, Position, Shard, Stream};
pub use outcome::{ErrorKind, Outcome};
pub use ports::{Store, StoreError};
pub use queue::{Delivery, Job, Queue, QueueError};
pub use time::{Clock, Micros, SystemClock};
