//! A revocation against everything that could bring back the state before it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};

use crate::support::{
    Scope, Suite, Token, World,
    entries::{all_held, entries_written, settled},
    fleet::{Fleet, MODELS, answer},
    redis_at,
    replica::lookups,
    settings::PATIENT,
    tokens::{reader, revoke},
};

const READ: Scope<'_> = ("acme", "models", "*", "llm_read");

/// Its transaction id is old when it commits: for a minute, later transactions began and ended,
/// were read, and were pruned.
pub(crate) async fn a_long_transaction_counts_from_its_commit(suite: Arc<Suite>) {
    let world = suite.world().await;
    let mut fleet = Fleet::of(&world, 3, &PATIENT).await;
    let early = reader(&world).await;
    let late = reader(&world).await;
    for token in [&early, &late] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    let update = |token: &Token| {
        format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id)
    };
    let mut long = world.postgres.begin().await.unwrap();
    let begin = "SELECT pg_current_xact_id()";
    sqlx::raw_sql(begin).execute(&mut *long).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(update(&early))).execute(&mut *long).await.unwrap();
    let began = Instant::now();
    let mut others = 0;
    while began.elapsed() < Duration::from_secs(60) {
        let seen = visible(&world).await;
        let other = reader(&world).await;
        fleet.all_answer(&other, MODELS, 200).await;
        revoke(&world, &other).await;
        // After this, every replica has read beyond that.
        fleet.turn("revoked meanwhile", (&other, MODELS), 200, 401).await;
        prune(&world, &seen).await;
        for token in [&early, &late] {
            fleet.all_answer(token, MODELS, 200).await;
        }
        others += 1;
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM patgate.changes")
        .fetch_one(&world.postgres)
        .await
        .unwrap();
    println!("{others} others came and went; {left} changes are left");
    assert!(others >= 10 && left < others, "{others} others, {left} changes");
    for replica in &fleet.0 {
        let restarts = replica.metric("patgate_feed_restarts_total").await;
        assert_eq!(restarts, 1, "what was pruned had not been read");
    }
    // Two replicas start in between: one is filled from Postgres, which also fills Redis, and the
    // other from Redis. Earlier entries do not include the pruned changes.
    flush(&world).await;
    for tier in ["postgres", "redis"] {
        let another = Fleet::of(&world, 1, &PATIENT).await;
        for token in [&early, &late] {
            another.all_answer(token, MODELS, 200).await;
        }
        assert_eq!(lookups(&another.0[0], "principal", tier, "hit").await, 2);
        // Exactly these entries: one of the others may have been written late.
        all_held(&redis_at(&world.redis_url).await, &[&early, &late]).await;
        fleet.0.extend(another.0);
    }
    let seen = visible(&world).await;
    fleet.polled(2).await;
    prune(&world, &seen).await;
    fleet.polled(2).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(update(&late))).execute(&mut *long).await.unwrap();
    for token in [&early, &late] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    long.commit().await.unwrap();
    for token in [&early, &late] {
        fleet.turn("committed", (token, MODELS), 200, 401).await;
    }
    // A replica that knows only what pruning has left, and the others' entries in Redis.
    world.sql("SELECT patgate.prune_changes()").await;
    let last = Fleet::of(&world, 1, &PATIENT).await;
    for token in [&early, &late] {
        last.all_answer(token, MODELS, 401).await;
    }
}

