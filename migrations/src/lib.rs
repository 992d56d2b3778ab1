//! What outlives a process: the numbered steps of the stored layouts and the topology of the broker. Data only; the
//! store and the queue apply it.

pub mod rabbitmq;
pub mod redis;
pub mod sqlite;
