//! Several installations share a cluster, a Redis, a key ring or an address: each uses only its own
//! data.

use std::{fs, sync::Arc};

use patgate::app::App;
use patgate_testing::{eventually, proxy::Proxy};
use serde_json::json;

use crate::support::{
    Suite, Token, World,
    cli::Cli,
    connect, execute,
    fleet::{Fleet, MODELS, answer},
    redis_at, relay,
    settings::{PATIENT, SOON, feed_through},
    tokens::{reader, revoke, revoke_and_wait},
    value,
};

async fn identity(world: &World<'_>) -> String {
    value(world, "SELECT patgate.identity()").await
}

/// A replica of this world with empty memory.
async fn fresh(world: &World<'_>) -> Fleet {
    Fleet::of(world, 1, &PATIENT).await
}

/// Staging is made from production by `pg_dump`, in the same cluster, with the same Redis and the
/// same keys. If one of them revokes a token, its replicas refuse it, whatever the other one's
/// replicas write.
pub(crate) async fn a_restored_dump_beside_its_original_is_another(suite: Arc<Suite>) {
    let production = suite.world().await;
    let tokens = [reader(&production).await, reader(&production).await];
    let serving = Fleet::of(&production, 2, &PATIENT).await;
    let staging = production.restored().await;
    assert_ne!(identity(&production).await, identity(&staging).await);

    // Leases are part of the dump, and no replica serves from it.
    let leases: i64 = value(&staging, "SELECT count(*) FROM patgate.replicas").await;
    let output = revoke_and_wait(&staging, &reader(&staging).await).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(leases == 2 && said.contains("no replica is known to serve"), "{leases}: {said}");

    let staged = Fleet::of(&staging, 1, &PATIENT).await;
    let sides = [(&production, &serving), (&staging, &staged)];
    for (at, token) in tokens.iter().enumerate() {
        let (here, ours) = sides[at];
        let (there, theirs) = sides[1 - at];
        for fleet in [ours, theirs] {
            fleet.all_answer(token, MODELS, 200).await;
        }
        revoke(here, token).await;
        ours.turn("revoked here", (token, MODELS), 200, 401).await;
        let mut redis = redis_at(&here.redis_url).await;
        redis::cmd("FLUSHDB").exec_async(&mut redis).await.unwrap();
        // Each would find the other's entries in Redis, if it looked there.
        for _ in 0..2 {
            fresh(there).await.all_answer(token, MODELS, 200).await;
            in_redis(there, token).await;
            fresh(here).await.all_answer(token, MODELS, 401).await;
            in_redis(here, token).await;
        }
        theirs.all_answer(token, MODELS, 200).await;
        ours.all_answer(token, MODELS, 401).await;
    }
}

/// Waits until the entries about a token are written.
async fn in_redis(world: &World<'_>, token: &Token) {
    let redis = redis_at(&world.redis_url).await;
    eventually("an entry in Redis", async || {
        let pattern = format!("patgate:*principal:{}", token.id);
        let keys = redis::cmd("KEYS").arg(pattern).query_async(&mut redis.clone()).await;
        keys.is_ok_and(|keys: Vec<String>| !keys.is_empty())
    })
    .await;
}

/// The same with the feed relayed: frames of one installation do not reach the followers of the
/// other.
pub(crate) async fn relays_that_share_a_redis_are_apart(suite: Arc<Suite>) {
    let production = suite.world().await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        tokens.push(reader(&production).await);
    }
    let staging = production.restored().await;
    let fleets = [relay::fleet(&production, 2, &[]).await, relay::fleet(&staging, 2, &[]).await];
    let sides = [(&production, &fleets[0]), (&staging, &fleets[1])];
    for (at, token) in tokens.iter().enumerate() {
        let (here, ours) = sides[at % 2];
        let (_, theirs) = sides[1 - at % 2];
        for fleet in [ours, theirs] {
            fleet.all_answer(token, MODELS, 200).await;
        }
        revoke(here, token).await;
        ours.turn("revoked under a relay that is shared", (token, MODELS), 200, 401).await;
        theirs.all_answer(token, MODELS, 200).await;
        let output = revoke_and_wait(here, token).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("applied by 2 replicas"), "{said}");
    }
    for fleet in &fleets {
        for replica in &fleet.0 {
            assert_eq!(relay::frames(replica, "refused").await, 0);
        }
    }
}

