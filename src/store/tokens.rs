//! Tokens.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    CANARY_KEEPER, Changed, Description, Error, NewScope, Scope, Store, TokenName, UserRef,
    domains, new_id, scopes, sql, sql_as, sql_scalar, users, utc,
};
use crate::{
    domain::DomainRef,
    token::{Minted, PlainToken, TokenId, Tokens},
};

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Unique among its owner's.
    pub name: TokenName,
    /// Whose it is.
    pub owner: UserRef,
    /// What it is for.
    pub description: Description,
    /// When it ends.
    pub expiry: Expiry,
    /// What it may be used for. Without any, for nothing.
    pub scopes: Vec<NewScope>,
}

/// When a token ends.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// This long after Postgres's now.
    In(Duration),
    /// Then.
    At(Timestamp),
}

/// A new token with its plaintext, which nobody will see again.
#[derive(Debug)]
pub struct Shown {
    /// For the owner.
    pub plain: PlainToken,
    /// What was stored.
    pub token: TokenDetails,
}

/// A token.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Token {
    /// Public.
    pub id: Uuid,
    /// Unique among its owner's.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The owner's address.
    pub owner: String,
    /// `live`, `expired`, `revoked` or `owner_disabled`.
    pub status: String,
    /// The key that signed it.
    pub key_id: String,
    /// When it was minted.
    pub issued_at: String,
    /// When it ends.
    pub expires_at: String,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// When it was last used, about.
    pub last_used_at: Option<String>,
}

/// A token and its scopes.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TokenDetails {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// In order.
    pub scopes: Vec<Scope>,
}

/// Which tokens to list. What is absent does not restrict.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// This user's.
    pub owner: Option<UserRef>,
    /// Those with a scope in this domain.
    pub domain: Option<DomainRef>,
    /// Those neither expired nor revoked.
    pub live: bool,
}

/// What needs a key.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct KeyUse {
    /// The key's id.
    pub key_id: String,
    /// Tokens neither expired nor revoked.
    pub live_tokens: i64,
    /// Credentials of backends.
    pub credentials: i64,
}

macro_rules! select_token {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.name, p.description, u.email AS owner, p.key_id,
                    CASE WHEN p.revoked_at IS NOT NULL THEN 'revoked'
                         WHEN p.expires_at <= now() THEN 'expired'
                         WHEN NOT u.enabled THEN 'owner_disabled'
                         ELSE 'live' END AS status, ",
            utc!("p.issued_at"),
            " AS issued_at, ",
            utc!("p.expires_at"),
            " AS expires_at, ",
            utc!("p.revoked_at"),
            " AS revoked_at, ",
            utc!("n.last_used_at"),
            " AS last_used_at
             FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
             LEFT JOIN patgate.pat_uses n ON n.pat_id = p.id ",
            $rest
        )
    };
}

impl Store {
    /// Mints and stores a token.
    ///
    /// # Errors
    ///
    /// When there is no such user or domain, when the user has a token of that name, when the
    /// expiry is not in the future, or when there is no randomness to be had.
    pub async fn create_token(
        &self,
        tokens: &Tokens,
        new: &NewToken,
    ) -> Result<Changed<Shown>, Error> {
        let mut change = self.change().await?;
        let owner = users::find(&mut change.tx, &new.owner).await?;
        let minted = mint(tokens)?;
        let (from_now, at) = new.expiry.as_parameters()?;
        sql("INSERT INTO patgate.pats (id, user_id, name, description, digest, key_id, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6,
                     coalesce($7::text::timestamptz, now() + $8::bigint * interval '1 microsecond'))")
        .bind(minted.id.0)
        .bind(owner.id)
        .bind(new.name.as_str())
        .bind(new.description.as_str())
        .bind(minted.digest.as_bytes().as_slice())
        .bind(minted.key_id.as_str())
        .bind(at)
        .bind(from_now)
        .execute(&mut *change.tx)
        .await
        .map_err(|error| refused(error, new.name.as_str(), &owner.email))?;
        scopes::insert(&mut change.tx, minted.id, &new.scopes).await?;
        let token = details(&mut change.tx, minted.id).await?;
        change.touched.tokens.push(minted.id);
        let details = json!({
            "name": token.token.name, "email": owner.email, "expires_at": token.token.expires_at,
            "key_id": token.token.key_id, "scopes": scopes::texts(&new.scopes),
        });
        let id = minted.id;
        change.finish("token.create", id, details, Shown { plain: minted.plain, token }).await
    }

