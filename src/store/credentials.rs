//! The credentials of backends, sealed: what is set here cannot be read back.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{BackendName, Change, Changed, Error, Store, sql, sql_as};
use crate::{
    credential::{Place, Sealed},
    domain::{DomainId, DomainRef, Slug},
};

/// A backend, and its sealed credential.
#[derive(Clone, Debug, FromRow)]
pub struct BackendCredential {
    /// The backend's name.
    pub name: String,
    key_id: String,
    bytes: Vec<u8>,
}

impl BackendCredential {
    /// As it is stored.
    pub fn sealed(&self) -> Sealed {
        Sealed { key_id: self.key_id.as_str().into(), bytes: self.bytes.as_slice().into() }
    }
}

impl Store {
    /// Gives a backend a credential, in place of any that it had. `place` is for the audit log: the
    /// seal says which header it is for.
    ///
    /// # Errors
    ///
    /// When there is no such backend.
    pub async fn set_credential(
        &self,
        name: &BackendName,
        place: Place,
        sealed: &Sealed,
    ) -> Result<Changed<()>, Error> {
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends SET credential = $2, credential_key_id = $3,
                 credential_set_at = now() WHERE name = $1")
        .bind(name.as_str())
        .bind(&*sealed.bytes)
        .bind(&*sealed.key_id)
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::not_found("backend", name));
        }
        change.touch_backend(name.as_str()).await?;
        let details = json!({ "key_id": sealed.key_id, "header": place });
        change.finish("backend.set_credential", name, details, ()).await
    }

    /// Takes a backend's credential away.
    ///
    /// # Errors
    ///
    /// When there is no such backend, or it has none.
    pub async fn remove_credential(&self, name: &BackendName) -> Result<Changed<()>, Error> {
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends SET credential = NULL,
                 credential_key_id = NULL, credential_set_at = NULL
             WHERE name = $1 AND credential IS NOT NULL")
        .bind(name.as_str())
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::not_found("credential of backend", name));
        }
        change.touch_backend(name.as_str()).await?;
        change.finish("backend.remove_credential", name, json!({}), ()).await
    }

    /// All that are not sealed under `key_id`, in the order of their backends' names.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn credentials_not_under(
        &self,
        key_id: &str,
    ) -> Result<Vec<BackendCredential>, Error> {
        let mut tx = self.read().await?;
        let found = sql_as(
            "SELECT name, credential_key_id AS key_id, credential AS bytes FROM patgate.backends
             WHERE credential_key_id <> $1 ORDER BY name",
        );
        let found = found.bind(key_id.to_owned()).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Stores the same credential under another key. It stays as old as it is.
    ///
    /// # Errors
    ///
    /// When somebody has changed it meanwhile.
    pub async fn reseal_credential(
        &self,
        before: &BackendCredential,
        after: &Sealed,
    ) -> Result<Changed<()>, Error> {
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends SET credential = $3, credential_key_id = $4
             WHERE name = $1 AND credential = $2")
        .bind(&before.name)
        .bind(&before.bytes)
        .bind(&*after.bytes)
        .bind(&*after.key_id)
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::Refused(format!(
                "the credential of backend `{}` was changed meanwhile; run it again",
                before.name
            )));
        }
        change.touch_backend(&before.name).await?;
        let details = json!({ "key_id": after.key_id, "before": before.key_id });
        change.finish("backend.reseal_credential", &before.name, details, ()).await
    }
}

impl Change<'_> {
    /// A backend, and the domains that use it, under their references. What a token may do does not
    /// depend on it.
    async fn touch_backend(&mut self, backend: &str) -> Result<(), Error> {
        self.touched.backends.extend(backend.parse::<BackendName>().ok());
        let users: Vec<(Uuid, String)> = sql_as(super::backends::USERS)
            .bind(backend.to_owned())
            .fetch_all(&mut *self.tx)
            .await?;
        for (id, slug) in users {
            self.touched.domains.push(DomainRef::Id(DomainId(id)));
            self.touched.domains.extend(Slug::try_from(slug).ok().map(DomainRef::Slug));
        }
        Ok(())
    }
}
