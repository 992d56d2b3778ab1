//! `auth_validation`: a user activates the integration (Talkdesk authorization validation). Registers the account and
//! starts its build.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use talkdesk::wire::AuthRequest;

use super::error::{ApiResult, json};
use super::identify::Proof;
use super::{AddressPath, Front};

pub async fn handle(State(front): State<Arc<Front>>, address: AddressPath, body: Body) -> ApiResult<Response> {
    let (integration, bytes) = front
        .receive(&address.integration, address.secret.as_deref(), body)
        .await?;
    let request = AuthRequest::parse(&bytes)?;
    let auth = integration.auth(&request.auth);
    let account = front.identify(&integration, &auth, Proof::Live).await?;
    if integration.auth_success_status == 204 {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // Every key returned is stored by Talkdesk and sent back in `auth`: only configured fields, nothing else.
    let fields: serde_json::Map<_, _> = integration
        .return_fields
        .iter()
        .filter_map(|field| Some((field.clone(), account.learned.get(field)?.clone())))
        .collect();
    Ok(json(StatusCode::OK, serde_json::Value::Object(fields).to_string()))
}
