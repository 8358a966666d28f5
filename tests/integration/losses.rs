//! The feed, or the network path to Postgres, is lost for a while.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};

use crate::support::{
    Replica, Suite, Token, World,
    entries::{all_held, held, repaired},
    fleet::{Fleet, HEALED, MODELS, answer, polls},
    redis_at,
    replica::lookups,
    settings::{PATIENT, PROMPT, feed_through},
    tokens::{reader, revoke},
};

async fn restarts(replica: &Replica) -> u64 {
    replica.metric("patgate_feed_restarts_total").await
}

/// Changes were pruned before a replica could read them: all of its cached data may be wrong.
pub(crate) async fn beyond_the_horizon_everything_is_read_again(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let cut_off =
        Fleet::of(&world, 1, &[&feed_through(&world, &proxy), PATIENT[0], PATIENT[1]]).await;
    let revoked = reader(&world).await;
    let hot = reader(&world).await;
    for token in [&revoked, &hot] {
        cut_off.all_answer(token, MODELS, 200).await;
    }
    let redis = redis_at(&world.redis_url).await;
    all_held(&redis, &[&revoked]).await;
    let old = held(&redis, &revoked).await;
    proxy.set(Mode::Refuse);
    revoke(&world, &revoked).await;
    world.sql("INSERT INTO patgate.change_marks (at) VALUES (now() - interval '2 hours')").await;
    world.sql("SELECT patgate.prune_changes()").await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM patgate.changes")
        .fetch_one(&world.postgres)
        .await
        .unwrap();
    assert_eq!(left, 0, "changes that are left");
    cut_off.all_answer(&revoked, MODELS, 200).await;

    // A replica that starts now does not know the change either, and finds the old entries in
    // Redis.
    let fresh = Fleet::of(&world, 1, &PATIENT).await;
    fresh.all_answer(&revoked, MODELS, 401).await;
    assert_eq!(lookups(&fresh.0[0], "principal", "redis", "stale").await, 1, "from Redis");
    repaired(&redis, &revoked, &old).await;

    let read = lookups(&cut_off.0[0], "principal", "postgres", "hit").await;
    proxy.set(Mode::Pass);
    cut_off.turn("pruned", (&revoked, MODELS), 200, 401).await;
    cut_off.all_answer(&hot, MODELS, 200).await;
    assert_eq!(restarts(&cut_off.0[0]).await, 2, "at its start, and now");
    // The refusal came from Redis, where the fresh replica had written it.
    let again = lookups(&cut_off.0[0], "principal", "postgres", "hit").await - read;
    assert_eq!(again, 1, "the hot token was not read again");
}

/// The first answer after the feed is back obeys every change that was made while it was lost.
pub(crate) async fn a_feed_that_heals_has_missed_nothing(suite: Arc<Suite>) {
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let world = suite.world().await;
        let proxy = Proxy::to(suite.postgres.port).await;
        let feed = feed_through(&world, &proxy);
        let settings = [&[feed.as_str()], &PATIENT[..], &PROMPT].concat();
        let fleet = Fleet::of(&world, 2, &settings).await;
        let changes = changes(&world).await;
        let hot = reader(&world).await;
        for (token, path, before, ..) in &changes {
            fleet.all_answer(token, path, *before).await;
        }
        proxy.set(mode);
        for (.., sql) in &changes {
            world.sql(sql).await;
        }
        // No replica has learned of the changes: each answers from its cache.
        for (token, path, before, ..) in &changes {
            fleet.all_answer(token, path, *before).await;
        }
        fleet.all_answer(&hot, MODELS, 200).await;

        let polled = join_all(fleet.0.iter().map(|replica| polls(replica))).await;
        // Open connections stay in the black hole; only new ones work.
        proxy.forget();
        proxy.set(Mode::Pass);
        let healed = Instant::now();
        for (replica, polled) in fleet.0.iter().zip(polled) {
            eventually("the feed to be back", async || polls(replica).await > polled).await;
            let took = healed.elapsed();
            assert!(took < HEALED, "the feed was back after {took:?}");
            println!("{mode:?}: the feed was back after {took:?}");
        }
        for (token, path, before, after, sql) in &changes {
            let answers = fleet.answers(token, path).await;
            assert_eq!(answers, [*after; 2], "{before} before, and then: {sql}");
        }
        fleet.all_answer(&hot, MODELS, 200).await;
        for replica in &fleet.0 {
            assert_eq!(restarts(replica).await, 1, "it went on where it had been");
        }
    }
}

