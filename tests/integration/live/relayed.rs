//! Keys that leave the ring while polls that they have sealed are in use.

use std::sync::Arc;

use futures_util::future::join_all;
use patgate::keyring::KeyRing;
use patgate_core::{
    freshness::{Change, Stamp, Triggers},
    seal::{SealPurpose, Sealer},
    snapshot::{Snapshot, Xid},
};
use patgate_testing::eventually;
use redis::streams::StreamRangeReply;

use super::{RingFile, line};
use crate::support::{
    Suite,
    fleet::{MODELS, answer},
    redis_at,
    relay::{fleet, frames, obeys, stream, the_leader},
    tokens::{reader, revoke},
    value,
};

/// A frame behind its seal: epoch, server, triggers, horizon, beginning and changes.
type Frame = (u64, Stamp, Triggers, Snapshot, Option<Snapshot>, Vec<(Xid, Change)>);

/// The thief of a key relays that nothing has changed, and nothing ever will. A follower believes it,
/// until the key leaves the ring: then it reads at once what it has missed.
pub(crate) async fn a_forged_frame_goes_with_its_key(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = RingFile::of(&world);
    let stolen = line("stolen");
    ring.write(&[&ring.own, &stolen]);
    let setting = ring.setting();
    let fleet = fleet(&world, 2, &[&setting]).await;
    let leader = the_leader(&fleet).await;
    let follower = &fleet.0[1 - leader];
    let token = reader(&world).await;
    fleet.all_answer(&token, MODELS, 200).await;

    let identity: String = value(&world, "SELECT patgate.identity()").await;
    let sealer = |ring: &str| Sealer::new(KeyRing::parse(ring).unwrap(), identity.parse().unwrap());
    let [good, thief] = [sealer(&ring.own), sealer(&stolen)];
    let stream = stream(&world);
    let redis = redis_at(&world.redis_url).await;
    let mut last = redis::cmd("XREVRANGE");
    last.arg(&stream).arg("+").arg("-").arg("COUNT").arg(1);
    let last: StreamRangeReply = last.query_async(&mut redis.clone()).await.unwrap();
    let sealed: Vec<u8> = last.ids[0].get("f").unwrap();
    let opened = good.open::<Frame>(SealPurpose::Relay, &stream, &sealed).unwrap();
    let (epoch, stamp, triggers, horizon, ..) = opened.payload;
    let send = async |epoch: u64, after: Option<Snapshot>| {
        let stamp = Stamp { snapshot: Snapshot::of_all(), ..stamp.clone() };
        let frame: Frame = (epoch, stamp, triggers, horizon.clone(), after, Vec::new());
        let sealed = thief.seal(SealPurpose::Relay, &stream, &frame).unwrap().bytes;
        let mut add = redis::cmd("XADD");
        add.arg(&stream).arg("*").arg("f").arg(sealed);
        add.exec_async(&mut redis.clone()).await.unwrap();
    };
    send(epoch, Some(stamp.snapshot.clone())).await;
    let heard = async |times: u64| {
        let before = frames(follower, "applied").await;
        let more = async || frames(follower, "applied").await >= before + times;
        eventually("more frames", more).await;
    };
    heard(2).await;
    revoke(&world, &token).await;
    eventually("the leader to obey", async || {
        answer(&fleet.0[leader], &token, MODELS).await == 401
    })
    .await;
    heard(2).await;
    assert_eq!(answer(follower, &token, MODELS).await, 200, "the theft works");

    // It also claims to lead from now on.
    send(u64::MAX, None).await;
    let restarts = "patgate_feed_restarts_total";
    let before = follower.metric(restarts).await;
    ring.write(&[&ring.own]);
    join_all(fleet.0.iter().map(async |replica| {
        let reloaded = async || replica.metric(super::RELOADED).await == 1;
        eventually("the key ring to be reloaded", reloaded).await;
    }))
    .await;
    fleet.turn("the key has left", (&token, MODELS), 200, 401).await;
    assert!(follower.metric(restarts).await > before);
    heard(2).await;
    obeys(&fleet, &world, "revoked after the key has left").await;
}
