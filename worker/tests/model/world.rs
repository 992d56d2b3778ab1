//! Everything of one run, put together: store, broker, sites, fronts, model Talkdesks, and workers that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::keys::{Keys, RawKey};
use contacts::outcome::RetryPolicy;
use contacts::ports::Documents;
use contacts::queue::QueueResult;
use contacts::reading::Narrowing;
use contacts::work::{self, LOOK, WorkTimes};
use contacts::{AccountId, Clock, Kind, Micros};
use parking_lot::Mutex;
use store::memory::MemoryStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::deps::Brake;
use worker::source::Pace;
use worker::{Deps, Plan, Policy, Requests};

use crate::front::Front;
use crate::machine::{Dice, Faults, Process, SimClock};
use crate::model_crm::{Crm, Manners};
use crate::port::Port;
use crate::queue::{Broker, SimQueue};
use crate::source::{Net, SimSources, Site};
use crate::talkdesk::Talkdesk;
use crate::witness::Witness;

/// Everything short, so that much happens within minutes of the model's time.
pub fn short_policy() -> Policy {
    Policy {
        held_look: Duration::from_secs(30),
        slots: 3,
        slice: Plan {
            time: Duration::from_secs(4),
            pages: 4,
        },
        retry: RetryPolicy {
            attempts: 4,
            first: Duration::from_secs(1),
            max: Duration::from_secs(20),
        },
        times: WorkTimes {
            lease: Duration::from_secs(6),
            marker: Duration::from_secs(20),
        },
        // The sweep inside a worker looks once when it starts; from then on the test sweeps, so that its seed decides.
        sweep: Duration::from_secs(1 << 30),
        commit_rows: 3,
        stop_grace: Duration::from_secs(2),
        brake: Brake {
            ratio: 0.2,
            min: 3,
            max: 50,
        },
        busy_wait: Duration::from_secs(1),
        tombstones: Duration::from_secs(24 * 3600),
        dirty_limit: 500,
        remap_within: Duration::ZERO,
        // The model's Talkdesk never falls silent for as long.
        life: contacts::life::Ages {
            suspend: Duration::MAX,
            drop: Duration::MAX,
        },
        walk: 50,
        audit: 50,
    }
}

pub fn short_pace() -> Pace {
    Pace {
        poll: Duration::from_secs(20),
        reconcile: Duration::from_secs(240),
        jitter: 0.1,
        silence: Duration::from_secs(60),
        agents: None,
    }
}

fn raw_key(byte: u8) -> RawKey {
    RawKey::new(Box::new([byte; 32]))
}

pub struct World {
    pub net: Arc<Net>,
    pub broker: Arc<Broker>,
    pub store: MemoryStore,
    pub witness: Arc<Witness>,
    pub keys: Arc<Keys>,
    pub policy: Policy,
    pub tenants: Vec<Tenant>,
    pub workers: Vec<Worker>,
    /// When the store was emptied last.
    pub wiped: Mutex<Micros>,
    processes: u32,
}

/// An account with both of its ends.
pub struct Tenant {
    pub account: Account,
    pub site: Arc<Site>,
    pub front: Arc<Front>,
    pub talkdesk: Arc<tokio::sync::Mutex<Talkdesk>>,
    pub hooks: Arc<Mutex<Vec<Hook>>>,
}

/// A webhook that got its 2xx.
#[derive(Clone, Debug)]
pub struct Hook {
    pub ids: Vec<String>,
    pub came: Micros,
}

pub struct Worker {
    pub process: Process,
    pub stop: CancellationToken,
    pub handle: JoinHandle<QueueResult<()>>,
}

