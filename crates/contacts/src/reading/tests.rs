use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{Fence, Generation};

const MAPPING: u32 = 1;
/// How long an edit may stay invisible in the model's CRM.
const LAG: u64 = 20;

/// A CRM, a snapshot of it and a model of Talkdesk, over one account.
struct World {
    clock: u64,
    /// id → (version, CRM time), what the CRM shows.
    crm: BTreeMap<u32, (u64, u64)>,
    /// Edits that are stamped but not visible yet: (visible at, id, version, CRM time).
    hidden: Vec<(u64, u32, u64, u64)>,
    versions: u64,
    /// position → (id, version, CRM time).
    snapshot: BTreeMap<u64, (u32, u64, u64)>,
    head: Head,
    /// What Talkdesk holds: id → version.
    talkdesk: BTreeMap<u32, u64>,
    kept: Option<Checkpoint>,
    offset: Option<Offset>,
    /// Which page's checkpoint Talkdesk keeps.
    keep: Keep,
    /// The last request and its answer, to be repeated.
    pages_of_run: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Keep {
    First,
    Last,
    Every,
}

#[derive(Clone, Debug)]
enum Step {
    Edit(u32, u64),
    Poll,
    Loss,
    BuildSome(usize),
    Page,
    RepeatPage,
    /// Talkdesk gives up in the middle and starts over from what it kept.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..30u32, 0..LAG).prop_map(|(id, lag)| Step::Edit(id, lag)),
        4 => Just(Step::Poll),
        1 => Just(Step::Loss),
        4 => (1..8usize).prop_map(Step::BuildSome),
        8 => Just(Step::Page),
        2 => Just(Step::RepeatPage),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..160)
}

fn empty_head(generation: u64) -> Head {
    Head {
        generation: Generation(generation),
        position: Position::START,
        fence: Fence(1),
        ready: false,
        watermark: Micros::ZERO,
        count: 0,
        progress: Vec::new(),
        committed: Micros::ZERO,
        fresh: Micros::ZERO,
    }
}

impl World {
    fn new(keep: Keep) -> World {
        World {
            clock: 1_000,
            crm: BTreeMap::new(),
            hidden: Vec::new(),
            versions: 0,
            snapshot: BTreeMap::new(),
            head: empty_head(1),
            talkdesk: BTreeMap::new(),
            kept: None,
            offset: None,
            keep,
            pages_of_run: 0,
        }
    }

    fn tick(&mut self) {
        self.clock += 1;
        let clock = self.clock;
        let (visible, hidden) = self.hidden.drain(..).partition(|(at, ..)| *at <= clock);
        self.hidden = hidden;
        let visible: Vec<(u64, u32, u64, u64)> = visible;
        for (_, id, version, updated) in visible {
            if self.crm.get(&id).is_none_or(|(known, _)| *known < version) {
                self.crm.insert(id, (version, updated));
            }
        }
    }

    fn edit(&mut self, id: u32, lag: u64) {
        self.versions += 1;
        self.hidden.push((self.clock + lag, id, self.versions, self.clock));
    }

    fn ingest(&mut self, id: u32) {
        let (version, updated) = self.crm[&id];
        let old = self
            .snapshot
            .iter()
            .find(|(_, (other, ..))| *other == id)
            .map(|(at, (_, version, _))| (*at, *version));
        if old.is_some_and(|(_, known)| known >= version) {
            return;
        }
        let before = self.head.position;
        self.head.position = self.head.position.next(Micros(self.clock));
        assert!(self.head.position > before);
        if let Some((at, _)) = old {
            self.snapshot.remove(&at);
        }
        self.snapshot.insert(self.head.position.0, (id, version, updated));
    }

    fn poll(&mut self) {
        for id in self.crm.keys().copied().collect::<Vec<_>>() {
            self.ingest(id);
        }
        // Everything stamped before this has become visible.
        self.head.watermark = Micros(self.clock - LAG);
        self.head.ready = true;
    }

    fn request(&self, rows: usize) -> (Vec<(u32, u64)>, Answer) {
        let narrowing = Narrowing::Allowed {
            precision: Duration::ZERO,
        };
        let plan = plan(
            self.kept.map(CheckpointText::Ours),
            self.offset,
            &self.head,
            MAPPING,
            narrowing,
        );
        let slice = plan.slice(rows, usize::MAX);
        let offset = self.offset.filter(|offset| offset.generation == self.head.generation);
        if let Some(foreseen) = offset.and_then(|offset| offset.slice(rows, usize::MAX)) {
            assert_eq!(foreseen, slice);
        }
        let in_slice = |at: u64| at > slice.after.0 && slice.until.is_none_or(|until| at <= until.0);
        let mut scanned = self.snapshot.iter().filter(|(at, _)| in_slice(**at));
        let page: Vec<_> = scanned.by_ref().take(rows).collect();
        let more = scanned.next().is_some();
        let last = page.last().map(|(at, _)| Position(**at));
        let delivered = page
            .into_iter()
            .filter(|(_, (_, _, updated))| slice.newer_than.is_none_or(|from| *updated > from.0))
            .map(|(_, (id, version, _))| (*id, *version))
            .collect();
        (delivered, plan.answer(last, more, Micros(self.clock)))
    }

