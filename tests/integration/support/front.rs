//! Two replicas in this process behind one Envoy.

use std::time::Duration;

use patgate_testing::stack::Server;

use crate::support::{
    World,
    envoy::{envoy, patient},
    fleet::Fleet,
    load::{LASTING, Load},
};

/// Two replicas behind one Envoy.
pub(crate) struct Front {
    pub(crate) fleet: Fleet,
    pub(crate) envoy: Server,
}

impl Front {
    pub(crate) async fn of(world: &World<'_>, settings: &[&str]) -> Self {
        // A busy machine must not cause a 503.
        let settings =
            [&["deadline=3s", "postgres.query_timeout=2s", "redis.timeout=1s"], settings].concat();
        let fleet = Fleet::of(world, 2, &settings).await;
        let replicas: Vec<_> = fleet.0.iter().map(|replica| replica.grpc).collect();
        let envoy = envoy(world.suite, &replicas, patient("10s", "10s"));
        Self { fleet, envoy }
    }

    pub(crate) async fn load(&self, world: &World<'_>) -> Load {
        self.lasting(LASTING, world).await
    }

    pub(crate) async fn lasting(&self, long: Duration, world: &World<'_>) -> Load {
        let load = Load::lasting(long, world, self.envoy.port).await;
        for replica in &self.fleet.0 {
            load.known_to(replica).await;
        }
        load
    }

    pub(crate) async fn lookups(&self, tier: &str, result: &str) -> u64 {
        let mut sum = 0;
        for replica in &self.fleet.0 {
            sum += crate::support::replica::lookups(replica, "principal", tier, result).await;
        }
        sum
    }
}
