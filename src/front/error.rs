//! The one error shape of every endpoint: `{"code","message"}`, and which status goes with what.
//!
//! 401 is for CRM credentials alone: on OAuth integrations Talkdesk refreshes its token on a 401 and repeats the call, so a
//! wrong bridge secret is a 403 (Talkdesk integration configuration, notes on OAuth 2.0).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contacts::{ErrorKind, Micros, StoreError};
use talkdesk::wire::{BadRequest, ErrorBody};

/// What a caller is told, and what the log is told.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    /// For people, without secrets.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// The inside story, for the log only.
    pub cause: Option<String>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            message: message.into(),
            retry_after: None,
            cause: None,
        }
    }

    pub fn retry_after(mut self, after: Duration) -> ApiError {
        self.retry_after = Some(after);
        self
    }

    pub fn cause(mut self, cause: impl Into<String>) -> ApiError {
        self.cause = Some(cause.into());
        self
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The connector has nothing of this kind.
    pub fn not_configured(what: &str) -> ApiError {
        let message = format!("This integration has no {what}");
        ApiError::new(StatusCode::NOT_FOUND, "not_configured", message)
    }

    pub fn store(error: &StoreError) -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "The bridge's store is out of reach; nothing is lost, try again in a moment",
        )
        .retry_after(Duration::from_secs(5))
        .cause(process::chain(error))
    }

    pub fn credentials(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_credentials", message)
    }

    /// The CRM does not take these credentials (any more).
    pub fn rejected(title: &str) -> ApiError {
        ApiError::credentials(format!(
            "{title} rejected the credentials: are they complete, of this account, and not revoked there?"
        ))
    }

    /// A failure of the CRM, as the endpoint's answer.
    pub fn crm(kind: ErrorKind, title: &str, now: Micros) -> ApiError {
        let wait = |until: Micros| {
            until
                .since(now)
                .clamp(Duration::from_secs(1), Duration::from_secs(3600))
        };
        let error = |status, code, message: String| ApiError::new(status, code, message);
        match kind {
            ErrorKind::Credentials => ApiError::rejected(title),
            ErrorKind::Throttled { until } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "crm_throttled",
                format!("{title} asks to slow down; try again in a while"),
            )
            .retry_after(wait(until)),
            ErrorKind::Quota { until } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "crm_quota",
                format!("The quota at {title} is used up until {until}"),
            )
            .retry_after(wait(until)),
            ErrorKind::NoBudget { until } => error(
                StatusCode::TOO_MANY_REQUESTS,
                "crm_budget",
                format!("The call budget for {title} is used up for the moment; try again in a while"),
            )
            .retry_after(wait(until)),
            ErrorKind::Timeout => error(
                StatusCode::GATEWAY_TIMEOUT,
                "crm_timeout",
                format!("{title} did not answer in time; try again in a while"),
            )
            .retry_after(Duration::from_secs(30)),
            ErrorKind::Unavailable => error(
                StatusCode::BAD_GATEWAY,
                "crm_unavailable",
                format!("{title} cannot be reached: is its address right, and is it up? Try again in a while"),
            )
            .retry_after(Duration::from_secs(30)),
            ErrorKind::BadReply | ErrorKind::Rejected | ErrorKind::CursorStuck | ErrorKind::Missing => error(
                StatusCode::BAD_GATEWAY,
                "crm_bad_reply",
                format!(
                    "{title} gave an answer that the bridge cannot use; the bridge's log has the reason for whoever runs it"
                ),
            )
            .retry_after(Duration::from_secs(60)),
            ErrorKind::HostRefused => error(
                StatusCode::BAD_REQUEST,
                "host_refused",
                format!(
                    "The address given for {title} is not one that this bridge may call; whoever runs it can name the host \
                     in the integration's allow_hosts"
                ),
            ),
            ErrorKind::StoreDown => error(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The bridge's store is out of reach; nothing is lost, try again in a moment".to_owned(),
            )
            .retry_after(Duration::from_secs(5)),
        }
    }
}

impl From<BadRequest> for ApiError {
    fn from(bad: BadRequest) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, bad.code, bad.message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::store(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        metrics::counter!("snapbridge_errors_total", "code" => self.code).increment(1);
        if self.status.is_server_error() {
            tracing::warn!(
                status = self.status.as_u16(),
                code = self.code,
                cause = self.cause,
                "{}",
                self.message
            );
        } else {
            tracing::info!(
                status = self.status.as_u16(),
                code = self.code,
                cause = self.cause,
                "{}",
                self.message
            );
        }
        let mut response = json(self.status, ErrorBody::new(self.code, self.message).to_bytes());
        if let Some(after) = self.retry_after {
            let secs = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

/// A JSON response from finished bytes.
pub fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
