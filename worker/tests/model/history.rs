//! A random history: what happens to the CRM, the machines and the services while the refresh goes on.

use std::time::Duration;

use contacts::ErrorKind;
use contacts::reading::Narrowing;
use contacts::time::micros;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::machine::{Dice, Faults};
use crate::model_crm::{Deletions, Late, Manners, Order, SaysTime};
use crate::world::{Hook, Tenant, World, short_policy};

/// What kinds of trouble a history has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub faults: Faults,
    /// Workers are killed, stalled and stopped.
    pub deaths: bool,
    /// The store restarts empty.
    pub wipes: bool,
    /// Contacts are out of sight for a while.
    pub hides: bool,
    /// Listings that leave rows out while others move.
    pub moving: bool,
    /// The broker is out of reach, jobs are lost, the CRM fails for minutes.
    pub outages: bool,
}

impl Trouble {
    pub fn is_calm(&self) -> bool {
        !self.deaths && !self.wipes && !self.outages && self.faults.store_refuses == 0.0
    }
}

pub fn draw_manners(dice: &Dice, trouble: &Trouble) -> (Manners, Narrowing) {
    let times = dice.chance(0.85);
    let changes = times && dice.chance(0.85);
    let whole_seconds = times && dice.chance(0.4);
    let full_order = match (trouble.moving, times) {
        (true, _) => Order::Moving,
        (_, false) => Order::Id,
        _ => *dice.pick(&[Order::Id, Order::ClosedWindow, Order::Updated]),
    };
    let precision = Duration::from_secs(u64::from(whole_seconds));
    let lag = *dice.pick(&[Duration::ZERO, dice.millis(0, 5_000)]);
    let overlap = precision + dice.millis(0, 15_000);
    let says_time = *dice.pick(&[SaysTime::Seconds, SaysTime::Seconds, SaysTime::Exactly, SaysTime::Never]);
    let skew_millis = i64::try_from(dice.between(0, 7_200_000)).unwrap_or(0) - 3_600_000;
    let deletions = *dice.pick(&[Deletions::Flag, Deletions::List, Deletions::None]);
    let manners = Manners {
        page: dice.between(2, 7),
        full_order,
        changes,
        changes_order: *dice.pick(&[Order::Id, Order::ClosedWindow, Order::Updated]),
        changes_indexed: dice.chance(0.4),
        // An index without times cannot tell old rows from new ones. What an index shows again unchanged after it was gone
        // is not believed.
        full_indexed: times && !trouble.hides && dice.chance(0.3),
        times,
        whole_seconds,
        lag,
        overlap,
        visible_within: lag + overlap - precision,
        get_many: if dice.chance(0.75) { dice.between(1, 5) } else { 0 },
        deletions,
        ids_list: dice.chance(0.5),
        skew: if says_time == SaysTime::Never {
            0
        } else {
            skew_millis * 1_000
        },
        says_time,
        webhooks: dice.chance(0.7),
    };
    let narrows = times && !trouble.moving && !trouble.hides && dice.chance(0.5);
    let narrowing = if narrows {
        Narrowing::Allowed { precision }
    } else {
        Narrowing::Never
    };
    (manners, narrowing)
}

/// The longest time from a change to its visibility that this CRM keeps to, drawn at random.
fn draw_lateness(dice: &Dice, manners: &Manners) -> Late {
    let longest = manners.visible_within;
    let commit = if dice.chance(0.3) {
        dice.up_to(longest)
    } else {
        Duration::ZERO
    };
    let index = match dice.below(4) {
        0 => longest - commit,
        1 => dice.up_to(longest - commit),
        _ => Duration::ZERO,
    };
    Late { commit, index }
}

pub struct History {
    pub world: World,
    trouble: Trouble,
    hooks: JoinSet<()>,
    callers: JoinSet<()>,
    end: CancellationToken,
}

impl History {
    pub fn begin(seed: u64, trouble: Trouble) -> History {
        let mut policy = short_policy();
        let mut world = World::new(seed, policy);
        let dice = world.net.dice.clone();
        policy.dirty_limit = *dice.pick(&[500, 500, 5]);
        policy.commit_rows = dice.between(1, 5);
        policy.slice.pages = u32::try_from(dice.between(1, 8)).unwrap_or(1);
        world.policy = policy;
        for name in ["a", "b"].iter().take(dice.between(1, 2)) {
            let (manners, narrowing) = draw_manners(&dice, &trouble);
            world.add_tenant(name, manners, narrowing);
        }
        world.set_faults(trouble.faults);
        for _ in 0..dice.between(1, 2) {
            world.start_worker();
        }
        let mut history = History {
            world,
            trouble,
            hooks: JoinSet::new(),
            callers: JoinSet::new(),
            end: CancellationToken::new(),
        };
        for which in 0..history.world.tenants.len() {
            for _ in 0..dice.between(0, 25) {
                history.create(which);
            }
            history.call_regularly(which);
        }
        history
    }

