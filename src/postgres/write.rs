//! Writes to Postgres that no request waits for. They have a separate connection, so that they take
//! none from the lookups, and they are retried once at most.
//!
//! As in `ask.rs`, statements are sent by the simple query protocol. By its type, every literal is
//! a uuid or a number.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, postgres::PgRow};
use tokio::time::timeout;

use super::{ConnectError, Connection, Counters, PostgresSettings, connect_one};
use crate::installation::Installation;

/// The SQLSTATE by which a statement reports that it ran in another installation.
const OTHER_INSTALLATION: &str = "PG404";

/// Writes over one connection, which it makes at the first write.
pub(crate) struct BackgroundWriter {
    settings: PostgresSettings,
    installation: Installation,
    counters: Counters,
    kept: Option<Connection>,
}

/// Why a statement did not succeed. Postgres may have executed it nevertheless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The address leads to another database than at the start.
    #[error(
        "{key} leads to another installation of patgate, where nothing is written: expected \
         {expected}, found {found} (system/database/installation)"
    )]
    OtherInstallation { key: &'static str, expected: Installation, found: String },
}

impl BackgroundWriter {
    /// A writer that writes to this installation only.
    pub(crate) fn new(
        settings: PostgresSettings,
        installation: Installation,
        counters: Counters,
    ) -> Self {
        Self { settings, installation, counters, kept: None }
    }

    /// Runs statements as one transaction and returns the last row. They may run twice: if they
    /// fail on a kept connection, which may be dead or lead to a server that is no longer the
    /// primary, they are tried again on a new one.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<PgRow, WriteError> {
        let limit = self.settings.query_timeout;
        // The time is limited on the server also, because another session may hold a lock; and
        // these writes need not have reached a standby. All of it is one transaction, so nothing is
        // written if another installation answers.
        let sql = format!(
            "SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit};
             SET LOCAL synchronous_commit = local;
             DO $$ BEGIN
                 IF patgate.identity() IS DISTINCT FROM '{installation}' THEN
                     RAISE EXCEPTION '%', patgate.identity() USING ERRCODE = '{OTHER_INSTALLATION}';
                 END IF;
             END $$;
             {sql}",
            limit = limit.as_millis().max(1),
            installation = self.installation,
        );
        let attempts = async {
            if let Some(kept) = self.kept.take().filter(Connection::is_current)
                && let Ok((row, kept)) = attempt(kept, sql.clone()).await
            {
                return Ok((row, kept));
            }
            attempt(connect_one(&self.settings).await?, sql)
                .await
                .map_err(|error| self.explain(error))
        };
        // A connection whose statement failed or was cut short is closed.
        let (row, connection) =
            timeout(limit, attempts).await.map_err(|_| WriteError::Timeout(limit))??;
        self.kept = Some(connection);
        Ok(row)
    }

    /// Recognizes the error by which a statement reports another installation.
    fn explain(&self, error: WriteError) -> WriteError {
        let WriteError::Sqlx(sqlx::Error::Database(refusal)) = &error else { return error };
        if refusal.code().as_deref() != Some(OTHER_INSTALLATION) {
            return error;
        }
        self.counters.other_installation.inc();
        WriteError::OtherInstallation {
            key: self.settings.key,
            expected: self.installation,
            found: refusal.message().to_owned(),
        }
    }
}

async fn attempt(
    mut connection: Connection,
    sql: String,
) -> Result<(PgRow, Connection), WriteError> {
    let mut rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    let last = rows.pop().ok_or(sqlx::Error::RowNotFound)?;
    Ok((last, connection))
}
