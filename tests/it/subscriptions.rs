//! Webhooks that the bridge asks CRMs for by itself, through the front door: one of each, whatever is lost on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use contacts::accounts;
use contacts::subscription::{self, Standing, Subscription};
use contacts::{AccountId, Kind, Micros, work};
use fake_crm::{Change, Control, Fields, Op, Webhook};
use serde_json::{Value, json};
use snapbridge::status::{self, WebhookState};

use crate::connectors::cases::{Case, case};
use crate::door::Door;
use crate::harness::*;
use crate::ops::life::silent_for;

const OPS: &str = "admin-4b7c0d1e2f3a4958";
/// What somebody else has at the CRM.
const STRANGER: &str = "http://127.0.0.1:9/in";

pub async fn known(bridge: &Bridge, account: &AccountId) -> Subscription {
    let known = subscription::load(&*bridge.store, account).await;
    known.expect("the store answers").unwrap_or_default()
}

/// Waits until the only account has its webhook.
pub async fn subscribed(bridge: &Bridge) {
    let account = bridge.account().await;
    until("the CRM's webhook is there", || async {
        let known = known(bridge, &account).await;
        known.claim.is_none() && known.standing() == Standing::Subscribed
    })
    .await;
}

/// An account of one CRM, whose bridge the world reaches through a door.
struct Scene {
    case: &'static Case,
    crm: Crm,
    door: Door,
    backend: Backend,
}

impl Scene {
    async fn set(connector: &str, backend: Backend) -> Scene {
        let case = case(connector);
        let crm = case.crm(40).await;
        let stranger = Webhook {
            enabled: false,
            ..Webhook::new(STRANGER, "x")
        };
        crm.crm.control(Control::webhook("demo", Some(stranger))).done();
        Scene {
            case,
            crm,
            door: Door::open().await,
            backend,
        }
    }

    /// Polls are an hour apart, so that what arrives came by webhook.
    fn settings(&self) -> String {
        let settings = self.case.settings(&self.crm, "1h");
        format!("http.public_url = \"{}\"\n{settings}", self.door.url)
    }

    async fn bridge(&self, settings: &str) -> Bridge {
        let bridge = Bridge::start(self.backend, &self.crm, settings).await;
        self.door.lead_to(&bridge);
        bridge
    }

    async fn restart(&self, bridge: Bridge, settings: &str) -> Bridge {
        let again = bridge.restart(&self.crm, settings).await;
        self.door.lead_to(&again);
        again
    }

