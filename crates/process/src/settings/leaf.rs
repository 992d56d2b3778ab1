//! The types a setting can have: how each is read from what was given, and shown again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use super::tree::Given;
use crate::secrets::Secrets;

/// What stands in for a secret wherever settings are shown.
pub(crate) const MASK: &str = "***";

/// Why a value is refused. Never holds the value.
pub(crate) struct Wrong {
    pub what: String,
    pub hint: Option<String>,
}

pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        what: what.into(),
        hint: None,
    })
}

/// One value of one key.
pub(crate) trait Leaf: Sized {
    /// May be given by a `*_FILE` variable, and is masked.
    const SECRET: bool = false;

    fn read(given: &Given) -> Result<Self, Wrong>;

    /// As TOML, masked; `None` where nothing is set.
    fn show(&self) -> Option<String>;

    /// Whether the value lies between two others, written as text.
    fn within(&self, _low: &str, _high: &str) -> bool {
        true
    }
}

/// A map of secrets, its keys free: `[integrations.NAME.connection]` and `[integrations.NAME.app]`.
pub type SecretMap = BTreeMap<String, SecretString>;

/// Texts by name, for people to see.
pub type TextMap = BTreeMap<String, String>;

/// A number of bytes, written as an integer or with a unit: `262144`, `"256KiB"`, `"1MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn text_of(given: &Given) -> Option<&str> {
    match given {
        Given::Loose(text) => Some(text.trim()),
        Given::Text(text) => Some(text),
        _ => None,
    }
}

fn ordered<T: Leaf + PartialOrd>(value: &T, low: &str, high: &str) -> bool {
    let parse = |text: &str| T::read(&Given::Loose(text.to_owned())).ok();
    matches!((parse(low), parse(high)), (Some(low), Some(high)) if low <= *value && *value <= high)
}

