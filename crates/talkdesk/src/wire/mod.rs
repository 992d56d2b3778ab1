//! Requests as Talkdesk sends them, read leniently, and answers put together from finished bytes.

mod operations;
mod reply;
mod request;
pub mod schema;

pub use operations::{ActionReply, ActionRequest, Interaction, InteractionRequest, interactions};
pub use reply::{Agent, AgentReply, ErrorBody, SyncReply};
pub use request::{AgentRequest, Auth, AuthRequest, BadRequest, SyncRequest};
