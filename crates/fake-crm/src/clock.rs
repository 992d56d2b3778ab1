//! The only place that reads the real clock.

/// Milliseconds since the epoch, UTC.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
