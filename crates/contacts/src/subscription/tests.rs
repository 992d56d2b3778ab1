use proptest::prelude::*;

use super::*;
use crate::keys::{Identity, test_keys};

const DAY: Duration = Duration::from_secs(86_400);
const OURS: &str = "https://bridge.example/crm/webhooks/ours";
const MOVED: &str = "https://new.example/crm/webhooks/ours";

fn account(org: &str) -> AccountId {
    test_keys(1).account_id(&Identity {
        integration: "demo",
        site: "",
        org,
        principal: "",
    })
}

fn sealed(id: &str) -> Sealed {
    seal(
        &test_keys(1),
        &account("a"),
        id,
        &SecretString::from(format!("secret of {id}")),
    )
}

/// A CRM that keeps whatever it is asked for, beside what others have there.
#[derive(Clone, Debug, Default)]
struct Crm {
    rows: Vec<Row>,
    made: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: String,
    url: String,
    topic: String,
    expires: Option<Micros>,
}

#[derive(Clone, Debug)]
enum Move {
    /// A look whose n-th call gets no answer although it was carried out; 0: all are answered.
    Look {
        lost_at: usize,
    },
    Wait(u64),
    /// The store is lost.
    Forget,
    /// Somebody at the CRM ends one of all that are there.
    End(prop::sample::Index),
    /// Somebody else subscribes.
    Stranger(bool),
    /// The bridge gets another URL, or back the old one.
    Moves(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        4 => (0..4usize).prop_map(|lost_at| Move::Look { lost_at }),
        2 => (0..200_000u64).prop_map(Move::Wait),
        1 => Just(Move::Forget),
        1 => any::<prop::sample::Index>().prop_map(Move::End),
        1 => any::<bool>().prop_map(Move::Stranger),
        1 => any::<bool>().prop_map(Move::Moves),
    ];
    prop::collection::vec(step, 0..30)
}

struct World {
    crm: Crm,
    held: Vec<Held>,
    wanted: Wanted,
    now: Micros,
}

impl World {
    fn list(&self) -> Vec<Listed> {
        let live = self
            .crm
            .rows
            .iter()
            .filter(|row| row.expires.is_none_or(|at| at > self.now));
        live.map(|row| Listed {
            id: row.id.clone(),
            url: row.url.clone(),
            topic: (self.wanted.topics.len() > 1).then(|| row.topic.clone()),
            expires: row.expires,
        })
        .collect()
    }

    /// Returns the steps; the one whose answer is lost is the last that is tried.
    fn look(&mut self, wanted: bool, lost_at: usize) -> Vec<Step> {
        let plan = plan(wanted.then_some(&self.wanted), &self.held, &self.list(), self.now);
        self.held = plan.held;
        for (nth, step) in plan.steps.iter().enumerate() {
            let end = self.wanted.renew_before.map(|_| self.now.plus(DAY));
            let lost = nth + 1 == lost_at;
            match step {
                Step::Delete { id } => {
                    let row = self.crm.rows.iter().find(|row| row.id == *id).expect("it was listed");
                    assert!(!row.url.contains("stranger"), "another's is ended");
                    self.crm.rows.retain(|row| row.id != *id);
                }
                Step::Renew { id } => {
                    let row = self
                        .crm
                        .rows
                        .iter_mut()
                        .find(|row| row.id == *id)
                        .expect("it was listed");
                    row.expires = end;
                    let held = self.held.iter_mut().find(|held| held.id == *id).expect("it is kept");
                    if !lost {
                        held.expires = end;
                    }
                }
                Step::Ask { id } => {
                    let held = self.held.iter_mut().find(|held| held.id == *id).expect("it is kept");
                    if !lost {
                        held.secret = Some(sealed(id));
                    }
                }
                Step::Create { topic } => {
                    self.crm.made += 1;
                    let row = Row {
                        id: self.crm.made.to_string(),
                        url: self.wanted.url.clone(),
                        topic: topic.clone(),
                        expires: end,
                    };
                    self.crm.rows.push(row.clone());
                    if !lost {
                        self.held.push(Held {
                            topic: topic.clone(),
                            secret: (self.wanted.secret == SecretOf::Creation).then(|| sealed(&row.id)),
                            id: row.id,
                            url: row.url,
                            created: self.now,
                            expires: row.expires,
                        });
                    }
                }
            }
            if lost {
                break;
            }
        }
        plan.steps
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.crm.rows.retain(|row| row.expires.is_none_or(|at| at > self.now));
    }

    /// Looks without faults until nothing is left to do.
    fn settle(&mut self, wanted: bool) {
        for _ in 0..3 {
            if self.look(wanted, 0).is_empty() {
                return;
            }
        }
        panic!("no end of steps: {:?}", self.crm);
    }

