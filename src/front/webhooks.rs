//! Webhooks: prove the sender over the raw bytes, mark what they name as dirty, ring with a confirmed publish, then 2xx.
//! The body is never taken as data: it is a reason to look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contacts::{AccountId, Kind, Lane, accounts, subscription};
use crm::{Event, Hooks, Refused, Verified, WebhookRequest};
use secrecy::SecretString;
use serde::Deserialize;

use super::error::{ApiError, ApiResult, json};
use super::{Front, body};
use crate::integrations::Integration;
use crate::origin::Origin;

#[derive(Deserialize)]
pub struct Hook {
    integration: String,
    #[serde(default)]
    hook: Option<String>,
}

type Parameters = Query<BTreeMap<String, String>>;

/// `GET`: the sender's set-up handshake. The answer is plain text and never anything a browser would run.
pub async fn challenge(
    State(front): State<Arc<Front>>,
    Path(hook): Path<Hook>,
    Query(query): Parameters,
) -> ApiResult<Response> {
    let integration = front.integrations.get(&hook.integration).ok_or_else(no_webhooks)?;
    let answer = integration
        .connector
        .webhook()
        .and_then(|hooks| hooks.challenge(&query));
    let answer = answer.ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "no_challenge", "This is no handshake"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer).into_response())
}

/// `POST /{integration}/webhooks`: one URL for all accounts; each event names its own.
pub async fn app(
    State(front): State<Arc<Front>>,
    Path(hook): Path<Hook>,
    OriginalUri(uri): OriginalUri,
    origin: Option<Extension<Origin>>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let integration = front.integrations.get(&hook.integration).ok_or_else(no_webhooks)?;
    let secrets = integration.app_secrets();
    if secrets.is_empty()
        || !integration
            .connector
            .webhook()
            .is_some_and(|hooks| hooks.is_app_level())
    {
        return Err(no_webhooks());
    }
    let delivery = Delivery {
        uri: uri.to_string(),
        origin: origin.map(|Extension(origin)| origin),
        query,
        headers,
        body,
    };
    front.deliver(&integration, delivery, &secrets, None).await
}

/// `POST /{integration}/webhooks/{hook}`: an account's own URL, with a secret of its own.
pub async fn account(
    State(front): State<Arc<Front>>,
    Path(hook): Path<Hook>,
    OriginalUri(uri): OriginalUri,
    origin: Option<Extension<Origin>>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let integration = front.integrations.get(&hook.integration).ok_or_else(no_webhooks)?;
    let account = hook
        .hook
        .as_deref()
        .and_then(|hook| front.keys.hook_account(hook))
        .ok_or_else(no_webhooks)?;
    let hooks = integration.connector.webhook().filter(Hooks::is_per_account);
    let hooks = hooks.ok_or_else(no_webhooks)?;
    let own = front.keys.hook_secret(&account);
    let secrets = [hooks.secret(&own), SecretString::from(own)];
    let delivery = Delivery {
        uri: uri.to_string(),
        origin: origin.map(|Extension(origin)| origin),
        query,
        headers,
        body,
    };
    front.deliver(&integration, delivery, &secrets, Some(account)).await
}

struct Delivery {
    uri: String,
    /// Names the host where `http.public_url` does not.
    origin: Option<Origin>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Body,
}

