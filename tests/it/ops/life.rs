//! Accounts that are added by hand, suspended, dropped; contacts that are erased.

use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::docs::{self, Change as Write};
use contacts::ports::{DocKey, DocKind};
use contacts::{AccountId, Clock, Stream, SystemClock, work};
use fake_crm::{Change, Control};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ADMIN, Api, OPERATE, admin, nothing_runs, sentence, tokens};
use crate::harness::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As if Talkdesk had been silent for so long.
pub async fn silent_for(bridge: &Bridge, account: &AccountId, silence: Duration) {
    let at = SystemClock.now().minus(silence);
    let key = DocKey::of_account(DocKind::Account, account);
    docs::update(&*bridge.store, &key, |known: Option<Account>| {
        let known = known.expect("an account");
        let put = Account {
            created: at,
            called: at,
            ..known
        };
        (Write::Put(put), Vec::new(), ())
    })
    .await
    .expect("a store");
}

async fn stored(bridge: &Bridge, account: &AccountId) -> Option<Account> {
    accounts::get(&*bridge.store, account).await.expect("a store")
}

async fn deeds(bridge: &Bridge) -> Vec<(String, String)> {
    let audit = admin(bridge).get("/api/audit").await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = audit.as_array().expect("entries").iter();
    entries
        .map(|entry| (text(&entry["by"]), text(&entry["action"])))
        .collect()
}

on_both!(
    an_account_nobody_calls_for_is_suspended_and_a_call_revives_it,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let account = bridge.build().await;
        nothing_runs(&bridge, &account).await;
        silent_for(&bridge, &account, DAY * 31).await;
        until("its credentials are wiped", || async {
            stored(&bridge, &account).await.expect("it stays").credentials.is_none()
        })
        .await;
        let work = work::load(&*bridge.store, &account).await.expect("a store");
        assert!(work.suspended.is_some());
        let said = sentence(&bridge, &account).await;
        assert!(said.starts_with("suspended") && said.contains("31 days"), "{said}");
        until("the deed is in the audit", || async {
            deeds(&bridge)
                .await
                .contains(&("the sweep".to_owned(), "suspend".to_owned()))
        })
        .await;
        let calls = crm.calls();
        let path = format!("/api/accounts/{account}");
        let said = admin(&bridge).post(&format!("{path}/full")).await;
        assert!(said.starts_with("Noted"), "{said}");
        let (_, told) = admin(&bridge)
            .ask(Method::POST, &format!("{path}/explain"), Some(json!({"who": "7"})))
            .await;
        assert_eq!(told["contacts"][0]["standing"], "unconfirmed", "{told}");
        assert_eq!(crm.calls(), calls, "a suspended account makes no call");

        // Wrong credentials revive nothing.
        let (status, _) = bridge.validate(json!({"account": "demo", "token": "wrong"})).await;
        assert_eq!(status, 401);
        assert!(stored(&bridge, &account).await.expect("it stays").credentials.is_none());
        crm.crm.control(Control::create("demo", 1)).done();
        // Talkdesk's next sync is served from the snapshot as it was, and finds what is new later.
        let (status, _) = bridge.sync(json!({})).await;
        assert_eq!(status, 200);
        let work = work::load(&*bridge.store, &account).await.expect("a store");
        assert!(work.suspended.is_none() && work.park.is_none());
        until("it is up to date again", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        assert_eq!(bridge.account().await, account);
        bridge.stop().await;
    }
);

on_both!(
    a_suspended_account_is_dropped_with_all_its_data_unless_it_is_paused,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let account = bridge.build().await;
        let path = format!("/api/accounts/{account}");
        admin(&bridge).post(&format!("{path}/pause")).await;
        nothing_runs(&bridge, &account).await;
        silent_for(&bridge, &account, DAY * 91).await;
        // Another account that is due shows that the walk has been round.
        let other = bridge.validate(json!({"account": "other", "token": TOKEN})).await;
        assert_eq!(other.0, 200);
        let ids = snapbridge::sampling::account_ids(&*bridge.store, 10)
            .await
            .expect("accounts");
        let other = ids.into_iter().find(|id| *id != account).expect("the other one");
        silent_for(&bridge, &other, DAY * 91).await;
        until("the other one is dropped", || async {
            stored(&bridge, &other).await.is_none()
        })
        .await;
        until("the walk has been round", || async {
            deeds(&bridge).await.iter().any(|(_, deed)| deed == "drop")
        })
        .await;
        let kept = stored(&bridge, &account).await.expect("a paused one is left alone");
        assert!(!kept.credentials.is_none());

        admin(&bridge).post(&format!("{path}/resume")).await;
        until("it is dropped", || async { stored(&bridge, &account).await.is_none() }).await;
        for stream in [Stream::Contacts, Stream::Agents] {
            until("its snapshots are gone", || async {
                bridge.store.head(&account, stream).await.expect("a store").is_none()
            })
            .await;
        }
        until("its work is gone", || async {
            work::load(&*bridge.store, &account).await.expect("a store") == work::Work::default()
        })
        .await;
        let deeds = deeds(&bridge).await;
        assert!(
            deeds
                .iter()
                .filter(|(by, deed)| by == "the sweep" && deed == "drop")
                .count()
                >= 1,
            "{deeds:?}"
        );
        // Talkdesk may come back all the same, as somebody new.
        bridge.build().await;
        assert_eq!(bridge.run(None).await.ids().len(), 20);
        bridge.stop().await;
    }
);

