//! The causes of the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::queue::Depths;
use contacts::token::{Checkpoint, CheckpointText};
use contacts::{AccountId, Lane, Position, Store, Stream};
use fake_crm::{Change, Control, Op, UserFields, Users};
use serde_json::json;

use super::{CRM_CANARY, PATH_CANARY, REDIS_CANARY, Watched};
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::Redis;
use crate::faults::{NAMESPACE, build, until_built};
use crate::harness::*;

/// The causes that both backends share, one after the other.
pub async fn causes<F: Future<Output = Depths>>(
    watched: &Watched,
    store: &Arc<dyn Store>,
    depths: impl Fn() -> F,
) -> AccountId {
    let (crm, front) = (&watched.rig.crm.crm, watched.front());
    watched.driven("snapbridge_store_up", "").await;
    watched.driven("snapbridge_queue_up", "").await;

    let wrong = json!({"auth": {"account": "demo", "token": CRM_CANARY}});
    assert_eq!(front.post("/demo/contact_sync", wrong).await.status, 401);
    for path in [
        format!("/closed/k/{PATH_CANARY}/contact_sync"),
        format!("/{CRM_CANARY}/contact_sync"),
        format!("/demo/{CRM_CANARY}"),
    ] {
        front.post(&path, json!({})).await;
    }
    watched
        .driven("snapbridge_live_checks_total", "result=\"credentials\"")
        .await;
    watched.driven("snapbridge_live_check_seconds", "").await;
    watched
        .driven("snapbridge_errors_total", "code=\"invalid_credentials\"")
        .await;
    watched.driven("snapbridge_requests_total", "status=\"401\"").await;

    let nameless = UserFields {
        first_name: Some(String::new()),
        last_name: Some(String::new()),
        email: None,
    };
    let users = Users {
        set: BTreeMap::from([("u-3".to_owned(), nameless)]),
        deactivate: vec!["u-2".to_owned()],
        ..Users::default()
    };
    crm.control(Control::users("demo", users)).done();

    // The one slot hangs in the CRM; a second account's job waits behind it.
    crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![Op::List];
    });
    assert_eq!(front.sync(json!(null)).await.page()["contacts"], json!([]));
    until("the build hangs", || async { crm.stats("demo").in_flight > 0 }).await;
    let other = json!({"auth": {"account": "other", "token": TOKEN}});
    assert_eq!(front.post("/demo/auth_validation", other).await.status, 200);
    watched.driven("snapbridge_held_total", "").await;
    watched.driven("snapbridge_in_flight", "").await;
    watched.driven("snapbridge_backlog", "lane=\"build\"").await;
    watched.driven("snapbridge_oldest_seconds", "lane=\"build\"").await;
    watched.driven("snapbridge_queue_depth", "lane=\"build\"").await;
    let build = depths()
        .await
        .lanes
        .iter()
        .find(|depth| depth.lane == Lane::Build)
        .map(|depth| depth.ready);
    // Its contacts, and the agents of both accounts.
    assert_eq!(build, Some(3), "the broker's own count");
    let all = 3.0 * watched.processes.len() as f64;
    until("each process shows those jobs", || async {
        watched.value("snapbridge_queue_depth", "lane=\"build\"").await == all
    })
    .await;
    crm.knobs("demo", |knobs| knobs.frozen = false);
    until_built(&**store, "other").await;
    let demo = build_and_run(watched, &**store).await;

    agents(watched).await;
    tokens(watched, &demo).await;
    webhooks(watched, &demo).await;
    of_the_worker(watched).await;
    demo
}

async fn build_and_run(watched: &Watched, store: &dyn Store) -> AccountId {
    let front = watched.front();
    let demo = build(front, store).await;
    assert_eq!(front.run(None).await.titles(), truth(&watched.rig.crm));
    for (name, label) in [
        ("snapbridge_pages_total", "mode="),
        ("snapbridge_page_seconds", ""),
        ("snapbridge_request_seconds", "endpoint=\"contact_sync\""),
        ("snapbridge_delivered_total", ""),
        ("snapbridge_snapshots", ""),
        ("snapbridge_snapshot_age_seconds", ""),
        ("snapbridge_crm_calls_total", "outcome=\"answered\""),
        ("snapbridge_jobs_total", "outcome=\"done\""),
        ("snapbridge_contacts_total", "verdict=\"written\""),
        ("snapbridge_contacts_repaired_total", "reason="),
        ("snapbridge_contacts_dropped_total", "reason="),
        ("snapbridge_sweep_rings_total", ""),
        ("snapbridge_budget_left", "limit=\"calls\""),
        ("snapbridge_accounts", "state=\"ready\""),
        ("snapbridge_freshness_seconds", "integration=\"demo\""),
        ("snapbridge_poll_seconds", "integration=\"demo\""),
    ] {
        watched.driven(name, label).await;
    }
    demo
}

