//! Single situations, step by step: what a slice does when it is stopped, killed, robbed of its lease, or refused.

mod clocks;
mod deletions;
mod hooks;
mod outcomes;
mod real_time;
mod resume;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use contacts::ports::{Head, Slice, Snapshots};
use contacts::reading::Narrowing;
use contacts::work::Work;
use contacts::{ErrorKind, Kind, Lane, Position, Stream};

use crate::model_crm::{Deletions, Late, Manners, Order, SaysTime};
use crate::source::Site;
use crate::talkdesk::read_body;
use crate::world::{Tenant, World, short_policy};

/// A CRM without peculiarities.
pub fn plain() -> Manners {
    Manners {
        page: 3,
        full_order: Order::Id,
        changes: true,
        changes_order: Order::ClosedWindow,
        changes_indexed: false,
        full_indexed: false,
        times: true,
        whole_seconds: false,
        lag: Duration::from_secs(1),
        overlap: Duration::from_secs(5),
        visible_within: Duration::from_secs(6),
        get_many: 3,
        deletions: Deletions::None,
        ids_list: false,
        skew: 0,
        says_time: SaysTime::Never,
        webhooks: true,
    }
}

/// One account of one CRM.
pub struct Scene(World);

impl Deref for Scene {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Scene {
    /// With so many contacts, no worker, and nobody having asked for anything.
    pub fn new(manners: Manners, contacts: usize) -> Scene {
        let mut policy = short_policy();
        policy.slice.pages = 1_000;
        policy.slice.time = Duration::from_secs(1_000);
        let mut world = World::new(7, policy);
        world.add_tenant("a", manners, Narrowing::Never);
        let scene = Scene(world);
        *scene.site().latency.lock() = (50, 50);
        for _ in 0..contacts {
            scene.create();
        }
        scene
    }

    /// With a complete snapshot and one worker that rests.
    pub async fn built(manners: Manners, contacts: usize) -> Scene {
        let mut scene = Scene::new(manners, contacts);
        scene.start_worker();
        scene.front().identify().await.expect("a calm store");
        scene.until(|scene| scene.site().in_flight.lock().1 > 0).await;
        scene.until_quiet().await;
        assert!(scene.head().await.is_some_and(|head| head.ready));
        scene
    }

    pub fn tenant(&self) -> &Tenant {
        &self.tenants[0]
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.tenant().site
    }

    pub fn front(&self) -> &Arc<crate::front::Front> {
        &self.tenant().front
    }

    pub fn create(&self) -> String {
        self.site().crm.lock().create(self.now(), Late::default())
    }

    pub fn edit(&self, id: &str) {
        assert!(self.site().crm.lock().edit(id, self.now(), Late::default()));
    }

    pub fn fail(&self, kind: Option<ErrorKind>) {
        *self.site().failing.lock() = kind;
    }

    /// Asks for a task.
    pub async fn ring(&self, kind: Kind) {
        let rung = self
            .front()
            .requests
            .ring(&self.tenant().account.id, kind, Lane::Refresh, None)
            .await;
        rung.expect("a calm store and queue");
    }

    /// A webhook that gets its 2xx.
    pub async fn hook(&self, ids: &[&str]) {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        assert!(
            self.front().hook(&ids, true).await.expect("a calm store and queue"),
            "the account is known"
        );
    }

    pub async fn work(&self) -> Work {
        self.0.work(&self.tenant().account.id).await
    }

    pub async fn head(&self) -> Option<Head> {
        self.store
            .head(&self.tenant().account.id, Stream::Contacts)
            .await
            .expect("a calm store")
    }

    /// Contact id → content.
    pub async fn snapshot(&self) -> BTreeMap<String, u32> {
        let all = Slice {
            after: Position::START,
            until: None,
            rows: usize::MAX,
            bytes: usize::MAX,
            newer_than: None,
        };
        let page = self.store.page(&self.tenant().account.id, Stream::Contacts, &all).await;
        page.expect("a snapshot")
            .bodies
            .iter()
            .map(|body| read_body(body))
            .collect()
    }

    /// What the CRM has.
    pub fn truth(&self) -> BTreeMap<String, u32> {
        let crm = self.site().crm.lock();
        let living = crm.records.iter().filter(|(_, record)| record.is_living());
        living
            .map(|(id, record)| (id.clone(), record.newest().content))
            .collect()
    }

    /// Waits for a condition, in the model's time.
    pub async fn until(&self, condition: impl Fn(&Scene) -> bool) {
        let deadline = self.now().plus(Duration::from_secs(3_600));
        while !condition(self) {
            assert!(self.now() < deadline, "the condition does not come true");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no lease is held and no job waits, without sweeping: whatever goes on goes on by itself.
    pub async fn until_quiet(&self) {
        let deadline = self.now().plus(Duration::from_secs(3_600));
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let work = self.work().await;
            if work.lease.is_none() && work.tasks.values().all(|task| task.marker.is_none()) {
                self.check_work().await;
                self.witness.assert_clean();
                return;
            }
            assert!(self.now() < deadline, "no rest: {work:?}");
        }
    }

    /// Sweeps as a worker does, for a while.
    pub async fn sweep_for(&mut self, time: Duration) {
        let end = self.now().plus(time);
        while self.now() < end {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.sweep().await;
            self.check_work().await;
        }
        self.witness.assert_clean();
    }
}

/// A job's body that the version after this one wrote.
fn newer_body() -> Vec<u8> {
    format!(r#"{{"v":{},"shape":"new"}}"#, contacts::queue::JOB_VERSION + 1).into_bytes()
}
