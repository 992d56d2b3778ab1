use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000;

fn window(max: u32, length: Duration) -> Charge {
    Charge {
        limit: Limit {
            name: "burst".into(),
            kind: LimitKind::Window { length, max },
            scope: LimitScope::Account,
        },
        cost: 1,
    }
}

fn ask(charges: &[Charge], slots: u32, class: Class) -> Ask<'_> {
    Ask {
        charges,
        slots,
        class,
        waiter: "w",
        times: Times::default(),
    }
}

/// What a taker does with its slots.
#[derive(Clone, Debug)]
struct Taker {
    pause: u64,
    slots: u32,
    /// Per slot: how long until it is sent (within the lease), arrives, is answered. `None`: the taker dies first.
    send: u64,
    arrive: u64,
    answer: Option<u64>,
    interactive: bool,
    gives_back: bool,
}

fn takers() -> impl Strategy<Value = Vec<Taker>> {
    let taker = (
        0..400u64,
        1..6u32,
        0..900u64,
        0..200u64,
        prop::option::weighted(0.9, 0..900u64),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(pause, slots, send, arrive, answer, interactive, gives_back)| Taker {
            pause,
            slots,
            send,
            arrive,
            answer,
            interactive,
            gives_back: gives_back && pause % 5 == 0,
        });
    prop::collection::vec(taker, 1..120)
}

proptest! {
    #[test]
    fn invariant_10_no_stretch_at_the_crm_holds_more_calls_than_the_limit(
        takers in takers(), max in 1..8u32, length_ms in 100..3_000u64,
    ) {
        let length = Duration::from_millis(length_ms);
        let charges = [window(max, length)];
        let mut budget = Budget::default();
        let mut arrivals: Vec<u64> = Vec::new();
        // (when, lease, calls) still to be finished.
        let mut answers: Vec<(u64, LeaseId, u32)> = Vec::new();
        let mut now = 1_000_000_000u64;
        for taker in takers {
            now += taker.pause * MS;
            answers.sort_by_key(|(at, lease, _)| (*at, lease.0));
            while answers.first().is_some_and(|(at, ..)| *at <= now) {
                let (at, lease, calls) = answers.remove(0);
                budget.finish(lease, calls, Micros(at));
            }
            let class = if taker.interactive { Class::Interactive } else { Class::Bulk };
            // A store round trip lets a document come back as text.
            budget = serde_json::from_str(&serde_json::to_string(&budget).unwrap()).unwrap();
            if let Taken::Slots { lease, slots, send_by } = budget.take(&ask(&charges, taker.slots, class), Micros(now)) {
                prop_assert!(slots >= 1 && slots <= taker.slots);
                if taker.gives_back {
                    budget.give_back(lease, slots, Micros(now));
                    continue;
                }
                let sent = now + taker.send * MS;
                prop_assert!(sent <= send_by.0);
                for _ in 0..slots {
                    arrivals.push(sent + taker.arrive * MS);
                }
                if let Some(answer) = taker.answer {
                    answers.push((sent + (taker.arrive + answer) * MS, lease, slots));
                }
            }
        }
        arrivals.sort();
        for (i, first) in arrivals.iter().enumerate() {
            let within = arrivals[i..].iter().take_while(|at| **at < first + micros(length)).count();
            prop_assert!(within <= max as usize, "{within} calls within {length:?}, limit {max}");
        }
    }

    #[test]
    fn invariant_10_a_quota_period_never_holds_more_than_its_quota(costs in prop::collection::vec((1..5u32, 0..40u64), 1..80)) {
        let period = Duration::from_millis(100);
        let mut budget = Budget::default();
        let mut now = 1_000_000_000u64;
        let mut spent: BTreeMap<u64, u64> = BTreeMap::new();
        for (cost, pause) in costs {
            now += pause * MS;
            let limit = Limit { name: "daily".into(), kind: LimitKind::Quota { period, offset: Duration::from_millis(30), max: 20 }, scope: LimitScope::Account };
            let charges = [Charge { limit, cost }];
            match budget.take(&ask(&charges, 1, Class::Bulk), Micros(now)) {
                Taken::Slots { lease, .. } => {
                    *spent.entry((now - 30 * MS) / (100 * MS)).or_default() += u64::from(cost);
                    budget.finish(lease, 1, Micros(now));
                }
                Taken::Wait { until, quota, .. } => {
                    prop_assert!(quota && until.0 > now && until.0 <= now + 100 * MS);
                    prop_assert_eq!((until.0 - 30 * MS) % (100 * MS), 0);
                }
            }
        }
        prop_assert!(spent.values().all(|spent| *spent <= 20), "{spent:?}");
    }
}

