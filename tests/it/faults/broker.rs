//! RabbitMQ dies, falls silent, throws its clients out or loses a queue while work is in hand.

use std::cell::Cell;

use super::relay::{Mode, Relay};
use super::*;

/// One rig for all faults, one after the other: a broker takes seconds to start.
struct Set {
    rig: Rig,
    front: Process,
    worker: Process,
    store: Arc<dyn Store>,
    account: AccountId,
    edited: Cell<u64>,
}

impl Set {
    /// An edit that only a webhook tells of arrives.
    async fn works(&self, after: &str) {
        let edited = self.edited.get() + 1;
        self.edited.set(edited);
        let id = edited.to_string();
        self.rig
            .crm
            .crm
            .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([edited])))
            .done();
        until(&format!("a webhook is taken after {after}"), || async {
            self.rig.webhook(&self.front, &self.account, &[&id]).await.status == 202
        })
        .await;
        let title = truth(&self.rig.crm)[&id].clone();
        until(&format!("an edit arrives after {after}"), || async {
            self.front.run(None).await.titles().get(&id) == Some(&title)
        })
        .await;
    }

    /// An edit whose webhook came while the broker was away arrives, although nobody sends it again.
    async fn loses_nothing(&self, fault: &str, mend: impl Future<Output = ()>) {
        let edited = self.edited.get() + 1;
        self.edited.set(edited);
        let id = edited.to_string();
        self.rig
            .crm
            .crm
            .control(fake_crm::Control::edit("demo", fake_crm::Change::ids([edited])))
            .done();
        self.rig
            .webhook(&self.front, &self.account, &[&id])
            .await
            .assert_unavailable();
        assert_eq!(self.front.readiness().await.0, 200, "reads go on: {fault}");
        let title = truth(&self.rig.crm)[&id].clone();
        assert_ne!(self.front.run(None).await.titles().get(&id), Some(&title), "{fault}");
        mend.await;
        until(&format!("the refused webhook's edit arrives after {fault}"), || async {
            self.front.run(None).await.titles().get(&id) == Some(&title)
        })
        .await;
        self.works(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_lost_in_any_way_costs_time_and_no_work() {
    let Some((redis, mut broker)) = own_servers().await else {
        return;
    };
    let relay = Relay::to(broker.address(), Mode::Pass).await;
    let queue = broker.url_at(relay.port());
    let mut rig = Rig::new(200, &redis.url(), &queue).await;
    rig.set("integrations.demo.poll = \"1h\"");
    let (front, worker) = rig.up().await;
    let store = rig.store(&redis.url()).await;
    let account = build(&front, &*store).await;
    let mut set = Set {
        rig,
        front,
        worker,
        store,
        account,
        edited: Cell::new(0),
    };
    set.works("the start").await;

    broker.control(&["close_all_connections", "by the operator"]).await;
    set.works("a forced close").await;

    for lane in ["refresh", "build", "reconcile"] {
        broker
            .control(&["delete_queue", &format!("{NAMESPACE}.v1.{lane}")])
            .await;
    }
    set.works("the lanes were deleted").await;

    relay.set(Mode::Swallow).await;
    set.loses_nothing("silence", relay.set(Mode::Pass)).await;

    relay.set(Mode::Reset).await;
    set.loses_nothing("resets", relay.set(Mode::Pass)).await;

    broker.kill();
    set.loses_nothing("a kill", broker.restart()).await;

    killed_during_a_build(&set, &mut broker).await;

    set.front.assert_runs();
    set.worker.assert_runs();
    until("nothing is left dirty", || async {
        set.store.dirty(&set.account, 10).await.expect("ids").is_empty()
    })
    .await;
    assert_eq!(
        contacts::dead::summary(&*set.store).await.expect("dead letters").count,
        0
    );
    set.front.stop().await;
    set.worker.stop().await;
}

/// A build of many slices goes on where it was.
async fn killed_during_a_build(set: &Set, broker: &mut Rabbit) {
    let crm = &set.rig.crm.crm;
    crm.knobs("other", |knobs| {
        knobs.slow_ms = 1_000;
        knobs.fault_ops = vec![fake_crm::Op::List, fake_crm::Op::Changes];
    });
    let other = json!({"account": "other", "token": TOKEN});
    let answer = set.front.post("/demo/auth_validation", json!({ "auth": other })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until("the build runs", || async { crm.stats("other").in_flight > 0 }).await;
    broker.kill();
    until("its call ends", || async { crm.stats("other").in_flight == 0 }).await;
    crm.knobs("other", |knobs| knobs.slow_ms = 0);
    broker.restart().await;
    until_built(&*set.store, "other").await;
}
