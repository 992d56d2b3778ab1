//! The running bridge against its own OpenAPI document: schemathesis (PyPI) plays whatever the document allows, and what it
//! does not allow, and no answer may be a 500, an undocumented status or another shape than documented.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::*;

/// The program, if it is there. Without it the test is skipped, loudly; with `REQUIRE_SERVICES=1` it fails.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn fuzzer() -> Option<String> {
    let program = std::env::var("SNAPBRIDGE_TEST_SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".into());
    let mut version = Command::new(&program);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Some(program);
    }
    assert!(
        std::env::var("REQUIRE_SERVICES").as_deref() != Ok("1"),
        "schemathesis is required: pip install schemathesis, or name it in SNAPBRIDGE_TEST_SCHEMATHESIS"
    );
    eprintln!("SKIPPED: there is no {program}");
    None
}

on_both!(nothing_but_what_is_documented, |backend| async move {
    let Some(program) = fuzzer() else { return };
    let crm = Crm::start(30).await;
    let bridge = Bridge::start(backend, &crm, "").await;
    bridge.build().await;
    let agents = json!({"auth": {"account": "demo", "token": TOKEN}});
    until("the agents are read", || async {
        bridge.post("/demo/agent_sync", agents.clone()).await.0 == 200
    })
    .await;

    let folder = tempfile::tempdir().expect("a folder");
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
    let mut run = Command::new(program);
    run.current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", files)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--config-file", &format!("{files}/schemathesis.toml"), "run"])
        .arg(format!("{}/openapi.json", bridge.url))
        .args(["--phases", "coverage,fuzzing", "--max-examples", "40", "--no-color"])
        .args(["--checks", CHECKS]);
    let run = tokio::task::spawn_blocking(move || run.output())
        .await
        .expect("a thread");
    let run = run.expect("it runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(!said.contains("Unresolvable references"), "{said}");
    // Not refusals alone.
    let counted = bridge.http.get(format!("{}/metrics", bridge.admin)).send().await;
    let counted = counted.expect("an answer").text().await.expect("metrics");
    for endpoint in [
        "contact_sync",
        "agent_sync",
        "interaction_update",
        "auth_validation",
        "actions",
    ] {
        let good = ["200", "201"].map(|status| format!("endpoint=\"{endpoint}\",status=\"{status}\""));
        assert!(
            good.iter().any(|good| counted.contains(good.as_str())),
            "{endpoint} was never good:\n{counted}"
        );
    }
    bridge.stop().await;
});

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      unsupported_method";