/// Takes one slot after the other, as fast as the budget lets, each answered after `latency`; returns the calls.
fn drain(charges: &[Charge], seconds: u64, latency: Duration) -> Vec<u64> {
    let mut budget = Budget::default();
    let mut calls = Vec::new();
    let mut open: VecDeque<(u64, LeaseId)> = VecDeque::new();
    let mut now = 1_000_000_000u64;
    let end = now + seconds * 1_000 * MS;
    while now < end {
        while open.front().is_some_and(|(at, _)| *at <= now) {
            let (at, lease) = open.pop_front().unwrap();
            budget.finish(lease, 1, Micros(at));
        }
        now = match budget.take(&ask(charges, 1, Class::Bulk), Micros(now)) {
            Taken::Slots { lease, .. } => {
                calls.push(now);
                open.push_back((now + micros(latency), lease));
                now
            }
            Taken::Wait { until, .. } => open.front().map_or(until.0, |(at, _)| until.0.min(*at).max(now + 1)),
        };
    }
    calls
}

#[test]
fn at_least_97_percent_of_a_limit_is_used() {
    for (max, length) in [(100, 1_000), (100, 10_000), (5, 1_000), (600, 60_000), (10, 60_000)] {
        let calls = drain(
            &[window(max, Duration::from_millis(length))],
            180,
            Duration::from_millis(15),
        )
        .len() as f64;
        let most = f64::from(max) * 180_000.0 / length as f64;
        assert!(calls >= 0.97 * most, "{max} per {length} ms: {calls} of {most}");
    }
}

#[test]
fn bulk_is_spread_over_a_long_window() {
    let calls = drain(&[window(10, Duration::from_secs(60))], 60, Duration::from_millis(15));
    assert_eq!(calls.len(), 10);
    assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= 5_850 * MS));

    // Also where a window holds many: neither in bursts, nor all at the beginning of it.
    let calls = drain(&[window(100, Duration::from_secs(10))], 60, Duration::from_millis(15));
    let most = calls.iter().enumerate().map(|(i, first)| {
        let second = calls[i..].iter().take_while(|call| **call < first + 1_000 * MS);
        second.count()
    });
    assert!(most.max() <= Some(12), "{calls:?}");
    let longest = calls.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest <= Some(400 * MS), "{longest:?}");
}

#[test]
fn what_is_given_back_takes_no_part_of_the_schedule() {
    let charges = [window(100, Duration::from_secs(10))];
    let mut budget = Budget::default();
    let now = Micros::from_secs(1_000);
    for _ in 0..50 {
        let Taken::Slots { lease, .. } = budget.take(&ask(&charges, 1, Class::Bulk), now) else {
            panic!("nothing was used")
        };
        budget.give_back(lease, 1, now);
    }
}

proptest! {
    /// Whatever is asked of it, calls never run ahead of the schedule by more than what they may be early, and one call.
    #[test]
    fn the_pace_is_kept_and_never_stands_still(
        max in 1..2_000u32, seconds in 2..100u64, asks in prop::collection::vec((1..5u64, 0..3_000u64), 1..80)
    ) {
        let pace = pace::Pace::of(Duration::from_secs(seconds), max).expect("a long window");
        let even = 1_000_000.0 * seconds as f64 / f64::from(max);
        let (mut next, mut now) = (0, Micros::from_secs(1_000));
        let (began, mut taken) = (now, 0);
        for (cost, pause) in asks {
            now = now.plus(Duration::from_millis(pause));
            let (free, then) = pace.free(next, cost, now);
            if free < cost {
                prop_assert!(then > now);
                let (free, _) = pace.free(next, cost, then);
                prop_assert!(free >= cost, "it comes when it was said to come");
                now = then;
            }
            next = pace.after(next, cost, now);
            taken += cost;
            let schedule = now.0.saturating_sub(began.0) as f64 / even / 0.97;
            let early = 100_000.0 / even / 0.97 + 2.0;
            prop_assert!((taken - cost) as f64 <= schedule + early, "{} taken", taken);
        }
    }
}

