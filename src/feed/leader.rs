//! Which replica relays the feed: the one that holds an advisory lock in Postgres.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::{
    installation::Installation,
    postgres::{PostgresSettings, connect_one},
};

/// How long taking the lock may take, or finding out that it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes the lock. Postgres ends a session, and with it the lock, if it is silent for five seconds:
/// the holder sends something every second, and one that is frozen or cut off would otherwise keep
/// the lock for hours. In another installation the lock is not taken.
fn take_lock(installation: Installation) -> String {
    let id = installation.id();
    format!(
        "SET idle_session_timeout = '5s';
         SELECT CASE WHEN patgate.identity() = '{installation}' THEN
             CASE WHEN pg_try_advisory_lock(hashtextextended('patgate relay {id}', 0))
             THEN pg_current_xact_id()::text END END AS epoch"
    )
}

/// The lock. A connection of its own holds it until this is dropped.
pub(super) struct Leadership {
    /// Higher than that of any leader before, on this server.
    pub(super) epoch: u64,
    connection: PgConnection,
}

impl Leadership {
    /// Takes the lock. Returns `None` if another replica has it, or if that cannot be known.
    pub(super) async fn take(
        settings: &PostgresSettings,
        installation: Installation,
    ) -> Option<Self> {
        let take = async {
            let mut connection = connect_one(settings).await.map_err(sqlx::Error::config)?;
            let taken =
                connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(take_lock(installation)))).await?;
            let epoch: Option<String> = taken.try_get("epoch")?;
            let Some(epoch) = epoch.and_then(|epoch| epoch.parse().ok()) else {
                connection.close().await?;
                return Ok(None);
            };
            Ok(Some(Self { epoch, connection }))
        };
        match timeout(PATIENCE, take).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                let error: sqlx::Error = error;
                tracing::debug!(%error, "asking for the relay's lock");
                None
            }
            Err(_) => None,
        }
    }

    /// Whether the connection still works, which holds the lock.
    pub(super) async fn holds(&mut self) -> bool {
        let asked = self.connection.execute(sqlx::raw_sql("SELECT"));
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }
}
