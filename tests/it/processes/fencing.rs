//! A worker that stands still for longer than its lease and then goes on as if nothing had happened (invariant 8).

use fake_crm::{Change, Control, Op};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_8_a_frozen_worker_that_wakes_up_writes_nothing() {
    if !services() {
        return;
    }
    let crm = Crm::start(1_400).await;
    let site = Site::new(Backend::Distributed, &crm, QUICK, &[]);
    let front = site.start("serve").await;
    let talkdesk = Talkdesk::of(&front);
    let sleeper = site.start("worker").await;
    let frozen = |on: bool| {
        crm.crm.knobs("demo", |knobs| {
            knobs.frozen = on;
            knobs.fault_ops = vec![Op::List];
        });
    };
    // Its page is worked out, and on the way when the worker stands still.
    frozen(true);
    assert_eq!(talkdesk.validate().await.expect("an answer"), 200);
    until("a page is in hand", || async { crm.crm.stats("demo").in_flight > 0 }).await;
    sleeper.freeze();
    frozen(false);
    // The page in its hands is old from now on, and one of its contacts is gone.
    crm.crm.control(Control::edit("demo", Change::ids(1..=50))).done();
    crm.crm.control(Control::delete("demo", Change::ids([60]))).done();

    let other = site.start("worker").await;
    until("the other worker builds", || site.is_settled()).await;
    assert_eq!(talkdesk.run(None).await.titles(), truth(&crm));
    let before = talkdesk.run(None).await;

    sleeper.go_on();
    until("the sleeper finds its lease lost", || async {
        sleeper
            .metric(&talkdesk.http, "snapbridge_jobs_total", "outcome=\"lost\"")
            .await
            >= 1.0
    })
    .await;
    let written = sleeper
        .metric(&talkdesk.http, "snapbridge_contacts_total", "verdict=\"written\"")
        .await;
    assert_eq!(written, 0.0, "{}", sleeper.log());
    assert_eq!(talkdesk.run(None).await.titles(), truth(&crm));
    assert_eq!(
        talkdesk.run(Some(&before.checkpoint)).await.ids(),
        BTreeSet::new(),
        "no contact moved"
    );

    // It is a worker like any other again.
    drop(other);
    crm.crm.control(Control::edit("demo", Change::ids([100]))).done();
    until("the sleeper polls", || async {
        talkdesk.run(None).await.titles() == truth(&crm)
    })
    .await;
    site.assert_nothing_given_up();
}
