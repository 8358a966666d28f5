//! Asks Postgres one statement at a time.
//!
//! Statements are sent by the simple query protocol, with their parameters as literals: one round
//! trip and no state on the connection, so a pooler in transaction mode may sit in between. What
//! becomes a literal is by type a uuid, a slug or a snapshot, whose alphabets hold no quote.
//!
//! A message is its own transaction, whose `now()` was taken before its snapshots and after the
//! message was sent. So `now()` is a moment at which the answer was true, and it bounds Postgres's
//! clock (`clock.rs`).

use std::{sync::Arc, time::Duration};

use deadpool::managed::{self, Object, Pool, PoolError, RecycleError};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, postgres::PgRow};
use tokio::time::{sleep, timeout};

use super::{ConnectError, Connection, Counters, PostgresSettings, connect_one, installation};
use crate::{
    clock::{self, Clock, Moment, Tick},
    freshness::{KnownChanges, Lineage, OtherInstallation, RefusedStamp, Stamp, SupersededServer},
    installation::Installation,
};

/// The columns that every statement selects first: Postgres's time in microseconds, whether the
/// server is a standby, its installation, timeline and life, and the statement's snapshot. A
/// standby has no current position that names a timeline. Only one mark of a crash can be read by
/// every login: a crash resets the statistics, which survive a normal restart.
///
/// Whether the server is a standby is asked twice, the first time in a separate statement. If a
/// standby is promoted while a statement runs, the statement has the snapshot of a standby, to
/// which running transactions look finished, but finds that the server is no longer in recovery.
/// `SHOW` has no snapshot and runs before that one.
macro_rules! select {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "SHOW in_hot_standby;
             SELECT (extract(epoch FROM now()) * 1000000)::int8 AS now,
                    pg_is_in_recovery() AS standby,
                    ",
            $crate::postgres::identity_column!(),
            ",
                    CASE WHEN pg_is_in_recovery() THEN 0 ELSE
                        ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))
                            ::bit(32)::int8 END AS timeline,
                    coalesce(extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())
                        * 1000000, 0)::int8 AS life,
                    pg_current_snapshot()::text AS snapshot, ",
            $($rest),+
        )
    };
}
pub(crate) use select;

/// How soon to look again for a connection, if Postgres refuses the login.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Asks Postgres, through a pool of connections. Clones share it.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool<Connector>,
    query_timeout: Duration,
    clock: Arc<Clock>,
    changes: Arc<KnownChanges>,
    counters: Counters,
    /// The setting that holds the address, for messages.
    key: &'static str,
}

/// The answer to one statement.
pub(crate) struct Reply {
    /// At least one row.
    pub(crate) rows: Vec<PgRow>,
    /// The answer was true at a moment not before this tick.
    pub(crate) as_of: Tick,
    /// That moment in Postgres's clock.
    pub(crate) verified: Moment,
    /// The server that answered, and the snapshot of the statement.
    pub(crate) stamp: Arc<Stamp>,
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error("{}", without_the_pool(.0))]
    Connect(#[from] PoolError<ConnectError>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// A standby may lag by any time, whatever its clock says.
    #[error("the server is a standby")]
    Standby,
    #[error(transparent)]
    Superseded(SupersededServer),
    /// The address leads to another database than at the start.
    #[error(
        "{key}: {other}; its answer is not used. Point {key} at the database to which it led when \
         this replica started, or restart the replica if the other database is intended"
    )]
    OtherInstallation { key: &'static str, other: OtherInstallation },
}

/// Says why there is no connection. The pool's own words add nothing.
fn without_the_pool(error: &PoolError<ConnectError>) -> String {
    match error {
        PoolError::Backend(error) => error.to_string(),
        other => other.to_string(),
    }
}

impl Postgres {
    /// Connects at the first question. `changes` learns which server answers, and refuses servers
    /// that are no longer the primary.
    pub(crate) fn new(
        settings: &PostgresSettings,
        clock: Arc<Clock>,
        changes: Arc<KnownChanges>,
        counters: Counters,
    ) -> Self {
        let pool = Pool::builder(Connector(settings.clone()))
            .max_size(settings.max_connections as usize)
            .build();
        #[expect(clippy::expect_used, reason = "only timeouts, of which it has none, can fail")]
        let pool = pool.expect("a pool without timeouts");
        Self {
            pool,
            query_timeout: settings.query_timeout,
            clock,
            changes,
            counters,
            key: settings.key,
        }
    }

    /// Sends a statement made with [`select`], and waits for its answer for a limited time.
    ///
    /// After a restart of Postgres every pooled connection is dead, and after a failover each may
    /// lead to the old primary. So after an error of the connection, not of the statement, the next
    /// connection is tried.
    pub(crate) async fn ask(&self, sql: String) -> Result<Reply, AskError> {
        let sql = self.bounded(&sql);
        let attempts = async {
            for _ in 0..self.pool.status().size {
                match self.attempt(sql.clone()).await {
                    Err(error) if of_the_connection(&error) => {}
                    outcome => return outcome,
                }
            }
            self.attempt(sql).await
        };
        let outcome = timeout(self.query_timeout, attempts).await;
        let outcome = outcome.unwrap_or_else(|_| {
            // If the network path was lost, the other connections of the pool are dead as well, and
            // each would cost a timeout.
            self.pool.retain(|_, _| false);
            Err(AskError::Timeout(self.query_timeout))
        });
        outcome.inspect_err(|_| {
            self.counters.failures.inc();
        })
    }

