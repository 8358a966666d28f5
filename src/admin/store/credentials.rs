//! Stores the sealed credentials of backends.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    AuditAction, BackendName, Committed, Error, NewAuditEntry, ObjectKind, PendingChange, Store,
    sql, sql_as,
};
use crate::{
    credential::{CredentialHeader, Sealed},
    domain::{DomainId, DomainRef, Slug},
    keyring::KeyId,
};

/// The sealed credential of a backend, as it is stored.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct StoredCredential {
    /// The backend's name.
    pub(crate) backend: String,
    key_id: String,
    bytes: Vec<u8>,
}

impl StoredCredential {
    pub(crate) fn sealed(&self) -> Sealed {
        Sealed { key_id: self.key_id.as_str().into(), bytes: self.bytes.as_slice().into() }
    }
}

impl Store {
    /// Sets the credential of a backend. `header` is for the audit log: the seal already says which
    /// header the credential is for.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub(crate) async fn set_credential(
        &self,
        name: &BackendName,
        header: CredentialHeader,
        sealed: &Sealed,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends SET credential = $2, credential_key_id = $3,
                 credential_set_at = now() WHERE name = $1")
        .bind(name.as_str())
        .bind(&*sealed.bytes)
        .bind(&*sealed.key_id)
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::not_found(ObjectKind::Backend, name));
        }
        change.outdate_backend(name.as_str()).await?;
        let details = json!({ "key_id": sealed.key_id, "header": header });
        change.finish(AuditAction::BackendSetCredential, name, details, ()).await
    }

    /// Removes the credential of a backend.
    ///
    /// # Errors
    ///
    /// If the backend does not exist, or has no credential.
    pub(crate) async fn remove_credential(
        &self,
        name: &BackendName,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends SET credential = NULL,
                 credential_key_id = NULL, credential_set_at = NULL
             WHERE name = $1 AND credential IS NOT NULL")
        .bind(name.as_str())
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::not_found(ObjectKind::BackendCredential, name));
        }
        change.outdate_backend(name.as_str()).await?;
        change.finish(AuditAction::BackendRemoveCredential, name, json!({}), ()).await
    }

    /// Returns the credentials that are not sealed under `key`, by the names of their backends.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn credentials_not_under(
        &self,
        key: &KeyId,
    ) -> Result<Vec<StoredCredential>, Error> {
        let mut tx = self.read().await?;
        let found = sql_as(
            "SELECT name AS backend, credential_key_id AS key_id, credential AS bytes FROM patgate.backends
             WHERE credential_key_id <> $1 ORDER BY name",
        );
        let found = found.bind(key.to_string()).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Stores the same credentials under another seal. They keep the time at which they were set.
    ///
    /// # Errors
    ///
    /// If one of them was changed meanwhile. In that case, nothing is changed.
    pub(crate) async fn reseal_credentials(
        &self,
        resealed: &[(StoredCredential, Sealed)],
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let mut entries = Vec::new();
        for (before, after) in resealed {
            let updated = sql("UPDATE patgate.backends SET credential = $3, credential_key_id = $4
                 WHERE name = $1 AND credential = $2")
            .bind(&before.backend)
            .bind(&before.bytes)
            .bind(&*after.bytes)
            .bind(&*after.key_id)
            .execute(&mut *change.tx)
            .await?;
            if updated.rows_affected() == 0 {
                return Err(Error::Refused(format!(
                    "the credential of backend `{}` was changed meanwhile; run the command again",
                    before.backend
                )));
            }
            change.outdate_backend(&before.backend).await?;
            entries.push(NewAuditEntry {
                action: AuditAction::BackendResealCredential,
                object: before.backend.clone(),
                details: json!({ "key_id": after.key_id, "before": before.key_id }),
            });
        }
        change.finish_all(entries, ()).await
    }
}

impl PendingChange<'_> {
    /// Marks a backend, and the domains that use it, as outdated. The rights of tokens do not
    /// depend on it.
    async fn outdate_backend(&mut self, backend: &str) -> Result<(), Error> {
        self.outdated.backends.extend(backend.parse::<BackendName>().ok());
        let users: Vec<(Uuid, String)> = sql_as(super::backends::USERS)
            .bind(backend.to_owned())
            .fetch_all(&mut *self.tx)
            .await?;
        for (id, slug) in users {
            self.outdated.domains.push(DomainRef::Id(DomainId(id)));
            self.outdated.domains.extend(Slug::try_from(slug).ok().map(DomainRef::Slug));
        }
        Ok(())
    }
}
