//! Checks whether this release works with the schema of a database.

use sqlx::{PgPool, Row as _};

use super::{ConnectError, code, connect::Target, identify, message, migrate::MIGRATIONS};
use crate::installation::Installation;

/// The schema version for which this release is made. The release also runs on the next version, so
/// that a rollout can migrate first and a rollback need not migrate back.
pub const SCHEMA: i32 = 3;

/// The setting that names the database; another setting may name the one for the feed.
pub(super) const POSTGRES_URL: &str = "postgres.url";

/// Postgres's codes for a table, a function and a schema that do not exist.
pub(super) const UNDEFINED_TABLE: &str = "42P01";
pub(super) const UNDEFINED_FUNCTION: &str = "42883";
pub(super) const UNDEFINED_SCHEMA: &str = "3F000";
/// Postgres's code for a lack of privileges.
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SchemaError {
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    #[error("the database has no patgate schema; `patgate migrate` creates it")]
    Absent,
    #[error(
        "the schema of the database does not say which installation it belongs to, and this \
         release needs that; run `patgate migrate`"
    )]
    Nameless,
    #[error(
        "the database has schema version {0}, this release needs {SCHEMA}; run `patgate migrate` \
         of this release"
    )]
    Older(i32),
    #[error(
        "the schema of the database lacks {0}, which this release needs; run `patgate migrate` of \
         this release"
    )]
    Incomplete(String),
    #[error(
        "the database has schema version {0}, this release knows {SCHEMA} and also runs on the \
         next one; upgrade patgate"
    )]
    Newer(i32),
    #[error(
        "the login cannot read the schema ({0}); as an administrator of the database, grant it \
         patgate_serve, or patgate_admin for administration"
    )]
    Denied(String),
    #[error(
        "the server at {0} is a standby, whose answers may be old, so patgate uses none of them; point \
         {0} at the primary, or name all servers"
    )]
    Standby(&'static str),
    #[error(
        "the login {login} may administer patgate: {reason}. An attacker who takes over a replica must \
         not get that. Create a login for the replicas that is a member of patgate_serve and of no other \
         role (CREATE ROLE gateway LOGIN PASSWORD '…' IN ROLE patgate_serve), and name it in {key}"
    )]
    MayAdminister { login: String, reason: String, key: &'static str },
    #[error(
        "the login lacks the privileges to migrate ({0}); it needs CREATEROLE, and CREATE on the \
         database. Alternatively, an administrator of the cluster runs deploy/bootstrap.sql once \
         and grants patgate_migrate to it"
    )]
    MayNotMigrate(String),
    #[error(
        "the login {login} cannot migrate this database ({reason}), because it is not a member of \
         patgate_migrate. Run `patgate migrate` with the login that migrates; or, as a superuser or \
         a login that may grant the role: GRANT patgate_migrate TO {login}"
    )]
    NoMigrator { login: String, reason: String },
    #[error(
        "the schema is up to date, and patgate's own triggers are on. But triggers of foreign keys \
         are off ({keys}), and only a superuser can switch them on. Until then, deletions leave rows \
         behind, and replicas do not trust the feed of changes. Run `patgate migrate` as a \
         superuser, or as a superuser: {statements}"
    )]
    KeysOff { keys: String, statements: String },
    #[error(
        "migrating: other sessions use a table, and waiting longer would delay all lookups{0}; end \
         those sessions, or run `patgate migrate` again later"
    )]
    Locked(String),
    #[error("migrating: {0}")]
    Migrate(String),
}

/// Checks that this release works with the schema, and returns the installation to which it
/// belongs.
///
/// # Errors
///
/// If the version is another one; the message names the command that fixes it.
pub async fn check(pool: &PgPool) -> Result<Installation, SchemaError> {
    let unreachable = |error: sqlx::Error| {
        SchemaError::from(Target::of_pool(POSTGRES_URL, pool).unreachable(&error))
    };
    // In one message: between two, a pooler may switch to another server.
    let row = sqlx::raw_sql("SELECT version FROM patgate.schema_version")
        .fetch_optional(pool)
        .await
        .map_err(|error| match code(&error).as_deref() {
            Some(UNDEFINED_TABLE) => SchemaError::Absent,
            Some(INSUFFICIENT_PRIVILEGE) => SchemaError::Denied(message(&error)),
            _ => unreachable(error),
        })?;
    let version = row.map(|row| row.try_get("version")).transpose().map_err(unreachable)?;
    accept(version)?;
    let row = sqlx::raw_sql("SELECT patgate.applied_migrations() AS applied")
        .fetch_one(pool)
        .await
        .map_err(|error| match code(&error).as_deref() {
            Some(UNDEFINED_FUNCTION) => {
                SchemaError::Incomplete("the function applied_migrations".to_owned())
            }
            Some(INSUFFICIENT_PRIVILEGE) => SchemaError::Denied(message(&error)),
            _ => unreachable(error),
        })?;
    accept_migrations(&row.try_get::<Vec<i64>, _>("applied").map_err(unreachable)?)?;
    identify(pool).await
}

/// Checks whether this release runs on that version.
pub(crate) fn accept(version: Option<i32>) -> Result<(), SchemaError> {
    match version {
        None => Err(SchemaError::Absent),
        Some(version) if version < SCHEMA => Err(SchemaError::Older(version)),
        Some(version) if version > SCHEMA + 1 => Err(SchemaError::Newer(version)),
        Some(_) => Ok(()),
    }
}

/// Checks whether the database has every migration of this release.
pub(crate) fn accept_migrations(applied: &[i64]) -> Result<(), SchemaError> {
    if MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)) {
        Ok(())
    } else {
        Err(incomplete(applied))
    }
}

fn incomplete(applied: &[i64]) -> SchemaError {
    let lacking = MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version));
    let lacking: Vec<_> = lacking
        .map(|migration| format!("{:04} {}", migration.version, migration.description))
        .collect();
    SchemaError::Incomplete(match &*lacking {
        [first, .., last] => format!("{} migrations, {first} to {last}", lacking.len()),
        lacking => format!("the migration {}", lacking.concat()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_this_version_and_the_next() {
        assert!(matches!(accept(None), Err(SchemaError::Absent)));
        assert!(matches!(accept(Some(SCHEMA - 1)), Err(SchemaError::Older(_))));
        assert!(accept(Some(SCHEMA)).is_ok() && accept(Some(SCHEMA + 1)).is_ok());
        assert!(matches!(accept(Some(SCHEMA + 2)), Err(SchemaError::Newer(_))));
    }

    #[test]
    fn names_the_migrations_that_a_database_lacks() {
        let mut applied: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        // Of a later release.
        applied.push(i64::MAX);
        assert!(accept_migrations(&applied).is_ok());
        let without = |gone: &[i64]| {
            let left: Vec<i64> = applied.iter().copied().filter(|it| !gone.contains(it)).collect();
            accept_migrations(&left).unwrap_err().to_string()
        };
        let one = without(&[5]);
        assert!(one.contains("lacks the migration 0005 rollout, which"), "{one}");
        let two = without(&[5, 3]);
        assert!(two.contains("lacks 2 migrations, 0003 replicas to 0005 rollout, which"), "{two}");
    }
}
