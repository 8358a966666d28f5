//! Replaces a token by a new one.

use std::time::Duration;

use serde_json::json;

use super::{
    AuditAction, Committed, CreatedToken, Error, Expiry, NewAuditEntry, Store, TokenStatus, scopes,
    sql, sql_scalar,
    tokens::{details, hold_roots, lock, micros, refused},
};
use crate::token::{MintedToken, TokenId};

/// How a token is replaced by a new one with the same scopes.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// When the new token expires. If `None`, the new token gets the lifetime for which the old one
    /// was created, or the longest that the policy permits, if that is shorter.
    pub expiry: Option<Expiry>,
    /// How long the old token still works.
    pub grace: Duration,
}

impl Store {
    /// Replaces a live token by one that was just minted, with the same owner, name, description and scopes.
    ///
    /// The new token has an id of its own, so that logs distinguish the two, and revoking one
    /// leaves the other alone. The old one is renamed after its id. It is revoked at once, or
    /// expires after the grace.
    ///
    /// # Errors
    ///
    /// If the token does not exist, or it is expired or revoked.
    pub(crate) async fn rotate_token(
        &self,
        id: TokenId,
        minted: MintedToken,
        rotation: &Rotation,
    ) -> Result<Committed<CreatedToken>, Error> {
        let mut change = self.change().await?;
        hold_roots(&mut change.tx, id).await?;
        lock(&mut change.tx, id).await?;
        let old = details(&mut change.tx, id).await?.token;
        if matches!(old.status, TokenStatus::Expired | TokenStatus::Revoked) {
            return Err(Error::Refused(format!(
                "token `{id}` is {}; create a new one with `patgate token create`",
                old.status
            )));
        }
        let lifetime: i64 = sql_scalar(
            "SELECT (extract(epoch FROM least(expires_at - issued_at, o.token_longest)) * 1000000)::bigint
             FROM patgate.pats CROSS JOIN patgate.policy o WHERE id = $1",
        )
        .bind(id.0)
        .fetch_one(&mut *change.tx)
        .await?;
        // The name is unique, so the old token makes room first.
        let grace = micros(rotation.grace)?;
        sql("UPDATE patgate.pats
             SET name = left(name, 176) || ' (replaced ' || right(id::text, 12) || ')',
                 revoked_at = CASE WHEN $2::bigint = 0 THEN now() END,
                 expires_at = CASE WHEN $2 = 0 THEN expires_at
                     ELSE least(expires_at, now() + $2 * interval '1 microsecond') END
             WHERE id = $1")
        .bind(id.0)
        .bind(grace)
        .execute(&mut *change.tx)
        .await?;

        let (from_now, at) = match rotation.expiry {
            Some(expiry) => expiry.as_parameters()?,
            None => (Some(lifetime), None),
        };
        sql("INSERT INTO patgate.pats (id, user_id, name, description, digest, key_id, expires_at)
             SELECT $2, user_id, $3, description, $4, $5,
                    coalesce($6::text::timestamptz, now() + $7::bigint * interval '1 microsecond')
             FROM patgate.pats WHERE id = $1")
        .bind(id.0)
        .bind(minted.id.0)
        .bind(&old.name)
        .bind(minted.digest.as_bytes().as_slice())
        .bind(minted.key_id.as_str())
        .bind(at)
        .bind(from_now)
        .execute(&mut *change.tx)
        .await
        .map_err(|error| refused(error, &old.name, &old.owner))?;
        scopes::copy(&mut change.tx, id, minted.id).await?;

        let token = details(&mut change.tx, minted.id).await?;
        change.outdated.tokens.extend([id, minted.id]);
        let entries = [
            NewAuditEntry {
                action: AuditAction::TokenRotate,
                object: id.to_string(),
                details: json!({
                    "name": old.name, "email": old.owner, "replaced_by": minted.id,
                    "grace_seconds": rotation.grace.as_secs(),
                }),
            },
            NewAuditEntry {
                action: AuditAction::TokenCreate,
                object: minted.id.to_string(),
                details: json!({
                    "name": old.name, "email": old.owner, "replaces": id,
                    "expires_at": token.token.expires_at, "key_id": token.token.key_id,
                }),
            },
        ];
        change.finish_all(entries, CreatedToken { plain: minted.plain, token }).await
    }
}
