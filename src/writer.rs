//! Writes to Postgres that no request waits for: a connection of their own, so that they take none
//! from the look-ups, and nothing is tried for long.
//!
//! As in `postgres.rs`, statements are sent by the simple query protocol; what becomes a literal is
//! by type a uuid or a number.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, postgres::PgRow};
use tokio::time::timeout;

use crate::{config, installation::Installation, schema, telemetry::Metrics};

/// The code by which a statement of ours says that it met another installation.
const ELSEWHERE: &str = "PG404";

/// One connection, made when it is first needed.
pub(crate) struct Writer {
    settings: config::Postgres,
    installation: Installation,
    metrics: Metrics,
    kept: Option<PgConnection>,
}

/// Why nothing was written, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The address leads somewhere else than at the start.
    #[error(
        "{key} leads to another installation of patgate, where nothing is written: expected \
         {expected}, found {found} (system/database/installation)"
    )]
    Elsewhere { key: &'static str, expected: Installation, found: String },
}

impl Writer {
    /// For this installation alone.
    pub(crate) fn new(
        settings: config::Postgres,
        installation: Installation,
        metrics: Metrics,
    ) -> Self {
        Self { settings, installation, metrics, kept: None }
    }

    /// Runs statements as one transaction and returns the last row that comes of them. They may
    /// be run twice: when it fails on a connection that was kept, which may be dead or lead to a
    /// server that is no longer the primary, it is tried on a new one.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<PgRow, WriteError> {
        let limit = self.settings.query_timeout;
        // Not for longer on the server, either, where it may wait for somebody's lock of a table;
        // and nobody needs these writes to have reached a standby. All of it is one transaction, so
        // nothing is written where another installation answers.
        let sql = format!(
            "SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit};
             SET LOCAL synchronous_commit = local;
             DO $$ BEGIN
                 IF patgate.identity() IS DISTINCT FROM '{installation}' THEN
                     RAISE EXCEPTION '%', patgate.identity() USING ERRCODE = '{ELSEWHERE}';
                 END IF;
             END $$;
             {sql}",
            limit = limit.as_millis().max(1),
            installation = self.installation,
        );
        let attempts = async {
            if let Some(kept) = self.kept.take()
                && let Ok((row, kept)) = attempt(kept, sql.clone()).await
            {
                return Ok((row, kept));
            }
            attempt(schema::connect_one(&self.settings).await?, sql)
                .await
                .map_err(|error| self.elsewhere(error))
        };
        // A connection whose statement failed or was cut short is closed.
        let (row, connection) =
            timeout(limit, attempts).await.map_err(|_| WriteError::Timeout(limit))??;
        self.kept = Some(connection);
        Ok(row)
    }

    /// Says so where another installation answered.
    fn elsewhere(&self, error: WriteError) -> WriteError {
        let WriteError::Sqlx(sqlx::Error::Database(refusal)) = &error else { return error };
        if refusal.code().as_deref() != Some(ELSEWHERE) {
            return error;
        }
        let (key, expected) = (self.settings.key, self.installation);
        self.metrics.led_elsewhere(key);
        WriteError::Elsewhere { key, expected, found: refusal.message().to_owned() }
    }
}

async fn attempt(
    mut connection: PgConnection,
    sql: String,
) -> Result<(PgRow, PgConnection), WriteError> {
    let mut rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    let last = rows.pop().ok_or(sqlx::Error::RowNotFound)?;
    Ok((last, connection))
}