/// A reply with the old state is on its way when the revocation is committed and announced. Another
/// replica, which does not learn of it, writes the old state to Redis even later.
pub(crate) async fn a_slow_fill_brings_nothing_back(suite: Arc<Suite>) {
    const ROUNDS: usize = 16;
    const TOKENS: usize = 32;
    /// The size of the part of a reply for one token; the real size is larger.
    const REPLY: u64 = 400;
    let world = suite.world().await;
    let slow = Proxy::to(suite.postgres.port).await;
    let slower = Proxy::to(suite.postgres.port).await;
    let nowhere = Proxy::to(suite.postgres.port).await;
    let url = |proxy: &Proxy| format!("postgres.url={}", world.url("server", proxy.port));
    let direct = format!("feed.url={}", world.url("server", suite.postgres.port));
    // A connection per token, so that all are looked up at once.
    let connections = format!("postgres.max_connections={TOKENS}");
    let patient =
        [PATIENT[0], PATIENT[1], "deadline=10s", "postgres.query_timeout=5s", &connections];
    let serve = async |url: String, feed: &String| {
        let settings = [url.as_str(), feed];
        world.serve(&[&settings[..], &patient].concat()).await
    };
    let told = serve(url(&slow), &direct).await;
    let cut_off = format!("feed.url={}", world.url("server", nowhere.port));
    let untold = serve(url(&slower), &cut_off).await;
    let warm = reader(&world).await;
    for replica in [&told, &untold] {
        assert_eq!(answer(replica, &warm, MODELS).await, 200);
    }
    nowhere.set(Mode::Refuse);
    slow.set(Mode::Delay(Duration::from_millis(300)));
    // More than twice that: an overtaken result is read again before.
    slower.set(Mode::Delay(Duration::from_millis(800)));
    let known = async || told.metric("patgate_feed_changes_total").await;
    let mut racers = 0;
    let mut revoked = Vec::new();
    for _ in 0..ROUNDS {
        let (tokens, sql): (Vec<_>, Vec<_>) =
            (0..TOKENS).map(|_| world.issue("ann", "1 hour", &[READ])).unzip();
        let before = known().await;
        world.sql(&sql.concat()).await;
        eventually("the tokens to be known", async || known().await >= before + TOKENS as u64)
            .await;
        let ids: Vec<_> = tokens.iter().map(|token| format!("'{}'", token.id)).collect();
        // Before any reply.
        let sent = [slow.bytes_downward(), slower.bytes_downward()];
        let revocation = async {
            // As soon as all replies to both are on their way.
            let replies = REPLY * TOKENS as u64;
            eventually("replies", async || {
                [slow.bytes_downward(), slower.bytes_downward()]
                    .iter()
                    .zip(sent)
                    .all(|(now, before)| *now >= before + replies)
            })
            .await;
            let before = known().await;
            let ids = ids.join(",");
            world
                .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id IN ({ids})"))
                .await;
            eventually("the change to be announced", async || {
                known().await >= before + TOKENS as u64
            })
            .await;
            // These join the lookups in progress.
            let told = &told;
            join_all(tokens.iter().map(|token| answer(told, token, MODELS))).await
        };
        let racing = join_all(tokens.iter().map(|token| answer(&told, token, MODELS)));
        let elsewhere = join_all(tokens.iter().map(|token| answer(&untold, token, MODELS)));
        let (racing, elsewhere, after) = tokio::join!(racing, elsewhere, revocation);
        for answer in racing.iter().chain(&elsewhere) {
            assert!([200, 401].contains(answer), "{answer}");
        }
        assert_eq!(after, [401; TOKENS], "asked after the change was announced");
        racers += elsewhere.iter().filter(|answer| **answer == 200).count();
        for token in &tokens {
            assert_eq!(answer(&told, token, MODELS).await, 401);
        }
        revoked.extend(tokens);
    }
    // Lookups that the revocation overtook were repeated.
    let overtaken =
        lookups(&told, "principal", "postgres", "hit").await as usize - revoked.len() - 1;
    println!("{} revocations: {overtaken} fills overtaken, {racers} elsewhere", revoked.len());
    assert!(overtaken.min(racers) >= ROUNDS * TOKENS / 4, "too few to prove anything");
    entries_written(&world, revoked.len()).await;
    let late = Fleet::of(&world, 1, &PATIENT).await;
    let late = &late.0[0];
    for token in &revoked {
        assert_eq!(answer(&told, token, MODELS).await, 401);
        assert_eq!(answer(late, token, MODELS).await, 401);
    }
    assert!(lookups(late, "principal", "redis", "stale").await > 0, "no stale entry was in Redis");
}

