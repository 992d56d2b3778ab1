//! The key file: the raw keys of an installation. Others derive what they need from them.
//!
//! ```text
//! # comment
//! identity <64 hex digits>            exactly one, never rotated: account ids hang on it
//! # made <kid> <time>                 when that key was made; for people
//! seal <kid> <64 hex digits>          the first seals, all of them open
//! ```
//!
//! A kid is 8 characters of a-z and 0-9 and goes into every token and sealed record. A key that is added stands below the
//! one that seals, until all processes have it ([`add`], [`promote`], [`remove`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rand::TryRngCore;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest as _, Sha256};

/// Bytes of each key.
pub const KEY_BYTES: usize = 32;

/// Characters of a kid.
pub const KID_CHARS: usize = 8;

/// A random key has about 30 different bytes of its 32; one with fewer than this was typed, not made.
const DIFFERENT_BYTES_MIN: usize = 12;

/// What a key file holds. `Debug` shows no key.
#[derive(Debug)]
pub struct KeyFile {
    pub identity: Key,
    /// The first one seals. At least one.
    pub seals: Vec<SealKey>,
    /// When keys were made, by kid, where the file says so.
    pub made: BTreeMap<String, Timestamp>,
}

/// 32 bytes of key material, wiped when dropped.
pub type Key = SecretBox<[u8; KEY_BYTES]>;

#[derive(Debug)]
pub struct SealKey {
    pub kid: String,
    pub key: Key,
}

#[derive(Debug, thiserror::Error)]
#[error("key file {}: {kind}", path.display())]
pub struct KeyFileError {
    pub path: PathBuf,
    pub kind: KeyFileErrorKind,
    #[source]
    source: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileErrorKind {
    /// There is none.
    Missing,
    /// It cannot be read.
    Read,
    /// It cannot be written.
    Write,
    /// Accounts other than its owner and group may read or write it, or its group may write it.
    Open { mode: u32 },
    /// A line, counted from 1, is not of the format.
    Line { line: usize, why: &'static str },
    /// No identity key, or no sealing key.
    Incomplete { missing: &'static str },
    /// The operating system gave no random bytes.
    Random,
    /// It has no sealing key of this kid.
    NoSuchKey,
    /// The key seals.
    Seals,
}

impl fmt::Display for KeyFileErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::Read => f.write_str("it cannot be read"),
            Self::Write => f.write_str("it cannot be written"),
            Self::Open { mode } => {
                write!(
                    f,
                    "its mode {mode:03o} lets others at it; make it 600 (chmod 600), or 640 for a group"
                )
            }
            Self::Line { line, why } => write!(f, "line {line}: {why}"),
            Self::Incomplete { missing } => write!(f, "it has no `{missing}` line"),
            Self::Random => f.write_str("the operating system gave no random bytes to make one"),
            Self::NoSuchKey => f.write_str("it has no sealing key of this id"),
            Self::Seals => f.write_str("this key seals; promote another one first (`snapbridge keys rotate`)"),
        }
    }
}

/// Reads a key file, after a look at who else may.
pub fn load(path: &Path) -> Result<KeyFile, KeyFileError> {
    let text = read(path)?;
    parse(&text).map_err(|kind| failed(path, kind, None))
}

fn failed(path: &Path, kind: KeyFileErrorKind, source: Option<io::Error>) -> KeyFileError {
    KeyFileError {
        path: path.to_owned(),
        kind,
        source,
    }
}

/// The text of a key file, after a look at who else may read it.
fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let read = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        failed(
            path,
            if missing {
                KeyFileErrorKind::Missing
            } else {
                KeyFileErrorKind::Read
            },
            Some(error),
        )
    };
    // One open file for both, so that nobody swaps it between the look and the reading.
    let mut file = std::fs::File::open(path).map_err(read)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o027 != 0 {
            return Err(failed(path, KeyFileErrorKind::Open { mode }, None));
        }
    }
    let mut text = Zeroizing::new(String::new());
    io::Read::read_to_string(&mut file, &mut text).map_err(read)?;
    Ok(text)
}

/// What tells one content of a key file from another.
pub type Digest = [u8; 32];

/// Reads a key file, unless it still holds what `known` is the digest of.
pub fn load_changed(path: &Path, known: Option<Digest>) -> Result<Option<(KeyFile, Digest)>, KeyFileError> {
    let text = read(path)?;
    let digest: Digest = Sha256::digest(text.as_bytes()).into();
    if known == Some(digest) {
        return Ok(None);
    }
    let file = parse(&text).map_err(|kind| failed(path, kind, None))?;
    Ok(Some((file, digest)))
}

