//! The fault table: what each fault may do to answers, under a load through a real Envoy that asks
//! two replicas.

mod both;
mod feed;
mod postgres;
mod redis;
mod replicas;
mod sealed;

use std::time::{Duration, Instant};

use serde_json::json;

pub(crate) use self::{both::*, feed::*, postgres::*, redis::*, replicas::*, sealed::*};
use crate::{
    fleet::{Fleet, HEALED},
    harness::{self, Suite, World, patient},
    load::{LASTING, Law, Load, WELL},
    stack::Server,
};

/// In rows that wait until everything known is too old.
const STALENESS: Duration = Duration::from_secs(3);
const SHORT: [&str; 2] = ["max_staleness=3s", "negative_ttl=1s"];

/// Two replicas behind one Envoy.
pub(crate) struct Front<'s> {
    suite: &'s Suite,
    pub(crate) fleet: Fleet,
    pub(crate) envoy: Server,
}

impl<'s> Front<'s> {
    pub(crate) async fn of(world: &World<'s>, settings: &[&str]) -> Self {
        // A loaded machine is no reason for a 503.
        let settings =
            [&["deadline=3s", "postgres.query_timeout=2s", "redis.timeout=1s"], settings].concat();
        let fleet = Fleet::of(world, 2, &settings).await;
        let replicas: Vec<_> = fleet.0.iter().map(|replica| replica.grpc).collect();
        let envoy = harness::envoy(world.suite, &replicas, patient("10s", "10s"));
        Self { suite: world.suite, fleet, envoy }
    }

    pub(crate) async fn load(&self, world: &World<'_>) -> Load {
        self.lasting(LASTING, world).await
    }

    async fn lasting(&self, long: Duration, world: &World<'_>) -> Load {
        let load = Load::lasting(long, world, self.envoy.port).await;
        for replica in &self.fleet.0 {
            load.known_to(replica).await;
        }
        load
    }

    async fn lookups(&self, tier: &str, result: &str) -> u64 {
        let mut sum = 0;
        for replica in &self.fleet.0 {
            sum += crate::tiers::lookups(replica, "principal", tier, result).await;
        }
        sum
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        let _ = self.suite.stack.ask(json!({ "do": "stop", "id": self.envoy.id }));
    }
}

pub(crate) const CHANGING: Law = Law { cold: &[200, 503], ..WELL };
/// Postgres cannot be read.
pub(crate) const UNREAD: Law = Law { cold: &[503], ..WELL };
const FADING: Law =
    Law { hot: &[200, 503], cold: &[503], revoked: &[401, 503], turning: &[200, 503], ..WELL };
/// Everything that was known is too old.
const BLIND: Law = Law { hot: &[503], cold: &[503], revoked: &[503], turning: &[503], ..WELL };

/// A law but for the token that was revoked under the fault.
const fn turned(law: Law) -> Law {
    Law { turning: if law.hot.len() > 1 { &[401, 503] } else { &[401] }, ..law }
}

/// Nobody can read Postgres for a while. What is known is served as long as it may be and no
/// longer; then all is well again, without a restart.
async fn unread(
    front: &Front<'_>,
    load: &Load,
    fault: impl AsyncFnOnce(),
    heal: impl AsyncFnOnce(),
    after: Law,
) {
    let known = Instant::now();
    load.bear(front.fleet.polled(2)).await;
    load.law(CHANGING);
    load.law_from(known + STALENESS, Law { cold: &[200, 503], ..FADING });
    load.bear(fault()).await;
    let gone = load.law(UNREAD);
    load.law_from(gone.max(known + STALENESS), FADING);
    load.law_from(gone + STALENESS, BLIND);
    load.until(gone + STALENESS).await;
    load.bear(load.more(BLIND, 2)).await;

    let healing = Law { cold: &[200, 503], ..FADING };
    load.law(if after.turning == WELL.turning { healing } else { turned(healing) });
    load.bear(heal()).await;
    let healed = Instant::now();
    load.law_from(healed + HEALED, after);
    load.until(healed + HEALED).await;
    load.bear(load.more(after, 20)).await;
}
