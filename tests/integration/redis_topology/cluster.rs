//! Slots move, and a node dies.

use std::sync::Arc;

use patgate_testing::eventually;

use super::{answered, borrowed, used_again};
use crate::support::{
    Suite,
    cli::{Cli, found},
    entries::key,
    fleet::{Fleet, status},
    front::Front,
    load::{LASTING_LONG, WELL},
    redis_groups::{RedisCluster, SLOTS, ask, info},
    relay::{fleet, frames, obeys, stream, the_leader},
    replica::lookups,
    settings::PATIENT,
    tokens::reader,
};

/// All slots of one node move to another, and those of the tokens in use move on.
pub(crate) async fn slots_move_under_load(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cluster = RedisCluster::start(&suite, &[], false).await;
    let settings = cluster.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    let spread = async || cluster.keys().await.iter().all(|held| held.len() > 20);
    load.bear(eventually("entries in every node", spread)).await;

    let unavailable = front.lookups("redis", "unavailable").await;
    let hits = front.lookups("redis", "miss").await;
    let mut slots: Vec<u16> = Vec::new();
    for token in &load.hot {
        let slot = ask(&cluster.masters[0].url, &["CLUSTER", "KEYSLOT", &key(&world, token)]).await;
        slots.push(slot.unwrap());
    }
    let owner = |slot: u16| usize::from(slot / (SLOTS / 3)).min(2);
    for slot in slots.iter().copied().chain((0..200).map(|at| at * 81)) {
        let from = owner(slot);
        load.bear(cluster.move_slot(slot, from, (from + 1) % 3)).await;
    }
    let lost = front.lookups("redis", "unavailable").await - unavailable;
    let asked = front.lookups("redis", "miss").await - hits;
    println!("208 slots moved: {asked} misses, {lost} lookups without an answer");
    assert!(asked > 100 && lost * 20 < asked, "{lost} of {asked}");
    load.bear(used_again(&front.fleet, &world, "the slots to be found where they are now")).await;
    let late = world.serve(&settings).await;
    load.known_to(&late).await;
    assert_eq!(lookups(&late, "principal", "redis", "unavailable").await, 0);
    let hits = lookups(&late, "principal", "redis", "hit").await;
    assert!(hits >= load.hot.len() as u64, "{hits}: the moved entries are found");
    load.bear(load.more(WELL, 20)).await;
    load.end("slots of a cluster move").await;
}

/// Until its replica has its place, only its keys are looked up in Postgres.
pub(crate) async fn a_node_that_dies_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cluster = RedisCluster::start(&suite, &[], true).await;
    let settings = cluster.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    suite.stack.signal(&cluster.masters[0], "KILL");
    let replaced = async || {
        let role: Vec<redis::Value> = ask(&cluster.replicas[0].url, &["ROLE"]).await.unwrap();
        role[0] == redis::Value::BulkString(b"master".to_vec())
            && info(&cluster.masters[1]).await.contains("cluster_state:ok")
    };
    load.bear(eventually("the replica to take over", replaced)).await;
    // Its slots in particular: no lookup fails any more.
    let whole = async || {
        let before = front.lookups("redis", "unavailable").await;
        used_again(&front.fleet, &world, "the cluster to be used").await;
        for _ in 0..30 {
            for replica in &front.fleet.0 {
                assert_eq!(status(replica, &reader(&world).await).await, 200);
            }
        }
        front.lookups("redis", "unavailable").await == before
    };
    load.bear(eventually("every slot to be served", whole)).await;
    load.bear(load.more(WELL, 20)).await;
    load.end("a node of a cluster dies").await;
}

/// The same for a node that is silent and stays so: as if its host were gone. `redis.url` names it.
pub(crate) async fn a_node_that_freezes_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cluster = RedisCluster::start(&suite, &[], true).await;
    let settings = cluster.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT, &["redis.timeout=100ms"]].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    suite.stack.signal(&cluster.masters[0], "STOP");
    let replaced = async || {
        let role: Vec<redis::Value> = ask(&cluster.replicas[0].url, &["ROLE"]).await.unwrap();
        role[0] == redis::Value::BulkString(b"master".to_vec())
            && info(&cluster.masters[1]).await.contains("cluster_state:ok")
    };
    load.bear(eventually("the replica to take over", replaced)).await;
    load.bear(used_again(&front.fleet, &world, "the cluster to be used beside a frozen node"))
        .await;
    load.bear(load.more(WELL, 20)).await;
    let late = Fleet::of(&world, 1, &settings).await;
    load.bear(used_again(&late, &world, "the cluster to be found beside a frozen node")).await;
    suite.stack.signal(&cluster.masters[0], "CONT");
    load.bear(load.more(WELL, 20)).await;
    load.end("a node of a cluster freezes").await;
}

/// Commands and the relay, with keys in all nodes, and the stream's slot moves.
pub(crate) async fn everything_works_in_a_cluster(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cluster = RedisCluster::start(&suite, &[], false).await;
    let settings = cluster.settings("");
    let settings = borrowed(&settings);
    let cli = Cli::of(&world).with_all(&settings);
    let (code, outcome, detail) = found(&cli.login(&world, "server"), "redis.url");
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    // As one server, two of three nodes refuse the key that is tried.
    let one = cli.login(&world, "server").with("redis.topology", "single");
    let by_each =
        cluster.masters.iter().map(|node| found(&one.with("redis.url", &node.url), "redis.url"));
    let told = by_each.filter(|(code, _, detail)| {
        *code == 1 && detail.contains("set redis.topology to `cluster`")
    });
    assert_eq!(told.count(), 2);
    let (code, _, detail) = found(&cli.with("redis.url", &suite.valkey.url), "redis.url");
    assert!(code == 1 && detail.contains("cluster support disabled"), "{detail}");

    // A command deletes the copies that its change made outdated, in whichever nodes they are.
    let replica = Fleet::of(&world, 1, &[&settings[..], &PATIENT].concat()).await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        let token = reader(&world).await;
        assert_eq!(status(&replica.0[0], &token).await, 200);
        tokens.push(token);
    }
    let held = async || {
        let keys: Vec<String> = cluster.keys().await.concat();
        tokens.iter().filter(|token| keys.contains(&key(&world, token))).count()
    };
    eventually("entries in the nodes", async || held().await == tokens.len()).await;
    assert!(answered(&replica.0[0]).await > 0);
    for token in &tokens {
        cli.ok(&format!("token revoke {}", token.id));
    }
    assert_eq!(held().await, 0);
    drop(replica);

    let fleet = fleet(&world, 3, &settings).await;
    obeys(&fleet, &world, "revoked over a cluster").await;
    let slot: u16 =
        ask(&cluster.masters[0].url, &["CLUSTER", "KEYSLOT", &stream(&world)]).await.unwrap();
    let from = usize::from(slot / (SLOTS / 3)).min(2);
    cluster.move_slot(slot, from, (from + 1) % 3).await;
    obeys(&fleet, &world, "revoked while the stream moves").await;
    let leader = the_leader(&fleet).await;
    let follower = &fleet.0[(leader + 1) % 3];
    let before = frames(follower, "applied").await;
    eventually("frames from where the stream is", async || {
        frames(follower, "applied").await > before + 2
    })
    .await;
    obeys(&fleet, &world, "revoked over the moved stream").await;
}
