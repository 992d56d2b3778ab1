//! Fetching the contacts that webhooks named.

use contacts::Micros;
use contacts::ports::{DirtyId, HeadChange};
use contacts::record::Removal;

use super::{Ended, Slice, SliceResult};
use crm::Many;

impl Slice<'_> {
    pub(super) async fn run_ids(&mut self) -> SliceResult<Ended> {
        let per_call = self.source.traits().get_many;
        if per_call == 0 {
            // Nothing can be fetched by id: the poll that was rung with the event finds it.
            let all = self.deps.store.dirty(&self.account.id, usize::MAX).await?;
            self.deps.store.clear(&self.account.id, &all).await?;
            return Ok(Ended::Done);
        }
        loop {
            let dirty = self.deps.store.dirty(&self.account.id, per_call).await?;
            if dirty.is_empty() {
                return Ok(Ended::Done);
            }
            let left = self.fetch_dirty(&dirty).await?;
            if left > 0 && !self.goes_on()? {
                return Ok(Ended::More);
            }
        }
    }

    /// Fetches dirty contacts, writes what came of them and clears their marks. A mark set again meanwhile stays.
    async fn fetch_dirty(&mut self, dirty: &[DirtyId]) -> SliceResult<u64> {
        let ids: Vec<String> = dirty.iter().map(|dirty| dirty.id.clone()).collect();
        let Many { page, missing } = self.source.get_many(&ids).await?;
        self.answered(page.asked_at, page.crm_clock).await?;
        let asked_at = page.asked_at;
        let mut batch = self.batch(page, false);
        batch.removals.extend(missing.into_iter().map(|id| Removal {
            id,
            updated: Micros::ZERO,
            observed: asked_at,
        }));
        self.write(batch, HeadChange::default()).await?;
        Ok(self.deps.store.clear(&self.account.id, dirty).await?)
    }
}
