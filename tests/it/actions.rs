//! actions/{name}: done once, or said to be not done, or said to be unknown; never quietly twice.

use contacts::Stream;
use fake_crm::{Change, Control, Op};
use serde_json::{Value, json};
use snapbridge::wiring::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::*;
use crate::interactions::{beside, connector, without_operations};

impl Bridge {
    pub async fn act(&self, name: &str, meta: Value, data: Value) -> (u16, Value) {
        let body = json!({"auth": auth(), "meta": meta, "data": data});
        self.post(&format!("/demo/actions/{name}"), body).await
    }

    /// A ticket for contact 1.
    async fn ticket(&self, subject: &str) -> (u16, Value) {
        self.act(
            "create_ticket",
            json!({"contact_external_id": "1"}),
            json!({"subject": subject}),
        )
        .await
    }
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

fn made(crm: &Crm, kind: &str) -> u64 {
    crm.crm.stats("demo").made_of(kind)
}

fn sent(crm: &Crm) -> u64 {
    crm.crm.stats("demo").calls_of("tickets.create")
}

on_both!(each_action_is_done_and_seen_at_once, |backend| async move {
    let crm = Crm::start(30).await;
    let bridge = Bridge::start(backend, &crm, "refresh.sweep = \"200ms\"").await;
    let account = bridge.build().await;
    let before = bridge.tickets("1").await.len();

    let meta = json!({"contact_external_id": 1, "agent_external_id": "u-2"});
    let data = json!({"subject": "Missed call", "priority": "high", "due": "2026-12-01", "more": {"ignored": true}});
    let (status, ticket) = bridge.act("create_ticket", meta.clone(), data).await;
    assert_eq!(status, 201, "{ticket}");
    let kept = crm.crm.tickets("demo").remove(0);
    assert_eq!(ticket["external_id"], kept.ticket.id.as_str());
    assert!(
        ticket["message"]
            .as_str()
            .is_some_and(|text| text.contains(&kept.ticket.id))
    );
    assert_eq!((kept.contact_id.as_str(), kept.agent_id.as_deref()), ("1", Some("u-2")));
    assert_eq!(kept.due_at.as_deref(), Some("2026-12-01T00:00:00Z"));
    let tickets = bridge.tickets("1").await;
    assert_eq!(tickets.len(), before + 1, "what was kept of the contact is forgotten");
    assert_eq!(tickets[0]["subject"], "Missed call");

    let call = json!({"direction": "Inbound", "started": "2026-11-25T10:30:00Z", "duration": "61", "phone": "912 345 678",
                      "recording": "https://rec.example/1"});
    let (status, logged) = bridge.act("log_call", meta, call).await;
    assert_eq!(status, 201, "{logged}");
    let kept = crm.crm.calls("demo").remove(0);
    assert_eq!(logged["external_id"], kept.id.as_str());
    assert_eq!(
        (kept.direction.as_str(), kept.started_at, kept.duration_s),
        ("inbound", 1_795_602_600_000, 61)
    );
    assert_eq!(
        (
            kept.phone.as_deref(),
            kept.recording_url.as_deref(),
            kept.agent_id.as_deref()
        ),
        (Some("+351912345678"), Some("https://rec.example/1"), Some("u-2"))
    );

    let person =
        json!({"first_name": "Ines", "last_name": "Marchetti", "email": "ines@x.test", "phone": "+4722334455"});
    let (status, contact) = bridge.act("create_contact", json!(null), person).await;
    assert_eq!(status, 201, "{contact}");
    assert_eq!(
        (&contact["contact_external_id"], &contact["contact_external_type"]),
        (&json!("31"), &json!("contact"))
    );
    assert_eq!(contact["contact_external_url"], format!("{}/contacts/demo/31", crm.url));
    until("the contact that was made is in the snapshot", || async {
        let bodies = bridge
            .store
            .bodies(&account, Stream::Contacts, &["31".to_owned()])
            .await
            .unwrap();
        bodies[0].is_some()
    })
    .await;
    let (_, found) = bridge
        .interactions(json!(null), json!({"contact_phones": ["+47 22 33 44 55"]}))
        .await;
    assert!(found.is_array(), "{found}");
    assert!(bridge.run(None).await.ids().contains("31"));
    assert_eq!(["tickets", "calls", "contacts"].map(|kind| made(&crm, kind)), [1, 1, 1]);
    bridge.stop().await;
});

on_both!(
    bad_orders_are_told_what_is_wrong_and_reach_nobody,
    |backend| async move {
        let crm = Crm::start(5).await;
        let folder = tempfile::tempdir().unwrap();
        let plain = connector(folder.path(), "plain", without_operations);
        let bridge = Bridge::start(backend, &crm, &beside("plain", &plain, &crm)).await;
        bridge.build().await;
        let before = crm.calls();
        let contact = json!({"contact_external_id": "1"});
        for (name, meta, data, expected, words) in [
            ("create_ticket", &contact, json!({}), "invalid_input", "Subject"),
            ("create_ticket", &contact, json!(null), "invalid_input", "Subject"),
            (
                "create_ticket",
                &contact,
                json!({"subject": " "}),
                "invalid_input",
                "Subject",
            ),
            (
                "create_ticket",
                &contact,
                json!({"subject": "{{contact.first_name}}"}),
                "invalid_input",
                "Subject",
            ),
            (
                "create_ticket",
                &contact,
                json!({"subject": {"a": 1}}),
                "invalid_input",
                "Subject",
            ),
            (
                "create_ticket",
                &contact,
                json!({"subject": "s", "priority": "soon"}),
                "invalid_input",
                "low, normal",
            ),
            (
                "create_ticket",
                &contact,
                json!({"subject": "s", "due": "tomorrow"}),
                "invalid_input",
                "2026-11-25",
            ),
            (
                "create_ticket",
                &json!(null),
                json!({"subject": "s"}),
                "invalid_input",
                "contact",
            ),
            (
                "create_contact",
                &contact,
                json!({"last_name": "M", "website": "here"}),
                "invalid_input",
                "Website",
            ),
            (
                "create_contact",
                &contact,
                json!({"last_name": "M", "phone": "call me"}),
                "invalid_input",
                "Phone",
            ),
            (
                "log_call",
                &contact,
                json!({"direction": "inbound", "started": "2026-11-25", "duration": "long"}),
                "invalid_input",
                "Duration",
            ),
            ("log_call", &json!([]), json!({}), "malformed_meta", "meta"),
            ("log_call", &contact, json!("text"), "malformed_data", "data"),
        ] {
            let answer = bridge.act(name, meta.clone(), data.clone()).await;
            assert_eq!(code(&answer), (400, expected), "{name} {data}: {}", answer.1);
            let message = answer.1["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{name} {data}: {message}");
        }
        let order = json!({"auth": auth(), "meta": contact, "data": {"subject": "s"}});
        for (path, status, expected) in [
            ("/demo/actions/delete_everything", 404, "unknown_action"),
            ("/plain/actions/create_ticket", 404, "not_configured"),
            ("/nobody/actions/create_ticket", 404, "not_found"),
            ("/demo/k/secret/actions/create_ticket", 403, "wrong_secret"),
        ] {
            assert_eq!(
                code(&bridge.post(path, order.clone()).await),
                (status, expected),
                "{path}"
            );
        }
        let get = bridge
            .http
            .get(format!("{}/demo/actions/create_ticket", bridge.url))
            .send()
            .await
            .unwrap();
        assert_eq!(get.status(), 405);
        assert_eq!(crm.calls(), before, "none of this reaches the CRM");
        bridge.stop().await;
    }
);

on_both!(equal_requests_are_carried_out_once, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, "").await;
    bridge.build().await;
    let other = json!({"account": "other", "token": TOKEN});
    let url = format!("{}/demo/actions/create_ticket", bridge.url);
    let raw = async |body: String| {
        let response = bridge.http.post(&url).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    // Together, while the CRM takes its time, and in whatever order the keys come.
    crm.crm.knobs("demo", |knobs| knobs.slow_ms = 300);
    let bodies = [
        r#"{"auth":{"account":"demo","token":"demo-token"},"meta":{"contact_external_id":"1"},"data":{"subject":"s","description":"d"}}"#,
        r#"{"data":{"description":"d","subject":"s"},"meta":{"contact_external_id":"1","agent_external_id":null},"auth":{"token":"demo-token","account":"demo"}}"#,
    ];
    let calls = (0..6).map(|i| raw(bodies[i % 2].to_owned()));
    let answers = futures::future::join_all(calls).await;
    crm.crm.knobs("demo", |knobs| knobs.slow_ms = 0);
    for answer in &answers {
        assert_eq!((answer.0, &answer.1), (201, &answers[0].1));
    }
    // And afterwards.
    assert_eq!(raw(bodies[0].to_owned()).await, answers[0]);
    assert_eq!((made(&crm, "tickets"), sent(&crm)), (1, 1));

    // Others are others.
    assert_eq!(bridge.ticket("another").await.0, 201);
    let agent = json!({"contact_external_id": "1", "agent_external_id": "u-1"});
    assert_eq!(
        bridge
            .act("create_ticket", agent, json!({"subject": "another"}))
            .await
            .0,
        201
    );
    let theirs = json!({"auth": other, "meta": {"contact_external_id": "1"}, "data": {"subject": "another"}});
    assert_eq!(bridge.post("/demo/actions/create_ticket", theirs).await.0, 201);
    assert_eq!(made(&crm, "tickets"), 3);
    assert_eq!(crm.crm.stats("other").made_of("tickets"), 1, "invariant 11");
    bridge.stop().await;
});

