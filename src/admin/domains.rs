//! Domains and the models that they see.

use super::{
    Admin, BackendName, DomainChanges, DomainDetails, DomainModel, DomainSummary, Error,
    ListedModel, NewDomain, Outcome, Warning,
};
use crate::domain::{DomainRef, Slug};

impl Admin {
    /// Creates a domain, enabled, with a role `admin` that holds every operation.
    ///
    /// # Errors
    ///
    /// If another domain has the slug, or the backend does not exist.
    pub async fn create_domain(&self, new: &NewDomain) -> Result<Outcome<DomainSummary>, Error> {
        Ok(self.complete(self.store.create_domain(new).await?).await)
    }

    /// Lists all domains, by slug.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn domains(&self) -> Result<Vec<DomainSummary>, Error> {
        Ok(self.store.domains().await?)
    }

    /// Returns a domain with its models and roles.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub async fn domain(&self, domain: &DomainRef) -> Result<DomainDetails, Error> {
        Ok(self.store.domain(domain).await?)
    }

    /// Changes how far a domain is enforced, or lets it see all models. Returns the models that its
    /// list held until then.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub async fn update_domain(
        &self,
        domain: &DomainRef,
        changes: DomainChanges,
    ) -> Result<Outcome<Vec<DomainModel>>, Error> {
        Ok(self.complete(self.store.update_domain(domain, changes).await?).await)
    }

    /// Enables or disables a domain. All requests to a disabled domain are refused.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub async fn set_domain_enabled(
        &self,
        domain: &DomainRef,
        enabled: bool,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.set_domain_enabled(domain, enabled).await?).await)
    }

    /// Sets the backend that serves a domain unless a model has its own.
    ///
    /// # Errors
    ///
    /// If the domain or the backend does not exist.
    pub async fn set_domain_upstream(
        &self,
        domain: &DomainRef,
        upstream: &BackendName,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.set_domain_upstream(domain, upstream).await?).await)
    }

    /// Gives a domain another slug. The old one stops working at once.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or another one has the slug.
    pub async fn rename_domain(
        &self,
        domain: &DomainRef,
        slug: &Slug,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.rename_domain(domain, slug).await?).await)
    }

    /// Deletes a domain with its models, its roles and every scope in it.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub async fn delete_domain(&self, domain: &DomainRef) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.delete_domain(domain).await?).await)
    }

    /// Lets a domain see a model, served by a backend. Returns whether the domain saw all models
    /// until then; from then on, it sees only those that it lists.
    ///
    /// # Errors
    ///
    /// If the domain or the backend does not exist.
    pub async fn set_domain_model(
        &self,
        domain: &DomainRef,
        model: &ListedModel,
        upstream: &BackendName,
    ) -> Result<Outcome<bool>, Error> {
        Ok(self.complete(self.store.set_domain_model(domain, model, upstream).await?).await)
    }

    /// Removes a model from a domain's list. Warns if it was the last one.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or does not list the model.
    pub async fn unset_domain_model(
        &self,
        domain: &DomainRef,
        model: &ListedModel,
    ) -> Result<Outcome<()>, Error> {
        let unset = self.store.unset_domain_model(domain, model).await?;
        let sees_none = unset.value == 0;
        let mut outcome = self.complete(unset).await.map(drop);
        if sees_none {
            outcome.warnings.push(Warning::SeesNoModel { domain: domain.clone() });
        }
        Ok(outcome)
    }
}
