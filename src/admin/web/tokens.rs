//! The caller's own tokens.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Caller, Error, SelfService,
    call::{Call, call_by, change_by},
};
use crate::{
    admin::{
        CommittedChange, Description, Expiry, NewScope, Outcome, TokenName, TokenStatus,
        store::new_id,
    },
    clock,
    token::{MintedToken, PlainToken, TokenId},
    vocabulary::vocabulary,
};

/// A token to create for the caller.
#[derive(Clone, Debug)]
pub struct NewOwnToken {
    /// Unique among the caller's tokens.
    pub name: TokenName,
    /// What it is for.
    pub description: Description,
    /// When it expires; `None` for the default that an operator has set.
    pub expiry: Option<Expiry>,
    /// What it may be used for: no more than the caller may do.
    pub scopes: Vec<NewScope>,
    /// Under the same key, the same request creates one token.
    pub idempotency_key: Option<String>,
}

/// A token, as its owner sees it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub struct OwnToken {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    /// The address of the owner.
    pub owner: String,
    /// `live`, `expired`, `revoked` or `owner_disabled`.
    #[schema(value_type = String, example = "live")]
    pub status: TokenStatus,
    pub key_id: String,
    #[schema(format = DateTime)]
    pub issued_at: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// Changes with everything that is shown here, except with the last use.
    pub version: String,
    /// How many scopes it has. A list has the first 20 of each token only.
    pub scopes_total: u64,
    pub scopes: Vec<OwnScope>,
}

/// A scope that a token has.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub struct OwnScope {
    pub id: Uuid,
    /// The slug of the domain.
    pub domain: String,
    pub entity_type: String,
    pub entity_id: String,
    pub operation: String,
    /// Whether the owner may do this. Otherwise, the scope grants nothing.
    pub permitted: bool,
}

/// The result of a request to create a token.
#[derive(Debug)]
pub enum Creation {
    /// The token was created.
    Created {
        /// The plaintext, which cannot be read again.
        plain: PlainToken,
        /// The token as it was stored.
        token: OwnToken,
    },
    /// The same request had created a token before, whose plaintext is kept nowhere.
    Repeated {
        /// The id of that token.
        id: TokenId,
        /// The token; `None` if it was deleted.
        token: Option<OwnToken>,
    },
}

vocabulary! {
    /// A state by which tokens are selected.
    TokenState, "token status" {
        Live = "live",
        Expired = "expired",
        Revoked = "revoked",
        OwnerDisabled = "owner_disabled",
    }
}

/// Which tokens to list.
#[derive(Clone, Debug)]
pub struct TokenQuery {
    /// The tokens of all users, for a platform administrator.
    pub of_all_users: bool,
    /// A part of the name, in any case.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<TokenState>,
    /// How many to leave out at the beginning.
    pub offset: u32,
    /// At most this many; 1,000 at most.
    pub limit: u32,
}

/// A part of a list of tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TokenPage {
    /// How many tokens the whole list has.
    pub total: u64,
    /// Ordered by owner and name.
    pub tokens: Vec<OwnToken>,
}

/// Which scopes of a token to remove.
#[derive(Clone, Debug)]
pub enum ScopeRemoval {
    /// All of them.
    All,
    /// By their ids.
    Ids(Vec<Uuid>),
    /// By what they are.
    Scopes(Vec<NewScope>),
}

/// A domain in which the caller may do something, which they may also grant to a token.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub struct GrantableDomain {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    pub enabled: bool,
    pub all_models: bool,
    pub operations: Vec<String>,
    pub models: Vec<String>,
}

/// How many replicas have applied a change.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Replicas {
    /// How many have.
    pub applied: u64,
    /// How many have not.
    pub missing: u64,
    /// Which, for a platform administrator.
    pub replicas: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Rotated {
    token: OwnToken,
    replaced: OwnToken,
}

#[derive(Deserialize)]
struct Created {
    created: bool,
    token_id: Uuid,
    token: Option<OwnToken>,
}

