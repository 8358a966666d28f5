//! Listens for the notifications of changes, and tries whether they arrive.
//!
//! A connection pooler in transaction mode accepts `LISTEN`, and loses the notifications: they reach
//! the pooler's own connection, which belongs to another client by then. The start of a replica looks
//! for such a pooler, and an address may lead through one later. So the listener sends itself a
//! notification now and then, on a channel of its own.
//!
//! That is tried without a time limit, so a slow server is not mistaken for a pooler: Postgres signals
//! a session that listens before it answers the statement that notifies, and a session delivers what
//! it was signalled before it ends its next statement. So once another connection has notified, one
//! round trip on the connection that listens brings the notification, however long it takes. And a
//! connection that talks to another session than before goes through a pooler.

use std::{sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Executor as _, Row as _,
    postgres::{PgListener, PgRow},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{POOLED_FEED, reader::jittered};
use crate::{
    clock,
    postgres::{self, AskError, Postgres, PostgresSettings},
    telemetry::Metrics,
    throttle::Throttle,
};

/// The pause after an error, also of the attempt to notify, and after a connection was lost.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const ANEW_AFTER: Duration = Duration::from_millis(100);
/// How long a command waits for the two connections that the attempt needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a replica tries whether notifications arrive.
const TRY_EVERY: Duration = Duration::from_secs(60);
/// How many notifications must arrive. A pooler may deliver one by chance, to the client that its
/// connection is lent to at that moment.
const ROUNDS: usize = 3;
/// Interval between two reports that connections lead to different servers.
const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);
/// How long a replica leaves a pooler alone: `LISTEN` stays on a connection that others share.
const POOLED_FOR: Duration = Duration::from_secs(5 * 60);

/// Listens for changes, for one replica.
pub(super) struct ChangeListener {
    settings: PostgresSettings,
    /// Sends the notifications that this listener waits for, at the same address.
    postgres: Postgres,
    /// The channel on which changes are announced.
    channel: String,
    /// The channel on which nothing but this listener notifies.
    own: String,
    wake: Arc<Notify>,
    metrics: Metrics,
    reports: Throttle,
}

/// How the attempt to listen ended.
enum Ended {
    /// The connection was lost.
    Lost,
    /// It leads to another server than the connections that read the feed.
    OtherServer,
    /// A notification did not arrive, and nothing but a pooler explains it.
    Pooled,
}

/// Whether a notification has arrived.
enum Delivery {
    Arrived,
    /// The server cannot notify now, as during a failover, or the pool had a connection that is
    /// lost.
    NotSent,
    /// Another server has notified than the one that this connection leads to.
    OtherServer,
    Missing,
}

impl ChangeListener {
    pub(super) fn new(
        settings: PostgresSettings,
        postgres: Postgres,
        channel: String,
        wake: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        let own = format!("patgate_listener_{}", Uuid::new_v4().simple());
        let reports = Throttle::default();
        Self { settings, postgres, channel, own, wake, metrics, reports }
    }

    /// Wakes the reader of the feed at each notification. An error here costs time only, until the
    /// next poll.
    pub(super) async fn run(self) {
        loop {
            let mut generations = self.settings.address.generations();
            let listened = tokio::select! {
                listened = self.listen() => listened,
                // Another server is the primary: nothing is announced on this one any more.
                _ = generations.changed() => Ok(Ended::Lost),
            };
            let pause = match listened {
                Ok(Ended::Lost) => jittered(ANEW_AFTER),
                Ok(Ended::OtherServer) => {
                    // One of the two is left behind, as after a failover behind a proxy that keeps
                    // the connections that are open. New connections for the next poll reach the
                    // same server as this one did, and the freshness rule recognizes the later one.
                    self.settings.address.replace_connections();
                    self.wake.notify_one();
                    if self.reports.passes(clock::now(), REPORT_EVERY) {
                        tracing::warn!(
                            setting = self.settings.key,
                            "a new connection leads to another server than those that are open, \
                             which are given up"
                        );
                    }
                    jittered(AGAIN_AFTER)
                }
                Ok(Ended::Pooled) => {
                    self.metrics.feed_pooled(true);
                    tracing::warn!("{POOLED_FEED}");
                    POOLED_FOR
                }
                Err(error) => {
                    tracing::debug!(%error, "listening for changes");
                    jittered(AGAIN_AFTER)
                }
            };
            sleep(pause).await;
        }
    }

