//! Postgres goes down, stalls, has no connection left, comes back, or becomes another server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{SHORT, STALENESS, turned, unread};
use crate::support::{
    Suite, World, execute,
    fleet::{HEALED, MODELS},
    front::Front,
    load::{AllowedStatuses, CHANGING, LASTING_LONG, TokenKind, UNREAD, WELL},
    settings::PATIENT,
    tokens::{reader, revoke},
};

fn postgres_at(world: &World<'_>, port: u16) -> String {
    format!("postgres.url={}", world.url("server", port))
}

pub(crate) async fn postgres_is_stopped(suite: Arc<Suite>) {
    let (postgres, world) = suite.spare(json!({})).await;
    let front = Front::of(&world, &SHORT).await;
    let load = front.load(&world).await;
    let stop = async || suite.stack.stop(&postgres);
    let start = async || {
        suite.stack.restart(&postgres);
    };
    unread(&front, &load, stop, start, WELL).await;
    load.end("Postgres stopped").await;
}

pub(crate) async fn postgres_is_black_holed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let front = Front::of(&world, &[&postgres_at(&world, proxy.port), SHORT[0], SHORT[1]]).await;
    let load = front.load(&world).await;
    let fault = async || {
        proxy.set(Mode::BlackHole);
        revoke(&world, &load.turning).await;
    };
    unread(&front, &load, fault, async || proxy.set(Mode::Pass), turned(WELL)).await;
    load.end("Postgres black-holed").await;
}

/// Half of a reply does not count. Greetings and polls of the feed are shorter, and pass: so cached
/// entries stay fresh, and changed ones are dropped.
pub(crate) async fn postgres_is_cut_short(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let front = Front::of(&world, &[&postgres_at(&world, proxy.port), SHORT[0], SHORT[1]]).await;
    let load = front.load(&world).await;
    let fleet = &front.fleet;
    load.allow(CHANGING);
    proxy.set(Mode::CutReplies(900));
    let cut = load.allow(AllowedStatuses { turning: &[200, 503], ..UNREAD });
    revoke(&world, &load.turning).await;
    load.bear(fleet.turn("revoked", (&load.turning, MODELS), 200, 503)).await;
    load.allow(AllowedStatuses { turning: &[503], ..UNREAD });
    load.until(cut + 2 * STALENESS).await;
    load.allow(AllowedStatuses { turning: &[401, 503], ..CHANGING });
    proxy.set(Mode::Pass);
    let healed = Instant::now();
    load.allow_from(healed + HEALED, turned(WELL));
    load.until(healed + HEALED).await;
    load.bear(load.more(turned(WELL), 20)).await;
    load.end("Postgres replies cut short").await;
}

/// Slow, a byte at a time, but within the time limit of a statement: no request is refused.
pub(crate) async fn postgres_is_slow(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let patient = ["deadline=10s", "postgres.query_timeout=10s", PATIENT[0], PATIENT[1]];
    let front =
        Front::of(&world, &[&[postgres_at(&world, proxy.port).as_str()][..], &patient].concat())
            .await;
    let load = front.load(&world).await;
    for mode in [Mode::Delay(Duration::from_millis(300)), Mode::Throttle(5_000)] {
        proxy.set(mode);
        load.bear(load.more(WELL, 20)).await;
    }
    proxy.set(Mode::Pass);
    load.end("Postgres slow").await;
}

/// In an orderly way, and by a crash.
pub(crate) async fn postgres_is_restarted(suite: Arc<Suite>) {
    let (postgres, world) = suite.spare(json!({})).await;
    let front = Front::of(&world, &[PATIENT[0], PATIENT[1], "redis.url="]).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    for signal in ["INT", "KILL"] {
        let served = load.count(TokenKind::Cold, 503);
        load.allow(CHANGING);
        suite.stack.signal(&postgres, signal);
        suite.stack.restart(&postgres);
        let back = Instant::now();
        let fresh = reader(&world).await;
        let fleet = &front.fleet;
        load.bear(fleet.turn("served after the restart", (&fresh, MODELS), 503, 200)).await;
        load.allow_from(back + HEALED, WELL);
        load.until(back + HEALED).await;
        // The feed is back also.
        revoke(&world, &fresh).await;
        load.bear(fleet.turn("revoked after the restart", (&fresh, MODELS), 200, 401)).await;
        for replica in &fleet.0 {
            // After an orderly shutdown the record continues; after a crash it cannot.
            let restarts = replica.metric("patgate_feed_restarts_total").await;
            assert_eq!(restarts, if signal == "KILL" { 2 } else { 1 }, "{signal}");
        }
        load.bear(load.more(WELL, 20)).await;
        println!(
            "{signal}: {} cold tokens were told 503",
            load.count(TokenKind::Cold, 503) - served
        );
    }
    load.end("Postgres restarted").await;
}

