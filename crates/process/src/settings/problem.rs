use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong with the settings. Never holds a value: a secret may stand under the wrong key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// What is wrong, as a sentence without full stop.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line and column count from 1, columns in characters.
    File { path: PathBuf, line: usize, column: usize },
    /// The name of an environment variable.
    Variable(String),
    /// Dotted name of a setting that was given nowhere.
    Default(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Default(name) => write!(f, "{name} (not set)"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// `did you mean …?` for the candidate nearest to `given`, if any is near enough to be a slip of the finger.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let allowed = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Edits between two words: insert, delete, replace, swap of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_each_kind_of_slip_once() {
        for (a, b, expected) in [
            ("listen", "listen", 0),
            ("listen", "lisen", 1),
            ("listen", "listten", 1),
            ("listen", "listan", 1),
            ("listen", "lisetn", 1),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} / {b}");
        }
    }

    #[test]
    fn far_words_are_not_suggested() {
        assert_eq!(did_you_mean("colour", ["listen", "poll"]), None);
        assert_eq!(
            did_you_mean("pol", ["listen", "poll"]).as_deref(),
            Some("did you mean `poll`?")
        );
    }
}
