//! Revoking tokens: one, or all of a user or a domain.

use std::collections::HashMap;

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    AuditAction, Committed, Error, NewAuditEntry, ObjectKind, PendingChange, Store, UserRef,
    domains, sql_as, sql_scalar, tokens::lock, users, utc,
};
use crate::{
    domain::DomainRef,
    token::{TokenDigest, TokenId, VerifiedToken},
};

/// How often a bulk revocation is tried if Postgres ends it to resolve a deadlock.
const ATTEMPTS: u32 = 5;

/// The ids of the live tokens of a user, which are locked in the order of all bulk changes.
const LIVE_TOKENS_OF_USER: &str = "
    SELECT id FROM patgate.pats
    WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
    ORDER BY id FOR UPDATE";

/// The ids of the live tokens with a scope in a domain, locked in the same order.
const LIVE_TOKENS_OF_DOMAIN: &str = "
    SELECT id FROM patgate.pats p
    WHERE revoked_at IS NULL AND expires_at > now() AND EXISTS (
        SELECT FROM patgate.pat_scopes s WHERE s.pat_id = p.id AND s.domain_id = $1)
    ORDER BY id FOR UPDATE";

/// The digests of tokens, which are locked in the same order.
const STORED_DIGESTS: &str = "
    SELECT id, digest FROM patgate.pats WHERE id = ANY($1) ORDER BY id FOR UPDATE";

/// Tokens that are revoked together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenGroup {
    /// All tokens of a user.
    OfUser(UserRef),
    /// All tokens with a scope in a domain, including those that also have scopes in other domains.
    OfDomain(DomainRef),
}

/// A token that was revoked.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct RevokedToken {
    /// The id of the token.
    pub id: Uuid,
    /// The name of the token.
    pub name: String,
    /// The e-mail address of its owner.
    pub owner: String,
    /// When it was revoked, in UTC.
    pub revoked_at: String,
}

/// What became of the tokens in a text.
#[derive(Clone, Debug)]
pub struct LeakedTokens {
    /// The tokens that were revoked.
    pub revoked: Vec<RevokedToken>,
    /// The tokens that a key of the ring has signed and that are not stored.
    pub absent: Vec<TokenId>,
    /// The ids of texts that begin as a token does and lack its end.
    pub cut_short: Vec<TokenId>,
}

impl Store {
    /// Revokes a token for good. A token that is revoked already keeps its time.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<Committed<RevokedToken>, Error> {
        let mut change = self.change().await?;
        lock(&mut change.tx, id).await?;
        let revoked: Option<RevokedToken> = revoke(&mut change, &[id.0]).await?.pop();
        let revoked = revoked.ok_or_else(|| Error::not_found(ObjectKind::Token, id))?;
        let details = json!({ "name": revoked.name, "email": revoked.owner });
        change.finish(AuditAction::TokenRevoke, id, details, revoked).await
    }

    /// Revokes tokens whose text was verified, each if exactly that token is stored. Those that are
    /// revoked already keep their time.
    ///
    /// # Errors
    ///
    /// If Postgres cannot be used.
    pub(crate) async fn revoke_verified_tokens(
        &self,
        tokens: &[VerifiedToken],
    ) -> Result<Committed<Vec<RevokedToken>>, Error> {
        for _ in 1..ATTEMPTS {
            match self.try_revoke_verified_tokens(tokens).await {
                Err(Error::Deadlock) => {}
                outcome => return outcome,
            }
        }
        self.try_revoke_verified_tokens(tokens).await
    }

    async fn try_revoke_verified_tokens(
        &self,
        tokens: &[VerifiedToken],
    ) -> Result<Committed<Vec<RevokedToken>>, Error> {
        let mut change = self.bulk_change().await?;
        let wanted: Vec<Uuid> = tokens.iter().map(|token| token.id().0).collect();
        let stored: Vec<(Uuid, Vec<u8>)> =
            sql_as(STORED_DIGESTS).bind(wanted).fetch_all(&mut *change.tx).await?;
        let digests: HashMap<Uuid, TokenDigest> = stored
            .into_iter()
            .filter_map(|(id, digest)| Some((id, TokenDigest::from_bytes(digest.try_into().ok()?))))
            .collect();
        let is_stored = |token: &&VerifiedToken| digests.get(&token.id().0) == Some(token.digest());
        let ids: Vec<Uuid> = tokens.iter().filter(is_stored).map(|token| token.id().0).collect();
        let revoked = revoke(&mut change, &ids).await?;
        let entries: Vec<NewAuditEntry> = revoked
            .iter()
            .map(|token| NewAuditEntry {
                action: AuditAction::TokenRevoke,
                object: token.id.to_string(),
                details: json!({ "name": token.name, "email": token.owner }),
            })
            .collect();
        change.finish_all(entries, revoked).await
    }

    /// Revokes all live tokens of a group.
    ///
    /// A bulk revocation must succeed whatever else runs at the time, including an administrator's
    /// own statements, which lock in any order. If Postgres ends it to resolve a deadlock, it is
    /// tried again.
    ///
    /// # Errors
    ///
    /// If the user or domain does not exist.
    pub(crate) async fn revoke_tokens(
        &self,
        group: &TokenGroup,
    ) -> Result<Committed<Vec<RevokedToken>>, Error> {
        for _ in 1..ATTEMPTS {
            match self.try_revoke_tokens(group).await {
                Err(Error::Deadlock) => {}
                outcome => return outcome,
            }
        }
        self.try_revoke_tokens(group).await
    }

    async fn try_revoke_tokens(
        &self,
        group: &TokenGroup,
    ) -> Result<Committed<Vec<RevokedToken>>, Error> {
        let mut change = self.bulk_change().await?;
        let (tokens, of, reason) = match group {
            TokenGroup::OfUser(user) => {
                let user = users::lock(&mut change.tx, user).await?;
                (LIVE_TOKENS_OF_USER, user.id, "all tokens of the user")
            }
            TokenGroup::OfDomain(domain) => {
                let domain = domains::lock(&mut change.tx, domain).await?;
                (LIVE_TOKENS_OF_DOMAIN, domain.id, "all tokens of the domain")
            }
        };
        let ids: Vec<Uuid> = sql_scalar(tokens).bind(of).fetch_all(&mut *change.tx).await?;
        let revoked = revoke(&mut change, &ids).await?;
        let entries: Vec<NewAuditEntry> = revoked
            .iter()
            .map(|token| NewAuditEntry {
                action: AuditAction::TokenRevoke,
                object: token.id.to_string(),
                details: json!({ "name": token.name, "email": token.owner, "reason": reason }),
            })
            .collect();
        change.finish_all(entries, revoked).await
    }
}

async fn revoke(change: &mut PendingChange<'_>, ids: &[Uuid]) -> Result<Vec<RevokedToken>, Error> {
    let revoked: Vec<RevokedToken> = sql_as(concat!(
        "UPDATE patgate.pats p SET revoked_at = coalesce(p.revoked_at, now())
         FROM patgate.users u WHERE u.id = p.user_id AND p.id = ANY($1)
         RETURNING p.id, p.name, u.email AS owner, ",
        utc!("p.revoked_at"),
        " AS revoked_at"
    ))
    .bind(ids)
    .fetch_all(&mut *change.tx)
    .await?;
    change.outdated.tokens.extend(ids.iter().copied().map(TokenId));
    Ok(revoked)
}
