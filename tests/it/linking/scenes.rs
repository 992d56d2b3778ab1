//! What becomes of two records of one person.

use contacts::ledger::Budget;
use contacts::linking::records::{self, Side};
use contacts::ports::{DocKey, DocKind};
use contacts::{Kind, docs};
use fake_crm::Users;

use super::*;

on_both!(an_update_of_the_dms_links_both_records, |backend| async move {
    let sides = Sides::start(20).await;
    sides.person(1, "ines@nordlys.example");
    let bridge = sides.bridge(backend, "integrations.dealers.region = \"NO\"\n").await;
    let told = |id: u64, more: Value| {
        let mut body = json!({"id": id, "organization": sides.organization()});
        merge(&mut body, more);
        body
    };
    let (status, answer) = update(&bridge, "", told(1, json!({"email": "Ines@Nordlys.example"}))).await;
    assert_eq!((status.as_u16(), answer), (202, json!({"status": "accepted"})));
    until("both show the other", || async { sides.is_linked(1) }).await;
    // By number alone, written otherwise.
    sides.edit("dms", 2, "two@dms.example", "22 33 44 55");
    sides.edit("chat", 2, "", "+4722334455");
    let (status, _) = update(&bridge, "?wait=true", told(2, json!({"telephone": "22 33 44 55"}))).await;
    assert_eq!(status, 201);
    assert!(sides.is_linked(2));
    for (id, emails, expected) in [
        (3, ["nobody@dms.example", "somebody@chat.example"], "unmatched"),
        (4, ["four@x.example"; 2], "ambiguous"),
    ] {
        sides.edit("dms", id, emails[0], "");
        sides.edit("chat", id, emails[1], "");
        sides.edit("chat", 5, "four@x.example", "");
        let (status, answer) = update(&bridge, "?wait=true", told(id, json!({"email": emails[0]}))).await;
        assert_eq!(
            (status.as_u16(), answer["reason"].as_str()),
            (200, Some(expected)),
            "{answer}"
        );
        assert!(sides.has_no_links(id));
    }
    let report = report(&bridge).await;
    assert_eq!(
        (&report["linked"], &report["unmatched"], &report["ambiguous"]),
        (&json!(2), &json!(1), &json!(1)),
        "{report}"
    );
    let named: Vec<&str> = report["records"]
        .as_array()
        .expect("records")
        .iter()
        .filter_map(|record| record["id"].as_str())
        .collect();
    assert_eq!(named, ["3", "4"]);
    assert!(metric(&bridge, "snapbridge_link_updates_total", "dealers").await >= 4.0);
    assert!(metric(&bridge, "snapbridge_link_payloads_total", "result=\"ambiguous\"").await >= 1.0);
    for side in ["dms", "web1on1"] {
        assert!(metric(&bridge, "snapbridge_link_writes_total", side).await >= 2.0);
    }
    // The DMS says that it no longer has one.
    let gone = json!({"id": "1", "organization": sides.organization(), "deleted": true});
    let (status, _) = update(&bridge, "?wait=true", gone).await;
    assert_eq!(status, 200);
    assert!(sides.has_no_links(1) && sides.is_linked(2));
    bridge.stop().await;
});

on_both!(events_of_web1on1_link_flow_and_come_to_rest, |backend| async move {
    let sides = Sides::start(20).await;
    sides.person(1, "ines@nordlys.example");
    sides.person(2, "otto@nordlys.example");
    let bridge = sides
        .bridge(
            backend,
            "integrations.dealers.owner_phone = \"web1on1\"\nintegrations.dealers.owner_name = \"dms\"\n",
        )
        .await;
    sides.subscribe(&bridge.url, json!({"duplicate_every": 2}));
    sides.tell(&bridge.url, json!({"duplicate_every": 3}));
    sides.edit("chat", 1, "ines@nordlys.example", "+351912345678");
    let dms = |id| sides.row("dms", id).map(|row| json!(row)).unwrap_or_default();
    until("the number is in the DMS, and both show the other", || async {
        sides.is_linked(1) && dms(1)["phones"][0] == "+351912345678"
    })
    .await;
    // Each write is an event of its own side and comes back; in the end nobody writes any more.
    let settled = || async {
        let told = |account: &str| sides.crm.stats(account).webhooks.waiting == 0;
        report(&bridge).await["waiting"] == 0 && told("chat") && told("dms")
    };
    until("it comes to rest", settled).await;
    let history = |account: &str| sides.crm.history(account).len();
    let before = (history("dms"), history("chat"));
    let named = Fields {
        first_name: Some("Otto".into()),
        last_name: Some("Nordmann".into()),
        ..Fields::default()
    };
    sides
        .crm
        .control(Control::edit("dms", Change::ids([2]).with(named)))
        .done();
    until("the name is at Web1on1", || async {
        let row = sides.row("chat", 2).map(|row| json!(row)).unwrap_or_default();
        sides.is_linked(2) && row["first_name"] == "Otto" && row["last_name"] == "Nordmann"
    })
    .await;
    until("it comes to rest again", settled).await;
    // The edit, a link on each side, and the name with one of them.
    let after = (history("dms"), history("chat"));
    assert!(
        after.0 - before.0 <= 2 && after.1 - before.1 <= 1,
        "{before:?} {after:?}: they correct each other"
    );
    // Gone at Web1on1: the DMS no longer leads there.
    sides.crm.control(Control::delete("chat", Change::ids([1]))).done();
    until("the link goes", || async { sides.at_dms(1)["url"].is_null() }).await;
    bridge.stop().await;
});