/// The token is good in memory, and revoked while Postgres is asked about the domain.
pub(crate) async fn a_slow_domain_keeps_no_token_alive(suite: Arc<Suite>) {
    let world = suite.world().await;
    let slow = Proxy::to(suite.postgres.port).await;
    let settings = [
        &format!("postgres.url={}", world.url("server", slow.port)),
        &format!("feed.url={}", world.url("server", suite.postgres.port)),
        "deadline=10s",
        "postgres.query_timeout=5s",
        "redis.url=",
    ];
    let replica = world.serve(&[&settings[..], &PATIENT].concat()).await;
    let token = world.token(&[READ, ("picky", "models", "*", "llm_read")]).await;
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    slow.set(Mode::Delay(Duration::from_secs(1)));
    let before = slow.bytes_downward();
    let asked = answer(&replica, &token, "/proxy/picky/api/version");
    let revoked = async {
        eventually("the reply about the domain", async || slow.bytes_downward() > before).await;
        let known = async || replica.metric("patgate_feed_changes_total").await;
        let before = known().await;
        revoke(&world, &token).await;
        eventually("the change to be known", async || known().await > before).await;
    };
    assert_eq!(tokio::join!(asked, revoked).0, 401);
}

/// A Redis that is restored, or whose values are put back.
pub(crate) async fn an_old_redis_brings_nothing_back(suite: Arc<Suite>) {
    let world = suite.world().await;
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    let tokens = [reader(&world).await, reader(&world).await, reader(&world).await];
    for token in &tokens {
        fleet.all_answer(token, MODELS, 200).await;
    }
    entries_written(&world, tokens.len() + 1).await;
    let mut redis = redis_at(&world.redis_url).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    let values: Vec<Vec<u8>> = redis::cmd("MGET").arg(&keys).query_async(&mut redis).await.unwrap();
    revoke(&world, &tokens[0]).await;
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", tokens[1].id)).await;
    for token in &tokens[..2] {
        fleet.turn("revoked", (token, MODELS), 200, 401).await;
    }
    let restore = async |redis: &mut redis::aio::MultiplexedConnection| {
        let mut pipeline = redis::pipe();
        pipeline.cmd("FLUSHDB").ignore();
        for (key, value) in keys.iter().zip(&values) {
            pipeline.set(key, value).ignore();
        }
        let () = pipeline.query_async(redis).await.unwrap();
    };
    settled(&redis, &world, &fleet).await;
    restore(&mut redis).await;
    let started = Fleet::of(&world, 1, &PATIENT).await;
    for fleet in [&fleet, &started] {
        for (token, status) in tokens.iter().zip([401, 401, 200]) {
            fleet.all_answer(token, MODELS, status).await;
        }
    }
    let fresh = &started.0[0];
    assert_eq!(lookups(fresh, "principal", "redis", "stale").await, 2, "the two were there");
    assert_eq!(lookups(fresh, "principal", "redis", "hit").await, 1, "and the third is good");
    // Also if memory no longer holds anything.
    restore(&mut redis).await;
    let poor = Fleet::of(&world, 1, &[PATIENT[0], PATIENT[1], "memory.principals=1KiB"]).await;
    for _ in 0..5 {
        for (token, status) in tokens.iter().zip([401, 401, 200]) {
            poor.all_answer(token, MODELS, status).await;
        }
    }
}

/// Returns the current snapshot.
async fn visible(world: &World<'_>) -> String {
    let snapshot = "SELECT pg_current_snapshot()::text";
    sqlx::query_scalar(snapshot).fetch_one(&world.postgres).await.unwrap()
}

/// Prunes the changes in the snapshot, which every replica has read, as if they were hours old.
async fn prune(world: &World<'_>, snapshot: &str) {
    let mark = "INSERT INTO patgate.change_marks VALUES (now() - interval '2 hours', '";
    world.sql(&format!("{mark}{snapshot}')")).await;
    world.sql("SELECT patgate.prune_changes()").await;
}

async fn flush(world: &World<'_>) {
    redis::cmd("FLUSHDB").exec_async(&mut redis_at(&world.redis_url).await).await.unwrap();
}
