//! How a contact sync request is answered from a snapshot: which records, and which checkpoint and offset go with them.
//! Invariants 2, 3, 6 and 7 rest on [`plan`] and [`Plan::answer`].

use std::time::Duration;

use crate::ids::Position;
use crate::ports::{Head, Slice};
use crate::time::Micros;
use crate::token::{Checkpoint, CheckpointText, End, Offset};

/// Whether a run over a lost generation may be narrowed to what changed after the watermark. Only for connectors whose
/// modified time covers every change, and whose measured lateness keeps within the overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrowing {
    Never,
    /// `precision`: the coarseness of the CRM's times; a time cut to it may lie that much before the true one.
    Allowed {
        precision: Duration,
    },
}

/// How far before a predecessor's date a run starts: nobody knows what exactly that date meant.
pub const PREDECESSOR_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// What a run is, for `context`, metrics and the ops page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Full,
    /// What came after the checkpoint.
    Changes,
    /// What changed in the CRM after the watermark, because the generation is another one.
    Resend,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Full => "full",
            Mode::Changes => "changes",
            Mode::Resend => "resend",
        }
    }
}

/// Which records answer a request, decided from its tokens and the snapshot's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub mode: Mode,
    pub after: Position,
    pub end: End,
    pub newer_than: Option<Micros>,
    watermark: Micros,
    mapping: u32,
    head: Seen,
    /// The checkpoint lies beyond the head: the store was rolled back. Positions are shaped like time, so what is
    /// written from now on lies beyond the checkpoint too; it is worth an alarm all the same.
    pub rolled_back: bool,
}

/// What of the head the answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    generation: crate::ids::Generation,
    ready: bool,
}

/// The tokens that go with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub checkpoint: Checkpoint,
    /// `None`: the run is complete.
    pub next: Option<Offset>,
}

/// Decides what a request gets. `mapping`: the version of the account's mapping now.
pub fn plan(
    checkpoint: Option<CheckpointText>,
    offset: Option<Offset>,
    head: &Head,
    mapping: u32,
    narrowing: Narrowing,
) -> Plan {
    let seen = Seen {
        generation: head.generation,
        ready: head.ready,
    };
    let frozen = if head.ready {
        End::Frozen {
            position: head.position,
            watermark: head.watermark,
        }
    } else {
        End::Open
    };
    let start = Plan {
        mode: Mode::Full,
        after: Position::START,
        end: frozen,
        newer_than: None,
        watermark: Micros::ZERO,
        mapping,
        head: seen,
        rolled_back: false,
    };
    let narrowed = |from: Micros, same_mapping: bool| match narrowing {
        Narrowing::Allowed { precision } if same_mapping && from > Micros::ZERO => {
            let from = from.minus(precision);
            Plan {
                mode: Mode::Resend,
                newer_than: Some(from),
                watermark: from,
                ..start
            }
        }
        Narrowing::Allowed { .. } | Narrowing::Never => start,
    };

    if let Some(offset) = offset {
        if offset.generation != head.generation {
            // The store was lost between two pages: the run goes on over the new snapshot, from its own start.
            return match offset.newer_than {
                Some(from) if narrowing != Narrowing::Never => Plan {
                    mode: Mode::Resend,
                    newer_than: Some(from),
                    watermark: offset.watermark,
                    ..start
                },
                _ => narrowed(offset.watermark, offset.mapping == mapping),
            };
        }
        let end = match offset.end {
            // The first page read at or after *ready* freezes the end.
            End::Open => frozen,
            end @ End::Frozen { .. } => end,
        };
        let mode = match (offset.newer_than, offset.watermark) {
            (Some(_), _) => Mode::Resend,
            (None, Micros::ZERO) => Mode::Full,
            (None, _) => Mode::Changes,
        };
        return Plan {
            mode,
            after: offset.position,
            end,
            newer_than: offset.newer_than,
            watermark: offset.watermark,
            mapping: offset.mapping,
            ..start
        };
    }
    match checkpoint {
        None => start,
        Some(CheckpointText::Date(date)) => narrowed(date.minus(PREDECESSOR_MARGIN), true),
        Some(CheckpointText::Ours(checkpoint)) if checkpoint.generation == head.generation => Plan {
            mode: if checkpoint.position == Position::START {
                Mode::Full
            } else {
                Mode::Changes
            },
            after: checkpoint.position,
            watermark: checkpoint.watermark,
            rolled_back: checkpoint.position > head.position,
            ..start
        },
        Some(CheckpointText::Ours(checkpoint)) => narrowed(checkpoint.watermark, checkpoint.mapping == mapping),
    }
}

impl Offset {
    /// What [`plan`] will have read for it if its generation still is the snapshot's. `None`: the head decides.
    pub fn slice(&self, rows: usize, bytes: usize) -> Option<Slice> {
        let End::Frozen { position, .. } = self.end else {
            return None;
        };
        Some(Slice {
            after: self.position,
            until: Some(position),
            rows,
            bytes,
            newer_than: self.newer_than,
        })
    }
}

impl Plan {
    /// What to read from the snapshot.
    pub fn slice(&self, rows: usize, bytes: usize) -> Slice {
        let until = match self.end {
            End::Open => None,
            End::Frozen { position, .. } => Some(position),
        };
        Slice {
            after: self.after,
            until,
            rows,
            bytes,
            newer_than: self.newer_than,
        }
    }

    /// The tokens for a page that was read with [`Plan::slice`], or for several read in a row: `last` is the position of
    /// the last record looked at in any of them, `more` says that records remain.
    pub fn answer(&self, last: Option<Position>, more: bool, now: Micros) -> Answer {
        let reached = last.unwrap_or(self.after);
        let complete = match self.end {
            End::Frozen { position, watermark } if !more => Some((position.max(reached), watermark)),
            End::Frozen { .. } | End::Open => None,
        };
        if let Some((position, watermark)) = complete {
            // Both are true claims: the one the run came with, and the one of the snapshot it has now read whole.
            let watermark = watermark.max(self.watermark);
            let checkpoint = Checkpoint {
                generation: self.head.generation,
                position,
                watermark,
                mapping: self.mapping,
            };
            return Answer { checkpoint, next: None };
        }
        // Not complete: the checkpoint covers what was delivered up to here, under the watermark the run came with. What a
        // resend passed over is covered by that watermark.
        Answer {
            checkpoint: Checkpoint {
                generation: self.head.generation,
                position: reached,
                watermark: self.watermark,
                mapping: self.mapping,
            },
            next: Some(Offset {
                generation: self.head.generation,
                position: reached,
                end: self.end,
                watermark: self.watermark,
                mapping: self.mapping,
                newer_than: self.newer_than,
                issued: now,
            }),
        }
    }

    /// The snapshot was complete when this plan was made.
    pub fn is_ready(&self) -> bool {
        self.head.ready
    }
}

#[cfg(test)]
mod tests;
