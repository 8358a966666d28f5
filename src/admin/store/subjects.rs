//! What users and tokens are called, for reports that know only their ids.

use uuid::Uuid;

use super::{Error, Store, sql_as};

impl Store {
    /// Returns the addresses of these users. Users that do not exist are left out.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn addresses(&self, users: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        self.called("SELECT id, email FROM patgate.users WHERE id = ANY($1)", users).await
    }

    /// Returns the names of these tokens. Tokens that do not exist are left out.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn token_names(&self, tokens: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        self.called("SELECT id, name FROM patgate.pats WHERE id = ANY($1)", tokens).await
    }

    async fn called(
        &self,
        statement: &'static str,
        ids: &[Uuid],
    ) -> Result<Vec<(Uuid, String)>, Error> {
        let mut tx = self.read().await?;
        let called = sql_as(statement).bind(ids.to_vec()).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(called)
    }
}
