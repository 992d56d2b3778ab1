//! Settings: defaults, then `snapbridge.toml`, then `SNAPBRIDGE_*` variables. Every problem is reported at once with
//! its place; unknown keys and unknown variables are refused; what goes together is checked together.

mod backend;
mod checks;
mod env;
mod files;
mod leaf;
mod problem;
mod section;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

pub use backend::{QueueUrl, SecretUrl, StoreUrl};
pub use leaf::{ByteSize, SecretMap, TextMap};
pub use problem::{Place, Problem};
pub use sections::{
    Accounts, Actions, AuthType, Cold, ColdAnswer, Credentials, Crm, DateForm, Dealer, FieldOwner, Http, HttpTls,
    Integration, IntegrationKind, Interactions, Keys, Log, LogFormat, Ops, Page, Queue, Rabbitmq, Redis, Refresh,
    Retry, Store, Subscribe, Telemetry, UpdateAuth, Webhook, Worker,
};
pub use source::{DEFAULT_FILE, FILE_VARIABLE, FileText, PREFIX, Source, TOKEN_VARIABLE};

use problem::did_you_mean;
use section::{Key, Keys as _, Reader, Shown};
use tree::{Node, Spot, Tree};

const INTEGRATIONS: &str = "integrations";
const DEALERS: &str = "dealers";

/// Sections of which there are as many as the operator names.
struct Group {
    name: &'static str,
    one: &'static str,
    about: &'static [&'static str],
    keys: &'static [Key],
}

const GROUPS: &[Group] = &[
    Group {
        name: INTEGRATIONS,
        one: "an integration",
        about: Integration::ABOUT,
        keys: Integration::KEYS,
    },
    Group {
        name: DEALERS,
        one: "a dealer",
        about: Dealer::ABOUT,
        keys: Dealer::KEYS,
    },
];

struct Section {
    name: &'static str,
    about: &'static [&'static str],
    keys: &'static [Key],
}

macro_rules! settings {
    ($($name:ident $([$path:literal])?: $ty:ty),+ $(,)?) => {
        /// The effective settings of a process. Each section documents its keys, with unit, default and bounds.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $( pub $name: $ty, )+
            /// By name, as it stands in the URLs.
            pub integrations: BTreeMap<String, Integration>,
            /// By name.
            pub dealers: BTreeMap<String, Dealer>,
        }

        const SECTIONS: &[Section] = &[$(
            Section { name: settings!(@path $name $($path)?), about: <$ty>::ABOUT, keys: <$ty>::KEYS }
        ),+];

        impl Settings {
            fn read(tree: &mut Tree, log: &mut tree::Log) -> Self {
                Self {
                    $( $name: {
                        let path = settings!(@path $name $($path)?);
                        Reader::new(path, table(tree, path, log), log).read()
                    }, )+
                    integrations: read_group(&GROUPS[0], tree, log),
                    dealers: read_group(&GROUPS[1], tree, log),
                }
            }

            fn shown(&self) -> Vec<(&'static str, Vec<(&'static str, Shown)>)> {
                vec![$( (settings!(@path $name $($path)?), self.$name.show()) ),+]
            }
        }
    };
    (@path $name:ident) => { stringify!($name) };
    (@path $name:ident $path:literal) => { $path };
}

settings! {
    http: Http,
    http_tls["http.tls"]: HttpTls,
    store: Store,
    queue: Queue,
    keys: Keys,
    page: Page,
    cold: Cold,
    credentials: Credentials,
    accounts: Accounts,
    worker: Worker,
    refresh: Refresh,
    retry: Retry,
    crm: Crm,
    interactions: Interactions,
    actions: Actions,
    webhook: Webhook,
    redis: Redis,
    rabbitmq: Rabbitmq,
    ops: Ops,
    log: Log,
    telemetry: Telemetry,
}

impl Settings {
    /// Reads, overlays and checks everything; the error is every problem there is, those of the file first, in order.
    pub fn load(source: &Source) -> Result<Self, Vec<Problem>> {
        let mut log = tree::Log::default();
        let mut tree = source
            .file
            .as_ref()
            .map(|file| tree::parse(file, &mut log))
            .unwrap_or_default();
        let syntax = std::mem::take(&mut log.problems);
        files::resolve(&mut tree, source, &mut log);
        env::overlay(&mut tree, source, &mut log);
        lift(&mut tree);
        let settings = Self::read(&mut tree, &mut log);
        for (name, spot) in tree {
            let known = SECTIONS.iter().map(|section| section.name);
            let known = known.chain(GROUPS.iter().map(|group| group.name));
            let hint = match spot.node {
                Node::Table(_) => did_you_mean(&name, known),
                Node::Value(_) => belongs_elsewhere(&name),
            };
            log.problem(spot.place, format!("unknown section or key `{name}`"), hint);
        }
        if syntax.is_empty() {
            checks::run(&settings, &mut log);
        } else {
            // What was recovered of a broken line would only repeat that it is broken.
            log.problems
                .retain(|problem| !syntax.iter().any(|error| shares_line(&problem.place, &error.place)));
            log.problems.extend(syntax);
        }
        if log.problems.is_empty() {
            return Ok(settings);
        }
        log.problems.sort();
        log.problems.dedup();
        Err(log.problems)
    }

