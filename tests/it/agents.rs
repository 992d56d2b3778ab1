//! agent_sync: the CRM's users as Talkdesk's agents, every run the whole list.

use std::collections::{BTreeMap, BTreeSet};

use contacts::Kind;
use contacts::work::Task;
use fake_crm::{Control, Op, UserFields, Users};
use serde_json::{Value, json};

use crate::harness::*;

/// Small pages, and agents that are read all the time.
const SMALL: &str = "page.agents = 4\nrefresh.agents = \"300ms\"\nrefresh.sweep = \"100ms\"\nretry.first = \"100ms\"";
/// Small pages, and agents that are read once.
const ONCE: &str = "page.agents = 4\nrefresh.sweep = \"100ms\"\nretry.first = \"100ms\"\nretry.attempts = 2";

async fn page(bridge: &Bridge, meta: Value) -> (u16, Value) {
    let body = json!({"auth": auth(), "meta": meta});
    bridge.post("/demo/agent_sync", body).await
}

/// The agents of a page, id → (name, email); nothing but the three keys of the contract, all of them texts.
fn agents(page: &Value) -> Vec<(String, (String, String))> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let agents = page["agents"].as_array().expect("agents").iter().map(|agent| {
        assert_eq!(agent.as_object().expect("an object").len(), 3, "{agent}");
        (text(&agent["id"]), (text(&agent["name"]), text(&agent["email"])))
    });
    agents.collect()
}

type Table = BTreeMap<String, (String, String)>;

/// A whole run from `offset`: the latest of each agent, and the offsets on the way.
async fn run_from(bridge: &Bridge, offset: Value) -> (Table, Vec<u64>) {
    let (mut table, mut offsets) = (Table::new(), Vec::new());
    let mut meta = json!({ "offset": offset });
    loop {
        let (status, page) = page(bridge, meta).await;
        assert_eq!(status, 200, "{page}");
        table.extend(agents(&page));
        let Some(next) = page.get("next_offset") else {
            return (table, offsets);
        };
        let next = next.as_u64().expect("an integer");
        assert!(next < 1 << 53, "exact in every JSON reader");
        assert!(offsets.last().is_none_or(|last| *last < next), "a run goes on");
        offsets.push(next);
        meta = json!({ "offset": next });
    }
}

async fn run(bridge: &Bridge) -> Table {
    run_from(bridge, json!(null)).await.0
}

/// What the CRM has: active users with an address, each address once, the oldest first.
fn wanted(crm: &Crm) -> Table {
    let mut taken = BTreeSet::new();
    let mut table = Table::new();
    for user in crm.crm.users("demo") {
        let email = user.email.unwrap_or_default().trim().to_owned();
        if !user.active || email.is_empty() || !taken.insert(email.to_lowercase()) {
            continue;
        }
        let name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
        let local = email.split('@').next().expect("a local part");
        let name = if name.is_empty() { local.to_owned() } else { name };
        table.insert(user.id, (name, email));
    }
    table
}

fn change(crm: &Crm, users: Users) {
    crm.crm.control(Control::users("demo", users)).done();
}

fn ids<const N: usize>(ids: [&str; N]) -> Vec<String> {
    ids.map(str::to_owned).to_vec()
}

fn email(text: &str) -> UserFields {
    UserFields {
        email: Some(text.to_owned()),
        ..UserFields::default()
    }
}

async fn task(bridge: &Bridge) -> Task {
    let account = bridge.account().await;
    let work = contacts::work::load(&*bridge.store, &account).await.expect("work");
    work.tasks.get(&Kind::Agents).cloned().unwrap_or_default()
}

