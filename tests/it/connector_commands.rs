//! A connector as its author meets it: `connector new`, `check`, `test`, `list`, `schema` as processes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Crm, TOKEN};

fn snapbridge(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snapbridge"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The options that lead the demo's connector to a fake CRM.
fn at(crm: &Crm) -> Vec<String> {
    let site = &crm.url;
    [
        "--auth",
        "account=demo",
        "--connection",
        &format!("site={site}"),
        "--allow-host",
        site,
    ]
    .map(str::to_owned)
    .to_vec()
}

async fn tried(crm: &Crm, more: &[&str]) -> Output {
    let mut args: Vec<String> = ["connector", "test", "demo"].map(str::to_owned).to_vec();
    args.extend(at(crm));
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let run = move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let folder = tempfile::tempdir().expect("a folder");
        snapbridge(folder.path(), &args)
    };
    // The fake CRM runs in this process, and must not be kept from answering.
    tokio::task::spawn_blocking(run).await.expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_is_tried_and_shows_contacts_requests_cost_and_repairs() {
    let crm = Crm::start(1_200).await;
    let token = format!("token={TOKEN}");
    let shown = tried(&crm, &["--auth", &token, "--region", "PT"]).await;
    let said = text(&shown.stdout);
    assert!(shown.status.success(), "{said}{}", text(&shown.stderr));
    for part in [
        "The CRM accepts these credentials: organisation demo",
        "500 contacts on 1 page, and there are more",
        "phone_formatted",
        "contacts.full",
        "limit calls: 2 of",
        "\"emails\": [",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }

    let shown = tried(&crm, &["--auth", &token, "--region", "PT", "--pages", "9", "--json"]).await;
    let trial: Value = serde_json::from_slice(&shown.stdout).expect("one JSON object");
    assert_eq!((&trial["pages"], &trial["more"]), (&3.into(), &false.into()));
    let contacts = trial["contacts"].as_array().expect("contacts");
    let truth = crm.crm.truth("demo");
    assert_eq!(contacts.len(), truth.len());
    assert!(
        trial["requests"].as_array().is_some_and(|requests| requests.len() == 4),
        "{trial}"
    );
    let all = format!("{said}{}", text(&shown.stdout));
    assert!(!all.contains(TOKEN), "the token is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_crm_refuses_is_told_with_the_request_that_met_it() {
    let crm = Crm::start(10).await;
    let shown = tried(&crm, &["--auth", "token=canary-wrong-token"]).await;
    let said = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Failed at check (credentials)") && said.contains("401"),
        "{said}"
    );
    assert!(
        !format!("{said}{}", text(&shown.stderr)).contains("canary"),
        "the token is shown"
    );

    crm.crm.knobs("demo", |knobs| knobs.html_200 = 5);
    let shown = tried(&crm, &["--auth", &format!("token={TOKEN}")]).await;
    assert!(text(&shown.stdout).contains("(bad_reply)"), "{}", text(&shown.stdout));
}

#[test]
fn wrong_options_are_told_all_at_once_and_without_their_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = [
        "connector",
        "test",
        "demo",
        "--auth",
        "secret=canary",
        "--auth",
        "canary",
        "--region",
        "XX",
    ];
    let refused = snapbridge(folder.path(), &args);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--auth number 2 is not KEY=VALUE"), "{said}");
    assert!(!said.contains("canary"), "{said}");

    let args = [
        "connector",
        "test",
        "demo",
        "--auth",
        "who=me",
        "--auth",
        "site=x",
        "--region",
        "Portugal",
    ];
    let said = text(&snapbridge(folder.path(), &args).stderr);
    for part in [
        "--auth who: the connector has no such field",
        "`site` is given with --connection",
        "--auth account=… is missing",
        "--connection site=… is missing",
        "--region: ",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

#[test]
fn a_new_connector_starts_from_a_file_that_is_right_and_is_written_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let new = [
        "connector",
        "new",
        "acme",
        "--title",
        "Acme CRM",
        "--site",
        "https://api.acme.example",
    ];
    let made = snapbridge(folder, &new);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let said = text(&made.stdout);
    assert!(said.contains("snapbridge connector check acme.toml"), "{said}");
    let checked = snapbridge(folder, &["connector", "check", "acme.toml"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(
        text(&checked.stdout).contains("Acme CRM (acme)"),
        "{}",
        text(&checked.stdout)
    );
    let before = std::fs::read(folder.join("acme.toml")).expect("the file");
    assert_eq!(snapbridge(folder, &new).status.code(), Some(2));
    assert_eq!(std::fs::read(folder.join("acme.toml")).expect("the file"), before);
}

#[test]
fn the_shipped_connectors_are_listed_for_people_and_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let listed = snapbridge(folder.path(), &["connector", "list", "--json"]);
    let rows: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let ids: Vec<&str> = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["id"].as_str())
        .collect();
    let shipped: Vec<&str> = crm::Connector::shipped_ids().collect();
    assert_eq!(ids, shipped);
    let people = text(&snapbridge(folder.path(), &["connector", "list"]).stdout);
    assert!(shipped.iter().all(|id| people.contains(id)), "{people}");
    let one = |id: &str| rows.as_array().into_iter().flatten().find(|row| row["id"] == id);
    let salesforce = &one("salesforce").expect("it is listed")["webhook_steps"];
    assert!(
        salesforce[0].as_str().is_some_and(|step| step.contains("Setup")),
        "{salesforce}"
    );
    let renewals = &one("odoo-json2").expect("it is listed")["renewals"];
    assert!(
        renewals[0].as_str().is_some_and(|text| text.contains("90 days")),
        "{renewals}"
    );
    let checked = text(&snapbridge(folder.path(), &["connector", "check", "salesforce", "odoo-json2"]).stdout);
    for part in [
        "webhook by hand: In Salesforce open Setup",
        "renew: API key (`api_key`)",
    ] {
        assert!(checked.contains(part), "{part:?} is not in\n{checked}");
    }
}

#[test]
fn the_schema_is_printed_for_editors() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = snapbridge(folder.path(), &["connector", "schema"]);
    let schema: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert!(schema["properties"]["contacts"].is_object(), "{schema}");
}