/// One word in `feed.url` is wrong.
pub(crate) async fn a_feed_of_another_database_keeps_from_serving(suite: Arc<Suite>) {
    let production = suite.world().await;
    let staging = production.restored().await;
    let ids = [identity(&staging).await, identity(&production).await];
    let refusal = async |feed: &str| {
        let config = production.config(&[&format!("feed.url={feed}")]);
        App::build(&config).await.err().expect("no start").to_string()
    };
    let error = refusal(&staging.url("server", staging.port)).await;
    let [feed, postgres] = ids;
    let told = format!(
        "feed.url leads to another installation of patgate than postgres.url: {feed} there, \
         {postgres} here"
    );
    assert!(error.contains(&told), "{error}");
    let error = refusal(&suite.postgres_url("server", "postgres")).await;
    assert!(error.starts_with("feed.url: "), "{error}");
    let cli = Cli::of(&production)
        .login(&production, "server")
        .with("listen.grpc", "127.0.0.1:0")
        .with("listen.http", "127.0.0.1:0")
        .with("start.require", "postgres")
        .with("feed.url", &staging.url("server", staging.port));
    cli.refused("serve", 2, &told);
    production.serve(&[&format!("feed.url={}", production.url("server", production.port))]).await;
}

/// The address of a feed begins to lead to another database of the same cluster.
pub(crate) async fn a_feed_url_that_comes_to_lead_elsewhere_is_not_trusted(suite: Arc<Suite>) {
    let production = suite.world().await;
    let staging = production.restored().await;
    let ids = [identity(&production).await, identity(&staging).await];
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&production, &proxy);
    let fleet = Fleet::of(&production, 1, &[&[feed.as_str()], &SOON[..]].concat()).await;
    let replica = &fleet.0[0];
    let token = reader(&production).await;
    let other = reader(&production).await;
    fleet.all_answer(&token, MODELS, 200).await;

    proxy.lead(&production.database, &staging.database);
    proxy.cut();
    let elsewhere = "patgate_other_installation_answers_total{setting=\"feed.url\"}";
    eventually("another installation to answer", async || replica.metric(elsewhere).await > 1)
        .await;
    revoke(&production, &token).await;
    fleet.turn("revoked unknown to the feed", (&token, MODELS), 200, 401).await;
    fleet.all_answer(&other, MODELS, 200).await;
    // Knowledge about another database is not used.
    eventually("what is known of changes to grow old", async || {
        replica.gauge("patgate_feed_watermark_age_seconds").await > 3.0
    })
    .await;
    // A waiting command does not report the change as applied.
    let output = revoke_and_wait(&production, &other).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("applied by 1"), "{said}");
    fleet.turn("revoked and waited for", (&other, MODELS), 401, 401).await;
    let theirs: i64 =
        value(&staging, "SELECT count(*) FROM patgate.replicas WHERE watermark > now()").await;
    assert_eq!(theirs, 0, "a lease was left with another installation");

    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let [ours, theirs] = &ids;
    let told = format!("expected {ours}, found {theirs}");
    let warned = log
        .lines()
        .filter(|line| line.contains("the feed of changes is lost") && line.contains(&told));
    let warned: Vec<&str> = warned.collect();
    assert!(warned.len() == 1 && warned[0].contains("feed.url"), "{warned:#?}");

    proxy.lead(&staging.database, &production.database);
    let last = reader(&production).await;
    let polled = async || crate::support::fleet::polls(replica).await;
    let before = polled().await;
    eventually("the feed to be back", async || polled().await > before + 1).await;
    fleet.all_answer(&last, MODELS, 200).await;
    revoke(&production, &last).await;
    fleet.turn("revoked when the feed is back", (&last, MODELS), 200, 401).await;
}

