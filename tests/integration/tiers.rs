//! The tiers: what is asked of which store, and what happens when one fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate::token::TokenId;
use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{
    Suite,
    entries::{all_held, entries_written},
    fleet::{answer, status},
    outcome, redis_at,
    replica::lookups,
    settings::{PROMPT, SLOW, feed_through, postgres_through, redis_through},
    tokens::{reader, revoke},
};

const MODELS: &str = "/proxy/acme/v1/models";
/// A text that only the statement for looking up a token has.
const LOOK_UP: &str = "p.digest, p.user_id";
const REDIS: &str = "patgate_store_commands_total{store=\"redis\"}";

/// Memory, then Redis (filled by another replica), then Postgres.
pub(crate) async fn each_tier_spares_the_next(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let first = world.serve(&[]).await;
    let second = world.serve(&[]).await;
    let created = world.statements_with(&token.id.to_string());

    assert_eq!(status(&first, &token).await, 200);
    assert_eq!(lookups(&first, "principal", "postgres", "hit").await, 1);
    assert_eq!(lookups(&first, "domain", "postgres", "hit").await, 1);
    for _ in 0..10 {
        assert_eq!(status(&first, &token).await, 200);
    }
    // The first check looks up its token again, after it has waited for the domain.
    assert_eq!(lookups(&first, "principal", "memory", "hit").await, 11);
    assert_eq!(lookups(&first, "principal", "postgres", "hit").await, 1);

    entries_written(&world, 2).await;
    assert_eq!(status(&second, &token).await, 200);
    assert_eq!(lookups(&second, "principal", "redis", "hit").await, 1);
    assert_eq!(lookups(&second, "domain", "redis", "hit").await, 1);
    assert_eq!(lookups(&second, "principal", "postgres", "hit").await, 0);
    assert_eq!(world.statements_with(&token.id.to_string()) - created, 1);
}

/// Refused before any lookup, because of its form or its tag.
pub(crate) async fn a_forged_token_reaches_no_store(suite: Arc<Suite>) {
    let world = suite.world().await;
    let postgres = Proxy::to(suite.postgres.port).await;
    let redis = Proxy::to(suite.valkey.port).await;
    let replica =
        world.serve(&[&postgres_through(&world, &postgres), &redis_through(&world, &redis)]).await;
    // A valid one first, so that the connections are open.
    assert_eq!(status(&replica, &reader(&world).await).await, 200);
    entries_written(&world, 2).await;
    let before = (replica.metric(REDIS).await, redis.bytes_upward());
    let statements = world.statements_with(LOOK_UP);

    let stranger = suite.world().await;
    for _ in 0..100 {
        let forged = reader(&stranger).await;
        for value in [
            forged.bearer(),
            forged.bearer().replacen("pat_", "pat_0", 1),
            "Bearer pat_".to_owned(),
            format!("{0},{0}", forged.bearer()),
        ] {
            let response = replica.check("GET", MODELS, &[("authorization", &value)]).await;
            assert!([400, 401].contains(&outcome(&response).0), "{value}");
        }
    }
    assert_eq!((replica.metric(REDIS).await, redis.bytes_upward()), before, "Redis was asked");
    assert_eq!(world.statements_with(LOOK_UP), statements, "Postgres was asked");
    assert_eq!(lookups(&replica, "principal", "postgres", "negative").await, 0);
}

pub(crate) async fn a_thousand_first_uses_are_one_query(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let replica = world.serve(&SLOW).await;
    let created = world.statements_with(&token.id.to_string());
    let statuses = join_all((0..1000).map(|_| status(&replica, &token))).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(world.statements_with(&token.id.to_string()) - created, 1);
}

/// An attacker who guesses secrets for an id, or replays a deleted token, causes few lookups in
/// Postgres.
pub(crate) async fn unknown_tokens_are_remembered_apart(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&["memory.negatives=100"]).await;
    let good = reader(&world).await;
    assert_eq!(status(&replica, &good).await, 200);
    let gone = reader(&world).await;
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", gone.id)).await;
    for _ in 0..50 {
        assert_eq!(status(&replica, &gone).await, 401);
    }
    assert_eq!(lookups(&replica, "principal", "postgres", "negative").await, 1);
    assert_eq!(lookups(&replica, "principal", "memory", "negative").await, 49);

    for _ in 0..1000 {
        let token = world.unknown(TokenId(Uuid::now_v7()));
        assert_eq!(status(&replica, &token).await, 401);
    }
    assert_eq!(status(&replica, &good).await, 200);
    assert_eq!(lookups(&replica, "principal", "postgres", "hit").await, 1, "it was not evicted");
}

