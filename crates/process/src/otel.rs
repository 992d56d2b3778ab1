//! Traces over OTLP (HTTP, protobuf), behind the feature `otel`. Spans of the bridge's own crates at `info` are sent, whatever the
//! log level is; log lines are not.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use crate::settings::Telemetry;

/// The header that a context is written as.
const TRACEPARENT: &str = "traceparent";

#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint: the exporter of traces cannot be made")]
pub struct OtelError(#[source] opentelemetry_otlp::ExporterBuildError);

/// The traces of this process.
#[derive(Clone, Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// `endpoint`: the collector's, without `/v1/traces`.
    pub fn start(settings: &Telemetry, endpoint: &Url, version: &'static str) -> Result<Traces, OtelError> {
        let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(settings.otlp_timeout)
            .build()
            .map_err(OtelError)?;
        let resource = Resource::builder()
            .with_service_name(settings.service.clone())
            .with_attribute(opentelemetry::KeyValue::new("service.version", version))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Traces { provider })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("snapbridge")
    }

    /// Sends what is left. Blocks until that is done or the exporter's time is over.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last spans could not be sent");
        }
    }
}

/// The context of the current span as `traceparent`; `None`: it is not sampled.
pub fn current() -> Option<String> {
    let context = Span::current().context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    headers.remove(TRACEPARENT)
}

fn extracted(context: &str) -> opentelemetry::Context {
    let headers = HashMap::from([(TRACEPARENT.to_owned(), context.to_owned())]);
    TraceContextPropagator::new().extract(&headers)
}

/// Makes a span part of a trace. It must not have been entered yet.
pub fn adopt(span: &Span, context: &str) {
    // A span that nobody looks at has no trace.
    let _ = span.set_parent(extracted(context));
}

/// Links a span to another trace.
pub fn link(span: &Span, context: &str) {
    let linked = extracted(context).span().span_context().clone();
    if linked.is_valid() {
        span.add_link(linked);
    }
}
