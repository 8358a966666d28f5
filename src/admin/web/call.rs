//! Calls the functions of the database.

use std::{io, time::Duration};

use serde::de::DeserializeOwned;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction, postgres::PgArguments,
    query::Query, types::Json,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Caller, Error, Origin, SelfService};
use crate::{
    admin::{
        Outcome,
        store::{Committed, OutdatedCopies, notify},
    },
    domain::DomainRef,
    token::TokenId,
};

/// How much longer than Postgres works on a call this waits for the answer.
const GRACE: Duration = Duration::from_secs(5);
/// How often a call is made if Postgres ends it to resolve a deadlock.
const ATTEMPTS: u32 = 3;
const DEADLOCK: &str = "40P01";

/// A statement with its arguments.
pub(super) type Call = Query<'static, Postgres, PgArguments>;

/// What a function that changes something returns.
#[derive(serde::Deserialize)]
struct Changed<T> {
    value: T,
    xid: String,
    tokens: Vec<Uuid>,
    domains: Vec<String>,
    backends: Vec<String>,
}

/// A statement without a name. See [`crate::postgres::connect`].
pub(super) fn call(text: &'static str) -> Call {
    sqlx::query(text).persistent(false)
}

/// A statement whose first argument is the proof of the caller's session.
pub(super) fn call_by(caller: &Caller, text: &'static str) -> Call {
    call(text).bind(caller.session.proof())
}

/// A statement whose first two arguments are where the request comes from.
pub(super) fn call_from(origin: &Origin, text: &'static str) -> Call {
    from(call(text), origin)
}

/// A statement whose first three arguments are the proof, and where the request comes from.
pub(super) fn change_by(caller: &Caller, text: &'static str) -> Call {
    from(call_by(caller, text), &caller.origin)
}

fn from(call: Call, origin: &Origin) -> Call {
    call.bind(origin.address.map(|address| address.to_string())).bind(origin.request_id.clone())
}

/// Begins a transaction in which Postgres ends each statement after `limit`, and earlier if it waits for
/// a lock. A pooler may give the next transaction another connection, so the limits end with this one.
/// The functions have a time limit for locks of their own, for whoever calls them otherwise.
///
/// The transaction must be committed: without an answer to give, nothing shall have been changed.
pub(super) async fn begin(
    connection: &mut PgConnection,
    limit: Duration,
) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let limit = limit.as_millis().max(2);
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
         SET LOCAL statement_timeout = {limit};
         SET LOCAL lock_timeout = {};
         SET LOCAL idle_in_transaction_session_timeout = {limit}",
        limit / 2
    );
    connection.begin_with(AssertSqlSafe(begin)).await
}

impl SelfService {
    /// Calls a function that returns JSON.
    pub(super) async fn ask<T>(&self, make: impl Fn() -> Call) -> Result<T, Error>
    where
        T: DeserializeOwned + Send + Unpin + 'static,
    {
        let rows = self.rows(make).await?;
        let Json(value) = sqlx::Row::try_get(&rows, 0)?;
        Ok(value)
    }

    /// Calls a function that returns nothing.
    pub(super) async fn perform(&self, make: impl Fn() -> Call) -> Result<(), Error> {
        self.rows(make).await.map(drop)
    }

    /// Calls a function that returns one value.
    pub(super) async fn value<T>(&self, make: impl Fn() -> Call) -> Result<T, Error>
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        Ok(sqlx::Row::try_get(&self.rows(make).await?, 0)?)
    }

    /// Calls a function that changes something, wakes the replicas, and deletes the cached copies that
    /// it has made outdated.
    pub(super) async fn change<T>(&self, make: impl Fn() -> Call) -> Result<Outcome<T>, Error>
    where
        T: DeserializeOwned + Send + Unpin + 'static,
    {
        let changed: Changed<T> = self.ask(make).await?;
        notify::send_for_web(&self.pool).await;
        let outdated = OutdatedCopies {
            tokens: changed.tokens.into_iter().map(TokenId).collect(),
            domains: changed.domains.iter().filter_map(|text| DomainRef::parse(text)).collect(),
            backends: changed.backends.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let committed = Committed { value: changed.value, outdated, xid: Some(changed.xid) };
        Ok(self.cached_copies.complete(committed).await)
    }

    async fn rows(&self, make: impl Fn() -> Call) -> Result<sqlx::postgres::PgRow, Error> {
        for _ in 1..ATTEMPTS {
            match self.once(make()).await {
                Err(error) if is_deadlock(&error) => {}
                outcome => return Ok(outcome?),
            }
        }
        Ok(self.once(make()).await?)
    }

    async fn once(&self, call: Call) -> Result<sqlx::postgres::PgRow, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let answer = async {
            let mut transaction = begin(&mut connection, self.query_timeout).await?;
            let row = call.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(row)
        };
        match timeout(self.query_timeout.saturating_add(GRACE), answer).await {
            Ok(answer) => answer,
            Err(_) => {
                // The answer may never come, and the pool would wait for it.
                drop(connection.detach());
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into())
            }
        }
    }
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|refusal| refusal.code().as_deref() == Some(DEADLOCK))
}
