//! Sealing keys are changed under load: no page fails, what Talkdesk and the store held from before stays good, and in the end
//! the old key is gone.

use std::os::unix::fs::PermissionsExt;

use fake_crm::{Change, Control};
use tokio_util::sync::CancellationToken;

use super::*;

const ADMIN: &str = "admin-4b7c0d1e2f3a4958";
const SETTINGS: &str = "keys.reload = \"100ms\"\nkeys.token_grace = \"1s\"\npage.contacts = 40\n\
                        ops.admin = \"admin-4b7c0d1e2f3a4958\"\nrefresh.poll = \"500ms\"\nrefresh.sweep = \"150ms\"\n";

struct Rotation {
    site: Site,
    admin: String,
}

impl Rotation {
    fn keys(&self, arguments: &[&str]) -> Result<String, String> {
        let token = self.site.file("token").display().to_string();
        let access = ["--url", &self.admin, "--token-file", &token, "--name", "Ann"];
        self.site.tried(&[&["keys"], arguments, &access].concat())
    }

    fn show(&self) -> Value {
        let shown = self.keys(&["show", "--json"]).expect("the keys");
        serde_json::from_str(&shown).expect("JSON")
    }

    /// Whether `count` processes run and all of them have these keys, the first of which seals.
    fn all_have(&self, count: usize, kids: &[&str]) -> bool {
        let shown = self.show();
        let processes = shown["processes"].as_array().expect("processes");
        processes.len() == count && processes.iter().all(|process| process["kids"] == json!(kids))
    }
}

/// Runs after one another, each from the checkpoint of the last or from the beginning, until `stop`; every page must be good.
/// Returns the last checkpoint and the number of pages.
async fn load(talkdesk: Talkdesk, stop: CancellationToken) -> (String, usize) {
    let mut pages = 0;
    let mut checkpoint: Option<String> = None;
    while !stop.is_cancelled() {
        for from in [None, checkpoint.clone()] {
            let run = talkdesk.run(from.as_deref()).await;
            pages += run.pages;
            checkpoint = Some(run.checkpoint);
        }
    }
    (checkpoint.expect("a run"), pages)
}

