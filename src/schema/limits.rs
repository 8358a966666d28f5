//! Whether Postgres permits as many connections as one replica may want.

use sqlx::{Connection as _, Executor as _, Row as _, postgres::PgRow};

use super::{SchemaError, Server, connect_one, is_pooled};
use crate::config::{self, Config};

/// The limits of the login, of the database and of the server for logins like it; -1 is none.
const LIMITS: &str = "
    SELECT quote_ident(r.rolname) AS login, r.rolconnlimit AS of_login,
           quote_ident(d.datname) AS database, d.datconnlimit AS of_database,
           current_setting('max_connections')::int4
               - current_setting('superuser_reserved_connections')::int4
               - coalesce(current_setting('reserved_connections', true)::int4, 0) AS of_server
    FROM pg_roles r, pg_database d
    WHERE r.rolname = session_user AND d.datname = current_database()";

struct Limits {
    login: String,
    of_login: i32,
    database: String,
    of_database: i32,
    of_server: i32,
}

/// What is too low, in words that say what to do; nothing where nothing is, or where a pooler stands
/// before Postgres, whose limits are its own.
///
/// # Errors
///
/// When Postgres cannot be reached with these settings.
pub(crate) async fn shortage(config: &Config) -> Result<Option<String>, SchemaError> {
    let (lookups, feed) = wanted(config);
    let limits = limits(&config.postgres).await?;
    let apart = match &config.feed_url {
        Some(_) => self::limits(&config.feed()).await?.login != limits.login,
        None => false,
    };
    let all = lookups + feed;
    let of_login = if apart { lookups } else { all };
    let Limits { login, database, .. } = &limits;
    let Some((whose, limit, wanted)) = [
        (format!("login {login}"), limits.of_login, of_login),
        (format!("database {database}"), limits.of_database, all),
        ("server, for logins that are no superusers,".to_owned(), limits.of_server, all),
    ]
    .into_iter()
    .find(|(_, limit, wanted)| *limit >= 0 && i64::from(*limit) < *wanted) else {
        return Ok(None);
    };
    if is_pooled(&config.postgres).await? {
        return Ok(None);
    }
    Ok(Some(format!(
        "the {whose} may have {limit} connections at a time, and one replica may want {wanted}: \
         postgres.max_connections ({}) and {} more. What finds none is answered with 503. Raise the \
         limit, for all replicas together, or lower postgres.max_connections",
        config.postgres.max_connections,
        wanted - i64::from(config.postgres.max_connections),
    )))
}

/// Connections at `postgres.url`, and beyond them at `feed.url`.
fn wanted(config: &Config) -> (i64, i64) {
    let notes_of_use = 1;
    let canary = i64::from(config.canary_every.is_some());
    let lookups = i64::from(config.postgres.max_connections) + notes_of_use + canary;
    let listener = i64::from(config.feed_url.is_some());
    (lookups, 1 + listener + i64::from(config.relay))
}

async fn limits(settings: &config::Postgres) -> Result<Limits, SchemaError> {
    let mut connection = connect_one(settings).await?;
    let read = async {
        let row: PgRow = connection.fetch_one(sqlx::raw_sql(LIMITS)).await?;
        Ok(Limits {
            login: row.try_get("login")?,
            of_login: row.try_get("of_login")?,
            database: row.try_get("database")?,
            of_database: row.try_get("of_database")?,
            of_server: row.try_get("of_server")?,
        })
    };
    let read = read.await;
    let _ = connection.close().await;
    match read {
        Ok(limits) => Ok(limits),
        Err(error) => Err(Server::of(settings.key, &settings.url)?.unreachable(&error)),
    }
}
