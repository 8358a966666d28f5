//! Redis as a group of servers that change their roles: a master that Sentinels know, and a cluster
//! whose slots move.

mod cluster;
mod sentinel;
mod tls;

use std::time::Instant;

use patgate_testing::eventually;

use crate::support::{
    Replica, World,
    fleet::{Fleet, HEALED, status},
    replica::lookups,
    tokens::reader,
};

pub(crate) use self::{cluster::*, sentinel::*, tls::*};

fn borrowed(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

/// The lookups that Redis answered.
async fn answered(replica: &Replica) -> u64 {
    lookups(replica, "principal", "redis", "miss").await
        + lookups(replica, "principal", "redis", "hit").await
}

/// Waits until each replica has an answer of Redis to a cold token again, which must be soon.
async fn used_again(fleet: &Fleet, world: &World<'_>, what: &str) {
    let since = Instant::now();
    for replica in &fleet.0 {
        let before = answered(replica).await;
        eventually(what, async || {
            assert_eq!(status(replica, &reader(world).await).await, 200);
            answered(replica).await > before
        })
        .await;
    }
    let took = since.elapsed();
    println!("{what}: after {took:?}");
    assert!(took < HEALED, "{what}: {took:?}");
}