on_both!(
    a_first_sync_delivers_everybody_who_can_be_an_agent,
    |backend| async move {
        let crm = Crm::start(5).await;
        let first = crm.crm.users("demo")[0].email.clone().expect("an address");
        let no_name = UserFields {
            first_name: Some(" ".into()),
            last_name: Some(String::new()),
            email: Some(" no.name@staff.example ".into()),
        };
        change(
            &crm,
            Users {
                deactivate: ids(["u-2"]),
                delete: ids(["u-12"]),
                set: BTreeMap::from([
                    ("u-3".to_owned(), email("")),
                    ("u-4".to_owned(), email("no address at all")),
                    ("u-5".to_owned(), no_name),
                    ("u-11".to_owned(), email(&first.to_uppercase())),
                ]),
                ..Users::default()
            },
        );
        let bridge = Bridge::start(backend, &crm, ONCE).await;
        // Nobody has activated anything: the first call of all is this one, and it is held until the list is there.
        let (status, first) = page(&bridge, json!(null)).await;
        assert_eq!(status, 200, "{first}");
        let (table, offsets) = run_from(&bridge, json!(null)).await;
        let mut expected = wanted(&crm);
        expected.remove("u-4");
        assert_eq!(table, expected);
        assert_eq!(
            table.len(),
            7,
            "of twelve, two are gone, two have no address, and one has another's"
        );
        assert_eq!(table["u-5"].0, "no.name");
        assert_eq!(offsets.len(), 1, "two pages");

        // Every form of `meta` that may come in (Talkdesk agent sync, request reference).
        for meta in [
            json!({}),
            json!({"offset": null}),
            json!({"offset": ""}),
            json!({"more": [1]}),
        ] {
            assert_eq!(page(&bridge, meta.clone()).await, (200, first.clone()), "{meta}");
        }
        let (status, same) = bridge.post("/demo/agent_sync", json!({ "auth": auth() })).await;
        assert_eq!((status, &same), (200, &first), "no `meta` at all");
        let second = page(&bridge, json!({"offset": offsets[0]})).await;
        assert_eq!(second.0, 200);
        assert!(
            second.1.get("next_offset").is_none(),
            "the key is left out on the last page"
        );
        assert_eq!(page(&bridge, json!({"offset": offsets[0].to_string()})).await, second);
        assert_eq!(crm.crm.stats("demo").calls_of("users"), 1, "the CRM was asked once");
        bridge.stop().await;
    }
);

on_both!(what_becomes_of_users_arrives, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, SMALL).await;
    bridge.build().await;
    let arrives = |what: &'static str| {
        let (bridge, crm) = (&bridge, &crm);
        async move { until(what, || async { run(bridge).await == wanted(crm) }).await }
    };
    arrives("the first list").await;
    change(
        &crm,
        Users {
            add: 30,
            edit: ids(["u-1", "u-7"]),
            ..Users::default()
        },
    );
    arrives("new and edited users").await;
    assert_eq!(run(&bridge).await.len(), 42);
    change(
        &crm,
        Users {
            deactivate: ids(["u-1"]),
            delete: ids(["u-7"]),
            ..Users::default()
        },
    );
    arrives("who is gone leaves").await;
    // An address moves from one user to another, who had it all along.
    let of_two = wanted(&crm)["u-2"].1.clone();
    let set = BTreeMap::from([("u-9".to_owned(), email(&of_two.to_uppercase()))]);
    change(
        &crm,
        Users {
            set,
            ..Users::default()
        },
    );
    arrives("an address once").await;
    assert!(!run(&bridge).await.contains_key("u-9"));
    change(
        &crm,
        Users {
            deactivate: ids(["u-2"]),
            activate: ids(["u-1"]),
            ..Users::default()
        },
    );
    arrives("the other one takes its place, and a former one is back").await;
    assert!(run(&bridge).await.contains_key("u-9"));
    bridge.stop().await;
});

on_both!(
    a_list_of_some_age_is_read_again_right_behind_the_sync_that_asks_for_it,
    |backend| async move {
        let crm = Crm::start(5).await;
        // Read once a day; nobody but a sync has it read sooner.
        let more = format!("{ONCE}\nrefresh.agents_on_request = \"1ms\"");
        let bridge = Bridge::start(backend, &crm, &more).await;
        bridge.build().await;
        change(
            &crm,
            Users {
                add: 1,
                ..Users::default()
            },
        );
        until("a next run has the new one", || async {
            run(&bridge).await == wanted(&crm)
        })
        .await;
        assert_eq!(run(&bridge).await.len(), 13);
        bridge.stop().await;
    }
);

on_both!(
    invariant_3_who_moves_during_a_run_comes_twice_and_nobody_is_skipped,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        bridge.build().await;
        until("the first list", || async { run(&bridge).await == wanted(&crm) }).await;
        for round in 0..3 {
            let (status, first) = page(&bridge, json!(null)).await;
            assert_eq!(status, 200);
            let delivered: Vec<String> = agents(&first).into_iter().map(|(id, _)| id).collect();
            let mut table: Table = agents(&first).into_iter().collect();
            // One who was delivered and one who was not change, and one who was is gone.
            let all = wanted(&crm);
            let waiting = all
                .keys()
                .find(|id| !delivered.contains(id))
                .expect("another one")
                .clone();
            change(
                &crm,
                Users {
                    edit: vec![delivered[0].clone(), waiting],
                    add: 1,
                    ..Users::default()
                },
            );
            until("the change arrives", || async { run(&bridge).await == wanted(&crm) }).await;
            let (rest, _) = run_from(&bridge, first["next_offset"].clone()).await;
            assert!(
                rest.contains_key(&delivered[0]),
                "round {round}: it moved behind the reader"
            );
            table.extend(rest);
            assert_eq!(table, wanted(&crm), "round {round}");
        }
        bridge.stop().await;
    }
);

