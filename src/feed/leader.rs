//! Who relays the feed: the replica that holds an advisory lock in Postgres.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::{config, installation::Installation, schema};

/// For taking the lock, and for finding out that it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// A session that says nothing for so long is ended by Postgres, and the lock with it. The holder
/// speaks every second; one that is frozen, or was cut off without a word, would keep it for hours.
/// Where another installation answers, nobody leads ours.
fn take_lock(installation: Installation) -> String {
    let id = installation.id();
    format!(
        "SET idle_session_timeout = '5s';
         SELECT CASE WHEN patgate.identity() = '{installation}' THEN
             CASE WHEN pg_try_advisory_lock(hashtextextended('patgate relay {id}', 0))
             THEN pg_current_xact_id()::text END END AS epoch"
    )
}

/// The lock, held by a connection of its own for as long as this lives.
pub(super) struct Leadership {
    /// Higher than that of any leader before, on this server.
    pub(super) epoch: u64,
    connection: PgConnection,
}

impl Leadership {
    /// Nothing when another replica has it, or when that cannot be known.
    pub(super) async fn take(
        settings: &config::Postgres,
        installation: Installation,
    ) -> Option<Self> {
        let take = async {
            let mut connection =
                schema::connect_one(settings).await.map_err(sqlx::Error::config)?;
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

    /// Whether the connection stands, and with it the lock.
    pub(super) async fn holds(&mut self) -> bool {
        let asked = self.connection.execute(sqlx::raw_sql("SELECT"));
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }
}
