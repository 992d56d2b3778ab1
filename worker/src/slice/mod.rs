//! One slice: a bounded piece of an account's refresh, run under its lease.

mod agents;
mod changes;
mod confirm;
mod full;
mod ids;
mod write;

pub use write::row;

use std::sync::Arc;
use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::erased::{self, Erased};
use contacts::ports::{Head, StoreErrorKind};
use contacts::remap::Mapped;
use contacts::runs::Tally;
use contacts::work::Renewed;
use contacts::{ErrorKind, Fence, Generation, Kind, Lane, Micros, StoreError, Stream};
use tokio_util::sync::CancellationToken;

use crate::deps::Deps;
use crate::lease::Keeper;
use crate::progress::Progress;
use crate::source::Source;
use crm::{CrmError, CrmResult};

/// How a slice ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Progress was made and there is more.
    More,
}

#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    #[error(transparent)]
    Source(#[from] CrmError),
    #[error("the store failed during a slice")]
    Store(#[source] StoreError),
    /// Somebody else has the account.
    #[error("the lease was lost")]
    Lost,
}

impl From<StoreError> for SliceError {
    fn from(error: StoreError) -> SliceError {
        match error.kind {
            StoreErrorKind::Fenced => SliceError::Lost,
            _ => SliceError::Store(error),
        }
    }
}

pub type SliceResult<T> = Result<T, SliceError>;

/// A poll that a slice read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Our clock when it began.
    pub started: Micros,
    /// Its window ended this long before that.
    pub lag: Duration,
}

/// The state of a running slice.
pub struct Slice<'a> {
    deps: &'a Deps,
    account: &'a Account,
    source: Arc<dyn Source>,
    fence: Fence,
    keeper: Keeper,
    stop: &'a CancellationToken,
    /// What this slice writes; the lease is of this stream.
    stream: Stream,
    began: Micros,
    pages: u32,
    head: Head,
    progress: Progress,
    polled: Option<Polled>,
    verified: bool,
    lane: Lane,
    tally: Tally,
    /// Who is kept out.
    erased: Erased,
}

impl<'a> Slice<'a> {
    pub async fn open(
        deps: &'a Deps,
        account: &'a Account,
        (stream, lane): (Stream, Lane),
        fence: Fence,
        stop: &'a CancellationToken,
    ) -> SliceResult<Slice<'a>> {
        let keeper = Keeper::start(deps, &account.id, fence);
        let head = deps
            .store
            .open(&account.id, stream, fence, Generation::random())
            .await?;
        // After the lease was taken: whoever erases a contact notes it before asking for the lease.
        let erased = erased::load(&*deps.store, &account.id).await?;
        let source = deps.sources.source(account).await?;
        let mut progress = Progress::read(&head.progress);
        let began = deps.clock.now();
        if stream == Stream::Contacts {
            let before = progress.mapped;
            let mapped = Mapped::on(before, source.traits().mapping, head.ready, began);
            if before.is_some_and(|before| before.version != mapped.version) {
                let within = deps.policy.remap_within;
                tracing::info!(account = %account.id, ?within, "the mapping has changed; contacts take it on in turns");
            }
            progress.mapped = Some(mapped);
        }
        Ok(Slice {
            deps,
            account,
            source,
            fence,
            keeper,
            stop,
            stream,
            began,
            pages: 0,
            head,
            progress,
            polled: None,
            verified: false,
            lane,
            tally: Tally::default(),
            erased,
        })
    }

    /// `wanted_after`: a pass that was begun under a later fence is what is wanted.
    pub async fn run(&mut self, kind: Kind, wanted_after: Fence) -> SliceResult<Ended> {
        match kind {
            // Its worker died between the last commit of the pass and the word that it is done.
            Kind::Full | Kind::Agents if self.progress.has_completed_after(wanted_after) => Ok(Ended::Done),
            Kind::Ids => self.run_ids().await,
            Kind::Changes => self.run_changes().await,
            Kind::Full => self.run_full().await,
            Kind::Agents => self.run_agents().await,
            // Payloads are no part of a snapshot: `drain` does them.
            Kind::Link => Ok(Ended::Done),
        }
    }

    /// Gives back what was taken ahead for this slice.
    pub async fn rest(&self) {
        self.source.rest().await;
    }

    /// The first build has ended.
    pub fn is_ready(&self) -> bool {
        self.head.ready
    }

    /// The poll that this slice ended.
    pub fn polled(&self) -> Option<Polled> {
        self.polled
    }

    /// What this slice has read and written so far.
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Whether another page fits into this slice. Asked between pages only, so each slice makes progress.
    fn goes_on(&self) -> SliceResult<bool> {
        match self.keeper.state() {
            Renewed::Lost => return Err(SliceError::Lost),
            Renewed::Stop => return Ok(false),
            Renewed::Kept => {}
        }
        if self.deps.held.by(&self.account.connector, self.lane).is_some() {
            return Ok(false);
        }
        let plan = self.deps.policy.slice;
        let spent = self.deps.clock.now().since(self.began);
        Ok(!self.stop.is_cancelled() && self.pages < plan.pages && spent < plan.time)
    }

    /// A cursor that the CRM no longer takes (an old page token) would be asked for in every attempt: its stage begins anew
    /// with the next one. So does a pass whose delta token is gone: by the time, or with a full pass.
    async fn or_begin_anew<T>(&mut self, asked: CrmResult<T>) -> SliceResult<T> {
        if asked.as_ref().is_err_and(|error| error.kind == ErrorKind::CursorStuck)
            && (self.progress.forget_page() || self.progress.forget_token())
        {
            self.save().await?;
        }
        Ok(asked?)
    }

    /// Notes a CRM call that succeeded: it counts against the slice, and it proves the credentials good.
    async fn answered(&mut self, asked_at: Micros, crm_clock: Option<Micros>) -> SliceResult<()> {
        self.pages += 1;
        self.tally.pages += 1;
        self.progress.note_clock(crm_clock, self.deps.clock.now());
        if !self.verified {
            self.verified = true;
            let every = Duration::from_secs(60);
            if asked_at.since(self.account.verified) >= every {
                accounts::accept(&*self.deps.store, &self.account.fingerprint, &self.account.id, asked_at).await?;
                accounts::touch(&*self.deps.store, self.account, None, Some(asked_at), every).await?;
            }
        }
        Ok(())
    }
}

impl SliceError {
    /// What the outcome is judged by; `None`: the lease is lost, there is nothing to judge.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            SliceError::Source(error) => Some(error.kind),
            SliceError::Store(_) => Some(ErrorKind::StoreDown),
            SliceError::Lost => None,
        }
    }
}
