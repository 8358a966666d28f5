//! Standbys of a Postgres.

use patgate_testing::eventually;
use sqlx::{PgPool, Row as _};

use crate::support::World;

/// Waits until the standby has everything that the primary has.
pub(crate) async fn caught_up(world: &World<'_>, standby: &PgPool) {
    let written: String = scalar(&world.postgres, "SELECT pg_current_wal_lsn()::text").await;
    eventually("the standby to catch up", async || {
        let behind = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::text");
        scalar(standby, &behind).await == "true"
    })
    .await;
}

pub(crate) async fn scalar(pool: &PgPool, sql: &str) -> String {
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await;
    row.unwrap_or_else(|error| panic!("{error}: {sql}")).get(0)
}
