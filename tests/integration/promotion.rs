//! A statement that runs while the standby that answers it becomes the primary.

use std::sync::Arc;

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use serde_json::json;

use crate::support::{
    Suite, connect, execute,
    fleet::{Fleet, MODELS},
    settings::{PATIENT, feed_through, postgres_through},
    standby::{caught_up, scalar},
    tokens::reader,
};

/// To its snapshot, transactions that were running on the old primary look finished; but by the
/// time it looks, the server is no longer in recovery. Whatever the statement returns, a change
/// that it did not see must not count as known.
pub(crate) async fn a_statement_under_way_at_a_promotion_hides_no_change(suite: Arc<Suite>) {
    let (primary, world) = suite.spare(json!({})).await;
    let standby = suite.stack.start("postgres", json!({ "primary": primary.port }));
    let promoted = connect(&world.url("postgres", standby.port)).await;
    let token = reader(&world).await;
    // Between its snapshot and the rest, each statement waits for the promotion: it evaluates
    // `now()` first.
    world
        .sql(
            "CREATE SCHEMA slow; GRANT USAGE ON SCHEMA slow TO patgate_serve;
             CREATE FUNCTION slow.now() RETURNS timestamptz LANGUAGE plpgsql AS $$
             BEGIN
                 WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.01); END LOOP;
                 RETURN pg_catalog.now();
             END $$;
             ALTER ROLE server SET search_path = slow, pg_catalog",
        )
        .await;
    // Both are running: the earlier one commits when the standby has the later one.
    let revoke = format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id);
    let mut early = world.postgres.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(revoke)).execute(&mut *early).await.unwrap();
    reader(&world).await;
    caught_up(&world, &promoted).await;

    let [feed, lookups] = [Proxy::to(primary.port).await, Proxy::to(primary.port).await];
    let postgres = postgres_through(&world, &lookups);
    let feed_url = feed_through(&world, &feed);
    let patient = ["postgres.query_timeout=20s", "deadline=20s", "redis.url="];
    let settings = [&[postgres.as_str(), &feed_url], &PATIENT[..], &patient].concat();
    let fleet = Fleet::of(&world, 1, &settings).await;
    feed.set(Mode::Refuse);
    feed.retarget(standby.port);
    // It does not start before a standby.
    lookups.retarget(standby.port);
    lookups.cut();
    let asleep = "SELECT count(*)::text FROM pg_stat_activity
                  WHERE usename = 'server' AND wait_event = 'PgSleep'";
    let asked = fleet.answers(&token, MODELS);
    let promotion = async {
        // The lookup waits with the snapshot of a standby.
        eventually("a lookup to wait", async || scalar(&promoted, asleep).await != "0").await;
        early.commit().await.unwrap();
        caught_up(&world, &promoted).await;
        execute(&promoted, "SELECT pg_promote()").await;
    };
    let (answers, ()) = tokio::join!(asked, promotion);
    assert_ne!(answers, [403]);
    feed.set(Mode::Pass);
    fleet.polled(2).await;
    fleet.all_answer(&token, MODELS, 401).await;
}
