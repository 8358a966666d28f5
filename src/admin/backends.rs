//! Backends and their credentials.

use super::{
    Admin, BackendChanges, BackendKind, BackendName, BackendSummary, BackendUrl, Error, Outcome,
};
use crate::{
    credential::{Credential, Sealed},
    keyring::KeyId,
};

/// Which credentials were encrypted again.
#[derive(Clone, Debug)]
pub struct ResealedCredentials {
    /// The key that encrypts all credentials now.
    pub key: KeyId,
    /// The names of their backends, in order. Empty if all were under the current key already.
    pub backends: Vec<String>,
}

impl Admin {
    /// Creates a backend.
    ///
    /// # Errors
    ///
    /// If another backend has the name.
    pub async fn create_backend(
        &self,
        name: &BackendName,
        url: &BackendUrl,
        kind: BackendKind,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.create_backend(name, url, kind).await?).await)
    }

    /// Lists all backends, by name, with the domains that use them.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn backends(&self) -> Result<Vec<BackendSummary>, Error> {
        Ok(self.store.backends().await?)
    }

    /// Returns a backend with the domains that use it.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub async fn backend(&self, name: &BackendName) -> Result<BackendSummary, Error> {
        Ok(self.store.backend(name).await?)
    }

    /// Changes a backend in place.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub async fn update_backend(
        &self,
        name: &BackendName,
        changes: &BackendChanges,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.update_backend(name, changes).await?).await)
    }

    /// Deletes a backend that no domain uses.
    ///
    /// # Errors
    ///
    /// If the backend does not exist, or a domain uses it.
    pub async fn delete_backend(&self, name: &BackendName) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.delete_backend(name).await?).await)
    }

    /// Sets the credential of a backend, encrypted with the current key. It cannot be read again.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub async fn set_credential(
        &self,
        name: &BackendName,
        credential: &Credential,
    ) -> Result<Outcome<()>, Error> {
        let sealed = Sealed::seal(&self.keys()?.ring, name.as_str(), credential)?;
        let set = self.store.set_credential(name, credential.header(), &sealed).await?;
        Ok(self.complete(set).await)
    }

    /// Removes the credential of a backend.
    ///
    /// # Errors
    ///
    /// If the backend does not exist, or has no credential.
    pub async fn remove_credential(&self, name: &BackendName) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.remove_credential(name).await?).await)
    }

    /// Encrypts all credentials with the current key, in one transaction.
    ///
    /// # Errors
    ///
    /// If a credential cannot be opened with the keys of this ring, or was changed meanwhile. In
    /// that case, nothing is changed.
    pub async fn reseal_credentials(&self) -> Result<Outcome<ResealedCredentials>, Error> {
        let ring = &self.keys()?.ring;
        let key = ring.current().id.clone();
        let mut resealed = Vec::new();
        for stored in self.store.credentials_not_under(&key).await? {
            let sealed = stored.sealed();
            let credential =
                sealed.open(ring, &stored.backend).ok_or_else(|| Error::CredentialNotOpened {
                    backend: stored.backend.clone(),
                    key_id: sealed.key_id.to_string(),
                })?;
            let sealed = Sealed::seal(ring, &stored.backend, &credential)?;
            resealed.push((stored, sealed));
        }
        let outcome = self.complete(self.store.reseal_credentials(&resealed).await?).await;
        let backends = resealed.into_iter().map(|(stored, _)| stored.backend).collect();
        Ok(outcome.map(|()| ResealedCredentials { key, backends }))
    }
}