/// Adds a new sealing key below the others: whoever reads the file can open with it, and nobody seals with it. Returns its kid.
pub fn add(path: &Path) -> Result<String, KeyFileError> {
    let mut random = Zeroizing::new([0_u8; KEY_BYTES + KID_CHARS / 2]);
    let filled = rand::rngs::OsRng.try_fill_bytes(random.as_mut_slice());
    filled.map_err(|_| failed(path, KeyFileErrorKind::Random, None))?;
    let (seal, kid) = random.split_at(KEY_BYTES);
    let (seal, kid) = (Zeroizing::new(hex::encode(seal)), hex::encode(kid));
    edit(path, |text| Ok(added(text, &kid, &seal, Timestamp::now())))?;
    Ok(kid)
}

/// Makes a key the one that seals. `false`: it did already.
pub fn promote(path: &Path, kid: &str) -> Result<bool, KeyFileError> {
    edit(path, |text| promoted(text, kid))
}

/// Takes a key out; not the one that seals.
pub fn remove(path: &Path, kid: &str) -> Result<(), KeyFileError> {
    edit(path, |text| removed(text, kid)).map(drop)
}

/// Replaces the file, whole or not at all, with its mode and owner. `false`: it stays as it was.
fn edit(
    path: &Path,
    change: impl FnOnce(&str) -> Result<Zeroizing<String>, KeyFileErrorKind>,
) -> Result<bool, KeyFileError> {
    let before = read(path)?;
    parse(&before).map_err(|kind| failed(path, kind, None))?;
    let after = change(&before).map_err(|kind| failed(path, kind, None))?;
    parse(&after).map_err(|kind| failed(path, kind, None))?;
    if *after == *before {
        return Ok(false);
    }
    replace(path, after.as_bytes()).map_err(|error| failed(path, KeyFileErrorKind::Write, Some(error)))?;
    Ok(true)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Behind a link lies the file that is meant.
    let path = std::fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let old = std::fs::metadata(&path)?;
        let new = file.as_file().metadata()?;
        // Root may edit the file of the account that the processes run as.
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

fn added(text: &str, kid: &str, seal: &str, made: Timestamp) -> Zeroizing<String> {
    let gap = if text.ends_with('\n') { "" } else { "\n" };
    Zeroizing::new(format!("{text}{gap}# made {kid} {made:.0}\nseal {kid} {seal}\n"))
}

fn promoted(text: &str, kid: &str) -> Result<Zeroizing<String>, KeyFileErrorKind> {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| kid_of(line).is_some());
    let its = lines.iter().position(|line| kid_of(line) == Some(kid));
    let (Some(first), Some(its)) = (first, its) else {
        return Err(KeyFileErrorKind::NoSuchKey);
    };
    let mut order = lines.clone();
    let line = order.remove(its);
    order.insert(first, line);
    Ok(joined(&order))
}

fn removed(text: &str, kid: &str) -> Result<Zeroizing<String>, KeyFileErrorKind> {
    let kids: Vec<&str> = text.lines().filter_map(kid_of).collect();
    match kids.iter().position(|known| *known == kid) {
        None => return Err(KeyFileErrorKind::NoSuchKey),
        Some(0) => return Err(KeyFileErrorKind::Seals),
        Some(_) => {}
    }
    let is_its = |line: &&str| kid_of(line) == Some(kid) || made_of(line).is_some_and(|(of, _)| of == kid);
    Ok(joined(&text.lines().filter(|line| !is_its(line)).collect::<Vec<_>>()))
}

fn joined(lines: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The kid of a `seal` line.
fn kid_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| *word == "seal")?;
    words.next()
}

