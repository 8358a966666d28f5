//! Why patgate did not start, or stopped.

use std::{io, time::Duration};

use crate::{
    admin::web,
    api::TableErrors,
    check::decision_log::LogOpenError,
    config::KeyRingFileError,
    feed::POOLED_RELAY,
    installation::Installation,
    postgres::{ConnectError, SchemaError},
    process::tasks::TaskEnded,
    redis_client::access::RedisAccessError,
    routes::{ApiError, RoundError},
    server::{BindError, Missing, tls::TlsError},
    telemetry::TracesError,
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
    /// Traces cannot be exported with these settings.
    #[error(transparent)]
    Traces(#[from] TracesError),
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
    /// The checks of the stores have not ended.
    #[error(
        "the checks of postgres.url, feed.url and redis.url have not ended within {0:?}: one of them \
         accepts connections and does not answer, or another session holds a lock, as a migration does"
    )]
    Silent(Duration),
    /// Redis cannot be used, and the setting `start.require` needs it.
    #[error("redis.url: {0}")]
    NoRedis(String),
    /// The settings of Redis, or the files that they name, cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisAccessError),
    /// The connections to Redis cannot be kept together.
    #[error("connections to Redis: {0}")]
    RedisPool(String),
    /// The system has no authorities that could have signed the certificate of the provider.
    #[error(
        "web.oidc.issuer: the authorities of the system cannot be read ({0}); install them (Debian: \
         apt-get install ca-certificates), or name those of the provider in web.oidc.ca_file"
    )]
    OidcProvider(io::Error),
    /// The operating system delivers no signals.
    #[error("signals: {0}")]
    Signal(io::Error),
    /// The operating system has no thread, or no file descriptor, to write logs.
    #[error("logs: {0}")]
    Logs(io::Error),
    /// The configuration was not loaded for self-service.
    #[error("self-service is not configured")]
    NoSelfService,
    /// Self-service cannot use its database.
    #[error("web.postgres.url: {0}")]
    SelfService(#[from] web::Error),
    /// No Kubernetes cluster is known.
    #[error("{0}; name one in KUBECONFIG, or write into a folder with --dir")]
    Kubernetes(#[from] ApiError),
    /// A round of `patgate sync --once` has failed.
    #[error(transparent)]
    Routes(#[from] RoundError),
    /// Another process keeps the routes.
    #[error("another `patgate sync` keeps these routes, so nothing was written; end it first")]
    NotLeading,
    /// A task that must not end has ended.
    #[error(transparent)]
    Task(#[from] TaskEnded),
}

impl Error {
    /// Says what is missing to a reader who may be anyone: without hosts and logins, which the error
    /// itself may name.
    pub(super) fn missing(&self) -> Missing {
        match self {
            Self::Postgres(error) => Missing::new(error.key(), UNREACHABLE),
            Self::Schema(error) => Missing::new("postgres.url", in_short(error)),
            Self::NoFeed(error) => Missing::new("feed.url", in_short(error)),
            Self::FeedElsewhere { .. } => {
                Missing::new("feed.url", "leads to another installation than postgres.url")
            }
            Self::PooledRelay => Missing::new(
                "feed.url",
                "leads through a connection pooler in transaction mode, and feed.relay needs a session",
            ),
            Self::Silent(_) => {
                Missing::new("start", "a store accepts connections and does not answer")
            }
            Self::SelfService(error) => {
                Missing::new("web.postgres.url", self_service_in_short(error))
            }
            Self::NoRedis(_) | Self::Redis(_) | Self::RedisPool(_) => {
                Missing::new("redis.url", "Redis cannot be used")
            }
            _ => Missing::new("start", "an error that the log describes"),
        }
    }
}

const UNREACHABLE: &str = "Postgres cannot be reached";

fn self_service_in_short(error: &web::Error) -> &'static str {
    match error {
        web::Error::Schema(error) => in_short(error),
        web::Error::Denied(_) => {
            "the login may not use self-service, or the schema is older than this release needs"
        }
        web::Error::TooPowerful { .. } => "the login may do more than patgate_web",
        web::Error::OtherInstallation => "leads to another installation than at the start",
        _ => "Postgres does not answer",
    }
}

fn in_short(error: &SchemaError) -> &'static str {
    match error {
        SchemaError::Unreachable(_) => UNREACHABLE,
        SchemaError::Absent => "the database has no patgate schema; run `patgate migrate`",
        SchemaError::Nameless | SchemaError::Older(_) | SchemaError::Incomplete(_) => {
            "the schema is older than this release needs; run `patgate migrate`"
        }
        SchemaError::Newer(_) => "the schema is newer than this release knows; upgrade patgate",
        SchemaError::Denied(_) => "the login cannot read the schema",
        SchemaError::Standby(_) => "the server is a standby, whose answers may be old",
        SchemaError::MayAdminister { .. } => {
            "the login may administer patgate; it must be a member of patgate_serve only"
        }
        SchemaError::MayNotMigrate(_)
        | SchemaError::NoMigrator { .. }
        | SchemaError::KeysOff { .. }
        | SchemaError::Locked(_)
        | SchemaError::Migrate(_) => "the schema cannot be used",
    }
}
