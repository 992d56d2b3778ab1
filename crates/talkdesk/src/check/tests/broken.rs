//! One broken bridge for each rule.

use super::bridge::{Bridge, CONTACTS, Change};
use super::*;

/// Everything there is to check.
fn full(server: &Server) -> Plan {
    let at = |path: &str| Some(server.url.join(path).unwrap());
    Plan {
        validate: at("auth_validation"),
        agents: at("agent_sync"),
        interactions: at("interaction_update"),
        action: at("actions/create_ticket"),
        data: [("subject".to_owned(), "Missed call".to_owned())].into(),
        write: true,
        ..server.plan()
    }
}

/// Rules that are not broken by what a bridge answers, but by where and when.
async fn circumstances(rule: &Rule, mut plan: Plan) -> Report {
    match rule.id {
        "http.slow" => plan.limits.slow = Duration::ZERO,
        "http.https" => {
            let address = plan.url.socket_addrs(|| None).unwrap()[0];
            for url in [Some(&mut plan.url), plan.validate.as_mut(), plan.agents.as_mut()] {
                url.unwrap().set_host(Some("bridge.test")).unwrap();
            }
            client(&plan.url).unwrap();
            let http = Client::builder().no_proxy().resolve("bridge.test", address).build();
            return check(plan, http.unwrap()).await;
        }
        _ => {}
    }
    checked(plan).await
}

#[tokio::test]
async fn a_sound_bridge_breaks_no_rule() {
    for bridge in [Bridge::new(""), Bridge::new("").with_context()] {
        let server = bridge.start().await;
        let report = checked(full(&server)).await;
        assert!(
            report.findings.is_empty() && report.not_checked.is_empty(),
            "{}",
            report.text()
        );
        assert_eq!(report.verdict(true), Verdict::Passed, "{}", report.text());
        assert_eq!((report.contacts, report.pages), (CONTACTS as u64, 5));
    }
}

/// The bridges of all rules whose id begins with one of these.
async fn broken_bridges(prefixes: &[&str]) {
    let begins = |rule: &&&Rule| prefixes.iter().any(|prefix| rule.id.starts_with(prefix));
    let mut wrong = Vec::new();
    for rule in RULES.iter().filter(begins) {
        let server = Bridge::new(rule.id).start().await;
        let report = circumstances(rule, full(&server)).await;
        if report.broken() != [rule.id].into() {
            wrong.push(format!("--- the bridge of {}\n{}", rule.id, report.text()));
        }
        let verdict = report.verdict(rule.severity == Severity::Warning);
        assert_eq!(verdict, Verdict::Failed, "{}: {}", rule.id, report.text());
        assert!(!report.text().contains("canary"), "{}", report.text());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const CONTENT: [&str; 4] = ["http.", "validate.", "page.", "contact."];
const RUNS: [&str; 5] = ["sync.", "paging.", "repeat.", "restart.", "resume."];
const TOKENS: [&str; 5] = ["checkpoint.", "offset.", "context.", "request.", "credentials."];
const OTHERS: [&str; 3] = ["agents.", "interactions.", "action."];

#[tokio::test]
async fn each_rule_of_content_is_broken_by_its_bridge_and_no_other() {
    broken_bridges(&CONTENT).await;
}

#[tokio::test]
async fn each_rule_of_runs_is_broken_by_its_bridge_and_no_other() {
    broken_bridges(&RUNS).await;
}

#[tokio::test]
async fn each_rule_of_tokens_is_broken_by_its_bridge_and_no_other() {
    broken_bridges(&TOKENS).await;
}

#[tokio::test]
async fn each_rule_of_other_endpoints_is_broken_by_its_bridge_and_no_other() {
    broken_bridges(&OTHERS).await;
}

#[test]
fn every_rule_is_in_one_of_these() {
    let all = [&CONTENT[..], &RUNS, &TOKENS, &OTHERS].concat();
    for rule in RULES {
        assert!(all.iter().any(|prefix| rule.id.starts_with(prefix)), "{}", rule.id);
    }
}

/// An ignored rule still keeps others from being judged by what it spoils.
#[tokio::test]
async fn the_bridge_of_a_rule_passes_where_the_rule_is_ignored() {
    for id in [
        "restart.complete",
        "sync.next-run",
        "checkpoint.repeats",
        "page.contacts",
        "agents.answers",
    ] {
        let server = Bridge::new(id).start().await;
        let plan = Plan {
            ignore: [id].into(),
            ..full(&server)
        };
        let report = checked(plan).await;
        assert_eq!(report.verdict(true), Verdict::Passed, "{id}: {}", report.text());
    }
}

#[tokio::test]
async fn a_contact_that_changes_under_the_check_is_no_finding() {
    for change in [Change::Edit, Change::Touch, Change::Delete] {
        for request in (0..130).step_by(13) {
            let changes = move |number| (number == request).then_some((request % CONTACTS + 1, change));
            let server = Bridge::new("").changing(changes).start().await;
            let report = checked(server.plan()).await;
            assert!(report.findings.is_empty(), "{change:?} at {request}: {}", report.text());
        }
    }
}

#[tokio::test]
async fn a_busy_crm_is_no_finding() {
    for (change, every) in [
        (Change::Edit, 5),
        (Change::Touch, 5),
        (Change::Edit, 3),
        (Change::Touch, 7),
    ] {
        let busy = move |number| (number % every == 0).then_some((number * 11 % CONTACTS + 1, change));
        let server = Bridge::new("").changing(busy).start().await;
        let report = checked(server.plan()).await;
        assert!(report.findings.is_empty(), "{change:?}: {}", report.text());
        assert_eq!(report.could_not_run, None);
    }
}

#[tokio::test]
async fn without_write_an_action_gets_no_input_and_is_not_executed() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let handler = move |body: Bytes| {
        log.lock().unwrap().push(body);
        async { error(400, "no") }
    };
    let server = Server::start(Router::new().route("/b/actions/{name}", post(handler))).await;
    let plan = Plan {
        action: Some(server.url.join("actions/create_ticket").unwrap()),
        data: [("subject".to_owned(), "a-canary".to_owned())].into(),
        ..server.plan()
    };
    let report = checked(plan).await;
    assert_eq!(report.errors, 0, "{}", report.text());
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 6, "{seen:?}");
    for body in seen.iter() {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        assert!(body["data"].as_object().is_none_or(serde_json::Map::is_empty), "{body}");
    }
}
