//! The poll: what changed in a window of the CRM's time, then the CRM's list of deletions.

use contacts::Stream;
use contacts::ports::HeadChange;
use contacts::record::Removal;
use contacts::{Micros, work};

use super::write::Batch;
use super::{Ended, Polled, Slice, SliceResult};
use crate::progress::{Poll, PollStage};
use crm::{Page, Window};

impl Slice<'_> {
    pub(super) async fn run_changes(&mut self) -> SliceResult<Ended> {
        if !self.head.ready || !self.source.traits().changes {
            // The first build reads everything; a connector without a change pass is refreshed by full passes.
            return if self.head.ready {
                self.run_full().await
            } else {
                Ok(Ended::Done)
            };
        }
        if let Some(delta) = self.source.traits().delta {
            let now = self.deps.clock.now();
            let known = self.progress.delta_at(now, delta.lifetime).is_some();
            if self.progress.poll.is_none() && !known && !delta.begins_with_time {
                // Nothing says what has changed since: everything is read, and the end of it is a new beginning.
                return self.run_full().await;
            }
        }
        self.poll().await
    }

    /// Runs the poll in progress, or a new one, as far as this slice goes.
    pub(super) async fn poll(&mut self) -> SliceResult<Ended> {
        let traits = self.source.traits().clone();
        loop {
            let poll = match &self.progress.poll {
                Some(poll) => poll.clone(),
                None => {
                    let now = self.deps.clock.now();
                    let mut poll = self.progress.window(now, traits.lag, traits.overlap);
                    if let Some(delta) = traits.delta {
                        let known = self.progress.delta_at(now, delta.lifetime);
                        poll.token = known.map(|delta| delta.token.clone());
                    }
                    self.progress.poll = Some(poll.clone());
                    poll
                }
            };
            let ended = match poll.stage {
                PollStage::Changes => self.changes_page(&poll).await?,
                PollStage::Deleted => self.deleted_page(&poll).await?,
            };
            if ended {
                return Ok(Ended::Done);
            }
            if !self.goes_on()? {
                return Ok(Ended::More);
            }
        }
    }

    /// Reads and writes one page of changes; `true`: the poll is complete.
    async fn changes_page(&mut self, poll: &Poll) -> SliceResult<bool> {
        let traits = self.source.traits().clone();
        let window = Window {
            since: poll.since,
            until: poll.until,
        };
        let asked = self
            .source
            .changes_page(window, poll.token.as_ref(), poll.page.as_ref())
            .await;
        let mut page = self.or_begin_anew(asked).await?;
        self.answered(page.asked_at, page.crm_clock).await?;
        self.observe_lateness(&page).await?;
        let next = page.next.clone();
        if let (Some(_), None) = (traits.delta, &next) {
            self.progress.begin_from(page.delta.take(), poll.started);
        }
        let batch = self.batch(page, traits.changes_indexed);
        let mut poll = poll.clone();
        match next {
            Some(next) => poll.page = Some(next),
            None if traits.deleted_list => (poll.stage, poll.page) = (PollStage::Deleted, None),
            None => return self.end_poll(&poll, batch).await,
        }
        self.progress.poll = Some(poll);
        let news = self.write(batch, HeadChange::default()).await?;
        self.note_unannounced(news).await?;
        Ok(false)
    }

    async fn deleted_page(&mut self, poll: &Poll) -> SliceResult<bool> {
        let asked = self.source.deleted_page(poll.since, poll.page.as_ref()).await;
        let page = self.or_begin_anew(asked).await?;
        self.answered(page.asked_at, None).await?;
        let removal = |id, at| Removal {
            id,
            updated: at,
            observed: page.asked_at,
        };
        let removals = page
            .deleted
            .into_iter()
            .map(|deleted| removal(deleted.id, deleted.at))
            .collect();
        let batch = Batch {
            rows: Vec::new(),
            removals,
        };
        let mut poll = poll.clone();
        match page.next {
            Some(next) => poll.page = Some(next),
            None => return self.end_poll(&poll, batch).await,
        }
        self.progress.poll = Some(poll);
        self.write(batch, HeadChange::default()).await?;
        Ok(false)
    }

    async fn end_poll(&mut self, poll: &Poll, batch: Batch) -> SliceResult<bool> {
        let watermark = self.progress.polled(poll.until, self.source.traits().overlap);
        let change = HeadChange {
            watermark: Some(watermark),
            fresh: Some(poll.started),
            ..HeadChange::default()
        };
        let news = self.write(batch, change).await?;
        self.note_unannounced(news).await?;
        self.polled = Some(Polled {
            started: poll.started,
            lag: self.source.traits().lag,
        });
        Ok(true)
    }

    /// Measures how late rows become visible: a row stamped before the last window's end that is news was late by at
    /// least the time from its stamp to that end. The design assumes lateness ≤ lag + overlap.
    async fn observe_lateness(&self, page: &Page) -> SliceResult<()> {
        let cursor = self.progress.cursor;
        let late: Vec<_> = page
            .rows
            .iter()
            .filter(|row| row.updated > Micros::ZERO && row.updated < cursor)
            .take(self.deps.policy.commit_rows)
            .collect();
        if late.is_empty() {
            return Ok(());
        }
        let traits = self.source.traits();
        let comfortable = traits.lag + traits.overlap / 2;
        let ids: Vec<String> = late.iter().map(|row| row.contact.id.clone()).collect();
        let known = self.deps.store.known(&self.account.id, Stream::Contacts, &ids).await?;
        for (row, known) in late.iter().zip(known) {
            if known.map_or(!(row.removed || row.unwanted), |known| known.updated < row.updated) {
                let late = cursor.since(row.updated) + traits.lag;
                metrics::histogram!("snapbridge_lateness_seconds").record(late.as_secs_f64());
                if late > comfortable {
                    let integration = self.account.integration.clone();
                    metrics::counter!("snapbridge_late_rows_total", "integration" => integration).increment(1);
                }
            }
        }
        Ok(())
    }

    /// Counts changes that a poll found although webhooks used to tell of them: of an account that had some, and has had
    /// none for as long as makes its polls more frequent.
    async fn note_unannounced(&self, news: u64) -> SliceResult<()> {
        let Some(pace) = self.deps.sources.pace(&self.account.integration).filter(|_| news > 0) else {
            return Ok(());
        };
        let work = work::load(&*self.deps.store, &self.account.id).await?;
        let now = self.deps.clock.now();
        if work.last_event.is_some_and(|at| now.since(at) > pace.silence) {
            let integration = self.account.integration.clone();
            metrics::counter!("snapbridge_unannounced_total", "integration" => integration).increment(news);
        }
        Ok(())
    }
}