/// What a `# made` line says.
fn made_of(line: &str) -> Option<(&str, Timestamp)> {
    let mut words = line.trim().strip_prefix('#')?.split_whitespace();
    words.next().filter(|word| *word == "made")?;
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// Reads the key file at `path`, or makes one (mode 600, one random key of each kind) where there is none. Of processes
/// that do so at once, one makes it and all read the same.
pub fn create_if_missing(path: &Path) -> Result<KeyFile, KeyFileError> {
    match load(path) {
        Err(error) if error.kind == KeyFileErrorKind::Missing => {}
        other => return other,
    }
    let text = fresh(Timestamp::now()).ok_or_else(|| failed(path, KeyFileErrorKind::Random, None))?;
    write_once(path, text.as_bytes()).map_err(|error| failed(path, KeyFileErrorKind::Write, Some(error)))?;
    load(path)
}

fn parse(text: &str) -> Result<KeyFile, KeyFileErrorKind> {
    let mut identity = None;
    let mut seals: Vec<SealKey> = Vec::new();
    let mut kids = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let refuse = |why| KeyFileErrorKind::Line { line: index + 1, why };
        let words: Vec<&str> = line.split_whitespace().collect();
        let used = |key: &Key| {
            identity
                .iter()
                .chain(seals.iter().map(|seal| &seal.key))
                .any(|k: &Key| k.expose_secret() == key.expose_secret())
        };
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["identity", hex] => {
                let key = key(hex).map_err(refuse)?;
                if identity.is_some() {
                    return Err(refuse("a second identity key; there is exactly one"));
                }
                if used(&key) {
                    return Err(refuse("the same key as another line"));
                }
                identity = Some(key);
            }
            ["seal", kid, hex] => {
                let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                if kid.len() != KID_CHARS || !kid.bytes().all(allowed) {
                    return Err(refuse("a kid is 8 characters of a-z and 0-9"));
                }
                let key = key(hex).map_err(refuse)?;
                if used(&key) {
                    return Err(refuse("the same key as another line"));
                }
                if !kids.insert((*kid).to_owned()) {
                    return Err(refuse("a second key of this kid"));
                }
                seals.push(SealKey {
                    kid: (*kid).to_owned(),
                    key,
                });
            }
            _ => return Err(refuse("expected `identity <hex>` or `seal <kid> <hex>`")),
        }
    }
    let identity = identity.ok_or(KeyFileErrorKind::Incomplete { missing: "identity" })?;
    if seals.is_empty() {
        return Err(KeyFileErrorKind::Incomplete { missing: "seal" });
    }
    let made = text.lines().filter_map(made_of);
    let made = made.map(|(kid, made)| (kid.to_owned(), made)).collect();
    Ok(KeyFile { identity, seals, made })
}

fn key(text: &str) -> Result<Key, &'static str> {
    let mut bytes = [0; KEY_BYTES];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a key is 64 hex digits")?;
    let different = bytes.iter().collect::<BTreeSet<_>>().len();
    let step = bytes[1].wrapping_sub(bytes[0]);
    let counts_up = bytes.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let key = SecretBox::new(Box::new(bytes));
    bytes.zeroize();
    if different < DIFFERENT_BYTES_MIN || counts_up {
        return Err("this is a sample key, not a random one; make one with `openssl rand -hex 32`");
    }
    Ok(key)
}

/// A new key file's text. `None` where there is no randomness to be had.
fn fresh(made: Timestamp) -> Option<Zeroizing<String>> {
    let mut random = Zeroizing::new([0_u8; 2 * KEY_BYTES + KID_CHARS / 2]);
    rand::rngs::OsRng.try_fill_bytes(random.as_mut_slice()).ok()?;
    let (identity, rest) = random.split_at(KEY_BYTES);
    let (seal, kid) = rest.split_at(KEY_BYTES);
    let (identity, seal) = (Zeroizing::new(hex::encode(identity)), Zeroizing::new(hex::encode(seal)));
    let kid = hex::encode(kid);
    Some(Zeroizing::new(format!(
        "# Keys of one snapbridge installation. Keep a copy: without the identity key every account starts anew,\n\
         # without the sealing keys no stored credential can be read. The first sealing key seals, all of them open.\n\
         identity {}\n# made {kid} {made:.0}\nseal {kid} {}\n",
        *identity, *seal
    )))
}

