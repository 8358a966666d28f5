//! Settings that several tests give their replicas.

use patgate_testing::proxy::Proxy;

use super::World;

/// So long that nothing but the feed can have told.
pub(crate) const PATIENT: [&str; 2] = ["max_staleness=60s", "negative_ttl=60s"];

/// For replicas that have to give up what leads nowhere about as soon as they would as shipped.
pub(crate) const PROMPT: [&str; 2] = ["postgres.query_timeout=1s", "redis.timeout=1s"];

/// For replicas that soon give up what they cannot verify, and what leads nowhere.
pub(crate) const SOON: [&str; 4] =
    ["max_staleness=3s", "negative_ttl=1s", "deadline=2s", PROMPT[0]];

/// For a machine that has more to do than it was made for.
pub(crate) const SLOW: [&str; 2] = ["deadline=9s", "postgres.query_timeout=9s"];

/// Postgres by way of a proxy.
pub(crate) fn postgres_through(world: &World<'_>, proxy: &Proxy) -> String {
    postgres_at(world, proxy.port)
}

/// The world's database in the Postgres at that port.
pub(crate) fn postgres_at(world: &World<'_>, port: u16) -> String {
    format!("postgres.url={}", world.url("server", port))
}

/// The feed by way of a proxy.
pub(crate) fn feed_through(world: &World<'_>, proxy: &Proxy) -> String {
    format!("feed.url={}", world.url("server", proxy.port))
}

/// Redis by way of a proxy.
pub(crate) fn redis_through(world: &World<'_>, proxy: &Proxy) -> String {
    let port = world.suite.valkey.port.to_string();
    format!("redis.url={}", world.redis_url.replace(&port, &proxy.port.to_string()))
}