on_both!(
    an_account_is_added_and_warm_before_talkdesk_calls,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let add = |token, body: Value| {
            let bridge = &bridge;
            async move {
                Api { bridge, token }
                    .ask(Method::POST, "/api/accounts", Some(body))
                    .await
            }
        };
        let good = json!({"integration": "demo", "auth": auth()});
        assert_eq!(add(OPERATE, good.clone()).await.0, 403);
        for (body, status, says) in [
            (json!({"integration": "nobody", "auth": {}}), 404, "nobody"),
            (
                json!({"integration": "demo", "auth": {"account": "demo", "tokn": "x"}}),
                400,
                "tokn",
            ),
            (
                json!({"integration": "demo", "auth": {"account": "demo"}}),
                409,
                "token",
            ),
            (
                json!({"integration": "demo", "auth": {"account": "demo", "token": "canary-4711"}}),
                409,
                "credentials",
            ),
            (json!({"integration": "demo"}), 400, "auth"),
        ] {
            let (found, refused) = add(ADMIN, body).await;
            assert_eq!(found, status, "{refused}");
            let said = refused["message"].as_str().unwrap();
            assert!(said.contains(says) && !said.contains("canary"), "{said}");
        }
        assert!(
            snapbridge::sampling::account_ids(&*bridge.store, 9)
                .await
                .expect("a store")
                .is_empty()
        );
        let (status, added) = add(ADMIN, good.clone()).await;
        assert_eq!((status.as_u16(), &added["new"]), (200, &json!(true)), "{added}");
        let account = bridge.account().await;
        assert_eq!(added["account"], account.as_str());
        until("it is built", || async {
            let head = bridge.store.head(&account, Stream::Contacts).await.expect("a store");
            head.is_some_and(|head| head.ready)
        })
        .await;
        let shown = admin(&bridge).get(&format!("/api/accounts/{account}")).await;
        assert_eq!(shown["called"], Value::Null, "Talkdesk has not called: {shown}");
        let checks = crm.checks();
        assert_eq!(bridge.run(None).await.ids().len(), 20);
        assert_eq!(crm.checks(), checks, "its credentials are known");
        let (_, again) = add(ADMIN, good).await;
        assert_eq!(again["new"], false, "{again}");
        bridge.stop().await;
    }
);