    fn call_regularly(&mut self, which: usize) {
        let (talkdesk, dice) = (self.world.tenants[which].talkdesk.clone(), self.world.net.dice.clone());
        let end = self.end.clone();
        self.callers.spawn(async move {
            while !end.is_cancelled() {
                tokio::time::sleep(dice.millis(50, 12_000)).await;
                talkdesk.lock().await.step().await;
            }
        });
    }

    /// Stops what comes from outside and returns the world.
    pub async fn end(mut self) -> World {
        self.end.cancel();
        self.world.broker.set_down(false);
        for tenant in &self.world.tenants {
            *tenant.site.failing.lock() = None;
        }
        self.world.set_faults(Faults::default());
        for set in [&mut self.callers, &mut self.hooks] {
            while let Some(ended) = set.join_next().await {
                assert!(ended.is_ok(), "{ended:?}");
            }
        }
        self.world
    }

    pub async fn step(&mut self) {
        let dice = self.world.net.dice.clone();
        let which = dice.below(self.world.tenants.len());
        match dice.below(100) {
            0..12 => {
                for _ in 0..dice.between(1, 3) {
                    self.create(which);
                }
            }
            12..36 => self.edit_some(which, 1),
            36..40 => self.edit_some(which, 8),
            40..44 => self.touch(which),
            44..49 => self.delete(which),
            49..51 => self.restore(which),
            51..54 => self.merge(which),
            54..60 => self.stray_hooks(which),
            60..74 => {
                self.world.sweep().await;
            }
            74..77 if self.trouble.hides => self.hide(which),
            77..90 => self.machines().await,
            90..94 => self.services(which),
            94..95 => self.park(which).await,
            _ => {}
        }
        let pause = if dice.chance(0.7) {
            dice.millis(1, 1_500)
        } else {
            dice.millis(1_000, 12_000)
        };
        tokio::time::sleep(pause).await;
        self.world.check_work().await;
    }

    fn tenant(&self, which: usize) -> &Tenant {
        &self.world.tenants[which]
    }

    fn late(&self, which: usize) -> Late {
        draw_lateness(&self.world.net.dice, &self.tenant(which).site.crm.lock().manners)
    }

    fn any_living(&self, which: usize) -> Option<String> {
        let living = self.tenant(which).site.crm.lock().living(self.world.now());
        (!living.is_empty()).then(|| self.world.net.dice.pick(&living).clone())
    }

    fn create(&mut self, which: usize) {
        let late = self.late(which);
        let id = self.tenant(which).site.crm.lock().create(self.world.now(), late);
        self.announce(which, vec![id], late);
    }

    /// All with one stamp.
    fn edit_some(&mut self, which: usize, most: usize) {
        let now = self.world.now();
        for _ in 0..self.world.net.dice.between(1, most) {
            let late = self.late(which);
            let Some(id) = self.any_living(which) else { return };
            if self.tenant(which).site.crm.lock().edit(&id, now, late) {
                self.announce(which, vec![id], late);
            }
        }
    }

    fn touch(&mut self, which: usize) {
        let late = self.late(which);
        if let Some(id) = self.any_living(which) {
            self.tenant(which).site.crm.lock().touch(&id, self.world.now(), late);
        }
    }

    fn delete(&mut self, which: usize) {
        let late = self.late(which);
        let Some(id) = self.any_living(which) else { return };
        if self.tenant(which).site.crm.lock().delete(&id, self.world.now(), late) {
            self.announce(which, vec![id], late);
        }
    }

    fn restore(&mut self, which: usize) {
        let (late, now) = (self.late(which), self.world.now());
        let deleted = self.tenant(which).site.crm.lock().deleted(now);
        if deleted.is_empty() {
            return;
        }
        let id = self.world.net.dice.pick(&deleted).clone();
        if self.tenant(which).site.crm.lock().restore(&id, now, late) {
            self.announce(which, vec![id], late);
        }
    }

    fn merge(&mut self, which: usize) {
        let (Some(gone), Some(into)) = (self.any_living(which), self.any_living(which)) else {
            return;
        };
        let changes = self.world.net.dice.chance(0.5);
        if gone != into
            && self
                .tenant(which)
                .site
                .crm
                .lock()
                .merge(&gone, &into, changes, self.world.now())
        {
            self.announce(which, vec![into, gone], Late::default());
        }
    }

