//! Which steps a stored layout has taken and which it lacks. Pure; the backends read, apply and record.

use contacts::StoreError;
use contacts::ports::StoreErrorKind;

/// What became of a step, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Recorded by an earlier run.
    Done,
    /// Applied by this run.
    Applied,
    /// Missing; a dry run leaves it so.
    Pending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    pub number: u32,
    pub name: String,
    pub description: String,
    pub state: StepState,
}

/// A step as this build knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub number: u32,
    pub name: &'static str,
    pub description: &'static str,
}

impl Known {
    pub fn report(&self, state: StepState) -> StepReport {
        StepReport {
            number: self.number,
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            state,
        }
    }
}

/// How many of `known` are recorded. Refuses what this build cannot have written: newer steps, gaps, other names.
pub(crate) fn applied(known: &[Known], recorded: &[(u32, String)]) -> Result<usize, StoreError> {
    let mut recorded = recorded.to_vec();
    recorded.sort();
    let newest = recorded.last().map_or(0, |(number, _)| *number);
    if newest as usize > known.len() {
        return Err(StoreError::new(
            StoreErrorKind::Unreadable,
            format!(
                "layout {newest} is newer than this build knows ({}): use a newer build",
                known.len()
            ),
        ));
    }
    for (step, (number, name)) in known.iter().zip(&recorded) {
        if step.number != *number || step.name != name {
            return Err(StoreError::new(
                StoreErrorKind::Unreadable,
                format!(
                    "step {number} is recorded as `{name}`, this build expects step {} `{}` there: the layout was \
                     written by something else",
                    step.number, step.name
                ),
            ));
        }
    }
    Ok(recorded.len())
}

/// Refuses a layout that lacks steps.
pub(crate) fn require_complete(known: &[Known], recorded: &[(u32, String)]) -> Result<(), StoreError> {
    let have = applied(known, recorded)?;
    if have == known.len() {
        return Ok(());
    }
    Err(StoreError::new(
        StoreErrorKind::Unreadable,
        format!(
            "the layout is at {have}, this build needs {}: run `snapbridge migrate` first",
            known.len()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[
        Known {
            number: 1,
            name: "one",
            description: "",
        },
        Known {
            number: 2,
            name: "two",
            description: "",
        },
    ];

    fn recorded(steps: &[(u32, &str)]) -> Vec<(u32, String)> {
        steps
            .iter()
            .map(|(number, name)| (*number, (*name).to_owned()))
            .collect()
    }

    #[test]
    fn a_layout_is_complete_behind_or_refused() {
        assert!(require_complete(KNOWN, &recorded(&[(2, "two"), (1, "one")])).is_ok());
        assert_eq!(applied(KNOWN, &recorded(&[(1, "one")])).unwrap(), 1);
        let says = |steps: &[(u32, &str)]| require_complete(KNOWN, &recorded(steps)).unwrap_err().to_string();
        assert!(says(&[(1, "one")]).contains("run `snapbridge migrate` first"));
        assert!(says(&[(1, "one"), (2, "two"), (3, "three")]).contains("layout 3 is newer than this build knows (2)"));
        assert!(says(&[(2, "two")]).contains("step 2 is recorded as `two`"));
        assert!(says(&[(1, "other")]).contains("step 1 is recorded as `other`"));
    }
}