    async fn listen(&self) -> Result<Ended, sqlx::Error> {
        let pool = postgres::connect(&self.settings).await.map_err(sqlx::Error::config)?;
        let mut listener = PgListener::connect_with(&pool).await?;
        // A lost connection is replaced here, where what it may have missed is known.
        listener.eager_reconnect(false);
        listener.listen_all([&*self.channel, &*self.own]).await?;
        let session = Session::of(&mut listener).await?;
        loop {
            // There may have been notifications while no connection listened.
            self.wake.notify_one();
            let next_try = match self.try_delivery(&mut listener, &session).await? {
                Delivery::Arrived => {
                    tracing::debug!("a notification arrives on the connection that listens");
                    self.metrics.feed_pooled(false);
                    TRY_EVERY
                }
                Delivery::NotSent => AGAIN_AFTER,
                Delivery::OtherServer => return Ok(Ended::OtherServer),
                Delivery::Missing => return Ok(Ended::Pooled),
            };
            let tried = clock::now();
            loop {
                let left = next_try.saturating_sub(clock::now().since(tried));
                match timeout(left, listener.try_recv()).await {
                    Ok(Ok(Some(notification))) if notification.channel() == self.channel => {
                        self.wake.notify_one();
                    }
                    Ok(Ok(Some(_))) => {}
                    Ok(Ok(None)) => return Ok(Ended::Lost),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => break,
                }
            }
        }
    }

    async fn try_delivery(
        &self,
        listener: &mut PgListener,
        session: &Session,
    ) -> Result<Delivery, sqlx::Error> {
        for _ in 0..ROUNDS {
            let word = Uuid::new_v4().simple().to_string();
            let from = match self.postgres.fetch(notify(&self.own, &word)).await {
                Ok(rows) => rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?,
                Err(AskError::Sqlx(error)) if is_stray_notification(&error) => {
                    return Ok(Delivery::Missing);
                }
                Err(_) => return Ok(Delivery::NotSent),
            };
            // A notification of a change is as good as the poll that follows this.
            let delivery = delivered(listener, session, &self.own, &word, &from).await?;
            self.wake.notify_one();
            if !matches!(delivery, Delivery::Arrived) {
                return Ok(delivery);
            }
        }
        Ok(Delivery::Arrived)
    }
}

/// Whether a notification interrupted a statement on a connection that does not listen: its session
/// is shared with one that does.
fn is_stray_notification(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Protocol(message) if message.contains("NotificationResponse"))
}

/// Returns the statement that notifies, and says which server does.
fn notify(channel: &str, word: &str) -> String {
    format!("SELECT {SERVER} FROM pg_notify('{channel}', '{word}')")
}

/// Makes one round trip on the connection that listens, after `from` was answered to a notification.
async fn delivered(
    listener: &mut PgListener,
    session: &Session,
    channel: &str,
    word: &str,
    from: &PgRow,
) -> Result<Delivery, sqlx::Error> {
    let from: String = from.try_get("server")?;
    let now = Session::of(listener).await?;
    let mut arrived = false;
    while let Some(notification) = listener.next_buffered() {
        arrived |= notification.channel() == channel && notification.payload() == word;
    }
    Ok(match arrived {
        // A direct connection never leads to another session.
        _ if now != *session => Delivery::Missing,
        true => Delivery::Arrived,
        false if from != now.server => Delivery::OtherServer,
        false => Delivery::Missing,
    })
}

/// The session that answers on a connection, and its server.
#[derive(PartialEq)]
struct Session {
    server: String,
    pid: i32,
}

impl Session {
    async fn of(listener: &mut PgListener) -> Result<Self, sqlx::Error> {
        let sql = format!("SELECT pg_backend_pid() AS pid, {SERVER}");
        let row = listener.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        Ok(Self { server: row.try_get("server")?, pid: row.try_get("pid")? })
    }
}

/// Returns whether notifications arrive at this address, as `config check --connect` asks.
///
/// # Errors
///
/// If Postgres cannot be reached, cannot notify, or has no second connection.
pub(crate) async fn notifications_arrive(settings: &PostgresSettings) -> Result<bool, sqlx::Error> {
    timeout(PATIENCE, try_notification(settings)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn try_notification(settings: &PostgresSettings) -> Result<bool, sqlx::Error> {
    let channel = format!("patgate_listener_{}", Uuid::new_v4().simple());
    let pool = postgres::connect(settings).await.map_err(sqlx::Error::config)?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(&channel).await?;
    let session = Session::of(&mut listener).await?;
    let mut other = postgres::connect_one(settings).await.map_err(sqlx::Error::config)?;
    for round in 0..ROUNDS {
        let word = round.to_string();
        let notify = sqlx::raw_sql(AssertSqlSafe(notify(&channel, &word)));
        let from = match other.fetch_one(notify).await {
            Err(error) if is_stray_notification(&error) => return Ok(false),
            notified => notified?,
        };
        let delivery = delivered(&mut listener, &session, &channel, &word, &from).await?;
        if !matches!(delivery, Delivery::Arrived) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Identifies the server that answers, and its present run.
const SERVER: &str = "pg_postmaster_start_time()::text || ' ' || patgate.identity() AS server";