impl Leaf for String {
    fn read(given: &Given) -> Result<Self, Wrong> {
        text_of(given)
            .map(str::to_owned)
            .map_or_else(|| wrong("expected text"), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Leaf for PathBuf {
    fn read(given: &Given) -> Result<Self, Wrong> {
        match text_of(given) {
            Some(text) if !text.is_empty() => Ok(text.into()),
            _ => wrong("expected a path"),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Leaf for SecretString {
    const SECRET: bool = true;

    fn read(given: &Given) -> Result<Self, Wrong> {
        match given {
            // A variable or a secret's file: inner white space may belong to it, the newline at its end does not.
            Given::Loose(text) if !text.is_empty() => Ok(text.as_str().into()),
            Given::Text(text) if !text.is_empty() => Ok(text.as_str().into()),
            _ => wrong("expected text that is not empty"),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(MASK))
    }
}

impl Leaf for SocketAddr {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let parsed = text_of(given).and_then(|text| text.parse().ok());
        parsed.map_or_else(|| wrong("expected an address and port such as \"127.0.0.1:8080\""), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Leaf for Duration {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let parsed = text_of(given).and_then(|text| humantime::parse_duration(text).ok());
        parsed.map_or_else(
            || wrong("expected a duration with its unit, such as \"10s\", \"500ms\" or \"1h 30m\""),
            Ok,
        )
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&humantime::format_duration(*self).to_string()))
    }

    fn within(&self, low: &str, high: &str) -> bool {
        ordered(self, low, high)
    }
}

impl Leaf for bool {
    fn read(given: &Given) -> Result<Self, Wrong> {
        match given {
            Given::Bool(value) => Ok(*value),
            Given::Loose(text) if text.trim() == "true" => Ok(true),
            Given::Loose(text) if text.trim() == "false" => Ok(false),
            _ => wrong("expected true or false"),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! whole_number {
    ($($ty:ty),+) => {$(
        impl Leaf for $ty {
            fn read(given: &Given) -> Result<Self, Wrong> {
                let parsed = match given {
                    Given::Integer(number) => <$ty>::try_from(*number).ok(),
                    Given::Loose(text) => text.trim().parse().ok(),
                    _ => None,
                };
                parsed.map_or_else(|| wrong("expected a whole number"), Ok)
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn within(&self, low: &str, high: &str) -> bool {
                ordered(self, low, high)
            }
        }
    )+};
}

whole_number!(u16, u32, u64, usize);

impl Leaf for f64 {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let parsed = match given {
            Given::Float(number) => Some(*number),
            Given::Integer(number) => i32::try_from(*number).ok().map(Self::from),
            Given::Loose(text) => text.trim().parse().ok(),
            _ => None,
        };
        parsed
            .filter(|number| number.is_finite())
            .map_or_else(|| wrong("expected a number such as 0.1"), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }

    fn within(&self, low: &str, high: &str) -> bool {
        ordered(self, low, high)
    }
}

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Leaf for ByteSize {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let parsed = match given {
            Given::Integer(number) => usize::try_from(*number).ok(),
            Given::Loose(text) | Given::Text(text) => {
                let text = text.trim();
                let (number, unit) = UNITS
                    .iter()
                    .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
                    .unwrap_or((text, 1));
                number
                    .trim()
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| number.checked_mul(unit))
            }
            _ => None,
        };
        parsed
            .map(ByteSize)
            .map_or_else(|| wrong("expected a number of bytes such as 262144 or \"256KiB\""), Ok)
    }

    fn show(&self) -> Option<String> {
        let unit = UNITS
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        Some(match unit {
            Some((suffix, unit)) => quoted(&format!("{}{suffix}", self.0 / unit)),
            None => self.0.to_string(),
        })
    }

    fn within(&self, low: &str, high: &str) -> bool {
        ordered(self, low, high)
    }
}

impl Leaf for Url {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let parsed = text_of(given).and_then(|text| Self::parse(text).ok());
        match parsed {
            Some(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                wrong("expected an absolute http or https URL")
            }
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                wrong("a user or password does not belong into this URL")
            }
            Some(url) if url.query().is_some() || url.fragment().is_some() => {
                wrong("a query or fragment does not belong into this URL")
            }
            Some(url) => Ok(url),
            None => wrong("expected an absolute URL such as \"https://bridge.example\""),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

/// A variable set to nothing counts as not set, as compose files and shells write it.
impl<T: Leaf> Leaf for Option<T> {
    const SECRET: bool = T::SECRET;

    fn read(given: &Given) -> Result<Self, Wrong> {
        match given {
            Given::Loose(text) if text.trim().is_empty() => Ok(None),
            given => T::read(given).map(Some),
        }
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }

    fn within(&self, low: &str, high: &str) -> bool {
        self.as_ref().is_none_or(|value| value.within(low, high))
    }
}

/// In a variable: separated by commas.
impl Leaf for Vec<String> {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let items = match given {
            Given::Loose(text) => Some(
                text.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            ),
            Given::List(items) => items.iter().map(|item| text_of(item).map(str::to_owned)).collect(),
            _ => None,
        };
        items.map_or_else(|| wrong("expected a list of texts"), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::from(self.clone()).to_string())
    }
}

/// In a variable or a file: separated by white space or commas.
impl Leaf for Secrets {
    const SECRET: bool = true;

    fn read(given: &Given) -> Result<Self, Wrong> {
        let texts: Option<Vec<&str>> = match given {
            Given::Loose(text) => {
                let parts = text.split(|c: char| c == ',' || c.is_whitespace());
                Some(parts.filter(|part| !part.is_empty()).collect())
            }
            Given::Text(text) => Some(vec![text]),
            Given::List(items) => items.iter().map(text_of).collect(),
            _ => None,
        };
        let Some(texts) = texts else {
            return wrong("expected a secret, or a list of them");
        };
        Secrets::read(texts).map_err(|error| Wrong {
            what: error.to_string(),
            hint: Some("`snapbridge keys hash --new` makes one".into()),
        })
    }

    fn show(&self) -> Option<String> {
        match self.len() {
            0 => None,
            1 => Some(quoted(MASK)),
            several => Some(toml::Value::from(vec![MASK; several]).to_string()),
        }
    }
}

/// In a variable: separated by commas.
impl Leaf for Vec<IpNet> {
    fn read(given: &Given) -> Result<Self, Wrong> {
        let network = |text: &String| -> Option<IpNet> {
            let network = text.parse::<IpNet>().ok().map(|network| network.trunc());
            network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        let texts = Vec::<String>::read(given).unwrap_or_else(|_| vec![String::new()]);
        match texts.iter().map(network).collect::<Option<Self>>() {
            None => wrong("expected a list of networks and addresses such as [\"10.0.0.0/8\", \"127.0.0.1\"]"),
            Some(networks) if networks.iter().any(|network| network.prefix_len() == 0) => {
                wrong("a network of all addresses would let anybody say anything")
            }
            Some(networks) => Ok(networks),
        }
    }

    fn show(&self) -> Option<String> {
        let texts: Vec<String> = self.iter().map(ToString::to_string).collect();
        Some(toml::Value::from(texts).to_string())
    }
}

/// An enum whose variants are written as words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $( $(#[$about:meta])* $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$about])* $variant ),+ }

        impl $name {
            /// The word that stands for it in the settings.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),+ }
            }
        }

        impl $crate::settings::leaf::Leaf for $name {
            fn read(given: &$crate::settings::tree::Given) -> Result<Self, $crate::settings::leaf::Wrong> {
                $crate::settings::leaf::word(given, &[$( ($word, Self::$variant) ),+])
            }

            fn show(&self) -> Option<String> {
                Some($crate::settings::leaf::quoted(self.as_str()))
            }
        }
    };
}
pub(crate) use words;

pub(crate) fn word<T: Copy>(given: &Given, words: &[(&str, T)]) -> Result<T, Wrong> {
    let text = text_of(given).unwrap_or_default();
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    Err(Wrong {
        what: format!("expected one of {}", known.join(", ")),
        hint: super::problem::did_you_mean(text, words.iter().map(|(word, _)| *word)),
    })
}
