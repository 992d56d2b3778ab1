//! Example calls: recorded, or read from files, masked, and cut to a size that people read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Records of a list that an example shows.
const RECORDS: usize = 2;
/// Characters of a text that an example shows.
const LONGEST: usize = 300;

/// One call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What the call is: `First page`.
    pub title: String,
    pub request: Value,
    pub status: u16,
    pub response: Value,
}

/// The examples of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Examples(Vec<Example>),
    /// Why there is none, a sentence.
    None(String),
}

/// Examples by the endpoint's path: `auth_validation`, `agent_sync`, `contact_sync`, `interaction_update`, `actions/NAME`.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    by_path: BTreeMap<String, Shown>,
    /// Where they come from, a sentence.
    pub origin: String,
}

impl Examples {
    pub fn new(origin: impl Into<String>) -> Examples {
        Examples {
            by_path: BTreeMap::new(),
            origin: origin.into(),
        }
    }

    pub fn add(&mut self, path: impl Into<String>, example: Example) {
        let entry = self.by_path.entry(path.into()).or_insert(Shown::Examples(Vec::new()));
        match entry {
            Shown::Examples(examples) => examples.push(example),
            Shown::None(_) => *entry = Shown::Examples(vec![example]),
        }
    }

    /// Notes why an endpoint has no example, unless it has one.
    pub fn lacks(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.by_path
            .entry(path.into())
            .or_insert_with(|| Shown::None(why.into()));
    }

    pub fn of(&self, path: &str) -> Shown {
        let none = || Shown::None("No example was recorded for this endpoint.".to_owned());
        self.by_path.get(path).cloned().unwrap_or_else(none)
    }

    pub fn paths(&self) -> impl Iterator<Item = (&str, &Shown)> {
        self.by_path.iter().map(|(path, shown)| (path.as_str(), shown))
    }

    /// Changes every body in place.
    pub fn each_body(&mut self, mut change: impl FnMut(&mut Value)) {
        for shown in self.by_path.values_mut() {
            if let Shown::Examples(examples) = shown {
                for example in examples {
                    change(&mut example.request);
                    change(&mut example.response);
                }
            }
        }
    }

    /// Cuts long lists and texts, and says so in the titles.
    pub fn cut(&mut self) {
        for shown in self.by_path.values_mut() {
            if let Shown::Examples(examples) = shown {
                for example in examples {
                    let mut left_out = 0;
                    cut(&mut example.response, &mut left_out);
                    if left_out > 0 {
                        example.title = format!("{} ({left_out} more records left out)", example.title);
                    }
                }
            }
        }
    }

    /// Reads `PATH.json` for each of `paths`: one example, or a list of them.
    ///
    /// # Errors
    /// Every file that is missing or wrong, and every file that belongs to no path.
    pub fn read(folder: &Path, paths: &[String]) -> Result<Examples, Vec<String>> {
        let mut examples = Examples::new("They were taken from files.");
        let mut problems = Vec::new();
        for path in paths {
            let file = folder.join(format!("{path}.json"));
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    problems.push(format!("{}: cannot be read: {error}", file.display()));
                    continue;
                }
            };
            let parsed = serde_json::from_str::<Vec<Example>>(&text).or_else(|list| {
                serde_json::from_str::<Example>(&text)
                    .map(|one| vec![one])
                    .map_err(|_| list)
            });
            match parsed {
                Ok(found) if found.is_empty() => problems.push(format!("{}: holds no example", file.display())),
                Ok(found) => found.into_iter().for_each(|example| examples.add(path, example)),
                Err(error) => problems.push(format!(
                    "{}: must be a list of objects with title, request, status and response: {error}",
                    file.display()
                )),
            }
        }
        if problems.is_empty() {
            Ok(examples)
        } else {
            Err(problems)
        }
    }

    /// Writes what [`Examples::read`] reads.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        for (path, shown) in self.paths() {
            if let Shown::Examples(examples) = shown {
                let file = folder.join(format!("{path}.json"));
                if let Some(parent) = file.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                let text = serde_json::to_string_pretty(examples).map_err(std::io::Error::other)?;
                std::fs::write(file, text + "\n")?;
            }
        }
        Ok(())
    }
}

fn cut(value: &mut Value, left_out: &mut usize) {
    match value {
        Value::Array(items) => {
            // Short lists within a record (phones) are part of it.
            if items.len() > RECORDS && items.iter().all(Value::is_object) {
                *left_out += items.len() - RECORDS;
                items.truncate(RECORDS);
            }
            items.iter_mut().for_each(|item| cut(item, left_out));
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, left_out)),
        Value::String(text) if text.chars().count() > LONGEST => {
            *text = text.chars().take(LONGEST).chain(['…']).collect();
        }
        _ => {}
    }
}
