//! `SNAPBRIDGE_*` variables, laid over what the file says.
//!
//! Two underscores stand between levels: `SNAPBRIDGE_STORE__URL` is `store.url`,
//! `SNAPBRIDGE_INTEGRATIONS__ACME__CONNECTION__TOKEN` is `integrations.acme.connection.token`. `_FILE` behind the name
//! of a secret names a file that holds it. A `-` in the name of an integration or a dealer is written `_`.

use std::collections::BTreeMap;
use std::path::Path;

use super::problem::{Place, did_you_mean};
use super::section::Key;
use super::source::{FILE_VARIABLE, PREFIX, Source, TOKEN_VARIABLE};
use super::tree::{Given, Log, Node, Spot, Tree};
use super::{GROUPS, SECTIONS, valid_name};

pub(crate) fn overlay(tree: &mut Tree, source: &Source, log: &mut Log) {
    // Path → variable, to see `X` and `X_FILE` both set.
    let mut seen: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (name, value) in &source.env {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if [FILE_VARIABLE, TOKEN_VARIABLE].contains(&name.as_str()) || rest.starts_with(TESTS) || is_service_link(rest)
        {
            continue;
        }
        let place = Place::Variable(name.clone());
        let Some(target) = resolve(rest, tree) else {
            let names = variable_names();
            log.problem(
                place,
                "unknown variable",
                did_you_mean(name, names.iter().map(String::as_str)),
            );
            continue;
        };
        if let Some(other) = seen.insert(target.path.clone(), name.clone()) {
            log.problem(
                place,
                format!("sets the same as {other}"),
                Some("keep one of the two".into()),
            );
            continue;
        }
        let value = if target.file {
            match read_secret(source, Path::new(value)) {
                Ok(value) => value,
                Err(what) => {
                    log.problem(place.clone(), what, None);
                    log.bad.insert(target.path.join("."));
                    // A place-holder, so that the setting does not also count as missing.
                    "unreadable".to_owned()
                }
            }
        } else {
            value.clone()
        };
        insert(tree, &target.path, place, value);
    }
}

/// `SNAPBRIDGE_TEST_…` tells the test suites where their services are, and reaches the processes that they start.
const TESTS: &str = "TEST_";

/// Variables that Kubernetes puts into every pod of a namespace with a service called `snapbridge` or `snapbridge-…`.
fn is_service_link(rest: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let after = |word: &str| rest.find(word).map(|at| (&rest[..at], &rest[at + word.len()..]));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if rest == "SERVICE_HOST" || rest.ends_with("_SERVICE_HOST") || rest == "PORT" || rest.ends_with("_PORT") {
        return true;
    }
    if let Some((before, rest)) = after("SERVICE_PORT") {
        return (before.is_empty() || before.ends_with('_')) && (rest.is_empty() || rest.starts_with('_'));
    }
    match after("PORT_") {
        Some((before, rest)) if before.is_empty() || before.ends_with('_') => {
            let mut parts = rest.split('_');
            parts.next().is_some_and(digits)
                && parts
                    .next()
                    .is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
                && parts
                    .next()
                    .is_none_or(|last| ["ADDR", "PORT", "PROTO"].contains(&last))
        }
        _ => false,
    }
}

struct Target {
    path: Vec<String>,
    /// The value is the path of a file.
    file: bool,
}

fn resolve(rest: &str, tree: &Tree) -> Option<Target> {
    let rest = rest.to_ascii_lowercase();
    let parts: Vec<&str> = rest.split("__").collect();
    let group = parts
        .first()
        .and_then(|first| GROUPS.iter().find(|group| group.name == *first));
    match (group, parts.as_slice()) {
        (Some(group), [_, name, key]) => {
            let (key, file) = key_of(group.keys, key)?;
            let path = vec![
                group.name.to_owned(),
                member(group.name, name, tree)?,
                key.name.to_owned(),
            ];
            (!key.map).then_some(Target { path, file })
        }
        (Some(group), [_, name, map, key]) => {
            let map = group.keys.iter().find(|known| known.map && known.name == *map)?;
            let (key, file) = key.strip_suffix("_file").map_or((*key, false), |key| (key, true));
            let path = vec![
                group.name.to_owned(),
                member(group.name, name, tree)?,
                map.name.to_owned(),
                key.to_owned(),
            ];
            (!key.is_empty()).then_some(Target { path, file })
        }
        (None, [section @ .., key]) => {
            let section = section.join(".");
            let section = SECTIONS.iter().find(|known| known.name == section)?;
            let (key, file) = key_of(section.keys, key)?;
            let path = section.name.split('.').chain([key.name]);
            Some(Target {
                path: path.map(str::to_owned).collect(),
                file,
            })
        }
        _ => None,
    }
}

/// The exact name first: `keys.file` is a key, not a variant of one.
fn key_of(keys: &'static [Key], given: &str) -> Option<(&'static Key, bool)> {
    if let Some(key) = keys.iter().find(|key| key.name == given) {
        return Some((key, false));
    }
    let name = given.strip_suffix("_file")?;
    keys.iter()
        .find(|key| key.secret && key.name == name)
        .map(|key| (key, true))
}

/// The name as the file has it, else the variable's own.
fn member(group: &str, given: &str, tree: &Tree) -> Option<String> {
    if let Some(Spot {
        node: Node::Table(table),
        ..
    }) = tree.get(group)
        && let Some(name) = table
            .keys()
            .find(|name| name.replace('-', "_") == given.replace('-', "_"))
    {
        return Some(name.clone());
    }
    valid_name(given).then(|| given.to_owned())
}

pub(crate) fn read_secret(source: &Source, path: &Path) -> Result<String, String> {
    let text = (source.read_file)(path).map_err(|error| format!("cannot read the file it names: {error}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        Err("the file it names is empty".into())
    } else {
        Ok(text.to_owned())
    }
}

fn insert(tree: &mut Tree, path: &[String], place: Place, value: String) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        tree.insert(
            first.clone(),
            Spot {
                place,
                node: Node::Value(Given::Loose(value)),
            },
        );
        return;
    }
    let spot = tree.entry(first.clone()).or_insert_with(|| Spot {
        place: place.clone(),
        node: Node::Table(Tree::new()),
    });
    // A value of the file where a table belongs is reported when the table is read.
    if let Node::Table(table) = &mut spot.node {
        insert(table, rest, place, value);
    }
}

fn variable_names() -> Vec<String> {
    let of = |section: &str, keys: &'static [Key]| {
        let section = section.to_ascii_uppercase().replace('.', "__");
        keys.iter()
            .filter(|key| !key.map)
            .flat_map(|key| {
                let name = format!("{PREFIX}{section}__{}", key.name.to_ascii_uppercase());
                let file = key.secret.then(|| format!("{name}_FILE"));
                std::iter::once(name).chain(file)
            })
            .collect::<Vec<_>>()
    };
    let mut names: Vec<String> = SECTIONS
        .iter()
        .flat_map(|section| of(section.name, section.keys))
        .collect();
    names.extend([FILE_VARIABLE, TOKEN_VARIABLE].map(str::to_owned));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_of_kubernetes_are_told_from_settings() {
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8080_TCP",
            "PORT_8080_TCP_ADDR",
            "FRONT_SERVICE_HOST",
            "FRONT_PORT_8080_TCP_PROTO",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for other in [
            "HTTP__LISTEN",
            "STORE_URL",
            "PORTS",
            "PORT_X_TCP",
            "REDIS__PORT",
            "PORT_80_TCP_X",
        ] {
            assert!(!is_service_link(other), "{other}");
        }
    }
}
