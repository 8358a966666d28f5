//! Invitations of users to set a password, for self-service.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{AuditAction, Committed, Error, Store, UserRef, sql, tokens::micros, users};

impl Store {
    /// Stores an invitation, which replaces earlier ones. `proof` is what the link proves it with.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn invite_user(
        &self,
        reference: &UserRef,
        proof: &[u8],
        life: Duration,
    ) -> Result<Committed<()>, Error> {
        let life = micros(life)?;
        let mut change = self.change().await?;
        let user = users::lock(&mut change.tx, reference).await?;
        sql("DELETE FROM patgate.invitations WHERE user_id = $1")
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        sql("INSERT INTO patgate.invitations (proof_hash, user_id, expires_at)
             VALUES ($1, $2, now() + $3 * interval '1 microsecond')")
        .bind(Sha256::digest(proof).to_vec())
        .bind(user.id)
        .bind(life)
        .execute(&mut *change.tx)
        .await?;
        let details = json!({ "email": user.email });
        change.finish(AuditAction::AccountInvite, user.id, details, ()).await
    }
}
