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
