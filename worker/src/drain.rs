//! Doing what lies in an account's inbox, one payload after the other, under the account's lease: so a record is read and
//! written back by one worker at a time.

use std::sync::Arc;

use contacts::accounts::Account;
use contacts::dead::{self, DeadLetter};
use contacts::inbox::{self, Item, Settled, Urgency};
use contacts::outcome::{self, Outcome};
use contacts::runs::Tally;
use contacts::work::Renewed;
use contacts::{ErrorKind, Fence, Job, Micros};
use crm::CrmError;
use tokio_util::sync::CancellationToken;

use crate::consume::chain;
use crate::crash;
use crate::deps::Deps;
use crate::lease::Keeper;
use crate::slice::{Ended, SliceError, SliceResult};
use crate::source::{Handled, Linker};

/// Payloads that are taken in hand with one look into the inbox.
const HANDFUL: usize = 50;
/// The same of those that news go ahead of: news wait for as many of them at most.
const BULK: usize = 10;

pub struct Drain<'a> {
    deps: &'a Deps,
    account: &'a Account,
    job: &'a Job,
    linker: Arc<dyn Linker>,
    keeper: Keeper,
    stop: &'a CancellationToken,
    began: Micros,
    done: u32,
    next: Option<Micros>,
    tally: Tally,
}

/// Whom a failure keeps waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concerns {
    /// This payload: the others may fare better.
    One,
    /// Whoever comes next would fare the same.
    All,
}

impl Concerns {
    fn of(kind: ErrorKind) -> Concerns {
        match kind {
            ErrorKind::Credentials
            | ErrorKind::Throttled { .. }
            | ErrorKind::Quota { .. }
            | ErrorKind::NoBudget { .. }
            | ErrorKind::StoreDown
            | ErrorKind::Unavailable => Concerns::All,
            ErrorKind::Timeout
            | ErrorKind::BadReply
            | ErrorKind::Rejected
            | ErrorKind::CursorStuck
            | ErrorKind::HostRefused
            | ErrorKind::Missing => Concerns::One,
        }
    }
}

impl<'a> Drain<'a> {
    pub async fn open(
        deps: &'a Deps,
        account: &'a Account,
        job: &'a Job,
        fence: Fence,
        stop: &'a CancellationToken,
    ) -> SliceResult<Drain<'a>> {
        let keeper = Keeper::start(deps, &account.id, fence);
        let linker = deps.sources.linker(account).await?;
        Ok(Drain {
            deps,
            account,
            job,
            linker,
            keeper,
            stop,
            began: deps.clock.now(),
            done: 0,
            next: None,
            tally: Tally::default(),
        })
    }

    pub async fn run(&mut self) -> SliceResult<Ended> {
        let (store, keys) = (&*self.deps.store, &*self.deps.keys);
        loop {
            let now = self.deps.clock.now();
            let mut items = inbox::peek(store, keys, &self.account.id, HANDFUL, now).await?;
            let bulk = items.iter().take_while(|item| item.urgency == Urgency::News).count() + BULK;
            items.truncate(bulk);
            if items.is_empty() {
                self.next = inbox::fill(store, &self.account.id).await?.due;
                return Ok(Ended::Done);
            }
            for item in items {
                if self.done > 0 && !self.goes_on()? {
                    return Ok(Ended::More);
                }
                self.tally.written += u32::from(self.one(&item).await?);
                self.done += 1;
            }
        }
    }

    pub async fn rest(&self) {
        self.linker.rest().await;
    }

    /// When the next payload is due, if this drain got to the end of what was.
    pub fn next(&self) -> Option<Micros> {
        self.next
    }

    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Asked between payloads, and not before the first one, so that each slice makes progress.
    fn goes_on(&self) -> SliceResult<bool> {
        match self.keeper.state() {
            Renewed::Lost => return Err(SliceError::Lost),
            Renewed::Stop => return Ok(false),
            Renewed::Kept => {}
        }
        if self.deps.held.by(&self.account.connector, self.job.lane).is_some() {
            return Ok(false);
        }
        let plan = self.deps.policy.slice;
        let spent = self.deps.clock.now().since(self.began);
        Ok(!self.stop.is_cancelled() && self.done < plan.pages && spent < plan.time)
    }

    /// Works on one payload and says at once what became of it: who dies in between does it again, and finds it done.
    /// `true`: it is.
    async fn one(&self, item: &Item) -> SliceResult<bool> {
        let attempt = item.failed + 1;
        let (settled, outcome) = match &item.payload {
            Err(error) => {
                let reason = "what lay in the inbox cannot be opened";
                self.bury(item, attempt, reason, chain(error)).await?;
                (Settled::Gone, "dead")
            }
            Ok(payload) => match self.linker.handle(&payload.0, item.at).await {
                Ok(Handled::Done) => (Settled::Gone, "done"),
                Ok(Handled::Later(at)) => (Settled::Later { at, failed: false }, "later"),
                Err(error) if Concerns::of(error.kind) == Concerns::One => self.failed(item, attempt, &error).await?,
                // A system may refuse this one record, or fail over it, and serve all others: it must not hold them up.
                Err(error) if matches!(error.kind, ErrorKind::Credentials | ErrorKind::Unavailable) => {
                    if self.linker.check().await.is_err() {
                        return Err(error.into());
                    }
                    let own = CrmError::because(ErrorKind::BadReply, "it alone is refused", error);
                    self.failed(item, attempt, &own).await?
                }
                Err(error) => return Err(error.into()),
            },
        };
        crash::point("before_settle");
        let settling = [(item.ticket.clone(), settled)];
        inbox::settle(&*self.deps.store, &self.account.id, &settling).await?;
        Ok(outcome == "done")
    }

    async fn failed(&self, item: &Item, attempt: u32, error: &CrmError) -> SliceResult<(Settled, &'static str)> {
        let now = self.deps.clock.now();
        let message = chain(error);
        let retry = &self.deps.policy.retry;
        let after = match outcome::judge(error.kind, attempt, now, retry) {
            Outcome::Dead { reason } => {
                self.bury(item, attempt, reason, message).await?;
                return Ok((Settled::Gone, "dead"));
            }
            Outcome::Retry { after } => after,
            _ => retry.wait(attempt),
        };
        tracing::warn!(
            account = %self.account.id, attempt, error = error.kind.as_str(), %message,
            "a payload failed and is tried again"
        );
        let at = now.plus(after);
        Ok((Settled::Later { at, failed: true }, "retried"))
    }

    /// First the letter, then the payload goes: what dies in between writes the same letter again.
    async fn bury(&self, item: &Item, attempts: u32, reason: &str, detail: String) -> SliceResult<()> {
        let letter = DeadLetter {
            id: item.ticket.letter(),
            account: Some(self.account.id.clone()),
            kind: Some(self.job.kind),
            lane: Some(self.job.lane),
            reason: reason.to_owned(),
            detail,
            attempts,
            at: self.deps.clock.now(),
            ids: Vec::new(),
            payload: Some(item.kept.clone()),
        };
        dead::put(&*self.deps.store, &letter).await?;
        metrics::counter!("snapbridge_dead_letters_total", "kind" => self.job.kind.as_str()).increment(1);
        Ok(())
    }
}
