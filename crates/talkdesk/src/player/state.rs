use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

/// What a synchronizer remembers from run to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlayerState {
    /// Sent as `meta.synchronization_checkpoint`; `None`: the next run is an initial sync.
    #[serde(default)]
    pub checkpoint: Option<String>,
}

/// A JSON file of states by URL: `{"https://…/contact_sync": {"checkpoint": "…"}}`. Mode 600, as a URL may hold a path
/// secret.
#[derive(Clone, Debug)]
pub struct CheckpointFile {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("checkpoint file {} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("checkpoint file {} is not one of ours; move it away, or name another", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("checkpoint file {} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

type States = BTreeMap<String, PlayerState>;

impl CheckpointFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The state for `url`; a file or an entry that is missing is an empty state.
    pub fn load(&self, url: &Url) -> Result<PlayerState, StateError> {
        Ok(self.read()?.remove(url.as_str()).unwrap_or_default())
    }

    /// Replaces the state for `url` and leaves the others. The file is swapped whole.
    pub fn save(&self, url: &Url, state: &PlayerState) -> Result<(), StateError> {
        let mut states = self.read()?;
        states.insert(url.to_string(), state.clone());
        self.write(&states).map_err(|source| StateError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn read(&self) -> Result<States, StateError> {
        let path = || self.path.clone();
        match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| StateError::Format { path: path(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(States::new()),
            Err(source) => Err(StateError::Read { path: path(), source }),
        }
    }

    fn write(&self, states: &States) -> io::Result<()> {
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, states)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> Url {
        Url::parse(&format!("http://localhost/{path}")).unwrap()
    }

    fn state(checkpoint: &str) -> PlayerState {
        PlayerState {
            checkpoint: Some(checkpoint.to_owned()),
        }
    }

    #[test]
    fn states_are_kept_by_url_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path().join("sync.json"));
        assert_eq!(file.load(&url("a")).unwrap(), PlayerState::default());
        file.save(&url("a"), &state("1")).unwrap();
        file.save(&url("b"), &state("2")).unwrap();
        file.save(&url("a"), &state("3")).unwrap();
        assert_eq!(file.load(&url("a")).unwrap(), state("3"));
        assert_eq!(file.load(&url("b")).unwrap(), state("2"));
        // Nothing half-written stays behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_somebody_else_is_neither_read_nor_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        std::fs::write(&path, "{\"http://localhost/a\": {\"checkpointt\": 1}}").unwrap();
        let file = CheckpointFile::new(&path);
        assert!(matches!(file.load(&url("a")), Err(StateError::Format { .. })));
        assert!(matches!(
            file.save(&url("a"), &state("1")),
            Err(StateError::Format { .. })
        ));
        assert!(std::fs::read_to_string(&path).unwrap().contains("checkpointt"));
        assert!(matches!(
            CheckpointFile::new(folder.path()).load(&url("a")),
            Err(StateError::Read { .. })
        ));
    }
}
