//! Random histories, and what must be true at each moment and once everything has come to rest.

use std::collections::BTreeMap;
use std::time::Duration;

use contacts::dead;
use contacts::ports::{Dirty, Slice, Snapshots};
use contacts::{Kind, Lane, Micros, Position, Stream};
use parking_lot::Mutex;
use worker::progress::Progress;

use crate::history::{History, Trouble, settling_time};
use crate::machine::Faults;
use crate::model_crm::{Deletions, State};
use crate::talkdesk::read_body;
use crate::world::{Tenant, World};

const SEEDS: u64 = 30;
const STEPS: usize = 100;

/// Runs `SEEDS` histories, each in a time of its own. `MODEL_SEED` runs one, `MODEL_SEEDS` another number of them.
fn histories(trouble: Trouble, check: impl Fn(&World)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let runtime = runtime.expect("a runtime");
        let scene = Mutex::new(String::new());
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(one_history(seed, trouble, &scene, &check)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            panic!("MODEL_SEED={seed}: {text}\n{}", scene.lock());
        }
    }
}

async fn one_history(seed: u64, trouble: Trouble, scene: &Mutex<String>, check: &impl Fn(&World)) {
    let mut history = History::begin(seed, trouble);
    *scene.lock() = history.world.describe();
    for _ in 0..STEPS {
        history.step().await;
        history.world.witness.assert_clean();
    }
    let mut world = history.end().await;
    come_to_rest(&mut world).await;
    world.witness.assert_clean();
    for tenant in &world.tenants {
        read_to_the_end(tenant).await;
        check_tables(&world, tenant).await;
        check_hooks(&world, tenant).await;
    }
    if trouble.is_calm() {
        for tenant in &world.tenants {
            let most = tenant.site.in_flight.lock().1;
            if most > 1 {
                world
                    .witness
                    .breach(format!("invariant 9: {most} refreshes of one account at once"));
            }
        }
    }
    world.witness.assert_clean();
    check(&world);
}

