//! Every shipped connector against the fake CRM that plays its vendor, through the front.

pub mod cases;
mod login;
mod soap;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use fake_crm::{Change, Control, Fields};
use serde_json::{Value, json};
use snapbridge::wiring::Role;

use crate::door::Door;
use crate::harness::*;
use crate::subscriptions::subscribed;
use cases::{CASES, Case, Hook, Told, case};

/// Edits are made this long ago: some connectors leave out what is newer than a minute.
const AGO_MS: i64 = 90_000;

/// A bridge with the integration `crm`, and its account's credentials.
struct Scene<'a> {
    case: &'a Case,
    crm: &'a Crm,
    bridge: Bridge,
    auth: Value,
}

impl<'a> Scene<'a> {
    fn new(case: &'a Case, crm: &'a Crm, bridge: Bridge) -> Scene<'a> {
        let auth = case.auth(crm);
        Scene {
            case,
            crm,
            bridge,
            auth,
        }
    }

    async fn post(&self, path: &str, mut body: Value) -> (u16, Value) {
        body["auth"] = self.auth.clone();
        self.bridge.post(&format!("/crm/{path}"), body).await
    }

    async fn build(&self) {
        let (status, body) = self.post("auth_validation", json!({})).await;
        assert_eq!(status, 200, "{body}");
        let account = self.bridge.account().await;
        until("the first passes are complete", || async {
            let work = contacts::work::load(&*self.bridge.store, &account).await;
            let work = work.expect("the account's work");
            let done = |kind| work.tasks.get(&kind).is_some_and(|task| task.last_done.is_some());
            done(contacts::Kind::Full) && done(contacts::Kind::Agents)
        })
        .await;
    }

    /// Everything from a checkpoint on: the last version of each, and the last checkpoint.
    async fn run(&self, checkpoint: Option<&str>) -> Run {
        let mut run = Run::default();
        let mut meta = json!({ "synchronization_checkpoint": checkpoint });
        loop {
            let (status, page) = self.post("contact_sync", json!({ "meta": meta })).await;
            assert_eq!(status, 200, "{page}");
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

    /// The ids of the living, as the vendor writes them.
    fn living(&self) -> BTreeSet<String> {
        let rows = self.crm.crm.truth("demo").into_iter();
        rows.map(|row| self.id(&row.id)).collect()
    }

    fn id(&self, id: &str) -> String {
        self.case.profile.contact_id(id)
    }

    /// Waits until the one that was deleted at the CRM is gone, and nobody else is.
    async fn gone(&self, id: &str) {
        assert!(!self.living().contains(&self.id(id)));
        let what = format!("{}: the deleted one is gone", self.case.connector);
        until(&what, || async { self.run(None).await.ids() == self.living() }).await;
    }

    /// Waits until what webhooks named was fetched: nobody is lost over it.
    async fn fetched(&self) {
        let account = self.bridge.account().await;
        until("what webhooks named is fetched", || async {
            let work = contacts::work::load(&*self.bridge.store, &account).await;
            let waits = work
                .expect("the account's work")
                .tasks
                .get(&contacts::Kind::Ids)
                .is_some_and(|task| task.due.is_some());
            let dirty = self.bridge.store.dirty(&account, 1).await.expect("a store");
            !waits && dirty.is_empty()
        })
        .await;
        assert_eq!(self.run(None).await.ids(), self.living());
    }

    /// The CRM's own counters: never one call too many, and none that it does not know.
    fn within_the_limits(&self) {
        let stats = self.crm.crm.stats("demo");
        assert_eq!(stats.calls_of("unknown"), 0, "{:?}", stats.calls);
        assert_eq!((stats.over_limit, stats.over_concurrency), (0, 0), "{:?}", stats.limits);
        for (name, limit) in &stats.limits {
            assert_eq!(limit.over_limit, 0, "{name}");
        }
    }
}

fn long_ago() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(now.as_millis()).expect("milliseconds") - AGO_MS
}

fn renamed(ids: &[u32], name: &str) -> Control {
    let fields = Fields {
        first_name: Some(name.to_owned()),
        last_name: Some("Lund".to_owned()),
        ..Fields::default()
    };
    Control::edit("demo", Change::ids(ids).with(fields).stamped(long_ago()))
}

