//! Redis dies and comes back, or comes back empty.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_in_the_middle_of_a_run_costs_time_and_nobody() {
    let Some((mut redis, broker)) = own_servers().await else {
        return;
    };
    let mut rig = Rig::new(600, &redis.url(), &broker.url()).await;
    // No poll until the edit below: the CRM's calls are counted.
    rig.set("integrations.demo.poll = \"20s\"");
    let (mut front, mut worker) = rig.up().await;
    let store = rig.store(&redis.url()).await;
    let account = build_across_a_kill(&rig, &front, &*store, &mut redis).await;
    let first = front.sync(json!(null)).await.page();
    let second = front.sync(json!({"offset": first["next_offset"]})).await.page();

    redis.kill();
    let calls = rig.crm.calls();
    let next = json!({"offset": second["next_offset"], "context": second["context"]});
    for meta in [
        next.clone(),
        json!(null),
        json!({"synchronization_checkpoint": first["synchronization_checkpoint"]}),
    ] {
        front.sync(meta).await.assert_unavailable();
    }
    front
        .post("/demo/auth_validation", json!({ "auth": auth() }))
        .await
        .assert_unavailable();
    let stranger = json!({"account": "demo", "token": "guessed"});
    front
        .post("/demo/contact_sync", json!({ "auth": stranger }))
        .await
        .assert_unavailable();
    rig.webhook(&front, &account, &["3"]).await.assert_unavailable();
    for process in [&front, &worker] {
        let (status, readiness) = process.readiness().await;
        assert_eq!((status, &readiness["store"]["ok"]), (503, &json!(false)), "{readiness}");
        assert_eq!(
            process.look("/healthz").await.map(|(status, _)| status),
            Some(200),
            "restarting would mend nothing"
        );
    }
    rig.crm
        .crm
        .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([3, 580])))
        .done();
    assert_eq!(rig.crm.calls(), calls, "invariant 10: no budget, no calls");

    redis.up().await;
    until("the old offset works again", || async {
        front.sync(next.clone()).await.status == 200
    })
    .await;
    let rest = front.pages(next).await;
    // The sender was told to come again; it does.
    until("the webhook is taken", || async {
        rig.webhook(&front, &account, &["3", "580"]).await.status == 202
    })
    .await;
    until("everybody has been delivered, in the newest version", || async {
        let following = front.run(Some(&rest.checkpoint)).await;
        assert!(following.contacts.len() <= 2, "unchanged contacts keep their position");
        delivered(&[&first, &second], &[&rest, &following]) == truth(&rig.crm)
    })
    .await;
    front.assert_runs();
    worker.assert_runs();
    front.stop().await;
    worker.stop().await;
}

/// Redis dies while the worker waits for a page of the first build.
async fn build_across_a_kill(rig: &Rig, front: &Process, store: &dyn Store, redis: &mut Redis) -> AccountId {
    let crm = &rig.crm.crm;
    crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![fake_crm::Op::List];
    });
    let answer = front.post("/demo/auth_validation", json!({ "auth": auth() })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until("the build waits for a page", || async {
        crm.stats("demo").in_flight > 0
    })
    .await;
    redis.kill();
    crm.knobs("demo", |knobs| knobs.frozen = false);
    until("the page is answered", || async { crm.stats("demo").in_flight == 0 }).await;
    redis.up().await;
    until("the store is back", || async { store.ping().await.is_ok() }).await;
    let account = until_built(store, "demo").await;
    assert_eq!(front.run(None).await.titles(), truth(&rig.crm));
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_6_a_redis_that_forgot_everything_is_never_an_empty_crm() {
    let Some((redis, broker)) = own_servers().await else {
        return;
    };
    let mut rig = Rig::new(300, &redis.url(), &broker.url()).await;
    rig.set("cold.hold = \"300ms\"");
    let (mut front, mut worker) = rig.up().await;
    let store = rig.store(&redis.url()).await;
    build(&front, &*store).await;
    let whole = front.run(None).await;
    assert_eq!(whole.titles(), truth(&rig.crm));
    let first = front.sync(json!(null)).await.page();

    // The rebuild is slow, so that pages are asked for before there is anything.
    rig.crm.crm.knobs("demo", |knobs| {
        knobs.slow_ms = 1_500;
        knobs.fault_ops = vec![fake_crm::Op::List];
    });
    redis.command(&["FLUSHALL"]).await.expect("forgotten");
    let mut meta = json!({"offset": first["next_offset"]});
    let mut again = Run::default();
    let mut empty = Vec::new();
    loop {
        let page = front.sync(meta).await.page();
        let contacts = page["contacts"].as_array().expect("contacts").clone();
        let next = page.get("next_offset").cloned();
        if contacts.is_empty() {
            assert!(next.is_some(), "an empty page that ends the run: {page}");
            empty.push(
                page["synchronization_checkpoint"]
                    .as_str()
                    .expect("a checkpoint")
                    .to_owned(),
            );
        }
        again.contacts.extend(contacts);
        let Some(next) = next else { break };
        meta = json!({"offset": next});
    }
    assert!(!empty.is_empty(), "the rebuild was never met unfinished");
    let truth = || truth(&rig.crm);
    assert_eq!(again.titles(), truth(), "everything is delivered again");
    rig.crm.crm.knobs("demo", |knobs| knobs.slow_ms = 0);
    until_built(&*store, "demo").await;
    // What an empty page's checkpoint covers is nothing.
    for checkpoint in empty {
        assert_eq!(front.run(Some(&checkpoint)).await.titles(), truth());
    }

    // A finished run's checkpoint after another loss: what changed since it arrives, and no claim is made before.
    redis.command(&["FLUSHALL"]).await.expect("forgotten");
    rig.crm
        .crm
        .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([7, 250])))
        .done();
    let since = front.run(Some(&whole.checkpoint)).await.titles();
    for id in ["7", "250"] {
        assert_eq!(since.get(id), truth().get(id), "contact {id}");
    }
    until_built(&*store, "demo").await;
    assert_eq!(front.run(None).await.titles(), truth());
    front.assert_runs();
    worker.assert_runs();

    // A process that starts now is not fooled either.
    front.stop().await;
    worker.stop().await;
    let (code, text) = rig.command(&["worker"]).await;
    assert!(
        code == Some(1) && text.contains("run `snapbridge migrate` first"),
        "{code:?} {text}"
    );
}
