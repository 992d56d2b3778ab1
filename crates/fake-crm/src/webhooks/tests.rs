use super::*;
use crate::rng::Purpose;
use crate::vendors::house::House;

fn outbox(change: impl FnOnce(&mut Webhook), events: u64) -> Outbox {
    let mut webhook = Webhook::new("http://127.0.0.1:1/", "s");
    change(&mut webhook);
    let mut outbox = Outbox::default();
    outbox.subscribe(Some(webhook), false);
    let news = (1..=events)
        .map(|id| News {
            kind: EventKind::Updated,
            id,
            merged_into: None,
            at: 5,
            by_api: false,
            user: false,
            record: None,
        })
        .collect();
    outbox.add("demo", news, &mut Rng::of(1, Purpose::Choices, 0));
    outbox
}

fn ids(delivery: &Delivery) -> Vec<&str> {
    delivery.events.iter().map(|event| event.id.as_str()).collect()
}

#[test]
fn the_signature_is_over_timestamp_and_body() {
    // printf '1700000000000.[]' | openssl dgst -sha256 -hmac s3cret
    assert_eq!(
        signature("s3cret", "1700000000000", b"[]"),
        "6b8c4a573afa62becd696b4e3fff9f5f432b76aaf7fc6e909e139caff3fdbe1e"
    );
}

#[test]
fn batches_drops_and_duplicates() {
    let mut outbox = outbox(
        |webhook| {
            webhook.batch = 3;
            webhook.drop_every = 4;
            webhook.duplicate_every = 3;
        },
        8,
    );
    let now = Instant::now();
    let mut all = Vec::new();
    while let Some(delivery) = outbox.next(now, 100, false) {
        assert!(delivery.events.len() <= 3);
        all.extend(ids(&delivery).into_iter().map(str::to_owned));
        outbox.settle(delivery, Ok(204), &House, now);
    }
    assert_eq!(all, ["1", "2", "3", "3", "5", "6", "6", "7"]);
    let stats = &outbox.stats;
    assert_eq!(
        (
            stats.events,
            stats.dropped,
            stats.duplicated,
            stats.delivered,
            stats.waiting
        ),
        (8, 2, 2, 8, 0)
    );
}

#[test]
fn shuffled_events_are_the_same_events() {
    let mut outbox = outbox(|webhook| webhook.shuffle = true, 50);
    let delivery = outbox.next(Instant::now(), 100, false).expect("one batch");
    let mut numbers: Vec<u64> = ids(&delivery).iter().map(|id| id.parse().expect("number")).collect();
    assert_ne!(numbers, (1..=50).collect::<Vec<_>>());
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_failed_call_is_tried_again_later_and_given_up_in_the_end() {
    let mut outbox = outbox(|webhook| webhook.attempts = 3, 2);
    let start = Instant::now();
    let mut now = start;
    for wait in [200, 400] {
        let delivery = outbox.next(now, 100, false).expect("due");
        outbox.settle(delivery, Ok(503), &House, now);
        assert!(outbox.next(now, 100, false).is_none(), "not before its time");
        now += Duration::from_millis(wait);
    }
    let delivery = outbox.next(now, 100, false).expect("third");
    assert_eq!(ids(&delivery), ["1", "2"]);
    outbox.settle(delivery, Err("timeout"), &House, now);
    assert_eq!((outbox.stats.given_up, outbox.stats.waiting), (2, 0));
    assert_eq!(
        outbox.stats.attempts,
        BTreeMap::from([("503".into(), 2), ("timeout".into(), 1)])
    );
}

#[test]
fn nothing_is_kept_while_it_is_off() {
    let mut outbox = outbox(|webhook| webhook.enabled = false, 5);
    assert!(outbox.next(Instant::now(), 100, false).is_none());
    assert_eq!(outbox.stats, WebhookStats::default());
}

#[test]
fn a_late_event_comes_behind_those_that_were_made_later() {
    let mut outbox = outbox(
        |webhook| {
            webhook.batch = 1;
            webhook.late_every = 2;
            webhook.late_ms = 500;
        },
        4,
    );
    let mut all = Vec::new();
    for at in [Instant::now(), Instant::now() + Duration::from_secs(5)] {
        while let Some(delivery) = outbox.next(at, 100, false) {
            all.extend(ids(&delivery).into_iter().map(str::to_owned));
            outbox.settle(delivery, Ok(204), &House, at);
        }
    }
    assert_eq!(all, ["1", "3", "2", "4"]);
    assert_eq!((outbox.stats.delivered, outbox.stats.waiting), (4, 0));
}
