//! Several Postgres servers in one URL: the primary is found, and followed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
    stack::Server,
};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{
    Suite, Token, World,
    cli::{found, server},
    connect, execute,
    fleet::{Fleet, HEALED, MODELS, answer},
    front::Front,
    load::{CHANGING, Load, UNREAD, WELL},
    settings::{PATIENT, PROMPT, SOON, feed_through, postgres_through},
    standby::{caught_up, scalar},
    tokens::{reader, revoke},
};

const MOVES: &str = "patgate_postgres_primary_changes_total{setting=\"postgres.url\"}";

/// The world's database on these servers.
fn url(world: &World<'_>, user: &str, ports: &[u16]) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let one = world.url(user, ports[0]);
    one.replace(&format!("127.0.0.1:{}", ports[0]), &hosts.join(","))
}

fn several(world: &World<'_>, ports: &[u16]) -> [String; 2] {
    let url = url(world, "server", ports);
    [format!("postgres.url={url}"), format!("feed.url={url}?target_session_attrs=read-write")]
}

/// A primary, its standby, and two replicas behind Envoy that know both.
struct Pair<'s> {
    primary: Server,
    world: World<'s>,
    standby: Server,
    /// As the superuser, to the standby.
    promoted: PgPool,
}

impl<'s> Pair<'s> {
    async fn start(suite: &'s Suite) -> Self {
        let (primary, world) = suite.spare(json!({})).await;
        let standby = suite.stack.start("postgres", json!({ "primary": primary.port }));
        let promoted = connect(&world.url("postgres", standby.port)).await;
        Self { primary, world, standby, promoted }
    }

    async fn promote(&self) -> Instant {
        execute(&self.promoted, "SELECT pg_promote()").await;
        Instant::now()
    }

    /// A token that only the standby's database has, which must be the primary.
    async fn revoke_there(&self, token: &Token) {
        let sql = format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id);
        execute(&self.promoted, &sql).await;
    }
}

/// The primary is killed, or it freezes with its connections open; the standby is promoted. Then the
/// old primary is back, on the timeline that it was left on, while the new one restarts.
async fn fails_over(suite: &Suite, signal: &str) {
    let pair = Pair::start(suite).await;
    let world = &pair.world;
    // The standby comes first: its place in the URL means nothing.
    let urls = several(world, &[pair.standby.port, pair.primary.port]);
    let settings = [&urls[0], &urls[1], PATIENT[0], "negative_ttl=1s", PROMPT[0]];
    let gateway = Front::of(world, &settings).await;
    let load = gateway.load(world).await;
    let fleet = &gateway.fleet;
    let [cold, turning, known] = [reader(world).await, reader(world).await, reader(world).await];
    for token in [&turning, &known] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    revoke(world, &known).await;
    fleet.turn("revoked in time", (&known, MODELS), 200, 401).await;
    caught_up(world, &pair.promoted).await;

    load.allow(CHANGING);
    suite.stack.signal(&pair.primary, signal);
    load.allow_from(Instant::now() + Duration::from_secs(2), UNREAD);
    load.bear(fleet_answers(fleet, &cold, 503)).await;
    load.allow(CHANGING);
    let began = pair.promote().await;
    let took = load.bear(fleet.turn("served by the new primary", (&cold, MODELS), 503, 200)).await;
    println!("{signal}: cold tokens were served {took:?} after the promotion");
    load.allow_from(began + HEALED, WELL);
    load.until(began + HEALED).await;
    load.bear(load.more(WELL, 20)).await;
    pair.revoke_there(&turning).await;
    fleet.turn("revoked on the new primary", (&turning, MODELS), 200, 401).await;
    fleet.all_answer(&known, MODELS, 401).await;
    for replica in &fleet.0 {
        assert_eq!(replica.metric(MOVES).await, 1);
        load.known_to(replica).await;
    }
    // Both listen on the new primary.
    let listening = "SELECT count(*)::text FROM pg_stat_activity
                     WHERE usename = 'server' AND query LIKE 'SELECT pg_backend_pid() AS pid, %'";
    let both = async || scalar(&pair.promoted, listening).await == "2";
    load.bear(eventually("the replicas to listen", both)).await;

    old_primary_returns(suite, &pair, &load, fleet, signal).await;
    load.end(&format!("failover among several hosts, {signal}")).await;
}