on_both!(malformed_agent_requests_are_told_what_is_wrong, |backend| async move {
    let crm = Crm::start(5).await;
    let bare = include_str!("../../connectors/demo/connector.toml");
    let (head, rest) = bare.split_once("[agents]").expect("agents");
    let (_, tail) = rest.split_once("[[interactions]]").expect("interactions");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bare.toml");
    std::fs::write(&file, format!("{head}[[interactions]]{tail}")).expect("a file");
    let more = format!(
        "{ONCE}\nintegrations.bare.connector = \"{file}\"\nintegrations.bare.allow_hosts = [\"{url}\"]\n\
         integrations.bare.connection.site = \"{url}\"\nintegrations.closed.connector = \"demo\"\n\
         integrations.closed.allow_hosts = [\"{url}\"]\nintegrations.closed.connection.site = \"{url}\"\n\
         integrations.closed.path_secret = \"0123456789abcdefghij\"",
        file = file.display(),
        url = crm.url
    );
    let bridge = Bridge::start(backend, &crm, &more).await;
    for (offset, code) in [
        (json!("x"), "malformed_offset"),
        (json!(-1), "malformed_offset"),
        (json!(1.5), "malformed_offset"),
        (json!([1]), "malformed_offset"),
        (json!({}), "malformed_offset"),
    ] {
        let (status, error) = page(&bridge, json!({ "offset": offset })).await;
        assert_eq!((status, error["code"].as_str()), (400, Some(code)), "{offset}");
    }
    let (status, error) = bridge.post("/demo/agent_sync", json!([])).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("malformed_json")));
    assert_eq!(crm.calls(), 0, "none of this reaches the CRM");
    let wrong = json!({"auth": {"account": "demo", "token": "wrong"}});
    assert_eq!(bridge.post("/demo/agent_sync", wrong).await.0, 401);

    let body = json!({ "auth": auth() });
    let (status, error) = bridge.post("/bare/agent_sync", body.clone()).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_configured")));
    assert_eq!(bridge.post("/nobody/agent_sync", body.clone()).await.0, 404);
    assert_eq!(bridge.post("/closed/agent_sync", body.clone()).await.0, 403);
    let (status, open) = bridge.post("/closed/k/0123456789abcdefghij/agent_sync", body).await;
    assert_eq!(status, 200, "{open}");

    bridge.build().await;
    let beyond = json!({"offset": (1_u64 << 53) - 1});
    let (status, error) = page(&bridge, beyond).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("bad_offset")));
    let wrong = bridge.http.get(format!("{}/demo/agent_sync", bridge.url)).send().await;
    assert_eq!(wrong.expect("an answer").status(), 405);
    // An integration without agents makes no work for them.
    assert_eq!(
        bridge.post("/bare/contact_sync", json!({ "auth": auth() })).await.0,
        200
    );
    bridge.stop().await;
});