async fn agents(watched: &Watched) {
    let front = watched.front();
    let body = json!({ "auth": auth() });
    until("the agents are read", || async {
        front.post("/demo/agent_sync", body.clone()).await.status == 200
    })
    .await;
    for (name, label) in [
        ("snapbridge_agents_delivered_total", ""),
        ("snapbridge_agents_total", "verdict=\"written\""),
        ("snapbridge_agents_dropped_total", "reason=\"filtered\""),
        ("snapbridge_agents_repaired_total", "reason=\"name_filled\""),
    ] {
        watched.driven(name, label).await;
    }
}

async fn tokens(watched: &Watched, demo: &AccountId) {
    let front = watched.front();
    assert_eq!(front.sync(json!({"offset": "v1.forged"})).await.status, 400);
    watched
        .driven("snapbridge_token_failures_total", "token=\"offset\"")
        .await;
    front
        .sync(json!({"synchronization_checkpoint": "rubbish"}))
        .await
        .page();
    watched
        .driven("snapbridge_token_failures_total", "token=\"checkpoint\"")
        .await;
    // A checkpoint of this very snapshot, from a future that a restored backup never saw.
    let run = front.run(None).await;
    let keys = &watched.rig.keys;
    let Ok(CheckpointText::Ours(checkpoint)) = Checkpoint::open(&run.checkpoint, keys, demo, Stream::Contacts) else {
        panic!("not a checkpoint: {}", run.checkpoint)
    };
    let ahead = Checkpoint {
        position: Position(checkpoint.position.0 + 1),
        ..checkpoint
    };
    front.run(Some(&ahead.seal(keys, demo, Stream::Contacts))).await;
    watched.driven("snapbridge_rollbacks_total", "").await;
}

async fn webhooks(watched: &Watched, demo: &AccountId) {
    let (rig, front) = (&watched.rig, watched.front());
    assert_eq!(
        front
            .post(&format!("/demo/webhooks/{}", rig.keys.hook_id(demo)), json!([]))
            .await
            .status,
        401
    );
    watched
        .driven("snapbridge_webhook_refused_total", "why=\"no_proof\"")
        .await;
    assert_eq!(rig.webhook(front, demo, &["1", "2", "3", "4"]).await.status, 202);
    watched
        .driven("snapbridge_webhook_events_total", "result=\"accepted\"")
        .await;
    watched.driven("snapbridge_dirty_overflow_total", "").await;
}

/// Late rows, failures, a brake, a refused key.
async fn of_the_worker(watched: &Watched) {
    let (crm, front) = (&watched.rig.crm.crm, watched.front());
    crm.knobs("demo", |knobs| knobs.visibility_lag_ms = 2_500);
    // A full pass may meet the row first; then the next edit is the late one.
    until("polls meet late rows, and changes that no webhook told of", || async {
        crm.control(Control::edit("demo", Change::ids([9]))).done();
        until("the edit arrives", || async {
            front.run(None).await.titles().get("9") == truth(&watched.rig.crm).get("9")
        })
        .await;
        watched.value("snapbridge_lateness_seconds", "").await > 0.0
            && watched.value("snapbridge_late_rows_total", "").await > 0.0
            && watched.value("snapbridge_unannounced_total", "").await > 0.0
    })
    .await;
    for name in [
        "snapbridge_lateness_seconds",
        "snapbridge_late_rows_total",
        "snapbridge_unannounced_total",
    ] {
        watched.driven(name, "").await;
    }
    crm.knobs("demo", |knobs| knobs.visibility_lag_ms = 0);

    crm.knobs("demo", |knobs| {
        knobs.burst_429 = 1;
        knobs.retry_after = Some("8".to_owned());
    });
    watched
        .driven("snapbridge_quota_wait_seconds", "integration=\"demo\"")
        .await;
    crm.knobs("demo", |knobs| knobs.retry_after = None);

    crm.knobs("demo", |knobs| {
        knobs.fail_5xx = u32::MAX;
        knobs.fault_ops = vec![Op::Changes, Op::List];
    });
    watched.driven("snapbridge_queue_waiting", "").await;
    watched.driven("snapbridge_dead_letters_total", "").await;
    watched.driven("snapbridge_dead_letters", "").await;
    crm.knobs("demo", |knobs| knobs.fail_5xx = 0);

    crm.knobs("demo", |knobs| knobs.no_tombstones = true);
    crm.control(Control::delete("demo", Change::ids(1..=60))).done();
    watched.driven("snapbridge_deletion_braked_total", "").await;
    until("a second pass agrees", || async {
        front.run(None).await.titles() == truth(&watched.rig.crm)
    })
    .await;

    crm.control(Control::tokens("demo", &["another"])).done();
    watched.driven("snapbridge_accounts_parked", "").await;
    crm.control(Control::tokens("demo", &[TOKEN])).done();
    until("the account goes on", || async {
        front
            .post("/demo/auth_validation", json!({ "auth": auth() }))
            .await
            .status
            == 200
    })
    .await;
}

