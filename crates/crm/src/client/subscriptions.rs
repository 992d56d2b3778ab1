//! The CRM's webhook, asked for by the bridge: its subscriptions listed, made, renewed and ended.

use contacts::subscription::Listed;
use contacts::{ErrorKind, Micros};
use minijinja::Value;
use secrecy::{ExposeSecret, SecretString};

use super::listing::{From, Listing, lacks};
use super::prepare::time_value;
use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult, Reached};
use crate::expr::{Expr, scope};
use crate::reply::Tests;
use crate::spec::{Calls, Request};
use crate::webhook::any_time;

const OPERATION: &str = "webhook";

/// Pages of a list of subscriptions beyond which it is not believed.
const MOST_PAGES: usize = 100;

/// Done, and a reply without a body is all there is to read.
const NO_CONTENT: u16 = 204;

/// An account's webhook, as the calls about it need it.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Where deliveries go.
    pub url: String,
    /// The bridge's own secret for it.
    pub secret: SecretString,
    /// A number that stands for it, where the subscriber chooses the id.
    pub number: u64,
}

/// What a CRM said of a subscription that it made or renewed.
#[derive(Clone, Debug)]
pub struct Subscribed {
    pub id: String,
    /// The secret that the CRM made.
    pub secret: Option<SecretString>,
    pub expires: Option<Micros>,
}