on_both!(a_dealer_is_seeded_reported_and_taken_apart, |backend| async move {
    let sides = Sides::start(120).await;
    for id in 1..=120 {
        sides.person(id, &format!("p{id}@x.example"));
    }
    let more = "dealers.oslo.seed = true\nintegrations.dealers.seed_ahead = 25\n";
    let bridge = sides.bridge(backend, more).await;
    until("everybody is linked without a word from the DMS", || async {
        let report = report(&bridge).await;
        report["linked"] == 120 && report["waiting"] == 0
    })
    .await;
    assert!((1..=120).all(|id| sides.is_linked(id)));
    let known = report(&bridge).await;
    assert_eq!(known["seeding"]["seen"], 120);
    assert!(!known["seeding"]["ended"].is_null());
    // Once is enough.
    let writes = (sides.crm.history("dms").len(), sides.crm.history("chat").len());
    let (status, told) = api(
        &bridge,
        Method::POST,
        "/api/links/seed",
        Some(json!({"dealer": "oslo"})),
    )
    .await;
    assert_eq!(status, 200, "{told}");
    until("it is over", || async {
        !report(&bridge).await["seeding"]["ended"].is_null()
    })
    .await;
    until_idle(&bridge).await;
    assert_eq!(
        writes,
        (sides.crm.history("dms").len(), sides.crm.history("chat").len()),
        "nothing was written again"
    );

    for (body, status) in [
        (json!({"dealer": "nobody", "all": true}), 404),
        (json!({"dealer": "oslo"}), 400),
        (json!({"dealer": "oslo", "record": "7", "all": true}), 400),
        (json!({"dealer": "oslo", "record": "7"}), 200),
    ] {
        let (got, told) = api(&bridge, Method::POST, "/api/links/remove", Some(body)).await;
        assert_eq!(got.as_u16(), status, "{told}");
    }
    until("its links are gone", || async { sides.has_no_links(7) }).await;
    assert!(sides.is_linked(8));
    let (status, _) = api(
        &bridge,
        Method::POST,
        "/api/links/remove",
        Some(json!({"dealer": "oslo", "all": true})),
    )
    .await;
    assert_eq!(status, 200);
    until("all links are gone", || async { report(&bridge).await["linked"] == 0 }).await;
    until_idle(&bridge).await;
    assert!((1..=120).all(|id| sides.has_no_links(id)));
    let (_, audit) = api(&bridge, Method::GET, "/api/audit", None).await;
    let deeds: Vec<&str> = audit
        .as_array()
        .expect("entries")
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .collect();
    assert_eq!(deeds, ["link remove", "link remove", "link seed"]);
    bridge.stop().await;
});

on_both!(
    refused_credentials_park_the_dealer_and_others_in_the_settings_go_on,
    |backend| async move {
        let sides = Sides::start(10).await;
        sides.person(1, "ines@nordlys.example");
        let bridge = sides.bridge(backend, "").await;
        sides.crm.control(Control::tokens("dms", &["another-token"])).done();
        let body = json!({"id": "1", "organization": sides.organization(), "email": "ines@nordlys.example"});
        assert_eq!(update(&bridge, "", body).await.0, 202);
        let sentence = || async {
            let (_, status) = api(&bridge, Method::GET, "/api/status", None).await;
            let accounts = status["accounts"].as_array().cloned().unwrap_or_default();
            let dealer = accounts.into_iter().find(|account| account["integration"] == "dealers");
            dealer
                .map(|dealer| dealer["sentence"].as_str().unwrap_or_default().to_owned())
                .unwrap_or_default()
        };
        until("the dealer is parked, with its cause", || async {
            let said = sentence().await;
            said.starts_with("stopped") && said.contains("the DMS") && said.contains("dealer oslo")
        })
        .await;
        assert!(sentence().await.contains("1 wait"), "{}", sentence().await);
        let crm = Crm::of(sides.crm.clone(), sides.url.clone(), CancellationToken::new());
        let settings = sides
            .settings("")
            .replace("dms.token = \"dms-token\"", "dms.token = \"another-token\"");
        let bridge = bridge.restart(&crm, &settings).await;
        until("it is linked", || async { sides.is_linked(1) }).await;
        bridge.stop().await;
    }
);

