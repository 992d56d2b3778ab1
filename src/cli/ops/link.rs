//! `snapbridge link`: the records of a DMS and of Web1on1.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Access, Ops, rows, table, text};
use crate::cli::Failure;

#[derive(Debug, Subcommand)]
pub enum Link {
    /// How linking stands: pairs, records that nobody matches or several do, what waits
    Report {
        /// Only of this dealer, by its name in the settings
        #[arg(long, value_name = "NAME")]
        dealer: Option<String>,
        /// Records of each dealer to name
        #[arg(long, value_name = "N", default_value_t = 100)]
        records: usize,
    },
    /// Links all records of a dealer's DMS, a few at a time, under the budgets of both systems
    Seed {
        /// Its name in the settings
        dealer: String,
    },
    /// Takes links away, in both systems
    Remove {
        /// The dealer's name in the settings
        dealer: String,
        /// Of this record of the DMS
        #[arg(long, value_name = "ID", conflicts_with = "all")]
        record: Option<String>,
        /// Of all its records
        #[arg(long)]
        all: bool,
    },
}

pub async fn link(config: Option<&Path>, access: Access, command: Link) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    match command {
        Link::Report { dealer, records } => {
            let records = records.to_string();
            let mut query = vec![("records", records.as_str())];
            query.extend(dealer.as_deref().map(|dealer| ("dealer", dealer)));
            let reports = ops.get("/api/links", &query).await?;
            ops.show(&reports, |reports| {
                let all: Vec<String> = rows(reports).iter().map(report_text).collect();
                match all.is_empty() {
                    true => "no dealer is configured: [dealers.NAME] in the settings".to_owned(),
                    false => all.join("\n"),
                }
            });
        }
        Link::Seed { dealer } => {
            let told = ops.post("/api/links/seed", Some(json!({"dealer": dealer}))).await?;
            ops.show(&told, |told| text(&told["said"]));
        }
        Link::Remove { dealer, record, all } => {
            let body = json!({"dealer": dealer, "record": record, "all": all});
            let told = ops.post("/api/links/remove", Some(body)).await?;
            ops.show(&told, |told| text(&told["said"]));
        }
    }
    Ok(())
}

fn report_text(report: &Value) -> String {
    let count = |name: &str| text(&report[name]);
    let mut out = format!(
        "{} ({}, account {}): {} linked, {} unmatched, {} ambiguous, {} taken, {} gone; {} wait\n",
        count("dealer"),
        count("integration"),
        count("account"),
        count("linked"),
        count("unmatched"),
        count("ambiguous"),
        count("taken"),
        count("gone"),
        count("waiting"),
    );
    let seeding = &report["seeding"];
    if !seeding["began"].is_null() {
        let state = if seeding["ended"].is_null() { "so far" } else { "in all" };
        out.push_str(&format!("seeding: {} records put up {state}\n", text(&seeding["seen"])));
    }
    let records = rows(&report["records"]);
    if !records.is_empty() {
        let cells = ["side", "id", "why", "others", "since"];
        out.push_str(&table(&cells, &records, |record, name| match name {
            "others" => match (&record["ids"], &record["by"]) {
                (Value::Array(ids), _) => ids.iter().map(text).collect::<Vec<_>>().join(" "),
                (_, by) => text(by),
            },
            name => text(&record[name]),
        }));
        out.push('\n');
    }
    out
}
