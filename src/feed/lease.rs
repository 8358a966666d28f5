//! A replica's lease: tells administrators that it serves, and how far it has read.
//!
//! Nothing is decided by it. When it cannot be renewed, as on a read-only server, somebody who
//! waits for a change waits until this replica's knowledge must have expired.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgPool, types::Uuid};
use tokio::time::timeout;

use crate::{clock::Moment, snapshot::Snapshot};

/// How often it is renewed while nothing changes.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Lease {
    id: Uuid,
    name: String,
    max_staleness: Duration,
}

impl Lease {
    pub(crate) fn new(max_staleness: Duration) -> Self {
        // It becomes part of a statement, so it is made of harmless letters only.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let harmless = |letter: &char| letter.is_ascii_alphanumeric() || ".-_".contains(*letter);
        let host: String = host.chars().filter(harmless).take(100).collect();
        let name = format!("{host}:{}", std::process::id());
        Self { id: Uuid::new_v4(), name, max_staleness }
    }

    pub(super) async fn renew(&self, pool: &PgPool, snapshot: &Snapshot, watermark: Moment) {
        let Self { id, name, max_staleness } = self;
        let sql = format!(
            "INSERT INTO patgate.replicas (id, name, snapshot, watermark, max_staleness) VALUES
                 ('{id}', '{name}', '{snapshot}',
                  'epoch'::timestamptz + {} * interval '1 microsecond',
                  {} * interval '1 microsecond')
             ON CONFLICT (id) DO UPDATE
                 SET snapshot = excluded.snapshot, watermark = excluded.watermark;
             DELETE FROM patgate.replicas WHERE watermark + 2 * max_staleness < now()",
            watermark.0,
            max_staleness.as_micros(),
        );
        self.run(pool, sql).await;
    }

    pub(super) async fn release(&self, pool: &PgPool) {
        self.run(pool, format!("DELETE FROM patgate.replicas WHERE id = '{}'", self.id)).await;
    }

    async fn run(&self, pool: &PgPool, sql: String) {
        let run = pool.execute(sqlx::raw_sql(AssertSqlSafe(sql)));
        match timeout(RENEW_EVERY, run).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "renewing the lease"),
            Err(_) => tracing::debug!("renewing the lease took too long"),
        }
    }
}
