//! Where a store lies.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::redis::RedisTarget;

/// `sqlite:DIR`, `redis://[user:password@]host[:port][/db]` or `redis+unix:///path/to/socket`. Written and debugged
/// without user and password.
#[derive(Clone)]
pub enum StoreUrl {
    /// The folder of the embedded store.
    Sqlite(PathBuf),
    Redis(RedisTarget),
}

/// A text names no store. Says nothing of the text, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("not a store: {0}; expected `sqlite:FOLDER` or `redis://HOST:PORT/DB`")]
pub struct NotAStoreUrl(pub(crate) String);

impl FromStr for StoreUrl {
    type Err = NotAStoreUrl;

    fn from_str(text: &str) -> Result<StoreUrl, NotAStoreUrl> {
        match text.strip_prefix("sqlite:") {
            Some("") => Err(NotAStoreUrl("the folder is missing".into())),
            Some(dir) => Ok(StoreUrl::Sqlite(PathBuf::from(dir))),
            None => text.parse().map(StoreUrl::Redis),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(dir) => write!(f, "sqlite:{}", dir.display()),
            StoreUrl::Redis(target) => write!(f, "{target}"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_their_secrets() {
        let url: StoreUrl = "redis://bo:hunter2@cache.example:6380/3".parse().unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "redis://cache.example:6380/3 redis://cache.example:6380/3"
        );
        let url: StoreUrl = "sqlite:/var/lib/x y".parse().unwrap();
        assert_eq!(url.to_string(), "sqlite:/var/lib/x y");
        for text in [
            "",
            "sqlite:",
            "hunter2",
            "postgres://hunter2@x",
            "redis://:hunter2@",
            "redis://a:hunter2@h/db",
            "rediss://hunter2@h",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
