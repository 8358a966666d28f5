//! Wakes the replicas that listen for changes.
//!
//! The transaction of the change does not do this itself. All databases of a cluster share one queue of
//! notifications, and a transaction that notifies locks that queue while it commits. Any login of the
//! cluster could then delay a change or make it fail.

use std::time::Duration;

use sqlx::{Executor, PgPool, pool::PoolConnection};
use tokio::time::timeout;

/// Time limit for the whole notification. By then, the next poll of the replicas is about as soon.
const PATIENCE: Duration = Duration::from_millis(500);

/// The channel is that of `Installation::channel`. The lock is taken at the end of the transaction,
/// where `statement_timeout` no longer applies, and held until the commit is complete, which therefore
/// must not wait for a synchronous standby.
const NOTIFY: &str = "SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '200ms';
    SET LOCAL synchronous_commit = off;
    SELECT pg_notify('patgate_changes_' || replace(i.id::text, '-', ''), '')
    FROM patgate.installation i";

/// Notifies the replicas after a commit. If this fails, they learn of the change by their next poll.
pub(super) async fn send(pool: &PgPool) {
    send_by(pool, NOTIFY).await;
}

/// The same for a login of `patgate_web`, which cannot read the id of the installation.
pub(crate) async fn send_for_web(pool: &PgPool) {
    const NOTIFY: &str = "SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '200ms';
        SET LOCAL synchronous_commit = off; SELECT patgate.web_wake()";
    send_by(pool, NOTIFY).await;
}

async fn send_by(pool: &PgPool, statements: &'static str) {
    let mut connection = None;
    let notify =
        async { connection.insert(pool.acquire().await?).execute(sqlx::raw_sql(statements)).await };
    match timeout(PATIENCE, notify).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "notifying the replicas"),
        // The answer may never come, and the pool would wait for it.
        Err(_) => drop(connection.map(PoolConnection::detach)),
    }
}