    async fn post(&self, bridge: &Bridge, path: &str, mut body: Value) -> Value {
        body["auth"] = self.case.auth(&self.crm);
        let (status, body) = bridge.post(&format!("/crm/{path}"), body).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn build(&self, bridge: &Bridge) -> AccountId {
        self.post(bridge, "auth_validation", json!({})).await;
        let account = bridge.account().await;
        until("the first full pass is complete", || async {
            let work = work::load(&*bridge.store, &account).await.expect("the account's work");
            work.tasks.get(&Kind::Full).is_some_and(|task| task.last_done.is_some())
        })
        .await;
        account
    }

    async fn run(&self, bridge: &Bridge, checkpoint: Option<&str>) -> Run {
        let mut run = Run::default();
        let mut meta = json!({ "synchronization_checkpoint": checkpoint });
        loop {
            let page = self.post(bridge, "contact_sync", json!({ "meta": meta })).await;
            run.contacts
                .extend(page["contacts"].as_array().expect("contacts").iter().cloned());
            let at = page["synchronization_checkpoint"].as_str().expect("a checkpoint");
            run.checkpoint = at.to_owned();
            let Some(next) = page.get("next_offset") else {
                return run;
            };
            meta = json!({ "offset": next });
        }
    }

    /// An edit at the CRM reaches Talkdesk.
    async fn an_edit_arrives(&self, bridge: &Bridge, name: &str) {
        let before = self.run(bridge, None).await;
        let fields = Fields {
            first_name: Some(name.to_owned()),
            ..Fields::default()
        };
        self.crm
            .crm
            .control(Control::edit("demo", Change::ids([7]).with(fields)))
            .done();
        let edited = BTreeSet::from([self.case.profile.contact_id("7")]);
        until("the edit arrives", || async {
            self.run(bridge, Some(&before.checkpoint)).await.ids() == edited
        })
        .await;
    }

    /// The ids of the subscriptions that deliver to this account's URL; the stranger's must be there, too.
    fn own(&self, bridge: &Bridge, account: &AccountId) -> BTreeSet<String> {
        let url = format!("{}/crm/webhooks/{}", self.door.url, bridge.keys.hook_id(account));
        let hooks = self.crm.crm.hooks("demo");
        let (own, others): (Vec<_>, Vec<_>) = hooks.into_iter().partition(|(_, hook)| hook.url == url);
        let others: Vec<String> = others.into_iter().map(|(_, hook)| hook.url).collect();
        assert_eq!(others, [STRANGER]);
        own.into_iter().map(|(id, _)| id).collect()
    }

    fn calls(&self, op: Op) -> u64 {
        self.crm.crm.stats("demo").calls_of(op.name())
    }

    /// Has the subscription looked at now, and waits until that was done.
    async fn look_again(&self, bridge: &Bridge, account: &AccountId, change: impl Fn(&mut Subscription)) {
        let lists = self.calls(Op::Hooks);
        until("nobody has it in hand, who would set its time anew", || async {
            let changed = subscription::update(&*bridge.store, account, |known| {
                if known.claim.is_some() {
                    return false;
                }
                change(known);
                known.due = Micros::ZERO;
                true
            });
            changed.await.expect("the store answers") == Some(true)
        })
        .await;
        until("it is looked at", || async {
            let known = known(bridge, account).await;
            self.calls(Op::Hooks) > lists && known.claim.is_none() && known.due > Micros::ZERO
        })
        .await;
    }
}

/// How many subscriptions an account of it has.
fn topics(connector: &str) -> usize {
    if connector == "espocrm" { 3 } else { 1 }
}

async fn asks_once_and_edits_arrive(connector: &str, backend: Backend) {
    let scene = Scene::set(connector, backend).await;
    let bridge = scene.bridge(&scene.settings()).await;
    let account = scene.build(&bridge).await;
    subscribed(&bridge).await;
    let own = scene.own(&bridge, &account);
    assert_eq!(own.len(), topics(connector));
    scene.an_edit_arrives(&bridge, "Asked").await;
    assert_eq!(scene.crm.crm.stats("demo").webhooks.given_up, 0);

    // Another process takes over, and finds what is there.
    let again = scene.restart(bridge, &scene.settings()).await;
    scene.look_again(&again, &account, |_| {}).await;
    assert_eq!(scene.own(&again, &account), own);
    assert_eq!(scene.calls(Op::Subscribe), own.len() as u64);
    scene.an_edit_arrives(&again, "Restarted").await;

    // What was known of it is lost: what delivers to the account's own URL is found, and made anew only if its secret is
    // lost with it.
    scene.look_again(&again, &account, |known| known.held.clear()).await;
    subscribed(&again).await;
    let found = scene.own(&again, &account);
    assert_eq!(found.len(), own.len());
    assert_eq!(found == own, connector != "espocrm");
    scene.an_edit_arrives(&again, "Found").await;
    again.stop().await;
}

macro_rules! asked {
    ($($name:ident $id:literal)*) => {
        mod asks_once_and_edits_arrive_by_webhook {
            use super::*;

            $(on_both!($name, |backend| async move { asks_once_and_edits_arrive($id, backend).await });)*

            #[test]
            fn every_connector_that_can_is_played() {
                let can = |id: &str| {
                    let source = crm::Connector::shipped(id).expect("it is shipped");
                    let connector = crm::Connector::load(source, "connector.toml").expect("it loads");
                    connector.webhook().is_some_and(|hooks| hooks.can_subscribe())
                };
                let able: Vec<&str> = crm::Connector::shipped_ids().filter(|id| can(id)).collect();
                assert_eq!(able, [$($id),*]);
            }
        }
    };
}

asked! {
    espocrm "espocrm"
    pipedrive "pipedrive"
    twenty "twenty"
    zendesk "zendesk"
    zoho "zoho"
}

on_both!(a_subscription_that_ends_is_renewed_before, |backend| async move {
    let scene = Scene::set("zoho", backend).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("zoho.toml");
    let source = crm::Connector::shipped("zoho").expect("it is shipped");
    let before = "renew_before  = \"6h\"";
    assert!(source.contains(before));
    // One second of the 23 hours is left before it is near its end.
    std::fs::write(&file, source.replace(before, "renew_before = \"82799s\"")).expect("a file");
    let path = format!("connector = \"{}\"", file.display());
    let settings = scene.settings().replace("connector = \"zoho\"", &path);
    let bridge = scene.bridge(&settings).await;
    let account = scene.build(&bridge).await;
    subscribed(&bridge).await;
    let first = known(&bridge, &account).await.held;
    let end = first[0].expires.expect("a channel ends");
    assert!(
        known(&bridge, &account).await.due < end,
        "it would be looked at too late"
    );
    until("it has been renewed", || async {
        scene.look_again(&bridge, &account, |_| {}).await;
        scene.calls(Op::RenewHook) > 0
    })
    .await;
    assert_eq!(scene.own(&bridge, &account).len(), 1);
    assert_eq!(scene.calls(Op::Subscribe), 1);
    until("its later end is known", || async {
        let known = known(&bridge, &account).await;
        known.held.len() == 1 && known.held[0].id == first[0].id && known.held[0].expires > first[0].expires
    })
    .await;
    scene.an_edit_arrives(&bridge, "Renewed").await;
    bridge.stop().await;
});

async fn a_lost_answer(connector: &str, backend: Backend) {
    let scene = Scene::set(connector, backend).await;
    scene.crm.crm.knobs("demo", |knobs| {
        knobs.cut = 2;
        knobs.fault_ops = vec![Op::Subscribe];
    });
    let bridge = scene.bridge(&scene.settings()).await;
    let account = scene.build(&bridge).await;
    subscribed(&bridge).await;
    assert_eq!(scene.own(&bridge, &account).len(), topics(connector));
    let cut = scene.crm.crm.stats("demo").calls_of(Op::Subscribe.name());
    assert!(cut > 1 || connector != "espocrm", "no answer was lost");
    scene.an_edit_arrives(&bridge, "Cut").await;
    bridge.stop().await;
}

mod a_lost_answer_of_the_creation_makes_no_second_one {
    use super::*;

