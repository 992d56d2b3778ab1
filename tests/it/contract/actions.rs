//! actions/{name} (Talkdesk: implementing an action executor).

use fake_crm::Op;

use super::*;

rows!(
    action_execution,
    "",
    [
        success_is_201_with_a_message,
        what_was_created_is_told_by_its_external_id,
        a_created_contact_is_told_by_id_type_and_url,
        failure_is_400_with_a_message,
        contact_and_agent_are_optional,
        the_agent_who_acts_is_handed_on,
        a_mandatory_input_that_is_empty_is_refused_again,
        a_value_provider_that_was_not_expanded_is_missing,
        inputs_may_be_texts_or_json_of_their_type,
        a_datetime_has_three_forms,
        a_select_is_one_of_its_options,
        keys_of_data_that_are_not_configured_are_ignored,
        an_unknown_action_is_404,
        an_equal_request_within_the_window_is_done_once,
        an_ambiguous_outcome_is_400_outcome_unknown_and_never_sent_twice,
        credentials_that_the_crm_refuses_are_401_and_nothing_is_done,
    ]
);

/// A ticket for contact 1.
async fn ticket(world: &World, data: Value) -> (u16, Value) {
    world
        .bridge
        .act("create_ticket", json!({"contact_external_id": "1"}), data)
        .await
}

fn made(world: &World) -> u64 {
    world.crm.crm.stats("demo").made_of("tickets")
}

async fn success_is_201_with_a_message(world: &World) {
    let (status, answer) = ticket(world, json!({"subject": "success"})).await;
    assert_eq!(status, 201);
    assert!(
        answer["message"].as_str().is_some_and(|text| !text.is_empty()),
        "{answer}"
    );
}

async fn what_was_created_is_told_by_its_external_id(world: &World) {
    let (_, answer) = ticket(world, json!({"subject": "told by its id"})).await;
    let tickets = world.crm.crm.tickets("demo");
    let kept = tickets
        .iter()
        .find(|kept| kept.ticket.subject == "told by its id")
        .expect("it was made");
    assert_eq!(answer["external_id"], kept.ticket.id.as_str());
    assert!(
        answer.get("contact_external_id").is_none(),
        "no contact was made: {answer}"
    );
}

async fn a_created_contact_is_told_by_id_type_and_url(world: &World) {
    let (status, answer) = world
        .bridge
        .act("create_contact", json!(null), json!({"last_name": "Told"}))
        .await;
    assert_eq!(status, 201, "{answer}");
    let text = |key: &str| answer[key].as_str().expect("a string").to_owned();
    assert_eq!(text("contact_external_type"), "contact");
    let url = text("contact_external_url");
    assert!(
        url.starts_with("http") && url.ends_with(&text("contact_external_id")),
        "{url}"
    );
    assert!(
        answer.get("external_id").is_none(),
        "it is for other things than contacts: {answer}"
    );
}

async fn failure_is_400_with_a_message(world: &World) {
    world.crm.crm.knobs("demo", |knobs| knobs.refuse_writes = 1);
    let answer = ticket(world, json!({"subject": "failure"})).await;
    assert_eq!(refused(&answer), (400, "crm_refused"));
    assert!(
        answer.1["message"].as_str().is_some_and(|text| !text.is_empty()),
        "{}",
        answer.1
    );
}

async fn contact_and_agent_are_optional(world: &World) {
    for (n, meta) in [
        json!(null),
        json!({}),
        json!({"contact_external_id": null, "agent_external_id": ""}),
    ]
    .into_iter()
    .enumerate()
    {
        let (status, answer) = world
            .bridge
            .act("create_contact", meta, json!({"last_name": format!("Nobody's {n}")}))
            .await;
        assert_eq!(status, 201, "{answer}");
    }
    let answer = world
        .bridge
        .act("create_ticket", json!({}), json!({"subject": "whose?"}))
        .await;
    assert_eq!(
        refused(&answer),
        (400, "invalid_input"),
        "where the action is about a contact it is not"
    );
}

async fn the_agent_who_acts_is_handed_on(world: &World) {
    for agent in [Some("u-2"), None] {
        let subject = format!("by {agent:?}");
        let meta = json!({"contact_external_id": "1", "agent_external_id": agent});
        let (status, answer) = world
            .bridge
            .act("create_ticket", meta, json!({ "subject": subject }))
            .await;
        assert_eq!(status, 201, "{answer}");
        let tickets = world.crm.crm.tickets("demo");
        let kept = tickets
            .iter()
            .find(|kept| kept.ticket.subject == subject)
            .expect("it was made");
        assert_eq!(kept.agent_id.as_deref(), agent);
    }
}

async fn a_mandatory_input_that_is_empty_is_refused_again(world: &World) {
    let before = made(world);
    for data in [
        json!(null),
        json!({}),
        json!({"subject": null}),
        json!({"subject": ""}),
        json!({"subject": " \n"}),
    ] {
        let answer = ticket(world, data.clone()).await;
        assert_eq!(refused(&answer), (400, "invalid_input"), "{data}");
        assert!(
            answer.1["message"]
                .as_str()
                .is_some_and(|text| text.contains("Subject")),
            "{}",
            answer.1
        );
    }
    assert_eq!(made(world), before);
}

