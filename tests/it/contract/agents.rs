//! agent_sync (Talkdesk: implementing an agent synchronization).

use fake_crm::{UserFields, Users};

use super::*;

rows!(
    agent_sync,
    "refresh.agents = \"300ms\"\nrefresh.sweep = \"100ms\"",
    prepared,
    [
        the_first_offset_is_null_or_missing,
        an_offset_is_an_integer_or_its_text,
        agents_are_id_name_and_email_as_strings,
        the_next_offset_is_an_integer_and_left_out_at_the_end,
        agents_without_an_email_are_left_out,
        inactive_agents_are_left_out,
        an_email_comes_once_whatever_its_case,
        every_agent_run_is_the_whole_list,
    ]
);

/// u-2 has left, u-3 has no address, u-4 has the one of u-1 in capitals.
async fn prepared(world: &World) {
    let first = world.crm.crm.users("demo")[0].email.clone().expect("an address");
    let email = |text: String| UserFields {
        email: Some(text),
        ..UserFields::default()
    };
    let users = Users {
        deactivate: vec!["u-2".to_owned()],
        set: [
            ("u-3".to_owned(), email(String::new())),
            ("u-4".to_owned(), email(first.to_uppercase())),
        ]
        .into(),
        ..Users::default()
    };
    world.crm.crm.control(Control::users("demo", users)).done();
    until("the list follows", || async {
        let ids = set(run(world, json!(null)).await.into_iter().map(|agent| agent.0));
        ["u-2", "u-3", "u-4"].iter().all(|gone| !ids.contains(*gone))
    })
    .await;
}

async fn page(world: &World, meta: &Value) -> Reply {
    world.call("agent_sync", &json!({"auth": auth(), "meta": meta})).await
}

/// A whole run: id, name, e-mail.
async fn run(world: &World, from: Value) -> Vec<(String, String, String)> {
    let mut meta = json!({ "offset": from });
    let mut found = Vec::new();
    loop {
        let reply = page(world, &meta).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        for agent in reply.body["agents"].as_array().expect("agents") {
            let text = |key: &str| agent[key].as_str().expect("a string").to_owned();
            found.push((text("id"), text("name"), text("email")));
        }
        let Some(next) = reply.body.get("next_offset") else {
            return found;
        };
        meta = json!({ "offset": next });
    }
}

async fn the_first_offset_is_null_or_missing(world: &World) {
    let first = page(world, &json!({"offset": null})).await;
    assert_eq!(first.status, 200);
    for meta in [json!(null), json!({}), json!({"offset": ""})] {
        assert_eq!(page(world, &meta).await.body["agents"], first.body["agents"], "{meta}");
    }
    let none = world.call("agent_sync", &json!({ "auth": auth() })).await;
    assert_eq!(none.body["agents"], first.body["agents"]);
}

async fn an_offset_is_an_integer_or_its_text(world: &World) {
    let first = page(world, &json!(null)).await;
    let next = first.body["next_offset"].as_u64().expect("an integer");
    let number = page(world, &json!({ "offset": next })).await;
    let text = page(world, &json!({ "offset": next.to_string() })).await;
    assert_eq!((number.status, &number.body), (200, &text.body));
    assert_ne!(number.body["agents"], first.body["agents"]);
    for bad in [json!("x"), json!(-1), json!(1.5), json!([1])] {
        assert_eq!(page(world, &json!({ "offset": bad })).await.status, 400, "{bad}");
    }
}

async fn agents_are_id_name_and_email_as_strings(world: &World) {
    let first = page(world, &json!(null)).await;
    for agent in first.body["agents"].as_array().expect("agents") {
        let agent = agent.as_object().expect("an object");
        assert_eq!(
            set(agent.keys().cloned()),
            set(["id", "name", "email"].map(str::to_owned))
        );
        assert!(
            agent
                .values()
                .all(|value| value.as_str().is_some_and(|text| !text.is_empty())),
            "{agent:?}"
        );
    }
}

async fn the_next_offset_is_an_integer_and_left_out_at_the_end(world: &World) {
    let mut meta = json!(null);
    let mut pages = 0;
    loop {
        let reply = page(world, &meta).await;
        pages += 1;
        let Some(next) = reply.body.get("next_offset") else {
            break;
        };
        assert!(next.is_u64(), "{next}");
        meta = json!({ "offset": next });
    }
    assert!(pages > 1);
}

async fn agents_without_an_email_are_left_out(world: &World) {
    let ids = set(run(world, json!(null)).await.into_iter().map(|agent| agent.0));
    assert!(!ids.contains("u-3") && ids.contains("u-1"), "{ids:?}");
}

async fn inactive_agents_are_left_out(world: &World) {
    let ids = set(run(world, json!(null)).await.into_iter().map(|agent| agent.0));
    assert!(!ids.contains("u-2"), "{ids:?}");
}

async fn an_email_comes_once_whatever_its_case(world: &World) {
    let run = run(world, json!(null)).await;
    let emails = set(run.iter().map(|agent| agent.2.to_lowercase()));
    assert_eq!(emails.len(), run.len());
    assert!(run.iter().any(|agent| agent.0 == "u-1") && run.iter().all(|agent| agent.0 != "u-4"));
}

async fn every_agent_run_is_the_whole_list(world: &World) {
    let first = run(world, json!(null)).await;
    assert_eq!(run(world, json!(null)).await, first);
    let active = world
        .crm
        .crm
        .users("demo")
        .into_iter()
        .filter(|user| user.active)
        .count();
    assert_eq!(
        first.len(),
        active - 2,
        "all but the one without an address and the one with another's"
    );
}
