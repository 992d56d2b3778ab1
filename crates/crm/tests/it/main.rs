//! The connector engine against small servers of its own: no network, no services.

mod adjusted;
mod calls;
mod capabilities;
mod declared;
mod faults;
mod fetching;
mod fixtures;
mod identity;
mod language;
mod linking;
mod linking_fakes;
mod load;
mod oauth;
mod odoo_live;
mod operations;
mod pacing;
mod support;
mod vendor_specs;
mod webhooks;