    on_both!(whose_secret_came_with_it, |backend| async move {
        a_lost_answer("espocrm", backend).await;
    });
    on_both!(whose_secret_can_be_asked_for, |backend| async move {
        a_lost_answer("zendesk", backend).await;
    });
    on_both!(whose_secret_is_ours, |backend| async move {
        a_lost_answer("pipedrive", backend).await;
    });
}

on_both!(a_refusal_is_shown_and_everything_else_goes_on, |backend| async move {
    let scene = Scene::set("espocrm", backend).await;
    scene
        .crm
        .crm
        .knobs("demo", |knobs| knobs.forbidden_ops = vec![Op::Subscribe]);
    let settings = scene.settings().replace("poll = \"1h\"", "poll = \"1s\"");
    let bridge = scene.bridge(&settings).await;
    let account = scene.build(&bridge).await;
    let shown = || async {
        let now = contacts::Clock::now(&contacts::SystemClock);
        let status = status::read(&*bridge.store, None, now, 10)
            .await
            .expect("the store answers");
        let text = status.text();
        let mut accounts = status.accounts;
        accounts
            .pop()
            .and_then(|account| account.webhook)
            .map(|webhook| (webhook, text))
    };
    until("the refusal is shown", || async {
        shown()
            .await
            .is_some_and(|(webhook, _)| webhook.state == WebhookState::Failed)
    })
    .await;
    let (webhook, text) = shown().await.expect("it is told of");
    assert!(
        webhook.sentence.contains("does not let this user subscribe"),
        "{}",
        webhook.sentence
    );
    assert!(text.contains(&webhook.sentence), "{text}");
    scene.an_edit_arrives(&bridge, "Polled").await;
    let work = work::load(&*bridge.store, &account).await.expect("the account's work");
    assert!(work.park.is_none(), "a refused webhook is no refusal of the account");
    assert!(scene.own(&bridge, &account).is_empty());

    scene.crm.crm.knobs("demo", |knobs| knobs.forbidden_ops.clear());
    scene.look_again(&bridge, &account, |_| {}).await;
    subscribed(&bridge).await;
    assert_eq!(scene.own(&bridge, &account).len(), 3);
    let (webhook, _) = shown().await.expect("it is told of");
    assert_eq!(
        (webhook.state, webhook.sentence.as_str()),
        (WebhookState::Subscribed, "webhook subscribed")
    );
    bridge.stop().await;
});

on_both!(
    what_is_not_wanted_any_more_is_ended_and_nothing_else,
    |backend| async move {
        let scene = Scene::set("espocrm", backend).await;
        let bridge = scene.bridge(&scene.settings()).await;
        let account = scene.build(&bridge).await;
        subscribed(&bridge).await;
        let connector = "connector = \"espocrm\"\n";
        let off = scene
            .settings()
            .replace(connector, &format!("{connector}subscribe = \"off\"\n"));
        let again = scene.restart(bridge, &off).await;
        until("the start ends it", || async {
            known(&again, &account).await.standing() == Standing::ByHand("integrations.crm.subscribe is off")
        })
        .await;
        assert!(scene.own(&again, &account).is_empty());
        again.stop().await;
    }
);

on_both!(
    another_public_url_is_taken_up_with_the_next_start,
    |backend| async move {
        let mut scene = Scene::set("espocrm", backend).await;
        let bridge = scene.bridge(&scene.settings()).await;
        let account = scene.build(&bridge).await;
        subscribed(&bridge).await;
        let before = scene.own(&bridge, &account);
        // The next look would come in an hour.
        scene.door = Door::open().await;
        let again = scene.restart(bridge, &scene.settings()).await;
        until("it delivers to the new URL alone", || async {
            let hooks = scene.crm.crm.hooks("demo");
            let moved = hooks
                .values()
                .filter(|hook| hook.url.starts_with(&scene.door.url))
                .count();
            (hooks.len(), moved) == (topics("espocrm") + 1, topics("espocrm"))
        })
        .await;
        subscribed(&again).await;
        assert!(scene.own(&again, &account).is_disjoint(&before));
        scene.an_edit_arrives(&again, "Moved").await;
        let asked = scene.calls(Op::Subscribe);

        // From nowhere to somewhere: what was left to a person is asked for.
        let without = scene.case.settings(&scene.crm, "1h");
        let nowhere = scene.restart(again, &without).await;
        until("it is left to a person", || async {
            known(&nowhere, &account).await.standing() == Standing::ByHand("http.public_url is not set")
        })
        .await;
        let somewhere = scene.restart(nowhere, &scene.settings()).await;
        subscribed(&somewhere).await;
        assert_eq!(scene.own(&somewhere, &account).len(), topics("espocrm"));
        assert_eq!(scene.calls(Op::Subscribe), asked + topics("espocrm") as u64);
        somewhere.stop().await;
    }
);

on_both!(
    a_forgotten_account_takes_its_webhook_along_and_no_other,
    |backend| async move {
        let scene = Scene::set("espocrm", backend).await;
        let settings = format!("ops.admin = \"{OPS}\"\n{}", scene.settings());
        let bridge = scene.bridge(&settings).await;
        let account = scene.build(&bridge).await;
        subscribed(&bridge).await;
        assert_eq!(scene.own(&bridge, &account).len(), 3);
        let forget = bridge
            .http
            .post(format!("{}/api/accounts/{account}/forget", bridge.admin))
            .bearer_auth(OPS);
        let answer: Value = forget.send().await.expect("an answer").json().await.expect("JSON");
        let said = answer["said"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(said.starts_with("Forgotten") && !said.contains("still"), "{said}");
        assert!(scene.own(&bridge, &account).is_empty());
        let left = scene.crm.crm.hooks("demo");
        assert!(left.values().any(|hook| hook.url == STRANGER), "somebody else's stays");
        let known = subscription::load(&*bridge.store, &account).await.expect("a store");
        assert_eq!(known, None);
        bridge.stop().await;
    }
);

on_both!(
    a_suspended_account_has_no_webhook_and_asks_for_one_when_it_is_called_for_again,
    |backend| async move {
        let scene = Scene::set("espocrm", backend).await;
        let bridge = scene.bridge(&scene.settings()).await;
        let account = scene.build(&bridge).await;
        subscribed(&bridge).await;
        assert_eq!(scene.own(&bridge, &account).len(), 3);
        silent_for(&bridge, &account, Duration::from_secs(31 * 24 * 3600)).await;
        until("its credentials are wiped", || async {
            let stored = accounts::get(&*bridge.store, &account).await.expect("a store");
            stored.expect("it stays").credentials.is_none()
        })
        .await;
        // The webhook went first, as that takes the credentials; somebody else's stays.
        assert!(scene.own(&bridge, &account).is_empty());
        let known = subscription::load(&*bridge.store, &account).await.expect("a store");
        assert_eq!(known, None);

        scene.post(&bridge, "contact_sync", json!({})).await;
        subscribed(&bridge).await;
        assert_eq!(scene.own(&bridge, &account).len(), 3);
        scene.an_edit_arrives(&bridge, "Revived").await;
        bridge.stop().await;
    }
);

on_both!(
    nothing_is_asked_for_where_the_world_does_not_reach_the_bridge,
    |backend| async move {
        let scene = Scene::set("espocrm", backend).await;
        for (public_url, why) in [
            ("", "http.public_url is not set"),
            (
                "http.public_url = \"http://bridge.example\"\n",
                "http.public_url is not https",
            ),
        ] {
            let settings = format!("{public_url}{}", scene.case.settings(&scene.crm, "1h"));
            let bridge = scene.bridge(&settings).await;
            let account = scene.build(&bridge).await;
            until("that is said", || async {
                known(&bridge, &account).await.standing() == Standing::ByHand(why)
            })
            .await;
            bridge.stop().await;
        }
        let asked = [Op::Hooks, Op::Subscribe].map(|op| scene.calls(op));
        assert_eq!(asked, [0, 0]);
    }
);

on_both!(
    invariant_12_the_secret_of_a_webhook_lies_in_the_store_only_sealed,
    |backend| async move {
        let scene = Scene::set("espocrm", backend).await;
        let bridge = scene.bridge(&scene.settings()).await;
        scene.build(&bridge).await;
        subscribed(&bridge).await;
        let hooks = scene
            .crm
            .crm
            .hooks("demo")
            .into_values()
            .filter(|hook| hook.url != STRANGER);
        let secrets: Vec<String> = hooks.map(|hook| hook.secret).collect();
        assert_eq!(secrets.len(), 3);
        let mut stored = Vec::new();
        match backend {
            Backend::Distributed => {
                for (key, value) in bridge.redis_dump().await {
                    stored.extend_from_slice(key.as_bytes());
                    stored.extend_from_slice(&value);
                }
            }
            Backend::Embedded => {
                for entry in std::fs::read_dir(bridge.folder()).expect("a folder") {
                    let path = entry.expect("an entry").path();
                    if path.is_file() {
                        stored.extend_from_slice(&std::fs::read(path).expect("a file"));
                    }
                }
            }
        }
        assert!(!stored.is_empty());
        for secret in secrets {
            let holds = stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
            assert!(!holds, "the secret lies there readably");
        }
        bridge.stop().await;
    }
);
