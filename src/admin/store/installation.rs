//! Gives a copy of a database its own identity.

use serde_json::json;
use uuid::Uuid;

use super::{AuditAction, Committed, Error, Store, sql_scalar};

/// The id of an installation before and after it was renewed.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct RenewedInstallation {
    /// The id until now.
    pub old_id: Uuid,
    /// The id from now on.
    pub new_id: Uuid,
}

impl Store {
    /// Makes another installation of this database. The new one uses nothing that was written for
    /// the old one, in Redis or by running replicas.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn renew_installation(&self) -> Result<Committed<RenewedInstallation>, Error> {
        let mut change = self.change().await?;
        let old_id = sql_scalar("SELECT id FROM patgate.installation FOR UPDATE")
            .fetch_one(&mut *change.tx)
            .await?;
        let new_id =
            sql_scalar("UPDATE patgate.installation SET id = gen_random_uuid() RETURNING id")
                .fetch_one(&mut *change.tx)
                .await?;
        let renewed = RenewedInstallation { old_id, new_id };
        change
            .finish(AuditAction::InstallationRenew, new_id, json!({ "old_id": old_id }), renewed)
            .await
    }
}
