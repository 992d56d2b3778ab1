use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A page of contacts (Talkdesk contact sync, response reference), put together from finished JSON.
#[derive(Clone, Copy, Debug)]
pub struct SyncReply<'a> {
    /// Mandatory: without it Talkdesk would fetch everything on every sync.
    pub checkpoint: &'a str,
    /// `None` on the last page: the key is left out then.
    pub next_offset: Option<&'a str>,
    /// Sent only beside a `next_offset`, as Talkdesk returns it with the next page's request and at no other time.
    pub context: Option<&'a Value>,
}

/// A page of agents (Talkdesk agent sync, response reference), put together from finished JSON.
#[derive(Clone, Copy, Debug)]
pub struct AgentReply {
    /// `None` on the last page: the key is left out then.
    pub next_offset: Option<u64>,
}

/// An agent as a page holds it; all three are mandatory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    pub id: String,
    pub name: String,
    pub email: String,
}

/// The body of every error: `{"code","message"}`. `message` is the one key a Talkdesk screen may show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Stable, for programs.
    pub code: String,
    /// For people; never a secret.
    pub message: String,
}

impl SyncReply<'_> {
    /// `contacts`: one finished JSON object each, in the order of their positions. They are copied, not read; the
    /// buffer is allocated once, for which the iterator is walked twice.
    pub fn write<I>(&self, contacts: I) -> Bytes
    where
        I: IntoIterator<IntoIter: Clone, Item: AsRef<[u8]>>,
    {
        let mut tail = Vec::from(*b"],\"synchronization_checkpoint\":");
        push_json(&mut tail, &self.checkpoint);
        if let Some(offset) = self.next_offset {
            tail.extend_from_slice(b",\"next_offset\":");
            push_json(&mut tail, &offset);
            if let Some(context) = self.context {
                tail.extend_from_slice(b",\"context\":");
                push_json(&mut tail, context);
            }
        }
        tail.push(b'}');
        assemble(b"{\"contacts\":[", contacts.into_iter(), &tail)
    }
}

impl AgentReply {
    /// `agents`: one finished JSON object each.
    pub fn write<I>(&self, agents: I) -> Bytes
    where
        I: IntoIterator<IntoIter: Clone, Item: AsRef<[u8]>>,
    {
        let tail = match self.next_offset {
            Some(offset) => format!("],\"next_offset\":{offset}}}"),
            None => "]}".to_owned(),
        };
        assemble(b"{\"agents\":[", agents.into_iter(), tail.as_bytes())
    }
}

impl ErrorBody {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut body = Vec::new();
        push_json(&mut body, self);
        body.into()
    }
}

fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    // Text and JSON values have no way to fail to serialise, nor has a Vec to be written to.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

fn assemble<I>(head: &[u8], items: I, tail: &[u8]) -> Bytes
where
    I: Iterator<Item: AsRef<[u8]>> + Clone,
{
    let (count, size) = items.clone().fold((0_usize, 0_usize), |(count, size), item| {
        (count + 1, size + item.as_ref().len())
    });
    let mut out = Vec::with_capacity(head.len() + size + count.saturating_sub(1) + tail.len());
    out.extend_from_slice(head);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.as_ref());
    }
    out.extend_from_slice(tail);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_the_shape_of_the_contract() {
        let context = json!({"run": "r1", "page": 1});
        let reply = SyncReply {
            checkpoint: "v1.c\"",
            next_offset: Some("v1.o"),
            context: Some(&context),
        };
        let body = reply.write([r#"{"id":"1"}"#, r#"{"id":"2"}"#]);
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"contacts":[{"id":"1"},{"id":"2"}],"synchronization_checkpoint":"v1.c\"","next_offset":"v1.o","context":{"page":1,"run":"r1"}}"#
        );
    }

    #[test]
    fn the_last_page_has_neither_offset_nor_context() {
        let context = json!(1);
        let reply = SyncReply {
            checkpoint: "c",
            next_offset: None,
            context: Some(&context),
        };
        assert_eq!(
            &reply.write::<[&[u8]; 0]>([])[..],
            br#"{"contacts":[],"synchronization_checkpoint":"c"}"#
        );
    }

    #[test]
    fn agents_and_errors_have_theirs() {
        let agents = AgentReply { next_offset: Some(7) }.write([br#"{"id":"u"}"#]);
        assert_eq!(&agents[..], br#"{"agents":[{"id":"u"}],"next_offset":7}"#);
        assert_eq!(
            &AgentReply { next_offset: None }.write([""; 0])[..],
            br#"{"agents":[]}"#
        );
        let error = ErrorBody::new("malformed_json", "the body is not JSON");
        assert_eq!(
            &error.to_bytes()[..],
            br#"{"code":"malformed_json","message":"the body is not JSON"}"#
        );
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out_as_json(
            names in prop::collection::vec(any::<String>(), 0..8),
            checkpoint in any::<String>(),
            offset in prop::option::of(any::<String>()),
            note in any::<String>(),
        ) {
            let contacts: Vec<Vec<u8>> = names.iter().map(|name| serde_json::to_vec(&json!({"name": name})).unwrap()).collect();
            let context = json!([note]);
            let reply = SyncReply { checkpoint: &checkpoint, next_offset: offset.as_deref(), context: Some(&context) };
            let body = reply.write(&contacts);
            let page: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&page["synchronization_checkpoint"], &json!(checkpoint));
            prop_assert_eq!(page.get("next_offset").cloned(), offset.as_ref().map(|offset| json!(offset)));
            prop_assert_eq!(page.get("context"), offset.as_ref().map(|_| &context));
            let found: Vec<_> = page["contacts"].as_array().unwrap().iter().map(|contact| contact["name"].clone()).collect();
            prop_assert_eq!(found, names.iter().map(|name| json!(name)).collect::<Vec<_>>());
        }
    }
}
