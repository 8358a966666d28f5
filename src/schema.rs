//! The database schema: connecting, migrating, and knowing whether it is ours.

mod closing;
mod limits;
mod pooled;

use std::{str::FromStr as _, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool, Row as _,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{sleep, timeout};

use crate::{
    config,
    installation::{Installation, identity_column},
};

pub(crate) use self::{
    limits::shortage,
    pooled::{POOLED_FEED, POOLED_RELAY, is_pooled},
};

/// The version of the schema that this release is made for. It also runs on the next one, so that
/// a rollout can migrate first and a rollback need not migrate back.
pub const SCHEMA: i32 = 2;

/// What every name of ours is qualified with: nothing relies on a search path.
const MIGRATIONS_TABLE: &str = "patgate.migrations";
const BOOTSTRAP: &str = include_str!("../deploy/bootstrap.sql");
static MIGRATIONS: Migrator = sqlx::migrate!("deploy/migrations");

/// The setting that names the database; the feed may be read by another way.
const POSTGRES_URL: &str = "postgres.url";

/// For a new connection, its TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Postgres's codes for a table, a function and a schema that do not exist.
const UNDEFINED_TABLE: &str = "42P01";
const UNDEFINED_FUNCTION: &str = "42883";
const UNDEFINED_SCHEMA: &str = "3F000";
/// Postgres's code for a lack of privileges.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Postgres's codes for what exists already.
const DUPLICATE_SCHEMA: &str = "42P06";
const UNIQUE_VIOLATION: &str = "23505";
/// Postgres's code for a lock that was not given within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// How often a migration asks for a lock that others hold, and how long it waits in between. While
/// it waits for a table to itself, every look-up there queues behind it: hence `lock_timeout`.
const ATTEMPTS: u32 = 25;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(400);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SchemaError {
    #[error("Postgres{server} ({key}): {reason}")]
    Unreachable { key: &'static str, server: String, reason: String },
    #[error("the database has no patgate schema; `patgate migrate` creates it")]
    Absent,
    #[error(
        "the schema of the database does not say which installation it is, as this release needs; \
         run `patgate migrate`"
    )]
    Nameless,
    #[error(
        "the database has schema version {0}, this release needs {SCHEMA}; run `patgate migrate`"
    )]
    Older(i32),
    #[error(
        "the database has schema version {0}, this release knows {SCHEMA} and also runs on the \
         next one; upgrade patgate"
    )]
    Newer(i32),
    #[error(
        "the login may not read the schema ({0}); as an administrator of the database, grant it \
         patgate_serve, or patgate_admin for administration"
    )]
    Denied(String),
    #[error(
        "the login may not migrate ({0}); it needs CREATEROLE, and CREATE on the database. Or an \
         administrator of the cluster runs deploy/bootstrap.sql once and grants patgate_migrate \
         to it"
    )]
    MayNotMigrate(String),
    #[error(
        "migrating: a table is in use by others, and waiting longer would delay all lookups{0}; \
         end what uses it, or run `patgate migrate` again later"
    )]
    Locked(String),
    #[error("migrating: {0}")]
    Migrate(String),
}

/// A pool that works through a connection pooler in transaction mode, too.
///
/// No start-up parameter that PgBouncer does not know, no prepared statement and no other state of
/// a session. Beware: without a cache, sqlx still names the statement of a query that is
/// `persistent`, which is the default, and never closes it.
///
/// # Errors
///
/// When Postgres cannot be reached with these settings.
pub async fn connect(settings: &config::Postgres) -> Result<PgPool, SchemaError> {
    let server = Server::of(settings.key, &settings.url)?;
    // The pool would try again and again, and in the end not say why.
    server.connect().await?.close().await.map_err(|error| server.unreachable(&error))?;
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        // A round trip before each use; a dead connection is found by using it.
        .test_before_acquire(false)
        .connect_lazy_with(server.options))
}

/// One connection of the same kind.
///
/// # Errors
///
/// When Postgres cannot be reached with these settings.
pub(crate) async fn connect_one(settings: &config::Postgres) -> Result<PgConnection, SchemaError> {
    Server::of(settings.key, &settings.url)?.connect().await
}

/// A server as a setting names it, and the name of the setting.
struct Server {
    key: &'static str,
    options: PgConnectOptions,
}

impl Server {
    fn of(key: &'static str, url: &SecretString) -> Result<Self, SchemaError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|error| {
                let (server, reason) = (String::new(), message(&error));
                SchemaError::Unreachable { key, server, reason }
            })?
            .application_name("patgate")
            .extra_float_digits(None)
            .statement_cache_capacity(0)
            // Whoever waits for a slow statement is told by us what it waits for.
            .disable_statement_logging();
        Ok(Self { key, options })
    }

    async fn connect(&self) -> Result<PgConnection, SchemaError> {
        timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| self.unreachable_for("no answer".to_owned()))?
            .map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &sqlx::Error) -> SchemaError {
        self.unreachable_for(message(error))
    }

    /// Where it was sought, without user and password.
    fn unreachable_for(&self, reason: String) -> SchemaError {
        let (options, key) = (&self.options, self.key);
        let host = options.get_socket().map_or_else(
            || options.get_host().to_owned(),
            |directory| directory.display().to_string(),
        );
        let server = format!(" at {host}, port {}", options.get_port());
        SchemaError::Unreachable { key, server, reason }
    }
}

