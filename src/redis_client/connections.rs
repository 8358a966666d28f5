//! Makes every connection to Redis.

use std::sync::Arc;

use deadpool::managed::{Metrics, RecycleError, RecycleResult};
use redis::RedisError;

use super::{access::RedisAccess, connection::RedisConnection, connector::ConnectionLimits};

/// Makes connections for one use of Redis. A pool of these connections does not test a connection
/// before reuse.
///
/// The managers of deadpool-redis send a `PING` before each reuse, which would be a second round
/// trip for each lookup. Here, the user of a connection closes it if a command failed or timed out,
/// and never returns it to the pool. So the connections in the pool need no test. Those that were
/// made with earlier logins or certificates are replaced.
pub(crate) struct RedisConnections {
    access: Arc<RedisAccess>,
    limits: ConnectionLimits,
}

impl RedisConnections {
    /// The caller always limits the time of commands.
    pub(crate) fn new(access: Arc<RedisAccess>, limits: ConnectionLimits) -> Self {
        Self { access, limits }
    }

    /// Makes one connection, outside of any pool.
    ///
    /// # Errors
    ///
    /// If Redis cannot be reached, or refuses the user, the password or the database.
    pub(crate) async fn connect(&self) -> Result<RedisConnection, RedisError> {
        self.access.connect(self.limits).await
    }

    /// Whether a connection has the current login and certificates.
    pub(crate) fn are_current(&self, connection: &RedisConnection) -> bool {
        self.access.is_current(connection)
    }
}

impl deadpool::managed::Manager for RedisConnections {
    type Type = RedisConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<RedisConnection, RedisError> {
        self.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut RedisConnection,
        _: &Metrics,
    ) -> RecycleResult<RedisError> {
        match self.are_current(connection) {
            true => Ok(()),
            false => Err(RecycleError::message("made with earlier logins or certificates")),
        }
    }
}
