//! What mapping a contact costs, against parsing the same body with serde_json and writing it out again: bodies of the
//! shipped connectors' fixtures, from the bytes of the reply to the bytes of Talkdesk's contacts, in interleaved rounds.
//!
//! `cargo bench -p crm --bench mapping`, with ids of connectors behind ` -- ` for these alone.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use crm::Connector;
use serde_json::Value;

/// A round of one side takes at least this long.
const ROUND: Duration = Duration::from_millis(50);
const ROUNDS: usize = 15;
/// Mapping may cost this many times the other.
const GOAL: f64 = 5.0;

struct Case {
    id: String,
    connector: Connector,
    body: Vec<u8>,
    rows: usize,
}

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../connectors");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.path().join("fixtures/full.json").exists() {
            cases.push(case(&entry.path(), &entry.file_name().to_string_lossy())?);
        }
    }
    ensure!(
        cases.len() >= 12,
        "only {} connectors have a fixture of their full pass",
        cases.len()
    );
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    cases.retain(|case| wanted.is_empty() || wanted.contains(&case.id));
    println!(
        "µs a contact, median of {ROUNDS} rounds; the ratio is mapped to parsed and written, least … most (goal {GOAL})"
    );
    println!(
        "{:<12} {:>9} {:>8} {:>8}   ratio",
        "connector", "bytes", "parsed", "mapped"
    );
    let mut missed = Vec::new();
    for case in &cases {
        let (mut plain, mut mapped, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            let (one, other) = (time(|| parse_and_write(case))?, time(|| map(case))?);
            plain.push(one / case.rows as f64);
            mapped.push(other / case.rows as f64);
            ratios.push(other / one);
        }
        // The first round warms up.
        let ratio = median(&mut ratios[1..]);
        println!(
            "{:<12} {:>9} {:>8.2} {:>8.2}   {:.2} ({:.2} … {:.2})",
            case.id,
            case.body.len() / case.rows,
            median(&mut plain[1..]),
            median(&mut mapped[1..]),
            ratio,
            ratios[1],
            ratios[ROUNDS],
        );
        if ratio > GOAL {
            missed.push(case.id.clone());
        }
    }
    println!(
        "{}",
        if missed.is_empty() {
            "met".to_owned()
        } else {
            format!("MISSED: {}", missed.join(", "))
        }
    );
    Ok(())
}

/// The reply with the most contacts.
fn case(folder: &Path, id: &str) -> anyhow::Result<Case> {
    let source = std::fs::read_to_string(folder.join("connector.toml"))?;
    let problems = |problems: Vec<crm::Problem>| {
        anyhow::anyhow!("{}", problems.iter().map(ToString::to_string).collect::<String>())
    };
    let connector = Connector::load(&source, id).map_err(problems)?;
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("fixtures/full.json"))?)?;
    let replies = fixture["exchanges"].as_array().context("a fixture has exchanges")?;
    let bodies = replies
        .iter()
        .filter_map(|exchange| serde_json::to_vec(&exchange["reply"]["body"]).ok());
    let rows = |body: &Vec<u8>| {
        connector
            .map_body(body, &BTreeMap::new(), Some("US"))
            .map_or(0, |page| page.rows.len())
    };
    let (rows, body) = bodies
        .map(|body| (rows(&body), body))
        .max_by_key(|(rows, _)| *rows)
        .context("a reply")?;
    ensure!(rows > 0, "{id}: no reply of its full pass has a contact");
    Ok(Case {
        id: id.to_owned(),
        connector,
        body,
        rows,
    })
}

fn parse_and_write(case: &Case) -> anyhow::Result<()> {
    let body: Value = serde_json::from_slice(black_box(&case.body))?;
    black_box(serde_json::to_vec(&body)?);
    Ok(())
}

fn map(case: &Case) -> anyhow::Result<()> {
    let page = case
        .connector
        .map_body(black_box(&case.body), &BTreeMap::new(), Some("US"))?;
    for row in &page.rows {
        black_box(row.contact.to_json());
    }
    Ok(())
}

/// Microseconds of one call.
fn time(mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut calls = 0_u32;
    while began.elapsed() < ROUND {
        for _ in 0..20 {
            call()?;
        }
        calls += 20;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(calls))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
