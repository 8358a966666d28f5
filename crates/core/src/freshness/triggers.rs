//! The triggers that record changes. One may be off, or may have been off.
//!
//! `ALTER TABLE … DISABLE TRIGGER`, and `pg_restore --disable-triggers` with it, leaves changes that
//! no poll reads. So each poll also reads the state of the triggers. While one is off, the poll is
//! not used. Once all are on, an entry is used only if its snapshot sees the latest switching of
//! each: to switch a trigger takes a lock that waits for every transaction that has written to its
//! table, so what sees it switched on sees all that was written while it was off.
//!
//! Switching a trigger updates its row in `pg_trigger`, whose `xmin` is the transaction that did it.
//! That may be a subtransaction, which a snapshot cannot distinguish from an ended one while the
//! transaction around it is running. But what is below the `xmin` of a snapshot has ended, and what
//! includes the snapshot of a poll sees what that poll saw: an entry has to be one of the two.

use serde::{Deserialize, Serialize};

use crate::snapshot::Xid;

/// The error for triggers that are off or missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "changes are not recorded: of the triggers in the schema `patgate`, {off} must be there and \
     enabled (those that record changes: ENABLED ALWAYS); let `patgate migrate` switch them on again"
)]
pub struct TriggersOff {
    /// The names of the triggers, for the message.
    pub off: String,
}

/// The state of the triggers as a poll found it, if all of them were on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Triggers {
    /// A number that changes whenever a trigger is switched.
    pub state: i64,
    /// The highest id of a transaction, or a part of one, that switched a trigger.
    pub switched: Xid,
}
