//! Linking: the DMS tells of its records, and Web1on1 of its contacts (Web1on1 recipe "Contact Synchronization"). Both are taken
//! durably and answered; the work is the worker's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use contacts::inbox::{Appended, Urgency};
use contacts::linking::{BadUpdate, Payload, Update};
use contacts::{AccountId, Kind, Lane, Micros, accounts};
use crm::WebhookRequest;
use process::secrets;
use process::settings::UpdateAuth;
use secrecy::SecretString;
use serde_json::json;
use worker::linking::{self, Answer, Told};

use super::error::{self, ApiError, ApiResult};
use super::{Front, Shared, body};
use crate::integrations::{Dealer, Linking};
use crate::origin::Origin;

/// With `auth = "hmac"`: `sha256=` and the HMAC of the raw body in hex.
const SIGNATURE: &str = "x-hub-signature-256";

/// How soon a sender whose dealer's inbox is full may come again.
const FULL_WAIT: Duration = Duration::from_secs(10);

/// Between two looks for an answer that is waited for: it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(25);
const LAST_LOOK: Duration = Duration::from_millis(500);

type Parameters = Query<BTreeMap<String, String>>;

/// `POST /{integration}/updatecontact`
pub async fn update(
    State(front): Shared,
    Path(name): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let linking = front.integrations.linking(&name).ok_or_else(no_linking)?;
    front.take_update(&linking, &query, &headers, body).await
}

/// `POST /updatecontact`, as the recipe's own client calls it.
pub async fn root_update(
    State(front): Shared,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let linking = front.open_linking()?;
    front.take_update(&linking, &query, &headers, body).await
}

/// `GET /{integration}/webhook`
pub async fn challenge(
    State(front): Shared,
    Path(name): Path<String>,
    Query(query): Parameters,
) -> ApiResult<Response> {
    let linking = front.integrations.linking(&name).ok_or_else(no_linking)?;
    answer_challenge(&linking, &query)
}

/// `GET /webhook`
pub async fn root_challenge(State(front): Shared, Query(query): Parameters) -> ApiResult<Response> {
    let linking = front.open_linking()?;
    answer_challenge(&linking, &query)
}

/// `POST /{integration}/webhook`
pub async fn webhook(
    State(front): Shared,
    Path(name): Path<String>,
    uri: OriginalUri,
    origin: Option<Extension<Origin>>,
    query: Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let linking = front.integrations.linking(&name).ok_or_else(no_linking)?;
    front.take_event(&linking, (uri, origin, query, headers), body).await
}

/// `POST /webhook`
pub async fn root_webhook(
    State(front): Shared,
    uri: OriginalUri,
    origin: Option<Extension<Origin>>,
    query: Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let linking = front.open_linking()?;
    front.take_event(&linking, (uri, origin, query, headers), body).await
}

type Delivery = (OriginalUri, Option<Extension<Origin>>, Parameters, HeaderMap);

fn answer_challenge(linking: &Linking, query: &BTreeMap<String, String>) -> ApiResult<Response> {
    let hooks = linking.web1on1.connector.webhook();
    let answer = hooks.and_then(|hooks| hooks.challenge(query));
    let answer = answer.ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "no_challenge", "This is no handshake"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer).into_response())
}

impl Front {
    /// The one integration that says in so many words that anybody may call.
    fn open_linking(&self) -> ApiResult<Arc<Linking>> {
        let mut all = self.integrations.all_linking();
        let open = all.find(|linking| linking.auth == UpdateAuth::None);
        open.cloned().ok_or_else(no_linking)
    }

    async fn take_update(
        &self,
        linking: &Linking,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
        body: Body,
    ) -> ApiResult<Response> {
        let raw = body::read(body, self.policy.body_limit, self.policy.body_timeout).await?;
        let dealer = prove(linking, headers, &raw)?;
        let update = Update::read(&raw).map_err(bad_update)?;
        let dealer = match dealer {
            Some(dealer) => dealer,
            None => linking.dealer(&update.organization).ok_or_else(|| {
                let message = "No dealer of this organization is configured";
                ApiError::new(StatusCode::BAD_REQUEST, "unknown_organization", message)
            })?,
        };
        let waits = query
            .get("wait")
            .is_some_and(|wait| matches!(wait.as_str(), "true" | "1" | ""));
        let record = update.id.clone();
        let began = self.clock.now();
        self.put_payload(linking, dealer, &Payload::Update(update)).await?;
        metrics::counter!("snapbridge_link_updates_total", "integration" => linking.name.clone()).increment(1);
        match waits {
            true => self.wait_for(&dealer.account, &record, began).await,
            false => Ok(error::json(
                StatusCode::ACCEPTED,
                json!({"status": "accepted"}).to_string(),
            )),
        }
    }

