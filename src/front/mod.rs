//! The HTTP front: Talkdesk's endpoints and the CRMs' webhooks.

mod agent_sync;
mod auth_validation;
mod body;
mod contact_sync;
mod error;
mod flight;
mod identify;
mod webhooks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use contacts::keys::{Fingerprint, Keys};
use contacts::{Clock, Queue, Store};
use process::settings::{self, Settings};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use worker::Requests;

pub use error::{ApiError, ApiResult};

use crate::integrations::{Integration, Integrations};
use flight::Flights;

/// Everything the front's handlers share.
pub struct Front {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub requests: Arc<Requests>,
    pub keys: Arc<Keys>,
    pub clock: Arc<dyn Clock>,
    pub integrations: Arc<Integrations>,
    pub policy: Policy,
    checks: Flights<Fingerprint, identify::Checked>,
    guesses: identify::Guesses,
}

/// The settings the front runs by.
#[derive(Clone, Debug)]
pub struct Policy {
    pub page: settings::Page,
    pub cold: settings::Cold,
    pub credentials: settings::Credentials,
    pub body_limit: usize,
    pub webhook_body_limit: usize,
    pub body_timeout: Duration,
    pub request_deadline: Duration,
    pub dedupe: Duration,
    pub publish_timeout: Duration,
    /// The URL the world sees, without a trailing slash.
    pub public_url: Option<String>,
}

impl Policy {
    pub fn of(settings: &Settings) -> Policy {
        Policy {
            page: settings.page.clone(),
            cold: settings.cold.clone(),
            credentials: settings.credentials.clone(),
            body_limit: settings.http.body_limit.0,
            webhook_body_limit: settings.http.webhook_body_limit.0,
            body_timeout: settings.http.body_timeout,
            request_deadline: settings.http.request_deadline,
            dedupe: settings.webhook.dedupe,
            publish_timeout: settings.webhook.publish_timeout,
            public_url: settings
                .http
                .public_url
                .as_ref()
                .map(|url| url.as_str().trim_end_matches('/').to_owned()),
        }
    }
}

impl Front {
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        requests: Arc<Requests>,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        integrations: Arc<Integrations>,
        policy: Policy,
    ) -> Front {
        let guesses = identify::Guesses::new(policy.credentials.checks_per_minute);
        Front {
            store,
            queue,
            requests,
            keys,
            clock,
            integrations,
            policy,
            checks: Flights::default(),
            guesses,
        }
    }

    /// The integration of a URL, once its path secret (if it has one) is right.
    fn integration(&self, name: &str, secret: Option<&str>) -> ApiResult<Arc<Integration>> {
        let integration = self.integrations.get(name);
        let integration = integration.ok_or_else(|| ApiError::not_found("There is no integration of this name"))?;
        if !integration.admits(secret) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "wrong_secret",
                "The bridge secret in the URL is wrong",
            ));
        }
        Ok(integration)
    }
}

type Shared = State<Arc<Front>>;

/// The public router.
pub fn router(front: Arc<Front>) -> Router {
    // `const_sync` is the seeds' own spelling (Talkdesk contact sync, request).
    let talkdesk = Router::new()
        .route("/contact_sync", post(contact_sync::handle))
        .route("/const_sync", post(contact_sync::handle))
        .route("/agent_sync", post(agent_sync::handle))
        .route("/auth_validation", post(auth_validation::handle));
    Router::new()
        .nest("/{integration}", talkdesk.clone())
        .nest("/{integration}/k/{secret}", talkdesk)
        .route("/{integration}/webhooks", get(webhooks::challenge).post(webhooks::app))
        .route(
            "/{integration}/webhooks/{hook}",
            get(webhooks::challenge).post(webhooks::account),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(front.clone(), deadline))
        .layer(middleware::from_fn(observe))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new())
        .with_state(front)
}

async fn no_such_path() -> ApiError {
    ApiError::not_found("There is nothing at this path")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        "This endpoint does not take this method",
    )
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    metrics::counter!("snapbridge_panics_total").increment(1);
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "The bridge failed on this request",
    )
    .into_response()
}

/// Whatever takes longer than the request deadline is answered 504; contact sync ends its holds long before.
async fn deadline(State(front): Shared, request: Request, next: Next) -> Response {
    let limit = front.policy.request_deadline;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "The bridge did not finish in time",
        )
        .retry_after(Duration::from_secs(5))
        .into_response(),
    }
}

/// Counts and times every request under its *matched* path: paths hold secrets.
async fn observe(request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let endpoint = path
        .rsplit('/')
        .find(|part| !part.starts_with('{'))
        .unwrap_or("none")
        .to_owned();
    let began = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    let spent = began.elapsed().as_secs_f64();
    metrics::histogram!("snapbridge_request_seconds", "endpoint" => endpoint.clone()).record(spent);
    metrics::counter!("snapbridge_requests_total", "endpoint" => endpoint, "status" => status).increment(1);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The parts of a Talkdesk path: `/{integration}/…` or `/{integration}/k/{secret}/…`.
#[derive(serde::Deserialize)]
struct Address {
    integration: String,
    secret: Option<String>,
}

type AddressPath = Path<Address>;