    /// One page; returns whether the run ended with it.
    fn page(&mut self, rows: usize) -> bool {
        let (contacts, answer) = self.request(rows);
        self.pages_of_run += 1;
        for (id, version) in contacts {
            let known = self.talkdesk.entry(id).or_default();
            *known = (*known).max(version);
        }
        let ended = answer.next.is_none();
        let keeps = match self.keep {
            Keep::Every => true,
            Keep::First => self.pages_of_run == 1,
            Keep::Last => ended,
        };
        // During a run the checkpoint beside an offset is ignored, so keeping early changes nothing within it.
        if keeps {
            self.kept = Some(answer.checkpoint);
        }
        self.offset = answer.next;
        if ended {
            self.pages_of_run = 0;
        }
        ended
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn invariants_2_3_4_and_7_nobody_is_skipped_whichever_checkpoint_talkdesk_keeps(
        steps in steps(),
        keep in prop_oneof![Just(Keep::First), Just(Keep::Last), Just(Keep::Every)],
        rows in 1..6usize,
    ) {
        let mut world = World::new(keep);
        for step in steps {
            world.tick();
            match step {
                Step::Edit(id, lag) => world.edit(id, lag),
                Step::Poll => world.poll(),
                Step::Loss => {
                    world.snapshot.clear();
                    world.head = empty_head(world.head.generation.0 + 1);
                }
                Step::BuildSome(count) => {
                    for id in world.crm.keys().copied().take(count).collect::<Vec<_>>() {
                        world.ingest(id);
                    }
                }
                Step::Page => {
                    let ended = world.page(rows);
                    prop_assert!(!ended || world.head.ready, "invariant 6: a run ended before the snapshot was ready");
                }
                Step::RepeatPage => {
                    prop_assert_eq!(world.request(rows).0, world.request(rows).0);
                }
                Step::Restart => {
                    world.offset = None;
                    world.pages_of_run = 0;
                }
            }
        }
        // Quiet: everything becomes visible and is polled; the run ends, and so does the next one.
        for _ in 0..=LAG {
            world.tick();
        }
        world.poll();
        for _ in 0..2 {
            let bound = world.snapshot.len().div_ceil(rows) + 1;
            let mut pages = 0;
            while !world.page(rows) {
                pages += 1;
                prop_assert!(pages <= bound, "invariant 7: {pages} pages for {} contacts", world.snapshot.len());
            }
        }
        let truth: BTreeMap<u32, u64> = world.crm.iter().map(|(id, (version, _))| (*id, *version)).collect();
        prop_assert_eq!(&world.talkdesk, &truth);
    }
}

fn head(position: u64, ready: bool) -> Head {
    Head {
        position: Position(position),
        ready,
        watermark: Micros(500),
        ..empty_head(7)
    }
}

fn ours(generation: u64, position: u64, watermark: u64) -> Option<CheckpointText> {
    Some(CheckpointText::Ours(Checkpoint {
        generation: Generation(generation),
        position: Position(position),
        watermark: Micros(watermark),
        mapping: MAPPING,
    }))
}

const ALLOWED: Narrowing = Narrowing::Allowed {
    precision: Duration::from_micros(10),
};

#[test]
fn an_empty_run_hands_back_a_checkpoint_that_covers_the_snapshot() {
    let plan = plan(ours(7, 90, 400), None, &head(90, true), MAPPING, ALLOWED);
    assert_eq!((plan.mode, plan.after), (Mode::Changes, Position(90)));
    let answer = plan.answer(None, false, Micros(1));
    assert_eq!(answer.next, None);
    assert_eq!(answer.checkpoint.position, Position(90));
    assert_eq!(answer.checkpoint.watermark, Micros(500));
}

#[test]
fn invariant_6_before_ready_no_page_is_the_last_one() {
    let plan = plan(None, None, &head(0, false), MAPPING, ALLOWED);
    assert_eq!(plan.end, End::Open);
    let answer = plan.answer(None, false, Micros(1));
    assert_eq!(answer.checkpoint.position, Position::START);
    assert!(answer.next.is_some());
}

#[test]
fn another_generation_is_narrowed_only_where_that_is_safe() {
    let narrowed = plan(ours(6, 90, 400), None, &head(90, true), MAPPING, ALLOWED);
    assert_eq!(
        (narrowed.mode, narrowed.newer_than, narrowed.after),
        (Mode::Resend, Some(Micros(390)), Position::START)
    );
    for full in [
        plan(ours(6, 90, 400), None, &head(90, true), MAPPING, Narrowing::Never),
        plan(ours(6, 90, 400), None, &head(90, true), MAPPING + 1, ALLOWED),
        plan(ours(6, 90, 0), None, &head(90, true), MAPPING, ALLOWED),
    ] {
        assert_eq!(
            (full.mode, full.newer_than, full.after),
            (Mode::Full, None, Position::START)
        );
    }
}

#[test]
fn a_checkpoint_beyond_the_head_never_moves_back() {
    let plan = plan(ours(7, 120, 400), None, &head(90, true), MAPPING, ALLOWED);
    assert!(plan.rolled_back);
    let answer = plan.answer(None, false, Micros(1));
    assert_eq!((answer.checkpoint.position, answer.next), (Position(120), None));
}

#[test]
fn an_offset_decides_alone() {
    let offset = Offset {
        generation: Generation(7),
        position: Position(40),
        end: End::Frozen {
            position: Position(80),
            watermark: Micros(450),
        },
        watermark: Micros::ZERO,
        mapping: MAPPING,
        newer_than: None,
        issued: Micros(1),
    };
    let plan = plan(ours(7, 10, 1), Some(offset), &head(90, true), MAPPING, ALLOWED);
    assert_eq!(plan.slice(5, 100).after, Position(40));
    assert_eq!(plan.slice(5, 100).until, Some(Position(80)));
    let answer = plan.answer(Some(Position(77)), false, Micros(1));
    assert_eq!(answer.checkpoint.position, Position(80));
    assert_eq!(
        answer.checkpoint.watermark,
        Micros(450),
        "the watermark at the freeze, not a later one"
    );
}
