//! The relay fails, or its leader does: the others poll Postgres themselves, at the usual rate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::support::{
    Suite,
    fleet::{Fleet, MODELS, polls},
    process::{self, Process},
    redis_at,
    relay::{fleet, frames, leaders, leases_of, obeys, relayed, serve, silences, the_leader},
    settings::{PATIENT, PROMPT, SLOW, feed_through},
    tokens::{reader, revoke},
};

/// A way in which Redis fails at once, instead of slowly.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Refused,
    /// It accepts connections, and no commands.
    LoggedOut,
    /// It can be read, and not written.
    Full,
}

async fn command(redis: &mut MultiplexedConnection, words: &[&str]) {
    let () = redis::cmd(words[0]).arg(&words[1..]).query_async(redis).await.unwrap();
}

/// Whatever Redis does, Postgres gets no more polls than usual, and few new connections.
pub(crate) async fn a_redis_that_fails_at_once_spares_postgres(suite: Arc<Suite>) {
    const WATCHED: Duration = Duration::from_secs(6);
    let world = suite.world().await;
    let full = ["--maxmemory-policy", "noeviction"];
    let valkey = suite.stack.start("valkey", json!({ "args": full }));
    let redis = Proxy::to(valkey.port).await;
    let postgres = Proxy::to(world.port).await;
    let settings = [
        format!("redis.url=redis://127.0.0.1:{}", redis.port),
        format!("feed.url={}", world.url("server", postgres.port)),
    ];
    let settings = [&settings.each_ref().map(String::as_str)[..], &PROMPT].concat();
    let fleet = fleet(&world, 3, &settings).await;
    let mut direct = redis_at(&format!("redis://127.0.0.1:{}", valkey.port)).await;
    let polled = async || join_all(fleet.0.iter().map(|replica| polls(replica))).await;
    for outage in [Outage::Refused, Outage::LoggedOut, Outage::Full] {
        match outage {
            Outage::Refused => redis.set(Mode::Refuse),
            Outage::LoggedOut => {
                command(&mut direct, &["CONFIG", "SET", "requirepass", "another"]).await;
                redis.cut();
            }
            Outage::Full => command(&mut direct, &["CONFIG", "SET", "maxmemory", "1"]).await,
        }
        let connections = postgres.accepted();
        let before = polled().await;
        let watch = Instant::now();
        let mut changes = 0;
        while watch.elapsed() < WATCHED {
            obeys(&fleet, &world, "revoked without the relay").await;
            changes += 2;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let after = polled().await;
        let seconds = watch.elapsed().as_secs() + 1;
        let polled: Vec<u64> = after.iter().zip(&before).map(|(after, now)| after - now).collect();
        let connected = postgres.accepted() - connections;
        println!("{outage:?}: {polled:?} polls, {connected} connections in {seconds} s");
        for polled in &polled {
            // Every 400 ms; a replica that leads for a while also polls at each change, and quickly
            // afterwards.
            assert!(*polled <= seconds * 5 / 2 + changes * 5 + 2, "{outage:?}: {polled} polls");
        }
        // At most one connection per second to offer to lead; two more to lead, for the listener.
        let most = fleet.0.len() as u64 * (seconds + 4);
        assert!(connected <= most, "{outage:?}: {connected} connections, more than {most}");

        match outage {
            Outage::Refused => redis.set(Mode::Pass),
            Outage::LoggedOut => command(&mut direct, &["CONFIG", "SET", "requirepass", ""]).await,
            Outage::Full => command(&mut direct, &["CONFIG", "SET", "maxmemory", "0"]).await,
        }
        let heard = async || {
            join_all(fleet.0.iter().map(|replica| frames(replica, "applied"))).await.iter().sum()
        };
        let before: u64 = heard().await;
        eventually("the relay to be back", async || heard().await > before + 4).await;
        obeys(&fleet, &world, "revoked when the relay is back").await;
    }
    drop(fleet);
    suite.stack.stop(&valkey);
}

/// A frozen leader keeps its connections, and so its lock, until Postgres ends the silent session.
/// When it resumes, its frames have an outdated epoch.
pub(crate) async fn a_frozen_leader_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let old = serve(&world).await;
    let leads = async || old.replica.metric("patgate_relay_leader").await == 1;
    eventually("it to lead", leads).await;
    let others = relayed(&world);
    let settings = [&others.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let others = Fleet::of(&world, 2, &settings).await;
    for replica in &others.0 {
        eventually("frames", async || frames(replica, "applied").await > 1).await;
    }
    let all = Fleet([&others.0[..], &[Arc::clone(&old.replica)]].concat());
    obeys(&all, &world, "revoked while it leads").await;
    let token = reader(&world).await;
    all.all_answer(&token, MODELS, 200).await;

    suite.stack.signal(&old.server, "STOP");
    let frozen = Instant::now();
    revoke(&world, &token).await;
    others.turn("revoked while the leader is frozen", (&token, MODELS), 200, 401).await;
    while leaders(&others).await.is_empty() {
        obeys(&others, &world, "revoked while no replica relays").await;
    }
    println!("another leads after {:?}", frozen.elapsed());
    obeys(&others, &world, "revoked under the next leader").await;

    suite.stack.signal(&old.server, "CONT");
    all.turn("revoked while it was frozen", (&token, MODELS), 200, 401).await;
    eventually("it to step down", async || !leads().await).await;
    eventually("it to follow", async || frames(&old.replica, "applied").await > 1).await;
    the_leader(&all).await;
    obeys(&all, &world, "revoked when it follows").await;
    suite.stack.stop(&old.server);
}

/// Postgres ends the session of a leader that it does not hear, and the leader does not know that
/// before its poll has failed. Meanwhile two replicas lead. It does no harm, and ends.
pub(crate) async fn a_leader_that_is_cut_off_is_replaced_before_it_knows(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(world.port).await;
    // Another takes over before the poll fails.
    let cut_off = [&*feed_through(&world, &proxy), "feed.relay=redis", SLOW[0], SLOW[1]];
    let old = Fleet::of(&world, 1, &[&cut_off[..], &PATIENT].concat()).await;
    the_leader(&old).await;
    let others = relayed(&world);
    let settings = [&others.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let others = Fleet::of(&world, 2, &settings).await;
    for replica in &others.0 {
        eventually("frames", async || frames(replica, "applied").await > 1).await;
    }
    let all = Fleet([&old.0[..], &others.0].concat());
    obeys(&all, &world, "revoked while one leads").await;

    proxy.set(Mode::BlackHole);
    eventually("two leaders", async || leaders(&all).await.len() == 2).await;
    let token = reader(&world).await;
    others.all_answer(&token, MODELS, 200).await;
    revoke(&world, &token).await;
    others.turn("revoked while two lead", (&token, MODELS), 200, 401).await;
    eventually("the earlier one to give up", async || leaders(&old).await.is_empty()).await;
    proxy.set(Mode::Pass);
    proxy.cut();
    eventually("it to follow", async || frames(&old.0[0], "applied").await > 1).await;
    the_leader(&all).await;
    obeys(&all, &world, "revoked when it follows").await;
}

/// The frames in the meantime are still in the stream: the replica asks Postgres for nothing.
pub(crate) async fn a_frozen_follower_goes_on_where_it_was(suite: Arc<Suite>) {
    let world = suite.world().await;
    let led = fleet(&world, 1, &[]).await;
    let follower = serve(&world).await;
    let heard = async || frames(&follower.replica, "applied").await;
    eventually("frames", async || heard().await > 2).await;
    let fleet = Fleet([&led.0[..], &[Arc::clone(&follower.replica)]].concat());
    let asked = polls(&follower.replica).await;
    let silent = silences(&follower.replica).await;
    for _ in 0..2 {
        let token = reader(&world).await;
        fleet.all_answer(&token, MODELS, 200).await;
        suite.stack.signal(&follower.server, "STOP");
        revoke(&world, &token).await;
        led.turn("revoked", (&token, MODELS), 200, 401).await;
        // Longer than any of its timeouts.
        tokio::time::sleep(Duration::from_secs(4)).await;
        suite.stack.signal(&follower.server, "CONT");
        let before = heard().await;
        fleet.turn("revoked while it was frozen", (&token, MODELS), 200, 401).await;
        eventually("frames", async || heard().await > before + 2).await;
    }
    assert_eq!(polls(&follower.replica).await, asked, "it read for itself");
    assert_eq!(silences(&follower.replica).await, silent, "it took its own pause for silence");
    suite.stack.stop(&follower.server);
}

/// A command that waits for all replicas does not wait for one that was told to end.
pub(crate) async fn a_replica_that_ends_gives_up_its_lease(suite: Arc<Suite>) {
    let world = suite.world().await;
    let first = serve(&world).await;
    let second = serve(&world).await;
    let redis = redis_at(&world.redis_url).await;
    let admin = world.admin(world.postgres.clone()).await;
    let leases = async || {
        let left = redis::cmd("HLEN").arg(leases_of(&world)).query_async(&mut redis.clone()).await;
        let noted = admin.serving_replicas().await.unwrap().len();
        let left: usize = left.unwrap();
        (noted, left)
    };
    let both = [&first, &second];
    let leads = async |of: &Process| of.replica.metric("patgate_relay_leader").await == 1;
    // The leader has followed before, and left a lease there also.
    eventually("leases", async || leases().await == (2, 2)).await;
    eventually("a leader", async || leads(&first).await != leads(&second).await).await;
    let follower = usize::from(leads(&first).await);
    for (ends, left) in [(both[follower], (1, 1)), (both[1 - follower], (0, 0))] {
        suite.stack.signal(&ends.server, "TERM");
        eventually("it to end", async || !suite.stack.is_running(&ends.server)).await;
        assert_eq!(leases().await, left, "leases in Postgres and in Redis");
    }
    // A replica without the relay.
    let alone = process::serve(&world, &["drain.delay=0s"]).await;
    eventually("a lease", async || leases().await == (1, 0)).await;
    suite.stack.signal(&alone.server, "TERM");
    eventually("it to end", async || !suite.stack.is_running(&alone.server)).await;
    assert_eq!(leases().await, (0, 0));
}
