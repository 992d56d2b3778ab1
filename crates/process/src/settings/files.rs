//! `NAME_file = "path"` in the settings file, for every secret called `NAME`: as `_FILE` does in variables.

use super::env::read_secret;
use super::section::Key;
use super::source::Source;
use super::tree::{Given, Log, Node, Spot, Tree};
use super::{GROUPS, SECTIONS};

/// Puts what the files hold in the place of their names. Relative paths start at the settings file's folder.
pub(crate) fn resolve(tree: &mut Tree, source: &Source, log: &mut Log) {
    for section in SECTIONS {
        let inside = section
            .name
            .split('.')
            .try_fold(&mut *tree, |tree, name| inside(tree, name));
        if let Some(table) = inside {
            resolve_table(section.name, table, section.keys, source, log);
        }
    }
    for group in GROUPS {
        for (name, spot) in inside(tree, group.name).into_iter().flatten() {
            if let Node::Table(table) = &mut spot.node {
                resolve_table(&format!("{}.{name}", group.name), table, group.keys, source, log);
            }
        }
    }
}

fn inside<'a>(tree: &'a mut Tree, name: &str) -> Option<&'a mut Tree> {
    match &mut tree.get_mut(name)?.node {
        Node::Table(table) => Some(table),
        Node::Value(_) => None,
    }
}

fn resolve_table(path: &str, table: &mut Tree, keys: &[Key], source: &Source, log: &mut Log) {
    for key in keys.iter().filter(|key| key.secret && !key.map) {
        let Some(Spot { place, node }) = table.remove(&format!("{}_file", key.name)) else {
            continue;
        };
        let full = format!("{path}.{}", key.name);
        if table.contains_key(key.name) {
            let hint = Some("keep one of the two".into());
            log.problem(place, format!("`{full}_file` sets the same as `{full}`"), hint);
            continue;
        }
        let read = match &node {
            Node::Value(Given::Text(file)) => {
                let folder = source.file.as_ref().and_then(|file| file.path.parent());
                read_secret(
                    source,
                    &folder.map(|folder| folder.join(file)).unwrap_or_else(|| file.into()),
                )
            }
            _ => Err("expected the path of a file".to_owned()),
        };
        let text = read.unwrap_or_else(|what| {
            log.problem(place.clone(), format!("`{full}_file`: {what}"), None);
            log.bad.insert(full);
            // A place-holder, so that the setting does not also count as missing.
            "unreadable".to_owned()
        });
        let node = Node::Value(Given::Loose(text));
        table.insert(key.name.to_owned(), Spot { place, node });
    }
}
