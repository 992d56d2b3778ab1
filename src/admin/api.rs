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
use super::operate::{Refusal, Which, scope};
use super::{Admin, view};

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/accounts/{id}", get(account))
        .route("/api/accounts/{id}/{action}", post(act))
        .route("/api/holds/{kind}/{name}/{action}", post(hold))
        .route("/api/dead", get(dead))
        .route("/api/dead/redrive", post(redrive))
        .route("/api/dead/discard", post(discard))
        .route("/api/budgets", get(budgets))
        .route("/api/audit", get(audit))
        .route("/api/{*any}", get(nothing).post(nothing))
}

type Answer = Result<Response, Response>;

impl Refusal {
    pub(super) fn status(&self) -> (StatusCode, &'static str) {
        match self {
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
        refused(status, code, self.told())
    }
}

fn refused(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    (status, Json(json!({"code": code, "message": message.into()}))).into_response()
}

fn shown(value: impl Serialize) -> Answer {
    Ok(Json(value).into_response())
}

fn failed(refusal: impl Into<Refusal>) -> Response {
    refusal.into().into_response()
}

impl Admin {
    fn admit(&self, headers: &HeaderMap) -> Result<Operator, Response> {
        if self.access.is_closed() {
            let message = "no token may open the operators' API; set ops.read, ops.operate or ops.admin \
                           (`snapbridge keys hash --new`)";
            return Err(refused(StatusCode::FORBIDDEN, "closed", message));
        }
        self.access.by_token(headers).ok_or_else(|| {
            let message = match headers.contains_key(header::AUTHORIZATION) {
                true => "this token is none of the settings' [ops]",
                false => "send a token of the settings' [ops] as `Authorization: Bearer …`",
            };
            refused(StatusCode::UNAUTHORIZED, "not_proven", message)
        })
    }
}

async fn nothing(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    Err(refused(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
    ))
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
    shown(admin.status(limit.accounts.min(view::ACCOUNTS)).await.map_err(failed)?)
}

async fn account(State(admin): State<Arc<Admin>>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    match admin.account(&id).await.map_err(failed)? {
        Some(account) => shown(account),
        None => Err(failed(Refusal::NotFound(format!("there is no account `{id}`")))),
    }
}

async fn act(
    State(admin): State<Arc<Admin>>,
    Path((id, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let who = admin.admit(&headers)?;
    let action = action.parse().map_err(|refusal: Refusal| failed(refusal))?;
    let said = admin.operate.account(&who, &id, action).await.map_err(failed)?;
    shown(json!({"said": said}))
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
            return Err(failed(Refusal::BadRequest(format!(
                "`{action}` is neither pause nor resume"
            ))));
        }
    };
    let scope = scope(&kind, &name).map_err(failed)?;
    let said = admin.operate.hold(&who, &scope, on).await.map_err(failed)?;
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
    let letters = admin.operate.letters(&which).await.map_err(failed)?;
    let letters: Vec<_> = letters
        .into_iter()
        .map(|letter| view::letter_view(letter, now))
        .collect();
    shown(letters)
}

type Given<T> = Result<Json<T>, JsonRejection>;

fn given<T>(body: Given<T>) -> Result<T, Response> {
    body.map(|Json(body)| body)
        .map_err(|error| failed(Refusal::BadRequest(error.body_text())))
}

async fn redrive(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Given<Which>) -> Answer {
    let who = admin.admit(&headers)?;
    shown(admin.operate.redrive(&who, &given(body)?).await.map_err(failed)?)
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
        serde_json::from_value(discard.which.into()).map_err(|error| failed(Refusal::BadRequest(error.to_string())))?;
    shown(
        admin
            .operate
            .discard(&who, &which, &discard.reason)
            .await
            .map_err(failed)?,
    )
}

async fn budgets(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.budgets().await.map_err(failed)?)
}

async fn audit(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    admin.admit(&headers)?;
    shown(admin.audit().await.map_err(failed)?)
}