    /// Durable once this returns. A ring that fails is no failure: the sweep finds what lies in the inbox.
    async fn put_payload(&self, linking: &Linking, dealer: &Dealer, payload: &Payload) -> ApiResult<()> {
        let now = self.clock.now();
        let put = linking::put(
            &*self.store,
            &self.keys,
            &dealer.account,
            (payload, Urgency::News),
            linking.inbox,
            now,
        )
        .await;
        if put? == Appended::Full {
            metrics::counter!("snapbridge_link_full_total", "integration" => linking.name.clone()).increment(1);
            let message = "The dealer's inbox is full; nothing is lost if this is sent again in a while";
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "inbox_full", message).retry_after(FULL_WAIT));
        }
        let rung = tokio::time::timeout(self.policy.publish_timeout, self.requests.drain(&dealer.account)).await;
        if !matches!(rung, Ok(Ok(_))) {
            tracing::warn!(account = %dealer.account, "a payload waits for the sweep: the queue could not be rung");
        }
        Ok(())
    }

    /// In the recipe's shapes. Whom the work keeps waiting longer than a request may last is told that it goes on.
    async fn wait_for(&self, account: &AccountId, record: &str, began: Micros) -> ApiResult<Response> {
        let key = linking::answer_key(&self.keys, account, record);
        let mut look = FIRST_LOOK;
        let longest = self.policy.request_deadline.mul_f64(0.8);
        loop {
            let now = self.clock.now();
            if let Some(kept) = self.store.get(&key, now).await? {
                // An older one is that of an earlier update.
                let told: Option<Told> = serde_json::from_slice(&kept).ok();
                if let Some(told) = told.filter(|told| told.at >= began) {
                    return Ok(recipe(&told.answer));
                }
            }
            if now.since(began) >= longest {
                let body = json!({"status": "accepted", "message": "It is taken and waits for its turn"});
                return Ok(error::json(StatusCode::ACCEPTED, body.to_string()));
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LAST_LOOK);
        }
    }

    async fn take_event(&self, linking: &Linking, delivery: Delivery, body: Body) -> ApiResult<Response> {
        let (OriginalUri(uri), origin, Query(query), headers) = delivery;
        let raw = body::read(body, self.policy.webhook_body_limit, self.policy.body_timeout).await?;
        let connector = &linking.web1on1.connector;
        let hooks = connector.webhook().ok_or_else(no_linking)?;
        let base = self.policy.public_url.clone();
        let base = base
            .or_else(|| origin.and_then(|Extension(origin)| origin.base()))
            .unwrap_or_default();
        let url = format!("{base}{uri}");
        let request = WebhookRequest {
            method: "POST",
            url: &url,
            headers: &headers,
            query: &query,
            body: &raw,
            hook_id: None,
        };
        let secrets = linking.web1on1.app_secrets();
        let verified = match (secrets.is_empty(), linking.auth) {
            (true, UpdateAuth::None) => hooks.unproven(&raw),
            _ => hooks.verify(&request, &secrets, self.clock.now()),
        };
        let refuse = |refused| self.refuse(&linking.name, refused);
        let verified = verified.map_err(refuse)?;
        let count = |result: &'static str| {
            metrics::counter!("snapbridge_webhook_events_total", "integration" => linking.name.clone(), "result" => result)
                .increment(1);
        };
        let news = connector.link_news(&verified).map_err(refuse)?;
        if news.events.is_empty() && news.users_of.is_empty() {
            count("ignored");
        }
        for event in news.events {
            let Some(dealer) = linking.dealer(&event.organization) else {
                count("unknown_account");
                continue;
            };
            let put = self.put_payload(linking, dealer, &Payload::Event(event)).await;
            put.map_err(|error| match error.status {
                // Web1on1 repeats whatever is no 2xx for a day.
                StatusCode::TOO_MANY_REQUESTS => ApiError {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    ..error
                },
                _ => error,
            })?;
            count("accepted");
        }
        for organization in &news.users_of {
            self.agents_changed(connector.id(), organization).await;
            count("accepted");
        }
        // A JSON body could be posted into a conversation (Web1on1 "Responding to webhooks").
        Ok(StatusCode::OK.into_response())
    }

    /// A user of Web1on1 changed: the lists of agents of the Talkdesk accounts on it are read again. The daily reading heals
    /// what is lost here.
    async fn agents_changed(&self, connector: &str, route: &str) {
        let integrations = self.integrations.iter();
        for integration in integrations.filter(|integration| integration.connector.id() == connector) {
            let found = accounts::by_route(&*self.store, &integration.name, route).await;
            for account in found.unwrap_or_default() {
                let rung = self.requests.ring(&account, Kind::Agents, Lane::Refresh, None).await;
                if let Err(error) = rung {
                    tracing::warn!(%account, error = process::chain(&error), "agents could not be asked for");
                }
            }
        }
    }
}