#[test]
fn a_want_keeps_bulk_away_until_it_is_served_or_expires() {
    let charges = [window(1, Duration::from_secs(1))];
    let mut budget = Budget::default();
    let start = Micros::from_secs(1_000);
    let Taken::Slots { lease, .. } = budget.take(&ask(&charges, 1, Class::Bulk), start) else {
        panic!("free budget")
    };
    budget.finish(lease, 1, start);
    let later = start.plus(Duration::from_millis(700));
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Interactive), later),
        Taken::Wait { .. }
    ));
    let free = start.plus(Duration::from_millis(1_010));
    assert!(matches!(budget.take(&ask(&charges, 1, Class::Bulk), free), Taken::Wait { limit, .. } if limit == WANT));
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Interactive), free),
        Taken::Slots { .. }
    ));
    // Its want is gone with it; what bulk waits for now is the window.
    assert!(matches!(budget.take(&ask(&charges, 1, Class::Bulk), free), Taken::Wait { limit, .. } if limit == "burst"));
}

#[test]
fn a_hold_stops_its_limit_and_a_longer_one_wins() {
    let charges = [window(5, Duration::from_secs(1))];
    let mut budget = Budget::default();
    let now = Micros::from_secs(1_000);
    budget.hold("burst", now.plus(Duration::from_secs(40)), false);
    budget.hold("burst", now.plus(Duration::from_secs(4)), false);
    let Taken::Wait { until, quota, .. } = budget.take(&ask(&charges, 1, Class::Interactive), now) else {
        panic!("held")
    };
    assert_eq!((until, quota), (now.plus(Duration::from_secs(40)), false));
    assert!(matches!(
        budget.take(&ask(&[], 1, Class::Bulk), now),
        Taken::Slots { .. }
    ));
    budget.hold(EVERYTHING, now.plus(Duration::from_secs(50)), true);
    assert!(matches!(
        budget.take(&ask(&[], 1, Class::Bulk), now),
        Taken::Wait { quota: true, .. }
    ));
    assert_eq!(budget.left(&[charges[0].limit.clone()], now)[0].left, 0);
    let later = now.plus(Duration::from_secs(50));
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Bulk), later),
        Taken::Slots { .. }
    ));
}

#[test]
fn nothing_left_holds_only_what_our_own_calls_do_not_explain() {
    let length = Duration::from_secs(1);
    let charges = [window(3, length)];
    let mut budget = Budget::default();
    let start = Micros::from_secs(1_000);
    let call = |budget: &mut Budget, at: Micros| {
        let Taken::Slots { lease, .. } = budget.take(&ask(&charges, 1, Class::Bulk), at) else {
            panic!("free")
        };
        budget.finish(lease, 1, at.plus(Duration::from_millis(10)));
    };
    let held = |budget: &mut Budget, asked_at: Micros| {
        budget.none_left(&charges[0].limit, asked_at, asked_at.plus(Duration::from_secs(9)))
    };
    for ms in [0, 100, 200] {
        call(&mut budget, start.plus(Duration::from_millis(ms)));
    }
    // All three were ours, also if the reply is read when the first of them is free again.
    assert!(!held(&mut budget, start.plus(Duration::from_millis(200))));
    let later = start.plus(Duration::from_millis(1_020));
    call(&mut budget, later);
    assert!(!held(&mut budget, start.plus(Duration::from_millis(200))));
    // A window with two of ours was filled by somebody else.
    assert!(held(&mut budget, start.plus(Duration::from_millis(1_250))));
    assert!(matches!(
        budget.take(
            &ask(&charges, 1, Class::Interactive),
            start.plus(Duration::from_secs(8))
        ),
        Taken::Wait { quota: false, .. }
    ));
}

#[test]
fn concurrency_frees_on_finish_and_after_the_call_timeout_of_a_dead_taker() {
    let limit = Limit {
        name: "one".into(),
        kind: LimitKind::Concurrency { max: 1 },
        scope: LimitScope::Account,
    };
    let charges = [Charge { limit, cost: 1 }];
    let mut budget = Budget::default();
    let now = Micros::from_secs(1_000);
    let Taken::Slots { lease, .. } = budget.take(&ask(&charges, 3, Class::Bulk), now) else {
        panic!("free")
    };
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Bulk), now),
        Taken::Wait { .. }
    ));
    budget.finish(lease, 1, now);
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Bulk), now),
        Taken::Slots { slots: 1, .. }
    ));
    let dead = now.plus(Duration::from_secs(30));
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Bulk), dead),
        Taken::Wait { .. }
    ));
    let freed = now.plus(Duration::from_secs(61));
    assert!(matches!(
        budget.take(&ask(&charges, 1, Class::Bulk), freed),
        Taken::Slots { .. }
    ));
}

