//! Talkdesk's side of the contract: the wire types a bridge reads and writes, the configuration that Talkdesk has to be
//! given, and the player, which acts as Talkdesk's synchronizer against any contact sync URL.

pub mod config;
pub mod player;
pub mod wire;
