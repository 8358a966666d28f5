//! Reads, creates and deletes tokens.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, CANARY_KEEPER, Committed, Description, Error, NewScope, ObjectKind, Scope, Store,
    TokenName, UserRef, domains, policy, scopes, sql, sql_as, sql_scalar, users, utc,
};
use crate::{
    domain::DomainRef,
    keyring::KeyId,
    token::{MintedToken, PlainToken, TokenId},
    vocabulary::{UnknownWord, vocabulary},
};

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Unique among the tokens of its owner.
    pub name: TokenName,
    /// The user that it belongs to.
    pub owner: UserRef,
    /// What it is for, in the words of the person who created it.
    pub description: Description,
    /// When it expires; `None` for the default of the policy.
    pub expiry: Option<Expiry>,
    /// What it may be used for. A token without scopes can do nothing.
    pub scopes: Vec<NewScope>,
}

/// When a token expires.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// This long after the present time of Postgres.
    In(Duration),
    /// At this moment.
    At(Timestamp),
}

/// A new token with its plaintext, which is not stored anywhere.
#[derive(Debug)]
pub struct CreatedToken {
    /// The plaintext, to be given to the owner.
    pub plain: PlainToken,
    /// The token as it was stored.
    pub token: TokenDetails,
}

vocabulary! {
    /// Whether a token works, and if not, why.
    TokenStatus, "token status" {
        Live = "live",
        Expired = "expired",
        Revoked = "revoked",
        OwnerDisabled = "owner_disabled",
    }
}

impl TryFrom<String> for TokenStatus {
    type Error = UnknownWord;

    fn try_from(word: String) -> Result<Self, UnknownWord> {
        word.parse()
    }
}

/// A token, as stored.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Token {
    /// The token's id, which is public.
    pub id: Uuid,
    /// Unique among the tokens of its owner.
    pub name: String,
    /// What it is for, in the words of the person who created it.
    pub description: String,
    /// The e-mail address of its owner.
    pub owner: String,
    /// Whether it works, and if not, why.
    #[sqlx(try_from = "String")]
    pub status: TokenStatus,
    /// The id of the key of the ring that signed it.
    pub key_id: String,
    /// When it was created, in UTC.
    pub issued_at: String,
    /// When it expires, in UTC.
    pub expires_at: String,
    /// When it was revoked, if it was.
    pub revoked_at: Option<String>,
    /// When it was last used, approximately.
    pub last_used_at: Option<String>,
}

/// A token and its scopes.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TokenDetails {
    /// The token, as stored.
    #[serde(flatten)]
    pub token: Token,
    /// Ordered by domain, entity and operation.
    pub scopes: Vec<Scope>,
}

/// Which tokens to list. An absent field does not restrict.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Only tokens of this user.
    pub owner: Option<UserRef>,
    /// Only tokens with a scope in this domain.
    pub domain: Option<DomainRef>,
    /// Only tokens that this key signed.
    pub key: Option<KeyId>,
    /// Only tokens that are neither expired nor revoked.
    pub live: bool,
}

/// How much depends on one key of the ring.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct KeyUse {
    /// The id of the key, as in the key ring.
    pub key_id: String,
    /// Tokens that it signed and that are neither expired nor revoked.
    pub live_tokens: i64,
    /// Credentials of backends that it encrypts.
    pub credentials: i64,
}

