//! The life of a request, one type per stage. Each is made only from the one before it, and says what
//! the driver must look up for the next. The service's driver (`check.rs`) looks it up in its tiers,
//! `patgate check` in the stores.
//!
//! ```text
//! request::parse ▶ AuthRequest      needs the principal of its token
//! authenticate   ▶ Authenticated
//! locate         ▶ Located          needs a domain, and a backend if the rule names one
//! authorize      ▶ AuthorizationProgress  may need the model that the body names
//! Mode::apply_to_denial, Mode::apply_to_list
//!                ▶ Enforcement      may need the domain, where domains have modes of their own
//! the driver     ▶ Decision
//! ```

use std::sync::Arc;

use crate::{
    api::MatchedRule,
    backend::{Backend, BackendName, ReservedNames},
    clock::Moment,
    decide::{self, AuthorizationProgress, ModelReading},
    domain::{Domain, DomainRef},
    principal::{Principal, UserId},
    refusal::Denial,
    request::AuthRequest,
    token::{TokenId, VerifiedToken},
};

/// A request whose token is good. Only [`AuthRequest::authenticate`] makes one.
#[derive(Debug)]
pub struct Authenticated<'s> {
    request: &'s AuthRequest<'s>,
    principal: &'s Principal,
}

/// A request with its rule and the name of its domain. Only [`Authenticated::locate`] makes one.
#[derive(Debug)]
pub struct Located<'s> {
    principal: &'s Principal,
    rule: &'s MatchedRule<'s>,
    domain: &'s DomainRef,
}

/// Returns the token and its owner, if the token is good. This is asked about the only token among
/// the credentials of a request that was rejected, for the mode and the log. It permits nothing.
pub fn proven_subject(
    token: &VerifiedToken,
    principal: Option<&Principal>,
    now: Moment,
) -> Option<(TokenId, UserId)> {
    let principal = decide::authenticate(token, principal, now).ok()?;
    Some((principal.token, principal.owner))
}

impl AuthRequest<'_> {
    /// Authenticates the request. `principal` is what the store holds under the id of its token.
    ///
    /// # Errors
    ///
    /// Returns the errors of `decide::authenticate`.
    pub fn authenticate<'s>(
        &'s self,
        principal: Option<&'s Principal>,
        now: Moment,
    ) -> Result<Authenticated<'s>, Denial> {
        let principal = decide::authenticate(self.token(), principal, now)?;
        Ok(Authenticated { request: self, principal })
    }
}

impl<'s> Authenticated<'s> {
    /// Finds the rule and the domain of the request.
    ///
    /// # Errors
    ///
    /// Returns `NotFound` if no rule names the request, and `PermissionDenied` if no scope of the
    /// token names the domain.
    pub fn locate(self) -> Result<Located<'s>, Denial> {
        let Self { request, principal } = self;
        let (rule, domain) = decide::domain_of(principal, request.rule(), request.domain())?;
        Ok(Located { principal, rule, domain })
    }
}

impl<'s> Located<'s> {
    /// Returns the domain to look up.
    pub fn domain(&self) -> &'s DomainRef {
        self.domain
    }

    /// Returns the backend to look up, if the rule or its table names one.
    pub fn backend(&self) -> Option<&'s BackendName> {
        self.rule.upstream
    }

    /// Authorizes the request, as far as this is possible without its body. `domain` and `backend` are
    /// what the store holds under the two names.
    ///
    /// # Errors
    ///
    /// Returns the errors of `decide::authorize`.
    pub fn authorize(
        &self,
        domain: Option<&'s Arc<Domain>>,
        backend: Option<&'s Backend>,
        reading: ModelReading,
        reserved: &'s ReservedNames,
    ) -> Result<AuthorizationProgress<'s, 's>, Denial> {
        decide::authorize(self.principal, self.rule, domain, backend, reading, reserved)
    }
}