impl World {
    pub fn new(seed: u64, policy: Policy) -> World {
        let clock = Arc::new(SimClock::new());
        let net = Arc::new(Net {
            clock,
            dice: Arc::new(Dice::new(seed)),
            faults: Arc::default(),
            sites: Mutex::default(),
            pace: Mutex::new(Some(short_pace())),
            brake: policy.brake,
        });
        let keys = Keys::new(&raw_key(1), &[("k1".to_owned(), raw_key(2))]).expect("legal keys");
        World {
            broker: Broker::new(net.clone()),
            net,
            store: MemoryStore::new(),
            witness: Arc::default(),
            keys: Arc::new(keys),
            policy,
            tenants: Vec::new(),
            workers: Vec::new(),
            wiped: Mutex::default(),
            processes: 0,
        }
    }

    pub fn now(&self) -> Micros {
        self.net.clock.now()
    }

    /// What was drawn, for the message of a failure.
    pub fn describe(&self) -> String {
        let tenant = |tenant: &Tenant| {
            let (front, crm) = (&tenant.front, tenant.site.crm.lock());
            format!(
                "{} page {} {:?} {:?}",
                crm.prefix, front.page, front.narrowing, crm.manners
            )
        };
        let tenants: Vec<String> = self.tenants.iter().map(tenant).collect();
        format!("{:?}\n{}", self.policy, tenants.join("\n"))
    }

    pub fn set_faults(&self, faults: Faults) {
        *self.net.faults.lock() = faults;
    }

    fn process(&mut self) -> Process {
        self.processes += 1;
        Process::new(self.processes)
    }

    pub fn port(&self, process: &Process) -> Arc<Port> {
        Arc::new(Port {
            inner: self.store.clone(),
            net: self.net.clone(),
            witness: self.witness.clone(),
            process: process.clone(),
        })
    }

    pub fn deps(&self, process: &Process) -> Deps {
        let store = self.port(process);
        let queue = Arc::new(SimQueue {
            broker: self.broker.clone(),
            process: process.clone(),
        });
        let clock: Arc<dyn Clock> = self.net.clock.clone();
        let (times, limit) = (self.policy.times, self.policy.dirty_limit);
        Deps {
            held: Default::default(),
            requests: Arc::new(Requests::new(store.clone(), queue.clone(), clock.clone(), times, limit)),
            store,
            queue,
            keys: self.keys.clone(),
            clock,
            sources: Arc::new(SimSources {
                net: self.net.clone(),
                process: process.clone(),
            }),
            policy: self.policy,
            owner: format!("process {}", process.id),
        }
    }

    pub fn add_tenant(&mut self, name: &str, manners: Manners, narrowing: Narrowing) {
        let process = self.process();
        let account = Front::account(&self.keys, name, self.now());
        let page = self.net.dice.between(1, 6);
        let front = Arc::new(Front {
            port: self.port(&process),
            requests: self.deps(&process).requests,
            keys: self.keys.clone(),
            account: account.clone(),
            narrowing,
            page,
        });
        let site = Arc::new(Site::new(Crm::new(manners, name)));
        *site.latency.lock() = *self.net.dice.pick(&[(1, 150), (1, 150), (200, 1_500)]);
        self.net.sites.lock().insert(account.id.clone(), site.clone());
        let talkdesk = Arc::new(tokio::sync::Mutex::new(Talkdesk::new(front.clone(), site.clone())));
        self.tenants.push(Tenant {
            account,
            site,
            front,
            talkdesk,
            hooks: Arc::default(),
        });
    }

    pub fn start_worker(&mut self) {
        let process = self.process();
        let stop = CancellationToken::new();
        let handle = tokio::spawn(worker::run(self.deps(&process), stop.clone()));
        self.workers.push(Worker { process, stop, handle });
    }

    /// As `kill -9` does: it never does anything again, and the broker gives what it had in hand to others.
    pub fn kill_worker(&mut self, which: usize) {
        let worker = self.workers.remove(which);
        worker.process.kill();
        self.broker.disconnect(worker.process.id);
    }

