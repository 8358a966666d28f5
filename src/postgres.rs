//! The Postgres room: connect, ask, write, migrate.
//!
//! It knows Postgres and the rule on freshness, and nothing of settings files, metrics or the change
//! feed: it takes plain [`PostgresSettings`], and counts into the counters that it is given. What the
//! queries of lookups and polls mean is known to the modules that send them.
//!
//! Nothing here needs the state of a session, except where it says so, so a connection pooler in
//! transaction mode may sit in between.

mod address;
mod ask;
mod connect;
mod credentials;
mod followed;
mod identity;
mod leader;
mod limits;
mod login;
mod migrate;
mod pooler;
mod primary;
mod schema;
mod servers;
mod write;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

pub use self::{
    address::{Address, ReadServers},
    connect::ConnectError,
    migrate::{Migrated, migrate},
    primary::Timelines,
    schema::{SCHEMA, SchemaError, check},
    servers::Servers,
};
pub(crate) use self::{
    address::{AddressCounters, Refusals},
    ask::{AskError, Postgres, Reply, select},
    connect::{Connection, connect, connect_one},
    followed::FollowedPool,
    identity::{identify, identity_column, installation},
    leader::{Duty, Hold, Leadership, Offer},
    limits::{ConnectionDemand, shortage},
    login::{check_for_serving, check_login},
    pooler::is_pooled,
    schema::{accept, accept_migrations},
    write::{BackgroundWriter, WriteError},
};

/// How to reach Postgres.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The setting that holds the URL, for messages.
    pub key: &'static str,
    /// The servers and the login that the URL names.
    pub address: Address,
    /// Most connections of the pool; at least 1.
    pub max_connections: u32,
    /// The longest time for one statement.
    pub query_timeout: Duration,
}

/// What is counted about one address. Clones count into the same place; the default counts into a
/// place of its own, which nothing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Statements that were sent by [`Postgres::ask`].
    pub(crate) queries: Counter,
    /// Calls of [`Postgres::ask`] that failed or timed out.
    pub(crate) failures: Counter,
    /// Answers that were not used because another installation gave them.
    pub(crate) other_installation: Counter,
}

/// The SQLSTATE of an error that Postgres reported.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// What Postgres said, or else why its answer did not arrive.
fn message(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(refusal) => refusal.message().to_owned(),
        None => error.to_string(),
    }
}
