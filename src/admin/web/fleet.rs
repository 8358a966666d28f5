//! The replicas that serve, for platform administrators.

use serde::{Deserialize, Serialize};

use super::{Caller, Error, SelfService, call::call_by};

/// The replicas that serve from the database, or did until lately: within twice their `max_staleness`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fleet {
    /// The time of the database, in UTC.
    pub at: String,
    /// The end of what a reading of the database sees at that time, as a transaction id.
    pub position: u64,
    /// By name.
    pub replicas: Vec<FleetReplica>,
}

/// A replica, as its lease in the database describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FleetReplica {
    /// The name of its host and the id of its process, as `host:id`.
    pub name: String,
    /// Whether it may still answer from what it has read. One that may not has ended, or looks up each
    /// request.
    pub counts: bool,
    /// The end of what it saw when it last read changes, as a transaction id.
    pub position: u64,
    /// It knows every change that was committed before this moment, in UTC.
    pub read_at: String,
    /// How long ago that is, in milliseconds.
    pub lag_ms: u64,
    /// How long it may answer from what it has read, in milliseconds.
    pub max_staleness_ms: u64,
}

impl SelfService {
    /// Returns the replicas that serve.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsElevation`], [`Error::NotPermitted`] without the rights of a platform administrator.
    pub async fn fleet(&self, caller: &Caller) -> Result<Fleet, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_fleet($1)")).await
    }
}