/// A full sync, edits and a deletion that polls find, an interaction, and each action.
async fn polled(case: &Case, backend: Backend) {
    let crm = case.crm(230).await;
    let bridge = Bridge::start(backend, &crm, &case.settings(&crm, "1s")).await;
    let scene = Scene::new(case, &crm, bridge);
    scene.build().await;
    let first = scene.run(None).await;
    assert_eq!(first.ids(), scene.living());

    crm.crm.control(renamed(&[3, 77, 200], "Edited")).done();
    let edited = BTreeSet::from(["3", "77", "200"].map(|id| scene.id(id)));
    until("the edits arrive", || async {
        scene.run(Some(&first.checkpoint)).await.ids() == edited
    })
    .await;
    for contact in &scene.run(Some(&first.checkpoint)).await.contacts {
        assert_eq!(contact["name"], "Edited Lund", "{contact}");
    }
    crm.crm.control(Control::delete("demo", Change::ids([5]))).done();
    until("the deleted one is gone", || async {
        scene.run(None).await.ids() == scene.living()
    })
    .await;

    interactions(&scene).await;
    actions(&scene).await;
    scene.within_the_limits();
    scene.bridge.stop().await;
}

async fn interactions(scene: &Scene<'_>) {
    if !scene.case.interactions {
        return;
    }
    for id in 1..=20 {
        let data = json!({"contact_external_id": scene.id(&id.to_string())});
        let (status, found) = scene.post("interaction_update", json!({ "data": data })).await;
        // The fifth is gone.
        if id == 5 {
            continue;
        }
        assert_eq!(status, 200, "{found}");
        let found = found.as_array().expect("a bare array");
        if let Some(one) = found.first() {
            assert!(one["subject"].as_str().is_some_and(|text| !text.is_empty()), "{one}");
            return;
        }
    }
    panic!("nobody of the first twenty had anything to do with the customer");
}

/// Each action that the fake plays is done, and the CRM has one thing more for each.
async fn actions(scene: &Scene<'_>) {
    let source = crm::Connector::shipped(scene.case.connector).expect("it is shipped");
    let connector = crm::Connector::load(source, "connector.toml").expect("it loads");
    let made = || scene.crm.crm.stats("demo").made.values().sum::<u64>();
    for name in connector.actions().filter(|name| !scene.case.not_played.contains(name)) {
        let before = made();
        let data = json!({
            "name": "Bo Ek", "first_name": "Bo", "last_name": "Ek", "company": "Ek AB", "title": "Owner", "email": "bo@example.com",
            "phone": "+351 912 345 678", "website": "https://ek.example.com", "subject": "Call back", "description": "Tomorrow",
            "note": "Prefers e-mail", "notes": "Asked for a call back", "direction": "inbound", "started": "2026-11-21T01:30:00Z",
            "duration": "95", "recording": "https://rec.example.com/1",
        });
        let meta = json!({"contact_external_id": scene.id("1")});
        let (status, done) = scene
            .post(&format!("actions/{name}"), json!({"meta": meta, "data": data}))
            .await;
        assert_eq!(status, 201, "{name}: {done}");
        assert!(made() > before, "{name} made nothing");
    }
}

/// Edits and a deletion that come by the vendor's own webhook, with polls an hour apart.
async fn pushed(case: &Case, backend: Backend) {
    let crm = case.crm(60).await;
    let door = Door::open().await;
    let mut settings = case.settings(&crm, "1h");
    if case.hook == Hook::Asked {
        settings.insert_str(0, &format!("http.public_url = \"{}\"\n", door.url));
    }
    let bridge = Bridge::start(backend, &crm, &settings).await;
    door.lead_to(&bridge);
    let scene = Scene::new(case, &crm, bridge);
    scene.build().await;
    let first = scene.run(None).await;
    match case.webhook(&scene.bridge).await {
        Some(webhook) => {
            crm.crm.control(Control::webhook("demo", Some(webhook))).done();
        }
        None => subscribed(&scene.bridge).await,
    }
    crm.crm.control(renamed(&[10, 20], "Pushed")).done();
    let edited = BTreeSet::from(["10", "20"].map(|id| scene.id(id)));
    until("the edits arrive", || async {
        scene.run(Some(&first.checkpoint)).await.ids() == edited
    })
    .await;
    scene.fetched().await;
    if case.hook_of_deletions {
        crm.crm.control(Control::delete("demo", Change::ids([30]))).done();
        scene.gone("30").await;
    }
    let stats = crm.crm.stats("demo").webhooks;
    assert_eq!(stats.given_up, 0, "{stats:?}");
    assert!(!stats.attempts.contains_key("not acknowledged"), "{stats:?}");
    scene.within_the_limits();
    scene.bridge.stop().await;
}

