//! Giving a copy of a database an identity of its own.

use serde_json::json;
use uuid::Uuid;

use super::{Changed, Error, Store, sql_scalar};

/// Another id in the place of one.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Renewed {
    /// Until now.
    pub old_id: Uuid,
    /// From now on.
    pub new_id: Uuid,
}

impl Store {
    /// Makes another installation of this database. Whatever was written for the old one, in Redis or
    /// by replicas that run, is nothing to the new one.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn renew_installation(&self) -> Result<Changed<Renewed>, Error> {
        let mut change = self.change().await?;
        let old_id = sql_scalar("SELECT id FROM patgate.installation FOR UPDATE")
            .fetch_one(&mut *change.tx)
            .await?;
        let new_id =
            sql_scalar("UPDATE patgate.installation SET id = gen_random_uuid() RETURNING id")
                .fetch_one(&mut *change.tx)
                .await?;
        let renewed = Renewed { old_id, new_id };
        change.finish("installation.renew", new_id, json!({ "old_id": old_id }), renewed).await
    }
}
