//! The operators' API: JSON, a token in `Authorization: Bearer`. The commands of the CLI use it; it is theirs to change with
//! them, so it has no versions.

use std::sync::Arc;

use axum::extract::{Json, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::rejection::JsonRejection};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::Operator;
use super::operate::explain::Question;
use super::operate::life::{Erasure, Newcomer};
use super::operate::links::{Removal, Reported, Whose};
use super::operate::{Refusal, Which, scope};
use super::{Admin, view};

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/accounts", post(add))
        .route("/api/accounts/{id}", get(account))
        .route("/api/accounts/{id}/erase", post(erase))
        .route("/api/accounts/{id}/lift", post(lift))
        .route("/api/accounts/{id}/webhook", post(webhook))
        .route("/api/accounts/{id}/{action}", post(act))
        .route("/api/accounts/{id}/explain", post(explain))
        .route("/api/holds/{kind}/{name}/{action}", post(hold))
        .route("/api/tokens/explain", post(explain_token))
        .route("/api/doctor", post(examine))
        .route("/api/doctor/webhook", post(try_webhook))
        .route("/api/dead", get(dead))
        .route("/api/dead/redrive", post(redrive))
        .route("/api/dead/discard", post(discard))
        .route("/api/links", get(links))
        .route("/api/links/seed", post(seed_links))
        .route("/api/links/remove", post(remove_links))
        .route("/api/budgets", get(budgets))
        .route("/api/keys", get(keys))
        .route("/api/keys/step", post(step_keys))
        .route("/api/keys/reseal", post(reseal))
        .route("/api/audit", get(audit))
        .route("/api/{*any}", get(nothing).post(nothing))
}

type Answer = Result<Response, Refusal>;

impl Refusal {
    pub(super) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Refusal::Closed => (StatusCode::FORBIDDEN, "closed"),
            Refusal::NotProven(_) => (StatusCode::UNAUTHORIZED, "not_proven"),
            Refusal::NotGranted { .. } => (StatusCode::FORBIDDEN, "not_granted"),
            Refusal::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Refusal::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Refusal::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Refusal::Request(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_taken"),
        }
    }

    /// For people; what lies behind it is for the log, but for operators it is all one.
    pub(super) fn told(&self) -> String {
        match self {
            Refusal::Store(error) => format!("the store is out of reach: {}", process::chain(error)),
            Refusal::Request(error) => process::chain(error),
            other => other.to_string(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        (status, Json(json!({"code": code, "message": self.told()}))).into_response()
    }
}

fn shown(value: impl Serialize) -> Answer {
    Ok(Json(value).into_response())
}

impl Admin {
    fn admit(&self, headers: &HeaderMap) -> Result<Operator, Refusal> {
        if self.access.is_closed() {
            return Err(Refusal::Closed);
        }
        self.access.by_token(headers).ok_or_else(|| {
            Refusal::NotProven(match headers.contains_key(header::AUTHORIZATION) {
                true => "this token is none of the settings' [ops]",
                false => "send a token of the settings' [ops] as `Authorization: Bearer …`",
            })
        })
    }
}

async fn nothing(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    Err(Refusal::NotFound("there is nothing at this path".into()))
}

#[derive(Deserialize)]
struct Limit {
    #[serde(default = "hundred")]
    accounts: usize,
}

fn hundred() -> usize {
    100
}

async fn status(State(admin): State<Arc<Admin>>, Query(limit): Query<Limit>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.status(limit.accounts.min(view::ACCOUNTS)).await?)
}

async fn account(State(admin): State<Arc<Admin>>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    match admin.account(&id).await? {
        Some(account) => shown(account),
        None => Err(Refusal::NotFound(format!("there is no account `{id}`"))),
    }
}

async fn act(
    State(admin): State<Arc<Admin>>,
    Path((id, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let who = admin.admit(&headers)?;
    let action = action.parse()?;
    let said = admin.operate.account(&who, &id, action).await?;
    shown(json!({"said": said}))
}

async fn add(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Newcomer>) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.add(&who, &given(body)?).await?)
}

async fn erase(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Given<Erasure>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(json!({"said": admin.operate.erase(&who, &id, &given(body)?).await?}))
}

async fn lift(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Given<Erasure>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(json!({"said": admin.operate.lift(&who, &id, &given(body)?).await?}))
}

async fn webhook(State(admin): State<Arc<Admin>>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.webhook(&who, &id).await?)
}

async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Given<Question>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.explain(&who, &id, &given(body)?).await?)
}

async fn explain_token(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Given<super::operate::token::Question>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.explain_token(&who, &given(body)?).await?)
}

async fn examine(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.examine(&who).await?)
}

async fn try_webhook(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Given<super::operate::doctor::Trial>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.try_webhook(&who, &given(body)?).await?)
}

async fn hold(
    State(admin): State<Arc<Admin>>,
    Path((kind, name, action)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let who = admin.admit(&headers)?;
    let on = match action.as_str() {
        "pause" => true,
        "resume" => false,
        _ => {
            return Err(Refusal::BadRequest(format!("`{action}` is neither pause nor resume")));
        }
    };
    let scope = scope(&kind, &name)?;
    let said = admin.operate.hold(&who, &scope, on).await?;
    shown(json!({"said": said}))
}

#[derive(Deserialize)]
struct Letters {
    account: Option<String>,
    kind: Option<String>,
    text: Option<String>,
}

async fn dead(State(admin): State<Arc<Admin>>, Query(letters): Query<Letters>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    let which = Which {
        account: letters.account,
        kind: letters.kind,
        text: letters.text,
        ..Which::default()
    };
    let now = admin.clock.now();
    let letters = admin.operate.letters(&which).await?;
    let letters: Vec<_> = letters
        .into_iter()
        .map(|letter| view::letter_view(letter, now))
        .collect();
    shown(letters)
}

type Given<T> = Result<Json<T>, JsonRejection>;

fn given<T>(body: Given<T>) -> Result<T, Refusal> {
    body.map(|Json(body)| body)
        .map_err(|error| Refusal::BadRequest(error.body_text()))
}

async fn redrive(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Which>) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.redrive(&who, &given(body)?).await?)
}

#[derive(Deserialize)]
struct Discard {
    #[serde(flatten)]
    which: serde_json::Map<String, serde_json::Value>,
    reason: String,
}

async fn discard(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Discard>) -> Answer {
    let who = admin.admit(&headers)?;
    let discard = given(body)?;
    let which: Which =
        serde_json::from_value(discard.which.into()).map_err(|error| Refusal::BadRequest(error.to_string()))?;
    shown(admin.operate.discard(&who, &which, &discard.reason).await?)
}

async fn links(State(admin): State<Arc<Admin>>, Query(reported): Query<Reported>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.operate.link_report(&reported).await?)
}

async fn seed_links(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Whose>) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.link_seed(&who, &given(body)?).await?)
}

async fn remove_links(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Removal>) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.link_remove(&who, &given(body)?).await?)
}

async fn budgets(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.budgets().await?)
}

async fn keys(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.operate.keys().await?)
}

async fn step_keys(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Given<super::operate::keys::Step>,
) -> Answer {
    let who = admin.admit(&headers)?;
    shown(json!({"said": admin.operate.step_keys(&who, &given(body)?).await?}))
}

async fn reseal(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    let who = admin.admit(&headers)?;
    let resealed = admin.operate.reseal(&who).await?;
    shown(json!({"resealed": resealed, "said": resealed.to_string()}))
}

async fn audit(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.audit().await?)
}
