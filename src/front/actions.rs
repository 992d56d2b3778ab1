//! `actions/{name}`: Talkdesk has the CRM do something (Talkdesk action executor).
//!
//! The contract has no key that tells a repeated request from a second wish, so equal requests within a window are
//! carried out once. An action is claimed in the store before the CRM is called; what it came to is kept there. It goes on
//! when its caller hangs up, and a write that may have happened is never sent again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use contacts::ErrorKind;
use contacts::accounts::Account;
use crm::{CrmError, Deed, Done, Fate};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use talkdesk::wire::{ActionReply, ActionRequest, ErrorBody};
use tokio::time::{Instant, timeout_at};

use super::Front;
use super::error::{ApiError, ApiResult, json as json_response};
use super::identify::Proof;
use super::whom::Whom;
use crate::integrations::Integration;

#[derive(Deserialize)]
pub struct ActionAddress {
    integration: String,
    secret: Option<String>,
    name: String,
}

/// How often somebody who waits for an equal request looks.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// When an action that was not started may be tried again, if nothing is known.
const AGAIN: Duration = Duration::from_secs(5);

pub async fn handle(
    State(front): State<Arc<Front>>,
    Path(address): Path<ActionAddress>,
    body: Body,
) -> ApiResult<Response> {
    let deadline = Instant::now() + front.policy.actions.deadline;
    let (integration, bytes) = front
        .receive(&address.integration, address.secret.as_deref(), body)
        .await?;
    if integration.connector.actions().next().is_none() {
        return Err(ApiError::not_configured("actions"));
    }
    if integration.connector.action(&address.name).is_none() {
        let known: Vec<&str> = integration.connector.actions().collect();
        let message = format!(
            "This integration has no action of this name; it has {}",
            known.join(", ")
        );
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_action", message));
    }
    let request = ActionRequest::parse(&bytes)?;
    let auth = integration.auth(&request.auth);
    let late = |_| not_started(&integration, None);
    let known = front.identify(&integration, &auth, Proof::Young);
    let account = timeout_at(deadline, known).await.map_err(late)??;
    let deed = timeout_at(deadline, front.deed(&integration, &account, &address.name, &request))
        .await
        .map_err(late)??;
    let order = Order {
        key: front.replay_key(&account, &address.name, &request),
        integration,
        account,
        auth,
        action: address.name,
        deed,
        deadline,
    };
    let name = order.action.clone();
    // A caller who hangs up does not undo what the CRM has been told.
    let outcome = tokio::spawn(async move { front.execute(&order).await }).await;
    let (outcome, answer) = match outcome {
        Ok(answer) => answer,
        Err(_) => (
            "unknown",
            Err(unknown(
                "The bridge failed on this action; it may have been carried out",
            )),
        ),
    };
    metrics::counter!("snapbridge_actions_total", "action" => name, "outcome" => outcome).increment(1);
    let answer = answer?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::CREATED);
    Ok(json_response(status, answer.body))
}

/// An action that was checked and may be carried out.
struct Order {
    /// Equal requests have equal keys.
    key: String,
    integration: Arc<Integration>,
    account: Account,
    auth: std::collections::BTreeMap<String, String>,
    action: String,
    deed: Deed,
    deadline: Instant,
}

/// What the store keeps of an action within its window.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    /// Claimed, and not known to have ended.
    Running,
    Ended(Answer),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    status: u16,
    /// Finished JSON.
    body: String,
}

