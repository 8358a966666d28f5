//! Replacing a token.

use std::time::Duration;

use serde_json::json;

use super::{
    Changed, Entry, Error, Expiry, Shown, Store, scopes, sql, sql_scalar,
    tokens::{details, hold_roots, lock, micros, mint, refused},
};
use crate::token::{TokenId, Tokens};

/// How to replace a token.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// When the new one ends; without, it lives as long as the old one was made to.
    pub expiry: Option<Expiry>,
    /// How long the old one may still be used.
    pub grace: Duration,
}

impl Store {
    /// Replaces a live token by a new one with the same owner, name, description and scopes.
    ///
    /// It is a new token with a new id, so that logs tell the two apart and revoking one leaves
    /// the other alone. The old one is renamed after its id; it is revoked at once, or expires
    /// after the grace.
    ///
    /// # Errors
    ///
    /// When there is no such token, or it is expired or revoked.
    pub async fn rotate_token(
        &self,
        tokens: &Tokens,
        id: TokenId,
        rotation: &Rotation,
    ) -> Result<Changed<Shown>, Error> {
        let mut change = self.change().await?;
        hold_roots(&mut change.tx, id).await?;
        lock(&mut change.tx, id).await?;
        let old = details(&mut change.tx, id).await?.token;
        if matches!(old.status.as_str(), "expired" | "revoked") {
            return Err(Error::Refused(format!(
                "token `{id}` is {}; create a new one with `patgate token create`",
                old.status
            )));
        }
        let lifetime: i64 = sql_scalar(
            "SELECT (extract(epoch FROM expires_at - issued_at) * 1000000)::bigint
             FROM patgate.pats WHERE id = $1",
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

        let minted = mint(tokens)?;
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
        change.touched.tokens.extend([id, minted.id]);
        let entries = [
            Entry {
                action: "token.rotate",
                object: id.to_string(),
                details: json!({
                    "name": old.name, "email": old.owner, "replaced_by": minted.id,
                    "grace_seconds": rotation.grace.as_secs(),
                }),
            },
            Entry {
                action: "token.create",
                object: minted.id.to_string(),
                details: json!({
                    "name": old.name, "email": old.owner, "replaces": id,
                    "expires_at": token.token.expires_at, "key_id": token.token.key_id,
                }),
            },
        ];
        change.finish_all(entries, Shown { plain: minted.plain, token }).await
    }
}
