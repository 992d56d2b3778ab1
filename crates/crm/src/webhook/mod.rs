//! Incoming webhooks: who sent them, and which contacts they speak of.

mod decode;
mod linking;
mod made;
mod verify;

use std::collections::BTreeMap;

use contacts::Micros;
use contacts::subscription::{SecretOf, Wanted};
use http::HeaderMap;
use secrecy::SecretString;
use serde_json::Value as Json;

use crate::expr::{Expr, ExprError, scope, to_text, value_of};
use crate::spec::{Calls, HookScope, Verify, Webhook};

pub use linking::LinkNews;
pub use made::Made;
pub(crate) use verify::verify;

/// A delivery as it arrived. The body is raw: signatures are over bytes.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRequest<'a> {
    pub method: &'a str,
    /// The configured public URL with the delivery's own path and query, not what a proxy made of it.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    pub query: &'a BTreeMap<String, String>,
    pub body: &'a [u8],
    /// The CRM's own id of the subscription, where its signature holds it (EspoCRM).
    pub hook_id: Option<&'a str>,
}

/// A delivery that proved its sender, with its body read.
#[derive(Clone, Debug)]
pub struct Verified {
    body: Json,
}

/// Why a delivery is not believed. None of these says which part of a proof was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the delivery carries no proof of its sender")]
    NoProof,
    #[error("the proof of the sender does not hold")]
    BadProof,
    #[error("the delivery is too old or from the future")]
    OutsideWindow,
    #[error("the body is not what this connector's webhooks look like")]
    BadBody,
    #[error("this connector has no webhooks")]
    NoWebhook,
}

/// What one event of a delivery says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Whose it is, for app-level senders: what `check` learned as `org`.
    pub account: Option<String>,
    /// The contacts it names; several for a merge.
    pub ids: Vec<String>,
    pub deleted: bool,
    pub at: Option<Micros>,
    /// The same for a repeated delivery of the same event.
    pub dedupe: Option<String>,
    /// Whether it is about contacts, or agents, at all.
    pub relevant: bool,
    /// It is about the CRM's users, and names no contacts.
    pub agents: bool,
}

/// Events of one delivery, and ids of one event, beyond which it is refused.
const MOST_EVENTS: usize = 10_000;
const MOST_IDS: usize = 1_000;
const LONGEST_ID: usize = 255;

/// The webhook side of a connector.
#[derive(Clone, Copy, Debug)]
pub struct Hooks<'a> {
    pub(crate) spec: &'a Webhook,
}

impl<'a> Hooks<'a> {
    /// Whether the sender has one URL for all accounts.
    pub fn is_app_level(&self) -> bool {
        matches!(self.spec.scope, HookScope::App | HookScope::Both)
    }

    /// Whether each account can have a URL and secret of its own.
    pub fn is_per_account(&self) -> bool {
        matches!(self.spec.scope, HookScope::Connection | HookScope::Both)
    }

    /// How soon the sender wants its answer.
    pub fn answer_within(&self) -> Option<std::time::Duration> {
        self.spec.answer_within
    }

    /// Steps for a person who sets the webhook up.
    pub fn manual_steps(&self) -> &'a [String] {
        self.spec.subscribe.as_ref().map_or(&[], |subscribe| &subscribe.manual)
    }

    /// Whether the CRM's API makes a webhook for whoever has an account's credentials.
    pub fn can_subscribe(&self) -> bool {
        self.calls().is_some()
    }

    /// What to ask the CRM for, so that it delivers to `url`; `None`: a person has to.
    pub fn wanted(&self, url: String) -> Option<Wanted> {
        let calls = self.calls()?;
        Some(Wanted {
            url,
            topics: calls.topics.clone(),
            secret: calls.secret(),
            renew_before: calls.renew_before,
        })
    }

    /// Whether the CRM makes the secret of a webhook that it is asked for.
    pub fn brings_secret(&self) -> bool {
        self.calls().is_some_and(|calls| calls.secret() != SecretOf::Bridge)
    }

    /// The bridge's own secret as the CRM takes it: some take none as long.
    pub fn secret(&self, own: &str) -> SecretString {
        let length = self
            .spec
            .subscribe
            .as_ref()
            .and_then(|subscribe| subscribe.secret_length);
        own.chars()
            .take(length.unwrap_or(usize::MAX))
            .collect::<String>()
            .into()
    }

    fn calls(&self) -> Option<&Calls> {
        self.spec.subscribe.as_ref()?.calls.as_ref()
    }

    /// Verifies a delivery against any of `secrets` (two are valid during a rotation) and reads its body.
    pub fn verify(
        &self,
        request: &WebhookRequest<'_>,
        secrets: &[SecretString],
        now: Micros,
    ) -> Result<Verified, Refused> {
        verify(&self.spec.verify, request, secrets, now)?;
        let body = decode::decode(self.spec.verify.decode, request.body).ok_or(Refused::BadBody)?;
        Ok(Verified { body })
    }

    /// Reads a body that nobody has to prove: for a test bridge that says so in its settings.
    pub fn unproven(&self, body: &[u8]) -> Result<Verified, Refused> {
        let body = decode::decode(self.spec.verify.decode, body).ok_or(Refused::BadBody)?;
        Ok(Verified { body })
    }

    /// What the sender wants as an answer once its delivery is taken: status, content type, body. `None`: any 2xx.
    pub fn ack(&self) -> Option<(u16, &str, &str)> {
        let (status, kind, body) = self.spec.verify.ack.as_ref()?;
        Some((*status, kind, body))
    }

    /// The events of a verified delivery.
    pub fn events(&self, verified: &Verified) -> Result<Vec<Event>, Refused> {
        events(self.spec, &verified.body)
    }

    /// The answer to a set-up handshake by GET, if this is one: 1 to 256 of A-Z, a-z, 0-9, `_`, `-`, never anything that a
    /// browser could take for a page.
    pub fn challenge(&self, query: &BTreeMap<String, String>) -> Option<String> {
        challenge(&self.spec.verify, query)
    }
}