    /// The effective settings as TOML, secrets masked: readable by [`Settings::load`], safe to print.
    pub fn masked(&self) -> String {
        let mut out = String::new();
        for (name, values) in self.shown() {
            print_section(&mut out, name, values);
        }
        for (name, integration) in &self.integrations {
            print_section(&mut out, &format!("{INTEGRATIONS}.{name}"), integration.show());
        }
        for (name, dealer) in &self.dealers {
            print_section(&mut out, &format!("{DEALERS}.{name}"), dealer.show());
        }
        out
    }

    /// Every setting there is, documented, its default behind a `#`: a `snapbridge.toml` to start from.
    pub fn reference() -> String {
        let mut out = String::new();
        for section in SECTIONS {
            print_reference(&mut out, &format!("[{}]", section.name), section.about, section.keys);
        }
        for group in GROUPS {
            print_reference(&mut out, &format!("#[{}.name]", group.name), group.about, group.keys);
        }
        out
    }
}

/// All defaults, no integration.
impl Default for Settings {
    fn default() -> Self {
        Self::read(&mut Tree::new(), &mut tree::Log::default())
    }
}

/// `[a-z0-9_-]{1,64}`
fn valid_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// Where a key that stands in the wrong section would be right.
fn belongs_elsewhere(key: &str) -> Option<String> {
    let homes: Vec<String> = SECTIONS
        .iter()
        .filter(|section| section.keys.iter().any(|known| known.name == key))
        .map(|section| format!("[{}]", section.name))
        .collect();
    (!homes.is_empty()).then(|| format!("it belongs into {}", homes.join(" or ")))
}

/// Gives a section inside a section, `[http.tls]`, its place among the others.
fn lift(tree: &mut Tree) {
    for section in SECTIONS {
        let Some((outer, inner)) = section.name.split_once('.') else {
            continue;
        };
        if let Some(Node::Table(outer)) = tree.get_mut(outer).map(|spot| &mut spot.node)
            && let Some(spot) = outer.remove(inner)
        {
            tree.insert(section.name.to_owned(), spot);
        }
    }
}

fn table(tree: &mut Tree, name: &str, log: &mut tree::Log) -> Tree {
    match tree.remove(name) {
        None => Tree::new(),
        Some(Spot {
            node: Node::Table(table),
            ..
        }) => table,
        Some(Spot {
            place,
            node: Node::Value(_),
        }) => {
            log.problem(place, format!("`{name}` is a section"), Some(format!("write [{name}]")));
            Tree::new()
        }
    }
}

fn read_group<T: section::Keys>(group: &Group, tree: &mut Tree, log: &mut tree::Log) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (name, spot) in table(tree, group.name, log) {
        let path = format!("{}.{name}", group.name);
        let Node::Table(table) = spot.node else {
            log.problem(
                spot.place,
                format!("`{path}` is a table"),
                Some(format!("write [{path}]")),
            );
            continue;
        };
        if !valid_name(&name) {
            let hint = match group.name {
                INTEGRATIONS => "1 to 64 of a-z, 0-9, _ and -; it stands in the URLs",
                _ => "1 to 64 of a-z, 0-9, _ and -",
            };
            log.problem(
                spot.place.clone(),
                format!("`{name}` cannot be the name of {}", group.one),
                Some(hint.to_owned()),
            );
        }
        log.places.insert(path.clone(), spot.place);
        all.insert(name, Reader::new(path, table, log).read());
    }
    all
}

fn shares_line(a: &Place, b: &Place) -> bool {
    matches!((a, b), (Place::File { line: a, .. }, Place::File { line: b, .. }) if a == b)
}

fn print_section(out: &mut String, name: &str, values: Vec<(&'static str, Shown)>) {
    out.push_str(&format!("{}[{name}]\n", if out.is_empty() { "" } else { "\n" }));
    let mut tables = Vec::new();
    for (key, shown) in values {
        match shown {
            Shown::Value(value) => out.push_str(&format!("{key} = {value}\n")),
            Shown::Unset => out.push_str(&format!("# {key} is not set\n")),
            Shown::Table(entries) => tables.push((key, entries)),
        }
    }
    for (key, entries) in tables.into_iter().filter(|(_, entries)| !entries.is_empty()) {
        out.push_str(&format!("\n[{name}.{key}]\n"));
        out.extend(entries.into_iter().map(|(key, value)| format!("{key} = {value}\n")));
    }
}

fn print_reference(out: &mut String, header: &str, about: &[&str], keys: &[Key]) {
    let comment = |out: &mut String, lines: &[&str]| {
        out.extend(lines.iter().map(|line| format!("#{line}\n")));
    };
    out.push_str(if out.is_empty() { "" } else { "\n" });
    comment(out, about);
    out.push_str(&format!("{header}\n"));
    for key in keys {
        comment(out, key.docs);
        if key.secret && !key.map {
            out.push_str(&format!("# Or {}_file: the path of a file that holds it.\n", key.name));
        }
        out.push_str(&match (key.map, key.default) {
            (true, _) => format!("#{}.name = …\n", key.name),
            (false, "") => format!("#{} = …\n", key.name),
            (false, default) if default.parse::<f64>().is_ok() || default.parse::<bool>().is_ok() => {
                format!("#{} = {default}\n", key.name)
            }
            (false, default) => format!("#{} = \"{default}\"\n", key.name),
        });
    }
}
