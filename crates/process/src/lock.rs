//! The lock of an embedded data folder: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file in the folder. It stays when the lock is gone; only the lock on it counts.
pub const LOCK_FILE: &str = "snapbridge.lock";

/// Held until dropped, or until the process ends in whatever way: the operating system keeps it.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("folder {} is in use by {}; stop that process, or ask it through its admin listener", folder.display(),
        match pid { Some(pid) => format!("process {pid}"), None => "another process".to_owned() })]
    Held {
        folder: PathBuf,
        /// As the other wrote it; `None` while it is just doing so.
        pid: Option<u32>,
    },
    #[error("folder {} cannot be locked", folder.display())]
    Io {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl FolderLock {
    /// Locks `folder`, making it (mode 700) where it is missing, or says at once who holds it.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            folder: folder.to_owned(),
            source,
        };
        create_folder(folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(LOCK_FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Best effort: the lock stands whatever the file says.
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Held {
                    folder: folder.to_owned(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            _file: file,
            folder: folder.to_owned(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_holders_pid_until_the_first_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let first = FolderLock::take(&folder).unwrap();
        assert_eq!(first.folder(), folder);
        let error = FolderLock::take(&folder).unwrap_err();
        assert!(matches!(error, LockError::Held { pid, .. } if pid == Some(std::process::id())));
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        FolderLock::take(&folder).unwrap();
    }

    #[test]
    fn a_lock_file_left_behind_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_FILE), "999999999999 and more\n").unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(lock.folder().join(LOCK_FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_of_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(FolderLock::take(file.path()), Err(LockError::Io { .. })));
    }
}
