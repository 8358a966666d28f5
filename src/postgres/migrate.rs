//! `patgate migrate`: brings the schema to this release's version.

mod closing;

use std::time::Duration;

use sqlx::{
    Connection as _, Executor as _, PgConnection,
    migrate::{MigrateError, Migrator},
};
use tokio::time::sleep;

use super::{
    Address, code, message,
    schema::{INSUFFICIENT_PRIVILEGE, SCHEMA, SchemaError, accept},
};

/// Every name of patgate's objects is qualified, so nothing depends on a search path.
const MIGRATIONS_TABLE: &str = "patgate.migrations";
const BOOTSTRAP: &str = include_str!("../../deploy/bootstrap.sql");
/// The migrations of this release.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("deploy/migrations");

/// Postgres's codes for an object that exists already.
const DUPLICATE_SCHEMA: &str = "42P06";
const UNIQUE_VIOLATION: &str = "23505";
/// Postgres's code for a lock that was not granted within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// How often a migration asks for a lock that another session holds, and how long it pauses in
/// between. While it waits for a table, every lookup in that table queues behind it. That is why
/// there is a `lock_timeout`.
const ATTEMPTS: u32 = 25;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(400);

/// Enables triggers. Those that record changes must also record replayed ones, so they are
/// `ALWAYS`; the others must not be disabled. `pg_restore --disable-triggers` leaves both kinds in
/// another state.
const SWITCH_ON: &str = "DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT relation, tgname, always FROM (
                SELECT t.tgrelid::regclass AS relation, t.tgname, t.tgenabled, t.tgname IN
                    ('record_change', 'record_truncation', 'append_only') AS always
                FROM pg_trigger t
                JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = 'patgate'::regnamespace
                WHERE NOT t.tgisinternal) AS own
            WHERE CASE WHEN always THEN tgenabled <> 'A' ELSE tgenabled = 'D' END
        LOOP
            EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', own.relation,
                           CASE WHEN own.always THEN 'ALWAYS' ELSE '' END, own.tgname);
        END LOOP;
    END $$";

/// Enables the triggers of foreign keys, which only a superuser may do.
const SWITCH_KEYS_ON: &str = "DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT t.tgrelid::regclass AS relation, t.tgname
            FROM pg_trigger t
            JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = 'patgate'::regnamespace
            WHERE t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')
                AND current_setting('is_superuser') = 'on'
        LOOP
            EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', own.relation, own.tgname);
        END LOOP;
    END $$";

/// The foreign keys whose triggers are off, and the statements that enable them.
const KEYS_OFF: &str = "SELECT string_agg(DISTINCT format('%s.%s', c.relname, k.conname), ', '),
           string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname),
               ' ' ORDER BY c.relname, t.tgname)
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = 'patgate'::regnamespace
    LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint
    WHERE t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')";

/// Whether the login lacks nothing but a role that exists: its name, if that is so.
const NOT_A_MEMBER: &str = "SELECT quote_ident(current_user) FROM pg_roles r
    WHERE r.rolname = 'patgate_migrate' AND to_regnamespace('patgate') IS NOT NULL
        AND NOT pg_has_role(current_user, r.oid, 'MEMBER')";

/// The outcome of [`migrate`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Migrated {
    /// The migrations that were applied: number and description.
    pub applied: Vec<(i64, String)>,
    /// The schema's version afterwards.
    pub version: i32,
}

/// Brings the schema to this release's version, and enables disabled triggers. Does nothing if both
/// are done already.
///
/// Everything happens in one transaction, so a migration that fails leaves nothing behind.
///
/// # Errors
///
/// If the login cannot migrate, the schema is too new, or a statement fails. Also if triggers of
/// foreign keys are off and the login may not enable them; the rest is done then.
pub async fn migrate(address: &Address) -> Result<Migrated, SchemaError> {
    migrate_with(&MIGRATIONS, address).await
}

async fn migrate_with(migrations: &Migrator, address: &Address) -> Result<Migrated, SchemaError> {
    let mut connection = address.connect().await?;
    let mut reported = None;
    for _ in 1..ATTEMPTS {
        match migrate_once(migrations, &mut connection).await {
            Err(SchemaError::Locked(holders)) => {
                if reported.as_ref() != Some(&holders) {
                    tracing::warn!("waiting for a table that other sessions use{holders}");
                    reported = Some(holders);
                }
            }
            outcome => return outcome,
        }
        sleep(BETWEEN_ATTEMPTS).await;
    }
    migrate_once(migrations, &mut connection).await
}

async fn migrate_once(
    migrations: &Migrator,
    connection: &mut PgConnection,
) -> Result<Migrated, SchemaError> {
    match try_to_migrate(migrations, connection).await {
        Err(SchemaError::Locked(_)) => Err(SchemaError::Locked(holders(connection).await)),
        Err(SchemaError::MayNotMigrate(reason)) => {
            let asked = sqlx::query_scalar(NOT_A_MEMBER).persistent(false);
            let login: Option<String> = asked.fetch_optional(connection).await.ok().flatten();
            Err(match login {
                Some(login) => SchemaError::NoMigrator { login, reason },
                None => SchemaError::MayNotMigrate(reason),
            })
        }
        outcome => outcome,
    }
}