async fn old_primary_returns(
    suite: &Suite,
    pair: &Pair<'_>,
    load: &Load,
    fleet: &Fleet,
    signal: &str,
) {
    match signal {
        "STOP" => suite.stack.signal(&pair.primary, "CONT"),
        _ => drop(suite.stack.restart(&pair.primary)),
    }
    let old = connect(&pair.world.url("postgres", pair.primary.port)).await;
    assert_eq!(scalar(&old, "SELECT pg_is_in_recovery()::text").await, "false", "it is a primary");
    // Its database has not heard of this.
    let quiet = reader(&pair.world).await;
    let later = load.cold.last().unwrap();
    pair.revoke_there(later).await;
    load.allow(CHANGING);
    suite.stack.stop(&pair.standby);
    // Only the old primary is up. Nothing of it is used.
    for _ in 0..20 {
        for token in [&quiet, later] {
            for answer in load.bear(fleet.answers(token, MODELS)).await {
                assert!([401, 503].contains(&answer), "{answer} by the old primary");
            }
        }
    }
    suite.stack.restart(&pair.standby);
    let back = Instant::now();
    load.allow_from(back + HEALED, WELL);
    load.bear(fleet.turn("only in the old primary", (&quiet, MODELS), 503, 401)).await;
    load.until(back + HEALED).await;
    load.bear(load.more(WELL, 20)).await;
    fleet.all_answer(later, MODELS, 401).await;
}

/// Waits until both replicas give this answer.
async fn fleet_answers(fleet: &Fleet, token: &Token, status: u16) {
    eventually("the answers of all replicas", async || {
        fleet.answers(token, MODELS).await.iter().all(|answer| *answer == status)
    })
    .await;
}

pub(crate) async fn a_failover_is_followed(suite: Arc<Suite>) {
    fails_over(&suite, "KILL").await;
}

pub(crate) async fn a_frozen_primary_is_left(suite: Arc<Suite>) {
    fails_over(&suite, "STOP").await;
}

/// The old primary continues to run and to answer, as in a partitioned network. The replicas have no
/// reason to leave it, except that they look at the others.
pub(crate) async fn a_server_left_behind_is_noticed(suite: Arc<Suite>) {
    const STALENESS: Duration = Duration::from_secs(3);
    let pair = Pair::start(&suite).await;
    let world = &pair.world;
    let urls = several(world, &[pair.primary.port, pair.standby.port]);
    let settings = [&[urls[0].as_str(), &urls[1]][..], &SOON].concat();
    let fleet = Fleet::of(world, 2, &settings).await;
    let token = reader(world).await;
    fleet.all_answer(&token, MODELS, 200).await;
    caught_up(world, &pair.promoted).await;
    let promoted = pair.promote().await;
    pair.revoke_there(&token).await;
    fleet.turn("revoked on the new primary", (&token, MODELS), 200, 401).await;
    let took = promoted.elapsed();
    println!("noticed after {took:?}");
    assert!(took < STALENESS + HEALED, "{took:?}");
    // Revoked on the server that was left behind: its changes are not used any more.
    let other = reader(world).await;
    for _ in 0..5 {
        fleet.all_answer(&other, MODELS, 401).await;
    }
    for replica in &fleet.0 {
        assert_eq!(replica.metric(MOVES).await, 1);
    }
}

