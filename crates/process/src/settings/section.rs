//! One `[section]`: a table of keys that is type, default, bounds, documentation and reader at once.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::leaf::{Leaf, MASK, SecretMap, TextMap, quoted};
use super::problem::{Place, did_you_mean};
use super::tree::{Given, Log, Node, Spot, Tree};

/// What is known of one key without reading anything.
pub(crate) struct Key {
    pub name: &'static str,
    pub default: &'static str,
    pub docs: &'static [&'static str],
    pub secret: bool,
    /// A table of free keys.
    pub map: bool,
}

/// A struct made by [`section!`].
pub(crate) trait Keys: Sized {
    const ABOUT: &'static [&'static str];
    const KEYS: &'static [Key];

    fn read(reader: &mut Reader<'_>) -> Self;

    fn show(&self) -> Vec<(&'static str, Shown)>;
}

/// How a setting looks in print, masked.
pub(crate) enum Shown {
    Value(String),
    Unset,
    Table(Vec<(String, String)>),
}

/// Anything that can be a field: every [`Leaf`], [`SecretMap`] and [`TextMap`].
pub(crate) trait Field: Sized {
    const SECRET: bool;
    const MAP: bool;

    fn take(reader: &mut Reader<'_>, name: &str, default: &str, bounds: Option<(&str, &str)>) -> Self;

    fn shown(&self) -> Shown;
}

/// Reads one table, key by key, and in the end refuses what nobody asked for.
pub(crate) struct Reader<'a> {
    /// Dotted name of the table.
    path: String,
    tree: Tree,
    log: &'a mut Log,
}

impl<'a> Reader<'a> {
    pub fn new(path: impl Into<String>, tree: Tree, log: &'a mut Log) -> Self {
        Self {
            path: path.into(),
            tree,
            log,
        }
    }

    pub fn read<T: Keys>(mut self) -> T {
        let value = T::read(&mut self);
        let known: BTreeSet<&str> = T::KEYS.iter().map(|key| key.name).collect();
        for (name, spot) in self.tree {
            let hint = did_you_mean(&name, known.iter().copied()).or_else(|| super::belongs_elsewhere(&name));
            self.log
                .problem(spot.place, format!("unknown key `{name}` in [{}]", self.path), hint);
        }
        value
    }

    fn take(&mut self, name: &str) -> Option<(String, Spot)> {
        let full = format!("{}.{name}", self.path);
        let spot = self.tree.remove(name)?;
        self.log.places.insert(full.clone(), spot.place.clone());
        Some((full, spot))
    }

    fn refuse(&mut self, full: &str, place: Place, what: String, hint: Option<String>) {
        // False where the variable's file could not be read: that is reported already.
        if self.log.bad.insert(full.to_owned()) {
            self.log.problem(place, format!("`{full}`: {what}"), hint);
        }
    }
}

/// The value that a default written in this crate stands for; a test reads every one of them.
pub(crate) fn default_of<T: Leaf>(text: &str) -> T {
    match T::read(&Given::Loose(text.to_owned())) {
        Ok(value) => value,
        Err(wrong) => unreachable!("a default of this crate is wrong: {}", wrong.what),
    }
}

impl<T: Leaf> Field for T {
    const SECRET: bool = <T as Leaf>::SECRET;
    const MAP: bool = false;

    fn take(reader: &mut Reader<'_>, name: &str, default: &str, bounds: Option<(&str, &str)>) -> Self {
        let Some((full, spot)) = reader.take(name) else {
            return default_of(default);
        };
        let Node::Value(given) = &spot.node else {
            reader.refuse(&full, spot.place, "expected a value, not a table".into(), None);
            return default_of(default);
        };
        match T::read(given) {
            Ok(value) => {
                if let Some((low, high)) = bounds.filter(|(low, high)| !value.within(low, high)) {
                    reader.refuse(&full, spot.place, format!("must lie between {low} and {high}"), None);
                }
                value
            }
            Err(wrong) => {
                reader.refuse(&full, spot.place, wrong.what, wrong.hint);
                default_of(default)
            }
        }
    }

    fn shown(&self) -> Shown {
        self.show().map_or(Shown::Unset, Shown::Value)
    }
}

/// A table whose keys are the operator's own names.
fn take_map<T>(reader: &mut Reader<'_>, name: &str, read: impl Fn(&Given) -> Result<T, String>) -> BTreeMap<String, T> {
    let mut map = BTreeMap::new();
    let Some((full, spot)) = reader.take(name) else {
        return map;
    };
    let Node::Table(entries) = spot.node else {
        reader.refuse(&full, spot.place, format!("expected a table: [{full}]"), None);
        return map;
    };
    for (key, entry) in entries {
        let full = format!("{full}.{key}");
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            let what = "the name may hold letters, digits, _ and - only".to_owned();
            reader.refuse(&full, entry.place, what, None);
            continue;
        }
        let value = match &entry.node {
            Node::Value(given) => read(given),
            Node::Table(_) => Err("expected text, not a table".into()),
        };
        match value {
            Ok(value) => {
                map.insert(key, value);
            }
            Err(what) => reader.refuse(&full, entry.place, what, None),
        }
    }
    map
}

impl Field for SecretMap {
    const SECRET: bool = true;
    const MAP: bool = true;

    fn take(reader: &mut Reader<'_>, name: &str, _default: &str, _bounds: Option<(&str, &str)>) -> Self {
        take_map(reader, name, |given| match given {
            Given::Integer(number) => Ok(SecretString::from(number.to_string())),
            given => SecretString::read(given).map_err(|wrong| wrong.what),
        })
    }

    fn shown(&self) -> Shown {
        Shown::Table(self.keys().map(|key| (key.clone(), quoted(MASK))).collect())
    }
}

impl Field for TextMap {
    const SECRET: bool = false;
    const MAP: bool = true;

    fn take(reader: &mut Reader<'_>, name: &str, _default: &str, _bounds: Option<(&str, &str)>) -> Self {
        take_map(reader, name, |given| String::read(given).map_err(|wrong| wrong.what))
    }

    fn shown(&self) -> Shown {
        Shown::Table(self.iter().map(|(key, text)| (key.clone(), quoted(text))).collect())
    }
}

/// Makes a section: a struct with documented fields, and [`Keys`]. Defaults and bounds are written as text,
/// as an operator would write them.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:literal $(in $low:literal..=$high:literal)?; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nDefault: `", $default, "`", $(", from `", $low, "` to `", $high, "`",)? ".")]
                pub $key: $ty,
            )+
        }

        impl $crate::settings::section::Keys for $name {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [$crate::settings::section::Key] = &[$(
                $crate::settings::section::Key {
                    name: stringify!($key),
                    default: $default,
                    docs: &[$($doc,)+ $(concat!(" From ", $low, " to ", $high, "."))?],
                    secret: <$ty as $crate::settings::section::Field>::SECRET,
                    map: <$ty as $crate::settings::section::Field>::MAP,
                }
            ),+];

            fn read(reader: &mut $crate::settings::section::Reader<'_>) -> Self {
                Self { $(
                    $key: <$ty as $crate::settings::section::Field>::take(
                        reader, stringify!($key), $default, section!(@bounds $($low, $high)?),
                    ),
                )+ }
            }

            fn show(&self) -> Vec<(&'static str, $crate::settings::section::Shown)> {
                vec![$( (stringify!($key), $crate::settings::section::Field::shown(&self.$key)) ),+]
            }
        }
    };
    (@bounds) => { None };
    (@bounds $low:literal, $high:literal) => { Some(($low, $high)) };
}
pub(crate) use section;