on_both!(
    without_a_window_every_request_is_a_wish_of_its_own,
    |backend| async move {
        let crm = Crm::start(5).await;
        let more = "actions.replay_window = \"0s\"\nactions.success_status = 200";
        let bridge = Bridge::start(backend, &crm, more).await;
        bridge.build().await;
        for _ in 0..2 {
            assert_eq!(bridge.ticket("s").await.0, 200);
        }
        assert_eq!(made(&crm, "tickets"), 2);
        bridge.stop().await;
    }
);

on_both!(
    what_the_crm_refuses_is_said_in_its_words_and_may_be_asked_again,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.knobs("demo", |knobs| knobs.refuse_writes = 1);
        let answer = bridge.ticket("s").await;
        assert_eq!(code(&answer), (400, "crm_refused"));
        assert!(
            answer.1["message"]
                .as_str()
                .unwrap()
                .contains("a rule of this account forbids it")
        );
        assert_eq!(made(&crm, "tickets"), 0);
        assert_eq!(
            bridge.ticket("s").await.0,
            201,
            "nothing was done, so it may be done now"
        );

        let nobody = json!({"contact_external_id": "1", "agent_external_id": "u-99"});
        let answer = bridge.act("create_ticket", nobody, json!({"subject": "s"})).await;
        assert_eq!(code(&answer), (400, "crm_refused"));
        let unknown = json!({"contact_external_id": "77"});
        let answer = bridge.act("create_ticket", unknown, json!({"subject": "s"})).await;
        assert_eq!(code(&answer), (400, "crm_refused"), "a contact that nobody knows");
        assert_eq!(made(&crm, "tickets"), 1);
        bridge.stop().await;
    }
);

