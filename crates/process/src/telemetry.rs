//! Log lines on stderr, metrics for a listener to render, and one way to print an error.

use std::error::Error;
use std::fmt::Debug;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::settings::LogFormat;

/// Bounds of every histogram of seconds: from a page out of the snapshot (under a millisecond) to a slow CRM.
const SECONDS: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Time between two upkeeps; without them the samples of histograms that nobody scrapes pile up.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log level is not a level or a list of directives")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    #[error("this process has a log subscriber already")]
    Subscriber(#[source] tracing::subscriber::SetGlobalDefaultError),
    #[error("the buckets of a histogram are wrong")]
    Buckets(#[source] metrics_exporter_prometheus::BuildError),
    #[error("this process has a metrics recorder already")]
    Recorder,
}

/// Sends log lines of the process to stderr. `level` as in `[log]`: a level, or directives of `EnvFilter`.
pub fn init_logs(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let subscriber = subscriber(format, level, std::io::stderr, std::io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(TelemetryError::Subscriber)
}

/// The same, and traces beside them.
#[cfg(feature = "otel")]
pub fn init_with_traces(format: LogFormat, level: &str, traces: &crate::otel::Traces) -> Result<(), TelemetryError> {
    let ours = OURS.map(|ours| (ours, tracing::Level::INFO));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_filter(tracing_subscriber::filter::Targets::new().with_targets(ours));
    let colour = std::io::stderr().is_terminal();
    let lines = lines(format, level, std::io::stderr, colour)?;
    let subscriber = tracing_subscriber::registry()
        .with(lines)
        .with(layer)
        .with(ExpectedAbsences);
    tracing::subscriber::set_global_default(subscriber).map_err(TelemetryError::Subscriber)
}

/// The same to any writer, for tests that read log lines (`tracing::subscriber::with_default`).
pub fn subscriber<W>(
    format: LogFormat,
    level: &str,
    writer: W,
    colour: bool,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = lines(format, level, writer, colour)?;
    Ok(Box::new(
        tracing_subscriber::registry().with(lines).with(ExpectedAbsences),
    ))
}

/// Log lines as a layer, with the level as its own filter: what else listens has another.
fn lines<W>(
    format: LogFormat,
    level: &str,
    writer: W,
    colour: bool,
) -> Result<impl Layer<Registry> + Send + Sync + use<W>, TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(directives(level))
        .map_err(TelemetryError::Level)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(colour).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    Ok(layer.with_filter(filter))
}

/// The project's own crates, as targets of log lines.
const OURS: [&str; 10] = [
    "contacts",
    "crm",
    "fake_crm",
    "jobs",
    "migrations",
    "process",
    "snapbridge",
    "store",
    "talkdesk",
    "worker",
];

/// What a level means: `debug` and `trace` are for our own crates. Other people's are loud there, and some print what crosses
/// the wire, credentials too; who wants that names them (`trace,hyper=trace`).
fn directives(level: &str) -> String {
    let mut all = Vec::new();
    let mut named = Vec::new();
    for part in level.split(',').map(str::trim) {
        match part.to_ascii_lowercase().as_str() {
            fine @ ("debug" | "trace") => {
                all.push("info".to_owned());
                all.extend(OURS.map(|ours| format!("{ours}={fine}")));
            }
            _ => named.push(part.to_owned()),
        }
    }
    // Of two directives for one target the later one counts.
    all.extend(named);
    all.join(",")
}

/// Drops lapin's ERROR for each channel that the broker closes with 404. That is how AMQP says that a queue looked at
/// passively is not there, as on every first start; whoever made the call gets the same answer and reports it.
struct ExpectedAbsences;

impl<S: tracing::Subscriber> Layer<S> for ExpectedAbsences {
    fn event_enabled(&self, event: &tracing::Event<'_>, _: Context<'_, S>) -> bool {
        if event.metadata().target() != "lapin::channel" {
            return true;
        }
        let mut close = ChannelClose::default();
        event.record(&mut close);
        !(close.closed && close.not_found)
    }
}

#[derive(Default)]
struct ChannelClose {
    closed: bool,
    not_found: bool,
}

impl Visit for ChannelClose {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.closed = format!("{value:?}") == "Channel closed",
            "method" => self.not_found = format!("{value:?}").contains("reply_code: 404"),
            _ => {}
        }
    }
}

/// The metrics of this process, in Prometheus' text format. Opens no listener.
#[derive(Clone, Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Makes the process-wide recorder. The recorder of the `metrics` crate is global by nature: a second call returns
    /// the first one's, so that several servers of one process (as tests have them) share it.
    pub fn install() -> Result<Self, TelemetryError> {
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = INSTALLED.get() {
            return Ok(Self { handle: handle.clone() });
        }
        let recorder = builder()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Recorder)?;
        Ok(Self {
            handle: INSTALLED.get_or_init(|| handle).clone(),
        })
    }

    /// All metrics, as `/metrics` shows them (`text/plain; version=0.0.4`).
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the recorder tidy until `stop`.
    pub fn spawn_upkeep(&self, stop: CancellationToken) -> JoinHandle<()> {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(UPKEEP);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stop.run_until_cancelled(timer.tick()).await.is_some() {
                handle.run_upkeep();
            }
        })
    }
}

