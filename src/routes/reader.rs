//! Reads the backends from Postgres: names, addresses and kinds, and nothing of their credentials.

use std::time::Duration;

use patgate_routes::Described;
use sqlx::{Executor, Row};
use tokio::time::timeout;

use crate::{
    installation::Installation,
    postgres::{
        ConnectError, Connection, PostgresSettings, SchemaError, accept, connect_one,
        identity_column, installation,
    },
};

/// Time limit for the statement. That for a connection is in `postgres`.
const PATIENCE: Duration = Duration::from_secs(10);

/// One row, also if there is no backend.
const BACKENDS: &str = concat!(
    "SELECT ",
    identity_column!(),
    ", pg_is_in_recovery() AS standby,
     (SELECT version FROM patgate.schema_version) AS version,
     coalesce((SELECT json_agg(json_build_object('name', name, 'url', url, 'kind', kind))
               FROM patgate.backends), '[]')::text AS backends"
);

/// Reads the backends again and again, on one connection.
pub(crate) struct BackendReader {
    settings: PostgresSettings,
    connection: Option<Connection>,
    /// That of the first answer. Another one has other backends.
    installation: Option<Installation>,
}

/// Why the backends could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database cannot be used by this release or with this login.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The statement failed.
    #[error("reading the backends ({key}): {reason}")]
    Failed {
        /// The setting that leads to the server.
        key: &'static str,
        /// What Postgres said, or why it did not answer.
        reason: String,
    },
    /// The address leads to another installation than at the start.
    #[error(
        "postgres.url leads to another installation of patgate than when this process started; \
         nothing is written. Start it again if that is intended"
    )]
    OtherInstallation,
}

impl BackendReader {
    pub(crate) fn new(settings: PostgresSettings) -> Self {
        Self { settings, connection: None, installation: None }
    }

    /// Reads all backends, and the installation that they belong to.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached or used, or belongs to another installation than at first.
    /// The next call connects again.
    pub(crate) async fn read(&mut self) -> Result<(Vec<Described>, Installation), ReadError> {
        let connection = self.connection.take().filter(Connection::is_current);
        let mut connection = match connection {
            Some(connection) => connection,
            None => connect_one(&self.settings).await?,
        };
        let answer = self.ask(&mut connection).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn ask(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(Vec<Described>, Installation), ReadError> {
        let key = self.settings.key;
        let failed = |reason: String| ReadError::Failed { key, reason };
        let asked = timeout(PATIENCE, connection.fetch_one(sqlx::raw_sql(BACKENDS))).await;
        let row = asked.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?.map_err(
            |error| match error.as_database_error() {
                Some(refused) => failed(refused.message().to_owned()),
                None => failed(error.to_string()),
            },
        )?;
        let unread = |error: sqlx::Error| failed(error.to_string());
        if row.try_get("standby").map_err(unread)? {
            return Err(SchemaError::Standby(key).into());
        }
        accept(row.try_get("version").map_err(unread)?)?;
        let from = installation(&row).map_err(unread)?;
        if self.installation.is_some_and(|first| first != from) {
            return Err(ReadError::OtherInstallation);
        }
        let text: String = row.try_get("backends").map_err(unread)?;
        let described = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        self.installation = Some(from);
        Ok((described, from))
    }

    /// Closes the connection. One that is only dropped costs a pooler its connection to the server.
    pub(crate) async fn close(self) {
        if let Some(connection) = self.connection {
            let _ = connection.close().await;
        }
    }
}
