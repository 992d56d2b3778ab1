use proptest::prelude::*;

use super::*;
use crate::keys::{Identity, test_keys};

const TIMES: WorkTimes = WorkTimes {
    lease: Duration::from_micros(50),
    marker: Duration::from_micros(100),
};

fn account() -> AccountId {
    test_keys(1).account_id(&Identity {
        integration: "demo",
        site: "",
        org: "a",
        principal: "",
    })
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// An event asks for a later fetch.
    Event,
    /// The publish after it fails, or the queue loses what it has.
    LoseQueue,
    DoubleQueue,
    Sweep,
    Take,
    /// The running worker ends its slice so, or dies without a word.
    End(u8),
    Die,
    Unpark,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..60u64).prop_map(Step::Wait),
        3 => Just(Step::Event),
        1 => Just(Step::LoseQueue),
        1 => Just(Step::DoubleQueue),
        2 => Just(Step::Sweep),
        5 => Just(Step::Take),
        5 => (0..6u8).prop_map(Step::End),
        1 => Just(Step::Die),
        1 => Just(Step::Unpark),
    ];
    prop::collection::vec(step, 1..120)
}

/// The work document, a queue that may lose and double, and at most one living worker.
struct World {
    work: Work,
    now: u64,
    jobs: u64,
    queue: Vec<(u64, Job)>,
    running: Option<(Fence, u64)>,
    /// The last event, and the start of the last slice that ran to its end.
    last_event: Option<u64>,
    covered: u64,
}

impl World {
    fn id(&mut self) -> JobId {
        self.jobs += 1;
        JobId(self.jobs.to_string())
    }

    fn ring(&mut self) {
        let id = self.id();
        if let Ring::Publish(job) = self
            .work
            .ring(&account(), Kind::Ids, Lane::Refresh, id, Micros(self.now), &TIMES)
        {
            self.queue.push((self.now, job));
        }
    }

    fn sweep(&mut self) {
        let id = self.id();
        let due = self.work.look_at(Kind::Ids, &TIMES).is_some_and(|at| at.0 <= self.now);
        let before = self.work.clone();
        match self.work.ring_due(&account(), Kind::Ids, id, Micros(self.now), &TIMES) {
            Ring::Publish(job) => self.queue.push((self.now, job)),
            Ring::Waiting | Ring::Held => {
                assert!(!due, "a due task is rung for");
                assert_eq!(self.work, before);
            }
        }
    }

