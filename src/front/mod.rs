//! The HTTP front: Talkdesk's endpoints and the CRMs' webhooks.

mod actions;
mod agent_sync;
mod auth_validation;
mod body;
mod contact_sync;
mod desk;
mod error;
mod flight;
mod identify;
mod images;
mod interactions;
mod linking;
mod webhooks;
mod whom;

pub use identify::Proof;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use contacts::keys::{Fingerprint, Keys};
use contacts::{Clock, Queue, Store};
use process::settings::{self, Settings};
use talkdesk::wire::AuthRequest;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tracing::Instrument;
use worker::Requests;

pub use error::{ApiError, ApiResult};

use crate::integrations::{Integration, Integrations};
use crate::origin::Rule;
use crate::server::Peer;
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
    desk: desk::Desk,
}

/// The settings the front runs by.
#[derive(Clone, Debug)]
pub struct Policy {
    pub page: settings::Page,
    pub cold: settings::Cold,
    pub credentials: settings::Credentials,
    pub interactions: settings::Interactions,
    pub actions: settings::Actions,
    pub body_limit: usize,
    pub webhook_body_limit: usize,
    pub body_timeout: Duration,
    pub request_deadline: Duration,
    pub dedupe: Duration,
    /// Age from which a list of agents that is asked for is read again.
    pub agents_on_request: Duration,
    pub publish_timeout: Duration,
    pub origin: Rule,
    /// How old a note of the keys of an account's tokens may get.
    pub tokens_noted: Duration,
    /// The URL the world sees, without a trailing slash.
    pub public_url: Option<String>,
}

impl Policy {
    pub fn of(settings: &Settings) -> Policy {
        Policy {
            page: settings.page.clone(),
            cold: settings.cold.clone(),
            credentials: settings.credentials.clone(),
            interactions: settings.interactions.clone(),
            actions: settings.actions.clone(),
            body_limit: settings.http.body_limit.0,
            webhook_body_limit: settings.http.webhook_body_limit.0,
            body_timeout: settings.http.body_timeout,
            request_deadline: settings.http.request_deadline,
            dedupe: settings.webhook.dedupe,
            agents_on_request: settings.refresh.agents_on_request,
            publish_timeout: settings.webhook.publish_timeout,
            origin: Rule::of(settings),
            // Well within the grace that the notes are held against.
            tokens_noted: (settings.keys.token_grace / 4).min(Duration::from_secs(3600)),
            public_url: crate::urls::base(settings),
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
        let guesses = identify::Guesses::default();
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
            desk: desk::Desk::default(),
        }
    }

    /// The integration and the body of a Talkdesk call, once the bridge's own secrets are right: the one in the path
    /// before the body is read, the one in `auth` before anything else in it is looked at.
    async fn receive(&self, name: &str, secret: Option<&str>, body: Body) -> ApiResult<(Arc<Integration>, Bytes)> {
        let integration = self.integrations.get(name);
        let integration = integration.ok_or_else(|| {
            ApiError::not_found(
                "There is no integration of this name; `snapbridge talkdesk urls` prints the URLs of those there are",
            )
        })?;
        let wrong = |message: &str| ApiError::new(StatusCode::FORBIDDEN, "wrong_secret", message);
        if !integration.guard.admits(secret) {
            return Err(wrong(
                "The bridge secret in the URL (/INTEGRATION/k/SECRET/…) is wrong or missing",
            ));
        }
        let bytes = body::read(body, self.policy.body_limit, self.policy.body_timeout).await?;
        if let Some(field) = integration.guard.field()
            && !integration.guard.admits_auth(&AuthRequest::parse(&bytes)?.auth)
        {
            return Err(wrong(&format!(
                "The bridge secret in the field {field} is wrong or missing"
            )));
        }
        Ok((integration, bytes))
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
        .route("/auth_validation", post(auth_validation::handle))
        .route("/interaction_update", post(interactions::handle))
        .route("/actions/{name}", post(actions::handle));
    Router::new()
        .nest("/{integration}", talkdesk.clone())
        .nest("/{integration}/k/{secret}", talkdesk)
        .route("/{integration}/webhooks", get(webhooks::challenge).post(webhooks::app))
        .route(
            "/{integration}/webhooks/{hook}",
            get(webhooks::challenge).post(webhooks::account),
        )
        .route("/{integration}/updatecontact", post(linking::update))
        .route("/{integration}/webhook", get(linking::challenge).post(linking::webhook))
        .route("/updatecontact", post(linking::root_update))
        .route("/webhook", get(linking::root_challenge).post(linking::root_webhook))
        .route("/openapi.json", get(openapi))
        .route("/bridge.json", get(bridge))
        .merge(images::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(front.clone(), deadline))
        .layer(middleware::from_fn_with_state(front.clone(), arrive))
        .layer(middleware::from_fn(observe))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new())
        .with_state(front)
}

/// Which installation answers here, for `doctor`: a URL may lead to another one.
async fn bridge(axum::extract::State(front): Shared) -> Response {
    let id = front.keys.installation();
    error::json(
        StatusCode::OK,
        serde_json::json!({"bridge": "snapbridge", "id": id}).to_string(),
    )
}

/// What this listener takes and answers, for programs.
async fn openapi() -> Response {
    let document = crate::openapi::document().to_json();
    document.map_or_else(
        |error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()).into_response(),
        |document| error::json(StatusCode::OK, document),
    )
}

async fn no_such_path() -> ApiError {
    ApiError::not_found("There is nothing at this path; `snapbridge talkdesk urls` prints those that there are")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        "This endpoint does not take this method; the header Allow names those it takes",
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

/// Refuses what did not come by TLS where that is asked for, whatever it wants: a redirect would have it send its
/// credentials once more. Lets the rest know where it came from.
async fn arrive(State(front): Shared, mut request: Request, next: Next) -> Response {
    let rule = &front.policy.origin;
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        // Not served by our own server: nothing is known of it.
        return next.run(request).await;
    };
    let origin = rule.origin(peer, request.headers());
    // The matched path: paths hold secrets.
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!("request", path, client = %origin.client);
    if rule.require_https && !origin.https {
        let message = "This bridge takes requests over HTTPS only";
        let refused = ApiError::new(StatusCode::FORBIDDEN, "https_required", message);
        return span.in_scope(|| refused.into_response());
    }
    request.extensions_mut().insert(origin);
    next.run(request).instrument(span).await
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
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
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
