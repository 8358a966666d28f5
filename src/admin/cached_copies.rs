//! Deletes outdated copies from Redis, so that replicas which cannot read the feed of changes do not
//! use them.

use std::{sync::Arc, time::Duration};

use redis::RedisError;
use tokio::time::timeout;

use super::CachedCopies;
use crate::{
    admin::store::OutdatedCopies,
    config::RedisSettings,
    redis_client::{
        access::{RedisAccess, RedisAccessError},
        connector::ConnectionLimits,
        fault::RedisFault,
    },
    resolve::{Backends, Domains, Principals, redis::redis_key},
};

/// An operator prefers to wait rather than leave an outdated copy behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why outdated copies may still be in Redis.
#[derive(Debug, thiserror::Error)]
pub enum CachedCopiesError {
    /// Redis refused the command, or could not be reached.
    #[error("Redis: {}", RedisFault::from(.0))]
    Redis(#[from] RedisError),
    /// A file of logins or certificates cannot be used.
    #[error(transparent)]
    Access(#[from] RedisAccessError),
    /// Redis did not answer.
    #[error("Redis did not answer within {PATIENCE:?}")]
    Timeout,
}

/// Deletes the copies that a change has made outdated.
///
/// # Errors
///
/// If Redis cannot be reached. Replicas may then use the copies until they are too old.
pub(super) async fn delete_cached_copies(
    copies: &CachedCopies,
    outdated: &OutdatedCopies,
) -> Result<(), Arc<CachedCopiesError>> {
    let keys = keys(&copies.installation.redis_prefix(), outdated);
    match &copies.redis {
        Some(redis) if !keys.is_empty() => {
            let deleted = timeout(PATIENCE, delete(redis, &keys)).await;
            deleted.unwrap_or(Err(CachedCopiesError::Timeout)).map_err(Arc::new)
        }
        _ => Ok(()),
    }
}

/// The keys of the copies in Redis.
fn keys(prefix: &str, outdated: &OutdatedCopies) -> Vec<String> {
    let OutdatedCopies { tokens, domains, backends } = outdated;
    let tokens = tokens.iter().map(|token| redis_key::<Principals>(prefix, token));
    let domains = domains.iter().map(|domain| redis_key::<Domains>(prefix, domain));
    let backends = backends.iter().map(|backend| redis_key::<Backends>(prefix, backend));
    tokens.chain(domains).chain(backends).collect()
}

async fn delete(redis: &RedisSettings, keys: &[String]) -> Result<(), CachedCopiesError> {
    let limits = ConnectionLimits { within: None, silence: PATIENCE };
    let mut connection = RedisAccess::open(redis)?.connect(limits).await?;
    for keys in keys.chunks(1000) {
        redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
    }
    Ok(())
}
