//! Detects a pooler in transaction mode in front of Postgres. State of a session, such as `LISTEN`,
//! a session lock and a connection limit, then belongs to the pooler's connection.

use std::time::Duration;

use sqlx::{Executor as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::{ConnectError, PostgresSettings, connect_one};

/// Identifies the backend that answers, and its server.
const BACKEND: &str = "SELECT pg_backend_pid() || ' ' || pg_postmaster_start_time() AS backend";
/// A pooler may hand out several backends in turn.
const ROUNDS: usize = 3;
/// A pooler may have no second backend while the first is in use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns whether two sessions share one backend, or one session has several. Neither happens
/// without a pooler. A pooler may be missed while all its backends are busy.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn is_pooled(settings: &PostgresSettings) -> Result<bool, ConnectError> {
    let mut one = connect_one(settings).await?;
    let mut other = connect_one(settings).await?;
    let compared = timeout(PATIENCE, compare(&mut one, &mut other)).await;
    let Ok(Ok(pooled)) = compared else { return Ok(false) };
    for connection in [one, other] {
        // An error on closing says nothing about the result.
        let _ = connection.close().await;
    }
    Ok(pooled)
}

async fn compare(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let first = backend(one).await?;
    for _ in 0..ROUNDS {
        other.execute("BEGIN").await?;
        if backend(other).await? == first || backend(one).await? != first {
            return Ok(true);
        }
        other.execute("ROLLBACK").await?;
    }
    Ok(false)
}

async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(BACKEND)).await?.try_get("backend")
}