    /// As SIGSTOP does, for longer than a lease: the broker gives up on it, and then it wakes.
    pub fn stall_worker(&self, which: usize, pause: Duration) {
        let (process, broker) = (self.workers[which].process.clone(), self.broker.clone());
        process.stall();
        tokio::spawn(async move {
            tokio::time::sleep(pause / 2).await;
            broker.disconnect(process.id);
            tokio::time::sleep(pause / 2).await;
            process.wake();
        });
    }

    /// As SIGTERM does. It ends when what it has in hand has ended.
    pub fn stop_worker(&mut self, which: usize) -> JoinHandle<()> {
        let worker = self.workers.remove(which);
        let (broker, witness) = (self.broker.clone(), self.witness.clone());
        worker.stop.cancel();
        tokio::spawn(async move {
            let ended = worker.handle.await;
            if !matches!(ended, Ok(Ok(()))) {
                witness.breach(format!("a worker did not end well: {ended:?}"));
            }
            broker.disconnect(worker.process.id);
        })
    }

    pub async fn sweep(&mut self) -> u64 {
        let process = self.process();
        worker::sweep::once(&self.deps(&process)).await.unwrap_or(0)
    }

    /// The store restarts empty.
    pub fn wipe(&self) {
        self.store.wipe();
        self.witness.forget();
        *self.wiped.lock() = self.now();
    }

    pub async fn work(&self, account: &AccountId) -> work::Work {
        work::load(&self.store, account)
            .await
            .expect("the store in memory holds readable work")
    }

    /// Invariant 14, and the half of 9 that can be seen at any moment: whatever is due is found by the sweep, an account
    /// with a snapshot is never without a next look at it, and of the jobs of a kind at most one is not superseded.
    pub async fn check_work(&self) {
        let look = self
            .store
            .index_until(LOOK, Micros(u64::MAX >> 1), usize::MAX)
            .await
            .unwrap_or_default();
        let look: BTreeMap<String, Micros> = look.into_iter().collect();
        let jobs = self.broker.jobs();
        for tenant in &self.tenants {
            let account = &tenant.account.id;
            let work = self.work(account).await;
            for (kind, task) in &work.tasks {
                let member = format!("{account}|{kind}");
                let at = look.get(&member);
                if task.marker.is_some() && task.due.is_none() {
                    self.witness.breach(format!(
                        "invariant 14: a job of {kind} waits, and nothing is due: {task:?}"
                    ));
                }
                if task.due.is_some() && !work.is_held() {
                    let agreed = task.due.max(task.not_before).unwrap_or_default();
                    let horizon = self.now().plus(Duration::from_secs(600)).max(agreed);
                    if at.is_none_or(|at| *at > horizon) {
                        self.witness.breach(format!(
                            "invariant 14: {kind} is due and not looked at: {at:?} {task:?}"
                        ));
                    }
                } else if at.is_some() {
                    self.witness
                        .breach(format!("invariant 14: {kind} is looked at and not due: {task:?}"));
                }
                let of_kind = jobs.iter().filter(|job| job.account == *account && job.kind == *kind);
                let mut waiting: Vec<_> = of_kind
                    .filter(|job| task.marker.as_ref().is_some_and(|marker| marker.job == job.id))
                    .collect();
                waiting.dedup_by_key(|job| &job.id);
                if waiting.len() > 1 {
                    self.witness
                        .breach(format!("invariant 9: {} jobs of {kind} wait", waiting.len()));
                }
            }
            let head = contacts::ports::Snapshots::head(&self.store, account, contacts::Stream::Contacts).await;
            let known = accounts::get(&self.store, account).await.unwrap_or_default().is_some();
            if known && head.unwrap_or_default().is_some_and(|head| head.ready) {
                let next = [Kind::Changes, Kind::Full]
                    .iter()
                    .any(|kind| work.tasks.get(kind).is_some_and(|task| task.due.is_some()));
                if !next {
                    self.witness
                        .breach(format!("invariant 14: nothing will refresh {account}: {work:?}"));
                }
            }
        }
    }
}