fn builder() -> Result<PrometheusBuilder, TelemetryError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .map_err(TelemetryError::Buckets)
}

/// Sets the gauge `snapbridge_build_info` to 1, with what is running as labels.
pub fn build_info(version: &'static str, role: &'static str) {
    metrics::describe_gauge!("snapbridge_build_info", "1; version and role of this process as labels");
    metrics::gauge!("snapbridge_build_info", "version" => version, "role" => role).set(1.0);
}

/// An error and what caused it, `a: b: c`, each once: a cause that the text before it already ends with (as errors of
/// other people's crates do) is not said again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !said.is_empty() && !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str) -> String {
        logged_by(format, level, || {
            let _span = tracing::info_span!("job", account = "a1").entered();
            tracing::info!(pages = 3, "slice done");
            tracing::debug!("too quiet to be heard at info");
        })
    }

    fn logged_by(format: LogFormat, level: &str, speak: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, level, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, speak);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_message_fields_and_span() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "slice done");
        assert_eq!(line["pages"], 3);
        assert_eq!(line["span"]["account"], "a1");
    }

    #[test]
    fn text_lines_are_filtered_by_level_and_have_no_colour() {
        let text = logged(LogFormat::Text, "info");
        assert!(text.contains("slice done pages=3"), "{text}");
        assert!(!text.contains("too quiet") && !text.contains('\u{1b}'), "{text}");
        assert!(logged(LogFormat::Text, "warn,process=debug").contains("too quiet"));
    }

    #[test]
    fn a_missing_queue_is_no_error_of_the_log_and_a_differing_one_is() {
        let logged = |code: u16| {
            // As lapin words it.
            let method = format!("Close {{ reply_code: {code}, reply_text: \"why\", class_id: 50, method_id: 10 }}");
            logged_by(LogFormat::Text, "info", || {
                tracing::error!(target: "lapin::channel", channel = 3, method = %method, "Channel closed");
            })
        };
        assert_eq!(logged(404), "");
        assert!(logged(406).contains("Channel closed"));
    }

    #[test]
    fn a_fine_level_is_for_our_own_crates_unless_others_are_named() {
        let heard = |level: &str| {
            logged_by(LogFormat::Text, level, || {
                tracing::trace!(target: "worker::slice", "ours");
                tracing::trace!(target: "hyper::proto", "theirs");
                tracing::info!(target: "hyper::proto", "news");
            })
        };
        for (level, [ours, theirs, news]) in [
            ("trace", [true, false, true]),
            ("TRACE,hyper=trace", [true, true, true]),
            ("worker=info,trace", [false, false, true]),
            ("debug", [false, false, true]),
            ("info", [false, false, true]),
            ("warn,worker=trace", [true, false, false]),
        ] {
            let text = heard(level);
            let said = ["ours", "theirs", "news"].map(|word| text.contains(word));
            assert_eq!(said, [ours, theirs, news], "{level}: {text}");
        }
    }

    #[test]
    fn a_wrong_level_is_an_error() {
        assert!(matches!(
            subscriber(LogFormat::Text, "info,worker=loudly", io::sink, false),
            Err(TelemetryError::Level(_))
        ));
    }

    #[tokio::test]
    async fn metrics_render_with_buckets_and_build_info_and_a_second_install_shares_them() {
        let metrics = Metrics::install().unwrap();
        build_info("1.2.3", "front");
        metrics::histogram!("snapbridge_test_page_seconds").record(0.003);
        let text = Metrics::install().unwrap().render();
        assert!(
            text.contains(r#"snapbridge_build_info{version="1.2.3",role="front"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"snapbridge_test_page_seconds_bucket{le="0.005"} 1"#),
            "{text}"
        );
        let stop = CancellationToken::new();
        let upkeep = metrics.spawn_upkeep(stop.clone());
        stop.cancel();
        upkeep.await.unwrap();
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn the_chain_says_each_cause_once() {
        let wrap = |text, source: Option<Failed>| Failed {
            text,
            source: source.map(Box::new),
        };
        let polite = wrap("page failed", Some(wrap("call failed", Some(wrap("timed out", None)))));
        assert_eq!(chain(&polite), "page failed: call failed: timed out");
        let talkative = wrap(
            "page failed",
            Some(wrap("call failed: timed out", Some(wrap("timed out", None)))),
        );
        assert_eq!(chain(&talkative), "page failed: call failed: timed out");
    }
}
