//! The file being read, and what was found wrong with it so far.

use std::cell::RefCell;

use super::Problem;
use super::visit::Visit;
use crate::expr::ExprError;

/// The file being read and the problems found so far.
pub(crate) struct Reader<'s> {
    pub file: &'s str,
    pub text: &'s str,
    problems: RefCell<Vec<(usize, Problem)>>,
    visits: Option<RefCell<Vec<Visit>>>,
}

/// More are not shown: the first few dozen explain the rest.
const MOST_PROBLEMS: usize = 100;

impl<'s> Reader<'s> {
    pub fn new(file: &'s str, text: &'s str) -> Reader<'s> {
        Reader {
            file,
            text,
            problems: RefCell::default(),
            visits: None,
        }
    }

    /// Remembers what is asked for, too.
    #[cfg(test)]
    pub fn recording(file: &'s str, text: &'s str) -> Reader<'s> {
        Reader {
            visits: Some(RefCell::default()),
            ..Reader::new(file, text)
        }
    }

    #[cfg(test)]
    pub fn visits(&self) -> Vec<Visit> {
        self.visits
            .as_ref()
            .map(|visits| visits.borrow().clone())
            .unwrap_or_default()
    }

    pub fn visited(&self, visit: impl FnOnce() -> Visit) {
        if let Some(visits) = &self.visits {
            visits.borrow_mut().push(visit());
        }
    }

    pub fn problem(&self, at: usize, what: impl Into<String>, hint: Option<String>) {
        let problem = Problem::at(self.file, self.text, at, what.into(), hint);
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MOST_PROBLEMS && !problems.iter().any(|(_, known)| *known == problem) {
            problems.push((at, problem));
        }
    }

    pub fn expr_problem(&self, at: usize, error: ExprError) {
        self.problem(at, error.what, error.hint);
    }

    /// The problems in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    pub fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }
}
