//! The agents: each pass reads the whole list of the CRM's users.
//!
//! listing → removing those that the list no longer shows. There is no fetch of users by id, so the complete list itself is
//! the proof (invariant 13), behind the brake; where a user can slip from page to page, two lists in a row are.

use std::collections::HashMap;

use contacts::contact::{Agent, content_hash};
use contacts::ports::HeadChange;
use contacts::record::{self, Row};
use contacts::{ErrorKind, Micros};
use crm::{AgentsPage, CrmError};

use super::write::Batch;
use super::{Ended, Slice, SliceError, SliceResult};
use crate::progress::{Full, FullStage};

/// Candidates for removal that are looked up at once.
const CANDIDATES: usize = 1_000;

impl Slice<'_> {
    pub(super) async fn run_agents(&mut self) -> SliceResult<Ended> {
        if !self.source.traits().agents {
            // The connector has lost its list of users since.
            return Ok(Ended::Done);
        }
        loop {
            let now = self.deps.clock.now();
            let full = self.progress.full.take().unwrap_or(Full {
                started: now,
                crm_started: self.progress.crm_now(now),
                page: None,
                stage: FullStage::Listing,
                fence: self.fence,
            });
            self.progress.full = Some(full.clone());
            let ended = match full.stage {
                FullStage::Listing => self.agents_page(full).await?,
                FullStage::Polling | FullStage::Confirming { .. } => self.find_missing_agents(full).await?,
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

    async fn agents_page(&mut self, mut full: Full) -> SliceResult<bool> {
        let asked = self.source.agents_page(full.page.as_ref()).await;
        let asked = match asked {
            Err(error) if error.kind == ErrorKind::Credentials => return Err(self.refused_list(error).await?),
            asked => asked,
        };
        let page = self.or_begin_anew(asked).await?;
        self.answered(page.asked_at, page.crm_clock).await?;
        let next = page.next.clone();
        let batch = self.agents_batch(page, full.started).await?;
        let mut change = HeadChange::default();
        full.page = next;
        if full.page.is_none() {
            change.ready = Some(true);
            change.fresh = Some(full.started);
            full.stage = FullStage::confirming();
        }
        self.progress.full = Some(full);
        self.write(batch, change).await?;
        Ok(false)
    }

    /// Credentials may be good for contacts and not for the list of users. Then the agents fail, and the account's other
    /// work goes on.
    async fn refused_list(&self, error: CrmError) -> SliceResult<SliceError> {
        self.source.check().await?;
        let message = "the CRM takes the credentials, but does not let them list its users";
        Ok(CrmError::because(ErrorKind::Rejected, message, error).into())
    }

    /// One row for each e-mail address: the first user of the list who has it.
    async fn agents_batch(&mut self, page: AgentsPage, started: Micros) -> SliceResult<Batch> {
        for (reason, count) in &page.repairs {
            *self.tally.repaired.entry((*reason).to_owned()).or_default() += count;
            metrics::counter!("snapbridge_agents_repaired_total", "reason" => *reason).increment(u64::from(*count));
        }
        let mut dropped = page.dropped;
        // A worker whose clock is behind goes on with the pass of another one: what it sees is still seen in this pass.
        let observed = page.asked_at.max(started);
        let mut taken: HashMap<u64, String> = HashMap::new();
        let mut batch = Batch::default();
        for agent in page.agents {
            let key = self
                .deps
                .keys
                .lookup_key(&self.account.id, &format!("email:{}", agent.email_key()));
            let first = match taken.get(&key) {
                Some(first) => *first == agent.id,
                None => !self.is_taken(key, &agent.id, started).await?,
            };
            if !first {
                *dropped.entry("email_repeated").or_default() += 1;
                continue;
            }
            taken.insert(key, agent.id.clone());
            batch.rows.push(row(agent, observed, key));
        }
        for (reason, count) in dropped {
            *self.tally.dropped.entry(reason.to_owned()).or_default() += count;
            metrics::counter!("snapbridge_agents_dropped_total", "reason" => reason).increment(u64::from(count));
        }
        record::in_commit_order(&mut batch.rows);
        Ok(batch)
    }

    /// Whether another user with this address was seen earlier in this pass. One whom only an earlier pass saw may have
    /// lost the address, or be gone.
    async fn is_taken(&self, key: u64, id: &str, started: Micros) -> SliceResult<bool> {
        let store = &self.deps.store;
        let mut others = store.find(&self.account.id, self.stream, key).await?;
        others.retain(|other| other != id);
        if others.is_empty() {
            return Ok(false);
        }
        let known = store.known(&self.account.id, self.stream, &others).await?;
        Ok(known.into_iter().flatten().any(|known| known.observed >= started))
    }

    /// The list is complete: whom it did not show is gone.
    async fn find_missing_agents(&mut self, mut full: Full) -> SliceResult<bool> {
        let agreed = self.progress.braked_before(&full).map(|brake| brake.started);
        let slips = self.source.traits().agents_may_slip;
        let before = [agreed, slips.then_some(self.progress.last_full_began)]
            .into_iter()
            .flatten()
            .fold(full.started, Micros::min);
        let store = &self.deps.store;
        let mut missing = Vec::new();
        let mut cursor = String::new();
        loop {
            let found = store
                .unseen(&self.account.id, self.stream, before, &cursor, CANDIDATES)
                .await?;
            missing.extend(found.0.into_iter().map(|id| (id, full.started)));
            match found.1 {
                Some(next) => cursor = next,
                None => break,
            }
        }
        missing.sort();
        missing.dedup();
        // A CRM has at least the user whom it answers: a list without anybody known is believed the second time.
        self.head.count = store
            .head(&self.account.id, self.stream)
            .await?
            .map_or(0, |head| head.count);
        let (gone, living) = (missing.len() as u64, self.head.count);
        if agreed.is_none() && gone > 0 && (gone > self.deps.policy.brake.limit(living) || gone >= living) {
            return self.brake(&full, Batch::default(), gone).await;
        }
        full.stage = FullStage::Removing { missing };
        self.progress.full = Some(full);
        self.save().await?;
        Ok(false)
    }
}

/// Users carry no modified time that could be relied on: of two observations the later one wins.
fn row(agent: Agent, observed: Micros, email: u64) -> Row {
    let body = agent.to_json();
    Row {
        id: agent.id,
        updated: Micros::ZERO,
        observed,
        indexed: false,
        waits: false,
        hash: content_hash(&body),
        body,
        keys: vec![email],
    }
}
