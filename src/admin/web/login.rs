//! Checks that a login may use self-service, and nothing else.

use std::time::Duration;

use serde::Deserialize;
use sqlx::{PgConnection, Row as _, types::Json};

use super::{
    Error, SelfService,
    call::{begin, call},
};
use crate::{
    installation::Installation,
    postgres::{SchemaError, accept, accept_migrations},
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
    /// Schema versions that this release refuses do not have them.
    #[serde(default)]
    migrations: Vec<i64>,
    identity: String,
    /// The providers that operators have added, and have not disabled.
    issuers: Vec<String>,
}

impl Status {
    /// The installation that answered, if this release works with its schema.
    fn accept(self) -> Result<Installation, Error> {
        accept(self.version)?;
        accept_migrations(&self.migrations)?;
        self.identity.parse().map_err(|_| SchemaError::Nameless.into())
    }
}

const STATUS: &str = "SELECT patgate.web_status()";

impl SelfService {
    /// Checks that the database answers, with a schema that this release works with.
    ///
    /// # Errors
    ///
    /// If it does not, or is another one than at the start.
    pub async fn ready(&self) -> Result<(), Error> {
        let status: Status = self.ask(|| call(STATUS)).await?;
        self.is_same(status.accept()?)
    }

    /// Returns whether operators have added this provider, and have not disabled it.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn knows_provider(&self, issuer: &str) -> Result<bool, Error> {
        let status: Status = self.ask(|| call(STATUS)).await?;
        Ok(status.issuers.iter().any(|known| known == issuer))
    }

    /// Checks a connection that leads elsewhere, or has another login, than those in use.
    ///
    /// # Errors
    ///
    /// If the login may do too little or too much, or the database is another one.
    pub(crate) async fn permits(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.is_same(check(connection, self.query_timeout).await?)
    }

    fn is_same(&self, installation: Installation) -> Result<(), Error> {
        if installation == self.cached_copies.installation {
            Ok(())
        } else {
            Err(Error::OtherInstallation)
        }
    }
}

/// Checks the schema and the login, and returns the installation. Postgres ends each statement after
/// `limit`.
///
/// # Errors
///
/// If the schema is too old or too new, or the login may do too little or too much.
pub(crate) async fn check(
    connection: &mut PgConnection,
    limit: Duration,
) -> Result<Installation, Error> {
    let mut transaction = begin(connection, limit).await?;
    let row = sqlx::raw_sql(LOGIN).fetch_one(&mut *transaction).await?;
    let reason: Option<String> = row.try_get("reason")?;
    if let Some(reason) = reason {
        return Err(Error::TooPowerful { login: row.try_get("login")?, reason });
    }
    let row = call(STATUS).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let Json(status): Json<Status> = row.try_get(0)?;
    status.accept()
}
