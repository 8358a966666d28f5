//! The life of a request, one type per stage. Each is made from the one before it only, and says
//! what must be looked up for the next. The driver looks it up: `check.rs` in the tiers of the
//! service, `patgate check` in the stores.
//!
//! ```text
//! request::parse ▶ AuthRequest      needs the principal of its token
//! authenticate   ▶ Authenticated
//! locate         ▶ Located          needs a domain, and a backend if the rule names one
//! authorize      ▶ AuthorizationProgress  may need the model that the body names
//! Mode::rule     ▶ Decision         may need the domain, where domains have modes of their own
//! ```

use std::sync::Arc;

use crate::{
    api::Action,
    backend::{Backend, BackendName},
    clock::Moment,
    decide::{self, AuthorizationProgress, ModelReading},
    domain::{Domain, DomainRef},
    principal::Principal,
    refusal::Denial,
    request::AuthRequest,
};

/// A request whose token is good.
#[derive(Debug)]
pub struct Authenticated<'s> {
    request: &'s AuthRequest<'s>,
    principal: &'s Principal,
}

/// A request of which it is known which rule it falls under, and in which domain.
#[derive(Debug)]
pub struct Located<'s> {
    principal: &'s Principal,
    action: &'s Action<'s>,
    domain: &'s DomainRef,
}

impl AuthRequest<'_> {
    /// Authenticates the request. `principal` is what the store knows under the id of its token.
    ///
    /// # Errors
    ///
    /// A refusal of the credential.
    pub fn authenticate<'s>(
        &'s self,
        principal: Option<&'s Principal>,
        now: Moment,
    ) -> Result<Authenticated<'s>, Denial> {
        let principal = decide::authenticate(&self.token, principal, now)?;
        Ok(Authenticated { request: self, principal })
    }
}

impl<'s> Authenticated<'s> {
    /// Finds the rule and the domain of the request.
    ///
    /// # Errors
    ///
    /// `NotFound` if no rule names the request, `PermissionDenied` if no scope of the token names
    /// the domain.
    pub fn locate(self) -> Result<Located<'s>, Denial> {
        let Self { request, principal } = self;
        let (action, domain) =
            decide::domain_of(principal, request.action.as_ref(), request.domain.as_ref())?;
        Ok(Located { principal, action, domain })
    }
}

impl<'s> Located<'s> {
    /// The domain to look up.
    pub fn domain(&self) -> &'s DomainRef {
        self.domain
    }

    /// The backend to look up, if the rule or its table names one.
    pub fn backend(&self) -> Option<&'s BackendName> {
        self.action.upstream
    }

    /// Authorizes the request, as far as is possible without its body. `domain` and `backend` are
    /// what the store knows under the two names.
    ///
    /// # Errors
    ///
    /// As [`decide::authorize`].
    pub fn authorize(
        &self,
        domain: Option<&'s Arc<Domain>>,
        backend: Option<&'s Backend>,
        reading: ModelReading,
    ) -> Result<AuthorizationProgress<'s, 's>, Denial> {
        decide::authorize(self.principal, self.action, domain, backend, reading)
    }
}