on_both!(
    refused_credentials_are_401_and_the_repeat_is_done_once,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.control(Control::tokens("demo", &["second-token"])).done();
        assert_eq!(code(&bridge.ticket("s").await), (401, "invalid_credentials"));
        let again = json!({"auth": {"account": "demo", "token": "second-token"}, "meta": {"contact_external_id": "1"},
                       "data": {"subject": "s"}});
        assert_eq!(bridge.post("/demo/actions/create_ticket", again).await.0, 201);
        assert_eq!(made(&crm, "tickets"), 1);
        assert_eq!(
            code(&bridge.ticket("t").await),
            (401, "invalid_credentials"),
            "the old token is checked, and refused"
        );
        bridge.stop().await;
    }
);

on_both!(
    a_crm_that_asks_to_slow_down_is_obeyed_and_nothing_is_done,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.knobs("demo", |knobs| {
            knobs.burst_429 = 1;
            knobs.fault_ops = vec![Op::CreateTicket];
            knobs.retry_after = Some("60".to_owned());
        });
        let order = |subject: &str| {
            let body = json!({"auth": auth(), "meta": {"contact_external_id": "1"}, "data": {"subject": subject}});
            bridge
                .http
                .post(format!("{}/demo/actions/create_ticket", bridge.url))
                .json(&body)
                .send()
        };
        let throttled = order("s").await.unwrap();
        assert_eq!(throttled.status(), 429);
        assert!(throttled.headers().contains_key("retry-after"));
        // While the hold lasts the CRM is not called at all.
        let before = sent(&crm);
        let held = order("s").await.unwrap();
        assert_eq!(held.status(), 503);
        assert!(held.headers().contains_key("retry-after"));
        assert_eq!(held.json::<Value>().await.unwrap()["code"], "not_started");
        assert_eq!((sent(&crm), made(&crm, "tickets")), (before, 0));
        bridge.stop().await;
    }
);

on_both!(
    a_connection_cut_after_the_request_is_unknown_and_never_sent_again,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.knobs("demo", |knobs| {
            knobs.cut = 1;
            knobs.fault_ops = vec![Op::CreateTicket];
        });
        let first = bridge.ticket("s").await;
        assert_eq!(code(&first), (400, "outcome_unknown"));
        assert_eq!(
            (made(&crm, "tickets"), sent(&crm)),
            (1, 1),
            "it was done, and nobody heard of it"
        );
        for _ in 0..3 {
            assert_eq!(
                bridge.ticket("s").await,
                first,
                "the same request is answered as before"
            );
        }
        assert_eq!((made(&crm, "tickets"), sent(&crm)), (1, 1));
        for (knob, subject) in [("truncate", "t"), ("fail_5xx", "u"), ("html_200", "v")] {
            crm.crm.control(Control::set("demo", json!({knob: 1}))).done();
            assert_eq!(code(&bridge.ticket(subject).await), (400, "outcome_unknown"), "{knob}");
            let after = sent(&crm);
            assert_eq!(code(&bridge.ticket(subject).await), (400, "outcome_unknown"), "{knob}");
            assert_eq!(sent(&crm), after, "{knob}");
        }
        bridge.stop().await;
    }
);

