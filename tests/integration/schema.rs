//! The schema: what it refuses, which login may do what, and how migrations create it.

pub(crate) mod blocking;
pub(crate) mod closing;
pub(crate) mod constraints;
pub(crate) mod locks;
pub(crate) mod majors;
pub(crate) mod migrating;
pub(crate) mod models;
pub(crate) mod notices;
pub(crate) mod pooler;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod pruning;
pub(crate) mod versions;

use sqlx::{AssertSqlSafe, PgPool};

/// Postgres's code for a missing privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Runs a statement and rolls it back; the error is Postgres's code.
async fn attempt(pool: &PgPool, sql: &str) -> Result<(), String> {
    let mut transaction = pool.begin().await.unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(error.as_database_error().unwrap().code().unwrap().into_owned()),
    }
}
