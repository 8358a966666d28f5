//! Makes connections that also work through a connection pooler in transaction mode.

use std::{str::FromStr as _, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{PostgresSettings, message};

/// Time limit for a new connection, its TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Postgres cannot be reached, with the setting that leads there.
#[derive(Debug, thiserror::Error)]
#[error("Postgres{server} ({key}): {reason}")]
pub struct ConnectError {
    key: &'static str,
    /// The host and port, without user and password; empty if the URL does not name them.
    server: String,
    reason: String,
}

impl ConnectError {
    /// The setting that leads there.
    pub(crate) fn key(&self) -> &'static str {
        self.key
    }
}

/// Connects once, then returns a pool that connects when it is used.
///
/// The connections need nothing that PgBouncer lacks: no unusual startup parameter, no prepared
/// statement and no other state of a session. Without a cache, sqlx still names the statement of a
/// query that is `persistent`, which is the default, and never closes it: queries on this pool must
/// not be persistent.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn connect(settings: &PostgresSettings) -> Result<PgPool, ConnectError> {
    let target = Target::of(settings.key, &settings.url)?;
    // The pool would retry until it times out, and then not say why.
    target.connect().await?.close().await.map_err(|error| target.unreachable(&error))?;
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        // A round trip before each use; a dead connection is found by using it.
        .test_before_acquire(false)
        .connect_lazy_with(target.options))
}

/// Makes one connection of the same kind.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn connect_one(settings: &PostgresSettings) -> Result<PgConnection, ConnectError> {
    Target::of(settings.key, &settings.url)?.connect().await
}

/// The server that a setting names, and the name of the setting.
pub(super) struct Target {
    key: &'static str,
    options: PgConnectOptions,
}

impl Target {
    pub(super) fn of(key: &'static str, url: &SecretString) -> Result<Self, ConnectError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|error| ConnectError { key, server: String::new(), reason: message(&error) })?
            .application_name("patgate")
            .extra_float_digits(None)
            .statement_cache_capacity(0)
            // A caller that waits for a slow statement reports the reason itself.
            .disable_statement_logging();
        Ok(Self { key, options })
    }

    /// The server to which the connections of a pool lead.
    pub(super) fn of_pool(key: &'static str, pool: &PgPool) -> Self {
        Self { key, options: PgConnectOptions::clone(&pool.connect_options()) }
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, ConnectError> {
        timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| self.unreachable_for("no answer".to_owned()))?
            .map_err(|error| self.unreachable(&error))
    }

    pub(super) fn unreachable(&self, error: &sqlx::Error) -> ConnectError {
        self.unreachable_for(message(error))
    }

    fn unreachable_for(&self, reason: String) -> ConnectError {
        let options = &self.options;
        let host = options.get_socket().map_or_else(
            || options.get_host().to_owned(),
            |directory| directory.display().to_string(),
        );
        let server = format!(" at {host}, port {}", options.get_port());
        ConnectError { key: self.key, server, reason }
    }
}