    /// Tokens by owner and name, without the canaries of replicas.
    ///
    /// # Errors
    ///
    /// When the filter names a user or domain that does not exist.
    pub async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Error> {
        let mut tx = self.read().await?;
        let owner = match &filter.owner {
            Some(owner) => Some(users::find(&mut tx, owner).await?.id),
            None => None,
        };
        let domain = match &filter.domain {
            Some(domain) => Some(domains::find(&mut tx, domain).await?.id),
            None => None,
        };
        let tokens = sql_as(select_token!(
            "WHERE ($1::uuid IS NULL OR p.user_id = $1)
               AND ($2::uuid IS NULL OR EXISTS (
                    SELECT FROM patgate.pat_scopes s WHERE s.pat_id = p.id AND s.domain_id = $2))
               AND (NOT $3 OR (p.revoked_at IS NULL AND p.expires_at > now()))
               AND p.user_id <> $4
             ORDER BY u.email, p.name"
        ))
        .bind(owner)
        .bind(domain)
        .bind(filter.live)
        .bind(CANARY_KEEPER);
        let tokens = tokens.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(tokens)
    }

    /// One token with its scopes.
    ///
    /// # Errors
    ///
    /// When there is no such token.
    pub async fn token(&self, id: TokenId) -> Result<TokenDetails, Error> {
        let mut tx = self.read().await?;
        let token = details(&mut tx, id).await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Deletes a token with its scopes. Its trace in the audit log stays.
    ///
    /// # Errors
    ///
    /// When there is no such token.
    pub async fn delete_token(&self, id: TokenId) -> Result<Changed<()>, Error> {
        let mut change = self.change().await?;
        lock(&mut change.tx, id).await?;
        let token = details(&mut change.tx, id).await?.token;
        sql("DELETE FROM patgate.pats WHERE id = $1").bind(id.0).execute(&mut *change.tx).await?;
        change.touched.tokens.push(id);
        let details = json!({ "name": token.name, "email": token.owner, "status": token.status });
        change.finish("token.delete", id, details, ()).await
    }

    /// How many live tokens each key has signed.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn key_uses(&self) -> Result<Vec<KeyUse>, Error> {
        let mut tx = self.read().await?;
        let uses = sql_as(
            "SELECT key_id, count(*) FILTER (WHERE token) AS live_tokens,
                    count(*) FILTER (WHERE NOT token) AS credentials
             FROM (SELECT key_id, true FROM patgate.pats
                   WHERE revoked_at IS NULL AND expires_at > now() AND user_id <> $1
                   UNION ALL
                   SELECT credential_key_id, false FROM patgate.backends
                   WHERE credential IS NOT NULL) AS uses (key_id, token)
             GROUP BY key_id ORDER BY key_id",
        )
        .bind(CANARY_KEEPER);
        let uses = uses.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(uses)
    }
}

impl Expiry {
    /// As two parameters of a statement, one of which is NULL: microseconds from now, or a moment.
    pub(super) fn as_parameters(self) -> Result<(Option<i64>, Option<String>), Error> {
        match self {
            Self::In(duration) => Ok((Some(micros(duration)?), None)),
            Self::At(moment) => Ok((None, Some(moment.to_string()))),
        }
    }
}

pub(super) fn micros(duration: Duration) -> Result<i64, Error> {
    duration
        .as_micros()
        .try_into()
        .map_err(|_| Error::Refused("the time is out of range".to_owned()))
}

pub(super) fn mint(tokens: &Tokens) -> Result<Minted, Error> {
    tokens
        .mint(TokenId(new_id()))
        .map_err(|error| Error::Refused(format!("no randomness: {error}")))
}

/// What a refused row of `pats` says about the token that was asked for.
pub(super) fn refused(error: sqlx::Error, name: &str, owner: &str) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.is_check_violation() => {
            Error::Refused("a token must expire in the future".to_owned())
        }
        _ => Error::exists(error, "token", format_args!("{name}` of `{owner}")),
    }
}

/// Keeps other changes of a token away until the end of this one.
/// Holds what a token hangs on, for a change that will refer to it anew: the owner, and the domains
/// of its scopes. Before the token, in the order of who revokes all tokens of one of them.
pub(super) async fn hold_roots(tx: &mut PgConnection, id: TokenId) -> Result<(), Error> {
    for held in [
        "SELECT FROM patgate.users
         WHERE id = (SELECT user_id FROM patgate.pats WHERE id = $1) FOR KEY SHARE",
        "SELECT FROM patgate.domains
         WHERE id IN (SELECT domain_id FROM patgate.pat_scopes WHERE pat_id = $1)
         ORDER BY id FOR KEY SHARE",
    ] {
        sql(held).bind(id.0).execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn lock(tx: &mut PgConnection, id: TokenId) -> Result<(), Error> {
    sql_scalar::<Uuid>("SELECT id FROM patgate.pats WHERE id = $1 FOR UPDATE")
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?
        .map(drop)
        .ok_or_else(|| Error::not_found("token", id))
}

pub(super) async fn details(tx: &mut PgConnection, id: TokenId) -> Result<TokenDetails, Error> {
    let token = sql_as(select_token!("WHERE p.id = $1"))
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::not_found("token", id))?;
    let scopes = scopes::list(tx, id).await?;
    Ok(TokenDetails { token, scopes })
}
