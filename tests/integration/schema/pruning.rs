//! Pruning keeps the feed's table small, however many changes there are.

use std::sync::Arc;

use patgate_testing::eventually;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};

use crate::support::{Suite, fleet::status, tokens::reader, value};

const BACKLOG: i64 = 500_000;
const YOUNGER: i64 = 10;

/// Prunes, and returns whether something is left. If the machine stands still for half a second, a
/// slice may time out; a slice that always takes that long fails again.
async fn prune(pool: &PgPool) -> bool {
    const CANCELED: &str = "57014";
    let slice = || sqlx::query_scalar("SELECT patgate.prune_changes()").fetch_one(pool);
    let canceled = |error: &sqlx::Error| {
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(CANCELED))
    };
    for _ in 0..2 {
        match slice().await {
            Err(error) if canceled(&error) => println!("a slice was cut short"),
            pruned => return pruned.unwrap(),
        }
    }
    slice().await.unwrap()
}

/// A login with its own timeout prunes a backlog that it could
/// not prune at once; the horizon advances, and newer changes stay.
pub(crate) async fn a_backlog_is_pruned_in_slices(suite: Arc<Suite>) {
    let world = suite.world().await;
    let insert = |from: i64, to: i64| {
        format!(
            "INSERT INTO patgate.changes (kind, key)
             SELECT 'slug', 'aa' || number FROM generate_series({from}, {to}) AS number"
        )
    };
    world.sql("DELETE FROM patgate.changes").await;
    world.sql(&insert(1, BACKLOG)).await;
    world.sql("INSERT INTO patgate.change_marks (at) VALUES (now() - interval '2 hours')").await;
    world.sql(&insert(BACKLOG + 1, BACKLOG + YOUNGER)).await;
    let user = format!("hasty_{}", world.database);
    world
        .sql(&format!(
            "CREATE ROLE {user} LOGIN IN ROLE patgate_serve;
             ALTER ROLE {user} SET statement_timeout = '500ms'"
        ))
        .await;
    let hasty = PgPool::connect(&world.url(&user, world.port)).await.unwrap();
    let left = async || value::<i64>(&world, "SELECT count(*) FROM patgate.changes").await;
    let kept = "SELECT count(*) FROM patgate.changes c, patgate.change_horizon h
         WHERE NOT pg_visible_in_snapshot(c.xid, h.snapshot)";
    let mut calls = 0;
    let mut before = left().await;
    while prune(&hasty).await {
        calls += 1;
        assert_eq!(value::<i64>(&world, kept).await, YOUNGER, "what the horizon does not cover");
        let now = left().await;
        assert!(now < before, "{now} left after {calls} calls");
        before = now;
    }
    println!("{BACKLOG} changes in {calls} calls");
    assert_eq!(left().await, YOUNGER, "what is younger than the mark");
    assert!(calls > 1, "at once");
    hasty.close().await;
}

/// Pruning considers ids above its snapshot to be of another cluster, and the id of its own
/// transaction is one of those.
pub(crate) async fn a_transaction_that_has_written_cannot_prune(suite: Arc<Suite>) {
    const ACTIVE_SQL_TRANSACTION: &str = "25001";
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = reader(&world).await;
    assert_eq!(status(&replica, &token).await, 200);
    let recorded = format!("SELECT count(*) FROM patgate.changes WHERE key = '{}'", token.id);
    let before: i64 = value(&world, &recorded).await;
    for (login, write) in [
        ("server", format!("SELECT patgate.note_uses(ARRAY['{}'::uuid])", token.id)),
        (
            "administrator",
            format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id),
        ),
    ] {
        let mut login = PgConnection::connect(&world.url(login, world.port)).await.unwrap();
        let begin = format!("BEGIN; {write}; SAVEPOINT here");
        login.execute(sqlx::raw_sql(AssertSqlSafe(begin))).await.unwrap();
        let refused = login.execute("SELECT patgate.prune_changes()").await.unwrap_err();
        let refused = refused.as_database_error().unwrap();
        assert_eq!(refused.code().as_deref(), Some(ACTIVE_SQL_TRANSACTION), "{refused}");
        login.execute(sqlx::raw_sql("ROLLBACK TO here; COMMIT")).await.unwrap();
        login.close().await.unwrap();
    }
    assert_eq!(value::<i64>(&world, &recorded).await, before + 1);
    eventually("the revocation", async || status(&replica, &token).await == 401).await;
}
