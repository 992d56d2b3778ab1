//! From a page of the CRM to commits of the snapshot.

use contacts::contact::content_hash;
use contacts::keys::Keys;
use contacts::ports::{Commit, HeadChange};
use contacts::record::{self, Removal, Row};
use contacts::{AccountId, Micros, Stream};
use tracing::Instrument;

use super::{Slice, SliceResult};
use crate::crash;
use crm::{Observed, Page};

/// What a page or a slice wants written.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<Row>,
    pub removals: Vec<Removal>,
}

/// What is written of a contact.
pub fn row(keys: &Keys, account: &AccountId, observed: Observed, asked_at: Micros, indexed: bool) -> Row {
    let Observed {
        contact,
        updated,
        aliases,
        ..
    } = observed;
    let key = |value: String| keys.lookup_key(account, &value);
    let keys = contact
        .phones
        .iter()
        .map(|phone| format!("phone:{phone}"))
        .chain(
            contact
                .emails
                .iter()
                .map(|email| format!("email:{}", email.to_lowercase())),
        )
        .chain(aliases.iter().map(|alias| format!("alias:{alias}")))
        .map(key)
        .collect::<Vec<u64>>();
    let body = contact.to_json();
    // Other lookup keys are other content: a record that merely swallowed another one must be found under its id.
    let mut hashed = body.clone();
    keys.iter().for_each(|key| hashed.extend_from_slice(&key.to_be_bytes()));
    Row {
        id: contact.id,
        updated,
        observed: asked_at,
        indexed,
        waits: false,
        hash: content_hash(&hashed),
        body,
        keys,
    }
}

impl Slice<'_> {
    /// Turns the contacts of a page into rows and removals. `indexed`: the page came from an index that may lag. A contact
    /// that the integration does not want counts as deleted.
    pub(super) fn batch(&mut self, page: Page, indexed: bool) -> Batch {
        for (reason, count) in &page.repairs {
            *self.tally.repaired.entry((*reason).to_owned()).or_default() += count;
            metrics::counter!("snapbridge_contacts_repaired_total", "reason" => *reason).increment(u64::from(*count));
        }
        for (reason, count) in &page.dropped {
            *self.tally.dropped.entry((*reason).to_owned()).or_default() += count;
            metrics::counter!("snapbridge_contacts_dropped_total", "reason" => *reason).increment(u64::from(*count));
        }
        let mut batch = Batch::default();
        for observed in page.rows {
            // What was merged into this contact is gone, and the survivor is found under its ids.
            let gone = observed.aliases.iter().filter(|alias| **alias != observed.contact.id);
            batch.removals.extend(gone.map(|alias| Removal {
                id: alias.clone(),
                updated: Micros::ZERO,
                observed: page.asked_at,
            }));
            let is_erased = self
                .erased
                .since(&self.deps.keys, &self.account.id, &observed.contact.id)
                .is_some();
            if observed.removed || observed.unwanted || is_erased {
                let Observed { contact, updated, .. } = observed;
                batch.removals.push(Removal {
                    id: contact.id,
                    updated,
                    observed: page.asked_at,
                });
            } else {
                let within = self.deps.policy.remap_within;
                let waits = self.progress.waits(&observed.contact.id, self.began, within);
                let row = row(&self.deps.keys, &self.account.id, observed, page.asked_at, indexed);
                batch.rows.push(Row { waits, ..row });
            }
        }
        record::in_commit_order(&mut batch.rows);
        batch
    }

    /// Writes a batch in chunks; the progress and `change` move with the last one, so a worker that dies in between repeats
    /// the page. Returns how many were news.
    pub(super) async fn write(&mut self, batch: Batch, mut change: HeadChange) -> SliceResult<u64> {
        // What has been read stays read: a full pass that began before the last poll takes nothing back.
        change.watermark = change.watermark.map(|watermark| watermark.max(self.head.watermark));
        self.head.watermark = change.watermark.unwrap_or(self.head.watermark);
        let size = self.deps.policy.commit_rows.max(1);
        if !batch.rows.is_empty() || !batch.removals.is_empty() {
            self.progress.trace = crate::trace::current();
        }
        let (mut rows, mut removals) = (batch.rows.into_iter(), batch.removals.into_iter());
        let mut news = 0;
        crash::point("before_write");
        loop {
            let chunk: Vec<Row> = rows.by_ref().take(size).collect();
            let gone: Vec<Removal> = removals.by_ref().take(size - chunk.len()).collect();
            let last = rows.len() == 0 && removals.len() == 0;
            let head = if last {
                HeadChange {
                    progress: Some(self.progress.write()),
                    ..change.clone()
                }
            } else {
                HeadChange::default()
            };
            let commit = Commit {
                fence: self.fence,
                generation: self.head.generation,
                now: self.deps.clock.now(),
                rows: chunk,
                removals: gone,
                head,
            };
            let done = self
                .deps
                .store
                .commit(&self.account.id, self.stream, &commit)
                .instrument(tracing::info_span!(
                    "commit",
                    rows = commit.rows.len(),
                    removals = commit.removals.len()
                ))
                .await?;
            self.tally.committed(&done);
            news += u64::from(done.written);
            let counter = match self.stream {
                Stream::Contacts => "snapbridge_contacts_total",
                Stream::Agents => "snapbridge_agents_total",
            };
            for (verdict, count) in [
                ("written", done.written),
                ("same", done.same),
                ("stale", done.stale),
                ("removed", done.removed),
            ] {
                metrics::counter!(counter, "verdict" => verdict).increment(u64::from(count));
            }
            if last {
                break;
            }
            crash::point("between_chunks");
        }
        crash::point("after_write");
        if let Some(ready) = change.ready {
            self.head.ready = ready;
        }
        Ok(news)
    }
}
