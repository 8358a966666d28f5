//! The installation, and the record of its changes.

use super::{Admin, AuditEntry, AuditFilter, Error, Outcome, RenewedInstallation};
use crate::installation::Installation;

/// Whether an installation may be renewed under the replicas that serve from it. Until they are
/// restarted, they obey no change, and waiting for a revocation does not know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingReplicas {
    /// No replica may serve from it.
    MustHaveStopped,
    /// They may go on serving.
    MayServe,
}

impl Admin {
    /// The identity of the installation.
    pub fn installation(&self) -> Installation {
        self.cached_copies.installation
    }

    /// Returns the names of the replicas that serve from this database, or did until lately: within
    /// twice their `max_staleness`.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn serving_replicas(&self) -> Result<Vec<String>, Error> {
        Ok(self.store.serving_replicas().await?)
    }

    /// Makes another installation of this database. Replicas that serve from it stop using it, and
    /// must be restarted.
    ///
    /// # Errors
    ///
    /// If there are [serving replicas](Self::serving_replicas), unless they may go on serving, or if
    /// the database does not answer.
    pub async fn renew_installation(
        &self,
        serving: ServingReplicas,
    ) -> Result<Outcome<RenewedInstallation>, Error> {
        if serving == ServingReplicas::MustHaveStopped {
            let replicas = self.serving_replicas().await?;
            if !replicas.is_empty() {
                return Err(Error::ReplicasServe { replicas });
            }
        }
        Ok(self.complete(self.store.renew_installation().await?).await)
    }

    /// Reads the audit log, the latest entry first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, Error> {
        Ok(self.store.audit_log(filter).await?)
    }
}
