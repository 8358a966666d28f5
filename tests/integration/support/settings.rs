//! Settings that several tests give their replicas.

use patgate_testing::proxy::Proxy;

use super::World;

/// So long that only the feed can have announced the change.
pub(crate) const PATIENT: [&str; 2] = ["max_staleness=60s", "negative_ttl=60s"];

/// For replicas that must give up dead connections about as soon as with the shipped settings.
pub(crate) const PROMPT: [&str; 2] = ["postgres.query_timeout=1s", "redis.timeout=1s"];

/// For replicas that soon give up entries that they cannot verify, and dead connections.
pub(crate) const SOON: [&str; 4] =
    ["max_staleness=3s", "negative_ttl=1s", "deadline=2s", PROMPT[0]];

/// For a busy machine.
pub(crate) const SLOW: [&str; 2] = ["deadline=9s", "postgres.query_timeout=9s"];

/// Postgres behind a proxy.
pub(crate) fn postgres_through(world: &World<'_>, proxy: &Proxy) -> String {
    postgres_at(world, proxy.port)
}

/// The world's database in the Postgres at that port.
pub(crate) fn postgres_at(world: &World<'_>, port: u16) -> String {
    format!("postgres.url={}", world.url("server", port))
}

/// The feed behind a proxy.
pub(crate) fn feed_through(world: &World<'_>, proxy: &Proxy) -> String {
    format!("feed.url={}", world.url("server", proxy.port))
}

/// Redis behind a proxy.
pub(crate) fn redis_through(world: &World<'_>, proxy: &Proxy) -> String {
    let port = world.suite.valkey.port.to_string();
    format!("redis.url={}", world.redis_url.replace(&port, &proxy.port.to_string()))
}
