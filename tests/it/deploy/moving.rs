//! From the embedded store to Redis and RabbitMQ, with the same key file: to Talkdesk it is repeated contacts and nothing else.

use std::collections::BTreeMap;

use contacts::accounts::{Account, Sealed};
use contacts::audit::Entry;
use contacts::holds::Scope;
use contacts::keys::{Fingerprint, Identity, Keys};
use contacts::ports::DocKind;
use contacts::subscription::{self, Held};
use contacts::transfer::{self, Item, Then};
use contacts::work::{self, WorkTimes};
use contacts::{Lane, Micros, Store, holds};
use serde_json::{Value, json};

use crate::faults::{Rig, account, delivered, own_servers, until_built};
use crate::harness::*;

/// Who is erased before the move.
const ERASED: &str = "7";
const FILE: &str = "carried.jsonl";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_goes_on_and_talkdesk_sees_repeated_contacts_at_most() {
    moves(true).await;
}

/// The key file alone: the account registers itself with Talkdesk's next call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_file_alone_brings_every_account_back() {
    moves(false).await;
}

async fn moves(carried: bool) {
    let Some((redis, broker)) = own_servers().await else {
        return;
    };
    let mut rig = Rig::new(700, "", "").await;
    rig.set("cold.hold = \"300ms\"");
    let mut old = rig.start("up");
    old.until_ready().await;
    let answer = old.post("/demo/auth_validation", json!({ "auth": auth() })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let whole = old.run(None).await;
    assert_eq!(whole.titles(), truth(&rig.crm));
    let begun = old.sync(json!(null)).await.page();
    if carried {
        prepare(&rig, &old.admin).await;
    }
    let (code, said) = rig.command(&["export", FILE]).await;
    assert!(code == Some(1) && said.contains("in use"), "{said}");
    old.stop().await;
    if carried {
        export(&rig).await;
    }
    let crm = rig.crm.crm.clone();
    let control = |control| crm.control(control).done();
    control(fake_crm::Control::edit("demo", fake_crm::Change::ids([3, 580])));
    control(fake_crm::Control::delete("demo", fake_crm::Change::ids([9])));

    rig.move_to(&redis.url(), &broker.url());
    let (code, said) = rig.command(&["migrate"]).await;
    assert_eq!(code, Some(0), "{said}");
    if carried {
        import(&rig).await;
    }
    let mut front = rig.start("serve");
    front.until_ready().await;
    // Nothing is built yet: more is to come, whatever Talkdesk holds, and nothing is claimed.
    let with_checkpoint = json!({ "synchronization_checkpoint": whole.checkpoint });
    let mut early = Vec::new();
    for meta in [with_checkpoint.clone(), json!({"offset": begun["next_offset"]})] {
        let page = front.sync(meta).await.page();
        assert_eq!(page["contacts"], json!([]), "{page}");
        assert!(
            page["next_offset"].is_string(),
            "an empty page that ends the run: {page}"
        );
        early.push(page);
    }
    let mut worker = rig.start("worker");
    worker.until_ready().await;
    let store = rig.store(&redis.url()).await;
    let kept_out = |mut titles: BTreeMap<String, String>| {
        if carried {
            titles.remove(ERASED);
        }
        titles
    };
    let expected = || kept_out(truth(&rig.crm));
    // What it had before, and what comes now, is everything; of a whole run of the new store nobody who is erased.
    let has_all = |before: &[&Value], runs: &[&Run]| {
        let has = delivered(before, runs);
        let missing: Vec<String> = expected()
            .into_iter()
            .filter(|(id, title)| has.get(id) != Some(title))
            .map(|(id, _)| id)
            .collect();
        assert!(missing.is_empty(), "skipped: {missing:?}");
    };
    let mut checkpoint = String::new();
    for (page, before, runs) in [(&early[0], None, Some(&whole)), (&early[1], Some(&begun), None)] {
        let meta = json!({"offset": page["next_offset"], "context": page["context"]});
        let rest = front.pages(meta).await;
        let runs: Vec<&Run> = runs.into_iter().chain([&rest]).collect();
        has_all(&before.into_iter().collect::<Vec<_>>(), &runs);
        assert!(!carried || !rest.ids().contains(ERASED));
        checkpoint = rest.checkpoint;
    }
    let account = until_built(&*store, "demo").await;
    // Neither the checkpoint from before nor that of an empty page claims what was not delivered.
    let empty = early[0]["synchronization_checkpoint"].as_str().expect("a checkpoint");
    for before in [&*whole.checkpoint, empty] {
        has_all(&[], &[&whole, &front.run(Some(before)).await]);
    }
    control(fake_crm::Control::edit("demo", fake_crm::Change::ids([11])));
    until("an edit comes with the next run, alone", || async {
        let run = front.run(Some(&checkpoint)).await;
        assert!(run.ids().iter().all(|id| id == "11"), "{:?}", run.ids());
        run.titles().get("11") == truth(&rig.crm).get("11")
    })
    .await;
    let everything = front.run(None).await.titles();
    assert_eq!(everything, expected(), "a run of everything holds everybody");
    if carried {
        let erased = contacts::erased::load(&*store, &account).await.expect("erasures");
        assert!(erased.since(&rig.keys, &account, ERASED).is_some());
        assert!(
            holds::load(&*store)
                .await
                .expect("pauses")
                .lanes
                .contains_key(&Lane::Reconcile)
        );
        let deeds = contacts::audit::list(&*store).await.expect("the audit");
        assert!(deeds.iter().any(|deed| deed.action.contains("erase")), "{deeds:?}");
    }
    front.stop().await;
    worker.stop().await;
}

/// What an operator did in the old place.
async fn prepare(rig: &Rig, admin: &str) {
    let store = store::SqliteStore::open_read_only(rig.folder().join(".snapbridge"))
        .await
        .expect("the embedded store");
    let account = account(&store, "demo").await.expect("an account");
    let erase = [
        "contact",
        "erase",
        ERASED,
        "--account",
        account.as_str(),
        "--reason",
        "asked for",
        "--url",
        admin,
    ];
    let (code, said) = rig.command(&erase).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = rig.command(&["pause", "--lane", "reconcile", "--url", admin]).await;
    assert_eq!(code, Some(0), "{said}");
}

async fn export(rig: &Rig) {
    let (code, said) = rig.command(&["export", FILE]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("1 accounts") && said.contains("erasures of 1") && said.contains("1 pauses"),
        "{said}"
    );
    let file = rig.folder().join(FILE);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(!text.contains(TOKEN), "invariant 12: credentials stay sealed");
    let (code, said) = rig.command(&["export", FILE]).await;
    assert!(
        code == Some(1) && said.contains("exists"),
        "an export is never written over: {said}"
    );
}

async fn import(rig: &Rig) {
    let path = |name: &str| rig.folder().join(name);
    let text = std::fs::read_to_string(path(FILE)).expect("text");
    let wrong = [
        ("empty.jsonl", String::new(), "is empty"),
        ("other.jsonl", "{\"a\":1}\n".to_owned(), "no export"),
        (
            "newer.jsonl",
            text.replacen("\"snapbridge_export\":1", "\"snapbridge_export\":2", 1),
            "newer",
        ),
        ("cut.jsonl", text[..text.len() - 30].to_owned(), "damaged"),
    ];
    for (name, text, why) in wrong {
        std::fs::write(path(name), text).expect("written");
        let (code, said) = rig.command(&["import", name]).await;
        assert!(code == Some(2) && said.contains(why), "{name}: {code:?} {said}");
    }
    std::fs::rename(path("keys"), path("keys.kept")).expect("moved");
    process::keys::create_if_missing(&path("keys")).expect("other keys");
    let (code, said) = rig.command(&["import", FILE]).await;
    assert!(code == Some(2) && said.contains("another key file"), "{said}");
    std::fs::rename(path("keys.kept"), path("keys")).expect("moved back");
    // Twice: safe.
    for _ in 0..2 {
        let (code, said) = rig.command(&["import", FILE]).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

/// What `export` writes of a store.
async fn gathered(store: &dyn Store) -> Vec<Item> {
    let mut items = Vec::new();
    for id in transfer::accounts_of(store, DocKind::Account).await.expect("accounts") {
        items.extend(transfer::account(store, &id).await.expect("an account"));
    }
    items.extend(transfer::others(store).await.expect("the rest"));
    items
}

/// An account as the front registers it.
fn registered(keys: &Keys, org: &str, route: Option<&str>) -> Account {
    let id = keys.account_id(&Identity {
        integration: "demo",
        site: "",
        org,
        principal: "",
    });
    let fields = BTreeMap::from([("token".to_owned(), TOKEN.to_owned())]);
    Account {
        credentials: Sealed::seal(keys, &id, &fields),
        id,
        integration: "demo".into(),
        connector: "demo".into(),
        budget: "b".into(),
        user_budget: None,
        dealer: None,
        tokens: Default::default(),
        created: Micros::from_secs(1),
        fingerprint: Fingerprint(format!("of {org}")),
        learned: BTreeMap::from([("org".to_owned(), json!(org))]),
        route: route.map(str::to_owned),
        called: Micros::from_secs(3),
        verified: Micros::from_secs(2),
    }
}

#[tokio::test]
async fn a_store_that_takes_in_an_export_would_export_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = process::keys::create_if_missing(&folder.path().join("keys")).expect("a key file");
    let keys = snapbridge::keyring::derived(keys).expect("keys");
    let [old, new] = [(); 2].map(|()| store::MemoryStore::new());
    let times = WorkTimes::default();
    let now = Micros::from_secs(100);
    let accounts = [
        registered(&keys, "one", Some("one.example")),
        registered(&keys, "two", None),
        registered(&keys, "three", None),
    ];
    for account in &accounts {
        contacts::accounts::register(&old, account).await.expect("registered");
    }
    let [one, two, three] = accounts.each_ref().map(|account| &account.id);
    work::update(&old, two, &times, |work| work.pause("Ann".into(), now))
        .await
        .expect("paused");
    work::update(&old, three, &times, |work| work.suspend(now))
        .await
        .expect("suspended");
    let gone = registered(&keys, "gone", None).id;
    for account in [one, &gone] {
        contacts::erased::add(&old, &keys, account, ERASED, now)
            .await
            .expect("erased");
    }
    let held = Held {
        topic: String::new(),
        id: "17".into(),
        url: "https://bridge.example/demo/webhooks/x".into(),
        secret: Some(accounts[0].credentials.clone()),
        created: now,
        expires: None,
    };
    subscription::bring(&old, one, &[held], now).await.expect("a webhook");
    let scopes = [Scope::Connector("demo".into()), Scope::Lane(Lane::Build)];
    for scope in &scopes {
        let held = holds::update(&old, |holds| holds.pause(scope, "Ben".into(), now)).await;
        assert!(held.expect("held"));
    }
    for at in [5, 7] {
        let entry = Entry {
            at: Micros::from_secs(at),
            by: "Ann".into(),
            role: "admin".into(),
            action: "pause".into(),
            target: two.to_string(),
            detail: String::new(),
        };
        contacts::audit::note(&old, &entry, 100).await.expect("noted");
    }

    let items = gathered(&old).await;
    assert_eq!(items.len(), 3 + 2 + 1 + 1);
    // Twice, and in any order.
    for item in items.iter().rev().chain(&items) {
        let line = serde_json::to_string(item).expect("a line");
        assert!(!line.contains(TOKEN), "invariant 12");
        let item: Item = serde_json::from_str(&line).expect("an item");
        let then = transfer::bring(&new, &item, &times, 100, now).await.expect("taken in");
        assert_eq!(matches!(then, Then::Build(_)), matches!(item, Item::Account { .. }));
    }
    assert_eq!(gathered(&new).await, items);
    let routed = contacts::accounts::by_route(&new, "demo", "one.example")
        .await
        .expect("accounts");
    assert_eq!(routed.iter().collect::<Vec<_>>(), [one], "app-level webhooks find it");

    // Talkdesk has called for the suspended one here: that is newer than what the old store knew.
    work::update(&new, three, &times, |work| work.unsuspend(now))
        .await
        .expect("revived");
    for item in &items {
        transfer::bring(&new, item, &times, 100, now).await.expect("taken in");
    }
    assert!(work::load(&new, three).await.expect("work").suspended.is_none());
}
