//! interaction_update: whose tickets, in which words, and what is answered when the CRM does not play along.

use std::path::PathBuf;

use contacts::Stream;
use fake_crm::{Change, Control, Create, Fields, Op};
use serde_json::{Value, json};

use crate::harness::*;

impl Bridge {
    pub async fn interactions(&self, meta: Value, data: Value) -> (u16, Value) {
        self.post(
            "/demo/interaction_update",
            json!({"auth": auth(), "meta": meta, "data": data}),
        )
        .await
    }

    /// The tickets of a contact, by its id.
    pub async fn tickets(&self, contact: &str) -> Vec<Value> {
        let (status, found) = self
            .interactions(json!(null), json!({"contact_external_id": contact}))
            .await;
        assert_eq!(status, 200, "{found}");
        found.as_array().expect("a bare array").clone()
    }

    /// Waits until the snapshot knows of a merge, and holds as many living contacts.
    pub async fn knows_merge(&self, from: &str, into: &str, contacts: u64) {
        let account = self.account().await;
        let alias = self.keys.lookup_key(&account, &format!("alias:{from}"));
        until("the snapshot follows", || async {
            let head = self.store.head(&account, Stream::Contacts).await.expect("a head");
            let found = self
                .store
                .find(&account, Stream::Contacts, alias)
                .await
                .expect("a look-up");
            head.is_some_and(|head| head.count == contacts) && found == [into]
        })
        .await;
    }
}

/// What the CRM itself shows, newest first.
async fn theirs(bridge: &Bridge, crm: &Crm, account: &str, contact: &str) -> Vec<(String, String)> {
    let request = bridge
        .http
        .get(format!("{}/api/{account}/contacts/{contact}/tickets", crm.url))
        .bearer_auth(TOKEN);
    let found: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let text = |ticket: &Value, key: &str| ticket[key].as_str().unwrap_or_default().to_owned();
    let results = found["results"].as_array().expect("results").iter();
    let mut tickets: Vec<_> = results
        .map(|ticket| (text(ticket, "created_at"), text(ticket, "id")))
        .collect();
    tickets.sort();
    tickets.reverse();
    tickets.into_iter().map(|(at, id)| (id, at)).collect()
}

