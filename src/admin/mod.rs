//! The admin listener: health, readiness by dependency, metrics, the ops page and the operators' API. Never open it to the
//! world.

pub mod access;
mod api;
pub mod history;
pub mod operate;
mod pages;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use contacts::keys::Keys;
use contacts::{Clock, Queue, Store};
use process::telemetry::Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use access::Access;
use history::History;
use operate::Operate;

use crate::integrations::Integrations;
use crate::wiring::{Parts, Role};

/// How long a dependency may take to say that it is there.
const PROBE: Duration = Duration::from_secs(2);

pub struct Admin {
    role: Role,
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    integrations: Arc<Integrations>,
    metrics: Metrics,
    access: Access,
    operate: Operate,
    history: History,
    templates: minijinja::Environment<'static>,
    /// Cancelled: the process is stopping.
    stop: CancellationToken,
}

impl Admin {
    pub fn new(role: Role, parts: &Parts, metrics: Metrics, stop: CancellationToken) -> Arc<Admin> {
        let ops = &parts.settings.ops;
        Arc::new(Admin {
            role,
            store: parts.store.clone(),
            queue: parts.queue.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            integrations: parts.integrations.clone(),
            metrics,
            access: Access::new(ops),
            operate: Operate {
                store: parts.store.clone(),
                requests: parts.requests.clone(),
                clock: parts.clock.clone(),
                worker: parts.worker(),
                front: Arc::new(parts.front()),
                integrations: parts.integrations.clone(),
                key_file: parts.key_file.clone(),
                token_grace: parts.settings.keys.token_grace,
                audit: ops.audit,
                forget_wait: ops.forget_wait,
                try_wait: ops.try_wait,
                doctor_accounts: ops.doctor_accounts,
            },
            history: History::new(ops.chart),
            templates: pages::templates(),
            stop,
        })
    }

    /// Samples the lanes for the charts until `stop`.
    pub async fn keep_history(self: Arc<Admin>, stop: CancellationToken) {
        self.history.keep(&*self.store, &*self.queue, &*self.clock, stop).await;
    }
}

pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .merge(pages::router())
        .merge(api::router())
        .with_state(admin)
}

/// The process runs. Says nothing of its dependencies: restarting it would not mend them.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready for its role, and not stopping: reads need the store only, so a front stays ready while the queue is away; a worker needs both.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let store = probe(admin.store.ping()).await;
    let queue = probe(admin.queue.ping()).await;
    let stopping = admin.stop.is_cancelled();
    let ready = !stopping
        && match admin.role {
            Role::Front | Role::Both => store.is_ok(),
            Role::Worker => store.is_ok() && queue.is_ok(),
        };
    let shown = |what: String, state: &Result<(), String>| match state {
        Ok(()) => json!({"ok": true, "what": what}),
        Err(error) => json!({"ok": false, "what": what, "error": error}),
    };
    let body = json!({
        "ready": ready,
        "stopping": stopping,
        "role": admin.role.as_str(),
        "store": shown(admin.store.describe(), &store),
        "queue": shown(admin.queue.describe(), &queue),
        "queue_blocked": admin.queue.is_blocked(),
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(body)).into_response()
}

async fn probe<E: std::error::Error>(ping: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match tokio::time::timeout(PROBE, ping).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(process::chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}

async fn metrics_text(State(admin): State<Arc<Admin>>) -> Response {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, admin.metrics.render()).into_response()
}
