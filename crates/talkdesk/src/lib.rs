//! Talkdesk's side of the contract: the wire types a bridge reads and writes, the configuration that Talkdesk has to be
//! given, the player, which acts as Talkdesk's synchronizer against any contact sync URL, and the checker, which tells the
//! rules that a bridge breaks.

pub mod check;
pub mod config;
pub mod player;
pub mod wire;