/// A deletion that no webhook tells of: `told` says whether a poll is, or only the full pass that follows can tell.
async fn deleted(case: &Case, told: Told) {
    let crm = case.crm(60).await;
    let reconcile = match told {
        Told::Yes => "1h",
        Told::No => {
            crm.crm.knobs("demo", |knobs| knobs.no_tombstones = true);
            "1s"
        }
    };
    let bridge = Bridge::start(Backend::Embedded, &crm, &case.paced(&crm, "1s", reconcile)).await;
    let scene = Scene::new(case, &crm, bridge);
    scene.build().await;
    assert_eq!(scene.run(None).await.ids(), scene.living());
    crm.crm.control(Control::delete("demo", Change::ids([5]))).done();
    scene.gone("5").await;
    scene.within_the_limits();
    scene.bridge.stop().await;
}

macro_rules! scenes {
    ($($name:ident $id:literal)*) => {
        $(mod $name {
            use super::*;

            on_both!(by_poll, |backend| async move { polled(case($id), backend).await });

            /// Whatever a poll is told or was told too early: the full pass finds it.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn deletions_without_a_trace() {
                deleted(case($id), Told::No).await;
            }
        })*

        #[test]
        fn every_shipped_connector_is_played() {
            let played: BTreeSet<&str> = CASES.iter().map(|case| case.connector).collect();
            assert_eq!(played, BTreeSet::from([$($id),*]));
            let shipped: BTreeSet<&str> = crm::Connector::shipped_ids().filter(|id| *id != "demo").collect();
            assert_eq!(played, shipped);
        }
    };
}

scenes! {
    hubspot "hubspot"
    pipedrive "pipedrive"
    espocrm "espocrm"
    zendesk "zendesk"
    zoho "zoho"
    salesforce "salesforce"
    freshdesk "freshdesk"
    intercom "intercom"
    dataverse "dataverse"
    odoo "odoo"
    odoo_json2 "odoo-json2"
    twenty "twenty"
    web1on1 "web1on1"
}

macro_rules! by_webhook {
    ($($name:ident $id:literal)*) => {
        mod by_webhook {
            use super::*;

            $(on_both!($name, |backend| async move { pushed(case($id), backend).await });)*

            #[test]
            fn every_connector_is_played() {
                assert_eq!([$($id),*].len(), CASES.len());
            }
        }
    };
}

by_webhook! {
    hubspot "hubspot"
    pipedrive "pipedrive"
    espocrm "espocrm"
    zendesk "zendesk"
    zoho "zoho"
    salesforce "salesforce"
    freshdesk "freshdesk"
    intercom "intercom"
    dataverse "dataverse"
    odoo "odoo"
    odoo_json2 "odoo-json2"
    twenty "twenty"
    web1on1 "web1on1"
}

macro_rules! deletions_by_poll {
    ($($name:ident $id:literal)*) => {
        /// Lists of deletions, rows that say so, and delta streams are enough: no full pass comes in the time of a test.
        mod deletions_by_poll {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                deleted(case($id), Told::Yes).await;
            })*

            #[test]
            fn every_connector_that_is_told_is_played() {
                let told = CASES.iter().filter(|case| case.told == Told::Yes).map(|case| case.connector);
                assert_eq!(told.collect::<BTreeSet<_>>(), BTreeSet::from([$($id),*]));
            }
        }
    };
}

deletions_by_poll! {
    hubspot "hubspot"
    zendesk "zendesk"
    zoho "zoho"
    salesforce "salesforce"
    freshdesk "freshdesk"
    dataverse "dataverse"
}

macro_rules! of_one_time {
    ($($name:ident $id:literal)*) => {
        mod ten_thousand_of_one_time {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                same_time(case($id)).await;
            })*
        }
    };
}

