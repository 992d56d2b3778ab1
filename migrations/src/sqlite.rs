//! The steps of the embedded store and queue. The store keeps two files: `store.db`, where every commit waits for the disk, and
//! `budget.db`, where it does not. Each file records the steps it has taken, so a crash between the two is repaired by
//! applying the list again.
//!
//! Append only: a step that has been released is never edited. A changed table is a new step.

/// One step: the SQL for either file, run in one transaction a file. Empty SQL changes nothing there.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1, 2, 3 …; the highest one applied is the layout's number.
    pub number: u32,
    pub name: &'static str,
    pub description: &'static str,
    pub store: &'static str,
    pub budget: &'static str,
}

pub const STEPS: &[Step] = &[Step {
    number: 1,
    name: "first_tables",
    description: "documents, indexes, snapshots and dirty ids in store.db; budgets and scratch values in budget.db",
    store: include_str!("../sqlite/0001_first_tables.store.sql"),
    budget: include_str!("../sqlite/0001_first_tables.budget.sql"),
}];

/// The steps of the embedded queue's `queue.db`; its `PRAGMA user_version` is the number of those taken.
pub const QUEUE_STEPS: &[&str] = &[include_str!("../sqlite/0001_first_tables.queue.sql")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_gaps_and_named() {
        for (at, step) in STEPS.iter().enumerate() {
            assert_eq!(step.number as usize, at + 1);
            assert!(!step.name.is_empty() && !step.description.is_empty());
            assert!(
                !(step.store.trim().is_empty() && step.budget.trim().is_empty()),
                "step {} does nothing",
                step.number
            );
        }
    }
}
