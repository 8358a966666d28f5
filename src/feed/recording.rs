//! Reads whether changes are recorded. Why polls ask for it, `freshness/triggers.rs` says.
//!
//! `patgate.recording()` reads the state of the triggers in the snapshot of the statement that calls
//! it.

use sqlx::{Row, postgres::PgRow};

use crate::{
    freshness::{Triggers, TriggersOff},
    postgres::{self, PostgresSettings},
    snapshot::Xid,
};

/// Returns which triggers are off, as `config check --connect` asks; `None` if all are on, or if
/// Postgres does not say.
pub(crate) async fn triggers_off(settings: &PostgresSettings) -> Option<TriggersOff> {
    let mut connection = postgres::connect_one(settings).await.ok()?;
    let asked = sqlx::query_scalar("SELECT off FROM patgate.recording()").persistent(false);
    let off: Option<String> = asked.fetch_one(&mut *connection).await.ok()?;
    // An error on closing says nothing about the result.
    let _ = connection.close().await;
    off.map(|off| TriggersOff { off })
}

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
