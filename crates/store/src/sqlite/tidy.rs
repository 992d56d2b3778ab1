//! Removes, in pieces too small to hold up a write, what nobody reads any more.

use contacts::Micros;
use contacts::ports::StoreResult;
use rusqlite::{Connection, OptionalExtension, Result};

use super::error::failed;
use super::number::time;

/// Rows of one piece.
const PIECE: usize = 500;

/// Rows of dropped snapshots.
pub(super) fn store(db: &Connection) -> StoreResult<bool> {
    let piece = || -> Result<bool> {
        let dropped = db.prepare_cached("SELECT number FROM dropped_snapshot LIMIT 1")?;
        let Some(number) = { dropped }.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(false);
        };
        let transaction = db.unchecked_transaction()?;
        let mut removed = 0;
        for sql in [
            "DELETE FROM body WHERE (snapshot, position) IN
                 (SELECT snapshot, position FROM body WHERE snapshot = ?1 LIMIT ?2)",
            "DELETE FROM record WHERE (snapshot, id) IN (SELECT snapshot, id FROM record WHERE snapshot = ?1 LIMIT ?2)",
            "DELETE FROM lookup WHERE (snapshot, key, id) IN
                 (SELECT snapshot, key, id FROM lookup WHERE snapshot = ?1 LIMIT ?2)",
        ] {
            removed += db.prepare_cached(sql)?.execute((number, PIECE as i64))?;
        }
        if removed == 0 {
            db.execute("DELETE FROM dropped_snapshot WHERE number = ?1", [number])?;
        }
        transaction.commit()?;
        Ok(true)
    };
    piece().map_err(failed("remove a dropped snapshot"))
}

/// Scratch values that have expired.
pub(super) fn budget(db: &Connection, now: Micros) -> StoreResult<bool> {
    let piece = || -> Result<bool> {
        let sql = "DELETE FROM scratch WHERE key IN (SELECT key FROM scratch WHERE expires <= ?1 LIMIT ?2)";
        Ok(db.prepare_cached(sql)?.execute((time(now.0), PIECE as i64))? == PIECE)
    };
    piece().map_err(failed("remove expired scratch values"))
}
