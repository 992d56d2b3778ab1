//! Records which steps the keys of a namespace have taken, and takes the missing ones.

use contacts::StoreError;
use migrations::redis::STEPS;

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
                // Step 1 has nothing to convert: before it there were no keys.
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