/// A word for the metrics, and the answer.
type Executed = (&'static str, ApiResult<Answer>);

impl Front {
    /// Checks everything that can be checked before the CRM is called.
    async fn deed(
        &self,
        integration: &Integration,
        account: &Account,
        name: &str,
        request: &ActionRequest,
    ) -> ApiResult<Deed> {
        let connector = &integration.connector;
        let (Some(action), Some(inputs)) = (
            connector.action(name),
            connector.inputs(name, &request.data, integration.region.as_deref()),
        ) else {
            return Err(ApiError::not_found("This integration has no action of this name"));
        };
        let invalid = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_input", message);
        let inputs = inputs.map_err(|bad| invalid(format!("Not done: {bad}")))?;
        let contact = match &request.contact {
            Some(id) => match self.whom(account, id).await? {
                Whom::Living(id) | Whom::Unknown(id) => Some(id),
                // Whatever is made for it would belong to nobody.
                Whom::Gone => {
                    let message = format!("Not done: the contact was deleted in {}", integration.title);
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, "contact_gone", message));
                }
            },
            None if action.needs_contact => {
                let message =
                    "Not done: this action needs a contact that came from this integration (meta.contact_external_id)";
                return Err(invalid(message.to_owned()));
            }
            None => None,
        };
        if action.needs_agent && request.agent.is_none() {
            let message = "Not done: this action needs an agent who is a user of the CRM, too, with the same e-mail address \
                           (meta.agent_external_id)";
            return Err(invalid(message.to_owned()));
        }
        Ok(Deed {
            inputs,
            contact,
            agent: request.agent.clone(),
        })
    }

    /// Equal: the same account, action, contact, agent and data, in whatever order the keys came.
    fn replay_key(&self, account: &Account, action: &str, request: &ActionRequest) -> String {
        let same = json!([
            account.id,
            action,
            request.contact,
            request.agent,
            sorted(&request.data)
        ]);
        let hash = self.keys.fingerprint(&account.integration, same.to_string().as_bytes());
        format!("action|{}|{}", account.id, hash.0)
    }

    /// Carries an order out, or answers as an equal one was answered.
    async fn execute(&self, order: &Order) -> Executed {
        let window = self.policy.actions.replay_window;
        if window.is_zero() {
            return self.perform(order).await;
        }
        loop {
            // A claim outlives the action that it stands for, in case that never comes to an end.
            let life = window + self.policy.actions.deadline;
            let running = bytes(&Kept::Running);
            match self.store.claim(&order.key, &running, life, self.clock.now()).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => return ("not_started", Err(error.into())),
            }
            let kept = match self.store.get(&order.key, self.clock.now()).await {
                Ok(kept) => kept.and_then(|kept| serde_json::from_slice(&kept).ok()),
                Err(error) => return ("not_started", Err(error.into())),
            };
            match kept {
                Some(Kept::Ended(answer)) => return ("replayed", Ok(answer)),
                // It ended without anything done: this one is the first now.
                None => {}
                Some(Kept::Running) => {
                    let left = order.deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let message = "An equal request was sent before, and what became of it is not known";
                        return ("unknown", Err(unknown(message)));
                    }
                    let pause = rand::rng().random_range(LOOK.0..LOOK.1);
                    tokio::time::sleep(pause.min(left)).await;
                }
            }
        }
        let (outcome, answer) = self.perform(order).await;
        let kept = match (&answer, outcome) {
            (Ok(answer), _) => Some(answer.clone()),
            (Err(error), "unknown") => Some(Answer {
                status: error.status.as_u16(),
                body: text(&ErrorBody::new(error.code, error.message.clone()).to_bytes()),
            }),
            (Err(_), _) => None,
        };
        let noted = match kept {
            Some(answer) => {
                let kept = bytes(&Kept::Ended(answer));
                self.store.put(&order.key, &kept, window, self.clock.now()).await
            }
            // Nothing was done, so the same request may come again at once.
            None => self.store.delete(&order.key).await,
        };
        if let Err(error) = noted {
            tracing::warn!(account = %order.account.id, %error, "what became of an action could not be noted; the same request is held off for a while");
        }
        (outcome, answer)
    }

    async fn perform(&self, order: &Order) -> Executed {
        let visitor = self.visitor(&order.integration, &order.account, &order.auth);
        let acted = match self.client(&visitor) {
            Ok(client) => client.act(&order.action, &order.deed, order.deadline).await,
            Err(error) => Err(error),
        };
        let error = match acted {
            Ok(done) => return ("done", Ok(self.done(order, done).await)),
            Err(error) => error,
        };
        let title = &order.integration.title;
        let cause = process::chain(&error);
        let (outcome, answer) = match error.fate() {
            Fate::Credentials => match self.refused(&visitor, &error).await {
                Ok(answer) | Err(answer) => ("credentials", answer),
            },
            Fate::Refused if error.kind == ErrorKind::HostRefused => {
                ("refused", ApiError::crm(error.kind, title, self.clock.now()))
            }
            Fate::Refused => {
                let message = match error.kind {
                    ErrorKind::Credentials => format!("Not done: {title} does not let these credentials do it"),
                    _ => format!("Not done: {}", error.message),
                };
                (
                    "refused",
                    ApiError::new(StatusCode::BAD_REQUEST, "crm_refused", message),
                )
            }
            Fate::NotStarted => match error.kind {
                ErrorKind::Throttled { .. } | ErrorKind::Quota { .. } => {
                    ("not_started", ApiError::crm(error.kind, title, self.clock.now()))
                }
                _ => ("not_started", not_started(&order.integration, self.again(&error))),
            },
            Fate::Unknown => {
                let message = format!("{title} may or may not have done it: look there before you try again");
                ("unknown", unknown(&message))
            }
        };
        (outcome, Err(answer.cause(cause)))
    }

    fn again(&self, error: &CrmError) -> Option<Duration> {
        match error.kind {
            ErrorKind::NoBudget { until } => Some(until.since(self.clock.now())),
            _ => None,
        }
    }

    /// What is made known of a write that was done.
    async fn done(&self, order: &Order, done: Done) -> Answer {
        if let Some(contact) = &order.deed.contact {
            self.forget_interactions(&order.integration, &order.account, contact)
                .await;
        }
        if let Some(made) = &done.contact_external_id {
            let by_id = order.integration.connector.has_get_many();
            if let Err(error) = self.requests.made(&order.account.id, made, by_id).await {
                // The next poll finds it.
                tracing::warn!(account = %order.account.id, error = process::chain(&error), "a contact that was made could not be asked for");
            }
        }
        let reply = ActionReply {
            message: done.message.unwrap_or_else(|| "Done".to_owned()),
            external_id: done.external_id,
            contact_external_id: done.contact_external_id,
            contact_external_type: done.contact_external_type,
            contact_external_url: done.contact_external_url,
        };
        Answer {
            status: self.policy.actions.success_status,
            body: text(&reply.to_bytes()),
        }
    }
}