/// A token, a path, the answers before and after, and the change in between.
type ChangedAnswer = (Token, &'static str, u16, u16, String);

/// One change of each kind.
async fn changes(world: &World<'_>) -> Vec<ChangedAnswer> {
    const PICKY: &str = "/proxy/picky/v1/models";
    const BETA: &str = "/proxy/beta/v1/models";
    let read = |domain| (domain, "models", "*", "llm_read");
    let owned = async |owner, domain| world.token_for(owner, "1 hour", &[read(domain)]).await;
    let [revoked, deleted, widened] = [
        owned("ann", "acme").await,
        owned("ann", "acme").await,
        world.token(&[("acme", "models", "*", "llm_chat_completions")]).await,
    ];
    let revoke = format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", revoked.id);
    let delete = format!("DELETE FROM patgate.pats WHERE id = '{}'", deleted.id);
    let widen = format!(
        "UPDATE patgate.pat_scopes SET operation = 'llm_read' WHERE pat_id = '{}'",
        widened.id
    );
    let [reader, bob, picky] = [world.id("reader"), world.id("bob"), world.id("picky")];
    let leave = format!("DELETE FROM patgate.role_members WHERE user_id = '{reader}'");
    let disable = format!("UPDATE patgate.users SET enabled = false WHERE id = '{bob}'");
    let close = format!("UPDATE patgate.domains SET enabled = false WHERE id = '{picky}'");
    vec![
        (revoked, MODELS, 200, 401, revoke),
        (deleted, MODELS, 200, 401, delete),
        (widened, MODELS, 403, 200, widen),
        (owned("reader", "acme").await, MODELS, 200, 403, leave),
        (owned("bob", "beta").await, BETA, 200, 401, disable),
        (owned("ann", "picky").await, PICKY, 200, 403, close),
    ]
}

/// So many changes at once that they cannot be read one by one within the time of a statement.
pub(crate) async fn a_bulk_change_does_not_stop_the_feed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let fleet = Fleet::of(&world, 1, &PATIENT).await;
    let hot = reader(&world).await;
    let revoked = reader(&world).await;
    fleet.all_answer(&hot, MODELS, 200).await;
    fleet.all_answer(&revoked, MODELS, 200).await;
    world
        .sql(&format!(
            "BEGIN;
             INSERT INTO patgate.changes (kind, key)
                 SELECT 'token', gen_random_uuid() FROM generate_series(1, 300000);
             UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}';
             COMMIT",
            revoked.id
        ))
        .await;
    // How fast so many are read is not promised, except by `max_staleness`.
    let refused = async || match answer(&fleet.0[0], &revoked, MODELS).await {
        200 => false,
        401 => true,
        other => panic!("{other} while much changes"),
    };
    eventually("the one changed among many", refused).await;
    fleet.all_answer(&revoked, MODELS, 401).await;
    let late = Fleet::of(&world, 1, &PATIENT).await;
    for fleet in [fleet, late] {
        // No replica stays behind.
        let before = polls(&fleet.0[0]).await;
        eventually("polls of the feed", async || polls(&fleet.0[0]).await > before + 2).await;
        let next = reader(&world).await;
        fleet.all_answer(&hot, MODELS, 200).await;
        fleet.all_answer(&next, MODELS, 200).await;
        revoke(&world, &next).await;
        fleet.turn("the next change", (&next, MODELS), 200, 401).await;
    }
}

