//! The limits that operators set.

use super::{Admin, Error, Outcome, Policy, PolicyChanges};

impl Admin {
    /// Returns the limits that hold.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn policy(&self) -> Result<Policy, Error> {
        Ok(self.store.policy().await?)
    }

    /// Changes limits, and returns those that hold then. They hold from the next use on.
    ///
    /// # Errors
    ///
    /// If tokens would live longer by default than they may.
    pub async fn set_policy(&self, changes: &PolicyChanges) -> Result<Outcome<Policy>, Error> {
        Ok(self.complete(self.store.set_policy(changes).await?).await)
    }
}
