//! The statements on `queue.db`.

use contacts::queue::{Depth, Depths};
use contacts::{Lane, Micros};
use rusqlite::{Connection, OptionalExtension, Row, params};

use migrations::sqlite::QUEUE_STEPS;

use crate::DELIVERY_LIMIT;

const TO_DEAD: &str = "INSERT INTO dead (lane, reason, body)
    SELECT lane, 'delivered ' || deliveries || ' times and never settled', body FROM job";

#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) seq: i64,
    pub(super) deliveries: u32,
    pub(super) lane: String,
    pub(super) body: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Dead {
    pub(super) seq: i64,
    pub(super) reason: String,
    pub(super) body: Vec<u8>,
}

fn instant(at: Micros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// Brings the file to the current version. `Ok(Err(version))`: it was written by a newer build.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<Result<(), u32>> {
    let transaction = connection.transaction()?;
    let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version as usize > QUEUE_STEPS.len() {
        return Ok(Err(version));
    }
    for step in &QUEUE_STEPS[version as usize..] {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {}", QUEUE_STEPS.len()))?;
    transaction.commit()?;
    Ok(Ok(()))
}

/// Frees what a process that is gone had claimed.
pub(super) fn release_all(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        &format!("{TO_DEAD} WHERE claimed = 1 AND deliveries > ?1"),
        [DELIVERY_LIMIT],
    )?;
    connection.execute(
        "DELETE FROM job WHERE claimed = 1 AND deliveries > ?1",
        [DELIVERY_LIMIT],
    )?;
    connection.execute("UPDATE job SET claimed = 0 WHERE claimed = 1", [])
}

pub(super) fn add(connection: &Connection, lane: &str, body: &[u8], due: Micros) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO job (lane, due_at, body) VALUES (?1, ?2, ?3)")?
        .execute(params![lane, instant(due), body])?;
    Ok(())
}

/// Three places for lane names, so that the statement stays the same; missing lanes repeat the first.
fn three(lanes: &[Lane]) -> [&'static str; 3] {
    let name = |place: usize| lanes.get(place).or(lanes.first()).map_or("", |lane| lane.as_str());
    [name(0), name(1), name(2)]
}

pub(super) fn claim(connection: &Connection, lanes: &[Lane], now: Micros) -> rusqlite::Result<Option<Claimed>> {
    let [a, b, c] = three(lanes);
    connection
        .prepare_cached(
            "UPDATE job SET claimed = 1, deliveries = deliveries + 1
             WHERE seq = (SELECT seq FROM job WHERE claimed = 0 AND lane IN (?1, ?2, ?3) AND due_at <= ?4
                          ORDER BY due_at, seq LIMIT 1)
             RETURNING seq, deliveries, lane, body",
        )?
        .query_row(params![a, b, c, instant(now)], |row: &Row<'_>| {
            Ok(Claimed {
                seq: row.get(0)?,
                deliveries: row.get(1)?,
                lane: row.get(2)?,
                body: row.get(3)?,
            })
        })
        .optional()
}

/// When the next job of these lanes falls due.
pub(super) fn next_due(connection: &Connection, lanes: &[Lane]) -> rusqlite::Result<Option<Micros>> {
    let [a, b, c] = three(lanes);
    let due: Option<i64> = connection
        .prepare_cached("SELECT MIN(due_at) FROM job WHERE claimed = 0 AND lane IN (?1, ?2, ?3)")?
        .query_row([a, b, c], |row| row.get(0))?;
    Ok(due.map(|due| Micros(u64::try_from(due).unwrap_or(0))))
}

pub(super) fn remove(connection: &Connection, seq: i64) -> rusqlite::Result<bool> {
    Ok(connection
        .prepare_cached("DELETE FROM job WHERE seq = ?1 AND claimed = 1")?
        .execute([seq])?
        == 1)
}

/// Gives back a claim that nobody saw.
pub(super) fn unclaim(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE job SET claimed = 0, deliveries = deliveries - 1 WHERE seq = ?1 AND claimed = 1")?
        .execute([seq])?;
    Ok(())
}

/// Gives back a delivery that was dropped unsettled: again at `due`, or to the dead jobs when it used up its deliveries.
pub(super) fn give_back(connection: &Connection, seq: i64, due: Micros) -> rusqlite::Result<()> {
    let limit = i64::from(DELIVERY_LIMIT);
    connection.execute(
        &format!("{TO_DEAD} WHERE seq = ?1 AND claimed = 1 AND deliveries > ?2"),
        [seq, limit],
    )?;
    connection.execute(
        "DELETE FROM job WHERE seq = ?1 AND claimed = 1 AND deliveries > ?2",
        [seq, limit],
    )?;
    connection.execute(
        "UPDATE job SET claimed = 0, due_at = ?2 WHERE seq = ?1 AND claimed = 1",
        params![seq, instant(due)],
    )?;
    Ok(())
}

pub(super) fn depths(connection: &Connection, now: Micros) -> rusqlite::Result<Depths> {
    let count = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<u64> {
        connection
            .prepare_cached(sql)?
            .query_row(values, |row| row.get::<_, u32>(0))
            .map(u64::from)
    };
    let now = instant(now);
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        let sql = "SELECT COUNT(*) FROM job WHERE claimed = 0 AND lane = ?1 AND due_at <= ?2";
        lanes.push(Depth {
            lane,
            ready: count(sql, &[&lane.as_str(), &now])?,
        });
    }
    Ok(Depths {
        lanes,
        waiting: count("SELECT COUNT(*) FROM job WHERE claimed = 0 AND due_at > ?1", &[&now])?,
        dead: count("SELECT COUNT(*) FROM dead", &[])?,
    })
}

/// The first dead job behind `after`.
pub(super) fn dead_after(connection: &Connection, after: i64) -> rusqlite::Result<Option<Dead>> {
    connection
        .prepare_cached("SELECT seq, reason, body FROM dead WHERE seq > ?1 ORDER BY seq LIMIT 1")?
        .query_row([after], |row| {
            Ok(Dead {
                seq: row.get(0)?,
                reason: row.get(1)?,
                body: row.get(2)?,
            })
        })
        .optional()
}

pub(super) fn bury(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM dead WHERE seq = ?1")?
        .execute([seq])?;
    Ok(())
}

/// Every body that is not claimed, oldest first.
pub(super) fn bodies(connection: &Connection) -> rusqlite::Result<Vec<Vec<u8>>> {
    connection
        .prepare("SELECT body FROM job WHERE claimed = 0 ORDER BY seq")?
        .query_map([], |row| row.get(0))?
        .collect()
}
