//! What has happened to the contacts of one account, for an oracle.

use serde::{Deserialize, Serialize};

use crate::data;

/// One version of one contact, for an oracle. Times are milliseconds of the CRM's own clock as it went when the edit
/// was made (skew included).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    pub id: String,
    pub version: u64,
    pub modified_at_ms: i64,
    /// From then on reads see this version (or a newer one). [`NEVER`] while a held edit is not committed.
    pub visible_at_ms: i64,
    /// Gone after this edit: deleted, or merged into another.
    pub deleted: bool,
}

/// [`Edit::visible_at_ms`] of an edit that waits for `commit`.
pub const NEVER: i64 = i64::MAX;

/// All edits since the start. The generated versions are not kept: the seed knows them.
pub(crate) struct History {
    seed: u64,
    generated: u64,
    whole_seconds: bool,
    past: Vec<PastEdit>,
}

#[derive(Debug)]
pub(crate) struct PastEdit {
    pub id: u64,
    pub version: u64,
    pub modified: i64,
    pub visible: i64,
    pub deleted: bool,
}

impl History {
    pub(crate) fn new(seed: u64, generated: u64, whole_seconds: bool) -> History {
        History {
            seed,
            generated,
            whole_seconds,
            past: Vec::new(),
        }
    }

    /// Returns the place of the edit, for [`History::becomes_visible`].
    pub(crate) fn add(&mut self, edit: PastEdit) -> usize {
        self.past.push(edit);
        self.past.len() - 1
    }

    pub(crate) fn becomes_visible(&mut self, place: usize, at_ms: i64) {
        self.past[place].visible = at_ms;
    }

    pub(crate) fn all(&self) -> Vec<Edit> {
        let first = (1..=self.generated).map(|id| {
            let modified = data::first_stamp(self.seed, id, self.whole_seconds);
            PastEdit {
                id,
                version: id,
                modified,
                visible: modified,
                deleted: false,
            }
            .show()
        });
        first.chain(self.past.iter().map(PastEdit::show)).collect()
    }

    /// Version and id of every deletion.
    pub(crate) fn deletions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.past
            .iter()
            .filter(|edit| edit.deleted)
            .map(|edit| (edit.version, edit.id))
    }

    /// How many edits were made so far; with [`History::since`] the edits of one control.
    pub(crate) fn mark(&self) -> usize {
        self.past.len()
    }

    pub(crate) fn since(&self, mark: usize) -> Vec<Edit> {
        self.past.iter().skip(mark).map(PastEdit::show).collect()
    }
}

impl PastEdit {
    fn show(&self) -> Edit {
        Edit {
            id: self.id.to_string(),
            version: self.version,
            modified_at_ms: self.modified,
            visible_at_ms: self.visible,
            deleted: self.deleted,
        }
    }
}
