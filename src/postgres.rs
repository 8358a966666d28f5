//! Asks Postgres one statement at a time.
//!
//! Statements are sent by the simple query protocol, with their parameters as literals: one round
//! trip and no state on the connection, so a pooler in transaction mode may sit in between. What
//! becomes a literal is by type a uuid, a slug or a snapshot, whose alphabets hold no quote.
//!
//! A message is its own transaction, whose `now()` was taken before its snapshots and after we sent
//! it. So `now()` is a moment at which the answer was true, and it bounds
//! Postgres's clock (`clock.rs`).

use std::{sync::Arc, time::Duration};

use deadpool::managed::{self, Object, Pool, PoolError};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, postgres::PgRow};
use tokio::time::timeout;

use crate::{
    clock::{Clock, Moment, Tick},
    config,
    feed::{Elsewhere, Feed, Server, Stamp, Superseded, Unheeded, Unrecorded},
    installation::Installation,
    schema::{self, SchemaError},
    telemetry::Metrics,
};

/// What every statement selects first: Postgres's time in microseconds, whether the server is a
/// standby, which installation, timeline and life it is, and what the statement sees. A standby has no
/// current position to name a timeline by. A crash leaves no mark that everybody may read but this:
/// it resets the statistics, which survive a restart in good order.
///
/// A standby is asked twice what it is, first on its own. A statement that is under way when it is
/// promoted has the snapshot of a standby, which takes what was running for ended, but finds by the
/// time it looks that it is not in recovery. `SHOW` has no snapshot and comes before that one.
macro_rules! select {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "SHOW in_hot_standby;
             SELECT (extract(epoch FROM now()) * 1000000)::int8 AS now,
                    pg_is_in_recovery() AS standby,
                    ",
            $crate::installation::identity_column!(),
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

/// A pool, and how long a statement may take.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool<Connector>,
    query_timeout: Duration,
    clock: Arc<Clock>,
    feed: Arc<Feed>,
    metrics: Metrics,
    /// The setting that leads there.
    key: &'static str,
}

