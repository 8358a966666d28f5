//! Replicas, one of which relays the feed to the others.

use std::cell::Cell;

use futures_util::future::join_all;
use patgate_testing::eventually;

use crate::support::{
    Replica, World,
    fleet::{Fleet, MODELS},
    process::{self, Process},
    settings::PATIENT,
    tokens::{reader, revoke},
};

/// The name of the stream of frames.
pub(crate) fn stream(world: &World<'_>) -> String {
    world.in_redis("feed")
}

/// The settings with which a replica of this world follows.
pub(crate) fn relayed(world: &World<'_>) -> [String; 2] {
    [format!("feed.url={}", world.url("server", world.port)), "feed.relay=redis".to_owned()]
}

pub(crate) async fn fleet(world: &World<'_>, size: usize, settings: &[&str]) -> Fleet {
    let relayed = relayed(world);
    let settings = [&relayed.each_ref().map(String::as_str)[..], &PATIENT, settings].concat();
    let fleet = Fleet::of(world, size, &settings).await;
    the_leader(&fleet).await;
    eventually("frames", async || {
        let heard = join_all(fleet.0.iter().map(|replica| frames(replica, "applied"))).await;
        // All of them, if the first leader was replaced.
        heard.iter().filter(|heard| **heard > 1).count() >= size - 1
    })
    .await;
    fleet
}

/// Returns the leader, once there is exactly one: there may be none for a while, and two for a
/// moment.
pub(crate) async fn the_leader(fleet: &Fleet) -> usize {
    let leader = Cell::new(None);
    eventually("one leader", async || {
        let found = leaders(fleet).await;
        leader.set(found.first().copied().filter(|_| found.len() == 1));
        leader.get().is_some()
    })
    .await;
    leader.get().unwrap()
}

pub(crate) async fn silences(replica: &Replica) -> u64 {
    replica.metric("patgate_relay_silences_total").await
}

pub(crate) async fn leaders(fleet: &Fleet) -> Vec<usize> {
    let leads = fleet.0.iter().map(|replica| replica.metric("patgate_relay_leader"));
    let leads = join_all(leads).await.into_iter().enumerate();
    leads.filter(|(_, leads)| *leads == 1).map(|(index, _)| index).collect()
}

pub(crate) async fn frames(replica: &Replica, result: &str) -> u64 {
    replica.metric(&format!("patgate_relay_frames_total{{result=\"{result}\"}}")).await
}

/// Checks that a token that is served everywhere is refused everywhere after its revocation.
pub(crate) async fn obeys(fleet: &Fleet, world: &World<'_>, what: &str) {
    let token = reader(world).await;
    fleet.all_answer(&token, MODELS, 200).await;
    revoke(world, &token).await;
    fleet.turn(what, (&token, MODELS), 200, 401).await;
}

/// The name of the hash where followers leave their leases.
pub(crate) fn leases_of(world: &World<'_>) -> String {
    world.in_redis("leases")
}

/// A replica of this world as a process, which can be frozen.
pub(crate) async fn serve(world: &World<'_>) -> Process {
    let settings = relayed(world);
    let settings = settings.each_ref().map(String::as_str);
    let more = ["drain.delay=0s", "decision_log.to=none"];
    process::serve(world, &[&settings[..], &PATIENT, &more].concat()).await
}