on_both!(
    a_key_is_rotated_under_load_without_a_failed_page_and_the_old_one_goes,
    |backend| async move {
        let crm = Crm::start(200).await;
        let site = Site::new(backend, &crm, SETTINGS, &[("token", ADMIN)]);
        let (front, worker) = match backend {
            Backend::Embedded => (site.start("up").await, None),
            Backend::Distributed => (site.start("serve").await, Some(site.start("worker").await)),
        };
        let processes = 1 + usize::from(worker.is_some());
        let admin = front.admin();
        let rotation = Rotation { site, admin };
        let site = &rotation.site;
        let talkdesk = Talkdesk::of(&front);
        assert_eq!(talkdesk.validate().await.expect("an answer"), 200);
        until("the snapshot is complete", || site.is_settled()).await;

        // What Talkdesk holds from before: a checkpoint, and a run in the middle.
        let before = talkdesk.run(None).await;
        let meta = json!({"synchronization_checkpoint": null});
        let (_, page) = talkdesk
            .post("contact_sync", json!({"auth": auth(), "meta": meta}))
            .await
            .expect("a page");
        let offset = page["next_offset"].clone();
        let old = site.keys.kids().remove(0);
        until("all have said which keys they have", || async {
            rotation.all_have(processes, &[&old])
        })
        .await;

        let stop = CancellationToken::new();
        let loading = tokio::spawn(load(talkdesk.clone(), stop.clone()));
        let said = rotation.keys(&["add"]).expect("a new key");
        let new = said.split(' ').next().expect("its id").to_owned();
        until("all open with the new key", || async {
            rotation.all_have(processes, &[&old, &new])
        })
        .await;
        rotation.keys(&["rotate"]).expect("nothing stands against it");
        until("all seal with the new key", || async {
            rotation.all_have(processes, &[&new, &old])
        })
        .await;

        let rest = json!({"auth": auth(), "meta": {"offset": offset}});
        let (status, page) = talkdesk.post("contact_sync", rest).await.expect("a page");
        assert_eq!(status, 200, "the run in the middle goes on: {page}");
        assert_eq!(page["contacts"].as_array().expect("contacts").len(), 40);
        let run = talkdesk.run(Some(&before.checkpoint)).await;
        assert_eq!(run.contacts.len(), 0, "the checkpoint of before is good");
        let refused = rotation.keys(&["drop", &new]).expect_err("it seals");
        assert!(refused.contains("keys rotate"), "{refused}");
        until("what is stored is sealed anew", || async {
            let shown = rotation.show();
            let keys = shown["keys"].as_array().expect("keys").iter();
            let of = |kid: &str| keys.clone().find(|key| key["kid"] == kid).cloned().unwrap_or_default();
            of(&old)["credentials"] == json!(0) && of(&new)["credentials"] == json!(1)
        })
        .await;
        let resealed = rotation.keys(&["reseal"]).expect("nothing is left to do");
        assert!(resealed.contains("0 accounts' credentials"), "{resealed}");

        stop.cancel();
        let (checkpoint, pages) = loading.await.expect("no page failed");
        assert!(pages > 10, "{pages}");
        let last = std::cell::RefCell::new(checkpoint);
        until("nothing needs the old key any more", || async {
            let from = last.borrow().clone();
            let run = talkdesk.run(Some(&from)).await;
            *last.borrow_mut() = run.checkpoint;
            rotation.keys(&["drop", &old]).is_ok()
        })
        .await;
        let last = last.into_inner();
        until("the old key is gone", || async {
            rotation.all_have(processes, &[&new])
        })
        .await;
        let file = std::fs::read_to_string(site.file("keys")).expect("the key file");
        assert!(!file.contains(&old) && file.contains("identity "));
        let mode = std::fs::metadata(site.file("keys"))
            .expect("the key file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        // Processes that know nothing of before find the account by its credentials, and the credentials open.
        assert_eq!(talkdesk.run(Some(&last)).await.contacts.len(), 0);
        let mut all: Vec<Process> = [Some(front), worker].into_iter().flatten().collect();
        for process in &mut all {
            process.terminate();
            assert_eq!(process.ended().await.code(), Some(0), "{}", process.log());
        }
        let (front, _worker) = match backend {
            Backend::Embedded => (site.start("up").await, None),
            Backend::Distributed => (site.start("serve").await, Some(site.start("worker").await)),
        };
        let talkdesk = Talkdesk::of(&front);
        let checks = crm.checks();
        crm.crm.control(Control::edit("demo", Change::random(3))).done();
        until("a worker brings what changed", || async {
            talkdesk.run(None).await.titles() == truth(&crm)
        })
        .await;
        assert!(
            talkdesk.run(Some(&last)).await.contacts.len() <= 3,
            "the checkpoint of the new key is good"
        );
        assert_eq!(crm.checks(), checks, "no credentials had to be put to the CRM");
        // What was sealed with the key that is gone costs a full sync, and is no error.
        assert_eq!(talkdesk.run(Some(&before.checkpoint)).await.ids().len(), 200);
        let http = &talkdesk.http;
        assert!(
            front
                .metric(http, "snapbridge_token_failures_total", "unknown_key")
                .await
                >= 1.0
        );

        let rotation = Rotation {
            admin: front.admin(),
            ..rotation
        };
        let token = rotation.site.file("token").display().to_string();
        let access = ["audit", "--json", "--url", &rotation.admin, "--token-file", &token];
        let audit: Value = serde_json::from_str(&rotation.site.done(&access)).expect("JSON");
        for (deed, kid) in [("keys add", &new), ("keys rotate", &new), ("keys drop", &old)] {
            let entries = audit.as_array().expect("entries").iter();
            let mut its = entries.filter(|entry| entry["action"] == deed && entry["target"] == kid.as_str());
            assert!(its.any(|entry| entry["by"] == "Ann"), "{deed}: {audit}");
        }
        for process in [&front].into_iter().chain(&all) {
            assert!(!process.has_said("panicked"), "{}", process.log());
        }
    }
);
