//! Values of options that may be secrets, or lie in files.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A value, `@FILE`, `KEY=VALUE` or `KEY=@FILE`, as typed. Taken apart only here, so that no usage error repeats a secret.
#[derive(Clone)]
pub struct Typed(String);

impl FromStr for Typed {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Typed, Infallible> {
        Ok(Typed(text.to_owned()))
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(***)")
    }
}

impl Typed {
    /// The value, or what its file holds.
    pub fn value(&self, option: &str) -> Result<String, String> {
        value(option, &self.0)
    }
}

fn value(option: &str, typed: &str) -> Result<String, String> {
    match typed.strip_prefix('@').map(std::fs::read_to_string) {
        None => Ok(typed.to_owned()),
        Some(Ok(text)) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Some(Err(error)) => Err(format!("{option}: its file cannot be read: {error}")),
    }
}

/// The pairs of one option, with the values that are in files; what is wrong goes to the problems, never with a value.
pub fn pairs(option: &str, typed: &[Typed], problems: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, Typed(text)) in typed.iter().enumerate() {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            problems.push(format!("{option} number {} is not KEY=VALUE", index + 1));
            continue;
        };
        match self::value(&format!("{option} {key}"), value) {
            Ok(value) => found.push((key.to_owned(), value)),
            Err(problem) => problems.push(problem),
        }
    }
    found
}
