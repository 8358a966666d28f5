//! A decision on its way into the log.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::line::{DecisionLine, rfc3339};
use crate::{
    clock::Tick,
    decision::Decision,
    domain::{Domain, DomainRef},
    legible::{logged, logged_path, without_secrets},
    operation::Operation,
    provenance::Tier,
    request::without_query,
    rollout::Treatment,
    trace_context::TraceContext,
};

/// Most characters of a model's name in a line: as many as a name may have.
pub(crate) const MAX_MODEL: usize = 256;

/// Most characters of a path in a line: as many as an answer repeats.
const MAX_PATH: usize = 200;
/// Most characters of a method in a line. Every method of HTTP is shorter.
const MAX_METHOD: usize = 16;

/// The decision, and what is known of the request.
pub(crate) struct Record {
    /// The tick at which the answer was made.
    pub(crate) at: Tick,
    pub(crate) took: Duration,
    pub(crate) request_id: String,
    /// The trace of the call that asked.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) decision: Decision,
    pub(crate) treatment: Treatment,
    /// The status of the verdict, enforced or not.
    pub(crate) status: u16,
    pub(crate) tier: Tier,
    /// The domain on which a denial is based.
    pub(crate) domain: Option<Arc<Domain>>,
    pub(crate) requested: RequestedAccess,
}

/// What a request names, whether it exists or not, as it was read for the decision.
#[derive(Debug, Default)]
pub(crate) struct RequestedAccess {
    pub(crate) domain: Option<DomainRef>,
    pub(crate) operation: Option<Operation>,
    /// Logged only for verified tokens.
    pub(crate) model: Option<Box<str>>,
    /// What was asked, if no rule names it.
    pub(crate) unnamed: Option<UnnamedRequest>,
}

/// A request that no rule names, in the form in which the log may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnnamedRequest {
    pub(crate) method: Box<str>,
    /// Without the query.
    pub(crate) path: Box<str>,
}

impl UnnamedRequest {
    /// Bounds both, and removes what may be a secret.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: logged(method, MAX_METHOD).into(),
            path: logged_path(without_query(target), MAX_PATH).into(),
        }
    }
}

impl Record {
    /// Returns the record as a line. The decision was made at `time`.
    pub(crate) fn line(&self, time: Timestamp) -> DecisionLine<'_> {
        let subject = self.decision.subject();
        let permit = self.decision.permit();
        let domain = self.decision.domain().or(self.domain.as_ref());
        let decided_about = match &self.decision {
            Decision::AnswerList(answered) => answered.model(),
            _ => permit.and_then(|permit| permit.model()),
        };
        let model = decided_about.or(self.requested.model.as_deref());
        let operation = self.decision.operation().or(self.requested.operation);
        let upstream = permit.map(|permit| permit.upstream());
        let requested = self.requested.domain.as_ref().map(ToString::to_string);
        let unnamed = self.requested.unnamed.as_ref();
        DecisionLine {
            time: rfc3339(time).into(),
            request_id: without_secrets(&self.request_id).into(),
            trace_id: self.trace.map(|trace| trace.trace_id.to_string().into()),
            outcome: self.decision.outcome().as_str().into(),
            code: self.decision.code().into(),
            enforced: self.decision.is_enforced(),
            mode: self.treatment.as_str().into(),
            status: self.status,
            pat_id: subject.map(|(token, _)| token.0),
            user_id: subject.map(|(_, user)| user.0),
            domain: requested.map(|domain| without_secrets(&domain).into()),
            domain_id: domain.map(|domain| domain.id.0),
            domain_slug: domain.map(|domain| domain.slug.as_str().into()),
            operation: operation.map(|operation| operation.as_str().into()),
            method: unnamed.map(|unnamed| (&*unnamed.method).into()),
            path: unnamed.map(|unnamed| (&*unnamed.path).into()),
            model: model.map(|model| logged(model, MAX_MODEL).into()),
            upstream: upstream.map(Cow::from),
            tier: self.tier.as_str().into(),
            micros: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
