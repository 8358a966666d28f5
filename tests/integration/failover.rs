//! Postgres goes away, comes back, comes back as somebody else, or comes back with less.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use serde_json::json;
use sqlx::{PgPool, Row};

use crate::{
    fleet::{Fleet, HEALED, MODELS, PATIENT, answer},
    harness::{Suite, Token, World, connect, execute},
    proxy::{Mode, Proxy},
    tiers::{eventually, lookups, reader, revoke},
};

/// A standby is promoted that never heard of the last transactions; the old primary lives on, as
/// in a partitioned network.
pub(crate) async fn a_standby_that_lost_transactions_takes_over(suite: Arc<Suite>) {
    let (primary, world) = suite.spare(json!({})).await;
    let replication = Proxy::to(primary.port).await;
    let standby = suite.stack.start("postgres", json!({ "primary": replication.port }));
    let promoted = connect(&world.url("postgres", standby.port)).await;
    let front = Proxy::to(primary.port).await;
    let settings = [&postgres_at(&world, front.port), PATIENT[0], "negative_ttl=1s"];
    let fleet = Fleet::of(&world, 2, &settings).await;
    let mut tokens = Vec::new();
    for _ in 0..7 {
        tokens.push(reader(&world).await);
    }
    let [kept, known, lost, later, quiet, cold, colder] = tokens.try_into().unwrap();
    for token in [&kept, &known, &lost, &later, &quiet] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    revoke(&world, &known).await;
    fleet.turn("revoked in time", (&known, MODELS), 200, 401).await;
    caught_up(&world, &promoted).await;

    replication.set(Mode::Refuse);
    revoke(&world, &lost).await;
    fleet.turn("revoked too late for the standby", (&lost, MODELS), 200, 401).await;
    let ghosts = [reader(&world).await, reader(&world).await];
    for ghost in &ghosts {
        fleet.all_answer(ghost, MODELS, 200).await;
    }
    let lost_ids = burn(&world.postgres, 50).await;
    fleet.polled(2).await;

    // Before it is promoted, the standby is nobody to ask.
    front.retarget(standby.port);
    front.cut();
    for (token, status) in [(&cold, 503), (&kept, 200), (&known, 401), (&lost, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }

    // Nor for one that starts now, and knows of no primary.
    let stranded = Fleet::of(&world, 1, &settings).await;
    for token in [&cold, &kept, &known] {
        stranded.all_answer(token, MODELS, 503).await;
    }
    drop(stranded);

    execute(&promoted, "SELECT pg_promote()").await;
    fleet.turn("served by the new primary", (&cold, MODELS), 503, 200).await;
    // Each replica has met it now, and uses nothing from before.
    for (token, status) in [(&ghosts[0], 401), (&kept, 200), (&known, 401), (&lost, 200)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    let late = Fleet::of(&world, 1, &settings).await;
    late.all_answer(&ghosts[1], MODELS, 401).await;
    assert_eq!(lookups(&late.0[0], "principal", "redis", "stale").await, 1, "from Redis");

    // Ids that the lost transactions had are given out again.
    let id = revoke_as(&promoted, &later).await;
    assert!(id < lost_ids, "{id} is not below {lost_ids}");
    revoke_as(&promoted, &quiet).await;
    fleet.turn("revoked on the new primary", (&later, MODELS), 200, 401).await;

    // The old primary, of which it is known by now that it is one.
    front.retarget(primary.port);
    front.cut();
    for (token, status) in [(&colder, 503), (&quiet, 503), (&kept, 200), (&later, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    for answer in fleet.answers(&ghosts[0], MODELS).await {
        assert!([401, 503].contains(&answer), "{answer}");
    }
    // The address leads to the right one again, and nobody closes what stands.
    front.retarget(standby.port);
    fleet.turn("away from the old primary", (&colder, MODELS), 503, 200).await;
    fleet.all_answer(&quiet, MODELS, 401).await;
}

/// A Postgres that answers before it writes is killed: ids of what is lost are given out again.
pub(crate) async fn ids_given_out_twice_hide_no_change(suite: Arc<Suite>) {
    let forgetful = json!({
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "1GB",
        // Neither writes a page, which would write the log first.
        "bgwriter_lru_maxpages": 0,
        "checkpoint_timeout": "1h",
    });
    let (postgres, world) = suite.spare(forgetful).await;
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    let (lost, kept) = (reader(&world).await, reader(&world).await);
    let mut cold = Vec::new();
    for _ in 0..5 {
        cold.push(reader(&world).await);
    }
    for token in [&lost, &kept] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    let written = "SELECT pg_current_wal_lsn()::text";
    let (lost_ids, later) = loop {
        // The log is written now, and not again for ten seconds.
        let end = scalar(&world.postgres, "SELECT pg_current_wal_insert_lsn()::text").await;
        let reached = format!("SELECT (pg_current_wal_lsn() >= '{end}')::text");
        eventually("the log to be written", async || {
            scalar(&world.postgres, &reached).await == "true"
        })
        .await;
        let before = scalar(&world.postgres, written).await;
        revoke(&world, &lost).await;
        fleet.turn("revoked in vain", (&lost, MODELS), 200, 401).await;
        let lost_ids = burn(&world.postgres, 200).await;
        // Its entries and all that is polled from here on count these ids among what they saw.
        let later = cold.pop().expect("a log that is not written for a while");
        fleet.all_answer(&later, MODELS, 200).await;
        fleet.polled(2).await;
        if scalar(&world.postgres, written).await == before {
            break (lost_ids, later);
        }
        world.sql("UPDATE patgate.pats SET revoked_at = NULL").await;
        fleet.turn("once more", (&lost, MODELS), 401, 200).await;
    };
    suite.stack.signal(&postgres, "KILL");
    suite.stack.restart(&postgres);

    let id = revoke_as(&world.postgres, &later).await;
    assert!(id < lost_ids, "{id} is not below {lost_ids}");
    println!("{id} was given out again, up to {lost_ids} were lost");
    let refused = async || fleet.answers(&later, MODELS).await == [401; 2];
    eventually("a change with an id that was there before to be obeyed", refused).await;
    for (token, status) in [(&later, 401), (&lost, 200), (&kept, 200)] {
        fleet.all_answer(token, MODELS, status).await;
    }
}

pub(crate) async fn a_read_only_postgres_serves(suite: Arc<Suite>) {
    let (_postgres, world) = suite.spare(json!({})).await;
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    let [hot, cold, known, later] =
        [reader(&world).await, reader(&world).await, reader(&world).await, reader(&world).await];
    revoke(&world, &known).await;
    for (token, status) in [(&hot, 200), (&later, 200), (&known, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    world.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    world.sql("SELECT pg_reload_conf()").await;
    eventually("a read-only Postgres", async || {
        let prune = sqlx::raw_sql("SELECT patgate.prune_changes()").execute(&world.postgres);
        prune.await.is_err()
    })
    .await;
    fleet.polled(2).await;
    for (token, status) in [(&hot, 200), (&cold, 200), (&known, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    world
        .sql(&format!(
            "BEGIN READ WRITE; UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'; COMMIT",
            later.id
        ))
        .await;
    fleet.turn("revoked all the same", (&later, MODELS), 200, 401).await;
}

/// Stopped in order, and killed, while requests come in.
pub(crate) async fn postgres_may_restart_under_load(suite: Arc<Suite>) {
    let (postgres, world) = suite.spare(json!({})).await;
    let fleet =
        Fleet::of(&world, 2, &[PATIENT[0], PATIENT[1], "redis.url=", "deadline=500ms"]).await;
    let (hot, revoked) = (reader(&world).await, reader(&world).await);
    revoke(&world, &revoked).await;
    fleet.all_answer(&hot, MODELS, 200).await;
    fleet.all_answer(&revoked, MODELS, 401).await;
    for signal in ["INT", "KILL"] {
        let (mut cold, mut sql) = (Vec::new(), String::new());
        for _ in 0..2000 {
            let (token, statements) =
                world.issue("ann", "1 hour", &[("acme", "models", "*", "llm_read")]);
            cold.push(token);
            sql.push_str(&statements);
        }
        world.sql(&sql).await;
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = fleet
            .0
            .iter()
            .zip(cold.chunks(1000))
            .map(|(replica, cold)| {
                let (replica, stop) = (Arc::clone(replica), Arc::clone(&stop));
                let (hot, revoked, cold) = (hot.clone(), revoked.clone(), cold.to_vec());
                tokio::spawn(async move {
                    let (mut asked, mut unavailable) = (0, 0);
                    for cold in &cold {
                        assert_eq!(answer(&replica, &hot, MODELS).await, 200, "a hot token");
                        assert_eq!(answer(&replica, &revoked, MODELS).await, 401);
                        match answer(&replica, cold, MODELS).await {
                            200 => {}
                            503 => unavailable += 1,
                            other => panic!("{other} for a cold token"),
                        }
                        asked += 1;
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                    (asked, unavailable)
                })
            })
            .collect();
        suite.stack.signal(&postgres, signal);
        suite.stack.restart(&postgres);
        let back = Instant::now();
        let fresh = reader(&world).await;
        fleet.turn("served after the restart", (&fresh, MODELS), 503, 200).await;
        assert!(back.elapsed() < HEALED);
        // The feed is back as well.
        revoke(&world, &fresh).await;
        fleet.turn("revoked after the restart", (&fresh, MODELS), 200, 401).await;
        for replica in &fleet.0 {
            // After a shut-down in good order the record goes on; after a crash it cannot.
            let restarts = replica.metric("patgate_feed_restarts_total").await;
            assert_eq!(restarts, if signal == "KILL" { 2 } else { 1 }, "{signal}");
        }
        stop.store(true, Relaxed);
        for load in load {
            let (asked, unavailable) = load.await.unwrap();
            println!("{signal}: {unavailable} of {asked} cold tokens were told 503");
        }
    }
}

pub(crate) fn postgres_at(world: &World<'_>, port: u16) -> String {
    format!("postgres.url={}", world.url("server", port))
}

/// Until the standby has all that the primary has.
pub(crate) async fn caught_up(world: &World<'_>, standby: &PgPool) {
    let written: String = scalar(&world.postgres, "SELECT pg_current_wal_lsn()::text").await;
    eventually("the standby to catch up", async || {
        let behind = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::text");
        scalar(standby, &behind).await == "true"
    })
    .await;
}

/// Rolls back some transactions that have an id; returns the last one's.
async fn burn(pool: &PgPool, count: usize) -> u64 {
    let mut last = 0;
    for _ in 0..count {
        let mut transaction = pool.begin().await.unwrap();
        let id = sqlx::query("SELECT pg_current_xact_id()::text").fetch_one(&mut *transaction);
        last = id.await.unwrap().get::<&str, _>(0).parse().unwrap();
        transaction.rollback().await.unwrap();
    }
    last
}

/// Returns the id of the transaction.
async fn revoke_as(pool: &PgPool, token: &Token) -> u64 {
    let sql = format!(
        "UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'
         RETURNING pg_current_xact_id()::text",
        token.id
    );
    scalar(pool, &sql).await.parse().unwrap()
}

pub(crate) async fn scalar(pool: &PgPool, sql: &str) -> String {
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await;
    row.unwrap_or_else(|error| panic!("{error}: {sql}")).get(0)
}
