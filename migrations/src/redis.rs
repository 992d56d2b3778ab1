//! The steps of the Redis layout. A step's code lies in the store (`crates/store/src/redis/layout.rs`); here is what
//! outlives it: its number and its name, which Redis records under the namespace.
//!
//! Append only: a step that has been released is never edited. Keys carry the version of their form (`v1`), so a step
//! that changes a form writes new keys beside the old ones.

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1, 2, 3 …; the highest one applied is the layout's number.
    pub number: u32,
    pub name: &'static str,
    pub description: &'static str,
}

pub const STEPS: &[Step] = &[
    Step {
        number: 1,
        name: "first_keys",
        description: "keys of form v1: snapshots as lex-ordered sorted sets with an id hash; nothing to convert",
    },
    Step {
        number: 2,
        name: "lookup_holders",
        description: "the first id of each lookup key moves from a sorted set into a hash; stop fronts and workers before",
    },
    Step {
        number: 3,
        name: "lookup_buckets",
        description: "pairs of lookup key and id move into 64 strings a snapshot; stop fronts and workers before",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_gaps_and_named() {
        for (at, step) in STEPS.iter().enumerate() {
            assert_eq!(step.number as usize, at + 1);
            assert!(!step.name.is_empty() && !step.description.is_empty());
        }
    }
}