/// The CRM is frozen and everything is in order again: the refresh goes on until three full passes have run since and
/// nothing is left to do.
async fn come_to_rest(world: &mut World) {
    tokio::time::sleep(settling_time(world)).await;
    let frozen = world.now();
    let mut passes: Vec<Vec<Micros>> = vec![Vec::new(); world.tenants.len()];
    let deadline = frozen.plus(Duration::from_secs(4 * 3600));
    loop {
        if world.workers.is_empty() {
            world.start_worker();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.sweep().await;
        let mut rests = true;
        for (which, tenant) in world.tenants.iter().enumerate() {
            let account = &tenant.account.id;
            tenant.front.identify().await.expect("nothing fails any more");
            let head = world
                .store
                .head(account, Stream::Contacts)
                .await
                .expect("nothing fails any more");
            let last_full = head
                .as_ref()
                .map_or(Micros::ZERO, |head| Progress::read(&head.progress).last_full);
            if last_full > frozen && passes[which].last() != Some(&last_full) {
                passes[which].push(last_full);
            }
            let work = world.work(account).await;
            let due = work
                .tasks
                .values()
                .any(|task| task.due.is_some_and(|due| due <= world.now()));
            let done = passes[which].len() >= 3;
            if !done && !due && head.is_some_and(|head| head.ready) {
                let rung = tenant
                    .front
                    .requests
                    .ring(account, Kind::Full, Lane::Reconcile, None)
                    .await;
                rung.expect("nothing fails any more");
            }
            rests &= done && !due && !work.is_held() && work.lease.is_none();
        }
        world.check_work().await;
        world.witness.assert_clean();
        if rests {
            return;
        }
        if world.now() > deadline {
            let tenant = &world.tenants[0];
            let work = world.work(&tenant.account.id).await;
            panic!("invariant 14: no rest. {passes:?} {work:?}");
        }
    }
}

async fn read_to_the_end(tenant: &Tenant) {
    let mut talkdesk = tenant.talkdesk.lock().await;
    let before = talkdesk.finished;
    for _ in 0..1_000 {
        talkdesk.step().await;
        if talkdesk.finished >= before + 2 {
            return;
        }
    }
    panic!("invariant 7: no run ends");
}

/// The oracle: the model Talkdesk's table and the snapshot are the CRM's final table.
async fn check_tables(world: &World, tenant: &Tenant) {
    let account = &tenant.account.id;
    let all = Slice {
        after: Position::START,
        until: None,
        rows: usize::MAX,
        bytes: usize::MAX,
        newer_than: None,
    };
    let page = world
        .store
        .page(account, Stream::Contacts, &all)
        .await
        .expect("a snapshot");
    let snapshot: BTreeMap<String, u32> = page.bodies.iter().map(|body| read_body(body)).collect();
    let talkdesk = tenant.talkdesk.lock().await;
    let mut lookups = Vec::new();
    {
        let crm = tenant.site.crm.lock();
        let (manners, mut gone) = (&crm.manners, Vec::new());
        let proves = manners.proves_deletions();
        let lists = manners.changes && manners.deletions == Deletions::List;
        let tells = lists || manners.deletions == Deletions::Flag;
        for (id, record) in &crm.records {
            let newest = record.newest();
            match newest.state {
                State::Living => {
                    let (stored, delivered) = (snapshot.get(id), talkdesk.table.get(id));
                    if stored != Some(&newest.content) || delivered != Some(&newest.content) {
                        world.witness.breach(format!(
                            "invariant 4: {id} is stored as {stored:?} and delivered as {delivered:?}, but is {record:?}"
                        ));
                    }
                    lookups.extend(newest.aliases.iter().map(|alias| (alias.clone(), id.clone())));
                }
                State::Deleted if proves || tells => gone.push(id),
                // If nothing else tells of it, the survivor does, as long as it lives.
                State::Merged(ref into) if proves || lists || crm.records[into].is_living() => gone.push(id),
                State::Deleted | State::Merged(_) => {}
            }
        }
        for id in gone {
            if snapshot.contains_key(id) {
                let record = &crm.records[id];
                world
                    .witness
                    .breach(format!("invariant 13: {id} is gone and still there: {record:?}"));
            }
        }
    }
    for (alias, id) in lookups {
        let key = world.keys.lookup_key(account, &format!("alias:{alias}"));
        let found = world
            .store
            .find(account, Stream::Contacts, key)
            .await
            .expect("a snapshot");
        if !found.contains(&id) {
            world
                .witness
                .breach(format!("{alias} was merged into {id} and leads to {found:?}"));
        }
    }
}

/// Invariant 9: each webhook that got its 2xx is covered by a fetch that started later, or by a dead letter.
async fn check_hooks(world: &World, tenant: &Tenant) {
    let account = &tenant.account.id;
    let dirty = world.store.dirty(account, usize::MAX).await.expect("a store");
    if !dirty.is_empty() {
        world
            .witness
            .breach(format!("invariant 9: {dirty:?} still wait to be fetched"));
    }
    let letters = dead::list(&world.store, 10_000).await.expect("a store");
    let of_account: Vec<_> = letters
        .iter()
        .filter(|letter| letter.account.as_ref() == Some(account))
        .collect();
    let calls = tenant.site.calls.lock();
    let get_many = tenant.site.crm.lock().manners.get_many > 0;
    let wiped = *world.wiped.lock();
    let hooks = tenant.hooks.lock();
    for hook in hooks.iter().filter(|hook| hook.came > wiped) {
        world.witness.count("hooks");
        for id in &hook.ids {
            let later = || {
                calls
                    .iter()
                    .filter(|call| call.asked_at > hook.came && call.answered.is_some())
            };
            let fetched = later().any(|call| call.what == "get" && call.ids.contains(id));
            let polled = later().any(|call| call.what == "changes" || call.what == "full");
            let by_poll = !get_many || world.policy.dirty_limit < 500;
            let buried = of_account
                .iter()
                .any(|letter| letter.at > hook.came && (letter.ids.contains(id) || letter.kind == Some(Kind::Changes)));
            let covered = fetched || buried || (by_poll && polled);
            if !covered {
                world.witness.breach(format!(
                    "invariant 9: {id} was announced at {} and never fetched",
                    hook.came
                ));
            }
        }
    }
}

fn some_faults() -> Faults {
    Faults {
        store_refuses: 0.01,
        store_mumbles: 0.01,
        swap_mumbles: 0.01,
        store_dawdles: 0.1,
        crm_fails: 0.05,
        crm_dawdles: 0.02,
        queue_fails: 0.03,
        queue_doubles: 0.05,
    }
}

#[test]
fn invariant_4_the_table_of_talkdesk_becomes_the_crms() {
    histories(Trouble::default(), |_| {});
}

#[test]
fn invariant_4_also_when_contacts_hide_and_rows_move() {
    histories(
        Trouble {
            hides: true,
            moving: true,
            ..Trouble::default()
        },
        |_| {},
    );
}

#[test]
fn invariant_8_workers_stall_and_die_and_one_writes() {
    let faults = Faults {
        crm_dawdles: 0.05,
        store_dawdles: 0.2,
        ..Faults::default()
    };
    histories(
        Trouble {
            deaths: true,
            faults,
            ..Trouble::default()
        },
        |_| {},
    );
}

#[test]
fn invariant_14_nothing_vanishes_whatever_fails() {
    histories(
        Trouble {
            deaths: true,
            outages: true,
            faults: some_faults(),
            ..Trouble::default()
        },
        |_| {},
    );
}

#[test]
fn invariants_3_and_6_runs_survive_the_loss_of_the_store() {
    let faults = Faults {
        crm_dawdles: 0.05,
        ..Faults::default()
    };
    histories(
        Trouble {
            wipes: true,
            deaths: true,
            outages: true,
            faults,
            ..Trouble::default()
        },
        |_| {},
    );
}

#[test]
fn invariant_13_whatever_the_crm_shows_the_living_stay() {
    histories(
        Trouble {
            hides: true,
            outages: true,
            faults: some_faults(),
            ..Trouble::default()
        },
        |_| {},
    );
}
