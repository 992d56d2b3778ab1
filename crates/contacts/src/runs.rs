//! The last runs of an account's slices: what each did, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::{AccountId, Kind, Lane};
use crate::ports::{Committed, DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;

/// Runs kept per account.
pub const KEPT: usize = 50;
/// Ids of vanished records kept per run.
pub const VANISHED: usize = 20;

/// One slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub kind: Kind,
    pub lane: Lane,
    pub began: Micros,
    pub ended: Micros,
    /// `done`, `continued`, `retried`, `due`, `parked`, `dead`.
    pub outcome: String,
    /// The error's own words, without secrets or contact data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Runs in a row that this stands for: polls that find nothing would push out what matters.
    #[serde(default = "once")]
    pub times: u32,
    #[serde(flatten)]
    pub tally: Tally,
}

fn once() -> u32 {
    1
}

/// What a slice read and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// CRM calls that succeeded.
    #[serde(default)]
    pub pages: u32,
    #[serde(default)]
    pub written: u32,
    #[serde(default)]
    pub same: u32,
    #[serde(default)]
    pub stale: u32,
    #[serde(default)]
    pub removed: u32,
    /// Records mended on the way, and records left out, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repaired: BTreeMap<String, u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u32>,
    /// Records that a full pass no longer found; at most [`VANISHED`] of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<String>,
}

impl Tally {
    pub fn committed(&mut self, done: &Committed) {
        self.written += done.written;
        self.same += done.same;
        self.stale += done.stale;
        self.removed += done.removed;
    }

    pub fn vanished<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        let room = VANISHED.saturating_sub(self.vanished.len());
        self.vanished.extend(ids.into_iter().take(room).map(str::to_owned));
    }
}

impl Run {
    fn found_nothing(&self) -> bool {
        let nothing = Tally {
            pages: self.tally.pages,
            same: self.tally.same,
            stale: self.tally.stale,
            ..Tally::default()
        };
        self.outcome == "done" && self.error.is_none() && self.tally == nothing
    }
}

/// Appends a run, or adds it to the last one if both found nothing. Of more than [`KEPT`] the oldest are dropped.
pub fn append(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.kind == run.kind && last.found_nothing() && run.found_nothing() => {
            last.ended = run.ended;
            last.lane = run.lane;
            last.times += run.times;
            last.tally.pages += run.tally.pages;
            last.tally.same += run.tally.same;
            last.tally.stale += run.tally.stale;
        }
        _ => runs.push(run),
    }
    let surplus = runs.len().saturating_sub(KEPT);
    runs.drain(..surplus);
}

pub async fn note(docs: &(impl Documents + ?Sized), account: &AccountId, run: &Run) -> StoreResult<()> {
    docs::update(docs, &key(account), |known: Option<Vec<Run>>| {
        let mut runs = known.unwrap_or_default();
        append(&mut runs, run.clone());
        (Change::Put(runs), Vec::new(), ())
    })
    .await
}

/// Newest first.
pub async fn list(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Vec<Run>> {
    let mut runs: Vec<Run> = docs::load(docs, &key(account)).await?.unwrap_or_default();
    runs.reverse();
    Ok(runs)
}

fn key(account: &AccountId) -> DocKey {
    DocKey::of_account(DocKind::Runs, account)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(second: u64, kind: Kind, written: u32) -> Run {
        Run {
            kind,
            lane: Lane::Refresh,
            began: Micros::from_secs(second),
            ended: Micros::from_secs(second + 1),
            outcome: "done".into(),
            error: None,
            times: 1,
            tally: Tally {
                pages: 1,
                written,
                ..Tally::default()
            },
        }
    }

    #[test]
    fn polls_that_find_nothing_are_one_line_and_the_oldest_runs_go_first() {
        let mut runs = Vec::new();
        append(&mut runs, run(0, Kind::Full, 9));
        for second in 1..=500 {
            append(&mut runs, run(second, Kind::Changes, 0));
        }
        append(&mut runs, run(501, Kind::Changes, 1));
        assert_eq!(runs.len(), 3);
        assert_eq!((runs[1].times, runs[1].tally.pages), (500, 500));
        assert_eq!(
            (runs[1].began, runs[1].ended),
            (Micros::from_secs(1), Micros::from_secs(501))
        );
        let failed = Run {
            outcome: "retried".into(),
            error: Some("no answer".into()),
            ..run(502, Kind::Changes, 0)
        };
        for _ in 0..KEPT {
            append(&mut runs, failed.clone());
        }
        assert_eq!(runs.len(), KEPT);
        assert!(
            runs.iter().all(|run| run.error.is_some()),
            "each failure is a line of its own"
        );
    }

    #[test]
    fn a_stored_run_is_read_by_this_version() {
        let stored =
            r#"{"kind":"contacts.full","lane":"build","began":1,"ended":2,"outcome":"done","pages":3,"written":4}"#;
        let run: Run = serde_json::from_str(stored).expect("a run");
        assert_eq!((run.times, run.tally.pages, run.tally.written), (1, 3, 4));
    }
}