pub async fn of_the_broker(watched: &Watched, broker: &mut Rabbit) {
    let (rig, front, worker) = (&watched.rig, watched.front(), &watched.processes[1]);
    watched
        .driven("snapbridge_queue_publishes_total", "outcome=\"confirmed\"")
        .await;

    // A delivery in hand when its connection is closed.
    let other = json!({"auth": {"account": "other", "token": TOKEN}});
    rig.crm.crm.knobs("other", |knobs| knobs.frozen = true);
    until("a slice of the other account hangs", || async {
        rig.crm.crm.stats("other").in_flight > 0
    })
    .await;
    broker.control(&["close_all_connections", "by the operator"]).await;
    watched.driven("snapbridge_queue_disconnects_total", "").await;
    rig.crm.crm.knobs("other", |knobs| knobs.frozen = false);
    watched.driven("snapbridge_queue_unsettled_total", "").await;

    broker
        .control(&["delete_queue", &format!("{NAMESPACE}.v1.reconcile")])
        .await;
    watched.driven("snapbridge_queue_redeclared_total", "").await;

    broker.control(&["set_vm_memory_high_watermark", "0.00001"]).await;
    watched.driven("snapbridge_queue_blocked", "").await;
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    until("the alarm is over", || async {
        watched.value("snapbridge_queue_blocked", "").await == 0.0
    })
    .await;

    broker.kill();
    until("the queue is seen to be down", || async {
        watched.value("snapbridge_queue_up", "").await == 0.0
    })
    .await;
    let (status, readiness) = front.readiness().await;
    assert_eq!(
        (status, &readiness["store"]["ok"], &readiness["queue"]["ok"]),
        (200, &json!(true), &json!(false))
    );
    assert_eq!(worker.readiness().await.0, 503);
    assert_eq!(front.post("/demo/contact_sync", other).await.status, 200);
    broker.restart().await;
    until("the queue is back", || async {
        watched.value("snapbridge_queue_up", "").await == 2.0
    })
    .await;
    until("the worker is ready", || async { worker.readiness().await.0 == 200 }).await;
}

pub async fn of_redis(watched: &Watched, redis: &mut Redis) {
    let pause = format!("redis://:{REDIS_CANARY}@127.0.0.1:{}", redis.port());
    let client = redis::Client::open(pause).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
    evict(&mut connection, "allkeys-lru").await;
    watched.driven("snapbridge_store_warnings", "").await;
    evict(&mut connection, "noeviction").await;
    until("the store is set up well again", || async {
        watched.value("snapbridge_store_warnings", "").await == 0.0
    })
    .await;
    let paused = redis::cmd("CLIENT")
        .arg(&["PAUSE", "6000", "ALL"])
        .query_async::<()>(&mut connection)
        .await;
    paused.expect("paused");
    for _ in 0..8 {
        watched.front().sync(json!(null)).await;
    }
    watched.driven("snapbridge_redis_timeouts_total", "link=").await;
    watched
        .driven("snapbridge_redis_connections_replaced_total", "link=")
        .await;
    redis.kill();
    until("the store is seen to be down", || async {
        watched.value("snapbridge_store_up", "").await == 0.0
    })
    .await;
    for process in &watched.processes {
        let (status, readiness) = process.readiness().await;
        assert_eq!((status, &readiness["store"]["ok"]), (503, &json!(false)), "{readiness}");
        assert!(!readiness.to_string().contains("canary"), "{readiness}");
    }
    redis.up().await;
    until("the store is back", || async {
        watched.value("snapbridge_store_up", "").await == 2.0
    })
    .await;
}

async fn evict(connection: &mut redis::aio::MultiplexedConnection, policy: &str) {
    let set = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", policy])
        .query_async::<()>(connection)
        .await;
    set.expect("set");
}