    fn hide(&mut self, which: usize) {
        let (dice, now) = (self.world.net.dice.clone(), self.world.now());
        let living = self.tenant(which).site.crm.lock().living(now);
        let share = *dice.pick(&[0.1, 0.5, 1.0]);
        let pause = if dice.chance(0.5) {
            dice.millis(500, 8_000)
        } else {
            dice.millis(8_000, 90_000)
        };
        for id in living.iter().filter(|_| dice.chance(share)) {
            self.tenant(which).site.crm.lock().hide(id, now, now.plus(pause));
            if dice.chance(0.5) {
                self.hook(which, vec![id.clone()], pause + dice.millis(0, 500));
            }
        }
    }

    /// Sends webhooks for a change: one, several, or none; soon, or late.
    fn announce(&mut self, which: usize, ids: Vec<String>, late: Late) {
        let dice = self.world.net.dice.clone();
        if !self.tenant(which).site.crm.lock().manners.webhooks || dice.chance(0.3) {
            return;
        }
        for _ in 0..dice.between(1, 2) {
            let wait = late.commit + dice.millis(0, if dice.chance(0.9) { 500 } else { 20_000 });
            self.hook(which, ids.clone(), wait);
        }
    }

    /// Old, unknown and many at once.
    fn stray_hooks(&mut self, which: usize) {
        let dice = self.world.net.dice.clone();
        for _ in 0..*dice.pick(&[1, 2, 12]) {
            let id = self
                .any_living(which)
                .filter(|_| dice.chance(0.9))
                .unwrap_or_else(|| "a9999".to_owned());
            self.hook(which, vec![id], dice.millis(0, 300));
        }
    }

    fn hook(&mut self, which: usize, ids: Vec<String>, wait: Duration) {
        let tenant = self.tenant(which);
        let (front, hooks) = (tenant.front.clone(), tenant.hooks.clone());
        let by_id = tenant.site.crm.lock().manners.get_many > 0;
        let net = self.world.net.clone();
        self.hooks.spawn(async move {
            tokio::time::sleep(wait).await;
            let came = contacts::Clock::now(&*net.clock);
            if front.hook(&ids, by_id).await.unwrap_or(false) {
                hooks.lock().push(Hook { ids, came });
            }
        });
    }

    async fn machines(&mut self) {
        let (dice, workers) = (self.world.net.dice.clone(), self.world.workers.len());
        if workers == 0 || (workers < 3 && dice.chance(0.3)) {
            self.world.start_worker();
            return;
        }
        if !self.trouble.deaths {
            return;
        }
        let which = dice.below(workers);
        match dice.below(3) {
            0 => self.world.kill_worker(which),
            1 => self.world.stall_worker(which, dice.millis(1_000, 20_000)),
            _ => {
                self.world.stop_worker(which);
            }
        }
    }

    fn services(&mut self, which: usize) {
        let dice = self.world.net.dice.clone();
        if self.trouble.wipes && dice.chance(0.4) {
            self.world.wipe();
            return;
        }
        if !self.trouble.outages {
            return;
        }
        let until = self.world.now().plus(dice.millis(0, 30_000));
        let pause = dice.millis(1_000, 30_000);
        match dice.below(4) {
            0 => self.world.broker.lose(1.0),
            1 => self.world.broker.lose(0.5),
            2 => {
                let broker = self.world.broker.clone();
                broker.set_down(true);
                self.hooks.spawn(async move {
                    tokio::time::sleep(pause).await;
                    broker.set_down(false);
                });
            }
            _ => {
                let site = self.tenant(which).site.clone();
                let kind = *dice.pick(&[
                    ErrorKind::Unavailable,
                    ErrorKind::Timeout,
                    ErrorKind::Credentials,
                    ErrorKind::Quota { until },
                    ErrorKind::Rejected,
                ]);
                *site.failing.lock() = Some(kind);
                self.hooks.spawn(async move {
                    tokio::time::sleep(pause).await;
                    *site.failing.lock() = None;
                });
            }
        }
    }

    async fn park(&mut self, which: usize) {
        let front = &self.tenant(which).front;
        let refused = contacts::accounts::reject(&*front.port, &front.account.fingerprint).await;
        if refused.is_ok() && front.requests.park(&front.account.id, "refused").await.is_err() {
            // The next call of Talkdesk finds out.
        }
    }
}

/// The longest a history's changes stay out of sight.
pub fn settling_time(world: &World) -> Duration {
    let sites = world
        .tenants
        .iter()
        .map(|tenant| micros(tenant.site.crm.lock().manners.visible_within));
    Duration::from_micros(sites.max().unwrap_or(0)) + Duration::from_secs(91)
}
