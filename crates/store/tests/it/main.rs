//! Every backend against the behaviour suite, against each other and against faults.

mod differential;
mod embedded;
mod faults;
mod layout;
mod server;
mod suite;
