//! The whole refresh against models: a CRM in memory that lags, fails, forgets and reorders; a store and a queue that
//! fail; workers that stall and die; a Talkdesk that keeps checkpoints as it likes. The worker's code is the real one.
//!
//! Time is the paused time of the test's runtime and chance comes from one seed, so a run can be repeated:
//! `MODEL_SEED=17 cargo test -p worker --test model <test>`. `MODEL_SEEDS=1000` runs more of them than the default.

mod front;
mod history;
mod listing;
mod machine;
mod model_crm;
mod port;
mod queue;
mod refresh;
mod slices;
mod source;
mod talkdesk;
mod witness;
mod world;
