//! SQLite's errors as the port's kinds.

use contacts::StoreError;
use contacts::ports::StoreErrorKind;
use rusqlite::ErrorCode;

/// `doing` completes "sqlite could not …".
pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| {
        let message = match kind(&error) {
            StoreErrorKind::Full => format!("sqlite could not {doing}: the disk is full"),
            _ => format!("sqlite could not {doing}"),
        };
        StoreError::because(kind(&error), message, error)
    }
}

fn kind(error: &rusqlite::Error) -> StoreErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch) => {
            StoreErrorKind::Unreadable
        }
        Some(_) => StoreErrorKind::Unavailable,
        // Not SQLite itself: a column that does not hold what this version expects.
        None => StoreErrorKind::Unreadable,
    }
}
