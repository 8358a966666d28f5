//! Says who keeps a command waiting for a lock.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::{task::JoinHandle, time::sleep};

use super::{Error, sql_scalar};

/// How long a command may wait before it says for whom, and how often it looks again.
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

/// Watches a transaction until this is dropped.
#[derive(Debug)]
pub(super) struct Watch(JoinHandle<()>);

impl Watch {
    /// Watches the transaction that has this application name, which no other one may have: behind a
    /// pooler, a process id would not be known without asking.
    pub(super) fn over(pool: PgPool, application: String) -> Self {
        Self(tokio::spawn(async move {
            let mut told = None;
            loop {
                sleep(NOTICED).await;
                let holders = sql_scalar::<Option<String>>(HOLDERS).bind(&application);
                // While it cannot be known, there is nothing to say.
                let Ok(holders) = holders.fetch_one(&pool).await else { continue };
                if let Some(holders) = &holders
                    && told.as_ref() != Some(holders)
                {
                    tracing::warn!("waiting for a lock that is held by {holders}");
                }
                told = holders.or(told);
            }
        }))
    }
}

/// A transaction that reads, and is watched meanwhile.
#[derive(Debug)]
pub(super) struct View {
    tx: Transaction<'static, Postgres>,
    _watch: Watch,
}

impl View {
    pub(super) fn new(tx: Transaction<'static, Postgres>, watch: Watch) -> Self {
        Self { tx, _watch: watch }
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        Ok(self.tx.commit().await?)
    }
}

impl Deref for View {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