/// One reply is late. The next caller must get the answer to its own question.
pub(crate) async fn a_late_reply_answers_no_later_request(suite: Arc<Suite>) {
    let world = suite.world().await;
    let alive = reader(&world).await;
    let revoked = reader(&world).await;
    world
        .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", revoked.id))
        .await;
    // Both are in Redis, written by another replica.
    let warm = world.serve(&[]).await;
    assert_eq!((status(&warm, &alive).await, status(&warm, &revoked).await), (200, 401));
    entries_written(&world, 3).await;

    let proxy = Proxy::to(suite.valkey.port).await;
    let redis = redis_through(&world, &proxy);
    let stored = redis_at(&world.redis_url).await;
    for _ in 0..10 {
        let replica =
            world.serve(&[&redis, "redis.max_connections=1", "redis.timeout=200ms"]).await;
        // Its connection is open and unused.
        eventually("Redis to be used", async || {
            let other = reader(&world).await;
            assert_eq!(status(&replica, &other).await, 200);
            // A write that takes longer than the timeout of Redis is dropped for good: then try
            // another.
            let written = timeout(Duration::from_secs(1), all_held(&stored, &[&other])).await;
            written.is_ok() && lookups(&replica, "principal", "redis", "miss").await > 0
        })
        .await;
        let timeouts = lookups(&replica, "principal", "redis", "unavailable").await;
        proxy.set(Mode::Delay(Duration::from_millis(600)));
        // Times out on Redis: its reply, "alive", is still in transit.
        assert_eq!(status(&replica, &alive).await, 200);
        assert_eq!(lookups(&replica, "principal", "redis", "unavailable").await, timeouts + 1);
        proxy.set(Mode::Pass);
        assert_eq!(status(&replica, &revoked).await, 401);
        eventually("the reply to arrive, or its connection to end", async || proxy.delayed() == 0)
            .await;
        let next = reader(&world).await;
        assert_eq!(status(&replica, &next).await, 200);
        assert_eq!(lookups(&replica, "principal", "redis", "refused").await, 0, "a foreign reply");
    }
}

/// Postgres is down: cached data is served until it is too old, everything else gets 503, and no
/// answer becomes a 401 or 403.
pub(crate) async fn postgres_may_be_away(suite: Arc<Suite>) {
    let world = suite.world().await;
    let hot = reader(&world).await;
    let refused = world.token(&[]).await;
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let proxy = Proxy::to(suite.postgres.port).await;
        let postgres = postgres_through(&world, &proxy);
        let replica = world
            .serve(&[
                &postgres,
                "redis.url=",
                "deadline=200ms",
                "max_staleness=3s",
                "negative_ttl=1s",
                PROMPT[0],
            ])
            .await;
        // A busy machine may take longer than the deadline; no other error may occur.
        let known = async || {
            let answers = (status(&replica, &hot).await, status(&replica, &refused).await);
            assert!(matches!(answers, (200 | 503, 403 | 503)), "{answers:?} ({mode:?})");
            answers == (200, 403)
        };
        eventually("both to be known", known).await;
        proxy.set(mode);
        let gone = Instant::now();
        let cold = reader(&world).await;
        assert_eq!(status(&replica, &cold).await, 503, "{mode:?}");
        let mut served = 0;
        loop {
            let asked = gone.elapsed();
            match status(&replica, &hot).await {
                200 => served += 1,
                503 => break,
                other => panic!("{other} while Postgres is away ({mode:?})"),
            }
            assert!(asked <= Duration::from_secs(3), "served after max_staleness ({mode:?})");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(served > 0, "hot tokens are served for a while ({mode:?})");
        // It was read a moment later, so it stays usable a moment longer; then no more.
        eventually("a refusal to grow too old", async || match status(&replica, &refused).await {
            403 => false,
            503 => true,
            other => panic!("{other} ({mode:?})"),
        })
        .await;
        proxy.set(Mode::Pass);
        let healed = Instant::now();
        eventually("Postgres to be used again", async || status(&replica, &cold).await == 200)
            .await;
        assert!(healed.elapsed() < Duration::from_secs(5), "healed after {:?}", healed.elapsed());
        eventually("both to be known again", known).await;
    }
}