/// The code of `0021_self_service_triggers.sql` for a token that would live longer than an operator permits.
const EXPIRES_TOO_LATE: &str = "PW006";

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
    /// Stores a token that was just minted.
    ///
    /// # Errors
    ///
    /// If the user or a scope's domain does not exist, if the user has a token of that name, or if
    /// the expiry is not in the future.
    pub(crate) async fn create_token(
        &self,
        minted: MintedToken,
        new: &NewToken,
    ) -> Result<Committed<CreatedToken>, Error> {
        let mut change = self.change().await?;
        let owner = users::find(&mut change.tx, &new.owner).await?;
        let (from_now, at) = new.expiry.map_or(Ok((None, None)), Expiry::as_parameters)?;
        sql("INSERT INTO patgate.pats (id, user_id, name, description, digest, key_id, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6,
                     coalesce($7::text::timestamptz, now() + $8::bigint * interval '1 microsecond',
                              now() + (SELECT token_default FROM patgate.policy)))")
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
        change.outdated.tokens.push(minted.id);
        let details = json!({
            "name": token.token.name, "email": owner.email, "expires_at": token.token.expires_at,
            "key_id": token.token.key_id, "scopes": scopes::texts(&new.scopes),
        });
        let id = minted.id;
        change
            .finish(
                AuditAction::TokenCreate,
                id,
                details,
                CreatedToken { plain: minted.plain, token },
            )
            .await
    }

    /// Lists tokens by owner and name, without the canaries of replicas.
    ///
    /// # Errors
    ///
    /// If the filter names a user or domain that does not exist, or a key that has signed no token.
    pub(crate) async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Error> {
        let mut tx = self.read().await?;
        let owner = match &filter.owner {
            Some(owner) => Some(users::find(&mut tx, owner).await?.id),
            None => None,
        };
        let domain = match &filter.domain {
            Some(domain) => Some(domains::find(&mut tx, domain).await?.id),
            None => None,
        };
        if let Some(key) = &filter.key {
            ensure_signed_some(&mut tx, key).await?;
        }
        let tokens = sql_as(select_token!(
            "WHERE ($1::uuid IS NULL OR p.user_id = $1)
               AND ($2::uuid IS NULL OR EXISTS (
                    SELECT FROM patgate.pat_scopes s WHERE s.pat_id = p.id AND s.domain_id = $2))
               AND (NOT $3 OR (p.revoked_at IS NULL AND p.expires_at > now()))
               AND p.user_id <> $4
               AND ($5::text IS NULL OR p.key_id = $5)
             ORDER BY u.email, p.name"
        ))
        .bind(owner)
        .bind(domain)
        .bind(filter.live)
        .bind(CANARY_KEEPER)
        .bind(filter.key.as_ref().map(KeyId::as_str));
        let tokens = tokens.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(tokens)
    }

    /// Returns a token with its scopes.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub(crate) async fn token(&self, id: TokenId) -> Result<TokenDetails, Error> {
        let mut tx = self.read().await?;
        let token = details(&mut tx, id).await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Deletes a token with its scopes. Its entries in the audit log stay.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub(crate) async fn delete_token(&self, id: TokenId) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        lock(&mut change.tx, id).await?;
        let token = details(&mut change.tx, id).await?.token;
        sql("DELETE FROM patgate.pats WHERE id = $1").bind(id.0).execute(&mut *change.tx).await?;
        change.outdated.tokens.push(id);
        let details = json!({ "name": token.name, "email": token.owner, "status": token.status });
        change.finish(AuditAction::TokenDelete, id, details, ()).await
    }

    /// Counts the live tokens and credentials that depend on each key.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn key_uses(&self) -> Result<Vec<KeyUse>, Error> {
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
    /// Returns two parameters of a statement, one of which is NULL: microseconds from now, or a
    /// moment.
    pub(crate) fn as_parameters(self) -> Result<(Option<i64>, Option<String>), Error> {
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

/// Converts the refusal of a row of `pats` into an error about the new token.
pub(super) fn refused(error: sqlx::Error, name: &str, owner: &str) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.code().as_deref() == Some(EXPIRES_TOO_LATE) => {
            Error::Refused(expires_too_late(refusal))
        }
        Some(refusal) if refusal.is_check_violation() => {
            Error::Refused("a token must expire in the future".to_owned())
        }
        _ => Error::exists(error, ObjectKind::Token, format_args!("{name}` of `{owner}")),
    }
}

/// The database adds the seconds of the policy to its refusal.
fn expires_too_late(refusal: &(dyn sqlx::error::DatabaseError + 'static)) -> String {
    let longest = refusal
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(|refusal| refusal.detail()?.parse().ok())
        .map(policy::words);
    format!(
        "a token must expire within {}, which is token_longest of `patgate policy show`",
        longest.as_deref().unwrap_or("the longest time")
    )
}

/// Keeps the owner of a token and the domains of its scopes from being deleted, for a change that
/// refers to them. Call it before locking the token: a revocation of all tokens of a user or a domain
/// locks in the same order.
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

/// Checks that a key has signed a token, live or not: the name may have a typing error, and then "no
/// token" would be the wrong answer.
pub(super) async fn ensure_signed_some(tx: &mut PgConnection, key: &KeyId) -> Result<(), Error> {
    const SIGNED: [&str; 2] = [
        // The index has these.
        "SELECT EXISTS (SELECT FROM patgate.pats
                        WHERE key_id = $1 AND revoked_at IS NULL AND user_id <> $2)",
        "SELECT EXISTS (SELECT FROM patgate.pats WHERE key_id = $1 AND user_id <> $2)",
    ];
    for signed in SIGNED {
        let signed: bool =
            sql_scalar(signed).bind(key.as_str()).bind(CANARY_KEEPER).fetch_one(&mut *tx).await?;
        if signed {
            return Ok(());
        }
    }
    Err(Error::not_found(ObjectKind::TokenOfKey, key))
}

/// Keeps other changes of a token away until the end of this one.
pub(super) async fn lock(tx: &mut PgConnection, id: TokenId) -> Result<(), Error> {
    sql_scalar::<Uuid>("SELECT id FROM patgate.pats WHERE id = $1 FOR UPDATE")
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?
        .map(drop)
        .ok_or_else(|| Error::not_found(ObjectKind::Token, id))
}

pub(super) async fn details(tx: &mut PgConnection, id: TokenId) -> Result<TokenDetails, Error> {
    let token = sql_as(select_token!("WHERE p.id = $1"))
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::not_found(ObjectKind::Token, id))?;
    let scopes = scopes::list(tx, id).await?;
    Ok(TokenDetails { token, scopes })
}
