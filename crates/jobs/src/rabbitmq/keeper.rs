//! Sees to it, at run time, that the topology is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contacts::queue::{QueueError, QueueErrorKind, QueueResult};
use tokio::sync::{Mutex, watch};

use super::declare::{Declare, Report, State, bring};
use super::layout::Layout;
use super::link::{Link, delays, next_delay};
use crate::with_source;

/// What the last look at the topology said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Good,
    Refused(String),
}

/// A queue that is missing is declared as recorded, with an alarm, since its jobs are lost: the sweep rings again for what
/// is due. One that differs is refused, since nothing can be done about it while it holds jobs.
pub(super) struct Keeper {
    pub(super) layout: Layout,
    link: Arc<Link>,
    limit: Duration,
    /// When the last look began.
    looked: Mutex<Option<Instant>>,
    verdict: watch::Sender<Verdict>,
}

impl Keeper {
    pub(super) fn new(layout: Layout, link: Arc<Link>, limit: Duration) -> Keeper {
        Keeper {
            layout,
            link,
            limit,
            looked: Mutex::new(None),
            verdict: watch::Sender::new(Verdict::Unknown),
        }
    }

    /// Looks after every reconnect, for ever.
    pub(super) async fn watch(self: Arc<Keeper>) {
        let mut delays_left = delays();
        loop {
            let live = self.link.live().await;
            match self.repair().await {
                Ok(()) => {
                    delays_left = delays();
                    self.link.gone(&live).await;
                }
                Err(error) => {
                    let text = with_source(&error);
                    match error.kind {
                        QueueErrorKind::Topology => tracing::error!(error = text, "the queue is not usable"),
                        _ => tracing::warn!(error = text, "the queue's topology could not be looked at"),
                    }
                    tokio::time::sleep(next_delay(&mut delays_left)).await;
                }
            }
        }
    }

    /// Fails if the last look found a difference.
    pub(super) fn check(&self) -> QueueResult<()> {
        match &*self.verdict.borrow() {
            Verdict::Refused(why) => Err(QueueError::new(QueueErrorKind::Topology, why.clone())),
            Verdict::Unknown | Verdict::Good => Ok(()),
        }
    }

    /// Waits for the first look, but not for a broker that is away.
    pub(super) async fn first_look(&self, wait: Duration) -> QueueResult<()> {
        let mut verdict = self.verdict.subscribe();
        drop(tokio::time::timeout(wait, verdict.wait_for(|verdict| *verdict != Verdict::Unknown)).await);
        self.check()
    }

    /// Looks now and declares what is missing. Callers that come together share one look.
    pub(super) async fn repair(&self) -> QueueResult<()> {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began >= asked) {
            return self.check();
        }
        let began = Instant::now();
        let live = self.link.live_within(self.limit).await?;
        let reports = bring(&live.connection, &self.layout, self.limit, Declare::AfterAWhile).await?;
        *looked = Some(began);
        for report in reports.iter().filter(|report| report.state == State::Created) {
            tracing::error!(
                object = report.object,
                step = report.step,
                "was missing on the broker and is declared again"
            );
            metrics::counter!("snapbridge_queue_redeclared_total").increment(1);
        }
        let different: Vec<String> = reports
            .iter()
            .filter(|report| differs(report))
            .map(Report::to_string)
            .collect();
        self.verdict.send_replace(match different.is_empty() {
            true => Verdict::Good,
            false => Verdict::Refused(different.join("; ")),
        });
        self.check()
    }
}

fn differs(report: &Report) -> bool {
    matches!(report.state, State::Differs(_))
}
