//! What a simulated machine gives to everything on it: time, chance, and processes that can stall and die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contacts::time::micros;
use contacts::{Clock, Micros};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// Follows the runtime's paused time. No two readings are the same, as with a real clock.
pub struct SimClock {
    start: tokio::time::Instant,
    last: AtomicU64,
}

impl SimClock {
    pub fn new() -> SimClock {
        SimClock {
            start: tokio::time::Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Micros {
        let epoch = Micros::from_secs(1_700_000_000);
        let now = epoch.plus(self.start.elapsed()).0;
        let last = self.last.fetch_max(now, Ordering::SeqCst);
        if last < now {
            return Micros(now);
        }
        Micros(self.last.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// The chance of a run: one seed decides everything.
pub struct Dice(Mutex<StdRng>);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.lock().random_bool(probability)
    }

    /// 0 to `end` - 1.
    pub fn below(&self, end: usize) -> usize {
        self.0.lock().random_range(0..end)
    }

    pub fn between(&self, from: usize, to: usize) -> usize {
        self.0.lock().random_range(from..=to)
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.lock().random_range(from..=to))
    }

    /// Up to `longest`, to the millisecond.
    pub fn up_to(&self, longest: Duration) -> Duration {
        Duration::from_micros(self.0.lock().random_range(0..=micros(longest) / 1_000) * 1_000)
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How likely each thing is to go wrong. All zero: calm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A store call does nothing and fails.
    pub store_refuses: f64,
    /// A store call works and its answer is lost.
    pub store_mumbles: f64,
    /// Likewise, of changes of documents only.
    pub swap_mumbles: f64,
    /// A store call takes a while.
    pub store_dawdles: f64,
    /// A CRM call fails, with any kind of error.
    pub crm_fails: f64,
    /// A CRM call takes longer than a lease.
    pub crm_dawdles: f64,
    /// A publish or a settlement fails, with or without effect.
    pub queue_fails: f64,
    /// A job comes twice.
    pub queue_doubles: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Stalls,
    Dead,
}

/// A process: whatever it does passes its gate, so that it can be stopped in its tracks (SIGSTOP) or for good (SIGKILL).
#[derive(Clone)]
pub struct Process {
    pub id: u32,
    life: Arc<watch::Sender<Life>>,
}

impl Process {
    pub fn new(id: u32) -> Process {
        Process {
            id,
            life: Arc::new(watch::Sender::new(Life::Runs)),
        }
    }

    pub fn stall(&self) {
        self.life.send_replace(Life::Stalls);
    }

    /// Only who stalls wakes: one that was killed meanwhile is dead.
    pub fn wake(&self) {
        self.life.send_if_modified(|life| {
            let stalls = *life == Life::Stalls;
            if stalls {
                *life = Life::Runs;
            }
            stalls
        });
    }

    pub fn kill(&self) {
        self.life.send_replace(Life::Dead);
    }

    /// Returns while the process runs; waits while it stalls; never returns once it is dead.
    pub async fn pass(&self) {
        let mut life = self.life.subscribe();
        loop {
            let now = *life.borrow_and_update();
            match now {
                Life::Runs => return,
                Life::Stalls => {
                    // The sender lives in `self`.
                    let _changed = life.changed().await;
                }
                Life::Dead => std::future::pending::<()>().await,
            }
        }
    }
}
