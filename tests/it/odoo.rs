//! The bridge as processes against a real Odoo, with Talkdesk's player at the other end: what a fake CRM only imitates.
//!
//! Runs if `SNAPBRIDGE_TEST_ODOO_URL` names an Odoo 14 to 18, such as `http://127.0.0.1:18069`. The administrator whom
//! `…_DB`, `…_LOGIN` and `…_PASSWORD` name (`crm`, `admin`, `admin`) makes a user and contacts for each test, and takes
//! them away again. `docs/real-crm.md` tells what was seen, and how to set up an Odoo.

mod bridge;
mod crm;
mod talkdesk;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use ::talkdesk::player::PlayError;
use futures::FutureExt;
use futures::future::{self, Either};
use serde_json::{Value, json};

use crate::harness::{Backend, on_both};
use bridge::Bridge;
use crm::{Odoo, number, strings};
use talkdesk::Talkdesk;

const CONTACTS: usize = 1_200;
/// One `create` call: a transaction of many seconds.
const BULK: usize = 2_500;
/// How long a test waits: Odoo answers in tens of milliseconds, and in seconds while it writes thousands of rows.
const PATIENCE: Duration = Duration::from_secs(300);
const OLD: &str = "first-password-of-the-bridge";
const NEW: &str = "second-password-of-the-bridge";

/// One test at a time: the tests share Odoo's single process, and a deletion brake must not see another's clean-up.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

on_both!(
    a_real_odoo_is_mirrored_with_its_late_commits_and_revocations,
    |backend| async move {
        let _turn = TURN.lock().await;
        let Some(odoo) = Odoo::connect().await else { return };
        let told = AssertUnwindSafe(story(&odoo, backend)).catch_unwind().await;
        odoo.clean_up().await;
        if let Err(failed) = told {
            std::panic::resume_unwind(failed);
        }
    }
);

async fn story(odoo: &Odoo, backend: Backend) {
    let user = odoo.make_user(OLD).await;
    let ids = odoo.make_contacts().await;
    let bridge = Bridge::start(backend, odoo).await;
    let mut talkdesk = bridge.talkdesk("odoo", odoo.auth(OLD));

    build(odoo, &mut talkdesk, &ids).await;
    edit_and_archive(odoo, &mut talkdesk, &ids).await;
    late_commit(odoo, &mut talkdesk).await;
    revoke_and_renew(odoo, &bridge, talkdesk, user, &ids).await;
    reconcile(odoo, &bridge.talkdesk("often", odoo.auth(NEW)), &ids).await;
    webhook(odoo, &bridge, &ids).await;
    bridge.stop().await;
}

