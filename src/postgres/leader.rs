//! Which of several replicas does something that one shall do: the one that holds an advisory lock in
//! Postgres. One relays the feed; one keeps the routes of a gateway.
//!
//! The lock belongs to a session, and a connection pooler in transaction mode lends one session to
//! many clients. Through such a pooler, a second replica could take a lock that its session has
//! already, and the first one would not notice that the session is gone. So a replica takes the lock
//! only in a session that has no advisory lock yet, and holds it only as long as it still talks to
//! that session and the lock is there. With a pooler, one replica leads for a moment, or none does.
//!
//! No two replicas have the lock. A leader whose session has ended, through a pooler or not, learns
//! of it when it next asks, and another may lead before that. This does no harm (`feed/relay.rs`,
//! `routes/cluster.rs`).

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::time::timeout;

use super::{Connection, PostgresSettings, connect_one};
use crate::installation::Installation;

/// How long taking the lock may take, or finding out that it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the holder of a lock does. It is part of statements, so its alphabet has no quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duty(String);

impl Duty {
    /// Relaying the change feed.
    pub(crate) fn relay() -> Self {
        Self("relay".to_owned())
    }

    /// Keeping the routes of one instance in one namespace, which has this unique id.
    pub(crate) fn routes(instance: &str, namespace: &str) -> Self {
        let harmless = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        let part = |text: &str| text.chars().filter(harmless).collect::<String>();
        Self(format!("routes {}/{}", part(instance), part(namespace)))
    }
}

/// Takes the lock. Postgres ends a session, and with it the lock, if it is silent for five seconds:
/// the holder sends something every second, and one that is frozen or cut off would otherwise keep
/// the lock for hours. In another installation the lock is not taken. A new session has no lock, so
/// one that has some is shared.
fn take_lock(installation: Installation, duty: &Duty) -> String {
    let lock = lock_of(installation, duty);
    format!(
        "SET idle_session_timeout = '5s';
         SELECT session.shared, pg_backend_pid() AS pid,
             CASE WHEN patgate.identity() = '{installation}' AND NOT session.shared THEN
             CASE WHEN pg_try_advisory_lock({lock})
             THEN pg_current_xact_id()::text END END AS epoch
         FROM (SELECT EXISTS (
             SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
         ) AS shared) AS session"
    )
}

/// Asks whether this is the session that took the lock, and whether it has it.
fn see_lock(installation: Installation, duty: &Duty, pid: i32) -> String {
    let lock = lock_of(installation, duty);
    format!(
        "SELECT pg_backend_pid() = {pid} AS same, EXISTS (
             SELECT FROM pg_locks
             WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted AND objsubid = 1
                 AND (classid::int8 << 32) | objid::int8 = {lock}
         ) AS held"
    )
}

fn lock_of(installation: Installation, duty: &Duty) -> String {
    format!("hashtextextended('patgate {} {}', 0)", duty.0, installation.id())
}

/// The outcome of an offer to lead.
pub(crate) enum Offer {
    Leads(Box<Leadership>),
    /// Another replica has the lock, or that cannot be known.
    Declined,
    /// The session is shared with other clients, so it can hold no lock for this one.
    Pooled,
}

/// Whether a replica may go on leading.
pub(crate) enum Hold {
    Holds,
    Lost,
    /// The connection talks to another session now: a pooler has moved it.
    Pooled,
}

/// The lock. A connection of its own holds it until this is dropped.
pub(crate) struct Leadership {
    /// Higher than that of any leader before, on this server.
    pub(crate) epoch: u64,
    /// The session that has the lock.
    pid: i32,
    installation: Installation,
    duty: Duty,
    connection: Connection,
}

impl Leadership {
    /// Takes the lock, if no other replica has it.
    pub(crate) async fn take(
        settings: &PostgresSettings,
        installation: Installation,
        duty: &Duty,
    ) -> Offer {
        let take = async {
            let mut connection = connect_one(settings).await.map_err(sqlx::Error::config)?;
            let taken = connection
                .fetch_one(sqlx::raw_sql(AssertSqlSafe(take_lock(installation, duty))))
                .await?;
            let epoch: Option<String> = taken.try_get("epoch")?;
            if let Some(epoch) = epoch.and_then(|epoch| epoch.parse().ok()) {
                let pid = taken.try_get("pid")?;
                let duty = duty.clone();
                let leadership = Self { epoch, pid, installation, duty, connection };
                return Ok(Offer::Leads(Box::new(leadership)));
            }
            let shared: bool = taken.try_get("shared")?;
            connection.close().await?;
            Ok(if shared { Offer::Pooled } else { Offer::Declined })
        };
        match timeout(PATIENCE, take).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                let error: sqlx::Error = error;
                tracing::debug!(%error, duty = duty.0, "asking for the lock");
                Offer::Declined
            }
            Err(_) => Offer::Declined,
        }
    }

    /// Whether the session that took the lock still answers on this connection, and has the lock. A
    /// lock on a server that is no longer the primary holds nobody back.
    pub(crate) async fn holds(&mut self) -> Hold {
        if !self.connection.is_current() {
            return Hold::Lost;
        }
        let sql = see_lock(self.installation, &self.duty, self.pid);
        let seen = async {
            let row = self.connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            Ok::<(bool, bool), sqlx::Error>((row.try_get("same")?, row.try_get("held")?))
        };
        match timeout(PATIENCE, seen).await {
            Ok(Ok((true, true))) => Hold::Holds,
            Ok(Ok((false, _))) => Hold::Pooled,
            Ok(Ok((true, false)) | Err(_)) | Err(_) => Hold::Lost,
        }
    }
}
