//! Where the store and the queue live.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::leaf::{Leaf, MASK, Wrong, quoted, wrong};
use super::tree::Given;

/// The store: `sqlite:DIR`, `redis://…` or `rediss://…`.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// Folder that holds `store.db`.
    Sqlite(PathBuf),
    Redis(SecretUrl),
}

/// The queue: `sqlite:DIR`, `amqp://…` or `amqps://…`.
#[derive(Clone, Debug)]
pub enum QueueUrl {
    /// Folder that holds `queue.db`.
    Sqlite(PathBuf),
    Amqp(SecretUrl),
}

/// A URL that may hold a password. `Debug` and `Display` mask it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The whole URL, password included; for the client that connects.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }
}

impl From<Url> for SecretUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // Both setters refuse only URLs without a host, which hold no password either.
        if shown.password().is_some() {
            let _ = shown.set_password(Some(MASK));
        }
        // Some clients take credentials as parameters; none of ours is worth showing.
        if shown.query().is_some() {
            shown.set_query(Some(MASK));
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

enum Parsed {
    Folder(PathBuf),
    Remote(SecretUrl),
}

fn parse(given: &Given, schemes: &[&str], expected: &str) -> Result<Parsed, Wrong> {
    let (Given::Loose(text) | Given::Text(text)) = given else {
        return wrong(expected);
    };
    let text = text.trim();
    if let Some(folder) = text.strip_prefix("sqlite:") {
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        return if folder.is_empty() {
            wrong("a folder is missing after \"sqlite:\"")
        } else {
            Ok(Parsed::Folder(folder.into()))
        };
    }
    match Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Ok(Parsed::Remote(url.into())),
        _ => wrong(expected),
    }
}

fn show_folder(folder: &Path) -> Option<String> {
    Some(quoted(&format!("sqlite:{}", folder.display())))
}

impl Leaf for StoreUrl {
    const SECRET: bool = true;

    fn read(given: &Given) -> Result<Self, Wrong> {
        let expected = "expected \"sqlite:DIR\", \"redis://…\" or \"rediss://…\"";
        Ok(match parse(given, &["redis", "rediss"], expected)? {
            Parsed::Folder(folder) => Self::Sqlite(folder),
            Parsed::Remote(url) => Self::Redis(url),
        })
    }

    fn show(&self) -> Option<String> {
        match self {
            Self::Sqlite(folder) => show_folder(folder),
            Self::Redis(url) => Some(quoted(&url.to_string())),
        }
    }
}

impl Leaf for QueueUrl {
    const SECRET: bool = true;

    fn read(given: &Given) -> Result<Self, Wrong> {
        let expected = "expected \"sqlite:DIR\", \"amqp://…\" or \"amqps://…\"";
        Ok(match parse(given, &["amqp", "amqps"], expected)? {
            Parsed::Folder(folder) => Self::Sqlite(folder),
            Parsed::Remote(url) => Self::Amqp(url),
        })
    }

    fn show(&self) -> Option<String> {
        match self {
            Self::Sqlite(folder) => show_folder(folder),
            Self::Amqp(url) => Some(quoted(&url.to_string())),
        }
    }
}
