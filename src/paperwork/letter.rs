//! The manifest as an e-mail, ready to be opened and sent.

use mail_builder::MessageBuilder;
use mail_builder::headers::raw::Raw;

use super::manifest::{Contact, Manifest, RECIPIENT, SUBJECT};

/// A file to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    pub data: Vec<u8>,
}

/// The message (RFC 5322). `sent` are seconds since 1970.
///
/// # Errors
/// None that writing into memory does not have.
pub fn write(
    manifest: &Manifest<'_>,
    from: &Contact,
    attached: Vec<Attachment>,
    sent: i64,
) -> std::io::Result<Vec<u8>> {
    let others = manifest
        .customer
        .contacts
        .iter()
        .filter(|contact| contact.email != from.email);
    let copies: Vec<(String, String)> = others
        .map(|contact| (contact.name.clone(), contact.email.clone()))
        .collect();
    let mut message = MessageBuilder::new()
        .from((from.name.clone(), from.email.clone()))
        .to(RECIPIENT)
        .subject(SUBJECT)
        .date(sent)
        // Mail programs open it as a draft.
        .header("X-Unsent", Raw::new("1"))
        .text_body(manifest.letter());
    if !copies.is_empty() {
        message = message.cc(copies);
    }
    for Attachment { name, data } in attached {
        message = message.attachment(content_type(&name), name, data);
    }
    message.write_to_vec()
}

fn content_type(name: &str) -> &'static str {
    match name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "pdf" => "application/pdf",
        "json" => "application/json",
        "html" | "htm" => "text/html",
        "md" => "text/markdown",
        "txt" => "text/plain",
        "yaml" | "yml" => "application/yaml",
        _ => "application/octet-stream",
    }
}
