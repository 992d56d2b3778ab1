//! `docs/contract.md` and the tests that it names.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Here a row is a function with the name of its rule.
const HERE: &str = "tests/it/contract/";

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rule and tests of each row: (file, function).
fn table() -> Vec<(String, Vec<(String, String)>)> {
    let document = text("docs/contract.md");
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule |") && !line.starts_with("| --- "));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [rule, source, tests] = cells[..] else {
            panic!("not of three cells: {line}")
        };
        assert!(!source.is_empty(), "without a source: {line}");
        let tests: Vec<_> = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|named| {
                let (file, function) = named
                    .split_once(".rs ")
                    .unwrap_or_else(|| panic!("not `FILE.rs NAME`: {named}"));
                (format!("{file}.rs"), function.to_owned())
            })
            .collect();
        assert!(!tests.is_empty(), "without a test: {line}");
        (rule.to_owned(), tests)
    });
    rows.collect()
}

/// A rule's words as the name of a function.
fn named(rule: &str) -> String {
    let rule = rule.replace(['\'', '`'], "").to_lowercase();
    let words = rule
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// Whether a file has a test, or a row, of this name.
fn has(source: &str, function: &str) -> bool {
    let words: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
    [
        format!("fn {function}("),
        format!("on_both!({function},"),
        format!("on_both!( {function},"),
    ]
    .iter()
    .any(|form| words.contains(form.as_str()))
}

#[test]
fn every_row_has_a_test_that_exists_and_says_its_rule() {
    let mut wrong = Vec::new();
    for (rule, tests) in table() {
        for (file, function) in tests {
            if !has(&text(&file), &function) {
                wrong.push(format!("{rule}: {file} has no {function}"));
            }
            if file.starts_with(HERE) && function != named(&rule) {
                wrong.push(format!(
                    "{rule}: its test would be named {}, not {function}",
                    named(&rule)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_of_a_row_is_in_the_table() {
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, function) in table().into_iter().flat_map(|(_, tests)| tests) {
        listed.entry(file).or_default().insert(function);
    }
    for name in ["common", "validation", "agents", "contacts", "interactions", "actions"] {
        let file = format!("{HERE}{name}.rs");
        let source = text(&file);
        let (_, list) = source.split_once("    [\n").expect("a list of rows");
        let (list, _) = list.split_once("\n    ]").expect("its end");
        let rows = list.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let played = set(rows.map(|row| row.trim_end_matches(',').to_owned()));
        assert_eq!(
            Some(&played),
            listed.get(&file),
            "{file} plays (left) what the table names (right)"
        );
    }
}