async fn try_to_migrate(
    migrations: &Migrator,
    connection: &mut PgConnection,
) -> Result<Migrated, SchemaError> {
    // All state belongs to the transaction: through a pooler, a role or a lock of the session would
    // be left to the next client of the connection. The migrator itself does name its prepared
    // statements, so a direct connection is required nevertheless.
    const BEGIN: &str = "BEGIN;
        SET LOCAL search_path = pg_catalog, pg_temp;
        SET LOCAL lock_timeout = '100ms'";
    // Only one migration runs at a time. Any login could hold an advisory lock; only the owner of a
    // schema can comment on it.
    const ALONE: &str = "SET LOCAL ROLE patgate_migrate;
        COMMENT ON SCHEMA patgate IS 'patgate: users, domains, tokens and their permissions'";
    let migrations = Migrator {
        migrations: migrations.migrations.clone(),
        table_name: MIGRATIONS_TABLE.into(),
        // An older release, started again during a rollback, finds migrations that it does not
        // know.
        ignore_missing: true,
        // The transaction has its own lock.
        locking: false,
        ..Migrator::DEFAULT
    };
    let failed = |error: sqlx::Error| match code(&error).as_deref() {
        Some(INSUFFICIENT_PRIVILEGE) => SchemaError::MayNotMigrate(message(&error)),
        Some(LOCK_NOT_AVAILABLE) => SchemaError::Locked(String::new()),
        // Another first migration has created the schema meanwhile.
        Some(DUPLICATE_SCHEMA | UNIQUE_VIOLATION) => SchemaError::Locked(String::new()),
        _ => SchemaError::Migrate(message(&error)),
    };
    let mut transaction = connection.begin_with(BEGIN).await.map_err(failed)?;
    transaction.execute(sqlx::raw_sql(BOOTSTRAP)).await.map_err(failed)?;
    transaction.execute(sqlx::raw_sql(ALONE)).await.map_err(failed)?;

    let before = applied(&mut transaction).await.map_err(failed)?;
    migrations.run(&mut *transaction).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
            if code(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) =>
        {
            failed(error)
        }
        error => SchemaError::Migrate(error.to_string()),
    })?;
    transaction.execute(sqlx::raw_sql(SWITCH_ON)).await.map_err(failed)?;
    let version = sqlx::query_scalar("SELECT version FROM patgate.schema_version")
        .persistent(false)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
    accept(version)?;
    transaction.execute(sqlx::raw_sql("RESET ROLE")).await.map_err(failed)?;
    transaction.execute(sqlx::raw_sql(SWITCH_KEYS_ON)).await.map_err(failed)?;
    let keys_off: (Option<String>, Option<String>) = sqlx::query_as(KEYS_OFF)
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let known = migrations.iter().map(|migration| migration.version);
    let closed = closing::close(&mut transaction, &before, known).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    closed.report();
    if let (Some(keys), Some(statements)) = keys_off {
        return Err(SchemaError::KeysOff { keys, statements });
    }
    let applied = migrations
        .iter()
        .filter(|migration| !before.contains(&migration.version))
        .map(|migration| (migration.version, migration.description.to_string()))
        .collect();
    Ok(Migrated { applied, version: version.unwrap_or(SCHEMA) })
}

/// Names the sessions that used patgate's tables during the whole attempt, so that the operator can
/// find them. Empty if none does any more. For sessions that the login may not inspect, it names
/// the process id and the login.
async fn holders(connection: &mut PgConnection) -> String {
    const HOLDERS: &str = "SELECT ': ' || string_agg(
            format('%s (pid %s, login %s%s)', who, pid, coalesce(login, '?'), since), ', ')
        FROM (SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, '?') AS who,
                  a.usename AS login,
                  ', in a transaction since ' || to_char(a.xact_start AT TIME ZONE 'UTC',
                      'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since
              FROM pg_stat_activity a
              WHERE a.pid <> pg_backend_pid()
                AND (a.xact_start < now() - interval '100 milliseconds') IS NOT FALSE
                AND EXISTS (
                    SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                    WHERE l.pid = a.pid AND l.granted AND l.database = a.datid
                      AND a.datname = current_database()
                      AND c.relnamespace = to_regnamespace('patgate'))
              ORDER BY a.xact_start LIMIT 5) AS holders";
    let asked = sqlx::query_scalar(HOLDERS).persistent(false).fetch_one(connection).await;
    asked.ok().flatten().unwrap_or_default()
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(MIGRATIONS_TABLE)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT version FROM patgate.migrations")
        .persistent(false)
        .fetch_all(connection)
        .await
}
