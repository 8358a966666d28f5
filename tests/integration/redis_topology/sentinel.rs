//! The master dies, is replaced on purpose, or cannot be asked for; Sentinels freeze and want a
//! login.

use std::sync::Arc;

use patgate_testing::eventually;

use super::{answered, borrowed, used_again};
use crate::support::{
    Suite,
    cli::{Cli, found},
    entries::all_held,
    fleet::{Fleet, status},
    front::Front,
    load::{LASTING_LONG, WELL},
    redis_at,
    redis_groups::{MASTER, SentinelGroup, ask, tell},
    relay::{fleet, obeys, relayed, the_leader},
    replica::lookups,
    settings::PATIENT,
    tokens::reader,
};

pub(crate) async fn a_master_that_dies_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let group = SentinelGroup::start(&suite, &[], &[]).await;
    group.is_ready("").await;
    let settings = group.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    let hot: Vec<_> = load.hot.iter().collect();
    load.bear(all_held(&redis_at(&group.servers[0].url).await, &hot)).await;

    suite.stack.signal(&group.servers[0], "KILL");
    let promoted = async || group.master_port(0).await == group.servers[1].port;
    load.bear(eventually("the replica to be promoted", promoted)).await;
    load.bear(used_again(&front.fleet, &world, "the new master to be used")).await;
    load.bear(load.more(WELL, 50)).await;
    // The new master has what the old one had, and patgate writes to it.
    let late = world.serve(&settings).await;
    load.known_to(&late).await;
    assert!(lookups(&late, "principal", "redis", "hit").await > 0);
    let connection = redis_at(&group.servers[1].url).await;
    load.bear(all_held(&connection, &hot)).await;

    // The old master comes back, as a replica, and the roles are exchanged on purpose.
    suite.stack.restart(&group.servers[0]);
    load.bear(group.is_ready("")).await;
    for (sentinel, next) in [(1, 0), (2, 1)] {
        let turned = async || {
            // It is refused while the last one is settling.
            let _: Result<redis::Value, _> =
                ask(&group.sentinels[sentinel].url, &["SENTINEL", "FAILOVER", MASTER]).await;
            group.master_port(sentinel).await == group.servers[next].port
        };
        load.bear(eventually("the roles to be exchanged", turned)).await;
        load.bear(used_again(&front.fleet, &world, "the next master to be used")).await;
        let replica = &group.servers[1 - next].url;
        let left = async || {
            // It closes these connections, too, when its role changes.
            let role: Vec<redis::Value> = ask(replica, &["ROLE"]).await.unwrap_or_default();
            let clients: Result<String, _> =
                ask(replica, &["CLIENT", "LIST", "TYPE", "normal"]).await;
            role.first() == Some(&redis::Value::BulkString(b"slave".to_vec()))
                && clients.is_ok_and(|clients| !clients.contains("cmd=mget"))
        };
        load.bear(eventually("no lookup to ask the old master", left)).await;
        load.bear(group.is_ready("")).await;
    }
    load.bear(load.more(WELL, 20)).await;
    load.end("masters of Sentinels").await;
}

/// The same for a master that is silent, as if its host were gone.
pub(crate) async fn a_master_that_freezes_is_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let group = SentinelGroup::start(&suite, &[], &[]).await;
    group.is_ready("").await;
    let settings = group.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT, &["redis.timeout=100ms"]].concat();
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    suite.stack.signal(&group.servers[0], "STOP");
    let promoted = async || group.master_port(0).await == group.servers[1].port;
    load.bear(eventually("the replica to be promoted", promoted)).await;
    load.bear(used_again(&front.fleet, &world, "the new master to be used")).await;
    load.bear(load.more(WELL, 20)).await;
    // It takes itself for a master for a moment.
    suite.stack.signal(&group.servers[0], "CONT");
    load.bear(load.more(WELL, 50)).await;
    load.end("a master of Sentinels freezes").await;
}

