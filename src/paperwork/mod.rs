//! The documents that Talkdesk asks for before it calls a bridge: the configuration of an integration and its actions, and
//! the API manifest, with examples from a live run, as Markdown, PDF and e-mail.

pub mod configuration;
pub mod document;
pub mod examples;
pub mod letter;
pub mod live;
pub mod manifest;
pub mod markdown;
pub mod mask;
pub mod pdf;

#[cfg(test)]
mod tests;