on_both!(a_user_of_web1on1_is_an_agent_with_the_next_sync, |backend| async move {
    let sides = Sides::start(10).await;
    let url = &sides.url;
    let chat = format!(
        "integrations.chat.connector = \"web1on1\"\nintegrations.chat.allow_hosts = [\"{url}\"]\n\
         integrations.chat.connection.site = \"{url}\"\nrefresh.agents = \"1day\"\nrefresh.agents_on_request = \"1day\"\n"
    );
    let bridge = sides.bridge(backend, &chat).await;
    let auth = json!({"bot_token": "chat-token"});
    assert_eq!(bridge.post("/chat/auth_validation", json!({"auth": auth})).await.0, 200);
    let agents = || async {
        let (status, page) = bridge.post("/chat/agent_sync", json!({"auth": auth})).await;
        let list = page["agents"].as_array().cloned().unwrap_or_default();
        if status == 200 { list.len() } else { 0 }
    };
    until("the users are there", || async { agents().await > 0 }).await;
    let before = agents().await;
    // Nothing that was due before may read the list once more.
    let account = account_of(&bridge, "chat").await;
    until("nothing runs", || async {
        let work = contacts::work::load(&*bridge.store, &account).await.expect("a store");
        work.agents_lease.is_none() && work.tasks.get(&Kind::Agents).is_some_and(|task| task.marker.is_none())
    })
    .await;
    sides.subscribe(&bridge.url, json!({}));
    let users = Users {
        add: 1,
        ..Users::default()
    };
    sides.crm.control(Control::users("chat", users)).done();
    until("the new user is an agent", || async { agents().await == before + 1 }).await;
    bridge.stop().await;
});

on_both!(
    dealers_with_bots_of_their_own_share_what_web1on1_grants_one_address,
    |backend| async move {
        const PEOPLE: u64 = 25;
        let sides = Sides::limited_of(&["", "2"], PEOPLE as usize, 50).await;
        for (id, account) in (1..=PEOPLE).flat_map(|id| ["dms", "chat", "dms2", "chat2"].map(|account| (id, account))) {
            sides.edit(account, id, &format!("person{id}@crm.example"), "");
        }
        let organization = Profile::Web1on1.organization_id("chat2");
        // Another integration, so that only the address is common.
        let others = sides.settings("");
        let others = others
            .lines()
            .filter(|line| line.starts_with("integrations.dealers."))
            .map(|line| line.replacen("dealers", "others", 1) + "\n");
        let bergen = format!(
            "dealers.oslo.seed = true\n\
             dealers.bergen.integration = \"others\"\ndealers.bergen.organization = \"{organization}\"\n\
             dealers.bergen.secrets.first = \"{SECRET}-of-bergen\"\ndealers.bergen.seed = true\n\
             dealers.bergen.web1on1.bot_token = \"chat2-token\"\n\
             dealers.bergen.dms.account = \"dms2\"\ndealers.bergen.dms.token = \"dms2-token\"\n"
        );
        let bridge = sides.bridge(backend, &(others.collect::<String>() + &bergen)).await;
        let linked = |account: &str| {
            let rows = sides.crm.truth(account);
            rows.iter()
                .filter(|row| json!(row)["web1on1"]["url"].is_string())
                .count()
        };
        until("both dealers are linked", || async {
            [linked("dms"), linked("dms2")] == [PEOPLE as usize; 2]
        })
        .await;
        for account in ["chat", "chat2"] {
            let stats = sides.crm.stats(account);
            assert_eq!(stats.over_limit, 0, "{account}: {stats:?}");
        }
        let budgets = api(&bridge, Method::GET, "/api/budgets", None).await.1;
        let mut rows: Vec<String> = budgets
            .as_array()
            .expect("a list")
            .iter()
            .map(|view| {
                let limits = view["limits"].as_array().expect("limits");
                let limits: Vec<_> = limits.iter().map(|left| left["limit"].to_string()).collect();
                format!("{} {} {}", view["dealer"], view["connector"], limits.join(" ")).replace('"', "")
            })
            .collect();
        rows.sort();
        assert_eq!(
            rows,
            [
                "bergen demo calls",
                "bergen web1on1 second address",
                "oslo demo calls",
                "oslo web1on1 second address"
            ]
        );
        let account = account_of(&bridge, "others").await;
        for side in [Side::Dms, Side::Web1on1] {
            let checked = records::checked(&*bridge.store, &account, side).await.expect("a store");
            let key = checked.account_budget.expect("the check told it");
            let key = DocKey::by_id(DocKind::Budget, key);
            assert!(
                docs::load::<Budget>(&*bridge.store, &key)
                    .await
                    .expect("a store")
                    .is_some(),
                "its calls are counted there: {side:?}"
            );
        }
        bridge.stop().await;
    }
);
