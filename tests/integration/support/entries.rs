//! Entries in Redis.

use std::time::Duration;

use futures_util::future::join_all;
use patgate_testing::eventually;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::support::{
    Token, World,
    fleet::{Fleet, MODELS, answer},
    redis_at,
    tokens::reader,
};

pub(crate) async fn entries_written(world: &World<'_>, at_least: usize) {
    let connection = redis_at(&world.redis_url).await;
    eventually("entries in Redis", async || {
        let size = redis::cmd("DBSIZE").query_async(&mut connection.clone()).await;
        size.is_ok_and(|size: usize| size >= at_least)
    })
    .await;
}

pub(crate) fn key(world: &World<'_>, token: &Token) -> String {
    world.in_redis(&format!("principal:{}", token.id))
}

/// Returns the keys of this token's entry, of the one installation that uses this Redis database.
pub(crate) async fn held(redis: &MultiplexedConnection, token: &Token) -> Vec<u8> {
    let mut redis = redis.clone();
    let pattern = format!("patgate:5:*:principal:{}", token.id);
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap_or_default();
    assert!(keys.len() <= 1, "{keys:?}");
    let Some(key) = keys.first() else { return Vec::new() };
    redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap_or_default()
}

pub(crate) async fn all_held(redis: &MultiplexedConnection, tokens: &[&Token]) {
    eventually("entries in Redis", async || {
        join_all(tokens.iter().map(|token| held(redis, token))).await.iter().all(|v| !v.is_empty())
    })
    .await;
}

/// Returns whether an entry is written. A write that takes longer than the timeout of Redis is
/// dropped for good.
pub(crate) async fn arrives(redis: &MultiplexedConnection, token: &Token) -> bool {
    timeout(Duration::from_secs(1), all_held(redis, &[token])).await.is_ok()
}

/// Waits until these replicas have no pending writes, which would replace a planted value. Each
/// replica writes in order, so a later entry shows it.
pub(crate) async fn settled(redis: &MultiplexedConnection, world: &World<'_>, fleet: &Fleet) {
    for replica in &fleet.0 {
        eventually("what was found to be written", async || {
            let later = reader(world).await;
            assert_eq!(answer(replica, &later, MODELS).await, 200);
            arrives(redis, &later).await
        })
        .await;
    }
}

pub(crate) async fn repaired(redis: &MultiplexedConnection, token: &Token, planted: &[u8]) {
    eventually("the entry to be repaired", async || {
        let held = held(redis, token).await;
        held != planted && held.len() > 40
    })
    .await;
}
