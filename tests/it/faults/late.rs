//! Services that start in any order.

use serde_json::json;

use super::relay::{Mode, Relay};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn front_and_worker_wait_for_a_redis_that_is_late() {
    let Some(mut redis) = own_redis().await else { return };
    let Some(broker) = Rabbit::start().await else { return };
    let rig = Rig::new(120, &redis.url(), &broker.url()).await;
    assert_eq!(rig.command(&["migrate"]).await.0, Some(0));
    redis.kill();
    let (mut front, mut worker) = (rig.start("serve"), rig.start("worker"));
    for process in [&front, &worker] {
        until("it says that it waits", || async {
            process.log().contains("not ready yet")
        })
        .await;
    }
    front.sync(json!(null)).await.assert_unavailable();
    for process in [&mut front, &mut worker] {
        assert_eq!(process.readiness().await.0, 503);
        assert_eq!(process.look("/healthz").await.map(|(status, _)| status), Some(200));
        process.assert_runs();
    }
    redis.up().await;
    front.until_ready().await;
    worker.until_ready().await;
    assert_eq!(front.run(None).await.titles(), truth(&rig.crm));
    front.stop().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_waits_stops_when_it_is_told_to() {
    let Some(redis) = Redis::new() else { return };
    let rig = Rig::new(1, &redis.url(), "amqp://127.0.0.1:1").await;
    for role in ["serve", "worker"] {
        let process = rig.start(role);
        until("it says that it waits", || async {
            process.log().contains("not ready yet")
        })
        .await;
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_need_no_rabbitmq_and_webhooks_lose_nothing_without_it() {
    let Some((redis, broker)) = own_servers().await else {
        return;
    };
    let relay = Relay::to(broker.address(), Mode::Pass).await;
    let queue = broker.url_at(relay.port());
    let mut rig = Rig::new(200, &redis.url(), &queue).await;
    rig.set("integrations.demo.poll = \"1h\"\ncold.hold = \"300ms\"");
    let (front, worker) = rig.up().await;
    let store = rig.store(&redis.url()).await;
    let demo = build(&front, &*store).await;
    let before = front.run(None).await;
    front.stop().await;
    worker.stop().await;

    relay.set(Mode::Refuse).await;
    let (mut front, mut worker) = (rig.start("serve"), rig.start("worker"));
    front.until_ready().await;
    let (status, readiness) = front.readiness().await;
    assert_eq!((status, &readiness["queue"]["ok"]), (200, &json!(false)), "{readiness}");
    until("the worker answers", || async {
        worker.look("/healthz").await.is_some()
    })
    .await;
    assert_eq!(worker.readiness().await.0, 503);
    assert_eq!(
        front.run(None).await.titles(),
        truth(&rig.crm),
        "a known account is served"
    );
    assert!(front.run(Some(&before.checkpoint)).await.contacts.is_empty());

    rig.crm
        .crm
        .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([11, 12])))
        .done();
    rig.webhook(&front, &demo, &["11"]).await.assert_unavailable();
    rig.webhook(&front, &demo, &["12"]).await.assert_unavailable();
    let dirty: Vec<String> = store
        .dirty(&demo, 10)
        .await
        .expect("ids")
        .into_iter()
        .map(|dirty| dirty.id)
        .collect();
    assert_eq!(dirty, ["11", "12"], "invariant 9: the store knows of the work");
    // A new account: taken in, but nobody can be told to build it.
    let other = json!({"account": "other", "token": TOKEN});
    let page = front.post("/demo/contact_sync", json!({ "auth": other })).await.page();
    assert_eq!(page["contacts"], json!([]));
    assert!(page["next_offset"].is_string(), "invariant 6: {page}");

    relay.set(Mode::Pass).await;
    // Nobody sends the events again: the sweep rings.
    until("both edits arrive", || async {
        let changes = front.run(Some(&before.checkpoint)).await.titles();
        changes.len() == 2 && changes.iter().all(|(id, title)| truth(&rig.crm).get(id) == Some(title))
    })
    .await;
    until("nothing is left dirty", || async {
        store.dirty(&demo, 10).await.expect("ids").is_empty()
    })
    .await;
    until_built(&*store, "other").await;
    let mut theirs = Vec::new();
    let mut meta = json!({"offset": page["next_offset"]});
    loop {
        let page = front
            .post("/demo/contact_sync", json!({"auth": other, "meta": meta}))
            .await
            .page();
        theirs.extend(page["contacts"].as_array().expect("contacts").clone());
        let Some(next) = page.get("next_offset") else { break };
        meta = json!({"offset": next});
    }
    assert_eq!(theirs.len(), 7, "the run of the cold account goes on with its offset");
    worker.until_ready().await;
    front.assert_runs();
    worker.assert_runs();
    front.stop().await;
    worker.stop().await;
}
