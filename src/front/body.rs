//! Reading a request body within its limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::{ApiError, ApiResult};

/// The whole body: 413 above `limit` bytes, 408 if it does not arrive within `deadline`.
pub async fn read(body: Body, limit: usize, deadline: Duration) -> ApiResult<Bytes> {
    let collected = tokio::time::timeout(deadline, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("The body is larger than {limit} bytes"),
        )),
        Ok(Err(error)) => {
            Err(ApiError::new(StatusCode::BAD_REQUEST, "body_broken", "The body ended early").cause(error.to_string()))
        }
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("The body did not arrive within {} s", deadline.as_secs_f64()),
        )),
    }
}
