//! Which ids carry a lookup key, as Redis holds it: logs of pairs of key and id, in [`BUCKETS`] strings a snapshot.
//!
//! Appending to a string costs Redis a small part of a place in a table, in time as in memory, and many pairs of a commit go
//! to one string; nor must anybody know who else carries a key. Looking a key up reads a whole bucket, a sixty-fourth of the
//! pairs (some 90 KB of a snapshot with 100,000 contacts), which is rare: no page does it, and no refresh of contacts; that of
//! agents, who are few, does. A pair that goes is appended, too, and a bucket that has come to hold more of what is gone than
//! of what is there is written anew.

use std::collections::{BTreeMap, BTreeSet};

use contacts::StoreError;

use super::error::unreadable;

/// Fixed for ever: a key's bucket follows from it.
pub(super) const BUCKETS: u8 = 64;
/// Smaller buckets are not worth being written anew.
const REWRITTEN_FROM: u64 = 2048;
/// At most so many by one commit: all buckets wear evenly, and come due at about the same time.
const REWRITTEN_AT_ONCE: usize = 4;

/// In the length of an id: the pair is gone.
const GONE: u32 = 1 << 31;

pub(super) fn bucket_of(key: u64) -> u8 {
    (key % u64::from(BUCKETS)) as u8
}

/// What a commit does to buckets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub buckets: BTreeMap<u8, Change>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// To be appended.
    pub entries: Vec<u8>,
    /// Bytes that mean nothing any more once this is appended: pairs that go, and the entries that say so.
    pub worn: u64,
}

impl Changes {
    pub fn add(&mut self, key: u64, id: &str) {
        put(&mut self.of(key).entries, key, id, 0);
    }

    pub fn remove(&mut self, key: u64, id: &str) {
        let change = self.of(key);
        let before = change.entries.len();
        put(&mut change.entries, key, id, GONE);
        change.worn += 2 * (change.entries.len() - before) as u64;
    }

    fn of(&mut self, key: u64) -> &mut Change {
        self.buckets.entry(bucket_of(key)).or_default()
    }

    /// The buckets from which pairs go.
    pub fn wearing(&self) -> impl Iterator<Item = u8> {
        let wearing = self.buckets.iter().filter(|(_, change)| change.worn > 0);
        wearing.map(|(bucket, _)| *bucket)
    }

    /// Which buckets are to be written anew. `state`: bucket, its length and how much of it was worn before.
    pub fn due(&self, state: impl IntoIterator<Item = (u8, u64, u64)>) -> Vec<u8> {
        let mut due: Vec<(u64, u8)> = state
            .into_iter()
            .filter_map(|(bucket, length, worn)| {
                let change = self.buckets.get(&bucket)?;
                let (length, worn) = (length + change.entries.len() as u64, worn + change.worn);
                (length >= REWRITTEN_FROM && worn > length / 2).then_some((worn, bucket))
            })
            .collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        due.into_iter()
            .take(REWRITTEN_AT_ONCE)
            .map(|(_, bucket)| bucket)
            .collect()
    }
}

/// Length of the id (4 bytes, high byte first; the top bit says that the pair is gone), key (8 bytes), id.
fn put(to: &mut Vec<u8>, key: u64, id: &str, gone: u32) {
    to.extend_from_slice(&(id.len() as u32 | gone).to_be_bytes());
    to.extend_from_slice(&key.to_be_bytes());
    to.extend_from_slice(id.as_bytes());
}

struct Entry<'a> {
    key: u64,
    id: &'a [u8],
    gone: bool,
}

fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, StoreError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = first(bytes);
        bytes = entry.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(entry.map(|(entry, _)| entry).ok_or_else(|| unreadable("lookup keys")))
    })
}

fn first(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    let (id, rest) = rest.split_at_checked((length & !GONE) as usize)?;
    let (key, gone) = (u64::from_be_bytes(*key), length & GONE != 0);
    Some((Entry { key, id, gone }, rest))
}

