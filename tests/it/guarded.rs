//! The bridge's own secrets: in the path, in a field of `auth`, hashed, and while they are rotated.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::faults::Rig;
use crate::faults::child::binary;
use crate::harness::*;

const OLD: &str = "old-secret-0123456789";
const NEW: &str = "new-secret-0123456789";

/// `auth` with the bridge key in the field of this name.
fn keyed(field: &str, key: &str) -> Value {
    let mut auth = auth();
    auth[field] = json!(key);
    json!({ "auth": auth })
}

fn hashed(secret: &str) -> String {
    process::secrets::hashed(secret).expect("a secret")
}

on_both!(
    both_path_secrets_are_good_while_they_are_rotated,
    |backend| async move {
        let crm = Crm::start(5).await;
        let more = format!("integrations.demo.path_secret = [\"{OLD}\", \"{}\"]", hashed(NEW));
        let bridge = Bridge::start(backend, &crm, &more).await;
        let body = json!({"auth": auth()});
        for secret in [
            "/k/wrong-secret-0123456789",
            "",
            &format!("/k/{}", hashed(NEW)),
            &format!("/k/{OLD}x"),
        ] {
            let (status, error) = bridge.post(&format!("/demo{secret}/contact_sync"), body.clone()).await;
            assert_eq!(
                (status, error["code"].as_str()),
                (403, Some("wrong_secret")),
                "{secret}"
            );
        }
        let (status, _) = bridge
            .post(&format!("/nobody/k/{OLD}/contact_sync"), body.clone())
            .await;
        assert_eq!(status, 404, "an unknown integration");
        assert_eq!(crm.calls(), 0);
        for secret in [OLD, NEW] {
            for endpoint in ["contact_sync", "auth_validation"] {
                let (status, answer) = bridge.post(&format!("/demo/k/{secret}/{endpoint}"), body.clone()).await;
                assert_eq!(status, 200, "{answer}");
            }
        }
        bridge.stop().await;
    }
);

on_both!(
    the_bridge_key_is_looked_at_before_anything_else_and_is_no_credential,
    |backend| async move {
        let crm = Crm::start(5).await;
        let more = format!("integrations.demo.bridge_key = [\"{OLD}\", \"{}\"]", hashed(NEW));
        let bridge = Bridge::start(backend, &crm, &more).await;
        for endpoint in ["contact_sync", "const_sync", "auth_validation"] {
            for body in [
                json!({"auth": auth()}),
                json!({}),
                json!({"meta": 7}),
                json!({"auth": {}, "meta": {"offset": {}}}),
                keyed("bridge_key", "wrong-secret-0123456789"),
                keyed("bridge_key", ""),
                keyed("bridge_key", &hashed(NEW)),
                keyed("key", OLD),
            ] {
                let (status, error) = bridge.post(&format!("/demo/{endpoint}"), body.clone()).await;
                assert_eq!(
                    (status, error["code"].as_str()),
                    (403, Some("wrong_secret")),
                    "{endpoint} {body}"
                );
                assert!(!error.to_string().contains("wrong-secret"), "nothing is repeated");
            }
        }
        assert_eq!(crm.calls(), 0, "none of this reaches the CRM");

        let (status, answer) = bridge.post("/demo/contact_sync", keyed("bridge_key", OLD)).await;
        assert_eq!(status, 200, "{answer}");
        let (account, checks) = (bridge.account().await, crm.checks());
        let (status, _) = bridge.post("/demo/contact_sync", keyed("bridge_key", NEW)).await;
        assert_eq!(status, 200);
        assert_eq!(
            crm.checks(),
            checks,
            "another key is no other credential, so there is nothing to check"
        );
        assert_eq!(bridge.account().await, account);
        bridge.stop().await;
    }
);

on_both!(
    the_bridge_key_s_field_has_the_name_of_the_settings,
    |backend| async move {
        let crm = Crm::start(5).await;
        let more = format!(
            "integrations.demo.bridge_key = \"{OLD}\"\nintegrations.demo.bridge_key_field = \"door\"\n\
         integrations.demo.path_secret = \"{NEW}\""
        );
        let bridge = Bridge::start(backend, &crm, &more).await;
        let path = format!("/demo/k/{NEW}/contact_sync");
        assert_eq!(bridge.post(&path, keyed("bridge_key", OLD)).await.0, 403);
        assert_eq!(
            bridge.post("/demo/contact_sync", keyed("door", OLD)).await.0,
            403,
            "both are asked for"
        );
        assert_eq!(bridge.post(&path, keyed("door", OLD)).await.0, 200);
        bridge.stop().await;
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_made_hashed_and_put_into_files() {
    let mut rig = Rig::new(5, "", "").await;
    let (code, made) = rig.command(&["keys", "hash", "--new"]).await;
    assert_eq!(code, Some(0), "{made}");
    let (secret, hash) = made.trim().split_once('\n').expect("two lines");
    let folder = rig.folder();
    std::fs::write(folder.join("plain"), format!("{secret}\n")).unwrap();
    let (_, again) = rig.command(&["keys", "hash", "plain"]).await;
    assert_eq!(again.trim(), hash);
    assert_eq!(from_stdin(&format!("{secret}\n")), (Some(0), hash.to_owned()));
    let (code, said) = from_stdin("too-short");
    assert!(code == Some(2) && said.is_empty(), "{said}");

    std::fs::write(folder.join("hashed"), format!("{hash}\n{OLD}\n")).unwrap();
    rig.set("integrations.demo.path_secret_file = \"hashed\"");
    let mut up = rig.start("up");
    up.until_ready().await;
    let body = json!({"auth": auth()});
    for secret in [secret, OLD] {
        let answer = up.post(&format!("/demo/k/{secret}/contact_sync"), body.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(up.post("/demo/contact_sync", body).await.status, 403);
    let (log, (_, shown)) = (up.log(), rig.command(&["config", "check"]).await);
    assert!(shown.contains("path_secret = [\"***\", \"***\"]"), "{shown}");
    for secret in [secret, hash, OLD] {
        assert!(!log.contains(secret) && !shown.contains(secret), "invariant 12");
    }
    up.stop().await;

    rig.set("integrations.demo.bridge_key_field = \"token\"\nintegrations.demo.logo = \"plain\"");
    let (code, said) = rig.command(&["config", "check"]).await;
    assert_eq!(code, Some(2));
    assert!(
        said.contains("bridge_key_field is \"token\", which is a field of the connector"),
        "{said}"
    );
    assert!(
        said.contains("integrations.demo: logo: plain is neither a PNG nor an SVG"),
        "all at once: {said}"
    );
}

/// `snapbridge keys hash` with this on its stdin: exit code and what it printed.
fn from_stdin(text: &str) -> (Option<i32>, String) {
    let mut child = Command::new(binary())
        .args(["keys", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(text.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("it ends");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
