//! Reads whether changes are recorded. Why polls ask for it, `freshness/triggers.rs` says.
//!
//! `patgate.recording()` reads the state of the triggers in the snapshot of the statement that calls
//! it.

use sqlx::{Row, postgres::PgRow};

use crate::{
    freshness::{Triggers, TriggersOff},
    snapshot::Xid,
};

/// Reads the columns of `patgate.recording()`.
///
/// # Errors
///
/// Inside, while a trigger is off.
pub(super) fn triggers(row: &PgRow) -> Result<Result<Triggers, TriggersOff>, sqlx::Error> {
    if let Some(off) = row.try_get("off")? {
        return Ok(Err(TriggersOff { off }));
    }
    let switched: i64 = row.try_get("switched")?;
    let switched = Xid(switched.cast_unsigned());
    Ok(Ok(Triggers { state: row.try_get("triggers")?, switched }))
}
