//! Checks whether Postgres permits as many connections as one replica may need.

use sqlx::{Executor as _, Row as _, postgres::PgRow};

use super::{ConnectError, PostgresSettings, connect_one, is_pooled};

/// The connection limits of the login, of the database and of the server for such logins; -1 means
/// no limit.
const LIMITS: &str = "
    SELECT quote_ident(r.rolname) AS login, r.rolconnlimit AS of_login,
           quote_ident(d.datname) AS database, d.datconnlimit AS of_database,
           current_setting('max_connections')::int4
               - current_setting('superuser_reserved_connections')::int4
               - coalesce(current_setting('reserved_connections', true)::int4, 0) AS of_server
    FROM pg_roles r, pg_database d
    WHERE r.rolname = session_user AND d.datname = current_database()";

/// The row that [`LIMITS`] selects.
struct ConnectionLimits {
    login: String,
    of_login: i32,
    database: String,
    of_database: i32,
    of_server: i32,
}

/// How many connections one replica may need at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionDemand {
    /// Connections at `postgres.url`.
    pub(crate) lookups: u32,
    /// Connections for the feed, at whichever address patgate reads it.
    pub(crate) feed: u32,
}

/// Says which limit is too low and what to do. Returns `None` if all are sufficient, or if a
/// pooler, which has limits of its own, stands before Postgres. `feed` is the address of the feed
/// if it has a separate one.
///
/// # Errors
///
/// If Postgres cannot be reached with these settings.
pub(crate) async fn shortage(
    settings: &PostgresSettings,
    feed: Option<&PostgresSettings>,
    demand: ConnectionDemand,
) -> Result<Option<String>, ConnectError> {
    let limits = limits(settings).await?;
    let feed_has_own_login = match feed {
        Some(feed) => self::limits(feed).await?.login != limits.login,
        None => false,
    };
    let all = demand.lookups + demand.feed;
    let of_login = if feed_has_own_login { demand.lookups } else { all };
    let ConnectionLimits { login, database, .. } = &limits;
    let Some((whose, limit, wanted)) = [
        (format!("login {login}"), limits.of_login, of_login),
        (format!("database {database}"), limits.of_database, all),
        ("server, for logins that are no superusers,".to_owned(), limits.of_server, all),
    ]
    .into_iter()
    .find(|(_, limit, wanted)| *limit >= 0 && i64::from(*limit) < i64::from(*wanted)) else {
        return Ok(None);
    };
    if is_pooled(settings).await? {
        return Ok(None);
    }
    Ok(Some(format!(
        "the {whose} may have {limit} connections at a time, and one replica may need {wanted}: \
         postgres.max_connections ({}) and {} more. A lookup that gets none is answered with 503. \
         Raise the limit, for all replicas together, or lower postgres.max_connections",
        settings.max_connections,
        wanted - settings.max_connections,
    )))
}

async fn limits(settings: &PostgresSettings) -> Result<ConnectionLimits, ConnectError> {
    let mut connection = connect_one(settings).await?;
    let read = async {
        let row: PgRow = connection.fetch_one(sqlx::raw_sql(LIMITS)).await?;
        Ok(ConnectionLimits {
            login: row.try_get("login")?,
            of_login: row.try_get("of_login")?,
            database: row.try_get("database")?,
            of_database: row.try_get("of_database")?,
            of_server: row.try_get("of_server")?,
        })
    };
    let read: Result<_, sqlx::Error> = read.await;
    let read = read.map_err(|error| connection.unreachable(&error));
    let _ = connection.close().await;
    read
}
