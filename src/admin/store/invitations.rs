//! Invitations of users to set a password, for self-service.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    AuditAction, Committed, Error, Store, UserRef, sql, sql_as, tokens::micros, users, utc,
};

impl Store {
    /// Stores an invitation, which replaces earlier ones, and returns for whom it is and until when.
    /// `proof` is what the link proves it with.
    ///
    /// # Errors
    ///
    /// If the user does not exist, or is disabled.
    pub(crate) async fn invite_user(
        &self,
        reference: &UserRef,
        proof: &[u8],
        life: Duration,
    ) -> Result<Committed<(String, String)>, Error> {
        let life = micros(life)?;
        let mut change = self.change().await?;
        let user = users::lock(&mut change.tx, reference).await?;
        if !user.enabled {
            return Err(Error::Refused(format!(
                "user `{reference}` is disabled, so the invitation would not work; `patgate user \
                 enable` comes first"
            )));
        }
        sql("DELETE FROM patgate.invitations WHERE user_id = $1")
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        let (expires_at,): (String,) = sql_as(concat!(
            "INSERT INTO patgate.invitations (proof_hash, user_id, expires_at)
             VALUES ($1, $2, now() + $3 * interval '1 microsecond') RETURNING ",
            utc!("expires_at")
        ))
        .bind(Sha256::digest(proof).to_vec())
        .bind(user.id)
        .bind(life)
        .fetch_one(&mut *change.tx)
        .await?;
        let details = json!({ "email": user.email, "expires_at": expires_at });
        change.finish(AuditAction::AccountInvite, user.id, details, (user.email, expires_at)).await
    }
}
