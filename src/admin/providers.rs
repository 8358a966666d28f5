//! The providers whose users may sign in to self-service.

use super::{Admin, Error, Issuer, Outcome, Provider, ProviderDetails, Subject, UserRef};

impl Admin {
    /// Adds a provider, enabled. If `trusts_email`, a verified e-mail address finds the user at the first
    /// sign-in.
    ///
    /// # Errors
    ///
    /// If it exists.
    pub async fn add_provider(
        &self,
        issuer: &Issuer,
        trusts_email: bool,
    ) -> Result<Outcome<Provider>, Error> {
        Ok(self.complete(self.store.add_provider(issuer, trusts_email).await?).await)
    }

    /// Lists all providers, by issuer.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn providers(&self) -> Result<Vec<Provider>, Error> {
        Ok(self.store.providers().await?)
    }

    /// Returns a provider with its links.
    ///
    /// # Errors
    ///
    /// If it does not exist.
    pub async fn provider(&self, issuer: &Issuer) -> Result<ProviderDetails, Error> {
        Ok(self.store.provider(issuer).await?)
    }

    /// Sets whether the users of a provider may sign in. Their sessions end for good when they may not.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub async fn set_provider_enabled(
        &self,
        issuer: &Issuer,
        enabled: bool,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.set_provider_enabled(issuer, enabled).await?).await)
    }

    /// Sets whether a verified e-mail address of this provider finds the user at the first sign-in.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub async fn trust_email(
        &self,
        issuer: &Issuer,
        trusts_email: bool,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.trust_email(issuer, trusts_email).await?).await)
    }

    /// Removes a provider with all its links, which ends its sessions.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub async fn remove_provider(&self, issuer: &Issuer) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.remove_provider(issuer).await?).await)
    }

    /// Links a subject of a provider to a user, and returns the user's address.
    ///
    /// # Errors
    ///
    /// If the provider or the user does not exist, or one of subject and user is linked already.
    pub async fn link_identity(
        &self,
        issuer: &Issuer,
        subject: &Subject,
        user: &UserRef,
    ) -> Result<Outcome<String>, Error> {
        Ok(self.complete(self.store.link_identity(issuer, subject, user).await?).await)
    }

    /// Removes the link of a subject, which ends the sessions that it began, and returns the user's
    /// address.
    ///
    /// # Errors
    ///
    /// If the provider or the user does not exist, or the subject is not linked to that user.
    pub async fn unlink_identity(
        &self,
        issuer: &Issuer,
        subject: &Subject,
        user: &UserRef,
    ) -> Result<Outcome<String>, Error> {
        Ok(self.complete(self.store.unlink_identity(issuer, subject, user).await?).await)
    }
}
