//! Linking: two systems that hold the same people, a DMS (dealer management system) and Web1on1, learn each other's
//! records, so that each shows a link to the other. Pure decisions; who calls whom is the worker's.
//!
//! In reading order: [`Update`] is what the DMS tells, [`Event`] what Web1on1 does; [`matched`] says whom an update means;
//! [`merge`] and [`without`] put one link among those of others, [`UrlTemplate`] writes its address; [`flow`] says which way
//! a field goes; [`records`] keeps who is linked with whom; a [`Payload`] is what waits in the inbox.

mod event;
mod fields;
mod links;
mod matching;
mod payload;
pub mod records;
mod request;

pub use event::{Applied, Change, Digest, Event, Person, Stamp, Verdict};
pub use fields::{Field, Flow, Owner, Wrote, flow, insist};
pub use links::{BadTemplate, Link, Merged, Own, UrlTemplate, merge, without};
pub use matching::{Matched, Needle, matched, needles, needles_of};
pub use payload::{Look, Payload, Remove, Seed, Tidy};
pub use records::{Record, Side, Trouble, resolve, rivals};
pub use request::{BadUpdate, Update};
