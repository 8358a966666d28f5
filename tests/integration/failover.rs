//! Postgres comes back as another server, with less data.

use std::sync::Arc;

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use serde_json::json;
use sqlx::{PgPool, Row as _};

use crate::support::{
    Suite, Token, connect, execute,
    fleet::{Fleet, MODELS},
    front::Front,
    load::{CHANGING, UNREAD, WELL},
    replica::lookups,
    settings::{PATIENT, postgres_at},
    standby::{caught_up, scalar},
    tokens::{reader, revoke},
};

/// The standby that is promoted never received the last transactions; the old primary continues to
/// run, as in a partitioned network.
pub(crate) async fn a_standby_that_lost_transactions_takes_over(suite: Arc<Suite>) {
    let (primary, world) = suite.spare(json!({})).await;
    let replication = Proxy::to(primary.port).await;
    let standby = suite.stack.start("postgres", json!({ "primary": replication.port }));
    let promoted = connect(&world.url("postgres", standby.port)).await;
    let front = Proxy::to(primary.port).await;
    let settings = [&postgres_at(&world, front.port), PATIENT[0], "negative_ttl=1s"];
    let gateway = Front::of(&world, &settings).await;
    let fleet = &gateway.fleet;
    let load = gateway.load(&world).await;
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
    let lost_ids = burn(&world.postgres, 500).await;
    fleet.polled(2).await;

    // Before its promotion, the standby is not asked.
    load.allow(CHANGING);
    front.retarget(standby.port);
    front.cut();
    load.allow(UNREAD);
    for (token, status) in [(&cold, 503), (&kept, 200), (&known, 401), (&lost, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }

    load.allow(CHANGING);
    execute(&promoted, "SELECT pg_promote()").await;
    load.bear(fleet.turn("served by the new primary", (&cold, MODELS), 503, 200)).await;
    load.allow(WELL);
    // Each replica has met the new primary now, and uses nothing from before.
    for (token, status) in [(&ghosts[0], 401), (&kept, 200), (&known, 401), (&lost, 200)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    let late = Fleet::of(&world, 1, &settings).await;
    late.all_answer(&ghosts[1], MODELS, 401).await;
    assert_eq!(lookups(&late.0[0], "principal", "redis", "stale").await, 1, "from Redis");

    // The ids of the lost transactions are assigned again.
    let id = revoke_as(&promoted, &later).await;
    assert!(id < lost_ids, "{id} is not below {lost_ids}");
    revoke_as(&promoted, &quiet).await;
    fleet.turn("revoked on the new primary", (&later, MODELS), 200, 401).await;

    // The old primary, which the replicas now know to be old. Everything in use was read from the
    // new one.
    for replica in &fleet.0 {
        load.known_to(replica).await;
    }
    load.allow(CHANGING);
    front.retarget(primary.port);
    front.cut();
    load.allow(UNREAD);
    for (token, status) in [(&colder, 503), (&quiet, 503), (&kept, 200), (&later, 401)] {
        fleet.all_answer(token, MODELS, status).await;
    }
    for answer in fleet.answers(&ghosts[0], MODELS).await {
        assert!([401, 503].contains(&answer), "{answer}");
    }
    // The address leads to the right server again, and open connections are not closed.
    load.allow(CHANGING);
    front.retarget(standby.port);
    load.bear(fleet.turn("away from the old primary", (&colder, MODELS), 503, 200)).await;
    load.allow(WELL);
    fleet.all_answer(&quiet, MODELS, 401).await;
    load.bear(load.more(WELL, 20)).await;
    load.end("failover to a standby that lost transactions").await;
}

/// A Postgres that answers before it writes is killed: the ids of lost transactions are assigned
/// again.
pub(crate) async fn ids_given_out_twice_hide_no_change(suite: Arc<Suite>) {
    let forgetful = json!({
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "1GB",
        // Neither process writes a page, which would write the log first.
        "bgwriter_lru_maxpages": 0,
        "checkpoint_timeout": "1h",
    });
    let (postgres, world) = suite.spare(forgetful).await;
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    let lost = reader(&world).await;
    let kept = reader(&world).await;
    let mut cold = Vec::new();
    for _ in 0..10 {
        cold.push(reader(&world).await);
    }
    for token in [&lost, &kept] {
        fleet.all_answer(token, MODELS, 200).await;
    }
    let state =
        format!("SELECT (revoked_at IS NULL)::text FROM patgate.pats WHERE id = '{}'", lost.id);
    let (lost_ids, later) = loop {
        // The log is written now, and not again for ten seconds, unless a use is noted.
        let end = scalar(&world.postgres, "SELECT pg_current_wal_insert_lsn()::text").await;
        let reached = format!("SELECT (pg_current_wal_lsn() >= '{end}')::text");
        eventually("the log to be written", async || {
            scalar(&world.postgres, &reached).await == "true"
        })
        .await;
        revoke(&world, &lost).await;
        fleet.turn("a lost revocation", (&lost, MODELS), 200, 401).await;
        let lost_ids = burn(&world.postgres, 200).await;
        // Its entries and all following polls count these ids among those that they saw.
        let later = cold.pop().expect("a log that is not written for a while");
        fleet.all_answer(&later, MODELS, 200).await;
        fleet.polled(2).await;
        suite.stack.signal(&postgres, "KILL");
        suite.stack.restart(&postgres);
        if scalar(&world.postgres, &state).await == "true" {
            break (lost_ids, later);
        }
        // This was written before the kill.
        world.sql("UPDATE patgate.pats SET revoked_at = NULL").await;
        let well = async || fleet.answers(&lost, MODELS).await == [200; 2];
        eventually("the token to be good once more", well).await;
        fleet.polled(1).await;
    };

    let id = revoke_as(&world.postgres, &later).await;
    assert!(id < lost_ids, "{id} is not below {lost_ids}");
    println!("{id} was given out again, up to {lost_ids} were lost");
    let refused = async || fleet.answers(&later, MODELS).await == [401; 2];
    eventually("a change with an id that was there before to be obeyed", refused).await;
    for (token, status) in [(&later, 401), (&lost, 200), (&kept, 200)] {
        fleet.all_answer(token, MODELS, status).await;
    }
}

/// Rolls back some transactions that have an id; returns the id of the last one.
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
