//! A store that is put back to an earlier state: Talkdesk's later checkpoint never skips anybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use contacts::Store;
use fake_crm::{Change, Control};
use serde_json::json;

use crate::faults::child::{Process, finish};
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::{Redis, skip};
use crate::faults::{Rig, delivered, own_servers, until_built};
use crate::harness::*;

/// Where the snapshots lie, and how docs/deploy.md has them copied and put back.
enum Place {
    Redis(Redis, Rabbit),
    /// `.snapbridge` in the rig's folder.
    Embedded,
}

const DATA: &str = ".snapbridge";

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

impl Place {
    async fn store(&self, rig: &Rig) -> std::sync::Arc<dyn Store> {
        match self {
            Place::Redis(redis, _) => rig.store(&redis.url()).await,
            Place::Embedded => {
                let store = store::SqliteStore::open_read_only(rig.folder().join(DATA)).await;
                std::sync::Arc::new(store.expect("the embedded store"))
            }
        }
    }

    async fn start(&self, rig: &Rig) -> Vec<Process> {
        let roles: &[&str] = match self {
            Place::Redis(..) => &["serve", "worker"],
            Place::Embedded => &["up"],
        };
        let mut running = Vec::new();
        for role in roles {
            let mut process = rig.start(role);
            process.until_ready().await;
            running.push(process);
        }
        running
    }

    /// While everything runs.
    async fn back_up(&self, rig: &Rig, to: &Path) {
        match self {
            Place::Redis(redis, _) => {
                let script = Path::new(super::ROOT).join("deploy/backup-redis.sh");
                let folder = redis.folder().join("appendonlydir");
                let arguments = [&*folder, to].map(|path| path.display().to_string());
                let (status, said) = finish(&script, &arguments, &BTreeMap::new(), &rig.folder()).await;
                assert!(status.success(), "{said}");
                let (status, _) = finish(&script, &arguments, &BTreeMap::new(), &rig.folder()).await;
                assert!(!status.success(), "a backup is never written over");
            }
            Place::Embedded => {
                std::fs::create_dir_all(to).expect("a folder");
                for name in ["store.db", "budget.db", "queue.db"] {
                    let into = format!(".backup '{}'", to.join(name).display());
                    let file = rig.folder().join(DATA).join(name);
                    let output = Command::new("sqlite3")
                        .arg(&file)
                        .arg(&into)
                        .output()
                        .expect("sqlite3 runs");
                    assert!(
                        output.status.success(),
                        "{name}: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
            }
        }
    }

    /// With every process of ours stopped.
    async fn put_back(&mut self, rig: &Rig, from: &Path) {
        match self {
            Place::Redis(redis, _) => {
                redis.kill();
                let folder = redis.folder().join("appendonlydir");
                std::fs::remove_dir_all(&folder).expect("removed");
                copy_all(from, &folder);
                redis.up().await;
            }
            Place::Embedded => {
                let folder = rig.folder().join(DATA);
                for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
                    let name = entry.file_name();
                    // With their -wal and -shm, which belong to the newer ones.
                    if name.to_string_lossy().contains(".db") {
                        std::fs::remove_file(entry.path()).expect("removed");
                    }
                }
                copy_all(from, &folder);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_redis_put_back_skips_nobody() {
    let Some((redis, rabbit)) = own_servers().await else {
        return;
    };
    scene(Place::Redis(redis, rabbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_embedded_store_put_back_skips_nobody() {
    if Command::new("sqlite3").arg("-version").output().is_err() {
        skip("sqlite3 is not installed (Debian's package sqlite3 has it)");
        return;
    }
    scene(Place::Embedded).await;
}

/// What Talkdesk has, by id, and its checkpoint.
type Got = (BTreeMap<String, String>, String);

async fn sync(front: &Process, got: &mut Got) {
    let run = front.run(Some(&got.1)).await;
    got.0.extend(run.titles());
    got.1 = run.checkpoint;
}

/// Whether Talkdesk has all that the CRM has; it is told of no deletion.
fn has_all(rig: &Rig, titles: &BTreeMap<String, String>) -> bool {
    truth(&rig.crm).iter().all(|(id, title)| titles.get(id) == Some(title))
}

async fn scene(mut place: Place) {
    let (store_url, queue_url) = match &place {
        Place::Redis(redis, rabbit) => (redis.url(), rabbit.url()),
        Place::Embedded => Default::default(),
    };
    let mut rig = Rig::new(300, &store_url, &queue_url).await;
    // A reconcile proves the deletion that the backup does not know of.
    rig.set("refresh.reconcile = \"2s\"");
    if let Place::Redis(..) = place {
        let (code, said) = rig.command(&["migrate"]).await;
        assert_eq!(code, Some(0), "{said}");
    }
    let running = place.start(&rig).await;
    let answer = running[0]
        .post("/demo/auth_validation", json!({ "auth": auth() }))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let store = place.store(&rig).await;
    let account = until_built(&*store, "demo").await;
    let whole = running[0].run(None).await;
    assert_eq!(whole.titles(), truth(&rig.crm));

    let backup: PathBuf = rig.folder().join("backup");
    place.back_up(&rig, &backup).await;
    // Some changes reach Talkdesk, others only the snapshot, before the store is lost.
    let control = |control| rig.crm.crm.control(control).done();
    control(Control::edit("demo", Change::ids([3, 280])));
    control(Control::create("demo", 2));
    control(Control::delete("demo", Change::ids([9])));
    let got = tokio::sync::Mutex::new((whole.titles(), whole.checkpoint.clone()));
    until("Talkdesk has the changes", || async {
        let mut got = got.lock().await;
        sync(&running[0], &mut got).await;
        has_all(&rig, &got.0)
    })
    .await;
    let delivered_until = got.lock().await.1.clone();
    control(Control::edit("demo", Change::ids([20])));
    until("the snapshot has a change that Talkdesk has not", || async {
        let run = running[0].run(Some(&delivered_until)).await;
        delivered(&[], &[&run]).get("20") == truth(&rig.crm).get("20")
    })
    .await;
    for process in running {
        process.stop().await;
    }
    drop(store);

    place.put_back(&rig, &backup).await;
    // The CRM lists nobody for a while, so that Talkdesk meets the earlier snapshot as it is.
    rig.crm.crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![fake_crm::Op::List, fake_crm::Op::Changes];
    });
    let running = place.start(&rig).await;
    let page = running[0]
        .sync(json!({ "synchronization_checkpoint": delivered_until }))
        .await
        .page();
    assert_eq!(page["contacts"], json!([]), "nothing lies behind what Talkdesk has had");
    let (_, metrics) = running[0].look("/metrics").await.expect("metrics");
    let rolled_back = metrics
        .lines()
        .find_map(|line| line.strip_prefix("snapbridge_rollbacks_total "));
    assert_eq!(rolled_back, Some("1"), "the loss is told");
    rig.crm.crm.knobs("demo", |knobs| knobs.frozen = false);
    until(
        "Talkdesk has everything, the change it had not had included",
        || async {
            let mut got = got.lock().await;
            sync(&running[0], &mut got).await;
            has_all(&rig, &got.0)
        },
    )
    .await;
    until(
        "who was deleted after the backup goes with the next reconcile",
        || async { running[0].run(None).await.titles() == truth(&rig.crm) },
    )
    .await;
    let store = place.store(&rig).await;
    let head = store
        .head(&account, contacts::Stream::Contacts)
        .await
        .expect("the store");
    assert!(head.is_some_and(|head| head.ready));
    for process in running {
        process.stop().await;
    }
}
