//! What a check learned beside its decision, for the answer and for the record. Nothing that was read
//! of the request is read again.

use std::sync::Arc;

use crate::{
    api::{Action, Apis, Manner},
    domain::{Domain, DomainRef},
    grounds::Grounds,
    principal::Principal,
    refusal::Denial,
    request::{AuthRequest, Parts, Place},
    rollout::Treatment,
    wording::Facts,
};

/// A denial of which it is not known yet whether it is enforced.
pub(super) struct PendingDenial {
    pub(super) denial: Denial,
    pub(super) grounds: Grounds,
    pub(super) context: DenialContext,
}

/// What a denial rests on, and what its answer may therefore say.
#[derive(Debug, Default)]
pub(super) struct DenialContext {
    /// The token that was denied, if its possession was proven.
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) domain: Option<Arc<Domain>>,
    /// The model that the body names, if it was read.
    pub(super) model: Option<Box<str>>,
}

impl PendingDenial {
    pub(super) fn new(denial: Denial, grounds: Grounds) -> Self {
        Self { denial, grounds, context: DenialContext::default() }
    }

    /// Notes whose token was denied, after its possession was proven.
    pub(super) fn of(mut self, principal: Option<&Arc<Principal>>) -> Self {
        self.context.principal = principal.cloned();
        self
    }

    /// Notes in which domain the request was denied.
    pub(super) fn in_domain(mut self, domain: Option<&Arc<Domain>>) -> Self {
        self.context.domain = domain.cloned();
        self
    }

    /// Notes which model the body of the denied request names.
    pub(super) fn about(mut self, model: Option<&str>) -> Self {
        self.context.model = model.map(Box::from);
        self
    }
}

/// Adds to an error what it rests on.
pub(super) trait WithGrounds<T> {
    fn with_grounds(self, grounds: Grounds) -> Result<T, PendingDenial>;
}

impl<T, E: Into<Denial>> WithGrounds<T> for Result<T, E> {
    fn with_grounds(self, grounds: Grounds) -> Result<T, PendingDenial> {
        self.map_err(|error| PendingDenial::new(error.into(), grounds))
    }
}

/// What else came of a check.
#[derive(Debug, Default)]
pub(crate) struct CheckDetails<'r> {
    /// How the API in question answers.
    pub(super) manner: Manner,
    /// What the decision rests on.
    pub(crate) grounds: Grounds,
    /// What a denial rests on.
    pub(super) context: DenialContext,
    /// What applied, where it took another look-up to know.
    pub(super) treatment: Option<Treatment>,
    /// Where the request goes.
    pub(super) place: Option<Place<'r>>,
    /// What was read of a request that was not rejected.
    pub(super) request: Option<ReadRequest<'r>>,
}

/// What a request names, once it was read.
#[derive(Debug)]
pub(super) struct ReadRequest<'r> {
    pub(super) domain: Option<DomainRef>,
    /// The rule for it, if there is one.
    pub(super) action: Option<Action<'r>>,
}

impl<'r> CheckDetails<'r> {
    /// Of a request that was not rejected.
    pub(super) fn of(request: AuthRequest<'r>, grounds: Grounds) -> Self {
        let AuthRequest { action, place, domain, manner, .. } = request;
        let request = Some(ReadRequest { domain, action });
        Self { manner, grounds, place, request, ..Self::default() }
    }

    /// What a denial of a request with these parts may say.
    pub(super) fn facts<'a, H>(&'a self, parts: &Parts<'a, H>, apis: &'a Apis) -> Facts<'a> {
        Facts {
            apis: Some(apis),
            method: parts.method,
            authority: parts.authority,
            target: parts.target,
            shown: parts.body.len(),
            principal: self.context.principal.as_deref(),
            domain: self.context.domain.as_deref(),
            action: self.request.as_ref().and_then(|request| request.action.as_ref()),
            model: self.context.model.as_deref(),
        }
    }

    /// The names of the cookies that do not go on to a backend.
    pub(super) fn cookies(&self) -> &[Box<str>] {
        self.place.as_ref().map_or(&[], Place::cookies)
    }

    /// The domain that the request names.
    pub(super) fn named(&self) -> Option<DomainRef> {
        match &self.request {
            Some(request) => request.domain.clone(),
            None => self.place.as_ref().and_then(Place::domain),
        }
    }
}
