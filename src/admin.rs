//! The administrator's service: every change and query that an operator can make.
//!
//! The command line calls it today; an HTTP API can call the same methods. It takes values that
//! were already parsed, prints nothing, and knows no arguments of commands.
//!
//! A change returns an [`Outcome`]: the value, [warnings](Warning) that the operator should see,
//! and the [`CommittedChange`], which [`Admin::progress`] follows until every replica has applied
//! it. Each change is recorded in the audit log under the [`Actor`] that the service was given.

mod backends;
mod cached_copies;
mod domains;
mod error;
mod keys;
mod outcome;
mod policy;
mod progress;
mod providers;
mod roles;
pub(crate) mod store;
mod subjects;
mod system;
mod tokens;
mod users;
pub mod web;

use sqlx::PgPool;
use std::time::Duration;

pub(crate) use self::store::policy::words as policy_words;
pub use self::{
    backends::ResealedCredentials,
    cached_copies::CachedCopiesError,
    error::Error,
    outcome::{CommittedChange, Outcome, Warning},
    progress::{ChangeProgress, ReplicaStates},
    system::ServingReplicas,
    users::Invitation,
};
use self::{cached_copies::delete_cached_copies, keys::Keys};
pub use crate::admin::store::{
    Actor, AuditAction, AuditActionFilter, AuditActionFilterError, AuditEntry, AuditFilter,
    BackendChanges, BackendKind, BackendName, BackendSummary, BackendUrl, CreatedToken,
    CredentialNote, Description, DisplayName, DomainChanges, DomainDetails, DomainModel,
    DomainSummary, Email, EntityId, Error as StoreError, Expiry, Identity, InvalidText, Issuer,
    KeyUse, LeakedTokens, ListedModel, NewDomain, NewModels, NewScope, NewToken, NewUser,
    ObjectKind, Policy, PolicyChanges, Provider, ProviderDetails, RenewedInstallation, Replica,
    RevokedToken, Role, RoleName, Rotation, Scope, ScopeError, Subject, Token, TokenDetails,
    TokenFilter, TokenGroup, TokenLongest, TokenName, TokenStatus, User, UserDetails, UserRef,
    UserRole, UserSession,
};
use crate::{
    admin::store::{Committed, Store},
    clock,
    config::RedisSettings,
    installation::Installation,
    keyring::KeyRing,
    token::{Prefixes, Tokens},
};

/// Reads and changes one installation on behalf of one actor.
#[derive(Clone, Debug)]
pub struct Admin {
    store: Store,
    cached_copies: CachedCopies,
    /// `None` in a service that was not given a key ring.
    keys: Option<Keys>,
}

/// Where copies of the database's contents may be cached.
#[derive(Clone, Debug)]
pub struct CachedCopies {
    /// The installation whose copies they are.
    pub installation: Installation,
    /// The Redis that holds copies, if there is one.
    pub redis: Option<RedisSettings>,
    /// How old a copy may be when a replica uses it.
    pub max_staleness: Duration,
}

impl Admin {
    /// Makes a service that uses the connections of `pool`, and records its changes as made by
    /// `actor`.
    pub fn new(pool: PgPool, actor: Actor, cached_copies: CachedCopies) -> Self {
        Self { store: Store::new(pool, actor), cached_copies, keys: None }
    }

    /// Adds the key ring. Without it, nothing can be signed, verified or encrypted. New tokens begin
    /// with the first of `prefixes`.
    #[must_use]
    pub fn with_keys(self, ring: KeyRing, prefixes: Prefixes) -> Self {
        let tokens = Tokens::new(prefixes, ring.clone());
        Self { keys: Some(Keys { ring, tokens }), ..self }
    }

    /// The same service on behalf of another actor.
    #[must_use]
    pub fn on_behalf_of(&self, actor: Actor) -> Self {
        Self { store: self.store.on_behalf_of(actor), ..self.clone() }
    }

    fn keys(&self) -> Result<&Keys, Error> {
        self.keys.as_ref().ok_or(Error::NoKeyRing)
    }

    async fn complete<T>(&self, change: Committed<T>) -> Outcome<T> {
        self.cached_copies.complete(change).await
    }
}

impl CachedCopies {
    /// Completes a change that is committed: deletes the copies in Redis that it has made outdated.
    /// Copies in the memory of replicas are used for `max_staleness` at most, with or without this.
    async fn complete<T>(&self, change: Committed<T>) -> Outcome<T> {
        let committed = CommittedChange { transaction: change.xid, at: clock::now() };
        let mut warnings = Vec::new();
        if let Err(error) = delete_cached_copies(self, &change.outdated).await {
            let max_staleness = self.max_staleness;
            warnings.push(Warning::CopiesNotDeleted { error, max_staleness });
        }
        Outcome { value: change.value, warnings, committed }
    }
}
