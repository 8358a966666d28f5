//! Makes every connection to Redis.

use std::time::Duration;

use deadpool::managed::{Manager as _, Metrics, RecycleResult};
use deadpool_redis::Manager;
use redis::{AsyncConnectionConfig, RedisError, aio::MultiplexedConnection};
use secrecy::{ExposeSecret, SecretString};

/// Connects to one server. A pool of these connections does not test a connection before reuse.
///
/// The manager of deadpool-redis sends a `PING` before each reuse, which would be a second round
/// trip for each lookup. Here, the user of a connection closes it if a command failed or timed out,
/// and never returns it to the pool. So the connections in the pool need no test.
pub(crate) struct RedisConnections(Manager);

impl RedisConnections {
    /// `within` limits the time for a new connection with its TLS and authentication; if `None`,
    /// the caller limits it. The caller always limits the time of commands.
    ///
    /// # Errors
    ///
    /// If the URL is not a Redis URL.
    pub(crate) fn new(url: &SecretString, within: Option<Duration>) -> Result<Self, RedisError> {
        // Otherwise the crate's own timeouts would apply, some of which are shorter than patgate's.
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
