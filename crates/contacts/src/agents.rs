//! How an agent sync request is answered from the snapshot of the agents (Talkdesk agent sync): every run is the whole
//! list, and between two pages Talkdesk carries an integer.
//!
//! That integer is the position of the last agent delivered: a number that is never given twice, and that every reader of
//! JSON holds exactly. An agent whose content changes moves to the end of the snapshot, so it may come twice in one run. It
//! is never left out: its position only grows, and so does the reader's, page by page; to be passed by, it would have to
//! stand at or before the reader without having been in a page. No end is frozen, as there is no room for one in the
//! integer: a run ends as soon as it has caught up with the passes, which are minutes apart at least.

use crate::ids::Position;
use crate::ports::{Head, Page, Slice};

/// The largest integer that a JSON reader with floating-point numbers holds exactly. As microseconds it is in the year 2255.
pub const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// An offset beyond everything this snapshot has ever given. Going on from there would be a list without its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an offset of this bridge")]
pub struct UnknownOffset;

/// What to read for a request. `head` must be of a complete snapshot.
pub fn slice(offset: Option<u64>, head: &Head, rows: usize, bytes: usize) -> Result<Slice, UnknownOffset> {
    let after = offset.map_or(Position::START, Position);
    if after > head.position {
        return Err(UnknownOffset);
    }
    Ok(Slice {
        after,
        until: None,
        rows,
        bytes,
        newer_than: None,
    })
}

/// What the next request of the run carries; `None`: this was the last page.
pub fn next_offset(page: &Page) -> Option<u64> {
    page.last.filter(|_| page.more).map(|last| last.0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Fence, Generation};
    use crate::time::Micros;

    /// A snapshot of agents: where each stands. Only what positions are about.
    #[derive(Default)]
    struct Model {
        positions: BTreeMap<u8, Position>,
        last: Position,
        clock: u64,
    }

    impl Model {
        /// A new or changed agent goes to the end.
        fn write(&mut self, agent: u8) {
            self.last = self.last.next(Micros(self.clock));
            self.positions.insert(agent, self.last);
        }

        fn head(&self) -> Head {
            Head {
                generation: Generation(1),
                position: self.last,
                fence: Fence(1),
                ready: true,
                watermark: Micros::ZERO,
                count: self.positions.len() as u64,
                progress: Vec::new(),
                committed: Micros::ZERO,
                fresh: Micros::ZERO,
            }
        }

        fn page(&self, slice: &Slice) -> (Vec<u8>, Page) {
            let mut after: Vec<(Position, u8)> = self
                .positions
                .iter()
                .map(|(agent, position)| (*position, *agent))
                .filter(|(position, _)| *position > slice.after)
                .collect();
            after.sort();
            let more = after.len() > slice.rows;
            after.truncate(slice.rows);
            let page = Page {
                bodies: Vec::new(),
                last: after.last().map(|(position, _)| *position),
                more,
            };
            (after.into_iter().map(|(_, agent)| agent).collect(), page)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read,
        Write(u8),
        Remove(u8),
        Clock(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Read),
            3 => (0..12u8).prop_map(Step::Write),
            1 => (0..12u8).prop_map(Step::Remove),
            1 => (1_700_000_000_000_000..1_900_000_000_000_000u64).prop_map(Step::Clock),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn invariant_3_a_run_delivers_every_agent_that_was_there_all_along_and_ends(
            first in 0..12u8, rows in 1..4usize, steps in steps(),
        ) {
            let mut model = Model { clock: 1_764_000_000_000_000, ..Model::default() };
            (0..first).for_each(|agent| model.write(agent));
            let mut steady: BTreeSet<u8> = (0..first).collect();
            let mut seen = BTreeSet::new();
            let mut offset = None;
            let mut ended = false;
            let mut still = 0;
            // Once the writers rest, as many pages as the agents fill are enough.
            let rest = std::iter::repeat_n(Step::Read, 13);
            for step in steps.into_iter().chain(rest) {
                still += 1;
                match step {
                    Step::Read if ended => {}
                    Step::Read => {
                        let slice = slice(offset, &model.head(), rows, usize::MAX).expect("an offset of its own");
                        let (agents, page) = model.page(&slice);
                        seen.extend(agents);
                        let next = next_offset(&page);
                        prop_assert!(next.is_none_or(|next| offset.is_none_or(|before| before < next)), "it goes on");
                        prop_assert!(next.is_none_or(|next| next <= LARGEST_EXACT));
                        ended = next.is_none();
                        offset = next;
                    }
                    Step::Write(agent) => {
                        still = 0;
                        model.write(agent);
                    }
                    Step::Remove(agent) => {
                        model.positions.remove(&agent);
                        if !ended {
                            steady.remove(&agent);
                        }
                    }
                    Step::Clock(clock) => model.clock = clock,
                }
            }
            prop_assert!(ended, "invariant 7: {still} steps without a writer");
            prop_assert!(steady.is_subset(&seen), "{steady:?} were there all along, {seen:?} were delivered");
        }

        #[test]
        fn offsets_that_were_never_given_are_refused(beyond in 1..u64::MAX >> 1, last in 0..u64::MAX >> 1) {
            let model = Model { last: Position(last), ..Model::default() };
            prop_assert_eq!(slice(Some(last + beyond), &model.head(), 1, 1), Err(UnknownOffset));
            prop_assert!(slice(Some(last), &model.head(), 1, 1).is_ok());
            prop_assert_eq!(slice(None, &model.head(), 1, 1).map(|slice| slice.after), Ok(Position::START));
        }
    }

    #[test]
    fn positions_are_exact_in_every_json_reader_for_a_long_time() {
        let year_2200 = Micros::parse("2200-01-01T00:00:00Z").expect("a date");
        assert!(Position::START.next(year_2200).0 <= LARGEST_EXACT);
        let exact = LARGEST_EXACT as f64;
        assert_eq!((exact as u64, (exact - 1.0) as u64), (LARGEST_EXACT, LARGEST_EXACT - 1));
    }
}
