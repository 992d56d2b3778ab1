//! The full pass: the first build, later the reconcile. A diff in place: unchanged contacts keep their position and are
//! marked as seen by their observation time; readers never notice.
//!
//! listing → polling (what was edited meanwhile may have moved out of the listing's sight) → confirming the candidates →
//! removing those proven to be gone, behind the brake.

use contacts::ports::HeadChange;

use super::{Ended, Slice, SliceResult};
use crate::progress::{Full, FullStage};

impl Slice<'_> {
    pub(super) async fn run_full(&mut self) -> SliceResult<Ended> {
        loop {
            let now = self.deps.clock.now();
            if self.progress.full.is_none() {
                // A poll in progress belongs to the time before this pass; the pass runs its own.
                self.progress.poll = None;
                self.progress.full = Some(Full {
                    started: now,
                    crm_started: self.progress.crm_now(now),
                    page: None,
                    stage: FullStage::Listing,
                    fence: self.fence,
                });
            }
            let Some(full) = self.progress.full.clone() else {
                return Ok(Ended::Done);
            };
            let ended = match full.stage {
                FullStage::Listing => self.listing_page(full).await?,
                FullStage::Polling => match self.poll().await? {
                    Ended::More => return Ok(Ended::More),
                    Ended::Done => self.start_confirming(full).await?,
                },
                FullStage::Confirming { .. } => self.confirm_some(full).await?,
                FullStage::Removing { .. } => self.remove_missing(full).await?,
            };
            if ended {
                return Ok(Ended::Done);
            }
            if !self.goes_on()? {
                return Ok(Ended::More);
            }
        }
    }

    async fn listing_page(&mut self, mut full: Full) -> SliceResult<bool> {
        let first = full.page.is_none();
        let asked = self.source.full_page(full.page.as_ref()).await;
        let mut page = self.or_begin_anew(asked).await?;
        self.answered(page.asked_at, page.crm_clock).await?;
        if first {
            // Now the CRM's clock is known, also on the very first build.
            full.crm_started = self.progress.crm_now(full.started);
        }
        let next = page.next.clone();
        let page_delta = page.delta.take();
        if self.source.traits().get_many > 0 {
            // Not seen, so up for confirmation: a filter that was changed by mistake meets the brake.
            page.rows.retain(|row| !row.unwanted);
        }
        let batch = self.batch(page, self.source.traits().full_indexed);
        let mut change = HeadChange::default();
        match next {
            Some(next) => full.page = Some(next),
            None => {
                // Everything visible at the start has been read: stamps up to then, less the lag, are covered.
                if page_delta.is_some() {
                    self.progress.begin_from(page_delta, full.started);
                }
                let traits = self.source.traits();
                let covered = full.crm_started.minus(traits.lag);
                let proves_absence = traits.get_many > 0 || traits.ids_list;
                let watermark = self.progress.listed(covered, traits.overlap, proves_absence);
                change.ready = Some(true);
                change.watermark = Some(watermark);
                change.fresh = Some(full.started);
                full.page = None;
                full.stage = if traits.changes {
                    FullStage::Polling
                } else {
                    FullStage::confirming()
                };
            }
        }
        self.progress.full = Some(full);
        self.write(batch, change).await?;
        Ok(false)
    }

    async fn start_confirming(&mut self, mut full: Full) -> SliceResult<bool> {
        full.stage = FullStage::confirming();
        self.progress.full = Some(full);
        self.save().await?;
        Ok(false)
    }

    /// Ends the pass.
    pub(super) async fn end_full(&mut self, full: &Full) -> SliceResult<bool> {
        let now = self.deps.clock.now();
        self.progress.full = None;
        self.progress.last_full = now;
        self.progress.last_full_began = full.started;
        self.progress.last_full_fence = full.fence;
        self.save().await?;
        let before = now.minus(self.deps.policy.tombstones);
        let swept = self
            .deps
            .store
            .sweep_tombstones(&self.account.id, self.stream, before, 1_000)
            .await?;
        tracing::info!(
            account = %self.account.id, stream = self.stream.as_str(), took = ?now.since(full.started), swept,
            "full pass complete"
        );
        Ok(true)
    }

    /// Commits the progress alone.
    pub(super) async fn save(&mut self) -> SliceResult<()> {
        self.write(Default::default(), HeadChange::default()).await.map(drop)
    }
}

impl FullStage {
    pub(super) fn confirming() -> FullStage {
        FullStage::Confirming {
            cursor: String::new(),
            missing: Vec::new(),
        }
    }
}
