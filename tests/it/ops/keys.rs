//! The key file while the bridge runs, and what stands against a step of a rotation.

use contacts::accounts;
use contacts::rotation::{self, Loaded};

use super::*;

fn quick() -> String {
    tokens("keys.reload = \"50ms\"\nrefresh.poll = \"1h\"\n")
}

async fn step(bridge: &Bridge, token: &str, step: Value) -> (StatusCode, Value) {
    let api = Api { bridge, token };
    api.ask(Method::POST, "/api/keys/step", Some(step)).await
}

async fn reloads(bridge: &Bridge, result: &str) -> f64 {
    let metrics = bridge.http.get(format!("{}/metrics", bridge.admin)).send().await;
    let text = metrics.expect("metrics").text().await.expect("metrics");
    let name = format!("snapbridge_key_reloads_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

on_both!(
    a_key_that_a_process_lacks_does_not_seal_and_one_that_is_needed_does_not_go,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &quick()).await;
        let account = bridge.build().await;
        bridge.run(None).await;
        let file = bridge.folder().join("keys");
        let old = bridge.keys.kids().remove(0);
        let new = process::keys::add(&file).expect("a new key");
        until("the new key opens", || async { bridge.keys.kids().len() == 2 }).await;
        assert_eq!(bridge.keys.kids(), [old.clone(), new.clone()], "and does not seal");

        // A process of another machine, with the file as it was.
        let now = contacts::Clock::now(&contacts::SystemClock);
        let loaded = |kids: &[&String], until| Loaded {
            role: "worker".into(),
            kids: kids.iter().map(|kid| (*kid).clone()).collect(),
            until,
        };
        let later = now.plus(std::time::Duration::from_secs(600));
        let report = async |kids: &[&String], until| {
            let reported = rotation::report(&*bridge.store, "elsewhere", &loaded(kids, until), now).await;
            reported.expect("a store");
        };
        report(&[&old], later).await;
        let rotate = json!({"step": "rotate", "kid": new});
        let (status, told) = step(&bridge, ADMIN, rotate.clone()).await;
        assert_eq!(status, 409, "{told}");
        assert!(told["message"].as_str().expect("words").contains("elsewhere"), "{told}");
        let (status, _) = step(&bridge, OPERATE, rotate.clone()).await;
        assert_eq!(status, 403);
        report(&[&old, &new], later).await;
        assert_eq!(step(&bridge, ADMIN, rotate).await.0, 200);
        assert!(process::keys::promote(&file, &new).expect("the key file"));
        until("the new key seals", || async { bridge.keys.kids()[0] == new }).await;

        // While the other one still seals with the old key, nothing is sealed anew.
        let (status, told) = Api {
            bridge: &bridge,
            token: ADMIN,
        }
        .ask(Method::POST, "/api/keys/reseal", None)
        .await;
        assert_eq!(status, 409, "{told}");
        let drop = json!({"step": "drop", "kid": old});
        let (status, told) = step(&bridge, ADMIN, drop.clone()).await;
        assert!(
            status == 409 && told["message"].as_str().expect("words").contains("still seals"),
            "{told}"
        );
        let stored = accounts::get(&*bridge.store, &account)
            .await
            .expect("a store")
            .expect("an account");
        assert_eq!(stored.credentials.kid, old);
        report(&[&new, &old], later).await;
        until("the sweep seals the credentials anew", || async {
            let stored = accounts::get(&*bridge.store, &account).await.expect("a store");
            stored.expect("an account").credentials.kid == new
        })
        .await;
        until("that is in the audit", || async {
            let audit = admin(&bridge).get("/api/audit").await;
            let entries = audit.as_array().expect("entries").iter();
            entries
                .filter(|entry| entry["action"] == "reseal" && entry["target"] == new.as_str())
                .any(|entry| entry["by"] == "the sweep")
        })
        .await;

        // The token that Talkdesk holds still needs it.
        let (status, told) = step(&bridge, ADMIN, drop.clone()).await;
        assert!(
            status == 409 && told["message"].as_str().expect("words").contains("a full one"),
            "{told}"
        );
        let shown = admin(&bridge).get("/api/keys").await;
        let of = |kid: &str| {
            let keys = shown["keys"].as_array().expect("keys").iter();
            keys.clone().find(|key| key["kid"] == kid).expect("the key").clone()
        };
        assert_eq!(
            (&of(&new)["state"], &of(&old)["state"]),
            (&json!("seals"), &json!("opens")),
            "{shown}"
        );
        assert_eq!(
            (&of(&old)["credentials"], &of(&old)["tokens"]),
            (&json!(0), &json!(1)),
            "{shown}"
        );
        assert!(of(&new)["age_seconds"].as_u64().expect("an age") < 3600, "{shown}");
        let forced = json!({"step": "drop", "kid": old, "force": true});
        let (status, told) = step(&bridge, ADMIN, forced).await;
        assert!(
            status == 200 && told["said"].as_str().expect("words").starts_with("forced"),
            "{told}"
        );
        for bad in [json!({"step": "melt", "kid": new}), json!({"step": "drop"}), json!([])] {
            assert_eq!(step(&bridge, ADMIN, bad).await.0, 400);
        }
        bridge.stop().await;
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_cannot_be_used_leaves_the_old_keys_in_place() {
    let crm = Crm::start(20).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, &quick()).await;
    let run = bridge.run(None).await;
    let file = bridge.folder().join("keys");
    let good = std::fs::read_to_string(&file).expect("the key file");
    let kids = bridge.keys.kids();
    let other = bridge.folder().join("other");
    process::keys::create_if_missing(&other).expect("another key file");
    let other = std::fs::read_to_string(other).expect("another key file");
    for (times, bad) in ["identity nonsense\n", &other].into_iter().enumerate() {
        std::fs::write(&file, bad).expect("a key file");
        let failed = (times + 1) as f64;
        until("it is refused", || async { reloads(&bridge, "failed").await >= failed }).await;
        assert_eq!(bridge.keys.kids(), kids);
    }
    assert_eq!(
        bridge.run(Some(&run.checkpoint)).await.contacts.len(),
        0,
        "tokens stay good"
    );
    std::fs::write(&file, good).expect("the key file");
    let new = process::keys::add(&file).expect("a new key");
    until("the mended file is taken on", || async {
        bridge.keys.kids().contains(&new)
    })
    .await;
    assert!(reloads(&bridge, "ok").await >= 1.0);
    bridge.stop().await;
}
