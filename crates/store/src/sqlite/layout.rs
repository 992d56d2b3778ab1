//! Brings the two files up to date. Each records the steps it has taken; a step and its record are one transaction.

use contacts::ports::StoreResult;
use migrations::sqlite::STEPS;
use rusqlite::Connection;

use super::error::failed;
use crate::layout::{Known, StepReport, StepState, applied};

/// Which of the two files of the embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Store,
    Budget,
}

pub(super) fn known() -> Vec<Known> {
    STEPS
        .iter()
        .map(|step| Known {
            number: step.number,
            name: step.name,
            description: step.description,
        })
        .collect()
}

/// The steps recorded in a file; none if it is new.
pub(super) fn recorded(db: &Connection) -> StoreResult<Vec<(u32, String)>> {
    let read = || {
        let there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'layout'";
        if db.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Vec::new());
        }
        let mut steps = db.prepare("SELECT step, name FROM layout ORDER BY step")?;
        steps.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    read().map_err(failed("read the layout"))
}

/// Applies what is missing to one file.
pub(super) fn bring_up_to_date(db: &Connection, file: File) -> StoreResult<Vec<StepReport>> {
    let known = known();
    let have = applied(&known, &recorded(db)?)?;
    let apply = |number: u32, name: &str, sql: &str| {
        let step = db.unchecked_transaction()?;
        step.execute_batch(
            "CREATE TABLE IF NOT EXISTS layout (step INTEGER PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL) STRICT",
        )?;
        step.execute_batch(sql)?;
        step.execute("INSERT INTO layout VALUES (?1, ?2, datetime('now'))", (number, name))?;
        step.commit()
    };
    for step in STEPS.iter().skip(have) {
        let sql = match file {
            File::Store => step.store,
            File::Budget => step.budget,
        };
        apply(step.number, step.name, sql).map_err(failed("apply a step of the layout"))?;
    }
    Ok(reports(&known, have, StepState::Applied))
}

pub(super) fn reports(known: &[Known], have: usize, missing: StepState) -> Vec<StepReport> {
    let state = |at| if at < have { StepState::Done } else { missing };
    known
        .iter()
        .enumerate()
        .map(|(at, step)| step.report(state(at)))
        .collect()
}