impl Client {
    /// Every subscription that the CRM shows to this account, of others too.
    pub async fn subscriptions(&self, hook: &Hook) -> CrmResult<Vec<Listed>> {
        let list = &self.calls()?.list;
        let named = self.hook_value(hook, "", "")?;
        let (mut found, mut cursor) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let listing = Listing {
                operation: OPERATION,
                request: &list.request,
                items: &list.items,
                page: &list.page,
                tests: Tests::default(),
                from: From::default(),
            };
            let names = [("hook", named.clone())];
            let listed = self.list_with(&listing, &names, cursor.as_ref()).await;
            let listed = listed.map_err(|error| silent(error, hook))?;
            for item in &listed.items {
                let names = self.item_scope(item);
                let text = |expr: &Expr| expr.text_of(&names).map_err(CrmError::expression);
                let optional = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), text);
                // Without an id and a URL it is none that anybody could end, and none of ours.
                let (Some(id), Some(url)) = (text(&list.id)?, text(&list.url)?) else {
                    continue;
                };
                found.push(Listed {
                    id,
                    url,
                    topic: optional(&list.topic)?,
                    expires: optional(&list.expires)?.as_deref().and_then(any_time),
                });
            }
            cursor = listed.next;
            if cursor.is_none() {
                return Ok(found);
            }
        }
        let message = format!("the list of subscriptions has more than {MOST_PAGES} pages");
        Err(CrmError::new(ErrorKind::BadReply, message))
    }

    /// Asks for a subscription. After a failure it may be there all the same.
    pub async fn subscribe(&self, hook: &Hook, topic: &str) -> CrmResult<Subscribed> {
        let calls = self.calls()?;
        let answer = self.hook_call(&calls.create, hook, topic, "").await?;
        self.captured(calls, &answer, hook, None)
    }

    /// Gives a subscription another end.
    pub async fn renew_subscription(&self, hook: &Hook, topic: &str, id: &str) -> CrmResult<Subscribed> {
        let calls = self.calls()?;
        let request = calls.renew.as_ref().unwrap_or(&calls.create);
        let answer = self.hook_call(request, hook, topic, id).await?;
        self.captured(calls, &answer, hook, Some(id))
    }

    /// The secret that the CRM made for a subscription.
    pub async fn subscription_secret(&self, hook: &Hook, id: &str) -> CrmResult<SecretString> {
        let reveal = self.calls()?.reveal.as_ref();
        let reveal = reveal.ok_or_else(|| lacks("question for a webhook's secret"))?;
        let answer = self.hook_call(&reveal.request, hook, "", id).await?;
        let secret = reveal.secret.text_of(&answer.scope).map_err(CrmError::expression)?;
        let secret = secret.filter(|secret| !secret.is_empty());
        secret
            .map(SecretString::from)
            .ok_or_else(|| CrmError::new(ErrorKind::BadReply, "the reply holds no secret of the webhook"))
    }

    /// Whether the CRM makes the secret, and tells it only when it is asked.
    pub fn secret_is_asked_for(&self) -> bool {
        self.calls().is_ok_and(|calls| calls.reveal.is_some())
    }

    /// Ends a subscription; one that is gone already counts as ended.
    pub async fn unsubscribe(&self, hook: &Hook, id: &str) -> CrmResult<()> {
        match self.hook_call(&self.calls()?.delete, hook, "", id).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::Missing || error.reached == Reached::Replied(NO_CONTENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn calls(&self) -> CrmResult<&Calls> {
        let webhook = self.spec().webhook.as_ref();
        let calls = webhook.and_then(|webhook| webhook.subscribe.as_ref()?.calls.as_ref());
        calls.ok_or_else(|| lacks("subscriptions"))
    }

    async fn hook_call(&self, request: &Request, hook: &Hook, topic: &str, id: &str) -> CrmResult<Answer> {
        let names = [("hook", self.hook_value(hook, topic, id)?)];
        let call = Call {
            operation: OPERATION,
            request,
            tests: Tests::default(),
            names: &names,
            url: None,
        };
        self.call(call).await.map_err(|error| silent(error, hook))
    }

    /// `hook`, for expressions.
    fn hook_value(&self, hook: &Hook, topic: &str, id: &str) -> CrmResult<Value> {
        let calls = self.calls()?;
        let text = |text: &str| match text {
            "" => Value::UNDEFINED,
            text => Value::from(text),
        };
        let until = self
            .until(calls)
            .map(|until| scope(time_value(Some((&calls.until_as, &self.zone)), until)));
        Ok(scope([
            ("url", Value::from(hook.url.as_str())),
            ("secret", Value::from(hook.secret.expose_secret())),
            ("number", Value::from(hook.number)),
            ("topic", text(topic)),
            ("id", text(id)),
            ("until", until.unwrap_or(Value::UNDEFINED)),
        ]))
    }

    fn until(&self, calls: &Calls) -> Option<Micros> {
        calls.life.map(|life| self.clock.now().plus(life))
    }

    /// What the reply says of the subscription; `known`: the id that it has already.
    fn captured(&self, calls: &Calls, answer: &Answer, hook: &Hook, known: Option<&str>) -> CrmResult<Subscribed> {
        let text = |expr: &Expr| expr.text_of(&answer.scope).map_err(CrmError::expression);
        let optional = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), text);
        let capture = &calls.capture;
        let bad = |message: &str| silent(CrmError::new(ErrorKind::BadReply, message), hook);
        let id = match (text(&capture.id)?, known) {
            (Some(id), _) => id,
            (None, Some(known)) => known.to_owned(),
            (None, None) => return Err(bad("the reply does not say the id of the subscription")),
        };
        let secret = optional(&capture.secret)?.filter(|secret| !secret.is_empty());
        if capture.secret.is_some() && secret.is_none() && known.is_none() {
            return Err(bad("the reply holds no secret of the webhook"));
        }
        let told = optional(&capture.expires)?.as_deref().and_then(any_time);
        Ok(Subscribed {
            id,
            secret: secret.map(SecretString::from),
            // Counted from before the call, so that it is never taken for later than it is.
            expires: told.or(calls.life.map(|life| answer.asked_at.plus(life))),
        })
    }
}

/// A CRM may repeat in its refusal what it was sent.
fn silent(mut error: CrmError, hook: &Hook) -> CrmError {
    error.message = error.message.replace(hook.secret.expose_secret(), "***");
    error
}
