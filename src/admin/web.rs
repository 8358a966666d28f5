//! Self-service: what users do with their own tokens, and administrators with everything, in a session
//! that they have signed in to.
//!
//! A page or an HTTP API calls this. It connects with a login of `patgate_web`, which can read and
//! write no table: each call here is one call of a function of the database (`deploy/migrations/0017`
//! to `0023`), which finds the user by the proof of the session, decides what they may do, and writes
//! the line of the audit log. So nothing here decides anything, and nothing here could be bypassed to
//! act for a user who has not signed in. What the process is trusted with: the addresses and request
//! ids that it states, the digests of the tokens that it makes, and sign-ins by a provider.

mod administration;
mod call;
mod error;
mod fleet;
mod login;
mod password;
mod roles;
mod secret;
mod sessions;
mod sign_in;
mod tokens;
mod why;

use std::{net::IpAddr, time::Duration};

use sqlx::PgPool;

pub(crate) use self::login::check as check_login;
pub use self::{
    administration::{
        BackendEntry, DomainEdit, DomainEntry, ModelEntry, NewSelfServiceDomain, UserEdit,
        UserEntry, UserPage,
    },
    error::Error,
    fleet::{Fleet, FleetReplica},
    password::{InvalidPassword, Password, PasswordError, Passwords},
    roles::{History, HistoryEntry, RoleEntry},
    secret::{InvitationSecret, SessionSecret},
    sessions::OwnSession,
    sign_in::{CurrentSession, Invitee, ProviderSignIn, SignedIn},
    tokens::{
        Creation, GrantableDomain, NewOwnToken, OwnScope, OwnToken, Replicas, ScopeRemoval,
        TokenPage, TokenQuery, TokenState,
    },
    why::{AskedRequest, GatewayRules},
};
use super::CachedCopies;
use crate::{
    installation::Installation,
    keyring::LiveRing,
    legible::misleads,
    telemetry::SelfServiceMetrics,
    token::{Prefixes, Tokens},
};

/// The longest time that an invitation is good for.
pub const LONGEST_INVITATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Self-service on one installation.
#[derive(Clone, Debug)]
pub struct SelfService {
    pool: PgPool,
    cached_copies: CachedCopies,
    tokens: Tokens,
    passwords: Passwords,
    rules: GatewayRules,
    metrics: SelfServiceMetrics,
    query_timeout: Duration,
}

/// Where a request comes from. The audit log has it as the process states it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    address: Option<IpAddr>,
    request_id: Option<String>,
}

/// A request in a session.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Proves the session.
    pub session: SessionSecret,
    /// Where it comes from.
    pub origin: Origin,
}

impl Origin {
    /// Of a client's address. A request id that the audit log would not take is left out.
    pub fn new(address: Option<IpAddr>, request_id: Option<&str>) -> Self {
        let fits = |id: &&str| id.chars().count() <= 200 && !id.contains(misleads);
        Self { address, request_id: request_id.filter(fits).map(str::to_owned) }
    }
}

impl SelfService {
    /// Makes the service over connections of a login that is a member of `patgate_web`.
    ///
    /// New tokens are signed with the current key of `ring`, and begin with the first of `prefixes`.
    /// Decisions are explained by `rules`. Postgres ends each statement after `query_timeout`.
    ///
    /// # Errors
    ///
    /// If the schema is too old, or the login may do more than `patgate_web` may.
    pub async fn connect(
        pool: PgPool,
        copies: impl FnOnce(Installation) -> CachedCopies,
        ring: impl Into<LiveRing>,
        prefixes: Prefixes,
        passwords: Passwords,
        rules: GatewayRules,
        query_timeout: Duration,
    ) -> Result<Self, Error> {
        let installation = login::check(&mut *pool.acquire().await?, query_timeout).await?;
        let cached_copies = copies(installation);
        let tokens = Tokens::new(prefixes, ring);
        let metrics = SelfServiceMetrics::default();
        Ok(Self { pool, cached_copies, tokens, passwords, rules, metrics, query_timeout })
    }

    /// Counts into these metrics from now on.
    #[must_use]
    pub(crate) fn measured(mut self, metrics: &SelfServiceMetrics) -> Self {
        self.passwords.measure(metrics);
        Self { metrics: metrics.clone(), ..self }
    }
}