async fn a_value_provider_that_was_not_expanded_is_missing(world: &World) {
    let answer = ticket(world, json!({"subject": "{{contact.email}}"})).await;
    assert_eq!(refused(&answer), (400, "invalid_input"));
    let (status, _) = ticket(
        world,
        json!({"subject": "not expanded", "description": "{{ interaction.notes }}"}),
    )
    .await;
    assert_eq!(status, 201, "where it is optional it is left out");
    let tickets = world.crm.crm.tickets("demo");
    let kept = tickets
        .iter()
        .find(|kept| kept.ticket.subject == "not expanded")
        .expect("it was made");
    assert_eq!(kept.ticket.description, "");
}

async fn inputs_may_be_texts_or_json_of_their_type(world: &World) {
    let call = async |duration: Value, n: usize| {
        let data = json!({"direction": "inbound", "started": "2026-11-25T10:30:00Z", "duration": duration, "notes": n});
        world
            .bridge
            .act("log_call", json!({"contact_external_id": 1}), data)
            .await
    };
    for (n, duration) in [json!("61"), json!(61), json!(61.0)].into_iter().enumerate() {
        assert_eq!(call(duration.clone(), n).await.0, 201, "{duration}");
    }
    let logged = world.crm.crm.calls("demo");
    assert!(logged.len() >= 3 && logged.iter().all(|call| call.duration_s == 61));
    for (n, bad) in [json!("long"), json!([61]), json!(1.5)].into_iter().enumerate() {
        assert_eq!(refused(&call(bad.clone(), n).await), (400, "invalid_input"), "{bad}");
    }
}

async fn a_datetime_has_three_forms(world: &World) {
    for (form, due) in [
        ("2026-12-01", "2026-12-01T00:00:00Z"),
        ("2026-12-01T10:30:00", "2026-12-01T10:30:00Z"),
        ("2026-12-01T10:30:00Z", "2026-12-01T10:30:00Z"),
    ] {
        let subject = format!("due {form}");
        assert_eq!(
            ticket(world, json!({"subject": subject, "due": form})).await.0,
            201,
            "{form}"
        );
        let tickets = world.crm.crm.tickets("demo");
        let kept = tickets
            .iter()
            .find(|kept| kept.ticket.subject == subject)
            .expect("it was made");
        assert_eq!(kept.due_at.as_deref(), Some(due));
    }
    for bad in ["tomorrow", "2026-02-30", "01.12.2026", "2026-12-01 10:30"] {
        assert_eq!(
            refused(&ticket(world, json!({"subject": "due", "due": bad})).await),
            (400, "invalid_input"),
            "{bad}"
        );
    }
}

async fn a_select_is_one_of_its_options(world: &World) {
    assert_eq!(
        ticket(world, json!({"subject": "select", "priority": "high"})).await.0,
        201
    );
    let answer = ticket(world, json!({"subject": "select", "priority": "soon"})).await;
    assert_eq!(refused(&answer), (400, "invalid_input"));
    assert!(
        answer.1["message"]
            .as_str()
            .is_some_and(|text| text.contains("low, normal, high, urgent")),
        "{}",
        answer.1
    );
}

async fn keys_of_data_that_are_not_configured_are_ignored(world: &World) {
    let data = json!({"subject": "more keys", "of": {"another": ["version"]}});
    assert_eq!(ticket(world, data).await.0, 201);
}

async fn an_unknown_action_is_404(world: &World) {
    let answer = world.bridge.act("delete_everything", json!(null), json!({})).await;
    assert_eq!(refused(&answer), (404, "unknown_action"));
}

async fn an_equal_request_within_the_window_is_done_once(world: &World) {
    let before = made(world);
    let first = ticket(world, json!({"subject": "once", "priority": "low"})).await;
    assert_eq!(
        ticket(world, json!({"priority": "low", "subject": "once"})).await,
        first
    );
    assert_eq!(made(world), before + 1);
    ticket(world, json!({"subject": "once", "priority": "high"})).await;
    assert_eq!(made(world), before + 2, "another wish");
}

async fn an_ambiguous_outcome_is_400_outcome_unknown_and_never_sent_twice(world: &World) {
    let sent = || world.crm.crm.stats("demo").calls_of("tickets.create");
    let before = sent();
    world.crm.crm.knobs("demo", |knobs| {
        knobs.fault_ops = vec![Op::CreateTicket];
        knobs.cut = 1;
    });
    let first = ticket(world, json!({"subject": "ambiguous"})).await;
    assert_eq!(refused(&first), (400, "outcome_unknown"));
    assert_eq!(ticket(world, json!({"subject": "ambiguous"})).await, first);
    assert_eq!(sent(), before + 1);
}

async fn credentials_that_the_crm_refuses_are_401_and_nothing_is_done(world: &World) {
    let before = made(world);
    world.crm.crm.control(Control::tokens("demo", &["renewed"])).done();
    assert_eq!(
        refused(&ticket(world, json!({"subject": "repeated"})).await),
        (401, "invalid_credentials")
    );
    assert_eq!(made(world), before);
    let body = json!({"auth": {"account": "demo", "token": "renewed"}, "meta": {"contact_external_id": "1"},
                      "data": {"subject": "repeated"}});
    assert_eq!(world.bridge.post("/demo/actions/create_ticket", body).await.0, 201);
    assert_eq!(made(world), before + 1);
}
