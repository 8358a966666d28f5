//! Explains a decision step by step, for an administrator. Does no I/O and takes no part in the
//! decision: the stages that the service uses decide, and this module describes their input.

mod arrival;
mod steps;
mod verdict;
mod words;

use std::sync::Arc;

use serde::Serialize;

use self::steps::Walk;
pub use self::{
    arrival::{Arrival, arrival},
    verdict::Verdict,
};
use crate::{
    api::{ApiStyle, Apis, Entity},
    backend::{Backend, ReservedNames},
    body::{Body, BodyForm, ModelName},
    clock::Moment,
    decide::{AuthorizationProgress, Authorized, ModelReading},
    decision::Decision,
    domain::Domain,
    principal::Principal,
    refusal::{Denial, NoModel},
    request::{self, AuthRequest, RejectedRequest, without_query},
    wording::MessageContext,
};

/// A request, and everything that was known when it was decided.
pub struct Evidence<'a> {
    /// The tables of the APIs.
    pub apis: &'a Apis,
    /// The request's method.
    pub method: &'a str,
    /// The request's host.
    pub authority: &'a str,
    /// The request's path and query.
    pub target: &'a str,
    /// The value of `Authorization`.
    pub authorization: Option<&'a str>,
    /// The body, if any was described.
    pub body: Option<Body<'a>>,
    /// When the body is read for the model.
    pub model_reading: ModelReading,
    /// The names that no backend may have.
    pub reserved: &'a ReservedNames,
    /// Whether possession of the token is presumed, because only its id was given.
    pub presumed: bool,
    /// The result of parsing the request.
    pub request: Result<&'a AuthRequest<'a>, &'a RejectedRequest<'a>>,
    /// The store's entry for the token's id.
    pub principal: Option<&'a Principal>,
    /// The store's entry for the domain that the request names.
    pub domain: Option<&'a Arc<Domain>>,
    /// Whether `domain` is also `None` if the person who asks may not know of the domain.
    pub domain_may_be_hidden: bool,
    /// The store's entry for the backend that the rule or its table names.
    pub backend: Option<&'a Backend>,
    /// The time of the decision.
    pub now: Moment,
}

/// One condition of a request that patgate examines, in its turn: a step in what `patgate check`
/// prints. The two checks of a gateway that asks twice are called steps, too, and are something else.
#[derive(Debug, PartialEq, Serialize)]
pub struct Step {
    /// The condition, in a word.
    pub step: &'static str,
    /// Whether the condition held.
    pub passed: bool,
    /// The facts that were examined.
    pub detail: String,
}

/// The reasons for a decision.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// In the order of the service, up to the failed step: later steps are not examined.
    pub steps: Vec<Step>,
    /// What came closest to an allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

impl Step {
    /// The shipped Envoy, which rewrites or refuses a path before patgate sees it.
    pub fn of_the_gateway(arrival: &Arrival) -> Option<Self> {
        let (passed, detail) = match arrival {
            Arrival::Unchanged => return None,
            Arrival::Rewritten(target) => (
                true,
                format!(
                    "the shipped Envoy merges slashes, resolves `.` and `..`, and decodes what needs \
                     no escape; then it asks about `{}`",
                    without_query(target)
                ),
            ),
            Arrival::Refused => (
                false,
                "the shipped Envoy itself refuses a path with `%2F`, `%5C`, `%00` or `#`, and does \
                 not ask patgate"
                    .to_owned(),
            ),
        };
        Some(Self { step: "gateway", passed, detail })
    }
}

impl Evidence<'_> {
    /// Decides as the service does when it enforces, through the same stages.
    pub fn decide(&self) -> Decision {
        match self.authorize() {
            Ok(Authorized::Permit(permit)) => Decision::Allow(permit),
            Ok(Authorized::List(listing)) => Decision::AnswerList(listing.answer()),
            Err(denial) => Decision::Deny(denial),
        }
    }

    fn authorize(&self) -> Result<Authorized<'_>, Denial> {
        let request = self.request.map_err(|rejected| rejected.refusal)?;
        let located = request.authenticate(self.principal, self.now)?.locate()?;
        let authorized =
            located.authorize(self.domain, self.backend, self.model_reading, self.reserved);
        match authorized? {
            AuthorizationProgress::Authorized(authorized) => Ok(authorized),
            AuthorizationProgress::NeedsModel(needs) => {
                let model = self.read(needs.form());
                needs.with(model.as_ref().map(ModelName::as_str).map_err(|why| *why))
            }
        }
    }

    /// What the answer may say about the request.
    pub fn message_context<'f>(&'f self, model: Option<&'f str>) -> MessageContext<'f> {
        let Self { apis, method, authority, target, principal, .. } = *self;
        let shown = self.shown();
        let domain = self.domain.map(|domain| &**domain);
        let rule = self.request.ok().and_then(|request| request.rule());
        MessageContext {
            apis: Some(apis),
            method,
            authority,
            target,
            shown,
            principal,
            domain,
            rule,
            model,
        }
    }

    /// The number of body bytes that were shown.
    fn shown(&self) -> usize {
        self.body.map_or(0, |body| body.bytes.len())
    }

    /// The model that the body names, if the rule reads it from the body.
    pub fn model(&self) -> Option<ModelName> {
        match self.request.ok()?.rule()?.entity {
            Entity::Unread(form) => self.read(form).ok(),
            Entity::None | Entity::Named(_) => None,
        }
    }

    fn read(&self, form: BodyForm) -> Result<ModelName, NoModel> {
        request::model(self.target, self.body.unwrap_or_default(), form, &mut |_| Ok(()))
    }

    /// How the matched API answers.
    pub fn api_style(&self) -> ApiStyle {
        match self.request {
            Ok(request) => request.api_style(),
            Err(rejected) => rejected.api_style,
        }
    }

    /// Explains `decision`, which must be based on this evidence.
    pub fn explain(&self, decision: &Decision) -> Explanation {
        let refusal = decision.denial().map(|denial| denial.refusal);
        let entity = self.request.ok().and_then(|it| it.rule()).map(|it| &it.entity);
        let named = self.model();
        let entity = match entity {
            Some(Entity::Named(name)) => Some(*name),
            _ => named.as_ref().map(ModelName::as_str),
        };
        let answered = matches!(decision, Decision::AnswerList(_));
        Walk::new(self, refusal, entity, answered).explanation()
    }
}
