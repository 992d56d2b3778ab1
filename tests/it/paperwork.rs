//! The documents for Talkdesk, as a person makes them: `integration new`, `show` and `manifest` as processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;

use crate::harness::{Crm, TOKEN};

const SECRET: &str = "canary-path-secret-0123456789";

fn snapbridge(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapbridge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SNAPBRIDGE_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

/// A run that must go well; its stdout.
fn good(folder: &Path, args: &[&str]) -> String {
    let output = snapbridge(folder, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// A run that must be refused as wrong use; its stderr.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = snapbridge(folder, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

#[test]
fn a_new_integration_is_checked_written_once_and_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let new = [
        "integration",
        "new",
        "crm",
        "--connector",
        "odoo",
        "--region",
        "PT",
        "--path-secret",
    ];
    let said = good(folder, &new);
    assert!(
        said.contains("[integrations.crm]") && said.contains("path_secret = \"sha256:"),
        "{said}"
    );
    let written = std::fs::read_to_string(folder.join("snapbridge.toml")).expect("the file");
    assert!(
        written.contains("connector = \"odoo\"") && !written.contains("***"),
        "{written}"
    );
    assert!(good(folder, &["config", "check"]).contains("[integrations.crm]"));

    let before = files(folder);
    assert!(refused(folder, &new).contains("integrations.crm is there already; nothing is overwritten"));
    let wrong = [
        "integration",
        "new",
        "other",
        "--connector",
        "odoo",
        "--connection",
        "colour=red",
        "--region",
        "pt",
    ];
    let said = refused(folder, &wrong);
    assert!(said.contains("region` must be two capital letters"), "{said}");
    let wrong = [
        "integration",
        "new",
        "other",
        "--connector",
        "odoo",
        "--connection",
        "colour=canary",
    ];
    let said = refused(folder, &wrong);
    assert!(
        said.contains("connection.colour is not a value that the connector takes") && !said.contains("canary"),
        "{said}"
    );
    let said = refused(folder, &["integration", "new"]);
    assert!(
        said.contains("the name is missing") && said.contains("--connector is missing"),
        "{said}"
    );
    assert_eq!(files(folder), before, "what is refused writes nothing");

    good(folder, &["integration", "new", "second", "--connector", "odoo"]);
    let after = std::fs::read_to_string(folder.join("snapbridge.toml")).expect("the file");
    assert!(
        after.starts_with(&written) && after.contains("[integrations.second]"),
        "{after}"
    );

    let said = refused(folder, &["integration", "show", "crm"]);
    assert!(said.contains("http.public_url is not set"), "{said}");
    let with_url = format!("[http]\npublic_url = \"https://bridge.example\"\n{after}");
    std::fs::write(folder.join("snapbridge.toml"), with_url).expect("the file");
    let shown: Value = serde_json::from_str(&good(folder, &["integration", "show", "crm"])).expect("JSON");
    assert_eq!(shown["integration"]["name"], "crm");
    assert_eq!(
        shown["integration"]["contact_synchronization_endpoint"],
        "https://bridge.example/crm/k/***/contact_sync"
    );
    let shown = good(folder, &["integration", "show", "second", "--format", "md"]);
    assert!(shown.contains("| name | second |"), "{shown}");
}

/// Settings of an integration that the fake CRM can stand behind.
fn settings(folder: &Path, site: &str) {
    let text = format!(
        "[http]\npublic_url = \"https://bridge.example\"\n[integrations.demo]\nconnector = \"demo\"\nregion = \"PT\"\n\
         path_secret = \"{SECRET}\"\nclient = \"Łukasz & Ωmega\"\nkeybase_user = \"omega\"\n\
         client_contacts = [\"Łukasz Żółć <lukasz@omega.example>; decides\", \"Ωmega <omega@omega.example>\"]\n\
         talkdesk_domain = \"omega.mytalkdesk.com\"\nproduction_test = false\napi_docs = [\"https://crm.example/docs\"]\n\
         allow_hosts = [\"{site}\"]\n[integrations.demo.connection]\nsite = \"{site}\"\n"
    );
    std::fs::write(folder.join("snapbridge.toml"), text).expect("the file");
}

#[test]
fn a_manifest_with_examples_of_a_live_run_against_the_fake_crm() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    settings(folder, "http://127.0.0.1:9");
    let manifest = [
        "integration",
        "manifest",
        "demo",
        "--fake",
        "--out",
        "out",
        "--save-examples",
        "kept",
    ];
    let said = good(folder, &manifest);
    assert_eq!(said.lines().count(), 3, "{said}");
    let out = files(&folder.join("out"));
    assert_eq!(
        out.keys().collect::<Vec<_>>(),
        ["demo-manifest.eml", "demo-manifest.md", "demo-manifest.pdf"]
    );
    let text = String::from_utf8(out["demo-manifest.md"].clone()).expect("text");
    for example in [
        "Valid credentials: request (POST https://bridge.example/demo/k/\\*\\*\\*/auth_validation)",
        "Initial synchronization: response (status 200)",
        "Next page: response (status 200)",
        "Incremental synchronization: response (status 200)",
        "\"synchronization_checkpoint\": \"v1.",
        "\"next_offset\": \"v1.",
        "\"token\": \"***\"",
        "First page (",
        "\"agents\": [",
        "\"agent_external_id\"",
        "A synchronized contact: response (status 200)",
        "A call from an automation: response (status 201)",
        "Ticket t-new-1 created",
        "Call call-1 logged",
        "\"contact_external_id\"",
        "made-up CRM",
    ] {
        assert!(text.contains(example), "{example}\n{text}");
    }
    assert!(out["demo-manifest.pdf"].starts_with(b"%PDF-"));
    let message = MessageParser::default()
        .parse(&out["demo-manifest.eml"])
        .expect("an e-mail");
    assert_eq!(message.subject(), Some("New Talkdesk CRM Integration"));
    let attached: BTreeMap<&str, &[u8]> = message
        .attachments()
        .map(|part| (part.attachment_name().expect("a name"), part.contents()))
        .collect();
    assert_eq!(attached["demo-manifest.pdf"], &out["demo-manifest.pdf"][..]);
    assert_eq!(attached["api-documentation.txt"], b"https://crm.example/docs\r\n");
    let body = message.body_text(0).expect("a text");
    assert!(
        body.contains("omega.mytalkdesk.com") && body.contains("Keybase Username: omega"),
        "{body}"
    );
    let kept_action = std::fs::read_to_string(folder.join("kept/actions/create_contact.json")).expect("the examples");
    assert!(kept_action.contains("\"status\": 201"), "{kept_action}");
    let kept = std::fs::read_to_string(folder.join("kept/contact_sync.json")).expect("the examples");
    for shown in [&text, &kept, &body.into_owned()] {
        assert!(
            !shown.contains(SECRET) && !shown.contains(TOKEN) && !shown.contains("127.0.0.1"),
            "{shown}"
        );
    }

    let said = refused(folder, &manifest);
    assert!(
        said.contains("demo-manifest.pdf is there already; --force overwrites it"),
        "{said}"
    );
    assert_eq!(files(&folder.join("out")), out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_a_real_run_shows_nobody() {
    let crm = Crm::start(30).await;
    let folder = tempfile::tempdir().expect("a folder");
    settings(folder.path(), &crm.url);
    let path = folder.path().to_owned();
    let run = move |token: &str, more: &[&str]| {
        let auth = format!("token={token}");
        let mut args = vec![
            "integration",
            "manifest",
            "demo",
            "--auth",
            "account=demo",
            "--auth",
            &auth,
        ];
        args.extend(more);
        snapbridge(&path, &args)
    };
    let run = std::sync::Arc::new(run);
    let call = |token: &'static str, more: &'static [&'static str]| {
        let run = run.clone();
        tokio::task::spawn_blocking(move || run(token, more))
    };

    let output = call("canary-wrong-token", &["--out", "wrong"]).await.expect("a run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("refused the credentials: 401") && !said.contains("canary-wrong"),
        "{said}"
    );
    assert!(!folder.path().join("wrong").exists());

    let output = call(TOKEN, &["--out", "out", "--save-examples", "kept"])
        .await
        .expect("a run");
    assert!(output.status.success(), "{output:?}");
    let kept = std::fs::read_to_string(folder.path().join("kept/contact_sync.json")).expect("the examples");
    let examples: Vec<Value> = serde_json::from_str(&kept).expect("JSON");
    let names: Vec<&str> = examples
        .iter()
        .flat_map(|example| example["response"]["contacts"].as_array().expect("contacts"))
        .filter_map(|contact| contact["name"].as_str())
        .collect();
    assert!(!names.is_empty());
    for name in names {
        let shape = |word: &str| word.chars().skip(1).all(|c| c == 'x' || !c.is_alphanumeric());
        assert!(name.split([' ', '-', '\'']).all(shape), "{name}");
    }
    assert!(!kept.contains(TOKEN) && crm.calls() > 0);
}

#[test]
fn everything_that_a_manifest_lacks_is_named_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let text = "[http]\npublic_url = \"http://bridge.example\"\n[integrations.odoo]\nconnector = \"odoo\"\n";
    std::fs::write(folder.join("snapbridge.toml"), text).expect("the file");
    let args = [
        "integration",
        "manifest",
        "odoo",
        "--contact",
        "Ada",
        "--talkdesk-domain",
        "https://x",
        "--api-docs",
        "docs",
        "--font",
        "nowhere.ttf",
    ];
    let said = refused(folder, &args);
    for problem in [
        "integration.contact_synchronization_endpoint: must be https",
        "the examples' source is missing",
        "--client is missing (or integrations.odoo.client)",
        "--keybase-user is missing (or integrations.odoo.keybase_user)",
        "--talkdesk-domain: \"https://x\" is no domain",
        "--production-test is missing, yes or no (or integrations.odoo.production_test)",
        "--contact: \"Ada\" is no contact",
        "--api-docs: \"docs\" is no http or https URL",
        "--font nowhere.ttf: cannot be read",
    ] {
        assert!(said.contains(problem), "{problem}\n{said}");
    }
    assert_eq!(files(folder).len(), 1);
}
