//! One trace from a webhook over its job and the calls to the CRM to the commit, and a link to it from the page that serves what
//! was committed: as a collector is sent them by the processes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use fake_crm::{Change, Control};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;

use crate::canary::Detector;
use crate::harness::*;
use crate::processes::{Process, Site, Talkdesk};

/// A collector: takes spans and keeps them.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    bodies: Arc<Mutex<Vec<u8>>>,
}

type Taken = (Arc<Mutex<Vec<Span>>>, Arc<Mutex<Vec<u8>>>);

impl Collector {
    async fn start() -> Collector {
        let (spans, bodies) = Taken::default();
        let take = async |State((spans, bodies)): State<Taken>, body: Bytes| {
            bodies.lock().extend_from_slice(&body);
            let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            spans.lock().extend(scopes.flat_map(|scope| scope.spans));
            // An empty answer: all were taken.
            Vec::new()
        };
        let router = axum::Router::new()
            .route("/v1/traces", post(take))
            .with_state((spans.clone(), bodies.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Collector { url, spans, bodies }
    }

    /// The spans of this name, each with its attributes.
    fn named(&self, name: &str) -> Vec<(Span, BTreeMap<String, String>)> {
        let text = |value: Option<Any>| match value {
            Some(Any::StringValue(text)) => text,
            Some(Any::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        let attributes = |span: &Span| {
            let all = span.attributes.iter();
            all.map(|pair| (pair.key.clone(), text(pair.value.clone().and_then(|any| any.value))))
                .collect()
        };
        let spans = self.spans.lock();
        let named = spans.iter().filter(|span| span.name == name);
        named.map(|span| (span.clone(), attributes(span))).collect()
    }
}

async fn started(site: &Site, roles: &[&str]) -> Vec<Process> {
    let mut processes = Vec::new();
    for role in roles {
        processes.push(site.start(role).await);
    }
    processes
}

on_both!(
    a_webhook_its_job_its_calls_and_its_commit_are_one_trace_and_the_page_links_to_it,
    |backend| async move {
        let crm = Crm::start(40).await;
        let collector = Collector::start().await;
        let settings = format!(
            "refresh.poll = \"1h\"\nrefresh.sweep = \"200ms\"\nlog.level = \"error,snapbridge=info\"\n\
             telemetry.otlp_endpoint = \"{}\"\n",
            collector.url
        );
        let site = Site::new(backend, &crm, &settings, &[]);
        let roles: &[&str] = match backend {
            Backend::Embedded => &["up"],
            Backend::Distributed => &["serve", "worker"],
        };
        let mut processes = started(&site, roles).await;
        let talkdesk = Talkdesk::of(&processes[0]);
        assert_eq!(talkdesk.validate().await.expect("an answer"), 200);
        until("the snapshot is complete", || site.is_settled()).await;
        let account = site.account().await;
        let before = talkdesk.run(None).await;
        site.subscribe(&crm, &processes[0], &account);
        crm.crm.control(Control::edit("demo", Change::ids([7]))).done();
        until("the edit is delivered", || async {
            talkdesk.run(Some(&before.checkpoint)).await.ids().contains("7")
        })
        .await;

        // The processes send what they have at their end, at the latest.
        for process in &mut processes {
            process.terminate();
            assert_eq!(process.ended().await.code(), Some(0), "{}", process.log());
        }
        let webhooks: Vec<Span> = collector
            .named("request")
            .into_iter()
            .filter(|(_, attributes)| attributes["path"] == "/{integration}/webhooks/{hook}")
            .map(|(span, _)| span)
            .collect();
        assert_eq!(webhooks.len(), 1, "the webhook is a span");
        let webhook = &webhooks[0];
        assert!(webhook.parent_span_id.is_empty(), "its trace begins with it");
        let of_trace = |name: &str| -> Vec<(Span, BTreeMap<String, String>)> {
            let mut spans = collector.named(name);
            spans.retain(|(span, _)| span.trace_id == webhook.trace_id);
            spans
        };
        let jobs = of_trace("job");
        let (job, about) = jobs
            .iter()
            .find(|(job, _)| job.parent_span_id == webhook.span_id)
            .unwrap_or_else(|| panic!("the job is the webhook's: {jobs:?}"));
        assert_eq!(
            (about["account"].as_str(), about["kind"].as_str()),
            (account.as_str(), "contacts.ids")
        );
        let under_the_job = |name: &str| {
            let mut spans = of_trace(name);
            spans.retain(|(span, _)| span.parent_span_id == job.span_id);
            spans
        };
        let calls = under_the_job("crm_call");
        assert!(calls.iter().any(|(_, about)| about["status"] == "200"), "{calls:?}");
        assert!(!under_the_job("commit").is_empty(), "the commit is the job's");
        let pages = collector.named("request");
        let linked = |span: &Span| {
            span.links
                .iter()
                .any(|link| link.trace_id == webhook.trace_id && link.span_id == job.span_id)
        };
        assert!(
            pages
                .iter()
                .any(|(span, about)| about["path"] == "/{integration}/contact_sync" && linked(span)),
            "the page that serves the edit is linked to it: {pages:?}"
        );
        // Nothing but our own spans, and nothing in them that is anybody else's business.
        let names: std::collections::BTreeSet<String> =
            collector.spans.lock().iter().map(|span| span.name.clone()).collect();
        let known = ["commit", "crm_call", "job", "request"].map(str::to_owned);
        assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
        let titles = truth(&crm).into_values().filter(|title| title.len() >= 12);
        let canaries = titles.map(|title| ("a job title", title)).chain([
            ("a hook id", site.keys.hook_id(&account)),
            ("a hook secret", site.keys.hook_secret(&account)),
            ("credentials", format!("token\":\"{TOKEN}")),
            (
                "a checkpoint",
                before.checkpoint.rsplit('.').next().expect("its seal").to_owned(),
            ),
        ]);
        let bodies = collector.bodies.lock().clone();
        Detector::of(canaries).assert_clean("a trace", &bodies);
        let holds_token = bodies.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!holds_token, "invariant 12: a trace shows the CRM's token");
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_keeps_nobody_from_working() {
    let crm = Crm::start(40).await;
    let settings = "refresh.sweep = \"200ms\"\ntelemetry.otlp_endpoint = \"http://127.0.0.1:9\"\n";
    let site = Site::new(Backend::Embedded, &crm, settings, &[]);
    let mut up = site.start("up").await;
    let talkdesk = Talkdesk::of(&up);
    assert_eq!(talkdesk.validate().await.expect("an answer"), 200);
    until("the snapshot is complete", || site.is_settled()).await;
    assert_eq!(talkdesk.run(None).await.titles(), truth(&crm));
    up.terminate();
    assert_eq!(up.ended().await.code(), Some(0), "{}", up.log());
}