impl Front {
    async fn deliver(
        &self,
        integration: &Arc<Integration>,
        delivery: Delivery,
        secrets: &[SecretString],
        account: Option<AccountId>,
    ) -> ApiResult<Response> {
        let raw = body::read(delivery.body, self.policy.webhook_body_limit, self.policy.body_timeout).await?;
        let hooks = integration.connector.webhook().ok_or_else(no_webhooks)?;
        let base = self.policy.public_url.clone();
        let base = base.or_else(|| delivery.origin?.base()).unwrap_or_default();
        let url = format!("{base}{}", delivery.uri);
        let request = WebhookRequest {
            method: "POST",
            url: &url,
            headers: &delivery.headers,
            query: &delivery.query,
            body: &raw,
            hook_id: delivery.query.get("hook_id").map(String::as_str),
        };
        let mut verified = hooks.verify(&request, secrets, self.clock.now());
        if let (Err(Refused::BadProof), Some(account)) = (&verified, &account)
            && hooks.brings_secret()
        {
            verified = self.verify_by_subscription(hooks, &request, account).await?;
        }
        let events = verified
            .and_then(|verified| hooks.events(&verified))
            .map_err(|refused| self.refuse(&integration.name, refused))?;
        let accepting = self.accept(integration, events, account);
        match tokio::time::timeout(self.policy.publish_timeout, accepting).await {
            Ok(accepted) => accepted?,
            Err(_) => return Err(not_taken("the store or the queue is too slow")),
        }
        Ok(match hooks.ack() {
            None => json(StatusCode::ACCEPTED, "{}"),
            Some((status, kind, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                (status, [(header::CONTENT_TYPE, kind.to_owned())], body.to_owned()).into_response()
            }
        })
    }

    /// With the secrets that the CRM made when it was asked for its webhook, each with the id of its subscription.
    async fn verify_by_subscription(
        &self,
        hooks: Hooks<'_>,
        request: &WebhookRequest<'_>,
        account: &AccountId,
    ) -> ApiResult<Result<Verified, Refused>> {
        let known = subscription::load(&*self.store, account)
            .await
            .map_err(|error| not_taken(process::chain(&error)))?
            .unwrap_or_default();
        for held in &known.held {
            let secret = match subscription::open(&self.keys, account, held) {
                Some(Ok(secret)) => secret,
                Some(Err(error)) => {
                    tracing::warn!(%account, %error, "the stored secret of a webhook cannot be opened");
                    continue;
                }
                None => continue,
            };
            let request = WebhookRequest {
                hook_id: Some(&held.id),
                ..*request
            };
            let verified = hooks.verify(&request, &[secret], self.clock.now());
            if !matches!(verified, Err(Refused::BadProof)) {
                return Ok(verified);
            }
        }
        Ok(Err(Refused::BadProof))
    }

    /// Marks and rings for every account that the events name. Only then are the events remembered as seen, so that a
    /// delivery that fails here is not taken for a repetition when it comes again.
    async fn accept(&self, integration: &Integration, events: Vec<Event>, account: Option<AccountId>) -> ApiResult<()> {
        let now = self.clock.now();
        let count = |result: &'static str, by: usize| {
            metrics::counter!("snapbridge_webhook_events_total", "integration" => integration.name.clone(), "result" => result)
                .increment(by as u64);
        };
        let (relevant, ignored): (Vec<Event>, Vec<Event>) = events.into_iter().partition(|event| event.relevant);
        count("ignored", ignored.len());

        let keys: Vec<Option<String>> = relevant
            .iter()
            .map(|event| {
                event
                    .dedupe
                    .as_ref()
                    .map(|dedupe| self.event_key(integration, account.as_ref(), dedupe))
            })
            .collect();
        let asked: Vec<String> = keys.iter().flatten().cloned().collect();
        let there = self.store.there(&asked, now).await;
        let there = there.map_err(|error| not_taken(process::chain(&error)))?;
        let seen: BTreeSet<&String> = asked
            .iter()
            .zip(there)
            .filter_map(|(key, there)| there.then_some(key))
            .collect();

        // An account's own URL is for its own events: a sender that proves nothing but to know the URL (Salesforce) says
        // whose they are in the body.
        let own = match &account {
            Some(account) => accounts::get(&*self.store, account)
                .await
                .map_err(|error| not_taken(process::chain(&error)))?
                .and_then(|account| account.route),
            None => None,
        };
        let mut named: BTreeMap<AccountId, BTreeSet<String>> = BTreeMap::new();
        let mut agents: BTreeSet<AccountId> = BTreeSet::new();
        let mut fresh = Vec::new();
        let mut routes: BTreeMap<String, Vec<AccountId>> = BTreeMap::new();
        for (event, key) in relevant.into_iter().zip(keys) {
            if key.as_ref().is_some_and(|key| seen.contains(key)) {
                count("repeated", 1);
                continue;
            }
            let accounts = match (&account, &event.account) {
                (Some(_), Some(route)) if own.as_ref().is_some_and(|own| own != route) => Vec::new(),
                (Some(account), _) => vec![account.clone()],
                (None, Some(route)) => match routes.get(route) {
                    Some(accounts) => accounts.clone(),
                    None => {
                        let found = accounts::by_route(&*self.store, &integration.name, route).await;
                        let found = found.map_err(|error| not_taken(process::chain(&error)))?;
                        routes.entry(route.clone()).or_insert(found).clone()
                    }
                },
                (None, None) => Vec::new(),
            };
            if accounts.is_empty() {
                count("unknown_account", 1);
            }
            for account in accounts {
                match event.agents {
                    true => drop(agents.insert(account)),
                    false => named.entry(account).or_default().extend(event.ids.iter().cloned()),
                }
            }
            fresh.extend(key);
            count("accepted", 1);
        }

        for account in agents.iter().filter(|_| integration.connector.has_agents()) {
            if self.belongs(account, integration, &count).await? {
                let rung = self
                    .requests
                    .ring(account, Kind::Agents, Lane::Refresh, Some(now))
                    .await;
                rung.map_err(|error| not_taken(process::chain(&error)))?;
            }
        }
        let by_id = integration.connector.has_get_many();
        for (account, ids) in named {
            if !self.belongs(&account, integration, &count).await? {
                continue;
            }
            let ids: Vec<String> = ids.into_iter().collect();
            self.requests
                .changed(&account, &ids, by_id)
                .await
                .map_err(|error| not_taken(process::chain(&error)))?;
        }
        if let Err(error) = self.store.put_all(&fresh, b"1", self.policy.dedupe, now).await {
            // A repetition costs one coalesced refresh, no more.
            tracing::debug!(%error, "events could not be remembered as seen");
        }
        Ok(())
    }