/// The ids that carry a key, in ascending order.
pub(super) fn carriers(bucket: &[u8], key: u64) -> Result<Vec<String>, StoreError> {
    let mut found = BTreeSet::new();
    for entry in entries(bucket) {
        let entry = entry?;
        match (entry.key == key, entry.gone) {
            (true, false) => found.insert(entry.id),
            (true, true) => found.remove(entry.id),
            (false, _) => false,
        };
    }
    let text = |id: &[u8]| std::str::from_utf8(id).map(str::to_owned);
    let found: Result<Vec<String>, _> = found.into_iter().map(text).collect();
    found.map_err(|_| unreadable("lookup keys"))
}

/// The same pairs, each once, and nothing else.
pub(super) fn rewritten(bucket: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut pairs = BTreeSet::new();
    for entry in entries(bucket) {
        let entry = entry?;
        let pair = (entry.key, entry.id);
        match entry.gone {
            false => pairs.insert(pair),
            true => pairs.remove(&pair),
        };
    }
    let mut kept = Vec::new();
    for (key, id) in pairs {
        let id = std::str::from_utf8(id).map_err(|_| unreadable("lookup keys"))?;
        put(&mut kept, key, id, 0);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64, String),
        Remove(u64, String),
        Rewrite,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pair = || (prop::sample::select(vec![1, 65, 129, u64::MAX - 62]), "[ab\u{ff}]{0,2}");
        prop::collection::vec(
            prop_oneof![
                4 => pair().prop_map(|(key, id)| Step::Add(key, id)),
                3 => pair().prop_map(|(key, id)| Step::Remove(key, id)),
                1 => Just(Step::Rewrite),
            ],
            0..40,
        )
    }

    proptest! {
        #[test]
        fn a_bucket_says_what_a_set_of_pairs_would(steps in steps()) {
            let (mut bucket, mut worn, mut expected) = (Vec::new(), 0, BTreeSet::new());
            for step in steps {
                let mut changes = Changes::default();
                match step {
                    Step::Add(key, id) => {
                        changes.add(key, &id);
                        expected.insert((key, id));
                    }
                    // Only what is there goes: a commit knows the keys that its record had.
                    Step::Remove(key, id) => if expected.remove(&(key, id.clone())) {
                        changes.remove(key, &id);
                    }
                    Step::Rewrite => {
                        let kept = rewritten(&bucket).unwrap();
                        prop_assert!(kept.len() <= bucket.len());
                        // Nothing that is there counts as worn.
                        prop_assert!(kept.len() as u64 <= bucket.len() as u64 - worn);
                        (bucket, worn) = (kept, 0);
                    }
                }
                for (number, change) in changes.buckets {
                    prop_assert_eq!(number, 1);
                    bucket.extend(change.entries);
                    worn += change.worn;
                }
            }
            for key in [1, 65, 129, u64::MAX - 62] {
                let ids: Vec<String> = expected.iter().filter(|(other, _)| *other == key).map(|(_, id)| id.clone()).collect();
                prop_assert_eq!(carriers(&bucket, key).unwrap(), ids);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(0..3_u8, 0..60)) {
            prop_assert_eq!(carriers(&bytes, 0).is_ok(), rewritten(&bytes).is_ok());
        }
    }

    #[test]
    fn a_bucket_cut_short_is_an_error() {
        let mut changes = Changes::default();
        changes.add(7, "abc");
        let bucket = &changes.buckets[&7].entries;
        assert_eq!(carriers(bucket, 7).unwrap(), ["abc"]);
        for end in 1..bucket.len() {
            assert!(carriers(&bucket[..end], 7).is_err(), "{end}");
        }
    }

    #[test]
    fn the_most_worn_buckets_are_due_few_at_a_time() {
        let mut changes = Changes::default();
        for key in 0..20 {
            changes.remove(key, "x");
        }
        changes.add(30, "x");
        assert_eq!(changes.wearing().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        // An entry has 13 bytes: another 26 are worn.
        let state = |bucket: u8| (bucket, 3_000, 1_480 + u64::from(bucket));
        assert_eq!(changes.due((0..20).map(state)), [19, 18, 17, 16]);
        assert_eq!(changes.due([(3, 3_000, 1_481)]), [3], "1,507 of 3,013");
        assert!(changes.due([(3, 3_000, 1_480)]).is_empty(), "1,506 are half");
        assert!(changes.due([(3, 2_000, 2_000)]).is_empty(), "a small one");
        assert!(changes.due([(30, 3_000, 0)]).is_empty());
    }
}
