//! Every crash point of linking is reached, by news of either system, and costs nothing but time (invariant 14).

use futures::StreamExt;

use super::*;

const PEOPLE: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() {
    if compiled() && services() {
        all(Backend::Distributed, "worker").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    if compiled() {
        all(Backend::Embedded, "up").await;
    }
}

async fn all(backend: Backend, role: &'static str) {
    let cases = worker::crash::LINK_POINTS.map(|point| case(backend, point, role));
    futures::stream::iter(cases).buffer_unordered(3).count().await;
}

async fn case(backend: Backend, point: &'static str, role: &'static str) {
    let name = format!("{backend:?} {point}");
    let sides = Sides::start(PEOPLE as usize * 2).await;
    // The second half is known by its address in the DMS only, for now.
    for id in 1..=PEOPLE * 2 {
        let email = format!("p{id}@x.example");
        sides.edit("dms", id, &email, "");
        let there = if id <= PEOPLE {
            email
        } else {
            format!("late{id}@x.example")
        };
        sides.edit("chat", id, &there, "");
    }
    let dealer = Dealer::new(backend, &sides, "", None);

    // Only the DMS tells, of all: what the other would tell of our own writes would heal what is lost.
    let running = Running::start_to_crash(&dealer.site, point, role).await;
    sides.tell(&dealer.front, json!({"all": true}));
    running.crash(role, &format!("{name}, told by the DMS")).await;
    let running = Running::start(&dealer.site).await;
    linked(&dealer, &sides, &running, 1..=PEOPLE, &name).await;
    drop(running);

    // Only Web1on1 tells, of those whose address was put right.
    sides.crm.control(Control::update_contact("dms", None)).done();
    let running = Running::start_to_crash(&dealer.site, point, role).await;
    sides.subscribe(&dealer.front, json!({}));
    for id in PEOPLE + 1..=PEOPLE * 2 {
        sides.edit("chat", id, &format!("p{id}@x.example"), "");
    }
    running.crash(role, &format!("{name}, told by Web1on1")).await;
    let running = Running::start(&dealer.site).await;
    linked(&dealer, &sides, &running, 1..=PEOPLE * 2, &name).await;
    dealer.site.assert_nothing_given_up();
}

/// Waits until nothing is left to be done; then exactly these show each other.
async fn linked(
    dealer: &Dealer,
    sides: &Sides,
    running: &Running,
    expected: std::ops::RangeInclusive<u64>,
    name: &str,
) {
    until(&format!("{name}: everything comes to rest"), || async {
        dealer.is_at_rest(sides).await
    })
    .await;
    for id in 1..=PEOPLE * 2 {
        let good = match expected.contains(&id) {
            true => sides.is_linked(id),
            false => sides.has_no_links(id),
        };
        let (chat, dms) = (sides.at_chat(id), sides.at_dms(id));
        assert!(good, "{name}: {id} shows {chat:?} and {dms}\n{}", running.log());
    }
    let report = dealer.report(&running.front).await;
    let count = expected.count() as u64;
    assert_eq!(
        (
            &report["linked"],
            &report["unmatched"],
            &report["ambiguous"],
            &report["waiting"]
        ),
        (&json!(count), &json!(PEOPLE * 2 - count), &json!(0), &json!(0)),
        "{name}: {report}"
    );
}
