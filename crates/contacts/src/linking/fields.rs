//! Which way a field flows between two records of one person. Each field has one owner, so a value never comes back to where
//! it came from: without that, two systems that write numbers differently would correct each other for ever.

use serde::{Deserialize, Serialize};

/// The fields that may flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Name,
    Email,
    Phone,
}

/// Whose value of a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Dms,
    Web1on1,
    /// The field does not flow.
    Nobody,
}

/// What is to be written where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    Nothing,
    ToDms(String),
    ToWeb1on1(String),
}

/// What a field's two values come to. `same` says whether two values mean the same: a number in two forms is no news. An
/// owner without a value says nothing, so it empties nobody's field.
pub fn flow(owner: Owner, dms: Option<&str>, web1on1: Option<&str>, same: impl Fn(&str, &str) -> bool) -> Flow {
    let (from, to) = match owner {
        Owner::Nobody => return Flow::Nothing,
        Owner::Dms => (dms, web1on1),
        Owner::Web1on1 => (web1on1, dms),
    };
    let filled = |text: &&str| !text.is_empty();
    let Some(value) = from.map(str::trim).filter(filled) else {
        return Flow::Nothing;
    };
    if to
        .map(str::trim)
        .filter(filled)
        .is_some_and(|present| present == value || same(value, present))
    {
        return Flow::Nothing;
    }
    match owner {
        Owner::Dms => Flow::ToWeb1on1(value.to_owned()),
        _ => Flow::ToDms(value.to_owned()),
    }
}

/// What is remembered of a value that was written into another system's field; keyed hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrote {
    value: String,
    /// What stood there when the same was to be written once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<String>,
}

/// Whether `value` is to be written where `present` stands, and what is remembered. A system that makes the same of it again (cuts a
/// name, writes a number its own way) is left alone: it would tell of each write, and be written to for ever.
pub fn insist(known: Option<&Wrote>, value: &str, present: &str) -> (bool, Wrote) {
    let wrote = |made: Option<&str>| Wrote {
        value: value.to_owned(),
        made: made.map(str::to_owned),
    };
    match known.filter(|known| known.value == value) {
        None => (true, wrote(None)),
        Some(known) if known.made.as_deref() == Some(present) => (false, known.clone()),
        Some(_) => (true, wrote(Some(present))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(a: &str, b: &str) -> bool {
        a.to_lowercase() == b.to_lowercase()
    }

    fn value() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[aAbB ]{0,2}")
    }

    proptest! {
        #[test]
        fn values_come_to_rest_after_one_write_whoever_edits(
            mut dms in value(), mut web in value(), owner in prop_oneof![Just(Owner::Dms), Just(Owner::Web1on1), Just(Owner::Nobody)],
            edits in prop::collection::vec((any::<bool>(), value()), 0..4),
        ) {
            for (at_dms, value) in edits {
                *(if at_dms { &mut dms } else { &mut web }) = value;
                let before = (dms.clone(), web.clone());
                match flow(owner, dms.as_deref(), web.as_deref(), same) {
                    Flow::Nothing => {}
                    // The other side repairs what it is given, as many do.
                    Flow::ToDms(value) => dms = Some(value.to_uppercase()),
                    Flow::ToWeb1on1(value) => web = Some(value.to_uppercase()),
                }
                prop_assert_eq!(flow(owner, dms.as_deref(), web.as_deref(), same), Flow::Nothing, "no ping-pong");
                match owner {
                    Owner::Dms => prop_assert_eq!(&dms, &before.0, "an owner is never written to"),
                    Owner::Web1on1 => prop_assert_eq!(&web, &before.1, "an owner is never written to"),
                    Owner::Nobody => prop_assert_eq!((&dms, &web), (&before.0, &before.1)),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_system_that_changes_what_it_is_given_is_written_to_twice_at_most(values in prop::collection::vec("[a-c]{1,3}", 1..6), keeps in 0..3usize) {
            let mut known: Option<Wrote> = None;
            let mut present = String::new();
            let mut writes = 0;
            for value in &values {
                // Told of each write, it is looked at again and again.
                for _ in 0..5 {
                    if present == *value {
                        break;
                    }
                    let (write, wrote) = insist(known.as_ref(), value, &present);
                    known = Some(wrote);
                    if write {
                        writes += 1;
                        present = value.chars().take(keeps).collect();
                    }
                }
            }
            prop_assert!(writes <= 2 * values.len());
            let last = values.last().unwrap();
            if present != *last {
                let expected: String = last.chars().take(keeps).collect();
                prop_assert_eq!(present, expected, "the newest value was written");
            }
        }
    }

    #[test]
    fn what_somebody_edits_is_written_over() {
        let (write, first) = insist(None, "ours", "old");
        assert!(write);
        let (write, second) = insist(Some(&first), "ours", "edited");
        assert!(write, "somebody may have edited it");
        let (write, third) = insist(Some(&second), "ours", "edited again");
        assert!(write);
        assert!(!insist(Some(&third), "ours", "edited again").0);
        assert!(insist(Some(&third), "new", "edited again").0);
    }

    #[test]
    fn an_owner_without_a_value_empties_nothing() {
        for nothing in [None, Some(""), Some("  ")] {
            assert_eq!(flow(Owner::Dms, nothing, Some("a"), same), Flow::Nothing);
            assert_eq!(flow(Owner::Web1on1, nothing, nothing, same), Flow::Nothing);
        }
        assert_eq!(
            flow(Owner::Dms, Some("a"), Some("b"), same),
            Flow::ToWeb1on1("a".into())
        );
        assert_eq!(
            flow(Owner::Web1on1, Some("a"), Some("b"), same),
            Flow::ToDms("b".into())
        );
    }
}