fn ids(found: &[Value]) -> Vec<String> {
    found
        .iter()
        .map(|item| item["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The first contact of an account that has several tickets.
async fn busy(bridge: &Bridge, crm: &Crm, account: &str) -> String {
    for id in 1..=7 {
        if theirs(bridge, crm, account, &id.to_string()).await.len() > 1 {
            return id.to_string();
        }
    }
    panic!("nobody has several tickets");
}

/// The shipped demo connector with changes, as a file of its own.
pub fn connector(bridge_folder: &std::path::Path, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let source = crm::Connector::shipped("demo").expect("a shipped connector");
    let path = bridge_folder.join(format!("{name}.toml"));
    std::fs::write(&path, change(source.to_owned())).expect("a connector file");
    path
}

/// An integration beside `demo`, with a connector of its own.
pub fn beside(name: &str, connector: &std::path::Path, crm: &Crm) -> String {
    format!(
        "integrations.{name}.connector = \"{}\"\nintegrations.{name}.allow_hosts = [\"{crm}\"]\n\
         integrations.{name}.connection.site = \"{crm}\"\nintegrations.{name}.connection.per_second = \"1000\"\n",
        connector.display(),
        crm = crm.url
    )
}

/// A connector with neither interactions nor actions.
pub fn without_operations(source: String) -> String {
    let (head, rest) = source.split_once("[[interactions]]").expect("interactions");
    let (_, webhook) = rest.split_once("\n[webhook]\n").expect("a webhook");
    format!("{head}\n[webhook]\n{webhook}")
}

on_both!(
    a_contacts_tickets_come_newest_first_in_talkdesks_words,
    |backend| async move {
        let crm = Crm::start(60).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        let id = busy(&bridge, &crm, "demo").await;
        let expected = theirs(&bridge, &crm, "demo", &id).await;
        let calls = || crm.crm.stats("demo").calls_of("contact.tickets");
        let before = calls();
        for asked in [
            json!(["Ticket", "case"]),
            json!(["TICKET", "ticket"]),
            json!([]),
            json!(null),
        ] {
            let meta = json!({"interaction_types": asked});
            let (status, found) = bridge.interactions(meta, json!({"contact_external_id": id})).await;
            assert_eq!(status, 200);
            let found = found.as_array().expect("a bare array").clone();
            assert_eq!(
                ids(&found),
                expected.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()
            );
            let shown = asked[0].as_str().unwrap_or("ticket");
            for (item, (_, at)) in found.iter().zip(&expected) {
                assert_eq!(item["type"], shown, "in the caller's spelling");
                let at = format!("{} {} UTC", &at[..10], &at[11..19]);
                assert_eq!(item["date"], at.as_str());
                assert!(item["url"].as_str().is_some_and(|url| url.starts_with("https://")));
                assert!(["low", "normal", "high"].contains(&item["priority"].as_str().unwrap()));
                assert!(["open", "pending", "solved"].contains(&item["status"].as_str().unwrap()));
            }
        }
        assert_eq!(calls(), before + 1, "the answer is kept for a while");
        let (status, none) = bridge
            .interactions(
                json!({"interaction_types": ["case"]}),
                json!({"contact_external_id": id}),
            )
            .await;
        assert_eq!((status, none), (200, json!([])), "a type that there is not");
        for nobody in ["99999", "..", "a/b", "\u{0}", &"9".repeat(5_000)] {
            let found = bridge.tickets(nobody).await;
            assert_eq!(found, Vec::<Value>::new(), "unknown contacts have none");
        }
        bridge.stop().await;
    }
);

on_both!(
    invariant_11_the_same_id_is_another_contact_in_another_account,
    |backend| async move {
        let crm = Crm::start(7).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        let other = json!({"account": "other", "token": TOKEN});
        let mut differ = 0;
        for _ in 0..2 {
            for id in 1..=7 {
                let id = id.to_string();
                let (status, found) = bridge
                    .post(
                        "/demo/interaction_update",
                        json!({"auth": other, "data": {"contact_external_id": id}}),
                    )
                    .await;
                assert_eq!(status, 200, "{found}");
                let of = async |account| theirs(&bridge, &crm, account, &id).await;
                let dates = |found: &[Value]| found.iter().map(|item| item["date"].clone()).collect::<Vec<_>>();
                let written = |theirs: &[(String, String)]| {
                    let date = |at: &str| json!(format!("{} {} UTC", &at[..10], &at[11..19]));
                    theirs.iter().map(|(_, at)| date(at)).collect::<Vec<_>>()
                };
                let (mine, yours) = (of("demo").await, of("other").await);
                assert_eq!(dates(found.as_array().unwrap()), written(&yours));
                assert_eq!(dates(&bridge.tickets(&id).await), written(&mine));
                differ += usize::from(written(&mine) != written(&yours));
            }
        }
        assert!(differ > 0, "the accounts do differ");
        bridge.stop().await;
    }
);

on_both!(
    contacts_that_were_not_synced_are_found_by_phone_and_email_in_any_notation,
    |backend| async move {
        let crm = Crm::start(20).await;
        let make = |phone: &str, email: &str| {
            let fields = Fields {
                phones: Some(vec![phone.to_owned()]),
                emails: Some(vec![email.to_owned()]),
                ..Fields::default()
            };
            let create = Create {
                count: 1,
                fields: Some(fields),
                ..Create::default()
            };
            let control = Control::new("demo", fake_crm::Action::Create(create));
            crm.crm.control(control).done().ids().remove(0)
        };
        // The same number twice, in two notations.
        let (eva, ida) = (
            make("+351 912 345 678", "Eva@x.test"),
            make("912-345-678", "ida@x.test"),
        );
        let bridge = Bridge::start(backend, &crm, "interactions.cache = \"0s\"").await;
        bridge.build().await;
        for id in [&eva, &ida] {
            let body = json!({"subject": format!("of {id}")});
            let url = format!("{}/api/demo/contacts/{id}/tickets", crm.url);
            let made = bridge
                .http
                .post(url)
                .bearer_auth(TOKEN)
                .json(&body)
                .send()
                .await
                .unwrap();
            assert_eq!(made.status(), 201);
        }
        let subjects = async |data: Value| {
            let (status, found) = bridge.interactions(json!(null), data.clone()).await;
            assert_eq!(status, 200, "{data}: {found}");
            let own = |item: &Value| {
                item["subject"]
                    .as_str()
                    .filter(|text| text.starts_with("of "))
                    .map(str::to_owned)
            };
            let mut subjects: Vec<_> = found.as_array().unwrap().iter().filter_map(own).collect();
            subjects.sort();
            subjects
        };
        let mut both = vec![format!("of {eva}"), format!("of {ida}")];
        both.sort();
        for phone in ["+351912345678", "912 345 678", "00351 912-345-678", "(912) 345 678"] {
            assert_eq!(subjects(json!({"contact_phones": [phone]})).await, both, "{phone}");
        }
        for email in ["eva@x.test", " EVA@X.TEST "] {
            assert_eq!(
                subjects(json!({"contact_emails": [email]})).await,
                [format!("of {eva}")],
                "{email}"
            );
        }
        let twice =
            json!({"contact_emails": ["ida@x.test"], "contact_phones": "912345678", "contact_external_id": null});
        assert_eq!(subjects(twice).await, both, "each once");
        assert_eq!(
            subjects(json!({"contact_external_id": ida, "contact_phones": ["912345678"]})).await,
            [format!("of {ida}")],
            "an id decides alone"
        );
        let before = crm.calls();
        for data in [
            json!({"contact_name": "Eva"}),
            json!({}),
            json!(null),
            json!({"contact_phones": ["+351911111111", "n/a"], "contact_emails": ["nobody@x.test", ""]}),
        ] {
            assert_eq!(subjects(data).await, Vec::<String>::new());
        }
        assert_eq!(crm.calls(), before, "nobody is meant, so nobody is asked");
        bridge.stop().await;
    }
);

on_both!(a_merged_contact_is_found_under_its_old_id, |backend| async move {
    let crm = Crm::start(30).await;
    let bridge = Bridge::start(backend, &crm, "refresh.poll = \"300ms\"\nrefresh.sweep = \"100ms\"").await;
    bridge.build().await;
    let gone = busy(&bridge, &crm, "demo").await;
    let moved = theirs(&bridge, &crm, "demo", &gone).await;
    crm.crm.control(Control::merge("demo", &gone, "20")).done();
    crm.crm.control(Control::delete("demo", Change::ids(["21"]))).done();
    bridge.knows_merge(&gone, "20", 28).await;
    let found = ids(&bridge.tickets(&gone).await);
    assert_eq!(found, ids(&bridge.tickets("20").await));
    assert!(moved.iter().all(|(id, _)| found.contains(id)), "{moved:?} in {found:?}");
    assert_eq!(bridge.tickets("21").await, Vec::<Value>::new());
    bridge.stop().await;
});

on_both!(bad_requests_are_told_what_is_wrong, |backend| async move {
    let crm = Crm::start(5).await;
    let folder = tempfile::tempdir().unwrap();
    let plain = connector(folder.path(), "plain", without_operations);
    let bridge = Bridge::start(backend, &crm, &beside("plain", &plain, &crm)).await;
    for (body, code) in [
        (json!([]), "malformed_json"),
        (json!({"auth": 7}), "malformed_auth"),
        (json!({"auth": auth(), "data": []}), "malformed_data"),
        (
            json!({"auth": auth(), "data": {"contact_external_id": {}}}),
            "malformed_data",
        ),
        (
            json!({"auth": auth(), "meta": {"interaction_types": [[]]}}),
            "malformed_meta",
        ),
    ] {
        let (status, error) = bridge.post("/demo/interaction_update", body.clone()).await;
        assert_eq!((status, error["code"].as_str()), (400, Some(code)), "{body}");
    }
    let (status, error) = bridge.post("/plain/interaction_update", json!({"auth": auth()})).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_configured")));
    let (status, _) = bridge.post("/nobody/interaction_update", json!({"auth": auth()})).await;
    assert_eq!(status, 404);
    assert_eq!(crm.calls(), 0);
    let wrong = json!({"auth": {"account": "demo", "token": "wrong"}});
    assert_eq!(bridge.post("/demo/interaction_update", wrong).await.0, 401);
    bridge.stop().await;
});

on_both!(
    what_the_crm_does_wrong_is_told_and_kept_by_nobody,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, "interactions.deadline = \"1500ms\"").await;
        bridge.build().await;
        let id = busy(&bridge, &crm, "demo").await;
        let ask = async || {
            bridge
                .interactions(json!(null), json!({"contact_external_id": id}))
                .await
        };
        crm.crm.knobs("demo", |knobs| {
            knobs.fault_ops = vec![Op::Tickets];
            knobs.fail_5xx = 1;
        });
        assert_eq!(ask().await.0, 502);
        crm.crm.knobs("demo", |knobs| knobs.html_200 = 1);
        assert_eq!(ask().await.0, 502, "a log-in page is no empty list");
        crm.crm.knobs("demo", |knobs| knobs.frozen = true);
        let (status, error) = ask().await;
        assert_eq!((status, error["code"].as_str()), (504, Some("crm_timeout")));
        crm.crm.knobs("demo", |knobs| {
            knobs.frozen = false;
            knobs.burst_429 = 1;
            knobs.retry_after = Some("2".to_owned());
        });
        let response = bridge
            .http
            .post(format!("{}/demo/interaction_update", bridge.url))
            .json(&json!({"auth": auth(), "data": {"contact_external_id": id}}))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 429);
        assert!(response.headers().contains_key("retry-after"));
        until("the CRM is asked again", || async { ask().await.0 == 200 }).await;
        bridge.stop().await;
    }
);