/// Every pooled connection is dead, without a sign of it. Each attempt to use one costs a timeout.
pub(crate) async fn connections_that_lead_nowhere_are_given_up(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let postgres = format!("postgres.url={}", world.url("server", proxy.port));
    let feed = format!("feed.url={}", world.url("server", suite.postgres.port));
    let settings = [&postgres, &feed, "redis.url=", "deadline=100ms", PATIENT[0], PROMPT[0]];
    let fleet = Fleet::of(&world, 1, &settings).await;
    let replica = &fleet.0[0];
    let hot = reader(&world).await;
    let cold = reader(&world).await;
    // A busy machine may take longer than the deadline.
    eventually("the hot token", async || answer(replica, &hot, MODELS).await == 200).await;
    stand(&world, &proxy, replica, 6, Duration::from_millis(100)).await;

    proxy.forget();
    let healed = Instant::now();
    let mut refused = 0;
    while answer(replica, &cold, MODELS).await != 200 {
        assert!(healed.elapsed() < HEALED, "after {refused} refusals");
        assert_eq!(answer(replica, &hot, MODELS).await, 200);
        refused += 1;
    }
    assert!(refused > 0, "the connections were not dead");
    println!("served after {:?}", healed.elapsed());
}

/// Starts lookups until this many new connections are open: replies are slow, and one lookup after
/// another begins.
async fn stand(
    world: &World<'_>,
    proxy: &Proxy,
    replica: &Arc<Replica>,
    connections: u64,
    late: Duration,
) {
    proxy.set(Mode::Delay(late));
    let before = proxy.accepted();
    let tokens = Mutex::new(Vec::new());
    eventually("connections", async || {
        let token = reader(world).await;
        tokens.lock().unwrap().push(token.clone());
        let replica = Arc::clone(replica);
        let sent = proxy.bytes_upward();
        let asked = tokio::spawn(async move { answer(&replica, &token, MODELS).await });
        // Lookups that begin together would share a connection.
        let begun = async || proxy.bytes_upward() > sent || asked.is_finished();
        eventually("a lookup", begun).await;
        proxy.accepted() - before >= connections
    })
    .await;
    proxy.set(Mode::Pass);
    for token in &tokens.into_inner().unwrap() {
        let served = async || answer(replica, token, MODELS).await == 200;
        eventually("the lookups to end", served).await;
    }
}

/// The same for Redis, which gets only one attempt per second after some failures.
pub(crate) async fn connections_to_redis_that_lead_nowhere_are_given_up(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let redis = world.redis_url.replace(&suite.valkey.port.to_string(), &proxy.port.to_string());
    let redis = format!("redis.url={redis}");
    let settings = [&redis, "redis.max_connections=16", "redis.timeout=1500ms", "deadline=4s"];
    let settings = [&settings[..], &PATIENT].concat();
    let fleet = loop {
        let fleet = Fleet::of(&world, 1, &settings).await;
        let replica = &fleet.0[0];
        fleet.all_answer(&reader(&world).await, MODELS, 200).await;
        stand(&world, &proxy, replica, 14, Duration::from_millis(300)).await;
        let in_vain = async |result| lookups(replica, "principal", "redis", result).await;
        // A busy machine may be even slower. Then connections were given up already, and another
        // replica must be asked, because this one may have no room for as many again.
        if in_vain("unavailable").await + in_vain("open").await == 0 {
            break fleet;
        }
    };
    let replica = &fleet.0[0];

    proxy.forget();
    let healed = Instant::now();
    let misses = async || lookups(replica, "principal", "redis", "miss").await;
    let before = misses().await;
    let first = join_all((0..5).map(|_| reader(&world))).await;
    let asked = first.iter().map(|token| answer(replica, token, MODELS));
    assert_eq!(join_all(asked).await, [200; 5]);
    assert_eq!(misses().await, before, "the connections were not dead");
    while misses().await == before {
        assert!(healed.elapsed() < HEALED, "Redis is not used again");
        assert_eq!(answer(replica, &reader(&world).await, MODELS).await, 200);
    }
    println!("used again after {:?}", healed.elapsed());
}