/// Writes a file whole or not at all, and never over one that is there.
pub(crate) fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Mode 600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        // Another process was faster; its file counts.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error.error),
    }
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const A: &str = "8f0c2a9be1d374560a1b2c3d4e5f60718293a4b5c6d7e8f90b1d2f3a4c5e6f70";
    const B: &str = "70f6e5c4a3f2d1b09f8e7d6c5b4a39281706f5e4d3c2b1a0654733d1eb9a2c0f";
    const C: &str = "1133557799bbddff02468ace13579bdf2143658709badcfe0f1e2d3c4b5a6978";

    fn refused(text: &str) -> KeyFileErrorKind {
        parse(text).map(|_| ()).unwrap_err()
    }

    #[test]
    fn reads_comments_blanks_and_several_seals_in_order() {
        let keys = parse(&format!(
            "# mine\n\nidentity {A}\n  seal newer001 {B}\nseal older001 {C}\n"
        ))
        .unwrap();
        assert_eq!(hex::encode(keys.identity.expose_secret()), A);
        let seals: Vec<_> = keys
            .seals
            .iter()
            .map(|seal| (seal.kid.as_str(), hex::encode(seal.key.expose_secret())))
            .collect();
        assert_eq!(seals, [("newer001", B.to_owned()), ("older001", C.to_owned())]);
        assert!(!format!("{keys:?}").contains(&A[..8]));
    }

    #[test]
    fn what_is_missing_doubled_or_malformed_is_refused_with_its_line() {
        let line = |text: &str| match refused(text) {
            KeyFileErrorKind::Line { line, .. } => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(&format!("seal kid00001 {B}")),
            KeyFileErrorKind::Incomplete { missing: "identity" }
        );
        assert_eq!(
            refused(&format!("identity {A}")),
            KeyFileErrorKind::Incomplete { missing: "seal" }
        );
        assert_eq!(line(&format!("identity {A}\nidentity {B}")), 2);
        assert_eq!(line(&format!("identity {A}\n\nseal kid00001 {A}")), 3);
        assert_eq!(line(&format!("identity {A}\nseal kid00001 {B}\nseal kid00001 {C}")), 3);
        assert_eq!(line(&format!("seal kid001 {B}")), 1);
        assert_eq!(line(&format!("seal KID00001 {B}")), 1);
        assert_eq!(line("identity abcdef"), 1);
        assert_eq!(line(&format!("idendity {A}")), 1);
    }

    #[test]
    fn sample_keys_are_refused() {
        let counting: String = (0..32).map(|n: u8| format!("{n:02x}")).collect();
        let samples = [
            "00".repeat(32),
            "ab".repeat(32),
            "deadbeef".repeat(8),
            "0123456789abcdef".repeat(4),
            counting,
        ];
        for sample in samples {
            let kind = refused(&format!("identity {sample}"));
            assert!(kind.to_string().contains("sample key"), "{sample}: {kind}");
        }
    }

    #[test]
    fn made_once_with_mode_600_and_read_again_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/keys");
        let first = create_if_missing(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = create_if_missing(&path).unwrap();
        assert_eq!(first.identity.expose_secret(), again.identity.expose_secret());
        assert_eq!(first.seals[0].kid, again.seals[0].kid);
        assert_ne!(first.identity.expose_secret(), first.seals[0].key.expose_secret());
        // Nothing half-written stays behind.
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_at_once_all_read_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let barrier = std::sync::Barrier::new(8);
        let kids: BTreeSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        create_if_missing(&path).unwrap().seals[0].kid.clone()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(kids.len(), 1);
    }

    #[test]
    fn a_key_is_added_below_promoted_and_taken_out_and_the_rest_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("# mine\nidentity {A}\n  seal older001 {B}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let kids = || -> Vec<String> {
            let seals = load(&path).unwrap().seals;
            seals.into_iter().map(|seal| seal.kid).collect()
        };
        let new = add(&link).unwrap();
        assert_eq!(kids(), ["older001", &new]);
        assert!(load(&path).unwrap().made.contains_key(&new));
        assert_eq!(remove(&link, "older001").unwrap_err().kind, KeyFileErrorKind::Seals);
        assert_eq!(
            promote(&link, "nothing1").unwrap_err().kind,
            KeyFileErrorKind::NoSuchKey
        );
        assert!(promote(&link, &new).unwrap());
        assert!(!promote(&link, &new).unwrap());
        assert_eq!(kids(), [new.as_str(), "older001"]);
        remove(&link, "older001").unwrap();
        assert_eq!(kids(), [new.as_str()]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(&format!("# mine\nidentity {A}\n")),
            "the identity stays"
        );
        assert!(!text.contains("older001"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_changed_file_is_read_again_and_the_same_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        create_if_missing(&path).unwrap();
        let (_, digest) = load_changed(&path, None).unwrap().unwrap();
        assert!(load_changed(&path, Some(digest)).unwrap().is_none());
        let kid = add(&path).unwrap();
        let (file, _) = load_changed(&path, Some(digest)).unwrap().unwrap();
        assert_eq!(file.seals[1].kid, kid);
    }

    #[test]
    fn a_file_others_may_read_is_refused_and_one_of_the_group_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("identity {A}\nseal kid00001 {B}\n")).unwrap();
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o601, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let result = load(&path).map(|_| ()).map_err(|error| error.kind);
            let expected = if fine {
                Ok(())
            } else {
                Err(KeyFileErrorKind::Open { mode })
            };
            assert_eq!(result, expected, "{mode:o}");
        }
    }

    #[test]
    fn a_missing_file_is_told_from_an_unreadable_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            load(&folder.path().join("none")).unwrap_err().kind,
            KeyFileErrorKind::Missing
        );
        assert_eq!(
            load(folder.path()).unwrap_err().kind,
            KeyFileErrorKind::Open {
                mode: mode_of(folder.path())
            }
        );
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(load(folder.path()).unwrap_err().kind, KeyFileErrorKind::Read);
    }

    /// Sets a mode that is refused whatever the umask, and returns it.
    fn mode_of(path: &Path) -> u32 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        0o755
    }
}
