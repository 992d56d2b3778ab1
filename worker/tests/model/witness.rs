//! Watches what is done to the store and writes down every breach of an invariant, with its number.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::ports::{Commit, Committed, Head, Snapshots, StoreErrorKind, StoreResult};
use contacts::record::Known;
use contacts::{AccountId, Clock, Fence, Micros, Stream};
use parking_lot::Mutex;
use store::memory::MemoryStore;
use worker::progress::{Full, FullStage, Progress};

use crate::source::Net;

#[derive(Default)]
pub struct Witness {
    breaches: Mutex<Vec<String>>,
    /// The newest fence that the store has been shown.
    fences: Mutex<BTreeMap<AccountId, Fence>>,
    passes: Mutex<BTreeMap<AccountId, Passes>>,
    /// What happened, so that a test can tell that it tested something.
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// An account's full passes.
#[derive(Default)]
struct Passes {
    began: Vec<Micros>,
    /// The last one removed so many by their absence, of so many living.
    removes: Option<(u64, u64)>,
}

/// An account's snapshot without its bodies.
pub struct Sight {
    head: Option<Head>,
    known: BTreeMap<String, Known>,
}

impl Witness {
    pub fn breach(&self, what: String) {
        let mut breaches = self.breaches.lock();
        if !breaches.contains(&what) {
            breaches.push(what);
        }
    }

    pub fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.counts.lock().get(what).copied().unwrap_or(0)
    }

    pub fn assert_clean(&self) {
        let breaches = self.breaches.lock();
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }

    /// The store was emptied: fences begin anew.
    pub fn forget(&self) {
        self.fences.lock().clear();
        self.passes.lock().clear();
    }

    pub fn opened(&self, account: &AccountId, fence: Fence, result: &StoreResult<Head>) {
        let mut fences = self.fences.lock();
        let seen = fences.entry(account.clone()).or_default();
        match result {
            Ok(_) if fence < *seen => {
                self.breach(format!(
                    "invariant 8: opened with fence {} after {} was seen",
                    fence.0, seen.0
                ));
            }
            Err(error) if error.kind == StoreErrorKind::Fenced => self.count("fenced"),
            _ => {}
        }
        // Also if the answer was lost.
        *seen = fence.max(*seen);
    }

    pub async fn look(&self, store: &MemoryStore, net: &Net, account: &AccountId) -> Sight {
        let ids: Vec<String> = match net.sites.lock().get(account) {
            Some(site) => site.crm.lock().records.keys().cloned().collect(),
            None => Vec::new(),
        };
        // The store in memory fails only when told to, and it has not been told.
        let head = store.head(account, Stream::Contacts).await.unwrap_or_default();
        let known = store.known(account, Stream::Contacts, &ids).await.unwrap_or_default();
        let known = ids
            .into_iter()
            .zip(known)
            .filter_map(|(id, known)| Some((id, known?)))
            .collect();
        Sight { head, known }
    }

