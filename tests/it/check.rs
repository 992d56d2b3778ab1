//! This bridge against the checker, which any bridge can be held against.

use std::process::Command;

use serde_json::{Value, json};
use talkdesk::check::{Limits, Plan, Report, Verdict, check};
use talkdesk::wire::Auth;
use url::Url;

use crate::harness::*;

async fn checked(bridge: &Bridge) -> Report {
    let at = |path: &str| Url::parse(&format!("{}/demo/{path}", bridge.url)).expect("a URL");
    let url = at("contact_sync");
    let http = talkdesk::player::client(&url).expect("a client");
    let fields = [("account", "demo"), ("token", TOKEN)];
    let plan = Plan {
        url,
        auth: fields
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect(),
        wrong: Auth::default(),
        validate: Some(at("auth_validation")),
        agents: Some(at("agent_sync")),
        interactions: Some(at("interaction_update")),
        interaction_types: vec!["Ticket".to_owned()],
        action: Some(at("actions/create_contact")),
        data: [("last_name".to_owned(), "Marchetti".to_owned())].into(),
        write: true,
        ignore: Default::default(),
        limits: Limits {
            oversize: 300 << 10,
            ..Limits::default()
        },
    };
    check(plan, http).await
}

/// `snapbridge talkdesk check`: its exit code and its report.
async fn command(url: &str) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapbridge"));
    command
        .args(["talkdesk", "check", url, "--json", "--strict"])
        .args(["--auth", "account=demo", "--auth", &format!("token={TOKEN}")])
        .args(["--oversize", "307200", "--attempts", "1"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("the command");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains(TOKEN), "{text}");
    (
        output.status.code(),
        serde_json::from_str(&text).expect("one JSON object"),
    )
}

on_both!(this_bridge_keeps_every_rule, |backend| async move {
    let crm = Crm::start(230).await;
    let bridge = Bridge::start(backend, &crm, "page.contacts = 50").await;
    bridge.build().await;
    let report = checked(&bridge).await;
    assert_eq!(report.verdict(true), Verdict::Passed, "{}", report.text());
    assert_eq!((report.contacts, report.pages), (230, 5));
    assert!(report.not_checked.is_empty(), "{}", report.text());

    // The command tells the same by its exit code.
    let (code, report) = command(&format!("{}/demo/contact_sync", bridge.url)).await;
    assert_eq!((code, &report["findings"]), (Some(0), &json!([])), "{report}");
    let (code, report) = command(&format!("{}/demo/auth_validation", bridge.url)).await;
    assert_eq!(
        (code, &report["findings"][0]["rule"]),
        (Some(1), &json!("page.contacts")),
        "{report}"
    );
    let (code, report) = command(&format!("{}/nobody/contact_sync", bridge.url)).await;
    assert_eq!(code, Some(2), "{report}");
    assert!(
        report["could_not_run"].as_str().is_some_and(|why| why.contains("404")),
        "{report}"
    );
    bridge.stop().await;
});

on_both!(a_bridge_that_is_still_fetching_keeps_them_too, |backend| async move {
    let crm = Crm::start(400).await;
    let bridge = Bridge::start(backend, &crm, "page.contacts = 50").await;
    let report = checked(&bridge).await;
    assert_eq!(report.errors, 0, "{}", report.text());
    assert_eq!(report.could_not_run, None, "{}", report.text());
    assert_eq!(report.contacts, 400);
    bridge.stop().await;
});