/// Accepts the schema version of this release and the one after, and tells which installation it is.
///
/// # Errors
///
/// Any other version, by the command that mends it.
pub async fn check(pool: &PgPool) -> Result<Installation, SchemaError> {
    let unreachable = |error: sqlx::Error| {
        let options = PgConnectOptions::clone(&pool.connect_options());
        Server { key: POSTGRES_URL, options }.unreachable(&error)
    };
    // In one message: between two, a pooler may change the connection behind this one.
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
    identify(pool).await
}

/// Tells which installation of patgate the database is.
///
/// # Errors
///
/// When it is none, or does not say so.
pub async fn identify(pool: &PgPool) -> Result<Installation, SchemaError> {
    const IDENTIFY: &str = concat!("SELECT ", identity_column!());
    let row = sqlx::raw_sql(IDENTIFY).fetch_one(pool).await;
    row.and_then(|row| Installation::of_row(&row)).map_err(|error| match code(&error).as_deref() {
        Some(INSUFFICIENT_PRIVILEGE) => SchemaError::Denied(message(&error)),
        Some(UNDEFINED_TABLE | UNDEFINED_FUNCTION | UNDEFINED_SCHEMA) => SchemaError::Nameless,
        // The row is missing, or is not as we wrote it.
        _ if matches!(error, sqlx::Error::ColumnDecode { .. }) => SchemaError::Nameless,
        _ => {
            let options = PgConnectOptions::clone(&pool.connect_options());
            Server { key: POSTGRES_URL, options }.unreachable(&error)
        }
    })
}

fn accept(version: Option<i32>) -> Result<(), SchemaError> {
    match version {
        None => Err(SchemaError::Absent),
        Some(version) if version < SCHEMA => Err(SchemaError::Older(version)),
        Some(version) if version > SCHEMA + 1 => Err(SchemaError::Newer(version)),
        Some(_) => Ok(()),
    }
}

/// Triggers that record changes count replayed ones, too, and stay on; the others are not off.
/// `pg_restore --disable-triggers` leaves behind what is neither.
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

/// What [`migrate`] did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Migrated {
    /// The migrations that were applied: number and description.
    pub applied: Vec<(i64, String)>,
    /// The schema's version afterwards.
    pub version: i32,
}

/// Brings the schema to this release's version, and switches on triggers that are off; does nothing
/// when all that is so already.
///
/// Everything happens in one transaction, so a migration that fails leaves nothing behind.
///
/// # Errors
///
/// When the login may not, when the schema is too new, or when a statement fails.
pub async fn migrate(url: &SecretString) -> Result<Migrated, SchemaError> {
    migrate_with(&MIGRATIONS, url).await
}

async fn migrate_with(migrations: &Migrator, url: &SecretString) -> Result<Migrated, SchemaError> {
    let mut connection = Server::of(POSTGRES_URL, url)?.connect().await?;
    let mut told = None;
    for _ in 1..ATTEMPTS {
        match migrate_once(migrations, &mut connection).await {
            Err(SchemaError::Locked(holders)) => {
                if told.as_ref() != Some(&holders) {
                    tracing::warn!("waiting for a table that is in use by others{holders}");
                    told = Some(holders);
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
        outcome => outcome,
    }
}

async fn try_to_migrate(
    migrations: &Migrator,
    connection: &mut PgConnection,
) -> Result<Migrated, SchemaError> {
    // Not a session's state but a transaction's: through a pooler, a role or a lock set for the
    // session would be left to whoever gets the connection next. The migrator itself does name
    // its prepared statements, so a direct connection is needed all the same.
    const BEGIN: &str = "BEGIN;
        SET LOCAL search_path = pg_catalog, pg_temp;
        SET LOCAL lock_timeout = '100ms'";
    // One migration at a time. Not by an advisory lock, which any login could hold: to comment on
    // the schema, one has to own it.
    const ALONE: &str = "SET LOCAL ROLE patgate_migrate;
        COMMENT ON SCHEMA patgate IS 'patgate: users, domains, tokens and their permissions'";
    let migrations = Migrator {
        migrations: migrations.migrations.clone(),
        table_name: MIGRATIONS_TABLE.into(),
        // An older release, started again during a rollback, finds what it does not know.
        ignore_missing: true,
        // By the transaction's own lock.
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
    let known = migrations.iter().map(|migration| migration.version);
    let closed = closing::close(&mut transaction, &before, known).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    closed.tell();
    let applied = migrations
        .iter()
        .filter(|migration| !before.contains(&migration.version))
        .map(|migration| (migration.version, migration.description.to_string()))
        .collect();
    Ok(Migrated { applied, version: version.unwrap_or(SCHEMA) })
}

/// Who has been using our tables all the while, for a person to find them by; nothing where nobody
/// does any more. Whose sessions the login may not see into, of those it knows the process id and
/// the login.
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

/// The SQLSTATE of an error that Postgres reported.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// What Postgres said, or what kept us from hearing it.
fn message(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(refusal) => refusal.message().to_owned(),
        None => error.to_string(),
    }
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
}