/// Other clients have taken every connection.
pub(crate) async fn postgres_has_no_connection_left(suite: Arc<Suite>) {
    let (postgres, world) = suite.spare(json!({ "max_connections": 40 })).await;
    let front = Front::of(&world, &SHORT).await;
    let load = front.load(&world).await;
    let mut taken = Vec::new();
    let url = world.url("administrator", postgres.port);
    let end_theirs = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE usename = 'server'";
    // A session that is just starting or ending has a slot and no row, so only our own are counted.
    let free = "SELECT current_setting('max_connections')::int8
                     - current_setting('superuser_reserved_connections')::int8
                     - current_setting('reserved_connections')::int8 - count(*)
                FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND usename IN ('administrator', 'postgres')";
    let number = async |sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).fetch_one(&world.postgres).await.unwrap()
    };
    let take_all = async || {
        // Otherwise the replicas would be the first to take each connection that becomes free.
        world.sql("ALTER ROLE server CONNECTION LIMIT 0").await;
        loop {
            while let Ok(connection) = PgConnection::connect(&url).await {
                taken.push(connection);
            }
            // In this order: when no slot is free, no session can replace the ended ones.
            let free = number(free).await;
            let ended = number(end_theirs).await;
            if free <= 0 && ended == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.sql("ALTER ROLE server CONNECTION LIMIT -1").await;
        revoke(&world, &load.turning).await;
    };
    let give_back = async || {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE usename = 'administrator'";
        execute(&world.postgres, sql).await;
    };
    unread(&front, &load, take_all, give_back, turned(WELL)).await;
    println!("another client had {} connections", taken.len());
    load.end("Postgres without connections").await;
}

/// The address leads to a standby, then to the primary again.
pub(crate) async fn postgres_is_a_standby(suite: Arc<Suite>) {
    let (primary, world) = suite.spare(json!({})).await;
    let standby = suite.stack.start("postgres", json!({ "primary": primary.port }));
    let proxy = Proxy::to(primary.port).await;
    let front = Front::of(&world, &[&postgres_at(&world, proxy.port), SHORT[0], SHORT[1]]).await;
    let load = front.load(&world).await;
    let demote = async || {
        proxy.retarget(standby.port);
        proxy.cut();
        // The standby receives the revocation, but the replicas do not accept it from there.
        revoke(&world, &load.turning).await;
    };
    // Open connections are not closed.
    let restore = async || proxy.retarget(primary.port);
    unread(&front, &load, demote, restore, turned(WELL)).await;
    load.end("Postgres a standby").await;
}

pub(crate) async fn postgres_is_read_only(suite: Arc<Suite>) {
    let (_postgres, world) = suite.spare(json!({})).await;
    let front = Front::of(&world, &PATIENT).await;
    let load = front.load(&world).await;
    world.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    world.sql("SELECT pg_reload_conf()").await;
    load.bear(eventually("a read-only Postgres", async || {
        let prune = sqlx::raw_sql("SELECT patgate.prune_changes()").execute(&world.postgres);
        prune.await.is_err()
    }))
    .await;
    load.bear(front.fleet.polled(2)).await;
    load.bear(load.more(WELL, 50)).await;
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    let revoke = format!(
        "BEGIN READ WRITE; UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'; COMMIT",
        load.turning.id
    );
    world.sql(&revoke).await;
    let fleet = &front.fleet;
    load.bear(fleet.turn("revoked all the same", (&load.turning, MODELS), 200, 401)).await;
    load.allow(turned(WELL));
    load.bear(load.more(turned(WELL), 20)).await;
    load.end("Postgres read-only").await;
}
