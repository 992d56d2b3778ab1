//! Records which steps the keys of a namespace have taken, and takes the missing ones.

use contacts::StoreError;
use migrations::redis::STEPS;
use redis::Script;

use super::error::unreadable;
use super::keys::Keys;
use super::link::Link;
use super::lookups::Changes;
use super::packed::from_hex;
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
                match step.number {
                    2 => hold_lookups(link, keys).await?,
                    3 => append_lookups(link, keys).await?,
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
    for_each(link, &keys.everywhere("lookups"), async |lookups| {
        let holders = sibling(lookups, "lookups", "holders");
        let mut from = Some(b"-".to_vec());
        while let Some(start) = from {
            let mut piece = script.prepare_invoke();
            piece.key(lookups).key(&holders).arg(start).arg(PIECE);
            let last: Option<Vec<u8>> = link.script("move lookup keys", &piece).await?;
            from = last.map(|last| [b"(".as_slice(), &last].concat());
        }
        Ok(())
    })
    .await
}

/// A cursor, and pairs of field and value or of member and score.
type Scanned = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// Step 3. Before it the pairs lie in a hash (the first id of a key) and a sorted set (all others). What was appended before a
/// conversion was cut short is appended again, which says nothing new; the old places go when all of them is appended.
async fn append_lookups(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    for (part, scan) in [("holders", "HSCAN"), ("lookups", "ZSCAN")] {
        for_each(link, &keys.everywhere(part), async |old| {
            let mut cursor = "0".to_owned();
            loop {
                let piece = redis::cmd(scan).arg(old).arg(&cursor).arg("COUNT").arg(PIECE).clone();
                let (next, found): Scanned = link.query("read lookup keys", &piece).await?;
                let mut changes = Changes::default();
                for (first, second) in &found {
                    let pair = match part {
                        "holders" => held(first, second),
                        _ => shared(first),
                    };
                    let (key, id) = pair.ok_or_else(|| unreadable("a lookup key"))?;
                    changes.add(key, id);
                }
                let mut append = redis::pipe();
                for (number, change) in &changes.buckets {
                    let bucket = sibling(old, part, &format!("keys:{number:02x}"));
                    append.cmd("APPEND").arg(bucket).arg(&change.entries).ignore();
                }
                if !changes.buckets.is_empty() {
                    let () = link.pipeline("append lookup keys", &append).await?;
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
            let unlink = redis::cmd("UNLINK").arg(old).clone();
            let _: u64 = link.query("drop the old lookup keys", &unlink).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Key (8 bytes, high byte first) and id of the hash of holders.
fn held<'a>(key: &[u8], id: &'a [u8]) -> Option<(u64, &'a str)> {
    let key = u64::from_be_bytes(key.try_into().ok()?);
    Some((key, std::str::from_utf8(id).ok()?))
}

/// Key (16 hex digits), then the id, of a member of the sorted set.
fn shared(member: &[u8]) -> Option<(u64, &str)> {
    let (key, id) = member.split_at_checked(16)?;
    Some((from_hex(key).ok()?, std::str::from_utf8(id).ok()?))
}

/// Another part of the same snapshot.
fn sibling(key: &str, part: &str, other: &str) -> String {
    format!("{}{other}", key.strip_suffix(part).unwrap_or(key))
}

/// Every key that matches, at least once.
async fn for_each(
    link: &Link,
    pattern: &str,
    act: impl AsyncFn(&str) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut cursor = "0".to_owned();
    loop {
        let scan = redis::cmd("SCAN")
            .arg(&cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCAN)
            .clone();
        let (next, found): (String, Vec<String>) = link.query("look for snapshots", &scan).await?;
        for key in found {
            act(&key).await?;
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}
