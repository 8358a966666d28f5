//! How many connections one replica holds: those of Envoy, and those to Postgres.

use crate::{
    config::{Config, RedisSettings, RedisTopology},
    postgres::{self, Address, ConnectError, ConnectionDemand},
    process::descriptors,
    server,
};

/// Files and connections without a reservation of their own: logs, API tables, commands.
const SPARE_DESCRIPTORS: usize = 64;
/// How many nodes of a cluster, replicas included, connections are reserved for.
const CLUSTER_NODES: usize = 12;
/// Connections to Postgres for the feed, its listener, the relay's lock, the canary and last uses.
const OTHER_POSTGRES: usize = 8;

/// How many connections each gRPC listener may hold, so that enough descriptors are left for stores,
/// health and metrics.
pub(super) fn max_connections(config: &Config) -> usize {
    let redis = config.redis.as_ref().map_or(0, redis_connections);
    let reserved = SPARE_DESCRIPTORS
        + server::HTTP_DESCRIPTORS
        + OTHER_POSTGRES
        + config.postgres.max_connections as usize
        + redis;
    let listeners = [config.listen.grpc.is_some(), config.listen.uds.is_some()];
    let listeners = listeners.into_iter().filter(|listens| *listens).count();
    let wanted = config.max_connections;
    let places = descriptors::places(wanted, descriptors::raise(), reserved, listeners);
    if places < wanted {
        tracing::warn!(
            places,
            "the limit on open files (ulimit -n) allows fewer connections than \
             grpc.max_connections",
        );
    }
    places
}

/// How many connections to Redis there may be: those for lookups, one for writes, and the relay's.
fn redis_connections(redis: &RedisSettings) -> usize {
    let uses = redis.max_connections + 2;
    match redis.topology {
        RedisTopology::Single => uses,
        // Asking the Sentinels takes a connection to each, and a test of the master.
        RedisTopology::Sentinel(_) => uses + redis.urls.len() + 1,
        RedisTopology::Cluster => uses * CLUSTER_NODES.max(redis.urls.len()),
    }
}

/// Says which of Postgres's connection limits is too low for this replica, and what to do.
///
/// # Errors
///
/// If Postgres cannot be reached.
pub(crate) async fn connection_shortage(config: &Config) -> Result<Option<String>, ConnectError> {
    let feed = config.feed.is_some().then(|| config.feed());
    let last_uses = 1;
    let canary = u32::from(config.canary_every.is_some());
    let listener = u32::from(config.feed.is_some());
    // Among several servers, the search for the primary connects to each of them.
    let search = u32::from(config.postgres.address.has_several());
    let feed_search = u32::from(config.feed.as_ref().is_some_and(Address::has_several));
    let others = last_uses + canary + search;
    let demand = ConnectionDemand {
        lookups: config.postgres.max_connections.saturating_add(others),
        feed: 1 + listener + u32::from(config.relay) + feed_search,
    };
    postgres::shortage(&config.postgres, feed.as_ref(), demand).await
}
