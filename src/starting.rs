//! What a process answers while it waits for its store: alive, not ready, come again. Without this a caller would hang in
//! the backlog of a listener that nobody serves yet.

use std::os::fd::AsFd;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use process::settings::Settings;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::ApiError;
use crate::server::{self, Limits, Stopping};
use crate::wiring::{Listeners, Role};

/// Serves second handles of the listeners until [`Starting::end`].
pub struct Starting {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Starting {
    pub fn serve(listeners: &Listeners, settings: &Settings, role: Role) -> std::io::Result<Starting> {
        let starting = Starting {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let limits = Limits {
            header_timeout: settings.http.header_timeout,
            connections: settings.http.max_connections,
            drain: Duration::from_secs(1),
        };
        let serve = |listener: &TcpListener, router: Router, tls| -> std::io::Result<()> {
            let twin = TcpListener::from_std(listener.as_fd().try_clone_to_owned()?.into())?;
            starting.tasks.spawn(server::serve(
                twin,
                router,
                limits,
                tls,
                Stopping::at(starting.stop.clone()),
            ));
            Ok(())
        };
        serve(&listeners.admin, admin(role), None)?;
        if let Some(public) = &listeners.public {
            serve(public, Router::new().fallback(come_again), listeners.tls.clone())?;
        }
        Ok(starting)
    }

    /// Ends the requests in hand; the listeners stay open.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn admin(role: Role) -> Router {
    let body = json!({"ready": false, "role": role.as_str(), "starting": "the log says what is waited for"});
    let readyz = move || async move { (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response() };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(come_again)
}

async fn come_again() -> Response {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "The bridge is starting")
        .retry_after(Duration::from_secs(5))
        .into_response()
}
