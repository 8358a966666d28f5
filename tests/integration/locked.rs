//! A session locks a table and keeps the lock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::eventually;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::{
    Suite,
    fleet::{Fleet, HEALED, MODELS, answer},
    tokens::reader,
    value,
};

/// A lookup that has waited long enough for Postgres gives up, and its statement stops waiting for
/// the lock.
pub(crate) async fn lookups_that_no_check_waits_for_end(suite: Arc<Suite>) {
    const CONNECTIONS: i64 = 4;
    const HELD: Duration = Duration::from_secs(5);
    const BACKENDS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'server' AND wait_event_type = 'Lock'";
    let world = suite.world().await;
    let connections = format!("postgres.max_connections={CONNECTIONS}");
    let settings = [&connections, "postgres.query_timeout=400ms", "deadline=200ms", "redis.url="];
    let fleet = Fleet::of(&world, 1, &settings).await;
    let replica = &fleet.0[0];
    let mut tokens = Vec::new();
    for _ in 0..HELD.as_millis() / 10 {
        tokens.push(reader(&world).await);
    }
    let mut holder = PgConnection::connect(&world.url("postgres", world.port)).await.unwrap();
    let lock = "BEGIN; LOCK TABLE patgate.pats IN ACCESS EXCLUSIVE MODE";
    holder.execute(sqlx::raw_sql(lock)).await.unwrap();

    let locked = Instant::now();
    let mut most = 0;
    let mut asked = Vec::new();
    while locked.elapsed() < HELD {
        let token = tokens.pop().unwrap();
        let replica = Arc::clone(replica);
        asked.push(tokio::spawn(async move { answer(&replica, &token, MODELS).await }));
        tokio::time::sleep(Duration::from_millis(10)).await;
        most = most.max(value::<i64>(&world, BACKENDS).await);
    }
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 503);
    }
    println!("at most {most} backends waited");
    // Those that callers wait for, and earlier ones that are about to end, sooner or later.
    assert!((1..=4 * CONNECTIONS).contains(&most), "{most} backends waited");

    holder.execute("COMMIT").await.unwrap();
    let healed = Instant::now();
    let cold = reader(&world).await;
    eventually("lookups to be answered", async || answer(replica, &cold, MODELS).await == 200)
        .await;
    assert!(healed.elapsed() < HEALED, "after {:?}", healed.elapsed());
}
