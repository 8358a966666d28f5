//! Makes every connection to Redis.

use std::time::Duration;

use deadpool::managed::{Manager as _, Metrics, RecycleResult};
use deadpool_redis::Manager;
use redis::{AsyncConnectionConfig, RedisError, aio::MultiplexedConnection};
use secrecy::{ExposeSecret, SecretString};

/// Connects to one server. A pool of these connections hands each out without asking it first.
///
/// The manager of deadpool-redis sends a `PING` before each reuse, which would be a second round trip
/// for each lookup. Here a connection whose command failed or timed out is closed by its user and
/// never returns to the pool, so the connections in the pool need no test.
pub(crate) struct RedisConnections(Manager);

impl RedisConnections {
    /// `within` bounds a new connection with its TLS and authentication; with `None`, the caller
    /// bounds it. How long a command may take is always for the caller to say.
    ///
    /// # Errors
    ///
    /// If the URL is not one of a Redis.
    pub(crate) fn new(url: &SecretString, within: Option<Duration>) -> Result<Self, RedisError> {
        // The crate has timeouts of its own otherwise, which are shorter than some of ours.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(within).set_response_timeout(None);
        Manager::new_with_config(url.expose_secret(), config).map(Self)
    }

    /// Makes one connection, outside of any pool.
    ///
    /// # Errors
    ///
    /// If Redis cannot be reached, or refuses the user, the password or the database.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        self.0.create().await
    }
}

impl deadpool::managed::Manager for RedisConnections {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.connect().await
    }

    async fn recycle(
        &self,
        _: &mut MultiplexedConnection,
        _: &Metrics,
    ) -> RecycleResult<RedisError> {
        Ok(())
    }
}
