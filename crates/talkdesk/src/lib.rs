//! Talkdesk's side of the contract: the wire types a bridge reads and writes, and the player, which acts as Talkdesk's
//! synchronizer against any contact sync URL.

pub mod player;
pub mod wire;
