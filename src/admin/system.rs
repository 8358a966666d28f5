//! The installation, and the record of its changes.

use super::{Admin, AuditEntry, AuditFilter, Error, Outcome, RenewedInstallation};
use crate::installation::Installation;

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
    /// must be restarted; see [`Self::serving_replicas`].
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn renew_installation(&self) -> Result<Outcome<RenewedInstallation>, Error> {
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
