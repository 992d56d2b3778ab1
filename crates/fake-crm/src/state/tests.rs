use super::*;

fn at(now: i64, lag: i64) -> Moment {
    let due = if lag == NEVER { NEVER } else { now + lag };
    Moment {
        modified: now,
        visible: due,
        due,
        now,
        skew: 0,
        news_at_once: false,
        by_api: false,
    }
}

fn touch(contacts: &mut Contacts, id: u64, at: Moment) -> Vec<News> {
    let mut news = Vec::new();
    assert!(contacts.update(id, at, EventKind::Updated, &mut news, |record| record.revision += 1));
    news
}

fn seen(contacts: &Contacts, id: u64) -> u32 {
    contacts.get(id).expect("visible").revision
}

#[test]
fn a_late_edit_keeps_its_stamp_and_is_seen_later() {
    let mut contacts = Contacts::new(1, 5, false);
    let now = 1_900_000_000_000;
    assert!(
        touch(&mut contacts, 3, at(now, 100)).is_empty(),
        "no news before it is visible"
    );
    assert!(contacts.settle(now + 99).is_empty());
    assert_eq!(
        (seen(&contacts, 3), contacts.newest(3).expect("newest").revision),
        (0, 1)
    );
    assert_eq!(contacts.modified_within(now, now + 1).count(), 0);
    assert_eq!(contacts.settle(now + 100).len(), 1);
    assert_eq!(seen(&contacts, 3), 1);
    assert_eq!(
        contacts
            .modified_within(now, now + 1)
            .map(|(id, _)| id)
            .collect::<Vec<_>>(),
        [3]
    );
    assert_eq!(contacts.history.all().last().expect("edit").visible_at_ms, now + 100);
}

#[test]
fn an_older_version_that_comes_late_does_not_go_back() {
    let mut contacts = Contacts::new(1, 5, false);
    let now = 1_900_000_000_000;
    touch(&mut contacts, 3, at(now, 100));
    touch(&mut contacts, 3, at(now + 1, 10));
    contacts.settle(now + 50);
    assert_eq!(seen(&contacts, 3), 2, "the second edit stands on the first");
    contacts.settle(now + 200);
    assert_eq!(seen(&contacts, 3), 2);
    assert!(contacts.newest.is_empty() && contacts.waiting.is_empty());
}

#[test]
fn a_deleted_contact_never_comes_back() {
    let mut contacts = Contacts::new(1, 5, false);
    let mut news = Vec::new();
    touch(&mut contacts, 3, at(10, 100));
    assert!(contacts.delete(3, at(20, 0), Some(4), &mut news));
    assert_eq!(contacts.live(), 4);
    contacts.settle(1_000);
    assert!(contacts.get(3).is_none() && contacts.newest(3).is_none());
    assert!(!contacts.delete(3, at(30, 0), None, &mut news));
    assert_eq!(contacts.deleted(0, (0, 0)).collect::<Vec<_>>(), [(20, 3, Some(4))]);
    assert_eq!(contacts.truth(false).count(), 4);
}

#[test]
fn a_held_edit_waits_for_its_commit() {
    let mut contacts = Contacts::new(1, 5, false);
    touch(&mut contacts, 1, at(10, NEVER));
    contacts.settle(NEVER - 1);
    assert_eq!((seen(&contacts, 1), contacts.next_due()), (0, None));
    assert_eq!(contacts.commit(500), 1);
    assert_eq!(contacts.settle(500).len(), 1);
    assert_eq!(seen(&contacts, 1), 1);
    let edit = contacts.history.all().pop().expect("edit");
    assert_eq!((edit.modified_at_ms, edit.visible_at_ms), (10, 500));
}

#[test]
fn narrow_and_wide_windows_agree() {
    let contacts = Contacts::new(9, 10_000, false);
    let (from, to) = (
        contacts.by_time.first().expect("some").0,
        contacts.by_time.last().expect("some").0,
    );
    for (since, until) in [(from, to + 1), (from, from + (to - from) / 50), (to, from)] {
        let mut walked = Vec::new();
        let mut after = 0;
        loop {
            let page = contacts.modified_after((since, until), after, 97, |_, _| true);
            let Some((last, _)) = page.last() else { break };
            after = *last;
            walked.extend(page.iter().map(|(id, _)| *id));
        }
        let plain = contacts
            .after(0)
            .filter(|(_, r)| (since..until).contains(&r.modified))
            .map(|(id, _)| id);
        assert_eq!(walked, plain.collect::<Vec<_>>());
    }
}

#[test]
fn a_million_contacts_are_their_bookkeeping() {
    assert!(size_of::<Option<Record>>() <= 40);
}

#[test]
fn picks_are_different_contacts_and_never_more_than_there_are() {
    let mut contacts = Contacts::new(1, 100, false);
    for count in [1, 5, 60, 100, 500] {
        let picked = contacts.pick(count, false);
        let distinct: HashSet<u64> = picked.iter().copied().collect();
        assert_eq!((picked.len(), distinct.len()), (count.min(100), count.min(100)));
    }
    assert!(contacts.pick(5, true).is_empty());
}