// Dataverse goes by its own tokens, and by no time.
of_one_time! {
    hubspot "hubspot"
    pipedrive "pipedrive"
    espocrm "espocrm"
    zendesk "zendesk"
    zoho "zoho"
    salesforce "salesforce"
    freshdesk "freshdesk"
    intercom "intercom"
    odoo "odoo"
    odoo_json2 "odoo-json2"
    twenty "twenty"
    web1on1 "web1on1"
}

/// More contacts with one identical time than any CRM gives in one page, or HubSpot in one query: a change pass finds all.
async fn same_time(case: &Case) {
    const ALL: usize = 10_050;
    let crm = case.crm(ALL).await;
    let limits = crm.crm.stats("demo").limits;
    crm.crm.knobs("demo", |knobs| {
        knobs.limits.extend(limits.into_keys().map(|name| (name, None)));
    });
    let source = crm::Connector::shipped(case.connector).expect("it is shipped");
    let connector = crm::Connector::load(source, "connector.toml").expect("it loads");
    process::tls::install_provider();
    let http = crm::Http::new(
        crm::ClientSettings::default(),
        crm::AllowHosts::parse(&[&crm.url]).expect("an origin"),
    );
    let mut fields = std::collections::BTreeMap::from([("site".to_owned(), crm.url.clone())]);
    let given = case.auth(&crm);
    for (name, value) in given.as_object().expect("an object") {
        fields.insert(name.clone(), value.as_str().expect("a text").to_owned());
    }
    let connection = crm::Connection {
        fields,
        region: Some("PT".to_owned()),
    };
    let clock = std::sync::Arc::new(contacts::SystemClock);
    let (http, pacer) = (http.expect("a client"), crm::Pacer::unlimited());
    let client = crm::Client::new(std::sync::Arc::new(connector), http, &connection, pacer, clock).expect("a client");

    let stamp = long_ago();
    let touched = crm
        .crm
        .control(Control::touch("demo", Change::random(ALL).stamped(stamp)))
        .done();
    assert_eq!(touched.ids().len(), ALL);
    let millis = u64::try_from(stamp).expect("after 1970");
    let window = crm::Window {
        since: contacts::Micros::from_millis(millis - 5_000),
        until: contacts::Micros::from_millis(millis + 60_000),
    };
    let (mut found, mut at) = (BTreeSet::new(), None);
    loop {
        let page = client.changes_page(window, None, at.as_ref()).await.expect("a page");
        found.extend(page.rows.into_iter().map(|row| row.contact.id));
        at = page.next;
        if at.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), ALL);
}

/// HubSpot's search ends at 10,000 results to a query; a snapshot has all 25,000, and so has one whole change of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubspot_beyond_the_cap() {
    const ALL: usize = 25_000;
    let base = case("hubspot");
    let quick = Case {
        connection: &[("burst", "100000"), ("search", "1000")],
        ..*base
    };
    let crm = quick.crm(ALL).await;
    crm.crm.knobs("demo", |knobs| {
        let limit = |max, seconds| {
            Some(fake_crm::RateLimit {
                max,
                window: std::time::Duration::from_secs(seconds),
            })
        };
        knobs.limits.insert("ten_secondly".to_owned(), limit(100_000, 10));
        knobs.limits.insert("search".to_owned(), limit(1_000, 1));
    });
    let more = format!("page.contacts = 1000\n{}", quick.settings(&crm, "1s"));
    let bridge = Bridge::set_up(
        Setup {
            backend: Backend::Embedded,
            role: Role::Both,
            more: &more,
            beside: None,
        },
        &crm,
    )
    .await;
    let scene = Scene::new(&quick, &crm, bridge);
    scene.build().await;
    let first = scene.run(None).await;
    assert_eq!(first.ids().len(), ALL);
    let fields = Fields {
        last_name: Some("Changed".to_owned()),
        ..Fields::default()
    };
    let change = Change::random(12_000).with(fields).stamped(long_ago());
    let changed = crm.crm.control(Control::edit("demo", change)).done();
    let changed: BTreeSet<String> = changed.ids().iter().map(|id| scene.id(id)).collect();
    until("all changes arrive", || async {
        scene.run(Some(&first.checkpoint)).await.ids() == changed
    })
    .await;
    scene.within_the_limits();
    scene.bridge.stop().await;
}
