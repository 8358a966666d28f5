//! Checks that a login may use self-service, and nothing else.

use serde::Deserialize;
use sqlx::{PgPool, Row as _, types::Json};

use super::{Error, call::call};
use crate::{
    installation::Installation,
    postgres::{SchemaError, accept},
};

/// Says why a login may do more than it should; NULL if it may not. Every role counts that the login
/// is or may become. A member of patgate_web_functions could read and write what the functions do,
/// without a session.
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
        WHERE c.relnamespace = pg_catalog.to_regnamespace('patgate') AND c.relkind = 'r'
    )
    SELECT quote_ident(current_user) AS login,
           coalesce(
               (SELECT who || 'is a superuser' FROM becomes
                WHERE rolsuper AND name = current_user),
               (SELECT min(who || 'is a superuser') FROM becomes WHERE rolsuper),
               (SELECT min(who || 'has CREATEROLE, and can grant itself roles')
                FROM becomes WHERE rolcreaterole),
               (SELECT 'it is a member of ' || min(name) FROM becomes
                WHERE name IN ('patgate_admin', 'patgate_migrate', 'patgate_serve',
                               'patgate_web_functions', 'pg_execute_server_program',
                               'pg_read_all_data', 'pg_read_server_files', 'pg_write_all_data',
                               'pg_write_server_files')),
               (SELECT min(who || 'owns the schema patgate') FROM becomes, pg_catalog.pg_namespace n
                WHERE n.nspname = 'patgate' AND n.nspowner = becomes.oid),
               (SELECT min(who || 'may read or change the table ' || tables.name)
                FROM becomes, tables
                WHERE pg_catalog.has_table_privilege(
                          becomes.oid, tables.oid,
                          'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                   OR pg_catalog.has_any_column_privilege(
                          becomes.oid, tables.oid, 'SELECT, INSERT, UPDATE'))
           ) AS reason";

#[derive(Deserialize)]
struct Status {
    version: Option<i32>,
    identity: String,
}

/// Checks the schema and the login, and returns the installation.
///
/// # Errors
///
/// If the schema is too old or too new, or the login may do too little or too much.
pub(super) async fn check(pool: &PgPool) -> Result<Installation, Error> {
    let row = sqlx::raw_sql(LOGIN).fetch_one(pool).await?;
    let reason: Option<String> = row.try_get("reason")?;
    if let Some(reason) = reason {
        return Err(Error::TooPowerful { login: row.try_get("login")?, reason });
    }
    let row = call("SELECT patgate.web_status()").fetch_one(pool).await?;
    let Json(Status { version, identity }) = row.try_get(0)?;
    accept(version)?;
    identity.parse().map_err(|_| SchemaError::Nameless.into())
}
