//! Reads the backends every second, and keeps the routes equal to them.

use std::time::Duration;

use patgate_routes::{Plan, Rules};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{BackendReader, Cluster, ClusterError, Folder, FolderError, ReadError, Status};
use crate::{
    server::Missing,
    telemetry::{RouteChange, RoutePart},
};

/// The pause between two rounds while all goes well.
const EVERY: Duration = Duration::from_secs(1);
/// The longest pause after failures, which grows from one to the other.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where the routes are written.
pub(crate) enum Sink {
    /// A file that a gateway watches.
    Folder(Folder),
    /// Objects in Kubernetes.
    Cluster(Box<Cluster>),
}

/// Keeps routes equal to the backends in the database.
pub(crate) struct Keeper {
    pub(crate) reader: BackendReader,
    pub(crate) rules: Rules,
    pub(crate) sink: Sink,
    pub(crate) status: Status,
    /// Whether this process was the one that writes, in the last round.
    pub(crate) led: bool,
}

/// Why a round has not brought the routes in step. It has been logged and counted.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Keeper {
    /// Runs until `stop`. A round that has begun ends first.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pause = EVERY;
        loop {
            // The database answers while nothing is left, so it may be asked as usual.
            let failed = self.round().await.is_err_and(|error| !error.is_for_people());
            pause = if failed { LONGEST_PAUSE.min(2 * pause) } else { EVERY };
            // Several replicas must not return to a database at the same moment.
            let jitter = if failed { 0.5 + fastrand::f64() / 2.0 } else { 1.0 };
            if stop.run_until_cancelled(sleep(pause.mul_f64(jitter))).await.is_none() {
                break;
            }
        }
        self.close().await;
    }

    /// Brings the routes in step once.
    ///
    /// # Errors
    ///
    /// If the database or the gateway's side does not permit it. What was there stays.
    pub(crate) async fn round(&mut self) -> Result<(), RoundError> {
        let outcome = self.bring_in_step().await;
        match &outcome {
            Ok(()) => self.status.succeeded(),
            Err(error) => {
                let (part, missing) = error.kind();
                self.status.failed(part, missing, error);
            }
        }
        outcome
    }

    async fn bring_in_step(&mut self) -> Result<(), RoundError> {
        let (described, installation) = self.reader.read().await?;
        let plan = Plan::of(&described, &self.rules);
        self.status.planned(&plan);
        match &mut self.sink {
            Sink::Folder(folder) => {
                let leads = folder.leads()?;
                self.led = leads;
                self.status.metrics().leads(leads);
                if leads && folder.keep(&plan, installation)? {
                    self.status.metrics().changed(RouteChange::Written);
                    tracing::info!(backends = plan.backends().len(), "wrote the routes");
                }
                Ok(())
            }
            Sink::Cluster(cluster) => {
                let leads = cluster.leads(installation).await;
                self.led = *leads.as_ref().unwrap_or(&false);
                self.status.metrics().leads(self.led);
                if leads? {
                    cluster.keep(&plan, &self.status).await?;
                } else {
                    self.status.foreign(Vec::new());
                }
                Ok(())
            }
        }
    }

    /// Ends the connection to the database.
    pub(crate) async fn close(self) {
        self.reader.close().await;
    }
}

impl RoundError {
    /// Whether only a person can end it.
    const fn is_for_people(&self) -> bool {
        matches!(
            self,
            Self::Folder(
                FolderError::NothingLeft { .. }
                    | FolderError::AnotherInstallation { .. }
                    | FolderError::NoInstallation { .. }
            ) | Self::Cluster(ClusterError::NothingLeft)
        )
    }

    fn kind(&self) -> (RoutePart, Missing) {
        match self {
            Self::Read(_) => {
                (RoutePart::Postgres, Missing::new("postgres.url", "the backends cannot be read"))
            }
            Self::Folder(FolderError::Io { .. } | FolderError::Untrusted { .. }) => {
                (RoutePart::Folder, Missing::new("--dir", "the file cannot be written"))
            }
            Self::Folder(
                FolderError::AnotherInstallation { .. } | FolderError::NoInstallation { .. },
            ) => (RoutePart::Folder, Missing::new("--dir", ANOTHER_INSTALLATION)),
            Self::Folder(FolderError::NothingLeft { .. })
            | Self::Cluster(ClusterError::NothingLeft) => {
                (RoutePart::NothingLeft, Missing::new("routes", NOTHING_LEFT))
            }
            Self::Cluster(ClusterError::Pooled | ClusterError::LostLead) => (
                RoutePart::Postgres,
                Missing::new("postgres.url", "this replica cannot hold the lock"),
            ),
            Self::Cluster(ClusterError::Api(_) | ClusterError::Several { .. }) => {
                (RoutePart::Kubernetes, Missing::new("routes", "the API server does not permit it"))
            }
        }
    }
}

const NOTHING_LEFT: &str = "no backend is left, so nothing is removed";
const ANOTHER_INSTALLATION: &str = "the file is not of this installation, so it stays as it is";
