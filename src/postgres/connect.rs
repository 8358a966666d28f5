//! Makes connections that also work through a connection pooler in transaction mode.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{Address, PostgresSettings, code, message, servers};

/// Time limit for a new connection, its TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Postgres's codes for a login that it does not let in: the wrong password, or any other reason.
const LOGIN_REFUSED: [&str; 2] = ["28P01", "28000"];

/// Postgres cannot be reached, with the setting that leads there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Postgres{server} ({key}): {reason}")]
pub struct ConnectError {
    pub(super) key: &'static str,
    /// The host and port, without user and password; empty if the error is not of one server.
    pub(super) server: String,
    pub(super) reason: String,
    /// Whether Postgres does not let this login in, or patgate does not use it.
    pub(super) login_refused: bool,
}

impl ConnectError {
    /// The setting that leads there.
    pub(crate) fn key(&self) -> &'static str {
        self.key
    }
}

/// Connects once, then returns a pool that connects to the same server when it is used.
///
/// Without a cache, sqlx still names the statement of a query that is `persistent`, which is the
/// default, and never closes it: queries on this pool must not be persistent.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn connect(settings: &PostgresSettings) -> Result<PgPool, ConnectError> {
    // The pool would retry until it times out, and then not say why.
    let connection = connect_one(settings).await?;
    let target = connection.target.clone();
    connection.close().await.map_err(|error| target.unreachable(&error))?;
    Ok(options_of_pools(settings).connect_lazy_with(target.options))
}

pub(super) fn options_of_pools(settings: &PostgresSettings) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        // A round trip before each use; a dead connection is found by using it.
        .test_before_acquire(false)
}

/// Makes one connection of the same kind.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn connect_one(settings: &PostgresSettings) -> Result<Connection, ConnectError> {
    settings.address.connect().await
}

/// A connection to the server that was the primary when it was made.
#[derive(Debug)]
pub(crate) struct Connection {
    connection: PgConnection,
    target: Target,
    address: Address,
    pub(super) generation: u64,
}

impl Connection {
    /// `generation` is that of the address before the connection was made.
    pub(super) fn new(
        connection: PgConnection,
        target: Target,
        address: Address,
        generation: u64,
    ) -> Self {
        Self { connection, target, address, generation }
    }

    /// Returns false once another server is known to be the primary, or another login replaces the
    /// one that this connection has.
    pub(crate) fn is_current(&self) -> bool {
        self.generation == self.address.generation()
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }

    /// What it was made with.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.target.options
    }

    /// Says that patgate does not use the login of this connection.
    pub(super) fn refuses(&self, reason: String) -> ConnectError {
        ConnectError { login_refused: true, ..self.target.unreachable_for(reason) }
    }

    /// Says which server an error is of.
    pub(super) fn unreachable(&self, error: &sqlx::Error) -> ConnectError {
        self.target.unreachable(error)
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// One server that a setting names, and the name of the setting.
#[derive(Clone)]
pub(super) struct Target {
    key: &'static str,
    options: PgConnectOptions,
}

/// The options hold the password.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Target {
    pub(super) fn new(key: &'static str, options: &PgConnectOptions) -> Self {
        Self { key, options: options.clone() }
    }

    /// The server to which the connections of a pool lead.
    pub(super) fn of_pool(key: &'static str, pool: &PgPool) -> Self {
        Self::new(key, &pool.connect_options())
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, ConnectError> {
        timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| self.unreachable_for("no answer".to_owned()))?
            .map_err(|error| self.unreachable(&error))
    }

    pub(super) fn unreachable(&self, error: &sqlx::Error) -> ConnectError {
        let login_refused = code(error).is_some_and(|code| LOGIN_REFUSED.contains(&code.as_str()));
        ConnectError { login_refused, ..self.unreachable_for(message(error)) }
    }

    pub(super) fn unreachable_for(&self, reason: String) -> ConnectError {
        let server = format!(" at {}", servers::name(&self.options));
        ConnectError { key: self.key, server, reason, login_refused: false }
    }
}

/// A URL that sqlx cannot parse.
pub(super) fn message_of_url(key: &'static str, error: &sqlx::Error) -> ConnectError {
    ConnectError { key, server: String::new(), reason: message(error), login_refused: false }
}
