//! The wall clock of the database server is set forward or back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::proxy::{Mode, Proxy};
use tokio::process::Command;

use crate::support::{
    Scope, Suite,
    clock::{put, with_a_clock},
    entries::entries_written,
    fleet::{Fleet, MODELS, status},
    replica::lookups,
    settings::{PATIENT, SLOW, feed_through},
    tokens::{reader, revoke},
};

const READ: Scope<'_> = ("acme", "models", "*", "llm_read");

async fn read_from_postgres(fleet: &Fleet) -> Vec<u64> {
    let mut read = Vec::new();
    for replica in &fleet.0 {
        read.push(lookups(replica, "principal", "postgres", "hit").await);
    }
    read
}

/// What has expired stays expired, the rest is not read again, and changes are reported as before.
pub(crate) async fn a_step_revives_nothing_and_wakes_no_herd(suite: Arc<Suite>) {
    const HOT: usize = 100;
    let world = suite.world().await;
    with_a_clock(&world).await;
    // A busy machine must not cause a 503.
    let settings = [&PATIENT[..], &SLOW].concat();
    let fleet = Fleet::of(&world, 2, &settings).await;
    let (hot, sql): (Vec<_>, Vec<_>) =
        (0..HOT).map(|_| world.issue("ann", "10 hours", &[READ])).unzip();
    world.sql(&sql.concat()).await;
    let soon = world.token_for("ann", "30 minutes", &[READ]).await;
    for token in hot.iter().chain([&soon]) {
        fleet.all_answer(token, MODELS, 200).await;
    }
    let read = read_from_postgres(&fleet).await;
    let mut revoked = Vec::new();
    for (ahead, sooner) in [("0", 200), ("1 hour", 401), ("-1 hour", 401), ("0", 401)] {
        put(&world, ahead).await;
        if ahead == "1 hour" {
            fleet.turn("expired", (&soon, MODELS), 200, 401).await;
        }
        fleet.polled(2).await;
        fleet.all_answer(&soon, MODELS, sooner).await;
        for token in &hot[revoked.len()..] {
            fleet.all_answer(token, MODELS, 200).await;
        }
        world.sql("SELECT patgate.prune_changes()").await;
        let token = &hot[revoked.len()];
        revoke(&world, token).await;
        fleet.turn("revoked", (token, MODELS), 200, 401).await;
        revoked.push(token);
        for token in &revoked {
            fleet.all_answer(token, MODELS, 401).await;
        }
        // A replica that starts now uses the new clock, and finds the others' entries in Redis.
        let late = Fleet::of(&world, 1, &settings).await;
        let expired = if ahead == "1 hour" { 401 } else { 200 };
        late.all_answer(&soon, MODELS, expired).await;
        for token in &revoked {
            late.all_answer(token, MODELS, 401).await;
        }
        late.all_answer(&hot[HOT - 1], MODELS, 200).await;
    }
    for (replica, before) in fleet.0.iter().zip(read) {
        let again = lookups(replica, "principal", "postgres", "hit").await - before;
        assert!(again <= revoked.len() as u64, "{again} were read again");
        assert_eq!(replica.metric("patgate_feed_restarts_total").await, 1, "at its start");
    }
}

/// The step is so large that outdated entries look new. Only their age can show it, because the
/// feed is lost.
pub(crate) async fn a_step_back_makes_no_entry_younger(suite: Arc<Suite>) {
    const BOUND: Duration = Duration::from_secs(3);
    let world = suite.world().await;
    with_a_clock(&world).await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let settings = [feed.as_str(), "deadline=2s", "max_staleness=3s", "negative_ttl=1s"];
    let writer = world.serve(&settings).await;
    let other = world.serve(&settings).await;
    let token = reader(&world).await;
    let warm = reader(&world).await;
    let next = reader(&world).await;
    assert_eq!(status(&other, &warm).await, 200);
    proxy.set(Mode::Refuse);
    // The age of an entry counts from its reading; that of the knowledge of changes counts from
    // here.
    assert_eq!(status(&writer, &token).await, 200);
    entries_written(&world, 3).await;
    revoke(&world, &token).await;
    let committed = Instant::now();
    drop(writer);
    tokio::time::sleep(BOUND).await;
    put(&world, "-3 seconds").await;
    // From this answer the replica learns the time.
    assert_eq!(status(&other, &next).await, 200);
    assert_eq!(lookups(&other, "principal", "postgres", "hit").await, 2);
    assert_eq!(status(&other, &token).await, 401, "revoked {:?} ago", committed.elapsed());
    assert_eq!(lookups(&other, "principal", "redis", "stale").await, 1, "from Redis");
}

/// Leases are in Postgres's time also: a command that waits for all replicas must not miss one.
pub(crate) async fn a_step_hides_no_replica_from_who_waits(suite: Arc<Suite>) {
    let world = suite.world().await;
    with_a_clock(&world).await;
    let fleet = Fleet::of(&world, 3, &PATIENT).await;
    for ahead in ["0", "1 hour", "-1 hour"] {
        put(&world, ahead).await;
        fleet.polled(4).await;
        let token = world.token_for("ann", "10 hours", &[READ]).await;
        fleet.all_answer(&token, MODELS, 200).await;
        let output = Command::new(env!("CARGO_BIN_EXE_patgate"))
            .args(["token", "revoke", "--wait", &token.id.to_string()])
            .env("PATGATE_POSTGRES_URL", suite.postgres_url("administrator", &world.database))
            .output();
        let output = tokio::time::timeout(Duration::from_secs(20), output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("applied by 3 replicas after "), "{ahead}: {said}");
        fleet.all_answer(&token, MODELS, 401).await;
    }
}