/// Which dealer's DMS this is; `None`: none has to prove itself. Who proves nothing is not told which organizations there are.
fn prove<'a>(linking: &'a Linking, headers: &HeaderMap, raw: &Bytes) -> ApiResult<Option<&'a Dealer>> {
    let admits: Box<dyn Fn(&SecretString) -> bool + '_> = match linking.auth {
        UpdateAuth::None => return Ok(None),
        UpdateAuth::Bearer => {
            let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let given = given.and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            });
            Box::new(move |secret| given.is_some_and(|given| secrets::same(given, secret)))
        }
        UpdateAuth::Hmac => {
            let given = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
            let given =
                given.and_then(|value| Some(value.trim()).map(|value| value.strip_prefix("sha256=").unwrap_or(value)));
            Box::new(move |secret| given.is_some_and(|given| secrets::signs(given, raw, secret)))
        }
    };
    let not_proven = || {
        let message = match linking.auth {
            UpdateAuth::Hmac => {
                "The request does not prove its sender: X-Hub-Signature-256 must be `sha256=` and the HMAC-SHA256 of the raw \
                 body with a secret of the dealer, in hex"
            }
            _ => "The request does not prove its sender: Authorization must be `Bearer` and a secret of the dealer",
        };
        ApiError::new(StatusCode::UNAUTHORIZED, "not_proven", message)
    };
    match Update::organization(raw) {
        Ok(organization) => {
            let dealer = linking.dealer(&organization).ok_or_else(not_proven)?;
            match dealer.secrets.iter().any(&admits) {
                true => Ok(Some(dealer)),
                false => Err(not_proven()),
            }
        }
        // Whoever has a dealer's secret is told what is wrong with the body. Not for the asking: a signature would be tried with the
        // secrets of all of them.
        Err(_) if linking.auth == UpdateAuth::Hmac => Err(not_proven()),
        Err(bad) => match linking
            .dealers()
            .iter()
            .any(|dealer| dealer.secrets.iter().any(&admits))
        {
            true => Err(bad_update(bad)),
            false => Err(not_proven()),
        },
    }
}

fn recipe(answer: &Answer) -> Response {
    let not = |reason: &str| json!({"status": "contact not updated", "reason": reason});
    let (status, body) = match answer {
        Answer::Updated { contact, conversation } => (
            StatusCode::CREATED,
            json!({"status": "contact updated", "id": contact, "conversation": conversation}),
        ),
        Answer::Ambiguous { matches } => {
            let mut body = not("ambiguous");
            body["matches"] = json!(matches);
            (StatusCode::OK, body)
        }
        answer => (StatusCode::OK, not(answer.as_str())),
    };
    error::json(status, body.to_string())
}

fn bad_update(bad: BadUpdate) -> ApiError {
    let message = bad.to_string();
    let message = format!("The contact is not taken: {message}");
    ApiError::new(StatusCode::BAD_REQUEST, "bad_contact", message)
}

fn no_linking() -> ApiError {
    ApiError::not_found("There is no integration of the kind linking at this path")
}
