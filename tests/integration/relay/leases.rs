//! With a relayed feed, a command that waits for a change waits for each replica that may not have
//! received it, and for no other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Suite,
    fleet::{Fleet, HEALED, MODELS, answer, status},
    redis_at,
    relay::{fleet, frames, leaders, leases_of, relayed, serve, stream, the_leader},
    settings::{PATIENT, PROMPT, feed_through},
    tokens::{reader, revoke, revoke_and_wait},
};

/// The first replica hears no leader for a while; the next ones hear the first.
pub(crate) async fn a_replica_that_has_just_started_is_waited_for(suite: Arc<Suite>) {
    let world = suite.world().await;
    let relayed = relayed(&world);
    let settings = [&relayed.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let mut replicas = Vec::new();
    for count in 1..=4 {
        replicas.push(world.serve(&settings).await);
        let token = reader(&world).await;
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 200);
        }
        let output = revoke_and_wait(&world, &token).await;
        let said = String::from_utf8_lossy(&output.stderr);
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 401, "of {count}: {said}");
        }
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("applied by {count} replica")), "{said}");
    }
}

/// A replica that has lost its feed and missed a frame receives the next ones, and continues to
/// serve. The command waits until the replica's knowledge must have expired.
pub(crate) async fn a_replica_that_missed_a_frame_is_waited_for_until_its_knowledge_expires(
    suite: Arc<Suite>,
) {
    const STALENESS: Duration = Duration::from_secs(6);
    let world = suite.world().await;
    let redis = Proxy::to(suite.valkey.port).await;
    let feed = Proxy::to(world.port).await;
    let led = fleet(&world, 1, &[]).await;
    let relayed = relayed(&world);
    let through = world.redis_url.replace(&suite.valkey.port.to_string(), &redis.port.to_string());
    let settings = [
        &relayed[1],
        &feed_through(&world, &feed),
        &format!("redis.url={through}"),
        &format!("max_staleness={}s", STALENESS.as_secs()),
    ];
    let settings = [&settings.map(String::as_str)[..], &PROMPT].concat();
    let follows = Fleet::of(&world, 1, &settings).await;
    let follower = Arc::clone(&follows.0[0]);
    eventually("frames", async || frames(&follower, "applied").await > 1).await;
    let hot = reader(&world).await;
    let missed = reader(&world).await;
    let revoked = reader(&world).await;
    for token in [&hot, &missed, &revoked] {
        follows.all_answer(token, MODELS, 200).await;
    }

    feed.set(Mode::Refuse);
    redis.set(Mode::BlackHole);
    redis.forget();
    revoke(&world, &missed).await;
    led.turn("revoked", (&missed, MODELS), 200, 401).await;
    led.polled(2).await;
    let mut direct = redis_at(&world.redis_url).await;
    let () = redis::cmd("DEL").arg(stream(&world)).query_async(&mut direct).await.unwrap();
    redis.set(Mode::Pass);
    eventually("a gap", async || frames(&follower, "gap").await > 0).await;

    let asked = Arc::clone(&follower);
    let _load = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            answer(&asked, &hot, MODELS).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));
    let waited = timeout(STALENESS + HEALED, revoke_and_wait(&world, &revoked)).await;
    let output = waited.expect("an end of the waiting");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("applied by 1 replica "), "{said}");
    assert_eq!(answer(&follower, &revoked, MODELS).await, 401, "{said}");
    assert!(frames(&follower, "gap").await > 0 && leaders(&follows).await.is_empty());
}

/// A leader may have read a lease that is withdrawn before it passes the lease on.
pub(crate) async fn a_lease_that_was_taken_back_stays_so(suite: Arc<Suite>) {
    let world = suite.world().await;
    let led = fleet(&world, 1, &[]).await;
    the_leader(&led).await;
    let redis = redis_at(&world.redis_url).await;
    let left = async || -> HashMap<String, Vec<u8>> {
        redis::cmd("HGETALL").arg(leases_of(&world)).query_async(&mut redis.clone()).await.unwrap()
    };
    let before = left().await;
    let follower = serve(&world).await;
    let (id, sealed) = loop {
        if let Some(new) = left().await.into_iter().find(|(id, _)| !before.contains_key(id)) {
            break new;
        }
    };
    let handed_on = || world.statements_with(&format!("('{id}'::uuid, '"));
    suite.stack.signal(&follower.server, "TERM");
    eventually("it to end", async || !suite.stack.is_running(&follower.server)).await;

    // As if the leader had read it just before.
    let count = handed_on();
    let set = redis::cmd("HSET").arg(leases_of(&world)).arg(&id).arg(sealed).to_owned();
    let () = set.query_async(&mut redis.clone()).await.unwrap();
    eventually("it to be handed on again", async || handed_on() > count).await;
    let token = reader(&world).await;
    led.all_answer(&token, MODELS, 200).await;
    // A command that waited for it would wait for twice max_staleness, which is a minute.
    let waited = timeout(HEALED * 4, revoke_and_wait(&world, &token)).await;
    let output = waited.expect("no replica to wait for");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("applied by 1 replica "), "{said}");
    led.all_answer(&token, MODELS, 401).await;
}