impl SelfService {
    /// Creates a token of the caller.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] if the caller may not do what a scope permits; the same if its domain
    /// does not exist. [`Error::LifetimeTooLong`], [`Error::Exists`], [`Error::KeyReused`].
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: &NewOwnToken,
    ) -> Result<Outcome<Creation>, Error> {
        let minted = self.mint()?;
        let scopes = to_json(&new.scopes);
        let expiry = parameters(new.expiry)?;
        let outcome = self
            .change::<Created>(|| {
                let call = change_by(
                    caller,
                    "SELECT patgate.web_create_token($1, $2::text::inet, $3, $4, $5, $6, $7, $8, $9,
                         $10::text::timestamptz, $11, $12)",
                )
                .bind(minted.id.0)
                .bind(new.name.as_str().to_owned())
                .bind(new.description.as_str().to_owned());
                bind_secret(call, &minted, &expiry)
                    .bind(scopes.clone())
                    .bind(new.idempotency_key.clone())
            })
            .await?;
        let stored = outcome.value.created;
        Ok(outcome.map(|made| match made.token {
            Some(token) if stored => Creation::Created { plain: minted.plain, token },
            token => Creation::Repeated { id: TokenId(made.token_id), token },
        }))
    }

    /// Lists tokens, by owner and name.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsElevation`] and [`Error::NotPermitted`] for those of all users.
    pub async fn tokens(&self, caller: &Caller, query: &TokenQuery) -> Result<TokenPage, Error> {
        self.ask(|| {
            call_by(caller, "SELECT patgate.web_tokens($1, $2, $3, $4, $5, $6)")
                .bind(query.of_all_users)
                .bind(query.name.clone())
                .bind(query.state.map(|state| state.as_str()))
                .bind(i64::from(query.offset))
                .bind(i64::from(query.limit))
        })
        .await
    }

    /// Returns a token of the caller's; a platform administrator may see every token.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it does not exist, or is another user's.
    pub async fn token(&self, caller: &Caller, id: TokenId) -> Result<OwnToken, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_token($1, $2)").bind(id.0)).await
    }

    /// Returns what the text of a token begins with, by which its owner may know it.
    pub fn token_beginning(&self, id: TokenId) -> String {
        self.tokens.beginning(id)
    }

    /// Changes the name or the description of a token, if it is at `version`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Changed`], [`Error::Exists`].
    pub async fn update_token(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
        name: Option<&TokenName>,
        description: Option<&Description>,
    ) -> Result<Outcome<OwnToken>, Error> {
        self.change(|| {
            token_at(
                change_by(
                    caller,
                    "SELECT patgate.web_update_token($1, $2::text::inet, $3, $4, $5, $6, $7)",
                ),
                id,
                version,
            )
            .bind(name.map(|name| name.as_str().to_owned()))
            .bind(description.map(|text| text.as_str().to_owned()))
        })
        .await
    }

    /// Gives a live token a new secret; the old one stops working. Without `expiry`, the token expires
    /// when it would have, or after the longest time that is permitted now.
    ///
    /// # Errors
    ///
    /// [`Error::LifetimeTooLong`], [`Error::TokenEnded`] if it is revoked or expired, [`Error::NotPermitted`] if it has a scope
    /// that the caller may not grant any more.
    pub async fn reset_token(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
        expiry: Option<Expiry>,
    ) -> Result<Outcome<(PlainToken, OwnToken)>, Error> {
        let minted = self.tokens.mint(id)?;
        let expiry = parameters(expiry)?;
        let outcome = self
            .change::<OwnToken>(|| {
                let call = token_at(
                    change_by(
                        caller,
                        "SELECT patgate.web_reset_token($1, $2::text::inet, $3, $4, $5, $6, $7, $8,
                             $9::text::timestamptz)",
                    ),
                    id,
                    version,
                );
                bind_secret(call, &minted, &expiry)
            })
            .await?;
        Ok(outcome.map(|token| (minted.plain, token)))
    }

    /// Replaces a live token by a new one with the same name, description, scopes and duration, or the
    /// longest duration that is permitted now. The old one is renamed, and still works for `overlap`, but
    /// no longer than it would have. Without an overlap, it is revoked. Returns the plaintext, the new
    /// token and the old one.
    ///
    /// # Errors
    ///
    /// As for [`SelfService::reset_token`]; also [`Error::TooMany`] if the caller has as many tokens as
    /// are permitted.
    pub async fn rotate_token(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
        overlap: Duration,
    ) -> Result<Outcome<(PlainToken, OwnToken, OwnToken)>, Error> {
        let minted = self.mint()?;
        let outcome = self
            .change::<Rotated>(|| {
                token_at(
                    change_by(
                        caller,
                        "SELECT patgate.web_rotate_token($1, $2::text::inet, $3, $4, $5, $6, $7, $8,
                             $9)",
                    ),
                    id,
                    version,
                )
                .bind(minted.id.0)
                .bind(minted.digest.as_bytes().to_vec())
                .bind(minted.key_id.as_str().to_owned())
                .bind(micros(overlap))
            })
            .await?;
        Ok(outcome.map(|Rotated { token, replaced }| (minted.plain, token, replaced)))
    }

    /// Revokes a token for good. A token that is revoked already keeps its time.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it does not exist, or is another user's.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        id: TokenId,
    ) -> Result<Outcome<OwnToken>, Error> {
        self.change(|| {
            change_by(caller, "SELECT patgate.web_revoke_token($1, $2::text::inet, $3, $4)")
                .bind(id.0)
        })
        .await
    }

    /// Deletes a token with its scopes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Changed`].
    pub async fn delete_token(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
    ) -> Result<Outcome<()>, Error> {
        self.change(|| {
            token_at(
                change_by(
                    caller,
                    "SELECT patgate.web_delete_token($1, $2::text::inet, $3, $4, $5)",
                ),
                id,
                version,
            )
        })
        .await
    }

    /// Adds scopes to a token.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] if the caller may not do what a scope permits.
    pub async fn add_scopes(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
        scopes: &[NewScope],
    ) -> Result<Outcome<OwnToken>, Error> {
        let scopes = to_json(scopes);
        self.change(|| {
            token_at(
                change_by(
                    caller,
                    "SELECT patgate.web_add_scopes($1, $2::text::inet, $3, $4, $5, $6)",
                ),
                id,
                version,
            )
            .bind(scopes.clone())
        })
        .await
    }

    /// Removes scopes from a token.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the token does not have one of them; then none is removed.
    pub async fn remove_scopes(
        &self,
        caller: &Caller,
        id: TokenId,
        version: Option<&str>,
        removal: &ScopeRemoval,
    ) -> Result<Outcome<OwnToken>, Error> {
        let (ids, scopes) = match removal {
            ScopeRemoval::All => (None, None),
            ScopeRemoval::Ids(ids) => (Some(ids.clone()), None),
            ScopeRemoval::Scopes(scopes) => (None, Some(to_json(scopes))),
        };
        self.change(|| {
            token_at(
                change_by(
                    caller,
                    "SELECT patgate.web_remove_scopes($1, $2::text::inet, $3, $4, $5, $6, $7)",
                ),
                id,
                version,
            )
            .bind(ids.clone())
            .bind(scopes.clone())
        })
        .await
    }

    /// Returns what the caller may grant to a token.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn grantable(&self, caller: &Caller) -> Result<Vec<GrantableDomain>, Error> {
        self.ask(|| call_by(caller, "SELECT patgate.web_grantable($1)")).await
    }

    /// Returns how many of the serving replicas have applied a change.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn applied(
        &self,
        caller: &Caller,
        change: &CommittedChange,
    ) -> Result<Replicas, Error> {
        let ago = clock::now().since(change.at);
        self.ask(|| {
            call_by(caller, "SELECT patgate.web_applied($1, $2, $3)")
                .bind(change.transaction.clone())
                .bind(micros(ago))
        })
        .await
    }

    fn mint(&self) -> Result<MintedToken, Error> {
        Ok(self.tokens.mint(TokenId(new_id()))?)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn parameters(expiry: Option<Expiry>) -> Result<(Option<i64>, Option<String>), Error> {
    Ok(expiry.map(Expiry::as_parameters).transpose()?.unwrap_or_default())
}

/// Binds a digest, its key, and when the token expires.
fn bind_secret(
    call: Call,
    minted: &MintedToken,
    (life, until): &(Option<i64>, Option<String>),
) -> Call {
    call.bind(minted.digest.as_bytes().to_vec())
        .bind(minted.key_id.as_str().to_owned())
        .bind(*life)
        .bind(until.clone())
}

fn token_at(call: Call, id: TokenId, version: Option<&str>) -> Call {
    call.bind(id.0).bind(version.map(str::to_owned))
}

fn to_json(scopes: &[NewScope]) -> Value {
    scopes.iter().map(NewScope::to_json).collect()
}
