//! The schema: what it refuses, who may do what, and how it comes to be.

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

/// A lack of privileges, as Postgres says it.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Runs a statement and takes it back; the error is Postgres's own code.
async fn attempt(pool: &PgPool, sql: &str) -> Result<(), String> {
    let mut transaction = pool.begin().await.unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(error.as_database_error().unwrap().code().unwrap().into_owned()),
    }
}
