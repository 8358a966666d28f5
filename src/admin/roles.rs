//! Roles, their operations and their members.

use super::{Admin, Error, Outcome, Role, RoleName, UserRef};
use crate::{domain::DomainRef, operation::Operation};

impl Admin {
    /// Creates a role.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or has a role of this name.
    pub async fn create_role(
        &self,
        domain: &DomainRef,
        role: &RoleName,
        operations: &[Operation],
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.create_role(domain, role, operations).await?).await)
    }

    /// Lists the roles of a domain, by name.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub async fn roles(&self, domain: &DomainRef) -> Result<Vec<Role>, Error> {
        Ok(self.store.roles(domain).await?)
    }

    /// Returns a role with its members.
    ///
    /// # Errors
    ///
    /// If the domain or the role does not exist.
    pub async fn role(&self, domain: &DomainRef, role: &RoleName) -> Result<Role, Error> {
        Ok(self.store.role(domain, role).await?)
    }

    /// Deletes a role. Its members lose the operations that only this role permitted.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub async fn delete_role(
        &self,
        domain: &DomainRef,
        role: &RoleName,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.delete_role(domain, role).await?).await)
    }

    /// Adds operations to a role.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub async fn grant_operations(
        &self,
        domain: &DomainRef,
        role: &RoleName,
        operations: &[Operation],
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.grant_operations(domain, role, operations).await?).await)
    }

    /// Removes operations from a role.
    ///
    /// # Errors
    ///
    /// If the role does not exist.
    pub async fn revoke_operations(
        &self,
        domain: &DomainRef,
        role: &RoleName,
        operations: &[Operation],
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.revoke_operations(domain, role, operations).await?).await)
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    ///
    /// If the role or the user does not exist.
    pub async fn add_member(
        &self,
        domain: &DomainRef,
        role: &RoleName,
        user: &UserRef,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.add_member(domain, role, user).await?).await)
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// If the role or the user does not exist, or the user does not have the role.
    pub async fn remove_member(
        &self,
        domain: &DomainRef,
        role: &RoleName,
        user: &UserRef,
    ) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.remove_member(domain, role, user).await?).await)
    }
}
