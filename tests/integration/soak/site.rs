//! Replicas behind an Envoy, their own stores, and a proxy before each store.

use patgate_testing::{proxy::Proxy, stack::Server};
use serde_json::json;

use super::history::STALENESS;
use crate::support::{Suite, World, clock::with_a_clock, envoy::patient, processes::Processes};

pub(super) const REPLICAS: usize = 3;

pub(super) struct SoakServers<'s> {
    pub(super) world: World<'s>,
    pub(super) primary: Server,
    pub(super) standby: Server,
    pub(super) valkey: Server,
    pub(super) postgres_proxy: Proxy,
    pub(super) feed_proxy: Proxy,
    pub(super) redis_proxy: Proxy,
    pub(super) gate: Processes<'s>,
}

impl<'s> SoakServers<'s> {
    pub(super) async fn start(suite: &'s Suite, relay: &str) -> Self {
        let (primary, world) = suite.spare(json!({})).await;
        with_a_clock(&world).await;
        let standby = suite.stack.start("postgres", json!({ "primary": primary.port }));
        let valkey = suite.stack.start("valkey", json!({}));
        let postgres_proxy = Proxy::to(primary.port).await;
        let feed_proxy = Proxy::to(primary.port).await;
        let redis_proxy = Proxy::to(valkey.port).await;
        let settings = json!({
            "PATGATE_POSTGRES_URL": world.url("server", postgres_proxy.port),
            "PATGATE_FEED_URL": world.url("server", feed_proxy.port),
            "PATGATE_REDIS_URL": format!("redis://127.0.0.1:{}", redis_proxy.port),
            "PATGATE_FEED_RELAY": relay,
            "PATGATE_MAX_STALENESS": format!("{}s", STALENESS.as_secs()),
            "PATGATE_NEGATIVE_TTL": "1s",
            // Shorter than Envoy waits for one replica.
            "PATGATE_DEADLINE": "1500ms",
            "PATGATE_POSTGRES_QUERY_TIMEOUT": "1s",
            "PATGATE_REDIS_TIMEOUT": "100ms",
            // Soon full, so that memory has no reason to grow.
            "PATGATE_MEMORY_PRINCIPALS": "1MiB",
        });
        let gate = Processes::start(&world, REPLICAS, &settings, patient("2s", "5s"));
        gate.healthy(REPLICAS as u64).await;
        Self { world, primary, standby, valkey, postgres_proxy, feed_proxy, redis_proxy, gate }
    }

    /// The memory of each replica, in bytes.
    pub(super) fn resident(&self) -> [u64; REPLICAS] {
        std::array::from_fn(|which| self.gate.processes[which].resident())
    }
}