pub(crate) fn challenge(verify: &Verify, query: &BTreeMap<String, String>) -> Option<String> {
    let challenge = verify.challenge.as_ref()?;
    let scope = scope([("query", value_of(query))]);
    if !challenge.when.is_true(&scope).ok()? {
        return None;
    }
    let answer = challenge.answer.text_of(&scope).ok()??;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    ((1..=256).contains(&answer.len()) && answer.bytes().all(legal)).then_some(answer)
}

fn events(spec: &Webhook, body: &Json) -> Result<Vec<Event>, Refused> {
    let body = value_of(body);
    each(spec, &body)?
        .into_iter()
        .map(|item| event(spec, &scope([("body", body.clone()), ("ev", item)])).map_err(|_| Refused::BadBody))
        .collect()
}

/// The events of a body, unread.
fn each(spec: &Webhook, body: &minijinja::Value) -> Result<Vec<minijinja::Value>, Refused> {
    let each = spec.events.each.eval(&scope([("body", body.clone())]));
    let each = each.map_err(|_| Refused::BadBody)?;
    let items: Vec<_> = match each.kind() {
        minijinja::value::ValueKind::Seq => each.try_iter().map_err(|_| Refused::BadBody)?.collect(),
        _ => return Err(Refused::BadBody),
    };
    match items.len() > MOST_EVENTS {
        true => Err(Refused::BadBody),
        false => Ok(items),
    }
}

fn event(spec: &Webhook, scope: &minijinja::Value) -> Result<Event, ExprError> {
    let events = &spec.events;
    let is = |expr: &Option<Expr>, otherwise| expr.as_ref().map_or(Ok(otherwise), |expr| expr.is_true(scope));
    let text = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), |expr| expr.text_of(scope));
    if is(&events.agents, false)? {
        return Ok(Event {
            account: text(&events.account)?,
            dedupe: text(&events.dedupe)?,
            relevant: true,
            agents: true,
            ..Event::default()
        });
    }
    if !is(&events.when, true)? {
        return Ok(Event {
            account: text(&events.account)?,
            ..Event::default()
        });
    }
    let mut ids = events.ids.texts_of(scope)?;
    ids.retain(|id| id.chars().count() <= LONGEST_ID);
    ids.truncate(MOST_IDS);
    let at = events.at.as_ref().map(|expr| expr.eval(scope)).transpose()?;
    Ok(Event {
        account: text(&events.account)?,
        relevant: !ids.is_empty(),
        ids,
        deleted: is(&events.deleted, false)?,
        at: at.as_ref().and_then(to_text).as_deref().and_then(any_time),
        dedupe: text(&events.dedupe)?,
        agents: false,
    })
}

/// A time as webhooks write it: RFC 3339, or a number of seconds or milliseconds, told apart by its size (a number below
/// 1e11 would be before 1973 as milliseconds).
pub(crate) fn any_time(text: &str) -> Option<Micros> {
    match text.parse::<u64>() {
        Ok(number) if number < 100_000_000_000 => Some(Micros::from_secs(number)),
        Ok(number) if number < 253_402_300_800_000 => Some(Micros::from_millis(number)),
        Ok(_) => None,
        Err(_) => Micros::parse(text),
    }
}
