//! Checks that a replica's login may serve, and not administer.
//!
//! A replica needs to read, and to write a few rows of its own. With a login that may do more, an
//! attacker who takes over a replica could create tokens and roles, so patgate refuses to serve with
//! one. What counts is what the login may do, also by becoming another role, and not only which roles
//! it was given.

use sqlx::{PgExecutor, PgPool, Row as _};

use super::{
    connect::Target,
    schema::{SchemaError, check},
};
use crate::installation::Installation;

/// Says why a login may do more than serve; NULL if it may not. Behind a pooler, the login is the
/// one that the pooler uses. Every role counts that the login is or may become, by whatever kind of
/// membership: Postgres's own roles that write files or run programs as the server, too. The tables
/// are named, so that a later release may let replicas write to others.
const LOGIN: &str = "
    WITH becomes AS (
        SELECT m.oid, m.rolsuper, m.rolcreaterole, m.rolname::text AS name,
               CASE WHEN m.rolname = current_user THEN 'it '
                    ELSE 'it is a member of ' || quote_ident(m.rolname) || ', which ' END AS who
        FROM pg_catalog.pg_roles m
        WHERE m.rolname = current_user OR pg_catalog.pg_has_role(current_user, m.oid, 'MEMBER')
    ), tables AS (
        SELECT c.oid, c.relname::text AS name
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('patgate')
          AND c.relname IN ('users', 'backends', 'domains', 'domain_models', 'roles',
                            'role_operations', 'role_members', 'pats', 'pat_scopes', 'audit_log',
                            'policy', 'issuers', 'identities', 'local_accounts', 'invitations',
                            'sessions', 'oidc_logins', 'sign_in_attempts', 'sign_in_secret',
                            'creations', 'former_tokens')
    )
    SELECT quote_ident(current_user) AS login,
           coalesce(
               (SELECT who || 'is a superuser' FROM becomes
                WHERE rolsuper AND name = current_user),
               (SELECT min(who || 'is a superuser') FROM becomes WHERE rolsuper),
               (SELECT min(who || 'has CREATEROLE, and can grant itself roles')
                FROM becomes WHERE rolcreaterole),
               (SELECT 'it is a member of ' || min(name) FROM becomes
                WHERE name IN ('patgate_admin', 'patgate_web', 'patgate_web_functions',
                               'patgate_migrate', 'pg_execute_server_program',
                               'pg_write_server_files')),
               (SELECT min(who || 'owns the schema patgate') FROM becomes, pg_catalog.pg_namespace n
                WHERE n.nspname = 'patgate' AND n.nspowner = becomes.oid),
               (SELECT min(who || 'may change the table ' || tables.name) FROM becomes, tables
                WHERE pg_catalog.has_table_privilege(
                          becomes.oid, tables.oid,
                          'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                   OR pg_catalog.has_any_column_privilege(
                          becomes.oid, tables.oid, 'INSERT, UPDATE'))
           ) AS reason,
           pg_catalog.pg_is_in_recovery() AS standby";

/// Checks that a replica may serve from this database with this login: the schema, its installation,
/// the login, and that it is on a primary. `key` is the setting that leads there.
///
/// # Errors
///
/// If one of them is not as it must be; the message says what to do.
pub(crate) async fn check_for_serving(
    pool: &PgPool,
    key: &'static str,
) -> Result<Installation, SchemaError> {
    let installation = check(pool).await?;
    check_login(pool, key).await?;
    Ok(installation)
}

/// Checks that the login may not administer, and that the server is not a standby.
///
/// # Errors
///
/// If it is not so, or if Postgres does not answer.
pub(crate) async fn check_login(pool: &PgPool, key: &'static str) -> Result<(), SchemaError> {
    let unreachable = |error| Target::of_pool(key, pool).unreachable(&error);
    let rights = Rights::of(pool).await.map_err(unreachable)?;
    match rights {
        Rights { standby: true, .. } => Err(SchemaError::Standby(key)),
        Rights { login, excess: Some(reason), .. } => {
            Err(SchemaError::MayAdminister { login, reason, key })
        }
        Rights { excess: None, .. } => Ok(()),
    }
}

/// What a connection says about its login.
pub(super) struct Rights {
    pub(super) login: String,
    /// Why it may do more than serve.
    pub(super) excess: Option<String>,
    standby: bool,
}

impl Rights {
    pub(super) async fn of(executor: impl PgExecutor<'_>) -> Result<Self, sqlx::Error> {
        let row = sqlx::raw_sql(LOGIN).fetch_one(executor).await?;
        Ok(Self {
            login: row.try_get("login")?,
            excess: row.try_get("reason")?,
            standby: row.try_get("standby")?,
        })
    }
}