async fn build(odoo: &Odoo, talkdesk: &mut Talkdesk, ids: &[String]) {
    let began = Instant::now();
    let mine = odoo.mine(&talkdesk.sync().await.expect("the first sync"));
    tell(&format!(
        "first sync of {CONTACTS} contacts: {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    assert_eq!(mine.keys().cloned().collect::<BTreeSet<_>>(), odoo.living().await);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(mine[id]["name"], json!(odoo.name(number)));
        let phones = json!([format!("+35121{number:07}"), format!("+35191{number:07}")]);
        assert_eq!(
            mine[id]["phones"], phones,
            "the typed spaces are gone, the region's code is there"
        );
    }
    let again = odoo.mine(&talkdesk.sync().await.expect("the second sync"));
    assert!(again.is_empty(), "what did not change does not come again: {again:?}");
}

async fn edit_and_archive(odoo: &Odoo, talkdesk: &mut Talkdesk, ids: &[String]) {
    let edited = format!("{} edited", odoo.tag);
    odoo.write("res.partner", &ids[0], json!({ "name": edited })).await;
    let came = talkdesk
        .until("the edit comes", |sent| {
            sent.iter().any(|contact| contact["name"] == *edited)
        })
        .await;
    assert_eq!(odoo.mine(&came).into_keys().collect::<Vec<_>>(), [ids[0].clone()]);

    odoo.write("res.partner", &ids[1], json!({ "active": false })).await;
    gone(odoo, talkdesk, &ids[1]).await;
}

/// Rows of a long transaction become visible behind rows that were stamped later and have been delivered already.
async fn late_commit(odoo: &Odoo, talkdesk: &mut Talkdesk) {
    let rows: Vec<Value> = (0..BULK)
        .map(|number| json!({ "name": format!("{} bulk {number}", odoo.tag) }))
        .collect();
    let mut creating = std::pin::pin!(odoo.execute("res.partner", "create", json!([rows])));
    let mut rounds: Vec<Vec<Value>> = Vec::new();
    // While Odoo works on the bulk, single contacts are made, and delivered.
    let bulk = loop {
        let quick = format!("{} quick {}", odoo.tag, rounds.len());
        let meanwhile = std::pin::pin!(async {
            odoo.execute("res.partner", "create", json!([{ "name": quick }])).await;
            talkdesk.sync().await.expect("a sync while Odoo is busy")
        });
        match future::select(meanwhile, &mut creating).await {
            Either::Left((sent, _)) => rounds.push(sent),
            Either::Right((made, meanwhile)) => {
                rounds.push(meanwhile.await);
                break strings(&made).into_iter().collect::<BTreeSet<_>>();
            }
        }
    };
    let committed = Instant::now();
    assert_eq!(bulk.len(), BULK);
    let singles = rounds.len();

    // A round may have read the bulk before the answer about it was here.
    let has_bulk = |sent: &Vec<Value>| odoo.mine(sent).keys().any(|id| bulk.contains(id));
    let mut late = rounds
        .split_off(rounds.iter().position(has_bulk).unwrap_or(singles))
        .concat();
    let early = odoo.mine(&rounds.concat());
    let stamps = odoo.stamps().await;
    let stamp = &stamps[bulk.first().expect("rows")];
    let overtook = early.keys().filter(|id| stamps[*id] > *stamp).count();
    assert!(
        overtook > 0,
        "nothing stamped after the bulk ({stamp}) was delivered before it: {early:?}"
    );

    within("every late row comes, and every single one", async || {
        late.extend(talkdesk.sync().await.expect("a sync after the commit"));
        (odoo.mine(&late).len() + early.len() == BULK + singles).then_some(())
    })
    .await;
    tell(&format!(
        "{BULK} rows stamped {stamp}, all delivered {:.1} s after their commit; {overtook} later ones were faster",
        committed.elapsed().as_secs_f64()
    ));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for contact in late {
        *times
            .entry(contact["id"].as_str().expect("an id").to_owned())
            .or_default() += 1;
    }
    assert!(
        bulk.iter().all(|id| times[id] == 1),
        "the overlap reads again, Talkdesk gets nothing twice"
    );
}

async fn revoke_and_renew(odoo: &Odoo, bridge: &Bridge, mut talkdesk: Talkdesk, user: String, ids: &[String]) {
    let state = async || bridge.states("odoo").first().cloned();
    odoo.write("res.users", &user, json!({ "password": NEW })).await;
    within("the next poll is refused and the account is parked", async || {
        state().await.filter(|state| state == "parked")
    })
    .await;
    let refused = |result| matches!(result, Err(PlayError::Unauthorized { .. }));
    assert!(
        refused(talkdesk.sync().await),
        "invariant 11: nothing for a password that Odoo no longer takes"
    );
    odoo.write(
        "res.partner",
        &ids[2],
        json!({ "name": format!("{} while parked", odoo.tag) }),
    )
    .await;

    let mut old = bridge.talkdesk("odoo", odoo.auth(OLD));
    talkdesk.auth = odoo.auth(NEW);
    let came = talkdesk
        .until("the work goes on", |sent| !odoo.mine(sent).is_empty())
        .await;
    assert_eq!(
        odoo.mine(&came).into_keys().collect::<Vec<_>>(),
        [ids[2].clone()],
        "from the same checkpoint"
    );
    within("the account is well again", async || {
        state().await.filter(|state| state == "ready")
    })
    .await;
    assert_eq!(bridge.states("odoo").len(), 1, "a new password is no new account");
    assert!(refused(old.sync().await), "the old one stays refused");
}

/// `unlink` leaves no trace in Odoo: only a reconcile can tell, and this integration has one every few seconds.
async fn reconcile(odoo: &Odoo, talkdesk: &Talkdesk, ids: &[String]) {
    let mine = odoo.mine(&talkdesk.full().await);
    assert!(mine.contains_key(&ids[3]) && !mine.contains_key(&ids[1]));
    odoo.unlink(&ids[3]).await;
    let left = gone(odoo, talkdesk, &ids[3]).await;
    assert_eq!(left, odoo.living().await, "and nobody else does");
}

/// An event that names a deleted contact, as Odoo 17 sends it: the fetch by id proves the deletion long before the next
/// reconcile of this integration.
async fn webhook(odoo: &Odoo, bridge: &Bridge, ids: &[String]) {
    odoo.unlink(&ids[4]).await;
    let event = json!({ "_model": "res.partner", "_id": number(&ids[4]), "_action": "test", "name": "not looked at" });
    let hook = bridge.hook("odoo");
    let post = async |url| {
        odoo.http
            .post(url)
            .json(&event)
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(post(hook.replace("key=", "key=0")).await, 401);
    assert_eq!(post(hook).await, 202);
    gone(odoo, &bridge.talkdesk("odoo", odoo.auth(NEW)), &ids[4]).await;
}

/// Waits until a sync without checkpoint leaves a contact out, and returns whom it holds.
async fn gone(odoo: &Odoo, talkdesk: &Talkdesk, id: &str) -> BTreeSet<String> {
    within("a contact leaves the snapshot", async || {
        let mine = odoo.mine(&talkdesk.full().await);
        (!mine.contains_key(id)).then(|| mine.into_keys().collect())
    })
    .await
}

/// Looks until there is something; fails with the name of what did not happen.
async fn within<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "did not happen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[expect(clippy::print_stderr, reason = "figures and skips are for whoever runs the test")]
fn tell(text: &str) {
    eprintln!("{text}");
}
