//! Whether changes are recorded: the triggers that do so may be off, or may have been.
//!
//! `ALTER TABLE … DISABLE TRIGGER`, and `pg_restore --disable-triggers` with it, leaves changes that
//! no poll reads. So each poll also reads the state of the triggers. While one is off, the poll is
//! not used. Once all are on, an entry is used only if its snapshot sees the latest switching of
//! each: to switch a trigger takes a lock that waits for every transaction that has written to its
//! table, so what sees it switched on sees all that was written while it was off.
//!
//! Switching a trigger updates its row in `pg_trigger`, whose `xmin` tells which transaction did it.
//! It may be that of a subtransaction, which a snapshot does not tell from an ended one while the
//! transaction around it is running. But what is below the `xmin` of a snapshot has ended, and what
//! includes the snapshot of a poll sees what that poll saw: an entry has to be one of the two.

//!
//! `patgate.recording()` reads it, in the snapshot of the statement that calls it.

use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgRow};

use crate::snapshot::Xid;

/// Triggers are off, or missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "changes are not recorded: of the triggers in the schema `patgate`, {off} must be there and \
     ENABLED ALWAYS; let `patgate migrate` switch them on again"
)]
pub(crate) struct Unrecorded {
    off: String,
}

/// The state of the triggers, all of them on, as a poll saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Triggers {
    /// Another one after any switching.
    pub(super) state: i64,
    /// None was switched by a transaction, or a part of one, above this.
    pub(super) switched: Xid,
}

impl Triggers {
    /// Reads the columns of `patgate.recording()`.
    ///
    /// # Errors
    ///
    /// While a trigger is off.
    pub(super) fn of_row(row: &PgRow) -> Result<Result<Self, Unrecorded>, sqlx::Error> {
        if let Some(off) = row.try_get("off")? {
            return Ok(Err(Unrecorded { off }));
        }
        let switched: i64 = row.try_get("switched")?;
        let switched = Xid(switched.cast_unsigned());
        Ok(Ok(Self { state: row.try_get("triggers")?, switched }))
    }
}
