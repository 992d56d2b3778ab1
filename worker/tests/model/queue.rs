//! A queue in one thread and on the model's time, so that a seed decides what happens: jobs are lost, come twice, and
//! settlements fail. What a worker that died had in hand comes again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::queue::{
    Confirmed, Consumer, DeadSink, Delivery, Depths, Job, Queue, QueueError, QueueErrorKind, QueueResult, Settle,
    Settler,
};
use contacts::{Clock, Lane, Micros};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::machine::Process;
use crate::source::Net;

/// How long an unsettled delivery is held back.
const REDELIVERY: Duration = Duration::from_secs(1);

struct Entry {
    number: u64,
    lane: Lane,
    body: Vec<u8>,
    due: Micros,
    /// The process that has it in hand.
    holder: Option<u32>,
}

pub struct Broker {
    net: Arc<Net>,
    entries: Mutex<(u64, Vec<Entry>)>,
    news: Notify,
    down: Mutex<bool>,
    settled: Mutex<Vec<Settle>>,
}

impl Broker {
    pub fn new(net: Arc<Net>) -> Arc<Broker> {
        Arc::new(Broker {
            net,
            entries: Mutex::default(),
            news: Notify::new(),
            down: Mutex::default(),
            settled: Mutex::default(),
        })
    }

    pub fn set_down(&self, down: bool) {
        *self.down.lock() = down;
        self.news.notify_waiters();
    }

    /// Loses jobs that wait, each with this probability.
    pub fn lose(&self, probability: f64) {
        self.entries
            .lock()
            .1
            .retain(|entry| entry.holder.is_some() || !self.net.dice.chance(probability));
    }

    /// The connection of a process is gone: what it had in hand comes again.
    pub fn disconnect(&self, process: u32) {
        let due = self.net.clock.now().plus(REDELIVERY);
        for entry in self
            .entries
            .lock()
            .1
            .iter_mut()
            .filter(|entry| entry.holder == Some(process))
        {
            (entry.holder, entry.due) = (None, due);
        }
        self.news.notify_waiters();
    }

    /// Every readable job, in hand or waiting.
    pub fn jobs(&self) -> Vec<Job> {
        self.entries
            .lock()
            .1
            .iter()
            .filter_map(|entry| Job::read(&entry.body).ok())
            .collect()
    }

    /// Bodies of every kind, in hand or waiting.
    pub fn len(&self) -> usize {
        self.entries.lock().1.len()
    }

    /// How many deliveries have been settled so.
    pub fn settled(&self, how: impl Fn(&Settle) -> bool) -> usize {
        self.settled.lock().iter().filter(|settled| how(settled)).count()
    }

    pub fn put(&self, lane: Lane, body: Vec<u8>, due: Micros) {
        let mut entries = self.entries.lock();
        entries.0 += 1;
        let number = entries.0;
        entries.1.push(Entry {
            number,
            lane,
            body,
            due,
            holder: None,
        });
        drop(entries);
        self.news.notify_waiters();
    }

    fn reachable(&self) -> QueueResult<()> {
        match *self.down.lock() {
            true => Err(unavailable()),
            false => Ok(()),
        }
    }

    fn claim(&self, process: u32, lanes: &[Lane]) -> Result<(u64, Vec<u8>), Duration> {
        let longest = Duration::from_secs(60);
        if *self.down.lock() {
            return Err(longest);
        }
        let now = self.net.clock.now();
        let mut entries = self.entries.lock();
        let free = entries
            .1
            .iter_mut()
            .filter(|entry| entry.holder.is_none() && lanes.contains(&entry.lane));
        let Some(first) = free.min_by_key(|entry| (entry.due, entry.number)) else {
            return Err(longest);
        };
        if first.due > now {
            return Err(first.due.since(now) + Duration::from_millis(1));
        }
        first.holder = Some(process);
        Ok((first.number, first.body.clone()))
    }

    /// `None`: it is no longer this process's to settle.
    fn take_back(&self, number: u64, process: u32) -> Option<Entry> {
        let mut entries = self.entries.lock();
        let mine = entries
            .1
            .iter()
            .position(|entry| entry.number == number && entry.holder == Some(process))?;
        Some(entries.1.remove(mine))
    }
}

