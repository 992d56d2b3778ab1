//! Every capability of the format has a file that loads and a twin that is refused with the right words at the right place.

use std::collections::BTreeSet;

use crm::Connector;
use serde::Deserialize;

use crate::support::listed;

#[derive(Deserialize)]
struct Corpus {
    base: String,
    capability: Vec<Capability>,
}

#[derive(Deserialize)]
struct Capability {
    number: u32,
    name: String,
    put: Vec<(String, String)>,
    wrong: Vec<(String, String)>,
    says: String,
}

/// The capabilities that the CRMs studied need.
const ALL: u32 = 38;

fn corpus() -> Corpus {
    toml::from_str(include_str!("../capabilities.toml")).expect("the corpus is TOML")
}

fn changed(base: &str, changes: &[(String, String)], name: &str) -> String {
    changes.iter().fold(base.to_owned(), |text, (from, to)| {
        assert!(text.contains(from.as_str()), "{name}: {from:?} is not in the file");
        text.replacen(from.as_str(), to, 1)
    })
}

#[test]
fn every_capability_loads_and_its_wrong_twin_is_refused_with_its_line() {
    let corpus = corpus();
    let mut wrong = Vec::new();
    for capability in &corpus.capability {
        let name = format!("{} {}", capability.number, capability.name);
        let right = changed(&corpus.base, &capability.put, &name);
        if let Err(problems) = Connector::load(&right, "right.toml") {
            wrong.push(format!("{name}: {}", listed(&problems)));
        }
        let twin = changed(&corpus.base, &capability.wrong, &name);
        match Connector::load(&twin, "wrong.toml") {
            Ok(_) => wrong.push(format!("{name}: the wrong twin is taken")),
            Err(problems) => {
                let told = listed(&problems);
                if !told.contains(&capability.says) {
                    wrong.push(format!("{name}: {:?} is not told, but\n{told}", capability.says));
                }
                let lines = twin.lines().count();
                if problems
                    .iter()
                    .any(|problem| problem.line == 0 || problem.line > lines + 1)
                {
                    wrong.push(format!("{name}: no such line\n{told}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_capability_is_left_out() {
    let shown: BTreeSet<u32> = corpus().capability.iter().map(|capability| capability.number).collect();
    let missing: Vec<u32> = (1..=ALL).filter(|number| !shown.contains(number)).collect();
    assert_eq!(missing, [33], "the answer's deadline stands in 27");
}

/// The worked example of connectors/README.md is a connector.
#[test]
fn the_worked_example_of_the_readme_loads() {
    let readme = include_str!("../../../../connectors/README.md");
    let block = readme
        .split("```toml\n")
        .find(|block| block.starts_with("format = 1"))
        .and_then(|block| block.split("```").next())
        .expect("the example");
    match Connector::load(block, "README.md") {
        Ok(connector) => assert_eq!(connector.id(), "acme"),
        Err(problems) => panic!("{}", listed(&problems)),
    }
}
