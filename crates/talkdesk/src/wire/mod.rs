//! Requests as Talkdesk sends them, read leniently, and answers put together from finished bytes.

mod reply;
mod request;

pub use reply::{Agent, AgentReply, ErrorBody, SyncReply};
pub use request::{AgentRequest, Auth, AuthRequest, BadRequest, SyncRequest};