/// `postgres.url` itself leads to another database: nothing from it is used.
pub(crate) async fn a_postgres_url_that_comes_to_lead_elsewhere_is_not_trusted(suite: Arc<Suite>) {
    let production = suite.world().await;
    let token = reader(&production).await;
    let staging = production.restored().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let url = production.url("server", proxy.port);
    let url = format!("postgres.url={url}");
    let settings = [&[url.as_str(), "redis.url="], &SOON[..]].concat();
    let fleet = Fleet::of(&production, 1, &settings).await;
    let theirs = reader(&staging).await;
    fleet.all_answer(&token, MODELS, 200).await;
    proxy.lead(&production.database, &staging.database);
    proxy.cut();
    revoke(&production, &token).await;
    eventually("what was known to expire", async || {
        let answer = answer(&fleet.0[0], &token, MODELS).await;
        assert!([200, 503].contains(&answer), "{answer}");
        answer == 503
    })
    .await;
    fleet.all_answer(&theirs, MODELS, 503).await;
    proxy.lead(&staging.database, &production.database);
    fleet.turn("led to the right one again", (&token, MODELS), 503, 401).await;
}

/// Nor is anything written to the other database: no canary, and no note of use.
pub(crate) async fn nothing_is_written_to_another_installation(suite: Arc<Suite>) {
    const CANARIES: &str = "SELECT count(*) FROM patgate.users
        WHERE email = 'revocation-canary@patgate.invalid'";
    const UNAVAILABLE: &str = "patgate_revocation_canary_rounds_total{result=\"unavailable\"}";
    let production = suite.world().await;
    let staging = production.restored().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let url = format!("postgres.url={}", production.url("server", proxy.port));
    let replica = production.serve(&[&[&*url, "canary.every=100ms"], &SOON[..]].concat()).await;
    let flips = async || value::<i64>(&production, CANARIES).await;
    eventually("a canary", async || flips().await == 1).await;
    let before = replica.metric(UNAVAILABLE).await;
    proxy.lead(&production.database, &staging.database);
    proxy.cut();
    eventually("flips elsewhere", async || replica.metric(UNAVAILABLE).await > before + 5).await;
    assert_eq!(value::<i64>(&staging, CANARIES).await, 0);
    proxy.lead(&staging.database, &production.database);
    proxy.cut();
    let seen = "patgate_revocation_canary_rounds_total{result=\"seen\"}";
    let before = replica.metric(seen).await;
    eventually("flips here again", async || replica.metric(seen).await > before).await;
}

/// A copy of a cluster's files is the same installation until it is renewed.
pub(crate) async fn a_copy_of_the_files_is_renewed(suite: Arc<Suite>) {
    let (original, world) = suite.spare(json!({})).await;
    let replica = world.serve(&[&["redis.url="], &SOON[..]].concat()).await;
    let token = reader(&world).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    let copy = suite.stack.start("postgres", json!({ "primary": original.port }));
    let copied = connect(&world.url("postgres", copy.port)).await;
    execute(&copied, "SELECT pg_promote()").await;
    let at = |port| {
        Cli::of(&world)
            .with("postgres.url", &world.url("administrator", port))
            .with("redis.url", "")
    };
    let shown = |port| at(port).json("installation show")["identity"].as_str().unwrap().to_owned();
    assert_eq!(shown(original.port), shown(copy.port));
    let identity = shown(copy.port);
    assert_eq!(identity, self::identity(&world).await);

    // The replica serves, or did until lately: the database cannot distinguish the two.
    at(copy.port).refused("installation renew", 2, "replicas serve from this database");
    let said = at(copy.port).ok("installation renew --yes");
    assert!(said.contains("this installation is "), "{said}");
    assert_ne!(shown(copy.port), identity);
    assert_eq!(shown(original.port), identity);
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    let entry = at(copy.port).json("audit list --action installation.renew --limit 1");
    let old_id = entry[0]["details"]["old_id"].as_str().unwrap();
    assert!(identity.ends_with(old_id), "{entry}");

    // A replica whose installation gets a new id stops using the database; the next one uses it.
    at(original.port).ok("installation renew --yes");
    eventually("it to notice", async || answer(&replica, &token, MODELS).await == 503).await;
    let next = world.serve(&["redis.url="]).await;
    assert_eq!(answer(&next, &token, MODELS).await, 200);
}