/// While the feed is lost, knowledge ages; a revocation takes effect within the bound.
pub(crate) async fn nothing_is_older_than_max_staleness(suite: Arc<Suite>) {
    let world = suite.world().await;
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let token = reader(&world).await;
        let proxy = Proxy::to(suite.postgres.port).await;
        let feed = feed_through(&world, &proxy);
        let times = ["deadline=2s", "max_staleness=2s", "negative_ttl=1s"];
        let settings = [&[feed.as_str()], &times[..], &PROMPT].concat();
        let replicas = [world.serve(&settings).await, world.serve(&settings).await];
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 200);
        }
        proxy.set(mode);
        revoke(&world, &token).await;
        let committed = Instant::now();
        let mut refused = [false; 2];
        while refused != [true; 2] {
            for (replica, refused) in replicas.iter().zip(&mut refused) {
                let asked = committed.elapsed();
                match status(replica, &token).await {
                    200 => {
                        assert!(
                            asked <= Duration::from_secs(2),
                            "allowed {asked:?} after the commit"
                        );
                        assert!(!*refused, "allowed again");
                    }
                    401 => *refused = true,
                    other => panic!("{other}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Entries in use are renewed after the answers: no caller waits for a store twice.
pub(crate) async fn without_the_feed_entries_are_refreshed_ahead(suite: Arc<Suite>) {
    let world = suite.world().await;
    const BOUND: Duration = Duration::from_secs(10);
    let token = reader(&world).await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let bound = format!("max_staleness={}s", BOUND.as_secs());
    let replica = world.serve(&[&feed, &bound, "negative_ttl=1s", "redis.url="]).await;
    assert_eq!(status(&replica, &token).await, 200);
    let before = lookups(&replica, "principal", "memory", "hit").await;
    proxy.set(Mode::Refuse);
    let gone = Instant::now();
    let mut asked = 0;
    let mut excused = 0;
    let mut last = gone;
    // Longer than the entry that was read first may be used.
    while gone.elapsed() < BOUND + BOUND / 10 {
        // A use renews the entry: for one that comes too late, nothing is promised.
        excused += u64::from(last.elapsed() > BOUND / 4);
        last = Instant::now();
        assert_eq!(status(&replica, &token).await, 200);
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let from_memory = lookups(&replica, "principal", "memory", "hit").await - before;
    let known = (asked - excused..=asked).contains(&from_memory);
    assert!(known, "{from_memory} of {asked} were answered from memory, {excused} came late");
    let read = lookups(&replica, "principal", "postgres", "hit").await;
    assert!((2..5).contains(&read), "{read} times");
}

/// A row that cannot be read must not make other lookups fail, nor count as missing.
pub(crate) async fn one_bad_row_spoils_no_other(suite: Arc<Suite>) {
    let world = suite.world().await;
    let good = reader(&world).await;
    let bad = reader(&world).await;
    world
        .sql(&format!(
            "ALTER TABLE patgate.pats DROP CONSTRAINT pats_digest_check;
             UPDATE patgate.pats SET digest = 'short' WHERE id = '{}'",
            bad.id
        ))
        .await;
    let replica = world.serve(&["postgres.max_connections=1"]).await;
    let both = (0..20).map(|at| status(&replica, if at % 2 == 0 { &good } else { &bad }));
    for (at, status) in join_all(both).await.into_iter().enumerate() {
        assert_eq!(status, if at % 2 == 0 { 200 } else { 503 });
    }
    // A domain, by both of its references.
    world
        .sql(
            "ALTER TABLE patgate.domains ALTER COLUMN all_models DROP NOT NULL;
             UPDATE patgate.domains SET all_models = NULL WHERE slug = 'acme'",
        )
        .await;
    let id: Uuid = sqlx::query_scalar("SELECT id FROM patgate.domains WHERE slug = 'acme'")
        .fetch_one(&world.postgres)
        .await
        .unwrap();
    for reference in ["acme", &id.to_string()] {
        let path = format!("/proxy/{reference}/v1/models");
        let answered = async || answer(&replica, &good, &path).await;
        eventually("the row to be refused", async || answered().await == 503).await;
        assert_eq!(answered().await, 503, "{reference}");
    }
}

/// With the deadline and the Envoy configuration as shipped: patgate's 503, not Envoy's.
pub(crate) async fn an_outage_is_told_in_our_words(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let postgres = postgres_through(&world, &proxy);
    let replica = world.serve(&[&postgres, "redis.url=", "deadline=100ms"]).await;
    let envoy = replica.envoy_with(&suite, json!({}));
    proxy.set(Mode::BlackHole);
    let bearer = reader(&world).await.bearer();
    // On a busy machine, patgate's answer may sometimes be too late for Envoy.
    eventually("our own words", async || {
        let reply = http::send(envoy.port, "GET", MODELS, &[("authorization", &bearer)], "").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        let ours = reply.code() == "unavailable";
        assert!(!ours || reply.header("retry-after") == Some("1"), "{reply:?}");
        ours
    })
    .await;
}
