//! Closes the database: afterwards, only logins with a role of patgate's may connect.

use sqlx::{Executor as _, PgConnection};

/// The migration after which only logins with a role of patgate's may connect. Closing needs a
/// login that owns the database, and patgate_migrate does not have that privilege.
const SINCE: i64 = 12;

/// Postgres checks CONNECT before a login can assume a role, so a login that does not inherit its
/// roles needs CONNECT by name.
const CLOSE: &str = "DO $$
DECLARE
    own CONSTANT text[] := '{patgate_serve,patgate_admin,patgate_web,patgate_migrate}';
    login name;
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = current_database()
               AND pg_has_role(current_user, datdba, 'USAGE'))
    THEN
        EXECUTE format(
            'GRANT CONNECT ON DATABASE %I TO patgate_serve, patgate_admin, patgate_web, patgate_migrate',
            current_database());
        FOR login IN
            SELECT r.rolname FROM pg_roles r
            WHERE r.rolcanlogin AND NOT r.rolsuper
              AND EXISTS (SELECT FROM unnest(own) o WHERE pg_has_role(r.oid, o, 'MEMBER'))
              AND NOT EXISTS (SELECT FROM unnest(own) o WHERE pg_has_role(r.oid, o, 'USAGE'))
        LOOP
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
        END LOOP;
        EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END
$$";

/// The migration that gave patgate_web its use. A database that was closed before is not open to it.
const WEB_SINCE: i64 = 16;
const OPEN_TO_WEB: &str = "DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = current_database()
               AND pg_has_role(current_user, datdba, 'USAGE'))
    THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO patgate_web', current_database());
    END IF;
END
$$";

/// The quoted name of the database, if patgate_web may not connect.
const CLOSED_TO_WEB: &str = "SELECT quote_ident(current_database())
    WHERE NOT has_database_privilege('patgate_web', current_database(), 'CONNECT')";

/// The quoted name of the database, if every login may connect.
const OPEN: &str = "SELECT quote_ident(d.datname)
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'CONNECT'";

/// What was done with the database; reported after the transaction is committed.
pub(super) struct Closed {
    /// The quoted name of the database that is now closed, if a login may lose access.
    newly: Option<String>,
    /// The quoted name of the database, if it is open.
    open: Option<String>,
    /// The quoted name of the database, if logins of patgate_web cannot connect, and could not be
    /// permitted to.
    closed_to_web: Option<String>,
}

/// Closes the database if the migration that does so has just been applied. It is not closed again
/// later: an operator who opens it has a reason. `before` are the migrations that had been applied
/// before.
pub(super) async fn close(
    connection: &mut PgConnection,
    before: &[i64],
    known: impl IntoIterator<Item = i64>,
) -> Result<Closed, sqlx::Error> {
    let was_open = open(connection).await?;
    let applied: Vec<i64> = known.into_iter().filter(|version| !before.contains(version)).collect();
    if applied.contains(&SINCE) {
        connection.execute(sqlx::raw_sql(CLOSE)).await?;
    }
    let mut closed_to_web = None;
    if applied.contains(&WEB_SINCE) {
        connection.execute(sqlx::raw_sql(OPEN_TO_WEB)).await?;
        let closed = sqlx::query_scalar(CLOSED_TO_WEB).persistent(false);
        closed_to_web = closed.fetch_optional(&mut *connection).await?;
    }
    let open = open(connection).await?;
    // A new database has no logins yet that could lose access.
    let newly = was_open.filter(|_| open.is_none() && !before.is_empty());
    Ok(Closed { newly, open, closed_to_web })
}

impl Closed {
    /// Logs it for the operator who migrates.
    pub(super) fn report(&self) {
        if let Some(database) = &self.newly {
            tracing::warn!(
                "only logins with a role of patgate's, the owner and superusers may connect to the \
                 database from now on. If other logins must, such as those of monitoring and \
                 backups, or a later login with NOINHERIT, run as its owner: GRANT CONNECT ON \
                 DATABASE {database} TO …"
            );
        }
        if let Some(database) = &self.closed_to_web {
            tracing::warn!(
                "logins of patgate_web, for self-service, cannot connect to the database; to permit \
                 it, run as its owner: GRANT CONNECT ON DATABASE {database} TO patgate_web"
            );
        }
        if let Some(database) = &self.open {
            tracing::warn!(
                "any login of the cluster may connect to the database, and hold locks there; if it \
                 is patgate's alone, run as its owner: GRANT CONNECT ON DATABASE {database} TO \
                 patgate_serve, patgate_admin, patgate_web, patgate_migrate; REVOKE CONNECT ON DATABASE \
                 {database} FROM PUBLIC"
            );
        }
    }
}

/// The quoted name of the database, if every login of the cluster may connect to it.
async fn open(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(OPEN).persistent(false).fetch_optional(connection).await
}
