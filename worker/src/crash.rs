//! Places where a test may kill the process, to prove that nothing is lost there. Compiled in with the feature
//! `crash-points` only.

/// Every crash point of the worker and the front. A test iterates over this list; one that is never reached fails it.
pub const POINTS: [&str; 8] = [
    "after_begin",
    "before_write",
    "between_chunks",
    "after_write",
    "before_finish",
    "between_marker_and_publish",
    "before_ack",
    "between_dirty_and_ring",
];

/// Those that only linking reaches.
pub const LINK_POINTS: [&str; 3] = ["between_links", "after_links", "before_settle"];

/// Aborts the process, as suddenly as `kill -9` would, if the variable `CRASH_POINT` names this point. It has no
/// `SNAPBRIDGE_` before it, because all of those are settings.
#[inline]
pub fn point(name: &str) {
    debug_assert!(
        POINTS.contains(&name) || LINK_POINTS.contains(&name),
        "crash point {name} is not listed"
    );
    #[cfg(feature = "crash-points")]
    if std::env::var("CRASH_POINT").is_ok_and(|at| at == name) {
        tracing::error!(point = name, "crash point reached, aborting");
        std::process::abort();
    }
}