    pub fn committed(
        &self,
        net: &Arc<Net>,
        account: &AccountId,
        commit: &Commit,
        result: &StoreResult<Committed>,
        (before, after): (&Sight, &Sight),
    ) {
        self.count("commits");
        let seen = self.fences.lock().get(account).copied().unwrap_or_default();
        match result {
            Ok(_) if commit.fence < seen => {
                self.breach(format!(
                    "invariant 8: written with fence {} after {} was seen",
                    commit.fence.0, seen.0
                ));
            }
            Err(error) if error.kind == StoreErrorKind::Fenced => self.count("fenced"),
            _ => {}
        }
        let (Some(head), Some(head_after)) = (&before.head, &after.head) else {
            return;
        };
        let site = net.sites.lock().get(account).cloned();
        let Some(site) = site else { return };
        let crm = site.crm.lock();
        let now = net.clock.now();
        for (id, new) in &after.known {
            let old = before.known.get(id);
            if old.is_none_or(|old| old.position != new.position)
                && !new.is_tombstone()
                && new.position <= head.position
            {
                self.breach(format!(
                    "invariant 1: {id} appeared at {:?}, not behind {:?}",
                    new.position, head.position
                ));
            }
            let Some(old) = old else { continue };
            match (old.is_tombstone(), new.is_tombstone()) {
                (false, false) if (new.updated, new.observed) < (old.updated, old.observed) => {
                    self.breach(format!("invariant 5: {id} went back from {old:?} to {new:?}"));
                }
                (true, false) => {
                    self.count("revived");
                    let record = crm.records.get(id);
                    let lived = record.is_some_and(|record| record.lived_between(old.observed, now));
                    // What an index still shows of it revives nothing, unless it is news beside the tombstone.
                    if new.observed <= old.observed || (!lived && new.updated <= old.updated) {
                        self.breach(format!(
                            "invariant 13: an older observation revived {id}: {old:?} to {new:?}"
                        ));
                    }
                }
                (false, true) => {
                    self.count("removed");
                    let lived = crm
                        .records
                        .get(id)
                        .is_some_and(|record| record.lived_throughout(old.observed, now));
                    if lived && !crm.unwanted.contains(id) {
                        self.breach(format!(
                            "invariant 13: {id} was removed at {now} although it lives ({old:?})"
                        ));
                    }
                }
                _ => {}
            }
        }
        self.check_brake(net, account, commit, (before, after));
        if head_after.position < head.position {
            self.breach(format!("invariant 1: the head went back to {:?}", head_after.position));
        }
        if head.ready && !head_after.ready {
            self.breach("invariant 6: a snapshot that was ready no longer is".to_owned());
        }
        if !head.ready && head_after.ready && crm.manners.lists_all() {
            self.count("ready");
            let started = Progress::read(&head_after.progress)
                .full
                .map_or(Micros::ZERO, |full| full.started);
            for (id, record) in &crm.records {
                let there = record.is_steady() && record.newest().indexed <= started;
                if there && after.known.get(id).is_none_or(Known::is_tombstone) {
                    self.breach(format!("invariant 6: the snapshot is called complete without {id}"));
                }
            }
        }
    }

    /// More than the brake lets through at once must have been out of sight of two passes.
    fn check_brake(&self, net: &Net, account: &AccountId, commit: &Commit, (before, after): (&Sight, &Sight)) {
        let full = |sight: &Sight| Progress::read(&sight.head.as_ref()?.progress).full;
        let mut passes = self.passes.lock();
        let passes = passes.entry(account.clone()).or_default();
        let Some(Full { started, stage, .. }) = full(after) else {
            return;
        };
        if passes.began.last() != Some(&started) {
            passes.began.push(started);
            passes.removes = None;
        }
        if !matches!(stage, FullStage::Confirming { .. } | FullStage::Removing { .. }) {
            return;
        }
        let living = before.head.as_ref().map_or(0, |head| head.count);
        // What the CRM itself said of a contact comes with a time.
        let absent = commit.removals.iter().filter(|gone| gone.updated == Micros::ZERO);
        let effective = |id: &str| after.known.get(id).is_some_and(Known::is_tombstone);
        let removed = absent.filter(|gone| effective(&gone.id));
        let removed = removed.filter_map(|gone| before.known.get(&gone.id));
        let removed: Vec<_> = removed.filter(|known| !known.is_tombstone()).collect();
        let (gone, living) = passes.removes.get_or_insert((0, living));
        *gone += removed.len() as u64;
        // The worker counted the living when its slice began.
        if *gone <= net.brake.limit(*living + 5) || removed.is_empty() {
            return;
        }
        self.count("brake released");
        let one_before = passes
            .began
            .len()
            .checked_sub(2)
            .map_or(Micros::ZERO, |place| passes.began[place]);
        if removed.iter().any(|known| known.observed >= one_before) {
            self.breach(format!(
                "invariant 13: {gone} of {living} were removed without a second pass"
            ));
        }
    }
}