on_both!(
    refused_credentials_are_401_and_believed_by_nobody_any_more,
    |backend| async move {
        let crm = Crm::start(5).await;
        let bridge = Bridge::start(backend, &crm, "").await;
        bridge.build().await;
        crm.crm.control(Control::tokens("demo", &["second-token"])).done();
        let data = json!({"contact_external_id": "1"});
        let (status, error) = bridge.interactions(json!(null), data.clone()).await;
        assert_eq!((status, error["code"].as_str()), (401, Some("invalid_credentials")));
        assert_eq!(
            bridge.sync(json!(null)).await.0,
            401,
            "known credentials, and no longer good"
        );
        let new = json!({"auth": {"account": "demo", "token": "second-token"}, "data": data});
        assert_eq!(bridge.post("/demo/interaction_update", new).await.0, 200);
        bridge.stop().await;
    }
);

on_both!(at_the_deadline_complete_types_are_the_answer, |backend| async move {
    let crm = Crm::start(5).await;
    let folder = tempfile::tempdir().unwrap();
    let two = connector(folder.path(), "two", |source| {
        let another = "[[interactions]]\ntype = \"Visit\"\n\
            request = { path = \"/api/${conn.account}/users\" }\nitems = \"response.body.results\"\n\
            map = { id = \"item.id\", subject = \"item.email\", date = \"'2024-01-01T00:00:00Z'\" }\n\n[[actions]]";
        source.replacen("[[actions]]", another, 1)
    });
    let more = format!("interactions.deadline = \"1500ms\"\n{}", beside("two", &two, &crm));
    let bridge = Bridge::start(backend, &crm, &more).await;
    let body = json!({"auth": auth(), "data": {"contact_external_id": "1"}});
    crm.crm.knobs("demo", |knobs| {
        knobs.fault_ops = vec![Op::Tickets];
        knobs.frozen = true;
    });
    let (status, found) = bridge.post("/two/interaction_update", body.clone()).await;
    assert_eq!(status, 200, "{found}");
    let kinds = |found: &Value| {
        let kinds = found
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["type"].as_str().unwrap().to_owned());
        kinds.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(kinds(&found), ["Visit".to_owned()].into());
    crm.crm.knobs("demo", |knobs| knobs.frozen = false);
    let id = busy(&bridge, &crm, "demo").await;
    let body = json!({"auth": auth(), "data": {"contact_external_id": id}});
    let (_, found) = bridge.post("/two/interaction_update", body).await;
    assert_eq!(kinds(&found), ["Visit".to_owned(), "ticket".to_owned()].into());
    bridge.stop().await;
});
