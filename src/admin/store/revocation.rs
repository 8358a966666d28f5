//! Revoking tokens: one, or all of a user, of a domain or of a key.

use std::collections::HashMap;

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    AuditAction, CANARY_KEEPER, Committed, Error, NewAuditEntry, ObjectKind, PendingChange, Store,
    TokenFilter, UserRef, domains, sql_as, sql_scalar,
    tokens::{self, lock},
    users, utc,
};
use crate::{
    domain::DomainRef,
    keyring::KeyId,
    token::{TokenDigest, TokenId, VerifiedToken},
};

/// How often a bulk revocation is tried if Postgres ends it to resolve a deadlock.
const ATTEMPTS: u32 = 5;

/// The ids of the live tokens of a group, locked in the order of all bulk changes. The canaries of
/// replicas are not tokens of a key.
const LIVE_TOKENS: &str = "
    SELECT id FROM patgate.pats p
    WHERE revoked_at IS NULL AND expires_at > now()
      AND ($1::uuid IS NULL OR user_id = $1)
      AND ($2::uuid IS NULL OR EXISTS (
           SELECT FROM patgate.pat_scopes s WHERE s.pat_id = p.id AND s.domain_id = $2))
      AND ($3::text IS NULL OR (key_id = $3 AND user_id <> $4))
    ORDER BY id FOR UPDATE";

/// The digests of tokens, which are locked in the same order.
const STORED_DIGESTS: &str = "
    SELECT id, digest FROM patgate.pats WHERE id = ANY($1) ORDER BY id FOR UPDATE";

/// Tokens that are revoked together: those of a user, with a scope in a domain, or signed by a key, or
/// those to which all of this applies. Never all tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGroup {
    owner: Option<UserRef>,
    domain: Option<DomainRef>,
    key: Option<KeyId>,
}

impl TokenGroup {
    /// Returns the tokens to which everything applies that is given; `None` if nothing is. A token
    /// with a scope in the domain belongs to it whatever other scopes it has.
    pub fn of(
        owner: Option<UserRef>,
        domain: Option<DomainRef>,
        key: Option<KeyId>,
    ) -> Option<Self> {
        let restricts = owner.is_some() || domain.is_some() || key.is_some();
        restricts.then_some(Self { owner, domain, key })
    }

    /// Returns all tokens of a user.
    pub fn of_user(owner: UserRef) -> Self {
        Self { owner: Some(owner), domain: None, key: None }
    }

    /// Returns all tokens with a scope in a domain.
    pub fn of_domain(domain: DomainRef) -> Self {
        Self { owner: None, domain: Some(domain), key: None }
    }

    /// Returns the key, if only tokens that it signed belong to the group.
    pub fn key(&self) -> Option<&KeyId> {
        self.key.as_ref()
    }

    /// Returns what lists the live tokens of the group.
    pub(in crate::admin) fn live(&self) -> TokenFilter {
        let Self { owner, domain, key } = self.clone();
        TokenFilter { owner, domain, key, live: true }
    }

    /// Says in the audit log why a token was revoked.
    fn reason(&self) -> String {
        let user = self.owner.as_ref().map(|_| "of the user".to_owned());
        let domain = self.domain.as_ref().map(|_| "of the domain".to_owned());
        let key = self.key.as_ref().map(|key| format!("of key {key}"));
        let of: Vec<String> = [user, domain, key].into_iter().flatten().collect();
        format!("all tokens {}", of.join(" and "))
    }
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
    /// The ids of texts that are as long as a token, and that no key of the ring signed.
    pub unsigned: Vec<TokenId>,
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
    /// If the user or domain does not exist, or the key has signed no token.
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
        let owner = match &group.owner {
            Some(owner) => Some(users::lock(&mut change.tx, owner).await?.id),
            None => None,
        };
        let domain = match &group.domain {
            Some(domain) => Some(domains::lock(&mut change.tx, domain).await?.id),
            None => None,
        };
        if let Some(key) = &group.key {
            tokens::ensure_signed_some(&mut change.tx, key).await?;
        }
        let ids: Vec<Uuid> = sql_scalar(LIVE_TOKENS)
            .bind(owner)
            .bind(domain)
            .bind(group.key.as_ref().map(KeyId::as_str))
            .bind(CANARY_KEEPER)
            .fetch_all(&mut *change.tx)
            .await?;
        let reason = group.reason();
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
