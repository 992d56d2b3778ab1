//! Redis' errors as the port's kinds.

use std::time::Duration;

use contacts::StoreError;
use contacts::ports::StoreErrorKind;
use redis::{ErrorKind, RedisError};

/// `doing` completes "redis could not …".
pub(super) fn failed(doing: &str, error: RedisError) -> StoreError {
    let kind = kind(&error);
    let message = match kind {
        StoreErrorKind::Full => format!("redis could not {doing}: it refuses writes"),
        _ if error.is_timeout() => format!("redis did not {doing} in time"),
        _ => format!("redis could not {doing}"),
    };
    StoreError::because(kind, message, error)
}

pub(super) fn too_slow(doing: &str, limit: Duration) -> StoreError {
    let message = format!("redis did not {doing} within {} ms", limit.as_millis());
    StoreError::new(StoreErrorKind::Unavailable, message)
}

pub(super) fn unreadable(what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreadable,
        format!("{what} has a form that this build does not know"),
    )
}

fn kind(error: &RedisError) -> StoreErrorKind {
    // The first error of a pipeline speaks for it.
    let errors = error.clone().into_server_errors();
    let code = errors.as_ref().and_then(|errors| Some(errors.first()?.1.code()));
    match (code, error.kind()) {
        // Memory is used up, or the disk is and Redis was told not to go on without saving.
        (Some("OOM" | "MISCONF"), _) => StoreErrorKind::Full,
        (Some("WRONGTYPE"), _) | (None, ErrorKind::UnexpectedReturnType | ErrorKind::Parse) => {
            StoreErrorKind::Unreadable
        }
        _ => StoreErrorKind::Unavailable,
    }
}