fn unavailable() -> QueueError {
    QueueError::new(QueueErrorKind::Unavailable, "the model queue fails")
}

/// The broker as one process sees it.
#[derive(Clone)]
pub struct SimQueue {
    pub broker: Arc<Broker>,
    pub process: Process,
}

#[async_trait]
impl Queue for SimQueue {
    async fn publish(&self, job: &Job) -> QueueResult<Confirmed> {
        self.process.pass().await;
        self.broker.reachable()?;
        let (net, now) = (&self.broker.net, self.broker.net.clock.now());
        let faults = *net.faults.lock();
        let fails = net.dice.chance(faults.queue_fails);
        // A confirmation that failed says nothing about the job.
        if !fails || net.dice.chance(0.5) {
            self.broker.put(job.lane, job.to_json(), now);
        }
        if net.dice.chance(faults.queue_doubles) {
            self.broker
                .put(job.lane, job.to_json(), now.plus(net.dice.millis(0, 5_000)));
        }
        self.process.pass().await;
        if fails { Err(unavailable()) } else { Ok(Confirmed) }
    }

    async fn consume(&self, lanes: &[Lane], slots: usize) -> QueueResult<Box<dyn Consumer>> {
        let slots = Arc::new(Semaphore::new(slots));
        Ok(Box::new(SimConsumer {
            queue: self.clone(),
            lanes: lanes.to_vec(),
            slots,
            stopped: false,
        }))
    }

    async fn depth(&self) -> QueueResult<Depths> {
        Ok(Depths::default())
    }

    async fn drain_dead(&self, _sink: &dyn DeadSink) -> QueueResult<u64> {
        Ok(0)
    }

    fn describe(&self) -> String {
        "model".to_owned()
    }

    async fn ping(&self) -> QueueResult<()> {
        self.broker.reachable()
    }

    fn is_blocked(&self) -> bool {
        false
    }
}

struct SimConsumer {
    queue: SimQueue,
    lanes: Vec<Lane>,
    slots: Arc<Semaphore>,
    stopped: bool,
}

#[async_trait]
impl Consumer for SimConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        if self.stopped {
            return None;
        }
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        loop {
            self.queue.process.pass().await;
            let broker = &self.queue.broker;
            let mut news = std::pin::pin!(broker.news.notified());
            news.as_mut().enable();
            let wait = match broker.claim(self.queue.process.id, &self.lanes) {
                Ok((number, body)) => {
                    let settler = SimSettler {
                        queue: self.queue.clone(),
                        number,
                        settled: false,
                        _slot: slot,
                    };
                    return Some(Delivery::new(body, Box::new(settler)));
                }
                Err(wait) => wait,
            };
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
    }
}

struct SimSettler {
    queue: SimQueue,
    number: u64,
    settled: bool,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Settler for SimSettler {
    async fn settle(mut self: Box<Self>, body: &[u8], how: &Settle) -> QueueResult<()> {
        self.queue.process.pass().await;
        let broker = self.queue.broker.clone();
        broker.reachable()?;
        let (net, now) = (&broker.net, broker.net.clock.now());
        let faults = *net.faults.lock();
        if net.dice.chance(faults.queue_fails) {
            return Err(unavailable());
        }
        broker.settled.lock().push(how.clone());
        // A copy is confirmed before the ack.
        if let Settle::Later { job, after } = how {
            broker.put(job.lane, job.to_json(), now.plus(*after));
            if net.dice.chance(faults.queue_fails) {
                return Err(unavailable());
            }
        }
        // Acks are not confirmed: one may get lost unnoticed, and the delivery comes again.
        if net.dice.chance(faults.queue_doubles) {
            return Ok(());
        }
        self.settled = true;
        let entry = broker
            .take_back(self.number, self.queue.process.id)
            .ok_or_else(unavailable)?;
        if let Settle::PutOff { after } = how {
            broker.put(entry.lane, body.to_vec(), now.plus(*after));
        }
        Ok(())
    }
}

impl Drop for SimSettler {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let broker = &self.queue.broker;
        if let Some(entry) = broker.take_back(self.number, self.queue.process.id) {
            broker.put(entry.lane, entry.body, broker.net.clock.now().plus(REDELIVERY));
        }
    }
}