/// One server in each URL, behind a proxy that leads new connections to the successor and keeps those
/// that are open. Only the connection that listens is lost, and the old primary continues to run.
pub(crate) async fn a_listener_takes_the_feed_along(suite: Arc<Suite>) {
    let pair = Pair::start(&suite).await;
    let world = &pair.world;
    let proxy = Proxy::to(pair.primary.port).await;
    let urls = [postgres_through(world, &proxy), feed_through(world, &proxy)];
    let fleet = Fleet::of(world, 2, &[&urls[0], &urls[1], PATIENT[0], PATIENT[1]]).await;
    let token = reader(world).await;
    fleet.all_answer(&token, MODELS, 200).await;
    caught_up(world, &pair.promoted).await;
    pair.promote().await;
    proxy.retarget(pair.standby.port);
    pair.revoke_there(&token).await;
    // What the replicas have open still leads to the old primary, which has not heard of it.
    fleet.all_answer(&token, MODELS, 200).await;
    let accepted = proxy.accepted();
    let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE usename = 'server' AND query LIKE 'SELECT pg_backend_pid() AS pid, %'";
    world.sql(listeners).await;
    fleet.turn("revoked on the new primary", (&token, MODELS), 200, 401).await;
    // Without hammering on the servers.
    let connections = proxy.accepted() - accepted;
    assert!(connections < 40, "{connections} connections");
}

/// A replica that starts when both answer as primaries, and commands, find the later one. A server
/// that does not answer holds nothing up.
pub(crate) async fn the_later_of_two_primaries_is_found(suite: Arc<Suite>) {
    let pair = Pair::start(&suite).await;
    let world = &pair.world;
    caught_up(world, &pair.promoted).await;
    pair.promote().await;
    let lost = reader(world).await;
    let silent = Proxy::to(pair.primary.port).await;
    silent.set(Mode::BlackHole);
    let ports = [silent.port, pair.primary.port, pair.standby.port];
    let cli = server(world).with("postgres.url", &url(world, "administrator", &ports));
    let began = Instant::now();
    cli.ok("user create late@example.com --name Late");
    println!("a command took {:?} beside a server that does not answer", began.elapsed());
    let there = "SELECT count(*)::text FROM patgate.users WHERE email = 'late@example.com'";
    assert_eq!(scalar(&pair.promoted, there).await, "1");
    assert_eq!(scalar(&world.postgres, there).await, "0");
    cli.with("postgres.url", &url(world, "postgres", &ports)).ok("migrate");
    let urls = several(world, &ports);
    let replica = world.serve(&[&urls[0], &urls[1]]).await;
    assert_eq!(answer(&replica, &lost, MODELS).await, 401, "only in the old primary");
}

/// The error names each server and what is wrong with it.
pub(crate) async fn without_a_primary_each_server_is_named(suite: Arc<Suite>) {
    let pair = Pair::start(&suite).await;
    let world = &pair.world;
    let refusing = suite.stack.free_port();
    let other = suite.spare(json!({})).await.0;
    let cli = server(world);
    let check = |ports: &[u16]| {
        found(&cli.with("postgres.url", &url(world, "server", ports)), "postgres.url")
    };
    let (code, outcome, detail) = check(&[pair.standby.port, refusing]);
    assert_eq!((code, &*outcome), (1, "failed"), "{detail}");
    let standby = format!("127.0.0.1, port {}: it is a standby", pair.standby.port);
    let refused = format!("127.0.0.1, port {refusing}: ");
    assert!(detail.contains(&standby) && detail.contains(&refused), "{detail}");
    // Two primaries of different clusters. Both have this database.
    let ports = [pair.primary.port, other.port];
    let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let both = cli.with("postgres.url", &format!("postgres://postgres@{hosts}/postgres"));
    let (code, _, detail) = found(&both, "postgres.url");
    assert!(code == 1 && detail.contains("of another cluster"), "{detail}");
    let (code, outcome, detail) = check(&[refusing, pair.primary.port, pair.standby.port]);
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
}
