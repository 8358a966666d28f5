//! Why patgate did not start, or stopped.

use std::io;

use crate::{
    api::TableErrors,
    check::decision_log::LogOpenError,
    config::KeyRingFileError,
    feed::POOLED_RELAY,
    installation::Installation,
    postgres::{ConnectError, SchemaError},
    process::tasks::TaskEnded,
    redis_client::access::RedisAccessError,
    server::{BindError, tls::TlsError},
};

/// Why patgate did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key ring cannot be read.
    #[error(transparent)]
    KeyRing(#[from] KeyRingFileError),
    /// The API tables have errors.
    #[error("apis: {0}")]
    Tables(#[from] TableErrors),
    /// The decision log cannot be opened.
    #[error(transparent)]
    DecisionLog(#[from] LogOpenError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates of a listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database cannot be reached.
    #[error(transparent)]
    Postgres(#[from] ConnectError),
    /// The schema of the database is not one that this release works with.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The feed belongs to another database than the lookups, so it says nothing about them.
    #[error(
        "feed.url leads to another installation of patgate than postgres.url: {feed} there, \
         {postgres} here (system/database/installation). patgate would never read the changes made \
         here. Point both settings at the same database"
    )]
    FeedElsewhere {
        /// The installation that `feed.url` leads to.
        feed: Installation,
        /// The installation that `postgres.url` leads to.
        postgres: Installation,
    },
    /// The relay needs a lock that a session holds, and `feed.url` leads through a pooler in
    /// transaction mode.
    #[error("{POOLED_RELAY}")]
    PooledRelay,
    /// Postgres cannot be used at `feed.url`.
    #[error("feed.url: {0}")]
    NoFeed(SchemaError),
    /// The settings of Redis, or the files that they name, cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisAccessError),
    /// The connections to Redis cannot be kept together.
    #[error("connections to Redis: {0}")]
    RedisPool(String),
    /// The operating system delivers no signals.
    #[error("signals: {0}")]
    Signal(io::Error),
    /// The operating system has no thread, or no file descriptor, to write logs.
    #[error("logs: {0}")]
    Logs(io::Error),
    /// A task that must not end has ended.
    #[error(transparent)]
    Task(#[from] TaskEnded),
}