on_both!(
    a_crm_that_stalls_is_answered_in_time_and_never_asked_twice,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "actions.deadline = \"1s\"").await;
        bridge.build().await;
        crm.crm.knobs("demo", |knobs| {
            knobs.frozen = true;
            knobs.fault_ops = vec![Op::CreateTicket];
        });
        assert_eq!(code(&bridge.ticket("s").await), (400, "outcome_unknown"));
        crm.crm.knobs("demo", |knobs| knobs.frozen = false);
        assert_eq!(code(&bridge.ticket("s").await), (400, "outcome_unknown"));
        assert_eq!((made(&crm, "tickets"), sent(&crm)), (1, 1));
        assert_eq!(bridge.ticket("t").await.0, 201, "another one is done");
        bridge.stop().await;
    }
);

on_both!(a_caller_who_hangs_up_stops_nothing, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, "").await;
    bridge.build().await;
    crm.crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![Op::CreateTicket];
    });
    let crm_has_it = until("the CRM has the call", || async { sent(&crm) == 1 });
    tokio::select! {
        answer = bridge.ticket("s") => panic!("the CRM is frozen: {answer:?}"),
        () = crm_has_it => {}
    }
    crm.crm.knobs("demo", |knobs| knobs.frozen = false);
    assert_eq!(bridge.ticket("s").await.0, 201, "the answer that nobody waited for");
    assert_eq!((made(&crm, "tickets"), sent(&crm)), (1, 1));
    bridge.stop().await;
});

on_both!(
    a_crm_that_is_down_was_not_asked_and_may_be_later,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        let (fake, url) = (crm.crm.clone(), crm.url.clone());
        drop(crm);
        let address = url.trim_start_matches("http://").to_owned();
        until("the CRM is gone", || async {
            tokio::net::TcpStream::connect(&address).await.is_err()
        })
        .await;
        // What was connected may still be closing.
        tokio::time::timeout(PATIENCE, async { while code(&bridge.ticket("s").await).0 != 503 {} })
            .await
            .expect("503 in the end");
        assert_eq!(fake.stats("demo").made_of("tickets"), 0);
        let listener = TcpListener::bind(&address).await.expect("the same port");
        let stop = CancellationToken::new();
        tokio::spawn(fake.clone().serve(listener, stop.clone()));
        assert_eq!(
            bridge.ticket("s").await.0,
            201,
            "the same request, as nothing had been done"
        );
        assert_eq!(fake.stats("demo").made_of("tickets"), 1);
        stop.cancel();
        bridge.stop().await;
    }
);

on_both!(
    a_merged_contact_is_the_survivor_and_a_deleted_one_is_nobody,
    |backend| async move {
        let crm = Crm::start(30).await;
        let bridge = Bridge::start(backend, &crm, "refresh.poll = \"300ms\"\nrefresh.sweep = \"100ms\"").await;
        bridge.build().await;
        crm.crm.control(Control::merge("demo", "1", "2")).done();
        crm.crm.control(Control::delete("demo", Change::ids(["3"]))).done();
        bridge.knows_merge("1", "2", 28).await;
        assert_eq!(bridge.ticket("s").await.0, 201);
        assert_eq!(crm.crm.tickets("demo")[0].contact_id, "2");
        let gone = json!({"contact_external_id": "3"});
        let answer = bridge.act("create_ticket", gone, json!({"subject": "s"})).await;
        assert_eq!(code(&answer), (400, "contact_gone"));
        assert_eq!(sent(&crm), 1, "an orphan is not even asked for");
        bridge.stop().await;
    }
);

/// There is one front on the embedded store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_in_the_hands_of_another_front_is_not_carried_out_again() {
    if !services() {
        return;
    }
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(Backend::Distributed, &crm, "actions.deadline = \"20s\"").await;
    bridge.build().await;
    crm.crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![Op::CreateTicket];
    });
    let account = bridge.account().await;
    let crm_has_it = until("the CRM has the call", || async { sent(&crm) == 1 });
    tokio::select! {
        answer = bridge.ticket("s") => panic!("the CRM is frozen: {answer:?}"),
        () = crm_has_it => {}
    }
    let other = Bridge::set_up(
        Setup {
            backend: Backend::Distributed,
            role: Role::Front,
            more: "actions.deadline = \"1s\"",
            beside: Some(&bridge),
        },
        &crm,
    )
    .await;
    assert_eq!(account, other.account().await);
    assert_eq!(code(&other.ticket("s").await), (400, "outcome_unknown"));
    assert_eq!((sent(&crm), made(&crm, "tickets")), (1, 1));
    crm.crm.knobs("demo", |knobs| knobs.frozen = false);
    other.stop().await;
    bridge.stop().await;
}
