//! A worker killed while it reads the agents: the next one goes on where the last commit left it.

use std::collections::BTreeMap;

use fake_crm::{Control, Op, Users};

use super::*;

/// Three pages of the demo connector.
const USERS: usize = 1_200;
const PAGES: u64 = 3;

async fn killed_at_each_page(backend: Backend) {
    let crm = Crm::start(10).await;
    let add = USERS - crm.crm.users("demo").len();
    let users = Users {
        add,
        ..Users::default()
    };
    crm.crm.control(Control::users("demo", users)).done();
    crm.crm.knobs("demo", |knobs| {
        knobs.slow_ms = 400;
        knobs.fault_ops = vec![Op::Users];
    });
    let site = Site::new(backend, &crm, QUICK, &[]);
    let (mut front, mut worker) = match backend {
        Backend::Embedded => (site.start("up").await, None),
        Backend::Distributed => (site.start("serve").await, Some(site.start("worker").await)),
    };
    assert_eq!(Talkdesk::of(&front).validate().await.expect("an answer"), 200);
    let listed = || crm.crm.stats("demo").calls_of("users");
    // Twice in the middle of a page. Each life reads at least the page that the one before was killed in.
    for kill in 1..=2 {
        let before = listed();
        until("a page is being read", || async { listed() > before.max(kill) }).await;
        match &mut worker {
            Some(worker) => {
                worker.kill();
                *worker = site.start("worker").await;
            }
            None => {
                front.kill();
                front = site.start("up").await;
            }
        }
    }
    until("it heals", || site.is_settled()).await;
    let pages = listed();
    assert!(
        (PAGES..=PAGES + 2).contains(&pages),
        "{pages} pages read; a kill costs one at most"
    );

    let talkdesk = Talkdesk::of(&front);
    let (mut agents, mut meta) = (BTreeMap::new(), json!(null));
    loop {
        let (status, page) = talkdesk
            .post("agent_sync", json!({"auth": auth(), "meta": meta}))
            .await
            .expect("a page");
        assert_eq!(status, 200, "{page}");
        for agent in page["agents"].as_array().expect("agents") {
            let id = agent["id"].as_str().expect("an id").to_owned();
            assert!(
                agents.insert(id, agent["email"].clone()).is_none(),
                "twice without an edit: {agent}"
            );
        }
        let Some(next) = page.get("next_offset") else { break };
        meta = json!({ "offset": next });
    }
    let wanted: BTreeMap<String, Value> = crm
        .crm
        .users("demo")
        .into_iter()
        .map(|user| (user.id, json!(user.email)))
        .collect();
    assert_eq!(agents, wanted);
    site.assert_nothing_given_up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() {
    if services() {
        killed_at_each_page(Backend::Distributed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    killed_at_each_page(Backend::Embedded).await;
}
