//! Records which steps the keys of a namespace have taken, and takes the missing ones.

use contacts::StoreError;
use migrations::redis::STEPS;
use redis::Script;

use super::keys::Keys;
use super::link::Link;
use crate::layout::{Known, StepReport, StepState, applied, require_complete};

fn known() -> Vec<Known> {
    STEPS
        .iter()
        .map(|step| Known {
            number: step.number,
            name: step.name,
            description: step.description,
        })
        .collect()
}

async fn recorded(link: &Link, keys: &Keys) -> Result<Vec<(u32, String)>, StoreError> {
    link.query("read the layout", redis::cmd("HGETALL").arg(keys.layout()))
        .await
}

pub(super) async fn check(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    require_complete(&known(), &recorded(link, keys).await?)
}

/// A step is recorded after it was taken, so one that was cut short is taken again: steps must bear that.
pub(super) async fn bring_up_to_date(link: &Link, keys: &Keys, dry_run: bool) -> Result<Vec<StepReport>, StoreError> {
    let known = known();
    let have = applied(&known, &recorded(link, keys).await?)?;
    let mut reports = Vec::new();
    for (at, step) in known.iter().enumerate() {
        let state = match (at < have, dry_run) {
            (true, _) => StepState::Done,
            (false, true) => StepState::Pending,
            (false, false) => {
                match step.number {
                    2 => hold_lookups(link, keys).await?,
                    // Step 1 has nothing to convert: before it there were no keys.
                    _ => {}
                }
                let record = redis::cmd("HSETNX")
                    .arg(keys.layout())
                    .arg(step.number)
                    .arg(step.name)
                    .clone();
                let _: bool = link.query("record a step of the layout", &record).await?;
                StepState::Applied
            }
        };
        reports.push(step.report(state));
    }
    Ok(reports)
}

/// Keys looked at, and pairs moved, in one call, so that none holds the server for long.
const SCAN: usize = 1000;
const PIECE: usize = 200;

/// Step 2. Before it the pairs of lookup key and id lie in one sorted set, in which a process of step 2 still finds them, so
/// that a snapshot that is converted in part is whole. A process of step 1 would not find those that moved.
async fn hold_lookups(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    let script = Script::new(include_str!("hold.lua"));
    let mut cursor = "0".to_owned();
    loop {
        let scan = redis::cmd("SCAN")
            .arg(&cursor)
            .arg("MATCH")
            .arg(keys.all_lookups())
            .arg("COUNT")
            .arg(SCAN)
            .clone();
        let (next, found): (String, Vec<String>) = link.query("look for snapshots", &scan).await?;
        for lookups in found {
            let Some(snapshot) = lookups.strip_suffix("lookups") else {
                continue;
            };
            let holders = format!("{snapshot}holders");
            let mut from = Some(b"-".to_vec());
            while let Some(start) = from {
                let mut piece = script.prepare_invoke();
                piece.key(&lookups).key(&holders).arg(start).arg(PIECE);
                let last: Option<Vec<u8>> = link.script("move lookup keys", &piece).await?;
                from = last.map(|last| [b"(".as_slice(), &last].concat());
            }
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}