    async fn attempt(&self, sql: String) -> Result<Reply, AskError> {
        let mut checkout = self.checkout().await?;
        let connection = checkout.connection()?;
        self.counters.queries.inc();
        let sent = clock::now();
        let mut rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        let shown = rows.drain(..1.min(rows.len())).next().ok_or(sqlx::Error::RowNotFound)?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        if shown.try_get::<&str, _>("in_hot_standby")? != "off" || first.try_get("standby")? {
            return Err(AskError::Standby);
        }
        let decode = |error| sqlx::Error::Decode(Box::new(error));
        let verified = Moment(first.try_get("now")?);
        let timeline: i64 = first.try_get("timeline")?;
        let stamp = Stamp {
            lineage: Lineage {
                installation: installation(first)?,
                timeline: timeline as u32,
                life: first.try_get("life")?,
            },
            snapshot: first.try_get::<&str, _>("snapshot")?.parse().map_err(decode)?,
        };
        self.changes.meet(&stamp, sent).map_err(|refused| self.refused(refused))?;
        // Only here: another connection may lead to the primary, but this one never will.
        checkout.keep();
        self.clock.observe(sent, verified);
        Ok(Reply { rows, as_of: sent, verified, stamp: Arc::new(stamp) })
    }

    /// Takes a connection from the pool, or makes one. While Postgres refuses the login, as it may
    /// while a password is replaced, a connection that is in use will do as well once it is free, and
    /// the right password may be in the file soon. Postgres is not asked each time.
    async fn checkout(&self) -> Result<Checkout, AskError> {
        // Not for the whole time: after a timeout, the other connections would be given up.
        let until = clock::now().after(self.query_timeout * 3 / 4);
        loop {
            match self.pool.get().await {
                Err(PoolError::Backend(error)) if error.login_refused && clock::now() < until => {
                    sleep(LOOK_AGAIN).await;
                }
                outcome => return Ok(Checkout(Some(outcome?))),
            }
        }
    }

    fn refused(&self, refused: RefusedStamp) -> AskError {
        match refused {
            RefusedStamp::Superseded(superseded) => AskError::Superseded(superseded),
            RefusedStamp::OtherInstallation(other) => {
                self.counters.other_installation.inc();
                AskError::OtherInstallation { key: self.key, other }
            }
        }
    }

    /// Limits the time of a statement on the server also. Otherwise it would continue to wait there
    /// for a lock of another session, on a connection that others need, after its caller has given
    /// up. The limit is in the same message: it costs no round trip, and ends with the transaction.
    fn bounded(&self, sql: &str) -> String {
        format!("SET LOCAL statement_timeout = {}; {sql}", self.query_timeout.as_millis().max(1))
    }

    /// Runs a statement whose answer is not needed, and which may fail, for example on a read-only
    /// server.
    pub(crate) async fn run(&self, what: &str, sql: String) {
        if let Err(error) = self.fetch(sql).await {
            tracing::debug!(%error, "{what}");
        }
    }

    /// Returns the answer to a statement on which no decision depends.
    pub(crate) async fn fetch(&self, sql: String) -> Result<Vec<PgRow>, AskError> {
        let sql = self.bounded(&sql);
        let fetch = async {
            let mut checkout = self.checkout().await?;
            let rows = checkout.connection()?.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            checkout.keep();
            Ok(rows)
        };
        let outcome = timeout(self.query_timeout, fetch).await;
        outcome.unwrap_or(Err(AskError::Timeout(self.query_timeout)))
    }

    /// Returns one row of such a statement, which must name its installation.
    ///
    /// # Errors
    ///
    /// If it names an installation other than this replica's.
    pub(crate) async fn fetch_here(&self, sql: String) -> Result<PgRow, AskError> {
        let row = self.fetch(sql).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        let expected: Installation = self.changes.installation();
        let found = installation(&row)?;
        if found != expected {
            return Err(self.refused(OtherInstallation { expected, found }.into()));
        }
        Ok(row)
    }
}

/// Whether another connection may succeed.
fn of_the_connection(error: &AskError) -> bool {
    match error {
        AskError::Sqlx(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
        // Operator intervention: the server was stopped, has crashed, or is starting.
        AskError::Sqlx(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code.starts_with("57P"))
        }
        AskError::Standby | AskError::Superseded(_) | AskError::OtherInstallation { .. } => true,
        AskError::Sqlx(_) | AskError::Connect(_) | AskError::Timeout(_) => false,
    }
}

/// Makes connections. sqlx's own pool pings a connection each time that it is returned: a second
/// round trip for each lookup, which never ends if the network path is lost, and occupies the
/// connection meanwhile.
struct Connector(PostgresSettings);

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        connect_one(&self.0).await
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &managed::Metrics,
    ) -> managed::RecycleResult<ConnectError> {
        // A dead connection is found by using it.
        match connection.is_current() {
            true => Ok(()),
            false => Err(RecycleError::message("another server or login replaces it")),
        }
    }
}

/// A connection in use. It returns to the pool only after [`Checkout::keep`]. A connection whose
/// statement was cut short, by an error or because its caller gave up, may still deliver the rest
/// of an old answer.
struct Checkout(Option<Object<Connector>>);

impl Checkout {
    fn connection(&mut self) -> Result<&mut PgConnection, AskError> {
        Ok(self.0.as_mut().ok_or(sqlx::Error::PoolClosed)?)
    }

    fn keep(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}
