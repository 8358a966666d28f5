//! Takes out of Redis what a change has outdated, so that replicas which cannot read the feed do not
//! go by it.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisError};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::{
    config,
    installation::Installation,
    redis_fault::RedisFault,
    resolve::{Backends, Domains, Principals, redis::redis_key},
    store::Touched,
};

/// A person would rather wait than leave an outdated entry behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why entries may still be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForgetError {
    /// Redis said no, or could not be reached.
    #[error("Redis: {}", RedisFault::from(.0))]
    Redis(#[from] RedisError),
    /// Redis did not answer.
    #[error("Redis did not answer within {PATIENCE:?}")]
    Timeout,
}

/// Deletes the entries that a change has outdated.
///
/// # Errors
///
/// When Redis cannot be reached: entries may then be used until they are too old.
pub(super) async fn forget(
    config: &config::Redis,
    installation: Installation,
    touched: &Touched,
) -> Result<(), ForgetError> {
    let prefix = installation.redis_prefix();
    let tokens = touched.tokens.iter().map(|token| redis_key::<Principals>(&prefix, token));
    let domains = touched.domains.iter().map(|domain| redis_key::<Domains>(&prefix, domain));
    let backends = touched.backends.iter().map(|backend| redis_key::<Backends>(&prefix, backend));
    let keys: Vec<_> = tokens.chain(domains).chain(backends).collect();
    let forget = async {
        let client = Client::open(config.url.expose_secret())?;
        // What the crate sets instead is shorter than our patience.
        let unbounded =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&unbounded).await?;
        for keys in keys.chunks(1000) {
            redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
        }
        Ok(())
    };
    if keys.is_empty() {
        return Ok(());
    }
    timeout(PATIENCE, forget).await.unwrap_or(Err(ForgetError::Timeout))
}
