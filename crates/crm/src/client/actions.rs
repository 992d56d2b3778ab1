//! Actions: one write at the CRM, sent once (Talkdesk action executor).
//!
//! A write that fails says how far it got ([`crate::CrmError::fate`]), as nobody can ask for it again when it may have
//! happened. Only a session that the CRM no longer knows is renewed and the call repeated: who was refused wrote nothing.

use std::collections::BTreeMap;
use std::future::Future;

use contacts::ErrorKind;
use minijinja::Value;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult, Reached};
use crate::expr::{Expr, value_of};
use crate::inputs::Inputs;
use crate::map::{Tally, clipped, url};
use crate::reply::Tests;
use crate::spec::{Action, ActionResult};

/// What is to be done, and on whose behalf.
#[derive(Clone, Debug, Default)]
pub struct Deed {
    pub inputs: Inputs,
    /// The CRM's id of the contact that it is about.
    pub contact: Option<String>,
    /// The CRM's id of the user who acts.
    pub agent: Option<String>,
}

/// What the CRM said of a write that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// For people; the connector's words.
    pub message: Option<String>,
    /// The id of what was made, unless it is a contact.
    pub external_id: Option<String>,
    pub contact_external_id: Option<String>,
    pub contact_external_type: Option<String>,
    pub contact_external_url: Option<String>,
}

impl Client {
    /// Carries out an action; whatever is not done by `deadline` has failed, `Perhaps` if it may have been sent.
    pub async fn act(&self, action: &str, deed: &Deed, deadline: Instant) -> CrmResult<Done> {
        let found = self.connector.action(action);
        let action =
            found.ok_or_else(|| CrmError::new(ErrorKind::Rejected, "the connector has no action of this name"))?;
        for (needed, given, who) in [
            (action.needs_contact, &deed.contact, "contact"),
            (action.needs_agent, &deed.agent, "agent"),
        ] {
            if needed && given.is_none() {
                return Err(CrmError::new(ErrorKind::Rejected, format!("the action needs a {who}")));
            }
        }
        let names = [
            ("input", value_of(&deed.inputs.0)),
            ("contact", identified(deed.contact.as_deref())),
            ("agent", identified(deed.agent.as_deref())),
        ];
        let call = Call {
            operation: "actions",
            request: &action.request,
            tests: Tests {
                ok: action.ok.as_ref(),
                bare_is_good: true,
                ..Tests::default()
            },
            names: &names,
            url: None,
        };
        let answer = self.write(call, deadline).await?;
        Ok(done(action, &answer))
    }

    async fn write(&self, call: Call<'_>, deadline: Instant) -> CrmResult<Answer> {
        let mut renewed = false;
        loop {
            let start = async {
                let entry = self.entry().await?;
                let ready = self.ready(call, entry.value.as_ref()).await?;
                Ok((entry, ready))
            };
            let (entry, ready) = in_time(deadline, Reached::Nobody, start).await?;
            let going = self.go(call, entry.value.as_ref(), ready);
            let answer = in_time(deadline, Reached::Perhaps, going).await;
            let denied = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Credentials);
            if !denied || !self.refused(&entry).await? || renewed {
                return answer;
            }
            renewed = true;
        }
    }
}

async fn in_time<T>(deadline: Instant, reached: Reached, work: impl Future<Output = CrmResult<T>>) -> CrmResult<T> {
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(CrmError::new(ErrorKind::Timeout, "the CRM did not do it within the deadline").reaching(reached)),
    }
}

fn identified(id: Option<&str>) -> Value {
    value_of(&id.map(|id| ("id", id)).into_iter().collect::<BTreeMap<_, _>>())
}

/// It is done, whatever of the reply can be read.
fn done(action: &Action, answer: &Answer) -> Done {
    let text = |expr: &Option<Expr>, most| {
        let text = expr
            .as_ref()
            .and_then(|expr| expr.text_of(&answer.scope).ok().flatten());
        clipped(text, most, &mut Tally::default())
    };
    let ActionResult {
        message,
        external_id,
        contact_external_id,
        contact_external_type,
        contact_external_url,
    } = &action.result;
    let contact = text(contact_external_id, 255);
    Done {
        message: text(message, 255),
        external_id: text(external_id, 255),
        contact_external_type: text(contact_external_type, 255).filter(|_| contact.is_some()),
        contact_external_url: url(text(contact_external_url, 2_048), false, &mut Tally::default())
            .filter(|_| contact.is_some()),
        contact_external_id: contact,
    }
}