/// A connection leads to a server that was made a replica, and no Sentinel has closed it.
pub(crate) async fn a_master_that_was_demoted_is_left(suite: Arc<Suite>) {
    let world = suite.world().await;
    let group = SentinelGroup::start(&suite, &[], &[]).await;
    group.is_ready("").await;
    let settings = group.settings("");
    let settings = [&borrowed(&settings)[..], &PATIENT].concat();
    let fleet = Fleet::of(&world, 2, &settings).await;
    used_again(&fleet, &world, "the master to be used").await;
    // By hand. The Sentinels would undo it, so they stand still meanwhile.
    group.sentinels.iter().for_each(|sentinel| suite.stack.signal(sentinel, "STOP"));
    let [old, new] = group.servers.each_ref();
    tell(&new.url, &["REPLICAOF", "NO", "ONE"]).await;
    tell(&old.url, &["REPLICAOF", "127.0.0.1", &new.port.to_string()]).await;
    let clients = async || -> String { ask(&old.url, &["CLIENT", "LIST"]).await.unwrap() };
    assert!(clients().await.contains("cmd=mget"), "nothing has closed the connections");
    eventually("the connections to a replica to be closed", async || {
        // Each is a write, which a replica refuses.
        for replica in &fleet.0 {
            assert_eq!(status(replica, &reader(&world).await).await, 200);
        }
        let clients = clients().await;
        !clients.contains("cmd=mget") && !clients.contains("cmd=psetex")
    })
    .await;
}

/// Sentinels that want a login, the first of which does not answer, and a master that wants another
/// one.
pub(crate) async fn sentinels_have_logins_and_may_freeze(suite: Arc<Suite>) {
    let world = suite.world().await;
    let rules = [
        "user default off",
        "user asks on >of-sentinels ~* &* +@all",
        "sentinel auth-user patgate-test keeper",
        "sentinel auth-pass patgate-test of-keeper",
        "sentinel sentinel-user asks",
        "sentinel sentinel-pass of-sentinels",
    ];
    let users = "--user default off --user keeper on >of-keeper ~* &* +@all \
                 --user patgate on >of-patgate ~patgate:* +mget +psetex +del +role \
                 --masteruser keeper --masterauth of-keeper";
    let users: Vec<_> = users.split_whitespace().collect();
    let group = SentinelGroup::start(&suite, &users, &rules).await;
    group.is_ready("asks:of-sentinels@").await;
    let file = suite.dir.path().join(format!("{}.sentinel", world.database));
    std::fs::write(&file, "of-sentinels\n").unwrap();
    let mut settings = group.settings("patgate:of-patgate@");
    settings.push("redis.sentinel.username=asks".to_owned());
    settings.push(format!("redis.sentinel.password_file={}", file.display()));
    let settings = borrowed(&settings);
    let cli = Cli::of(&world).login(&world, "server").with_all(&settings);
    let (code, outcome, detail) = found(&cli, "redis.url");
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    for (setting, reason) in [
        ("redis.sentinel.master=other", "no Sentinel in redis.url knows a master"),
        ("redis.sentinel.username=nobody", "refuses the user name or the password"),
    ] {
        let (code, _, detail) = found(&cli.with_all(&[setting]), "redis.url");
        assert!(code == 1 && detail.contains(reason), "{setting}: {detail}");
    }

    suite.stack.signal(&group.sentinels[0], "STOP");
    let late = Fleet::of(&world, 1, &[&settings[..], &PATIENT].concat()).await;
    used_again(&late, &world, "the master to be found beside a frozen Sentinel").await;
    suite.stack.signal(&group.sentinels[1], "KILL");
    let late = Fleet::of(&world, 1, &[&settings[..], &PATIENT].concat()).await;
    used_again(&late, &world, "the master to be found by the last Sentinel").await;
}

/// The relay follows the master, too.
pub(crate) async fn the_relay_follows_the_master(suite: Arc<Suite>) {
    let world = suite.world().await;
    let group = SentinelGroup::start(&suite, &[], &[]).await;
    group.is_ready("").await;
    let settings = group.settings("");
    let fleet = fleet(&world, 3, &borrowed(&settings)).await;
    obeys(&fleet, &world, "revoked under the first master").await;
    suite.stack.signal(&group.servers[0], "KILL");
    obeys(&fleet, &world, "revoked while there is no master").await;
    let promoted = async || group.master_port(0).await == group.servers[1].port;
    eventually("the replica to be promoted", promoted).await;
    obeys(&fleet, &world, "revoked under the next master").await;
    let heard = async || {
        let leader = the_leader(&fleet).await;
        let silent = fleet.0.iter().enumerate().filter(|(index, _)| *index != leader);
        let mut counts = Vec::new();
        for (_, replica) in silent {
            counts.push(crate::support::relay::frames(replica, "applied").await);
        }
        counts
    };
    let before = heard().await;
    eventually("frames over the next master", async || {
        let now = heard().await;
        now.len() == before.len() && now.iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
    obeys(&fleet, &world, "revoked over the next master").await;
    assert!(relayed(&world)[1].ends_with("redis"));
    assert!(answered(&fleet.0[0]).await > 0);
}