#[test]
fn a_given_back_slot_costs_no_quota() {
    let limit = Limit {
        name: "daily".into(),
        kind: LimitKind::Quota {
            period: Duration::from_secs(86_400),
            offset: Duration::ZERO,
            max: 1,
        },
        scope: LimitScope::Account,
    };
    let charges = [Charge {
        limit: limit.clone(),
        cost: 1,
    }];
    let mut budget = Budget::default();
    let now = Micros::from_secs(1_000);
    let Taken::Slots { lease, .. } = budget.take(&ask(&charges, 1, Class::Bulk), now) else {
        panic!("free")
    };
    assert_eq!(budget.left(std::slice::from_ref(&limit), now)[0].left, 0);
    budget.give_back(lease, 1, now);
    assert_eq!(budget.left(&[limit], now)[0].left, 1);
}

proptest! {
    #[test]
    fn invariant_10_no_stretch_holds_more_than_a_rolling_quota_and_it_is_spent_as_it_comes(
        costs in prop::collection::vec((1..5u32, 0..60u64, 0..4u32), 1..80),
    ) {
        let period = Duration::from_millis(500);
        let limit = Limit { name: "credits".into(), kind: LimitKind::Rolling { period, max: 20 }, scope: LimitScope::Account };
        let mut budget = Budget::default();
        let mut now = 1_000_000_000u64;
        let mut spent: Vec<(u64, u64)> = Vec::new();
        for (cost, pause, extra) in costs {
            now += pause * MS;
            let charges = [Charge { limit: limit.clone(), cost }];
            budget = serde_json::from_str(&serde_json::to_string(&budget).unwrap()).unwrap();
            let before: u64 = spent.iter().filter(|(at, _)| *at > now - micros(period)).map(|(_, cost)| cost).sum();
            match budget.take(&ask(&charges, 1, Class::Bulk), Micros(now)) {
                Taken::Slots { lease, .. } => {
                    budget.finish(lease, 1, Micros(now));
                    spent.push((now, u64::from(cost)));
                    // What the CRM says it has cost besides is not ours to refuse any more, but it counts.
                    if extra > 0 && before + u64::from(cost + extra) <= 20 {
                        budget.cost_more(&limit, extra, Micros(now));
                        spent.push((now, u64::from(extra)));
                    }
                }
                Taken::Wait { until, quota, .. } => {
                    prop_assert!(quota, "one that is gone is gone for long");
                    prop_assert!(until.0 > now && until.0 <= now + micros(period) + micros(period) / 100);
                    prop_assert!(before + u64::from(cost) > 20 - 1, "it waits with {before} of 20 spent");
                }
            }
        }
        for (i, (first, _)) in spent.iter().enumerate() {
            let within: u64 = spent[i..].iter().take_while(|(at, _)| *at < first + micros(period)).map(|(_, cost)| cost).sum();
            prop_assert!(within <= 20, "{within} within {period:?}");
        }
    }
}

#[test]
fn what_a_call_has_cost_besides_counts_against_every_kind_of_limit() {
    let now = Micros::from_secs(1_000_000);
    let kinds = [
        LimitKind::Window {
            length: Duration::from_secs(60),
            max: 10,
        },
        LimitKind::Quota {
            period: Duration::from_secs(86_400),
            offset: Duration::ZERO,
            max: 10,
        },
        LimitKind::Rolling {
            period: Duration::from_secs(86_400),
            max: 10,
        },
    ];
    for kind in kinds {
        let limit = Limit {
            name: "calls".into(),
            kind,
            scope: LimitScope::Account,
        };
        let mut budget = Budget::default();
        budget.cost_more(&limit, 7, now);
        let left = budget.left(std::slice::from_ref(&limit), now);
        assert_eq!(left[0].left, 3, "{kind:?}");
        // Day 12 ends; what is no quota flows back all the time.
        let whole = matches!(kind, LimitKind::Quota { .. }).then_some(Micros::from_secs(12 * 86_400));
        assert_eq!(left[0].resets, whole, "{kind:?}");
        budget.cost_more(&limit, 70, now);
        assert_eq!(budget.left(&[limit], now)[0].left, 0, "{kind:?}");
    }
}
