//! What happened to a contact of Web1on1, as its webhook tells. Deliveries are repeated for a day and come out of order by up to
//! an hour (Web1on1 "Responding to webhooks"), and our own writes come back as events: what is news is decided here.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::time::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Updated,
    Deleted,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
        }
    }
}

/// What both systems may know of a person.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// Personal data stays out of logs.
impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}

/// When a record was in the state that an event tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The record's own time of change.
    #[serde(default)]
    pub updated: Option<Micros>,
    /// When the event was published. The time it was sent is no part of this: a repetition may bear another.
    #[serde(default)]
    pub published: Option<Micros>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub change: Change,
    pub organization: String,
    /// Web1on1's id of the contact.
    pub contact: String,
    /// Id of the contact's conversation; `None`: it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    #[serde(default)]
    pub stamp: Stamp,
    #[serde(default)]
    pub person: Person,
}

/// What an event's relevant fields come to: two events of equal digests ask for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

/// What is to be done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is news.
    Apply,
    /// It tells of a time before the one that is known: it must not undo that.
    Stale,
    /// Nothing that counts has changed: what the bridge wrote has come back, or somebody changed something else.
    Echo,
}

/// What is known of a contact: from the last event that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub stamp: Stamp,
    pub digest: Digest,
    #[serde(default)]
    pub deleted: bool,
}

impl Stamp {
    /// Whether this is certainly the earlier one. The records' own times count where both are known, else the events'; where
    /// nothing can be compared, nothing is certain.
    pub fn is_before(&self, other: &Stamp) -> bool {
        match (self.updated, other.updated) {
            (Some(own), Some(others)) if own != others => own < others,
            _ => matches!((self.published, other.published), (Some(own), Some(others)) if own < others),
        }
    }
}

impl Event {
    /// The same for each delivery of one event, and different for two events. The envelope's `id` is not part of it: the vendor
    /// does not say whether it names the event or the webhook.
    /// A payload's key, of which the inbox keeps a keyed hash.
    pub fn dedupe(&self) -> String {
        let time = |time: Option<Micros>| time.map_or_else(|| "-".to_owned(), |time| time.0.to_string());
        let parts = [
            self.change.as_str(),
            &time(self.stamp.published),
            &time(self.stamp.updated),
            &self.organization,
            &self.contact,
        ];
        // An event without any time is told from the next one by what it says.
        match self.stamp == Stamp::default() {
            true => format!(
                "{}|{}",
                parts.join("|"),
                data_encoding::HEXLOWER.encode(&self.relevant())
            ),
            false => parts.join("|"),
        }
    }

    /// `hash` is keyed: what is kept of a person must not be found by trying numbers.
    pub fn digest(&self, hash: impl Fn(&[u8]) -> String) -> Digest {
        Digest(hash(&self.relevant()))
    }

