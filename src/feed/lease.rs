//! A replica's lease: it shows administrators that the replica serves, and how far it has read.
//!
//! No decision rests on it. If it cannot be renewed, as on a read-only server, a command that waits
//! for a change waits until this replica's knowledge must have expired.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;

use crate::{
    clock::Moment,
    installation::Installation,
    postgres::{AskError, Postgres},
    snapshot::Snapshot,
};

/// How often a lease is renewed while nothing changes.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The lease of this replica.
pub(crate) struct Lease {
    id: Uuid,
    name: String,
    max_staleness: Duration,
}

/// A lease as a row of `patgate.replicas`, and as followers leave it for the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LeaseRow {
    pub(super) id: Uuid,
    name: String,
    snapshot: Snapshot,
    watermark: Moment,
    max_staleness: Duration,
}

impl LeaseRow {
    /// Whether the knowledge that it stands for is too old to be used anywhere.
    pub(super) fn has_expired(&self, now: Moment) -> bool {
        let life = i64::try_from((2 * self.max_staleness).as_micros()).unwrap_or(i64::MAX);
        self.watermark.0.saturating_add(life) < now.0
    }
}

/// Whether a letter may become part of a statement as it is.
fn is_harmless(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || ".-_:".contains(letter)
}

impl Lease {
    pub(crate) fn new(max_staleness: Duration) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String = host.chars().filter(|letter| is_harmless(*letter)).take(100).collect();
        let name = format!("{host}:{}", std::process::id());
        Self { id: Uuid::new_v4(), name, max_staleness }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Says that this replica knows what the snapshot sees, as of the watermark.
    pub(super) fn row(&self, snapshot: Snapshot, watermark: Moment) -> LeaseRow {
        let Self { id, name, max_staleness } = self;
        LeaseRow { id: *id, name: name.clone(), snapshot, watermark, max_staleness: *max_staleness }
    }

    pub(super) async fn release(&self, postgres: &Postgres) {
        let sql = format!("DELETE FROM patgate.replicas WHERE id = '{}'", self.id);
        postgres.run("releasing the lease", sql).await;
    }

    /// Says that this replica is gone. A leader may have read an earlier lease and write it
    /// afterwards: this one is not replaced by it, and stays until both have expired.
    pub(super) fn released(&self, now: Moment) -> LeaseRow {
        self.row(Snapshot::of_all(), now)
    }
}

/// Writes leases for the commands that wait, also those of other replicas. An old lease that a leader
/// passes on must not replace a later one of the same replica, even if the clock was put back. Nothing
/// is written in another installation, to which the address may lead by now: commands there would
/// wait for a replica that does not serve them.
pub(super) async fn write(
    postgres: &Postgres,
    installation: Installation,
    leases: &[LeaseRow],
) -> Result<(), AskError> {
    let row = |lease: &LeaseRow| {
        let LeaseRow { id, name, snapshot, watermark, max_staleness } = lease;
        let watermark = watermark.0;
        let max_staleness = max_staleness.as_micros();
        format!(
            "('{id}'::uuid, '{name}', '{snapshot}'::pg_snapshot,
              'epoch'::timestamptz + {watermark} * interval '1 microsecond',
              {max_staleness} * interval '1 microsecond')"
        )
    };
    let harmless = leases.iter().filter(|lease| lease.name.chars().all(is_harmless));
    let rows: Vec<String> = harmless.map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    // The next poll waits for this, and must not be held up by a lock of these rows.
    let sql = format!(
        "SET LOCAL lock_timeout = '100ms';
         INSERT INTO patgate.replicas
             (id, name, snapshot, watermark, max_staleness, installation)
         SELECT lease.*, '{installation}' FROM (VALUES {}) AS lease
             WHERE patgate.identity() = '{installation}'
         ON CONFLICT (id) DO UPDATE
             SET snapshot = excluded.snapshot, watermark = excluded.watermark
             WHERE (pg_snapshot_xmax(replicas.snapshot), replicas.watermark)
                 <= (pg_snapshot_xmax(excluded.snapshot), excluded.watermark);
         DELETE FROM patgate.replicas WHERE watermark + 2 * max_staleness < now()",
        rows.join(",")
    );
    postgres.fetch(sql).await.map(drop)
}
