//! `snapbridge doctor`, as a process beside a running bridge.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{ADMIN, OPERATE, admin, tokens};
use crate::harness::*;

/// Exit code, and what each check came to.
async fn examined(
    bridge: &Bridge,
    crm: &Crm,
    token: &str,
    more: &[&str],
) -> (Option<i32>, Vec<(String, String, String)>) {
    let settings = bridge.settings_file(crm, &tokens(""));
    let secret = bridge.folder().join("token");
    std::fs::write(&secret, token).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapbridge"));
    command.arg("doctor").arg("--json").arg("--config").arg(settings);
    command
        .arg("--token-file")
        .arg(secret)
        .arg("--data")
        .arg(bridge.folder());
    command
        .args(["--url", &bridge.admin, "--front", &bridge.url])
        .args(more);
    command.stdin(Stdio::null()).env_remove("SNAPBRIDGE_OPS_TOKEN");
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    let ran = ran.expect("no panic").expect("the program runs");
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| {
        panic!(
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        )
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("checks").iter();
    let checks = checks.map(|check| {
        assert!(check["level"] == "ok" || check["advice"].is_string(), "{check}");
        (text(&check["check"]), text(&check["level"]), text(&check["seen"]))
    });
    (ran.status.code(), checks.collect())
}

fn level<'a>(checks: &'a [(String, String, String)], name: &str) -> &'a str {
    let found = checks.iter().find(|(check, ..)| check.starts_with(name));
    found.map_or_else(|| panic!("no {name}: {checks:?}"), |(_, level, _)| level.as_str())
}

on_both!(
    a_sound_bridge_is_found_sound_and_a_webhook_is_followed_through,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let account = bridge.build().await;
        let fetched = crm.crm.stats("demo").calls_of("contacts.batch");
        let (code, checks) = examined(&bridge, &crm, ADMIN, &["--webhook", account.as_str()]).await;
        assert_eq!(code, Some(0), "{checks:?}");
        for name in [
            "integrations",
            "key file",
            "store",
            "queue",
            "front at",
            "process",
            "credentials of",
            "dead letters",
            "webhook: delivered",
            "webhook: marked",
            "webhook: job",
            "webhook: commit",
            "webhook: served",
        ] {
            assert_eq!(level(&checks, name), "ok", "{name}: {checks:?}");
        }
        // The public URL is not set: that is a warning, which fails the strict.
        assert_eq!(level(&checks, "http.public_url"), "warning");
        assert!(
            crm.crm.stats("demo").calls_of("contacts.batch") > fetched,
            "the contact was fetched"
        );
        let (code, checks) = examined(&bridge, &crm, ADMIN, &["--strict", "--webhook", account.as_str()]).await;
        assert_eq!(code, Some(1), "{checks:?}");
        // The same again is no repetition.
        assert_eq!(level(&checks, "webhook: served"), "ok", "{checks:?}");
        let (code, checks) = examined(&bridge, &crm, OPERATE, &["--webhook", account.as_str()]).await;
        assert_eq!((code, level(&checks, "webhook")), (Some(1), "error"), "{checks:?}");
        let audit = admin(&bridge).get("/api/audit").await.to_string();
        assert!(audit.contains("try webhook"), "{audit}");
        bridge.stop().await;
    }
);

on_both!(what_is_broken_is_named, |backend| async move {
    let crm = Crm::start(10).await;
    let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
    bridge.build().await;
    crm.crm.knobs("demo", |knobs| knobs.revoke_after = Some(0));
    let keys = bridge.folder().join("keys");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    let (code, checks) = examined(&bridge, &crm, ADMIN, &[]).await;
    assert_eq!(code, Some(1), "{checks:?}");
    for (name, as_it_is) in [
        ("key file", "error"),
        ("credentials of", "error"),
        ("front at", "warning"),
        ("store", "ok"),
    ] {
        assert_eq!(level(&checks, name), as_it_is, "{name}: {checks:?}");
    }
    std::fs::write(&keys, "").expect("a file");
    std::fs::remove_file(&keys).expect("gone");
    process::keys::create_if_missing(&keys).expect("other keys");
    let (_, checks) = examined(&bridge, &crm, "wrong-4b7c0d1e2f3a4958", &[]).await;
    assert_eq!(
        (level(&checks, "front at"), level(&checks, "process")),
        ("error", "error"),
        "{checks:?}"
    );
    assert!(
        checks
            .iter()
            .any(|(check, _, seen)| check.starts_with("front at") && seen.contains("ours is")),
        "{checks:?}"
    );
    bridge.stop().await;
});