on_both!(
    invariant_6_a_list_that_was_never_read_is_an_error_and_never_empty,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, &format!("{ONCE}\ncold.hold = \"300ms\"")).await;
        crm.crm.knobs("demo", |knobs| {
            knobs.frozen = true;
            knobs.fault_ops = vec![Op::Users];
        });
        let response = bridge
            .http
            .post(format!("{}/demo/agent_sync", bridge.url))
            .json(&json!({ "auth": auth() }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(error["code"], "building");
        // The agents hang; the contacts have a lease of their own.
        until("the contacts are built", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        until("the list is there", || async {
            page(&bridge, json!(null)).await.0 == 200
        })
        .await;
        assert_eq!(run(&bridge).await, wanted(&crm));
        bridge.stop().await;
    }
);

on_both!(
    a_crm_that_is_down_is_told_when_cold_and_not_noticed_when_warm,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        let down = |down: bool| {
            crm.crm.knobs("demo", |knobs| {
                knobs.fail_5xx = if down { u32::MAX } else { 0 };
                knobs.fault_ops = vec![Op::Users];
            });
        };
        down(true);
        let (status, error) = page(&bridge, json!(null)).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (502, Some("crm_unavailable")),
            "{error}"
        );
        assert_eq!(
            bridge.sync(json!(null)).await.0,
            200,
            "contacts are none the worse for it"
        );
        down(false);
        until("the list is there", || async {
            page(&bridge, json!(null)).await.0 == 200
        })
        .await;
        let before = run(&bridge).await;
        assert_eq!(before, wanted(&crm));
        down(true);
        change(
            &crm,
            Users {
                deactivate: ids(["u-3"]),
                ..Users::default()
            },
        );
        until("a reading fails", || async { task(&bridge).await.last_error.is_some() }).await;
        assert_eq!(run(&bridge).await, before, "what was read last stays");
        let depths = None;
        let status =
            snapbridge::status::read(&*bridge.store, depths, contacts::Micros::from_secs(4_000_000_000), 10).await;
        let status = status.expect("a status");
        assert!(
            status.accounts[0].sentence.contains("agents fail: "),
            "{}",
            status.accounts[0].sentence
        );
        assert_eq!(status.accounts[0].agents, Some(12));
        down(false);
        until("the change arrives", || async { run(&bridge).await == wanted(&crm) }).await;
        bridge.stop().await;
    }
);

on_both!(
    credentials_that_may_not_list_users_stop_nothing_else,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, &format!("{ONCE}\nrefresh.poll = \"200ms\"")).await;
        crm.crm.knobs("demo", |knobs| {
            knobs.fail_5xx = u32::MAX;
            knobs.fail_status = 403;
            knobs.fault_ops = vec![Op::Users];
        });
        assert_eq!(bridge.validate(auth()).await.0, 200);
        let (status, error) = page(&bridge, json!(null)).await;
        assert_eq!((status, error["code"].as_str()), (502, Some("crm_refused")), "{error}");
        until("it is given up", || async {
            !contacts::dead::list(&*bridge.store, 10)
                .await
                .expect("dead letters")
                .is_empty()
        })
        .await;
        let letters = contacts::dead::list(&*bridge.store, 10).await.expect("dead letters");
        let kinds: Vec<_> = letters.iter().map(|letter| letter.kind).collect();
        assert_eq!(kinds, [Some(Kind::Agents)], "once, not over and over: {letters:?}");
        crm.crm
            .control(Control::edit("demo", fake_crm::Change::ids([1])))
            .done();
        until("edits of contacts go on arriving", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        bridge.stop().await;
    }
);

on_both!(
    invariant_11_refused_credentials_park_the_account_and_new_ones_resume_it,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, SMALL).await;
        let account = bridge.build().await;
        crm.crm.control(Control::tokens("demo", &["second-token"])).done();
        let parked = || async {
            let work = contacts::work::load(&*bridge.store, &account).await.expect("work");
            work.park.is_some()
        };
        until("the reading of the agents meets the 401", parked).await;
        let (status, error) = page(&bridge, json!(null)).await;
        assert_eq!((status, error["code"].as_str()), (401, Some("invalid_credentials")));
        let new = json!({"auth": {"account": "demo", "token": "second-token"}});
        let (status, first) = bridge.post("/demo/agent_sync", new.clone()).await;
        assert_eq!(status, 200, "{first}");
        let known = agents(&first);
        change(
            &crm,
            Users {
                edit: ids(["u-1"]),
                ..Users::default()
            },
        );
        until("the work goes on", || async {
            let (status, page) = bridge.post("/demo/agent_sync", new.clone()).await;
            assert_eq!(status, 200, "{page}");
            agents(&page) != known
        })
        .await;
        assert_eq!(
            page(&bridge, json!(null)).await.0,
            401,
            "the old token is still refused"
        );
        bridge.stop().await;
    }
);

on_both!(an_account_from_before_it_had_agents_gets_them, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, &format!("{ONCE}\nrefresh.poll = \"300ms\"")).await;
    let account = bridge.build().await;
    // As an older version left it: no task, no list.
    let times = contacts::work::WorkTimes::default();
    contacts::work::update(&*bridge.store, &account, &times, |work| {
        work.tasks.remove(&Kind::Agents)
    })
    .await
    .expect("work");
    let stream = contacts::Stream::Agents;
    bridge.store.drop_snapshot(&account, stream).await.expect("dropped");
    until("a poll sees to it", || async {
        task(&bridge).await.last_done.is_some()
    })
    .await;
    assert_eq!(run(&bridge).await, wanted(&crm));
    bridge.stop().await;
});