on_both!(
    an_erased_contact_stays_out_whatever_the_crm_says_until_that_is_lifted,
    |backend| async move {
        let crm = Crm::start(20).await;
        let bridge = Bridge::start(backend, &crm, &tokens("refresh.poll = \"1h\"")).await;
        let account = bridge.build().await;
        nothing_runs(&bridge, &account).await;
        let ask = |token, how: &str, body: Value| {
            let (bridge, path) = (&bridge, format!("/api/accounts/{account}/{how}"));
            async move { Api { bridge, token }.ask(Method::POST, &path, Some(body)).await }
        };
        let body = json!({"contact": "7", "reason": "asked for by the customer"});
        assert_eq!(ask(OPERATE, "erase", body.clone()).await.0, 403);
        assert_eq!(ask(ADMIN, "erase", json!({"contact": "7", "reason": " "})).await.0, 400);
        assert_eq!(ask(ADMIN, "lift", body.clone()).await.0, 404);
        // Also while the account stands still.
        admin(&bridge).post(&format!("/api/accounts/{account}/pause")).await;
        let (status, said) = ask(ADMIN, "erase", body.clone()).await;
        assert_eq!(status, 200, "{said}");
        admin(&bridge).post(&format!("/api/accounts/{account}/resume")).await;
        let has = || async { bridge.run(None).await.ids().contains("7") };
        assert!(!has().await);
        assert_eq!(bridge.run(None).await.ids().len(), 19);

        // Neither a full pass nor a fetch that a webhook asks for brings it back.
        crm.crm.control(Control::edit("demo", Change::ids([7, 8]))).done();
        let marked = bridge
            .store
            .mark(&account, &["7".to_owned(), "8".to_owned()], SystemClock.now(), 10)
            .await;
        assert_eq!(marked.expect("a store").waiting, 2);
        admin(&bridge).post(&format!("/api/accounts/{account}/full")).await;
        until("the other edit is there", || async {
            let (held, crm) = (bridge.run(None).await.titles(), truth(&crm));
            held.get("8") == crm.get("8")
        })
        .await;
        nothing_runs(&bridge, &account).await;
        let work_done = || async {
            let work = work::load(&*bridge.store, &account).await.expect("a store");
            work.tasks[&contacts::Kind::Full].due > Some(SystemClock.now())
        };
        until("the pass is over", work_done).await;
        assert!(!has().await);
        let (_, told) = ask(OPERATE, "explain", json!({"who": "7"})).await;
        assert_eq!(told["contacts"][0]["standing"], "erased", "{told}");
        let known = bridge
            .store
            .known(&account, Stream::Contacts, &["7".to_owned()])
            .await
            .expect("a store");
        assert!(
            known[0]
                .as_ref()
                .is_none_or(|known| known.is_tombstone() && known.keys.is_empty()),
            "{known:?}"
        );

        let (status, said) = ask(ADMIN, "lift", body).await;
        assert_eq!(status, 200, "{said}");
        until("it is back", has).await;
        let audit = admin(&bridge).get("/api/audit").await;
        assert!(audit.to_string().contains("asked for by the customer"), "{audit}");
        bridge.stop().await;
    }
);

on_both!(
    a_contact_that_is_erased_during_a_slice_is_out_when_it_ends,
    |backend| async move {
        let crm = Crm::start(20).await;
        // The slice outlasts the operator's patience, as a call of it may take longer.
        let more = tokens("refresh.poll = \"1h\"\ncrm.read_timeout = \"1m\"");
        let bridge = Bridge::start(backend, &crm, &more).await;
        let account = bridge.build().await;
        let path = format!("/api/accounts/{account}");
        let body = |contact: &str| json!({"contact": contact, "reason": "asked for"});
        let hang = |on: bool| {
            crm.crm.knobs("demo", |knobs| {
                knobs.frozen = on;
                knobs.fault_ops = vec![fake_crm::Op::List, fake_crm::Op::Changes];
            });
        };
        let ended = || async { crm.crm.stats("demo").in_flight == 0 };
        let removed = |id: &'static str| {
            let bridge = &bridge;
            async move { !bridge.run(None).await.ids().contains(id) }
        };
        // The page in hand holds a new version of it, and the slice has not heard of the erasure.
        for (contact, waited) in [("7", true), ("8", false)] {
            nothing_runs(&bridge, &account).await;
            crm.crm.control(Control::edit("demo", Change::ids([7, 8]))).done();
            hang(true);
            admin(&bridge).post(&format!("{path}/full")).await;
            until("a page is in hand", || async { crm.crm.stats("demo").in_flight > 0 }).await;
            let erase = async {
                let ask = admin(&bridge);
                ask.ask(Method::POST, &format!("{path}/erase"), Some(body(contact)))
                    .await
            };
            let (status, said) = match waited {
                true => {
                    let noted = async {
                        until("the erasure is noted", || async {
                            let erased = contacts::erased::load(&*bridge.store, &account).await.expect("a store");
                            erased.since(&bridge.keys, &account, contact).is_some()
                        })
                        .await;
                        hang(false);
                    };
                    tokio::join!(erase, noted).0
                }
                false => erase.await,
            };
            hang(false);
            let expected = if waited { 200 } else { 409 };
            assert_eq!(status, expected, "{said}");
            if !waited {
                // Nobody waits any more: it is given again, as the answer says.
                assert!(said["message"].as_str().expect("words").contains("Try again"), "{said}");
                until("the slice is over", ended).await;
                let again = || async {
                    let ask = admin(&bridge);
                    ask.ask(Method::POST, &format!("{path}/erase"), Some(body(contact)))
                        .await
                        .0
                        == 200
                };
                until("it is erased", again).await;
            }
            assert!(removed(contact).await, "{contact} is out");
            nothing_runs(&bridge, &account).await;
            assert!(removed(contact).await, "{contact} stays out");
        }
        bridge.stop().await;
    }
);
