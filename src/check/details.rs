//! What a check learned besides its decision, for the answer and the record. What was read of the
//! request is not read twice.

use std::sync::Arc;

use crate::{
    api::{ApiStyle, Apis, MatchedRule},
    domain::{Domain, DomainRef},
    principal::Principal,
    provenance::Provenance,
    refusal::Denial,
    request::{ApiPath, AuthRequest, ParsedRequest, RequestParts},
    rollout::Treatment,
    wording::MessageContext,
};

/// A denial before it is known whether it is enforced.
pub(super) struct PendingDenial {
    pub(super) denial: Denial,
    pub(super) provenance: Provenance,
    pub(super) context: DenialContext,
}

/// The facts behind a denial, which decide what its answer may say.
#[derive(Debug, Default)]
pub(super) struct DenialContext {
    /// The owner of the denied token, if the token was verified.
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) domain: Option<Arc<Domain>>,
    /// The model that the body names, if it was read.
    pub(super) model: Option<Box<str>>,
}

impl PendingDenial {
    pub(super) fn new(denial: Denial, provenance: Provenance) -> Self {
        Self { denial, provenance, context: DenialContext::default() }
    }

    /// Notes the owner of the denied token, after the token was verified.
    pub(super) fn of(mut self, principal: Option<&Arc<Principal>>) -> Self {
        self.context.principal = principal.cloned();
        self
    }

    /// Notes the domain in which the request was denied.
    pub(super) fn in_domain(mut self, domain: Option<&Arc<Domain>>) -> Self {
        self.context.domain = domain.cloned();
        self
    }

    /// Notes the model that the body of the denied request names.
    pub(super) fn about(mut self, model: Option<&str>) -> Self {
        self.context.model = model.map(Box::from);
        self
    }
}

/// Adds to an error the facts behind it.
pub(super) trait WithGrounds<T> {
    fn with_grounds(self, provenance: Provenance) -> Result<T, PendingDenial>;
}

impl<T, E: Into<Denial>> WithGrounds<T> for Result<T, E> {
    fn with_grounds(self, provenance: Provenance) -> Result<T, PendingDenial> {
        self.map_err(|error| PendingDenial::new(error.into(), provenance))
    }
}

/// Everything else that a check learned.
#[derive(Debug, Default)]
pub(crate) struct CheckDetails<'r> {
    /// How the matched API answers.
    pub(super) api_style: ApiStyle,
    /// The data behind the decision.
    pub(crate) provenance: Provenance,
    /// The facts behind a denial.
    pub(super) context: DenialContext,
    /// What applied, if another lookup was needed to determine it.
    pub(super) treatment: Option<Treatment>,
    /// The API and the path of the request, if its path belongs to an API.
    pub(super) api_path: Option<ApiPath<'r>>,
    /// The parsed request, unless it was rejected.
    pub(super) request: Option<ReadRequest<'r>>,
}

/// What a parsed request names.
#[derive(Debug)]
pub(super) struct ReadRequest<'r> {
    pub(super) domain: Option<DomainRef>,
    /// The rule that matched, if there is one.
    pub(super) rule: Option<MatchedRule<'r>>,
}

impl<'r> CheckDetails<'r> {
    /// Collects what a parsed request names.
    pub(super) fn of(request: AuthRequest<'r>, provenance: Provenance) -> Self {
        let ParsedRequest { rule, api_path, domain, api_style } = request.into_parsed();
        let request = Some(ReadRequest { domain, rule });
        Self { api_style, provenance, api_path, request, ..Self::default() }
    }

    /// Collects what a request names that was rejected before its rule and its domain were read.
    pub(super) fn of_rejected(api_path: Option<ApiPath<'r>>, api_style: ApiStyle) -> Self {
        Self { api_path, api_style, ..Self::default() }
    }

    /// What a denial of a request with these parts may say.
    pub(super) fn message_context<'a, H>(
        &'a self,
        parts: &RequestParts<'a, H>,
        apis: &'a Apis,
    ) -> MessageContext<'a> {
        MessageContext {
            apis: Some(apis),
            method: parts.method,
            authority: parts.authority,
            target: parts.target,
            shown: parts.body.len(),
            principal: self.context.principal.as_deref(),
            domain: self.context.domain.as_deref(),
            rule: self.rule(),
            model: self.context.model.as_deref(),
        }
    }

    /// The names of the cookies that patgate removes before the request goes to a backend.
    pub(super) fn cookies(&self) -> &[Box<str>] {
        self.api_path.as_ref().map_or(&[], ApiPath::cookies)
    }

    /// The rule that matched, if the request was read that far.
    pub(super) fn rule(&self) -> Option<&MatchedRule<'r>> {
        self.request.as_ref().and_then(|request| request.rule.as_ref())
    }

    /// The domain that the request names.
    pub(super) fn named(&self) -> Option<DomainRef> {
        match &self.request {
            Some(request) => request.domain.clone(),
            None => self.api_path.as_ref().and_then(ApiPath::domain),
        }
    }
}
