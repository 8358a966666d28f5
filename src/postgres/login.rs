//! Checks that a replica's login may serve, and not administer.
//!
//! A replica needs to read, and to write a few rows of its own. With a login that may do more, an
//! attacker who takes over a replica could create tokens and roles, so patgate refuses to serve with
//! one. What counts is what the login may do, also by becoming another role, and not only which roles
//! it was given.

use sqlx::{PgPool, Row as _};

use super::{
    connect::Target,
    schema::{SchemaError, check},
};
use crate::installation::Installation;

/// Says why a login may do more than serve; NULL if it may not. Behind a pooler, the login is the
/// one that the pooler uses. The tables are named, so that a later release may let replicas write to
/// others.
const LOGIN: &str = "
    SELECT quote_ident(current_user) AS login,
           CASE
           WHEN r.rolsuper THEN 'it is a superuser'
           WHEN r.rolcreaterole THEN 'it has CREATEROLE, and can grant itself roles'
           WHEN role.member IS NOT NULL THEN 'it is a member of ' || role.member
           WHEN writes.to_table IS NOT NULL THEN 'it may change the table ' || writes.to_table
           END AS reason
    FROM pg_catalog.pg_roles r,
         (SELECT min(m.rolname)::text AS member FROM pg_catalog.pg_roles m
          WHERE m.rolname IN ('patgate_admin', 'patgate_migrate')
            AND pg_catalog.pg_has_role(current_user, m.oid, 'MEMBER')) AS role,
         (SELECT min(c.relname)::text AS to_table FROM pg_catalog.pg_class c
          WHERE c.relnamespace = pg_catalog.to_regnamespace('patgate')
            AND c.relname IN ('users', 'backends', 'domains', 'domain_models', 'roles',
                              'role_operations', 'role_members', 'pats', 'pat_scopes', 'audit_log')
            AND (pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
                 OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE'))) AS writes
    WHERE r.rolname = current_user";

/// Checks that a replica may serve from this database with this login: the schema, its installation,
/// and the login. `key` is the setting that leads there.
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

/// Checks that the login may not administer.
///
/// # Errors
///
/// If it may, or if Postgres does not answer.
pub(crate) async fn check_login(pool: &PgPool, key: &'static str) -> Result<(), SchemaError> {
    let read = async {
        let row = sqlx::raw_sql(LOGIN).fetch_one(pool).await?;
        Ok((row.try_get("login")?, row.try_get("reason")?))
    };
    let read: Result<(String, Option<String>), sqlx::Error> = read.await;
    match read {
        Ok((_, None)) => Ok(()),
        Ok((login, Some(reason))) => Err(SchemaError::MayAdminister { login, reason, key }),
        Err(error) => Err(Target::of_pool(key, pool).unreachable(&error).into()),
    }
}