/// The answer to one statement.
pub(crate) struct Reply {
    /// At least one.
    pub(crate) rows: Vec<PgRow>,
    /// It was true at a moment not before this tick.
    pub(crate) as_of: Tick,
    /// The same in Postgres's clock.
    pub(crate) verified: Moment,
    pub(crate) stamp: Arc<Stamp>,
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error(transparent)]
    Connect(#[from] PoolError<SchemaError>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It may lag behind by any time, whatever its clock says.
    #[error("the server is a standby")]
    Standby,
    #[error(transparent)]
    Superseded(Superseded),
    /// The address leads somewhere else than at the start.
    #[error(
        "{key}: {elsewhere}; it is not used. Let {key} lead to the database that it led to when \
         this replica started, or restart the replica if the other one is meant"
    )]
    Elsewhere { key: &'static str, elsewhere: Elsewhere },
    /// Of a poll: it would not tell of every change.
    #[error(transparent)]
    Unrecorded(#[from] Unrecorded),
}

impl Postgres {
    /// Connects when first asked.
    pub(crate) fn new(
        settings: &config::Postgres,
        clock: Arc<Clock>,
        feed: Arc<Feed>,
        metrics: Metrics,
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
            feed,
            metrics,
            key: settings.key,
        }
    }

    /// Sends a statement made with [`select`], and waits a bounded time for its answer.
    ///
    /// After a restart of Postgres every pooled connection is dead, and after a fail-over every
    /// one may lead to the old primary; so an error of the connection, not of the statement, is
    /// tried on the next one.
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
            // When the way there was lost without a word, the connections that wait in the pool
            // are dead as well, and would each cost a time-out.
            self.pool.retain(|_, _| false);
            Err(AskError::Timeout(self.query_timeout))
        });
        outcome.inspect_err(|_| self.metrics.failure("postgres"))
    }

    async fn attempt(&self, sql: String) -> Result<Reply, AskError> {
        let mut lease = Lease(Some(self.pool.get().await?));
        let connection = lease.connection()?;
        self.metrics.command("postgres");
        let sent = Tick::now();
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
            server: Server {
                installation: Installation::of_row(first)?,
                timeline: timeline as u32,
                life: first.try_get("life")?,
            },
            snapshot: first.try_get::<&str, _>("snapshot")?.parse().map_err(decode)?,
        };
        self.feed.meet(&stamp, sent).map_err(|unheeded| self.unheeded(unheeded))?;
        // Not before: the next connection may lead to the primary, this one never will.
        lease.keep();
        self.clock.observe(sent, verified);
        Ok(Reply { rows, as_of: sent, verified, stamp: Arc::new(stamp) })
    }

    fn unheeded(&self, unheeded: Unheeded) -> AskError {
        match unheeded {
            Unheeded::Superseded(superseded) => AskError::Superseded(superseded),
            Unheeded::Elsewhere(elsewhere) => {
                self.metrics.led_elsewhere(self.key);
                AskError::Elsewhere { key: self.key, elsewhere }
            }
        }
    }

    /// The same, not to run for longer on the server, either. There it would go on waiting for
    /// somebody's lock of a table when nobody waits for it any more, each on a connection that
    /// others need. In the same message: it costs no round trip, and is gone with the transaction.
    fn bounded(&self, sql: &str) -> String {
        format!("SET LOCAL statement_timeout = {}; {sql}", self.query_timeout.as_millis().max(1))
    }

    /// Runs a statement of which nobody needs the answer. That it fails, as on a read-only server,
    /// does no harm.
    pub(crate) async fn run(&self, what: &str, sql: String) {
        if let Err(error) = self.fetch(sql).await {
            tracing::debug!(%error, "{what}");
        }
    }

    /// The answer to a statement on which no decision rests.
    pub(crate) async fn fetch(&self, sql: String) -> Result<Vec<PgRow>, AskError> {
        let sql = self.bounded(&sql);
        let fetch = async {
            let mut lease = Lease(Some(self.pool.get().await?));
            let rows = lease.connection()?.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            lease.keep();
            Ok(rows)
        };
        let outcome = timeout(self.query_timeout, fetch).await;
        outcome.unwrap_or(Err(AskError::Timeout(self.query_timeout)))
    }

    /// The same, of one row that names its installation, which must be ours.
    pub(crate) async fn fetch_here(&self, sql: String) -> Result<PgRow, AskError> {
        let row = self.fetch(sql).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        let (expected, found) = (self.feed.installation(), Installation::of_row(&row)?);
        if found != expected {
            return Err(self.unheeded(Unheeded::Elsewhere(Elsewhere { expected, found })));
        }
        Ok(row)
    }
}

/// Whether another connection may do better.
fn of_the_connection(error: &AskError) -> bool {
    match error {
        AskError::Sqlx(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
        // Operator intervention: the server was stopped, has crashed, or is starting.
        AskError::Sqlx(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code.starts_with("57P"))
        }
        AskError::Standby | AskError::Superseded(_) | AskError::Elsewhere { .. } => true,
        AskError::Sqlx(_)
        | AskError::Connect(_)
        | AskError::Timeout(_)
        | AskError::Unrecorded(_) => false,
    }
}

/// Makes connections. sqlx's own pool pings one each time that it is given back: a second round
/// trip for each look-up, which never ends where the way there was lost without a word, and then
/// holds a place in the pool for as long.
struct Connector(config::Postgres);

impl managed::Manager for Connector {
    type Type = PgConnection;
    type Error = SchemaError;

    async fn create(&self) -> Result<PgConnection, SchemaError> {
        schema::connect_one(&self.0).await
    }

    async fn recycle(
        &self,
        _: &mut PgConnection,
        _: &managed::Metrics,
    ) -> managed::RecycleResult<SchemaError> {
        // A dead connection is found by using it.
        Ok(())
    }
}

/// A connection that goes back to the pool only when told so: one whose statement was cut short,
/// by an error or because nobody waits any longer, may still deliver the rest of an old answer.
struct Lease(Option<Object<Connector>>);

impl Lease {
    fn connection(&mut self) -> Result<&mut PgConnection, AskError> {
        Ok(self.0.as_mut().ok_or(sqlx::Error::PoolClosed)?)
    }

    fn keep(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}
