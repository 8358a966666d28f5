//! Wakes the replicas that listen for changes.
//!
//! Not by the transaction of the change. All databases of a cluster share one queue of notifications,
//! and a transaction that notifies takes one lock for all of them as it commits: any login of the
//! cluster could hold a change up, or make it fail.

use std::time::Duration;

use sqlx::{Executor, PgPool, pool::PoolConnection};
use tokio::time::timeout;

/// In all. Beyond that, the next poll of the replicas is about as soon.
const PATIENCE: Duration = Duration::from_millis(500);

/// As `Installation::channel` has it. The lock is taken at the end, where no `statement_timeout`
/// holds any more, and kept until the commit is over: that must not wait for a synchronous standby.
const NOTIFY: &str = "SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '200ms';
    SET LOCAL synchronous_commit = off;
    SELECT pg_notify('patgate_changes_' || replace(i.id::text, '-', ''), '')
    FROM patgate.installation i";

/// Notifies, after a commit. Whatever goes wrong here costs a part of the time between two polls.
pub(super) async fn send(pool: &PgPool) {
    let mut connection = None;
    let notify =
        async { connection.insert(pool.acquire().await?).execute(sqlx::raw_sql(NOTIFY)).await };
    match timeout(PATIENCE, notify).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "notifying the replicas"),
        // The answer may never come, and the pool would wait for it.
        Err(_) => drop(connection.map(PoolConnection::detach)),
    }
}