    /// Whether the account is there, and of this integration.
    async fn belongs(
        &self,
        account: &AccountId,
        integration: &Integration,
        count: &impl Fn(&'static str, usize),
    ) -> ApiResult<bool> {
        let known = accounts::get(&*self.store, account).await;
        let known = known.map_err(|error| not_taken(process::chain(&error)))?;
        let is_it = known.is_some_and(|known| known.integration == integration.name);
        if !is_it {
            count("unknown_account", 1);
        }
        Ok(is_it)
    }

    fn event_key(&self, integration: &Integration, account: Option<&AccountId>, dedupe: &str) -> String {
        let scope = account.map_or("app", AccountId::as_str);
        // Hashed: the sender chooses the text and its length.
        format!(
            "event|{}",
            self.keys
                .fingerprint(&integration.name, format!("{scope}|{dedupe}").as_bytes())
                .0
        )
    }

    pub(super) fn refuse(&self, integration: &str, refused: Refused) -> ApiError {
        let (status, why) = match refused {
            Refused::BadBody => (StatusCode::BAD_REQUEST, "bad_body"),
            Refused::NoProof => (StatusCode::UNAUTHORIZED, "no_proof"),
            Refused::BadProof => (StatusCode::UNAUTHORIZED, "bad_proof"),
            Refused::OutsideWindow => (StatusCode::UNAUTHORIZED, "outside_window"),
            Refused::NoWebhook => (StatusCode::NOT_FOUND, "no_webhook"),
        };
        metrics::counter!("snapbridge_webhook_refused_total", "integration" => integration.to_owned(), "why" => why)
            .increment(1);
        // Which part of the proof failed is for the log, not for the sender.
        let code = if status == StatusCode::UNAUTHORIZED {
            "not_proven"
        } else {
            why
        };
        let message = match status {
            StatusCode::UNAUTHORIZED => "The delivery does not prove its sender".to_owned(),
            _ => refused.to_string(),
        };
        ApiError::new(status, code, message).cause(refused.to_string())
    }
}

fn no_webhooks() -> ApiError {
    ApiError::not_found("There is no webhook at this path")
}

/// The sender is told to come again; what the store already has is rung for by the sweep all the same.
fn not_taken(cause: impl Into<String>) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_taken",
        "The delivery could not be taken; send it again",
    )
    .retry_after(Duration::from_secs(5))
    .cause(cause)
}
