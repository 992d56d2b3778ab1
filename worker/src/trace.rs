//! Where a trace goes on: from a request to the job that it rang for, from a commit to the page that serves it. The trace itself is
//! somebody else's (`process::otel`); without it nothing here does anything.

use std::sync::OnceLock;

use serde::Deserialize;
use tracing::Span;

/// What a process that traces can do. A context is a `traceparent` (W3C Trace Context).
#[derive(Clone, Copy, Debug)]
pub struct Tracer {
    /// The context of the current span; `None`: it is not traced.
    pub current: fn() -> Option<String>,
    /// Makes a span part of the trace of a context.
    pub adopt: fn(&Span, &str),
    /// Says that a span has to do with a context.
    pub link: fn(&Span, &str),
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// The tracer of this process. The first one stays.
pub fn install(tracer: Tracer) {
    let _ = TRACER.set(tracer);
}

pub fn current() -> Option<String> {
    TRACER.get().and_then(|tracer| (tracer.current)())
}

pub fn adopt(span: &Span, context: Option<&str>) {
    if let (Some(tracer), Some(context)) = (TRACER.get(), context) {
        (tracer.adopt)(span, context);
    }
}

/// Links the current span to the commit that last changed a snapshot, by its progress.
pub fn link_commit(progress: &[u8]) {
    #[derive(Deserialize)]
    struct Traced {
        #[serde(default)]
        trace: Option<String>,
    }
    let Some(tracer) = TRACER.get() else { return };
    let traced = serde_json::from_slice::<Traced>(progress).ok();
    if let Some(context) = traced.and_then(|traced| traced.trace) {
        (tracer.link)(&Span::current(), &context);
    }
}
