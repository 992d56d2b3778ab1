//! The arrows of ARCHITECTURE.md, over `cargo metadata`: what may know what.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each room, and the rooms it may use outside its tests.
const ARROWS: [(&str, &[&str]); 10] = [
    (
        "snapbridge",
        &[
            "contacts",
            "crm",
            "fake-crm",
            "jobs",
            "migrations",
            "process",
            "store",
            "talkdesk",
            "worker",
        ],
    ),
    ("worker", &["contacts", "crm", "jobs", "store"]),
    ("store", &["contacts", "migrations"]),
    ("jobs", &["contacts", "migrations"]),
    ("crm", &["contacts"]),
    ("talkdesk", &["contacts"]),
    ("contacts", &[]),
    ("fake-crm", &[]),
    ("process", &[]),
    ("migrations", &[]),
];

/// Libraries that only some rooms may use: (library, rooms, why).
const KEPT: [(&str, &[&str], &str); 5] = [
    (
        "reqwest",
        &["crm", "fake-crm", "talkdesk", "snapbridge"],
        "only crm calls hosts that others name",
    ),
    ("redis", &["store"], "the store's port hides its backends"),
    ("lapin", &["jobs"], "the queue's port hides its backends"),
    ("rusqlite", &["store", "jobs"], "the ports hide their backends"),
    (
        "axum",
        &["snapbridge", "fake-crm"],
        "HTTP is served by the front and the fake CRM alone",
    ),
];

fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into()])
        .exec()
        .expect("cargo metadata");
    let normal = |package: &cargo_metadata::Package| {
        let of_kind = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal);
        of_kind.map(|dependency| dependency.name.clone()).collect()
    };
    metadata
        .packages
        .iter()
        .map(|package| (package.name.to_string(), normal(package)))
        .collect()
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let edges = edges();
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    assert_eq!(
        edges.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        rooms,
        "every room has its line in ARROWS"
    );
    for (room, allowed) in ARROWS {
        let used = edges[room]
            .iter()
            .map(String::as_str)
            .filter(|name| rooms.contains(name));
        let wrong: Vec<&str> = used.filter(|name| !allowed.contains(name)).collect();
        assert!(wrong.is_empty(), "{room} must not use {wrong:?}");
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    let edges = edges();
    for (library, rooms, why) in KEPT {
        let wrong: Vec<&String> = edges
            .iter()
            .filter(|(room, used)| used.contains(library) && !rooms.contains(&room.as_str()))
            .map(|(room, _)| room)
            .collect();
        assert!(wrong.is_empty(), "{wrong:?} must not use {library}: {why}");
    }
}