    fn own(&self, url: &str) -> Vec<&Row> {
        self.crm.rows.iter().filter(|row| row.url == url).collect()
    }

    fn strangers(&self) -> usize {
        self.crm.rows.iter().filter(|row| row.url.contains("stranger")).count()
    }
}

fn world(topics: usize, secret: SecretOf, ends: bool) -> World {
    let topics = match topics {
        1 => vec![String::new()],
        many => (0..many).map(|n| format!("topic {n}")).collect(),
    };
    World {
        crm: Crm::default(),
        held: Vec::new(),
        wanted: Wanted {
            url: OURS.to_owned(),
            topics,
            secret,
            renew_before: ends.then_some(DAY / 4),
        },
        now: Micros::from_secs(1_800_000_000),
    }
}

fn secrets() -> impl Strategy<Value = SecretOf> {
    prop_oneof![
        Just(SecretOf::Bridge),
        Just(SecretOf::Creation),
        Just(SecretOf::Question)
    ]
}

proptest! {
    #[test]
    fn whatever_happens_there_is_one_for_each_topic_in_the_end_and_others_are_left_alone(
        topics in 1..4usize, secret in secrets(), ends in any::<bool>(), moves in moves(),
    ) {
        let mut world = world(topics, secret, ends);
        let mut strangers = 0;
        for step in moves {
            match step {
                Move::Look { lost_at } => {
                    world.look(true, lost_at);
                    prop_assert!(world.own(&world.wanted.url).len() <= topics, "too many: {:?}", world.crm);
                }
                Move::Wait(seconds) => world.wait(seconds),
                Move::Forget => world.held.clear(),
                Move::End(which) => {
                    if !world.crm.rows.is_empty() {
                        let row = world.crm.rows.remove(which.index(world.crm.rows.len()));
                        strangers -= usize::from(row.url.contains("stranger"));
                    }
                }
                Move::Stranger(similar) => {
                    world.crm.made += 1;
                    strangers += 1;
                    let url = if similar { format!("{OURS}?stranger") } else { "https://stranger.example".to_owned() };
                    world.crm.rows.push(Row { id: world.crm.made.to_string(), url, topic: "topic 0".to_owned(), expires: None });
                }
                Move::Moves(there) => world.wanted.url = if there { MOVED } else { OURS }.to_owned(),
            }
        }
        world.settle(true);
        let known = Subscription { held: world.held.clone(), ..Subscription::default() };
        prop_assert!(known.fits(Some(&world.wanted), None), "a start would look at it again: {known:?}");
        let elsewhere = Wanted { url: format!("{}/elsewhere", world.wanted.url), ..world.wanted.clone() };
        prop_assert!(!known.fits(Some(&elsewhere), None) && !known.fits(None, Some("it is off")));
        prop_assert!(world.look(true, 0).is_empty());
        let own = world.own(&world.wanted.url);
        let mut told: Vec<&str> = own.iter().map(|row| row.topic.as_str()).collect();
        told.sort_unstable();
        prop_assert_eq!(told, world.wanted.topics.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(world.strangers(), strangers);
        prop_assert_eq!(world.held.len(), topics);
        let proven = world.held.iter().all(|held| held.secret.is_some() == (secret != SecretOf::Bridge));
        prop_assert!(proven, "a subscription whose deliveries nobody can verify: {:?}", world.held);

        // Not wanted any more: what is held goes, and nothing else.
        world.settle(false);
        let left = world.own(&world.wanted.url);
        prop_assert!(left.is_empty(), "{left:?}");
        prop_assert_eq!(world.strangers(), strangers);
    }

    #[test]
    fn a_renewal_comes_before_the_end_and_not_all_the_time(
        left in 1..200_000u64, before in 0..100_000u64, every in 1..200_000u64,
    ) {
        let now = Micros::from_secs(1_800_000_000);
        let subscription = Subscription {
            held: vec![Held {
                topic: String::new(),
                id: "1".into(),
                url: OURS.into(),
                secret: None,
                created: now,
                expires: Some(now.plus(Duration::from_secs(left))),
            }],
            ..Subscription::default()
        };
        let before = Duration::from_secs(before);
        let next = subscription.next(Some(before), Duration::from_secs(every), now);
        prop_assert!(next >= now.plus(SOONEST));
        prop_assert!(next <= now.plus(Duration::from_secs(every.max(left))));
        let end = now.plus(Duration::from_secs(left));
        prop_assert!(next < end || left <= 2 || Duration::from_secs(every) == next.since(now), "{next} is not before {end}");
        if next.since(now) < Duration::from_secs(every) && left > 2 {
            // What it comes early for is done then, or half of what was left has passed.
            prop_assert!(end.since(next) <= before || next.since(now) >= Duration::from_secs(left) / 2);
        }
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_and_never_given_up(fails in 1..60u32, until in 0..1_000_000_000u64) {
        let (policy, now) = (RetryPolicy::default(), Micros::from_secs(1_800_000_000));
        let mut subscription = Subscription::default();
        let mut last = Duration::ZERO;
        for _ in 0..fails {
            let again = subscription.failed(ErrorKind::Rejected, "no".into(), now, &policy);
            prop_assert!(again > now && again.since(now) >= last && again.since(now) <= policy.max);
            last = again.since(now);
        }
        let until = now.plus(Duration::from_micros(until));
        let again = subscription.failed(ErrorKind::Quota { until }, "later".into(), now, &policy);
        prop_assert!(again >= until);
        prop_assert!(matches!(subscription.standing(), Standing::Failing(_)));
        subscription.succeeded(None);
        prop_assert_eq!(subscription.standing(), Standing::Pending);
        prop_assert_eq!(subscription.failed, 0);
    }
}

#[test]
fn one_at_a_time_and_a_claim_that_is_over_stands_for_nothing() {
    let (mut subscription, now, life) = (
        Subscription::default(),
        Micros::from_secs(1_000),
        Duration::from_secs(60),
    );
    assert!(subscription.begin("a", now, life));
    assert!(!subscription.begin("b", now, life), "it is in hand");
    assert_eq!(subscription.look_at(), now.plus(life));
    assert!(subscription.go_on("a", now.plus(life / 2), life));
    let late = now.plus(life * 2);
    assert!(subscription.begin("b", late, life));
    assert!(!subscription.go_on("a", late, life), "another one has it by now");
    subscription.rest("a", late.plus(DAY));
    assert!(subscription.claim.is_some(), "and keeps it");
    subscription.rest("b", late.plus(DAY));
    assert_eq!(subscription.look_at(), late.plus(DAY));
    assert!(!subscription.begin("a", late, life), "it is not due");
}

#[test]
fn invariant_12_a_secret_opens_for_its_own_subscription_only_and_debug_hides_it() {
    let keys = test_keys(1);
    let (mine, yours) = (account("a"), account("b"));
    let held = |id: &str| Held {
        topic: String::new(),
        id: id.into(),
        url: OURS.into(),
        secret: Some(seal(&keys, &mine, "7", &SecretString::from("canary-4711"))),
        created: Micros::ZERO,
        expires: None,
    };
    let opened = open(&keys, &mine, &held("7")).expect("it has one").expect("it opens");
    assert_eq!(opened.expose_secret(), "canary-4711");
    assert!(matches!(open(&keys, &mine, &held("8")), Some(Err(SealError::Forged))));
    assert!(matches!(open(&keys, &yours, &held("7")), Some(Err(SealError::Forged))));
    let stored = serde_json::to_string(&held("7")).unwrap() + &format!("{:?}", held("7"));
    assert!(!stored.contains("canary") && !stored.contains(&BASE64.encode(b"canary-4711")));
}

#[test]
fn the_first_shape_of_the_document_is_read_for_ever() {
    let stored = br#"{"held":[{"topic":"t","id":"1","url":"u","secret":{"kid":"k","data":"d"},"created":5,"expires":9}],"due":7,"claim":{"owner":"w","until":8},"failed":2,"last_error":{"at":1,"kind":"rejected","message":"no","again":7}}"#;
    let read: Subscription = serde_json::from_slice(stored).unwrap();
    assert_eq!(
        (read.held[0].expires, read.due, read.failed),
        (Some(Micros(9)), Micros(7), 2)
    );
    assert_eq!(
        serde_json::from_slice::<Subscription>(b"{}").unwrap(),
        Subscription::default()
    );
}

#[test]
fn what_was_left_to_a_person_fits_as_long_as_its_reason_does() {
    let wanted = world(1, SecretOf::Bridge, false).wanted;
    let mut known = Subscription::default();
    assert!(known.fits(Some(&wanted), None), "it is due already");
    known.succeeded(Some("http.public_url is not set".to_owned()));
    assert!(known.fits(None, Some("http.public_url is not set")));
    assert!(!known.fits(None, Some("integrations.crm.subscribe is off")));
    assert!(!known.fits(Some(&wanted), None));
    // Its next attempt has a time already, and a CRM that refuses is asked no sooner.
    known.failed(ErrorKind::Rejected, "no".to_owned(), Micros(1), &RetryPolicy::default());
    assert!(known.fits(Some(&wanted), None));
}
