//! Closes the database: afterwards, only logins with a role of patgate's may connect.

use sqlx::{Executor as _, PgConnection};

/// The migration after which only logins with a role of patgate's may connect. Closing needs a
/// login that owns the database, and patgate_migrate does not have that privilege.
const SINCE: i64 = 12;

/// Postgres checks CONNECT before a login can assume a role, so a login that does not inherit its
/// roles needs CONNECT by name.
const CLOSE: &str = "DO $$
DECLARE
    own CONSTANT text[] := '{patgate_serve,patgate_admin,patgate_web,patgate_sync,patgate_migrate}';
    login name;
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = current_database()
               AND pg_has_role(current_user, datdba, 'USAGE'))
    THEN
        EXECUTE format(
            'GRANT CONNECT ON DATABASE %I TO patgate_serve, patgate_admin, patgate_web, patgate_sync,
                 patgate_migrate',
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

/// A role that came after [`SINCE`]: a database that was closed before is not open to it.
struct LaterRole {
    /// The migration that gave the role its use.
    since: i64,
    name: &'static str,
    /// What its logins are for.
    purpose: &'static str,
    open: &'static str,
    /// The quoted name of the database, if the role may not connect.
    closed: &'static str,
}

macro_rules! later_role {
    ($since:literal, $name:literal, $purpose:literal) => {
        LaterRole {
            since: $since,
            name: $name,
            purpose: $purpose,
            open: concat!(
                "DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = current_database()
               AND pg_has_role(current_user, datdba, 'USAGE'))
    THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO ",
                $name,
                "', current_database());
    END IF;
END
$$"
            ),
            closed: concat!(
                "SELECT quote_ident(current_database())
    WHERE NOT has_database_privilege('",
                $name,
                "', current_database(), 'CONNECT')"
            ),
        }
    };
}

static LATER_ROLES: [LaterRole; 2] = [
    later_role!(16, "patgate_web", "self-service"),
    later_role!(30, "patgate_sync", "`patgate sync`"),
];

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
    /// The roles whose logins cannot connect and could not be permitted to, each with the quoted name of
    /// the database.
    closed_to: Vec<(&'static LaterRole, String)>,
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
    let mut closed_to = Vec::new();
    for role in LATER_ROLES.iter().filter(|role| applied.contains(&role.since)) {
        connection.execute(sqlx::raw_sql(role.open)).await?;
        let closed = sqlx::query_scalar(role.closed).persistent(false);
        let closed: Option<String> = closed.fetch_optional(&mut *connection).await?;
        closed_to.extend(closed.map(|database| (role, database)));
    }
    let open = open(connection).await?;
    // A new database has no logins yet that could lose access.
    let newly = was_open.filter(|_| open.is_none() && !before.is_empty());
    Ok(Closed { newly, open, closed_to })
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
        for (LaterRole { name, purpose, .. }, database) in &self.closed_to {
            tracing::warn!(
                "logins of {name}, for {purpose}, cannot connect to the database; to permit it, run as \
                 its owner: GRANT CONNECT ON DATABASE {database} TO {name}"
            );
        }
        if let Some(database) = &self.open {
            tracing::warn!(
                "any login of the cluster may connect to the database, and hold locks there; if it \
                 is patgate's alone, run as its owner: GRANT CONNECT ON DATABASE {database} TO \
                 patgate_serve, patgate_admin, patgate_web, patgate_sync, patgate_migrate; REVOKE \
                 CONNECT ON DATABASE {database} FROM PUBLIC"
            );
        }
    }
}

/// The quoted name of the database, if every login of the cluster may connect to it.
async fn open(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(OPEN).persistent(false).fetch_optional(connection).await
}
