//! Revoking tokens: one, the one somebody found, or all of a user or a domain.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Change, Changed, Entry, Error, Store, UserRef, domains, sql_as, sql_scalar, tokens::lock,
    users, utc,
};
use crate::{
    domain::DomainRef,
    token::{TokenDigest, TokenId, Tokens},
};

/// How often a bulk revocation is tried that runs into deadlocks.
const ATTEMPTS: u32 = 5;

/// A token that is revoked.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Revoked {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The owner's address.
    pub owner: String,
    /// Since when.
    pub revoked_at: String,
}

impl Store {
    /// Revokes a token for good. One that is revoked already keeps its time.
    ///
    /// # Errors
    ///
    /// When there is no such token.
    pub async fn revoke_token(&self, id: TokenId) -> Result<Changed<Revoked>, Error> {
        let mut change = self.change().await?;
        lock(&mut change.tx, id).await?;
        let revoked: Option<Revoked> = revoke(&mut change, &[id.0]).await?.pop();
        let revoked = revoked.ok_or_else(|| Error::not_found("token", id))?;
        let details = json!({ "name": revoked.name, "email": revoked.owner });
        change.finish("token.revoke", id, details, revoked).await
    }

    /// Revokes the token that somebody found in plain text. The text is all that
    /// it takes, so a leak can be stopped by whoever finds it.
    ///
    /// # Errors
    ///
    /// When the token's tag does not verify, or when there is no such token.
    pub async fn revoke_plain(
        &self,
        tokens: &Tokens,
        plain: &str,
    ) -> Result<Changed<Revoked>, Error> {
        let presented = tokens.verify(plain).ok_or(Error::NotSigned)?;
        let mut tx = self.read().await?;
        let stored: Option<Vec<u8>> = sql_scalar("SELECT digest FROM patgate.pats WHERE id = $1")
            .bind(presented.id.0)
            .fetch_optional(&mut *tx)
            .await?;
        tx.commit().await?;
        let stored = stored.and_then(|digest| digest.try_into().ok()).map(TokenDigest::from_bytes);
        if stored.as_ref() != Some(&presented.digest) {
            return Err(Error::not_found("token", presented.id));
        }
        self.revoke_token(presented.id).await
    }

    /// Revokes all live tokens of a user.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub async fn revoke_tokens_of_user(
        &self,
        user: &UserRef,
    ) -> Result<Changed<Vec<Revoked>>, Error> {
        unless_deadlocked(async || self.try_revoke_tokens_of_user(user).await).await
    }

    async fn try_revoke_tokens_of_user(
        &self,
        user: &UserRef,
    ) -> Result<Changed<Vec<Revoked>>, Error> {
        let mut change = self.bulk_change().await?;
        let user = users::lock(&mut change.tx, user).await?;
        let ids = sql_scalar(
            "SELECT id FROM patgate.pats
             WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
             ORDER BY id FOR UPDATE",
        )
        .bind(user.id)
        .fetch_all(&mut *change.tx)
        .await?;
        revoke_all(change, &ids, "all tokens of the user").await
    }

    /// Revokes all live tokens with a scope in a domain, whatever other scopes they have.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn revoke_tokens_of_domain(
        &self,
        domain: &DomainRef,
    ) -> Result<Changed<Vec<Revoked>>, Error> {
        unless_deadlocked(async || self.try_revoke_tokens_of_domain(domain).await).await
    }

    async fn try_revoke_tokens_of_domain(
        &self,
        domain: &DomainRef,
    ) -> Result<Changed<Vec<Revoked>>, Error> {
        let mut change = self.bulk_change().await?;
        let domain = domains::lock(&mut change.tx, domain).await?;
        let ids = sql_scalar(
            "SELECT id FROM patgate.pats p
             WHERE revoked_at IS NULL AND expires_at > now() AND EXISTS (
                 SELECT FROM patgate.pat_scopes s WHERE s.pat_id = p.id AND s.domain_id = $1)
             ORDER BY id FOR UPDATE",
        )
        .bind(domain.id)
        .fetch_all(&mut *change.tx)
        .await?;
        revoke_all(change, &ids, "all tokens of the domain").await
    }
}

/// Whatever else is under way, also by bare SQL in an order of its own, a bulk revocation is carried
/// out: if Postgres ends it to end a deadlock, it begins again.
async fn unless_deadlocked<T>(revoke: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..ATTEMPTS {
        match revoke().await {
            Err(Error::Deadlock) => {}
            outcome => return outcome,
        }
    }
    revoke().await
}

/// Revokes several tokens, each with its line of the audit log.
async fn revoke_all(
    mut change: Change<'_>,
    ids: &[Uuid],
    reason: &str,
) -> Result<Changed<Vec<Revoked>>, Error> {
    let revoked = revoke(&mut change, ids).await?;
    let entries: Vec<Entry> = revoked
        .iter()
        .map(|token| Entry {
            action: "token.revoke",
            object: token.id.to_string(),
            details: json!({ "name": token.name, "email": token.owner, "reason": reason }),
        })
        .collect();
    change.finish_all(entries, revoked).await
}

async fn revoke(change: &mut Change<'_>, ids: &[Uuid]) -> Result<Vec<Revoked>, Error> {
    let revoked: Vec<Revoked> = sql_as(concat!(
        "UPDATE patgate.pats p SET revoked_at = coalesce(p.revoked_at, now())
         FROM patgate.users u WHERE u.id = p.user_id AND p.id = ANY($1)
         RETURNING p.id, p.name, u.email AS owner, ",
        utc!("p.revoked_at"),
        " AS revoked_at"
    ))
    .bind(ids)
    .fetch_all(&mut *change.tx)
    .await?;
    change.touched.tokens.extend(ids.iter().copied().map(TokenId));
    Ok(revoked)
}
