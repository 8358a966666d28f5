//! A replica's lease: tells administrators that it serves, and how far it has read.
//!
//! Nothing is decided by it. When it cannot be renewed, as on a read-only server, somebody who
//! waits for a change waits until this replica's knowledge must have expired.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;

use crate::{
    clock::Moment,
    installation::Installation,
    postgres::{AskError, Postgres},
    snapshot::Snapshot,
};

/// How often it is renewed while nothing changes.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Who holds it.
pub(crate) struct Lease {
    id: Uuid,
    name: String,
    max_staleness: Duration,
}

/// A lease as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) id: Uuid,
    name: String,
    snapshot: Snapshot,
    watermark: Moment,
    max_staleness: Duration,
}

impl Note {
    /// Whether nobody can rest on that knowledge any more.
    pub(super) fn has_expired(&self, now: Moment) -> bool {
        let life = i64::try_from((2 * self.max_staleness).as_micros()).unwrap_or(i64::MAX);
        self.watermark.0.saturating_add(life) < now.0
    }
}

/// What may become part of a statement as it is.
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

    /// That this replica knows what the snapshot sees, as of then.
    pub(super) fn note(&self, snapshot: Snapshot, watermark: Moment) -> Note {
        let Self { id, name, max_staleness } = self;
        Note { id: *id, name: name.clone(), snapshot, watermark, max_staleness: *max_staleness }
    }

    pub(super) async fn release(&self, postgres: &Postgres) {
        let sql = format!("DELETE FROM patgate.replicas WHERE id = '{}'", self.id);
        postgres.run("releasing the lease", sql).await;
    }

    /// That this replica is gone. A leader may have read its lease before that was taken back, and
    /// hand it on afterwards: this one stays, and none replaces it, until both are of the past.
    pub(super) fn released(&self, now: Moment) -> Note {
        self.note(Snapshot::of_all(), now)
    }
}

/// Hands leases to the administrators, those of others too. An old one that a leader hands on must
/// not replace what its replica has said since; and the clock may have been put back. To those of
/// another installation, where the address leads there by now, nothing is handed: they would wait
/// for a replica that does not serve them.
pub(super) async fn renew(
    postgres: &Postgres,
    installation: Installation,
    notes: &[Note],
) -> Result<(), AskError> {
    let row = |note: &Note| {
        let Note { id, name, snapshot, watermark, max_staleness } = note;
        let (watermark, max_staleness) = (watermark.0, max_staleness.as_micros());
        format!(
            "('{id}'::uuid, '{name}', '{snapshot}'::pg_snapshot,
              'epoch'::timestamptz + {watermark} * interval '1 microsecond',
              {max_staleness} * interval '1 microsecond')"
        )
    };
    let harmless = notes.iter().filter(|note| note.name.chars().all(is_harmless));
    let rows: Vec<String> = harmless.map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    // The next poll waits for this, and nobody's lock of these rows is to hold up a poll.
    let sql = format!(
        "SET LOCAL lock_timeout = '100ms';
         INSERT INTO patgate.replicas
             (id, name, snapshot, watermark, max_staleness, installation)
         SELECT note.*, '{installation}' FROM (VALUES {}) AS note
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
