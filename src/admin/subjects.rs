//! What users and tokens are called, for reports that know only their ids.

use uuid::Uuid;

use super::{Admin, Error};

impl Admin {
    /// Returns the addresses of these users. Users that do not exist are left out.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn addresses(&self, users: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        Ok(self.store.addresses(users).await?)
    }

    /// Returns the names of these tokens. Tokens that do not exist are left out.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn token_names(&self, tokens: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        Ok(self.store.token_names(tokens).await?)
    }
}
