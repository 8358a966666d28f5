//! One decision, on its way into the log.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::line::{Line, rfc3339};
use crate::{
    api::{Action, Apis, Entity},
    clock::Tick,
    decision::{Decision, Refusal, Tier},
    domain::{Domain, DomainRef},
    mode::Treatment,
    operation::{EntityType, Operation},
    request::{self, Parts},
};

/// Characters of a model's name that are told: as many as a name has.
const MAX_MODEL: usize = 256;

/// What was decided, and what is known of the request.
pub(crate) struct Record {
    /// When it was answered.
    pub(crate) at: Tick,
    pub(crate) took: Duration,
    pub(crate) request_id: String,
    pub(crate) decision: Decision,
    pub(crate) treatment: Treatment,
    /// Of the verdict, carried out or not.
    pub(crate) status: u16,
    pub(crate) tier: Tier,
    /// The domain that a denial rests on.
    pub(crate) domain: Option<Arc<Domain>>,
    pub(crate) named: Named,
}

/// What a request names, known or not.
#[derive(Default)]
pub(crate) struct Named {
    domain: Option<DomainRef>,
    operation: Option<Operation>,
    /// Told only of tokens that were proven.
    model: Option<Box<str>>,
}

impl Named {
    /// Reads a request once more, so that only those that are logged pay for it. If the tables were
    /// replaced since it was decided, the new ones are asked.
    pub(crate) fn by<'a, H>(parts: &Parts<'a, H>, apis: &Apis, decision: &Decision) -> Self
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let request::Named { domain, action } = request::named(parts, apis);
        let denied = decision.denial().filter(|denial| denial.subject.is_some());
        let asks = denied.is_some_and(|denial| denial.refusal == Refusal::PermissionDenied);
        let about_models = |action: &&Action<'_>| action.entity_type == EntityType::Models;
        let model = action.as_ref().filter(about_models).filter(|_| denied.is_some());
        let model = model.and_then(|action| match action.entity {
            Entity::Named(name) => Some(name.chars().take(MAX_MODEL).collect()),
            Entity::Unread(form) if asks => Some(parts.model(form).ok()?.as_str().into()),
            Entity::Unread(_) | Entity::None => None,
        });
        Self { domain, operation: action.map(|action| action.operation), model }
    }
}

impl Record {
    /// As it is written. It came about at `time`.
    pub(super) fn line(&self, time: Timestamp) -> Line<'_> {
        let subject = match &self.decision {
            Decision::Allow(permit) => Some((permit.token, permit.owner)),
            Decision::Pass(_) | Decision::Deny(_) => {
                self.decision.denial().and_then(|denial| denial.subject)
            }
        };
        let permit = match &self.decision {
            Decision::Allow(permit) => Some(permit),
            Decision::Pass(_) | Decision::Deny(_) => None,
        };
        let domain = permit.map(|permit| &permit.domain).or(self.domain.as_ref());
        let operation = permit.map(|permit| permit.operation).or(self.named.operation);
        let model = permit.and_then(|permit| permit.model.as_deref());
        let model = model.or(self.named.model.as_deref());
        Line {
            time: rfc3339(time).into(),
            request_id: self.request_id.as_str().into(),
            outcome: self.decision.outcome().into(),
            code: self.decision.code().into(),
            enforced: self.decision.is_enforced(),
            mode: self.treatment.as_str().into(),
            status: self.status,
            pat_id: subject.map(|(token, _)| token.0),
            user_id: subject.map(|(_, user)| user.0),
            domain: self.named.domain.as_ref().map(|domain| domain.to_string().into()),
            domain_id: domain.map(|domain| domain.id.0),
            domain_slug: domain.map(|domain| domain.slug.as_str().into()),
            operation: operation.map(|operation| operation.as_str().into()),
            model: model.map(Cow::from),
            upstream: permit.map(|permit| (&*permit.upstream).into()),
            tier: self.tier.as_str().into(),
            micros: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