    fn take(&mut self) {
        let Some(index) = self.queue.iter().position(|(at, _)| *at <= self.now) else {
            return;
        };
        let (_, job) = self.queue.remove(index);
        match self.work.begin(Kind::Ids, &job.id, "w", Micros(self.now), &TIMES) {
            Begin::Started { fence, .. } => {
                assert!(
                    self.running.is_none_or(|(old, _)| old < fence),
                    "invariant 8: two with one fence"
                );
                self.running = Some((fence, self.now));
            }
            Begin::Busy { until, .. } => {
                assert!(until.0 > self.now);
                self.queue.push((until.0, job));
            }
            Begin::Superseded | Begin::Held => {}
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        let Some((fence, started)) = self.running.take() else {
            return;
        };
        let failed = !matches!(outcome, Outcome::Done | Outcome::Continue);
        let failure = failed.then(|| Failure {
            at: Micros(self.now),
            kind: "timeout".into(),
            message: "slow".into(),
            again: None,
        });
        let end = End {
            kind: Kind::Ids,
            fence,
            outcome,
            failure,
            next: None,
            job: self.id(),
            give_way: Duration::from_micros(10),
        };
        let finished = self.work.finish(&account(), end, Micros(self.now));
        if finished != Finished::Lost && matches!(outcome, Outcome::Done | Outcome::Dead { .. }) {
            self.covered = self.covered.max(started);
        }
        if let Finished::Publish { job, after } = finished {
            self.queue.push((self.now + crate::time::micros(after), job));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn invariants_9_and_14_an_event_is_always_followed_by_a_slice_that_starts_later(steps in steps()) {
        let mut world = World {
            work: Work::default(), now: 1_000, jobs: 0, queue: vec![], running: None, last_event: None, covered: 0,
        };
        for step in steps {
            match step {
                Step::Wait(by) => world.now += by,
                Step::Event => {
                    world.now += 1;
                    world.last_event = Some(world.now);
                    world.ring();
                    world.now += 1;
                }
                Step::LoseQueue => world.queue.clear(),
                // Bounded, so that the quiet time below is enough to take every copy.
                Step::DoubleQueue if world.queue.len() < 10 => world.queue.extend(world.queue.clone()),
                Step::DoubleQueue => {}
                Step::Sweep => world.sweep(),
                Step::Take => world.take(),
                Step::End(which) => {
                    let now = world.now;
                    world.end(&match which {
                        0 | 1 => Outcome::Done,
                        2 => Outcome::Continue,
                        3 => Outcome::Retry { after: Duration::from_micros(30) },
                        4 => Outcome::Due { at: Micros(now + 40) },
                        _ => Outcome::Park,
                    });
                }
                Step::Die => world.running = None,
                Step::Unpark => {
                    for _ in world.work.unpark(Micros(world.now)) {
                        world.ring();
                    }
                }
            }
            let stored: Work = serde_json::from_str(&serde_json::to_string(&world.work).unwrap()).unwrap();
            prop_assert_eq!(&stored, &world.work);
            let nothing_due = world.work.tasks.values().find(|task| task.marker.is_some() && task.due.is_none());
            prop_assert_eq!(nothing_due, None, "a job waits for work that no sweep would find");
        }
        // Quiet: no more losses. Sweeps and workers alone must bring every event to a later slice.
        world.work.unpark(Micros(world.now));
        for _ in 0..60 {
            world.now += 20;
            world.sweep();
            world.take();
            world.now += 1;
            world.end(&Outcome::Done);
        }
        if let Some(event) = world.last_event {
            prop_assert!(world.covered >= event, "event at {event}, last slice started at {}", world.covered);
        }
        prop_assert_eq!(world.work.tasks.get(&Kind::Ids).and_then(|task| task.due), None);
        prop_assert!(world.work.index(&account(), &TIMES).is_empty());
    }
}

#[test]
fn invariant_9_a_storm_of_rings_leads_to_one_waiting_and_one_running() {
    let mut work = Work::default();
    let mut published = Vec::new();
    let mut ring = |work: &mut Work, n: u64| {
        let ring = work.ring(
            &account(),
            Kind::Ids,
            Lane::Refresh,
            JobId(n.to_string()),
            Micros(10),
            &TIMES,
        );
        if let Ring::Publish(job) = ring {
            published.push(job.id);
        }
    };
    (0..1_000).for_each(|n| ring(&mut work, n));
    assert!(matches!(
        work.begin(Kind::Ids, &JobId("0".into()), "w", Micros(10), &TIMES),
        Begin::Started { .. }
    ));
    (1_000..2_000).for_each(|n| ring(&mut work, n));
    assert_eq!(published, [JobId("0".into()), JobId("1000".into())]);
    let busy = work.begin(Kind::Ids, &JobId("1000".into()), "w2", Micros(11), &TIMES);
    assert_eq!(
        busy,
        Begin::Busy {
            until: Micros(60),
            leased: true
        }
    );
}

#[test]
fn a_worker_that_lost_its_lease_can_neither_renew_nor_finish() {
    let mut work = Work::default();
    work.ring(
        &account(),
        Kind::Full,
        Lane::Build,
        JobId("a".into()),
        Micros(10),
        &TIMES,
    );
    let Begin::Started { fence: old, .. } = work.begin(Kind::Full, &JobId("a".into()), "w1", Micros(10), &TIMES) else {
        panic!("free lease");
    };
    // Nobody finished; the sweep rings when the lease has run out.
    assert_eq!(work.look_at(Kind::Full, &TIMES), Some(Micros(60)));
    work.ring(
        &account(),
        Kind::Full,
        Lane::Build,
        JobId("b".into()),
        Micros(60),
        &TIMES,
    );
    let Begin::Started { fence: new, .. } = work.begin(Kind::Full, &JobId("b".into()), "w2", Micros(60), &TIMES) else {
        panic!("the lease ran out");
    };
    assert!(new > old);
    assert_eq!(work.renew(old, Micros(61), &TIMES), Renewed::Lost);
    let end = End {
        kind: Kind::Full,
        fence: old,
        outcome: &Outcome::Done,
        failure: None,
        next: None,
        job: JobId("c".into()),
        give_way: Duration::ZERO,
    };
    assert_eq!(work.finish(&account(), end, Micros(61)), Finished::Lost);
    assert_eq!(work.renew(new, Micros(61), &TIMES), Renewed::Kept);
}

fn ring(work: &mut Work, kind: Kind, job: &str, now: u64) {
    let ring = work.ring(&account(), kind, Lane::Build, JobId(job.into()), Micros(now), &TIMES);
    assert!(matches!(ring, Ring::Publish(_)), "{ring:?}");
}

/// Returns the fence, and the fence after which a pass must have begun to be what is wanted.
fn begin(work: &mut Work, kind: Kind, job: &str, now: u64) -> (Fence, Fence) {
    match work.begin(kind, &JobId(job.into()), "w", Micros(now), &TIMES) {
        Begin::Started {
            fence, wanted_after, ..
        } => (fence, wanted_after),
        other => panic!("{other:?}"),
    }
}

fn finish(work: &mut Work, kind: Kind, fence: Fence, outcome: &Outcome, now: u64) -> Finished {
    let end = End {
        kind,
        fence,
        outcome,
        failure: None,
        next: (kind == Kind::Full).then_some((Micros(now + 500), Lane::Reconcile)),
        job: JobId(format!("after {now}")),
        give_way: Duration::from_micros(5),
    };
    work.finish(&account(), end, Micros(now))
}

#[test]
fn what_a_slice_completed_without_a_word_is_done_unless_somebody_asked_meanwhile() {
    let mut work = Work::default();
    ring(&mut work, Kind::Full, "a", 10);
    let (first, wanted) = begin(&mut work, Kind::Full, "a", 12);
    assert!(first > wanted, "nothing that was begun before");
    // It dies; the sweep rings for what was wanted at 10, so a pass that it began and completed is that.
    work.ring_due(&account(), Kind::Full, JobId("b".into()), Micros(62), &TIMES);
    let (second, wanted) = begin(&mut work, Kind::Full, "b", 62);
    assert!(first > wanted);
    // The quota is used up for a while. That changes nothing of what is wanted.
    let Finished::Publish { job, .. } = finish(&mut work, Kind::Full, second, &Outcome::Due { at: Micros(80) }, 70)
    else {
        panic!("soon");
    };
    let (third, wanted) = begin(&mut work, Kind::Full, &job.id.0, 80);
    assert!(first > wanted);
    // It dies, too, and meanwhile somebody asks again: a pass that any of them began is not what is wanted now.
    ring(&mut work, Kind::Full, "c", 100);
    let (fourth, wanted) = begin(&mut work, Kind::Full, "c", 130);
    assert_eq!(wanted, third);
    assert_eq!(
        finish(&mut work, Kind::Full, fourth, &Outcome::Done, 140),
        Finished::Settled
    );
    let early = work.ring_due(&account(), Kind::Full, JobId("e".into()), Micros(639), &TIMES);
    assert_eq!(early, Ring::Waiting);
    work.ring_due(&account(), Kind::Full, JobId("e".into()), Micros(640), &TIMES);
    assert_eq!(
        begin(&mut work, Kind::Full, "e", 640).1,
        fourth,
        "that one was told to be done"
    );
}

#[test]
fn invariant_8_a_fence_from_before_the_loss_of_the_store_ends_nothing() {
    let mut old = Work::default();
    ring(&mut old, Kind::Full, "a", 10);
    let (fence, _) = begin(&mut old, Kind::Full, "a", 10);
    finish(&mut old, Kind::Full, fence, &Outcome::Done, 20);
    ring(&mut old, Kind::Changes, "b", 20);
    let (before, _) = begin(&mut old, Kind::Changes, "b", 20);
    // The store is lost, and the account begins anew.
    let mut work = Work::default();
    ring(&mut work, Kind::Full, "c", 30);
    let (fence, _) = begin(&mut work, Kind::Full, "c", 30);
    let Finished::Publish { job, .. } = finish(&mut work, Kind::Full, fence, &Outcome::Continue, 40) else {
        panic!("a continuation");
    };
    let (after, _) = begin(&mut work, Kind::Full, &job.id.0, 40);
    assert!(before < fence && fence < after);
    let known = work.clone();
    let retry = Outcome::Retry { after: Duration::ZERO };
    assert_eq!(work.renew(before, Micros(41), &TIMES), Renewed::Lost);
    assert_eq!(finish(&mut work, Kind::Changes, before, &retry, 41), Finished::Lost);
    assert_eq!(work, known);
}

#[test]
fn a_job_is_told_whether_a_lease_or_its_own_time_stands_in_the_way() {
    let mut work = Work::default();
    let (ids, changes) = (JobId("i".into()), JobId("c".into()));
    work.ring(&account(), Kind::Ids, Lane::Refresh, ids.clone(), Micros(0), &TIMES);
    work.ring(
        &account(),
        Kind::Changes,
        Lane::Refresh,
        changes.clone(),
        Micros(0),
        &TIMES,
    );
    assert!(matches!(
        work.begin(Kind::Ids, &ids, "a", Micros(10), &TIMES),
        Begin::Started { .. }
    ));
    let lease = Micros(10).plus(TIMES.lease);
    // Also if the other worker's clock was read before the lease was taken.
    for now in [Micros(9), Micros(10), Micros(11)] {
        let busy = work.begin(Kind::Changes, &changes, "b", now, &TIMES);
        assert_eq!(
            busy,
            Begin::Busy {
                until: lease,
                leased: true
            }
        );
    }
    let later = lease.plus(TIMES.lease);
    work.tasks.get_mut(&Kind::Changes).expect("rung").not_before = Some(later);
    let early = work.begin(Kind::Changes, &changes, "b", Micros(11), &TIMES);
    assert_eq!(
        early,
        Begin::Busy {
            until: later,
            leased: false
        }
    );
}

#[test]
fn a_continuation_gives_way_to_a_job_that_was_turned_away_once() {
    let mut work = Work::default();
    ring(&mut work, Kind::Full, "a", 10);
    let (fence, _) = begin(&mut work, Kind::Full, "a", 10);
    ring(&mut work, Kind::Ids, "b", 11);
    let busy = work.begin(Kind::Ids, &JobId("b".into()), "w2", Micros(12), &TIMES);
    assert_eq!(
        busy,
        Begin::Busy {
            until: Micros(60),
            leased: true
        }
    );
    let Finished::Publish { job, after } = finish(&mut work, Kind::Full, fence, &Outcome::Continue, 20) else {
        panic!("a continuation");
    };
    assert_eq!(after, Duration::from_micros(5));
    let (fence, _) = begin(&mut work, Kind::Ids, "b", 22);
    finish(&mut work, Kind::Ids, fence, &Outcome::Done, 24);
    let (fence, _) = begin(&mut work, Kind::Full, &job.id.0, 25);
    let Finished::Publish { after, .. } = finish(&mut work, Kind::Full, fence, &Outcome::Continue, 30) else {
        panic!("a continuation");
    };
    assert_eq!(after, Duration::ZERO, "nobody waits any more");
}

#[test]
fn a_parked_account_makes_no_work_until_it_is_unparked() {
    let mut work = Work::default();
    work.ring(
        &account(),
        Kind::Changes,
        Lane::Refresh,
        JobId("a".into()),
        Micros(10),
        &TIMES,
    );
    work.park("401".into(), Micros(11));
    assert_eq!(
        work.begin(Kind::Changes, &JobId("a".into()), "w", Micros(12), &TIMES),
        Begin::Superseded
    );
    assert_eq!(
        work.ring(
            &account(),
            Kind::Ids,
            Lane::Refresh,
            JobId("b".into()),
            Micros(12),
            &TIMES
        ),
        Ring::Held
    );
    assert_eq!(work.look_at(Kind::Ids, &TIMES), None);
    assert_eq!(
        work.index(&account(), &TIMES)
            .keys()
            .map(|(index, _)| index.as_str())
            .collect::<Vec<_>>(),
        [PARKED]
    );
    assert_eq!(work.unpark(Micros(13)), [Kind::Ids, Kind::Changes]);
}

proptest! {
    #[test]
    fn invariant_11_refused_credentials_are_put_to_the_crm_at_most_once_in_a_while(
        pauses in prop::collection::vec(0..40u64, 1..60), after in 1..100u64,
    ) {
        let mut work = Work::default();
        let mut now = 1_000;
        work.park("refused".into(), Micros(now));
        let mut last = now;
        for pause in pauses {
            now += pause;
            let may = work.recheck(Duration::from_micros(after), Micros(now));
            prop_assert_eq!(may, now - last >= after);
            if may {
                last = now;
            }
            let park = work.park.clone().expect("a recheck does not unpark");
            prop_assert!(park.handed_back);
            prop_assert_eq!(park.since, Micros(1_000));
        }
        work.unpark(Micros(now));
        prop_assert!(work.recheck(Duration::MAX, Micros(now)), "other credentials are in use since");
    }
}

#[test]
fn agents_have_a_lease_of_their_own_and_all_fences_differ() {
    let mut work = Work::default();
    let job = |kind: Kind| JobId(kind.as_str().into());
    for kind in [Kind::Full, Kind::Agents] {
        work.ring(&account(), kind, Lane::Build, job(kind), Micros(10), &TIMES);
    }
    let begin = |work: &mut Work, kind| match work.begin(kind, &job(kind), "w", Micros(11), &TIMES) {
        Begin::Started { fence, .. } => fence,
        other => panic!("a build keeps no agents waiting: {other:?}"),
    };
    let (full, agents) = (begin(&mut work, Kind::Full), begin(&mut work, Kind::Agents));
    assert_ne!(full, agents);
    for fence in [full, agents] {
        assert_eq!(work.renew(fence, Micros(12), &TIMES), Renewed::Kept);
    }
    let end = |kind, fence| End {
        kind,
        fence,
        outcome: &Outcome::Done,
        failure: None,
        next: None,
        job: JobId("next".into()),
        give_way: Duration::ZERO,
    };
    assert_eq!(
        work.finish(&account(), end(Kind::Agents, full), Micros(13)),
        Finished::Lost
    );
    assert_eq!(
        work.finish(&account(), end(Kind::Agents, agents), Micros(13)),
        Finished::Settled
    );
    assert_eq!(work.renew(agents, Micros(14), &TIMES), Renewed::Lost);
    assert_eq!(work.renew(full, Micros(14), &TIMES), Renewed::Kept, "the build goes on");
    assert_eq!(work.look_at(Kind::Agents, &TIMES), None);

    // A refusal met by either stops both.
    work.ring(
        &account(),
        Kind::Agents,
        Lane::Refresh,
        JobId("again".into()),
        Micros(15),
        &TIMES,
    );
    work.park("401".into(), Micros(16));
    assert_eq!(work.renew(full, Micros(17), &TIMES), Renewed::Stop);
    assert_eq!(work.unpark(Micros(18)), [Kind::Full, Kind::Agents]);
}

#[test]
fn work_that_an_older_version_stored_is_read_and_known_kinds_look_the_same_to_it() {
    let stored = r#"{"lease":{"owner":"w","fence":3,"kind":"contacts.full","until":9},"fence":3,"tasks":{"contacts.full":{"due":5,"lane":"build","asked":0,"done":0,"marker":null,"not_before":null,"failed":0,"last_done":null,"last_error":null}},"park":null,"pause":null,"last_event":null}"#;
    let work: Work = serde_json::from_str(stored).unwrap();
    assert_eq!((work.agents_lease.as_ref(), work.tasks.len()), (None, 1));
    assert_eq!(serde_json::to_string(&work).unwrap(), stored);
}

proptest! {
    /// Whoever asks, and however often: not sooner than its age after the last try, and never later than the first asking
    /// after that.
    #[test]
    fn what_is_asked_for_is_stale_once_per_age(
        age in 1..1_000_u64,
        asked in prop::collection::vec((0..600_u64, any::<bool>()), 1..60),
    ) {
        let age = Duration::from_secs(age);
        let mut now = Micros::from_secs(1_000);
        let mut work = Work::default();
        prop_assert!(!work.is_stale(Kind::Agents, age, now), "what was never begun is not stale");
        work.tasks.entry(Kind::Agents).or_default().last_done = Some(now);
        let mut last = now;
        for (step, succeeds) in asked {
            now = now.plus(Duration::from_secs(step));
            let stale = work.is_stale(Kind::Agents, age, now);
            prop_assert_eq!(stale, now.since(last) >= age);
            if stale {
                last = now;
                let task = work.tasks.entry(Kind::Agents).or_default();
                if succeeds {
                    task.last_done = Some(now);
                } else {
                    task.last_error = Some(Failure {
                        at: now,
                        kind: "unavailable".to_owned(),
                        message: String::new(),
                        again: None,
                    });
                }
            }
        }
        work.tasks.entry(Kind::Agents).or_default().not_before = Some(now.plus(Duration::from_secs(1)));
        prop_assert!(!work.is_stale(Kind::Agents, Duration::ZERO, now), "what must wait is not asked for");
    }
}
