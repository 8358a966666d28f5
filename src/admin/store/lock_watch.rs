//! Reports which sessions keep a transaction waiting for a lock.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::{task::JoinHandle, time::sleep};

use super::{Error, sql_scalar};

/// How long a transaction may wait before the holders are reported, and how often to look again.
const NOTICED: Duration = Duration::from_secs(1);

/// The sessions that hold what another one waits for, by that one's application name. How long a
/// session of another login has been in its transaction is shown to `pg_read_all_stats` only.
const HOLDERS: &str = "
    SELECT string_agg(DISTINCT format('%s (pid %s, login %s, %s)',
               coalesce(nullif(h.application_name, ''), h.backend_type, 'a session'), h.pid,
               coalesce(h.usename, '?'),
               coalesce('in a transaction since '
                   || to_char(h.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                   'since when, only pg_read_all_stats may see')), '; ')
    FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
    JOIN pg_stat_activity h ON h.pid = b.pid
    WHERE w.application_name = $1";

/// Watches one transaction, until it is dropped.
#[derive(Debug)]
pub(super) struct LockWatch(JoinHandle<()>);

impl LockWatch {
    /// Watches the transaction that has this application name, which no other one may have: behind a
    /// pooler, a process id would not be known without asking.
    pub(super) fn over(pool: PgPool, application: String) -> Self {
        Self(tokio::spawn(async move {
            let mut reported = None;
            loop {
                sleep(NOTICED).await;
                let holders = sql_scalar::<Option<String>>(HOLDERS).bind(&application);
                // Without an answer there is nothing to report.
                let Ok(holders) = holders.fetch_one(&pool).await else { continue };
                if let Some(holders) = &holders
                    && reported.as_ref() != Some(holders)
                {
                    tracing::warn!("waiting for a lock that is held by {holders}");
                }
                reported = holders.or(reported);
            }
        }))
    }
}

/// A transaction that only reads, watched in the same way.
#[derive(Debug)]
pub(super) struct ReadTransaction {
    tx: Transaction<'static, Postgres>,
    _watch: LockWatch,
}

impl ReadTransaction {
    pub(super) fn new(tx: Transaction<'static, Postgres>, watch: LockWatch) -> Self {
        Self { tx, _watch: watch }
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        Ok(self.tx.commit().await?)
    }
}

impl Deref for ReadTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for ReadTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl Drop for LockWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