    /// Stands for all that counts.
    fn relevant(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let person = &self.person;
        for part in [&self.conversation, &person.name, &person.email, &person.phone] {
            // Absent and empty are one, as they are to people.
            let part = part.as_deref().unwrap_or_default();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    /// What is to be done, and what is known from then on. An echo moves the time on, or an older event in between would be
    /// taken for news. Who did it does not count: what the bridge itself wrote comes back with what others changed before, and
    /// their event, overtaken, would be stale.
    pub fn judge(&self, known: Option<&Applied>, hash: impl Fn(&[u8]) -> String) -> (Verdict, Applied) {
        let told = Applied {
            stamp: self.stamp,
            digest: self.digest(hash),
            deleted: self.change == Change::Deleted,
        };
        let Some(known) = known else {
            return (Verdict::Apply, told);
        };
        // Ids are never given twice: whatever else is told of a deleted contact is older than that.
        if self.stamp.is_before(&known.stamp) || (known.deleted && !told.deleted) {
            return (Verdict::Stale, known.clone());
        }
        let same = known.deleted == told.deleted && (told.deleted || known.digest == told.digest);
        (if same { Verdict::Echo } else { Verdict::Apply }, told)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    fn event(change: Change, at: u64, name: &str) -> Event {
        Event {
            change,
            organization: "5c13".into(),
            contact: "60aa".into(),
            conversation: Some("60ab".into()),
            stamp: Stamp {
                updated: Some(Micros(at)),
                published: Some(Micros(at)),
            },
            person: Person {
                name: Some(name.into()),
                ..Person::default()
            },
        }
    }

    /// The history of one contact: versions in their order, deleted at the end or not.
    fn history() -> impl Strategy<Value = Vec<Event>> {
        (prop::collection::vec("[a-b]", 1..5), any::<bool>()).prop_map(|(names, deleted)| {
            let mut events: Vec<Event> = names
                .iter()
                .enumerate()
                .map(|(at, name)| {
                    event(
                        if at == 0 { Change::Created } else { Change::Updated },
                        at as u64 + 1,
                        name,
                    )
                })
                .collect();
            if deleted {
                let last = events.last().cloned().unwrap();
                events.push(Event {
                    change: Change::Deleted,
                    ..event(Change::Deleted, 99, last.person.name.as_deref().unwrap())
                });
            }
            events
        })
    }

    proptest! {
        #[test]
        fn invariant_5_whatever_the_order_and_however_often_the_newest_counts(
            deliveries in history().prop_flat_map(|events| {
                let repeated = [events.clone(), events.clone()].concat();
                (Just(events), Just(repeated).prop_shuffle(), any::<prop::sample::Index>())
            }),
        ) {
            let (events, mut order, cut) = deliveries;
            // Some come once, some twice, each at least once.
            let mut seen = std::collections::BTreeSet::new();
            let (first, rest) = order.split_at_mut(cut.index(events.len() * 2));
            let first = first.to_vec();
            seen.extend(first.iter().map(Event::dedupe));
            let rest = rest.iter().filter(|event| seen.insert(event.dedupe())).cloned().collect::<Vec<_>>();
            let mut known: Option<Applied> = None;
            let mut shown: Option<Event> = None;
            for delivery in first.into_iter().chain(rest) {
                let (verdict, applied) = delivery.judge(known.as_ref(), plain);
                known = Some(applied);
                if verdict == Verdict::Apply {
                    shown = Some(delivery);
                }
            }
            let last = events.last().unwrap();
            let shown = shown.unwrap();
            prop_assert_eq!(shown.digest(plain), last.digest(plain));
            prop_assert_eq!(shown.change == Change::Deleted, last.change == Change::Deleted);
            prop_assert_eq!(known.unwrap().stamp, last.stamp);
        }

        #[test]
        fn a_repetition_has_the_same_key_and_another_event_another(events in history()) {
            for (i, a) in events.iter().enumerate() {
                for (j, b) in events.iter().enumerate() {
                    prop_assert_eq!(a.dedupe() == b.dedupe(), i == j);
                }
            }
        }
    }

    #[test]
    fn what_comes_back_unchanged_is_an_echo_and_moves_the_time_on() {
        let (_, first) = event(Change::Created, 1, "a").judge(None, plain);
        let (verdict, known) = event(Change::Updated, 3, "a").judge(Some(&first), plain);
        assert_eq!((verdict, known.stamp.updated), (Verdict::Echo, Some(Micros(3))));
        let (verdict, known) = event(Change::Updated, 2, "b").judge(Some(&known), plain);
        assert_eq!(
            (verdict, known.stamp.updated),
            (Verdict::Stale, Some(Micros(3))),
            "the later one had overtaken it"
        );
        assert_eq!(
            event(Change::Updated, 4, "b").judge(Some(&known), plain).0,
            Verdict::Apply
        );
    }

    #[test]
    fn events_without_times_are_told_apart_by_what_they_say() {
        let bare = |name: &str| Event {
            stamp: Stamp::default(),
            ..event(Change::Updated, 0, name)
        };
        assert_eq!(bare("a").dedupe(), bare("a").dedupe());
        assert_ne!(bare("a").dedupe(), bare("b").dedupe());
        let (_, known) = event(Change::Created, 5, "a").judge(None, plain);
        assert_eq!(
            bare("b").judge(Some(&known), plain).0,
            Verdict::Apply,
            "nothing says that it is older"
        );
    }

    #[test]
    fn invariant_12_debug_output_holds_no_personal_data() {
        let mut shown = event(Change::Updated, 1, "canary");
        shown.person.email = Some("canary@b".into());
        assert!(!format!("{shown:?}").contains("canary"));
    }
}
