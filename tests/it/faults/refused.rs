//! What no waiting mends is refused at the start, in a sentence that says what to do.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_that_is_missing_or_newer_is_refused() {
    let Some(redis) = own_redis().await else { return };
    let rig = Rig::new(1, &redis.url(), "sqlite:queue").await;
    let layout = format!("{{s000}}:{NAMESPACE}:layout");
    for role in ["serve", "worker", "status"] {
        let (code, text) = rig.command(&[role]).await;
        assert!(
            code == Some(1) && text.contains("run `snapbridge migrate` first"),
            "{role} {code:?}: {text}"
        );
    }
    let (code, text) = rig.command(&["migrate", "--dry-run"]).await;
    assert!(code == Some(0) && text.contains("to be done"), "{code:?} {text}");
    let (code, text) = rig.command(&["migrate"]).await;
    assert!(code == Some(0) && text.contains("applied now"), "{code:?} {text}");
    let (code, text) = rig.command(&["migrate"]).await;
    assert!(
        code == Some(0) && text.contains("done") && !text.contains("applied now"),
        "{code:?} {text}"
    );

    redis
        .command(&["HSET", &layout, "9", "from_the_future"])
        .await
        .expect("written");
    for role in ["serve", "worker", "status", "migrate"] {
        let (code, text) = rig.command(&[role]).await;
        let newer = "layout 9 is newer than this build knows";
        assert!(code == Some(1) && text.contains(newer), "{role} {code:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_is_refused() {
    let Some(redis) = own_redis().await else { return };
    let rig = Rig::new(1, &redis.url(), "sqlite:queue").await;
    redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .expect("set");
    for role in ["migrate", "serve", "worker"] {
        let (code, text) = rig.command(&[role]).await;
        assert!(
            code == Some(1) && text.contains("set it to noeviction"),
            "{role} {code:?}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_an_embedded_folder_is_refused() {
    let rig = Rig::new(30, "", "").await;
    let mut first = rig.start("up");
    first.until_ready().await;
    let (code, text) = rig.command(&["up"]).await;
    assert!(
        code == Some(1) && text.contains("is in use by process"),
        "{code:?} {text}"
    );
    // Looking is allowed.
    let (code, text) = rig.command(&["status"]).await;
    assert!(code == Some(0) && text.contains("lane"), "{code:?} {text}");
    assert_eq!(
        first.run(None).await.titles(),
        truth(&rig.crm),
        "the first one is none the worse"
    );
    first.stop().await;
    let mut second = rig.start("up");
    second.until_ready().await;
    second.stop().await;
}
