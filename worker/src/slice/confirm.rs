//! Deletion by absence: only on proof, and behind the brake (invariant 13).
//!
//! A contact that a full pass did not see is a candidate, no more: it may have been edited out of a closed window, or
//! hidden by an index. It is gone if a fetch by id does not return it, or if it is missing from an unfiltered id list.

use std::collections::HashSet;

use contacts::ports::HeadChange;
use contacts::record::Removal;
use contacts::{Micros, Stream};
use crm::Many;

use super::write::Batch;
use super::{Slice, SliceResult};
use crate::progress::{Braked, Full, FullStage};

impl Slice<'_> {
    /// Looks up the next candidates; `true`: the pass is complete.
    pub(super) async fn confirm_some(&mut self, mut full: Full) -> SliceResult<bool> {
        let FullStage::Confirming { cursor, mut missing } = full.stage.clone() else {
            return Ok(false);
        };
        let per_call = self.source.traits().get_many;
        let batch_size = if per_call > 0 { per_call } else { 1_000 };
        // After a braked pass, only what both passes did not see is up for deletion.
        let braked = self.progress.braked_before(&full);
        let before = braked.map_or(full.started, |brake| brake.started.min(full.started));
        let agreed = braked.is_some();
        let (candidates, next) = self
            .deps
            .store
            .unseen(&self.account.id, Stream::Contacts, before, &cursor, batch_size)
            .await?;
        let mut batch = Batch::default();
        if !candidates.is_empty() {
            if per_call > 0 {
                let Many {
                    mut page,
                    missing: gone,
                } = self.source.get_many(&candidates).await?;
                self.answered(page.asked_at, page.crm_clock).await?;
                let asked_at = page.asked_at;
                missing.extend(gone.into_iter().map(|id| (id, asked_at)));
                let unwanted = page.rows.extract_if(.., |row| row.unwanted);
                missing.extend(unwanted.map(|row| (row.contact.id, asked_at)));
                batch = self.batch(page, false);
            } else if self.source.traits().ids_list {
                missing.extend(self.absent_from_ids(&candidates).await?);
            }
            // Else the CRM offers no proof: they stay until it does.
        }
        missing.sort();
        missing.dedup_by(|a, b| a.0 == b.0);

        if agreed {
            // Both passes missed them, and no brake is ahead: what a million of them need not wait for is the last one.
            batch.removals.extend(self.removals(&missing));
            missing.clear();
        } else if missing.len() as u64 > self.deps.policy.brake.limit(self.head.count) {
            return self.brake(&full, batch, missing.len() as u64).await;
        }
        full.stage = match next {
            Some(cursor) => FullStage::Confirming { cursor, missing },
            None => FullStage::Removing { missing },
        };
        self.progress.full = Some(full);
        self.write(batch, HeadChange::default()).await?;
        Ok(false)
    }

    fn removals(&mut self, missing: &[(String, Micros)]) -> Vec<Removal> {
        self.tally.vanished(missing.iter().map(|(id, _)| id.as_str()));
        let removal = |(id, observed): &(String, Micros)| Removal {
            id: id.clone(),
            updated: Micros::ZERO,
            observed: *observed,
        };
        missing.iter().map(removal).collect()
    }

    /// Walks the CRM's id list and returns the candidates that are not on it.
    async fn absent_from_ids(&mut self, candidates: &[String]) -> SliceResult<Vec<(String, Micros)>> {
        let mut absent: HashSet<&str> = candidates.iter().map(String::as_str).collect();
        let mut cursor = None;
        let mut first_asked = None;
        loop {
            let page = self.source.ids_page(cursor.as_ref()).await?;
            self.answered(page.asked_at, None).await?;
            // The proof is as old as its first call.
            let asked = *first_asked.get_or_insert(page.asked_at);
            for id in &page.ids {
                absent.remove(id.as_str());
            }
            cursor = page.next;
            if cursor.is_none() || absent.is_empty() {
                return Ok(absent.into_iter().map(|id| (id.to_owned(), asked)).collect());
            }
            self.goes_on()?;
        }
    }

    pub(super) async fn brake(&mut self, full: &Full, batch: Batch, missing: u64) -> SliceResult<bool> {
        let living = self.head.count;
        tracing::error!(
            account = %self.account.id, stream = self.stream.as_str(), missing, living,
            "a full pass would delete too many; waiting for a second one that agrees"
        );
        metrics::counter!("snapbridge_deletion_braked_total").increment(1);
        self.progress.brake = Some(Braked {
            started: full.started,
            missing,
            living,
        });
        self.write(batch, HeadChange::default()).await?;
        self.end_full(full).await
    }

    pub(super) async fn remove_missing(&mut self, full: Full) -> SliceResult<bool> {
        let FullStage::Removing { missing } = &full.stage else {
            return Ok(false);
        };
        let removals = self.removals(missing);
        self.progress.brake = None;
        self.write(
            Batch {
                rows: Vec::new(),
                removals,
            },
            HeadChange::default(),
        )
        .await?;
        self.end_full(&full).await
    }
}