/// Objects in the order of their keys, at every depth.
fn sorted(data: &serde_json::Map<String, Value>) -> Value {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(map) => sorted(map),
            Value::Array(list) => list.iter().map(sort).collect(),
            other => other.clone(),
        }
    }
    let pairs: std::collections::BTreeMap<&String, Value> =
        data.iter().map(|(key, value)| (key, sort(value))).collect();
    json!(pairs)
}

fn bytes(kept: &Kept) -> Vec<u8> {
    serde_json::to_vec(kept).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn unknown(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "outcome_unknown", message)
}

fn not_started(integration: &Integration, again: Option<Duration>) -> ApiError {
    let message = format!("{} was not asked to do it; try again", integration.title);
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_started", message).retry_after(
        again
            .unwrap_or(AGAIN)
            .clamp(Duration::from_secs(1), Duration::from_secs(3600)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_data_is_equal_in_any_order_and_different_data_is_not() {
        let of = |text: &str| sorted(&serde_json::from_str(text).unwrap()).to_string();
        assert_eq!(
            of(r#"{"b": {"d": 1, "c": [2, 1]}, "a": 0}"#),
            of(r#"{"a": 0, "b": {"c": [2, 1], "d": 1}}"#)
        );
        for other in [r#"{"a": 0}"#, r#"{"a": "0"}"#, r#"{"a": null}"#, r#"{"b": 0}"#] {
            assert_eq!(of(other) == of(r#"{"a": 0}"#), other == r#"{"a": 0}"#);
        }
    }

    #[test]
    fn what_is_kept_reads_back() {
        let answer = Answer {
            status: 201,
            body: r#"{"message":"x"}"#.to_owned(),
        };
        let kept: Kept = serde_json::from_slice(&bytes(&Kept::Ended(answer.clone()))).unwrap();
        assert!(matches!(kept, Kept::Ended(read) if read == answer));
        assert!(matches!(
            serde_json::from_slice(&bytes(&Kept::Running)),
            Ok(Kept::Running)
        ));
    }
}
