use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem};

/// Every variable of ours starts with this.
pub const PREFIX: &str = "SNAPBRIDGE_";

/// Names the settings file; no setting itself.
pub const FILE_VARIABLE: &str = "SNAPBRIDGE_CONFIG";

/// Holds the token that operators' commands show; no setting either.
pub const TOKEN_VARIABLE: &str = "SNAPBRIDGE_OPS_TOKEN";

/// Read from the working folder when nothing else is named.
pub const DEFAULT_FILE: &str = "snapbridge.toml";

/// Where settings come from, later ones winning: defaults, the file, variables. No `Debug`: it holds secrets.
pub struct Source {
    pub file: Option<FileText>,
    /// Variables; those that do not start with [`PREFIX`] are not looked at.
    pub env: BTreeMap<String, String>,
    /// Reads the files that `*_FILE` variables name.
    pub read_file: fn(&Path) -> io::Result<String>,
}

/// A settings file that has been read.
pub struct FileText {
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    /// Reads the file named by `path`, else by [`FILE_VARIABLE`], else [`DEFAULT_FILE`] if it is there, and keeps the
    /// variables that are ours. A `main` passes `std::env::vars_os()`.
    pub fn gather(
        path: Option<PathBuf>,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut env = BTreeMap::new();
        for (name, value) in vars {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    env.insert(name.to_owned(), value);
                }
                Err(_) => problems.push(Problem {
                    place: Place::Variable(name.to_owned()),
                    what: "the value is not UTF-8".into(),
                    hint: None,
                }),
            }
        }
        let named = path.or_else(|| {
            env.get(FILE_VARIABLE)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        let optional = named.is_none();
        let path = named.unwrap_or_else(|| DEFAULT_FILE.into());
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => Some(FileText { path, text }),
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let what = format!("cannot read the settings file: {error}");
                problems.push(Problem {
                    place: Place::File {
                        path,
                        line: 1,
                        column: 1,
                    },
                    what,
                    hint: None,
                });
                None
            }
        };
        if problems.is_empty() {
            Ok(Self { file, env, read_file })
        } else {
            Err(problems)
        }
    }

    /// Settings from text alone, as tests want them.
    pub fn text(text: impl Into<String>) -> Self {
        let file = FileText {
            path: DEFAULT_FILE.into(),
            text: text.into(),
        };
        Self {
            file: Some(file),
            env: BTreeMap::new(),
            read_file,
        }
    }

    /// Adds one variable.
    pub fn with_var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}
