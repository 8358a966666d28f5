//! Counts a decision, and records it in the decision log and in its trace.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{
    CallMetadata, CheckStep, Checker,
    details::{CheckDetails, ReadRequest},
};
use crate::{
    answer,
    api::{Entity, MatchedRule},
    check::decision_log::{MAX_MODEL, Record, RequestedAccess, UnnamedRequest},
    clock::{self, Tick},
    decision::Decision,
    legible::logged,
    operation::EntityType,
    refusal::{Denial, Refusal},
    request::RequestParts,
    telemetry::{CheckSpan, CheckSummary},
};

/// Method and target of a request as the client sent them; empty if it could not be decoded.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn of<H>(parts: &RequestParts<'a, H>) -> Self {
        Self { method: parts.method, target: parts.target }
    }
}

impl Checker {
    /// Counts a decision, ends its span if it has one, and logs it if the log admits it.
    pub(super) fn record(
        &self,
        asked: Asked<'_>,
        decided: (Decision, CheckDetails<'_>),
        request_id: Cow<'_, str>,
        (call, span): (CallMetadata, Option<Box<CheckSpan>>),
        started: Tick,
    ) {
        let decision = &decided.0;
        let ended = clock::now();
        let took = ended.since(started);
        let outcome = decision.outcome().as_str();
        let code = decision.code();
        self.metrics.decided(outcome, code, decision.is_enforced(), took);
        if let Some(trace) = call.trace.filter(|trace| trace.sampled) {
            self.metrics.traced_decision(trace.trace_id, took, ended);
        }
        if let Some(span) = span {
            span.end(ended, &summary(decision, &decided.1, call.step));
        }
        if self.log.admits(decision, ended) {
            let request_id = request_id.into_owned();
            let write = || {
                let record = self.record_of(asked, decided, request_id, ended, took);
                self.log.write(Record { trace: call.trace, ..record });
            };
            // A failure here must not change the answer.
            if catch_unwind(AssertUnwindSafe(write)).is_err() {
                self.metrics.panicked();
            }
        }
    }

    /// Makes the record of a decision about a request, from what was read of it.
    pub(super) fn record_of(
        &self,
        asked: Asked<'_>,
        (decision, details): (Decision, CheckDetails<'_>),
        request_id: String,
        at: Tick,
        took: Duration,
    ) -> Record {
        let domain = decision.domain().or(details.context.domain.as_ref());
        let treatment =
            details.treatment.unwrap_or_else(|| self.mode.treatment(domain.map(|d| &**d)));
        Record {
            at,
            took,
            request_id,
            trace: None,
            status: answer::status(&decision, details.api_style),
            treatment,
            tier: details.provenance.tier,
            domain: details.context.domain.clone(),
            requested: requested_access(details, asked, &decision),
            decision,
        }
    }
}

/// Returns what the span of a decided check says.
#[cold]
fn summary(decision: &Decision, details: &CheckDetails<'_>, step: CheckStep) -> CheckSummary {
    let operation = decision.operation().or(details.rule().map(|rule| rule.operation));
    let cannot_decide = |denial: &&Denial| denial.refusal == Refusal::Unavailable;
    CheckSummary {
        outcome: decision.outcome().as_str(),
        code: Some(decision.code()),
        enforced: Some(decision.is_enforced()),
        tier: details.provenance.tier.as_str(),
        operation: operation.map(|operation| operation.as_str()),
        step: step.as_str(),
        error: decision.denial().filter(cannot_decide).map(|_| decision.code()),
    }
}

/// Ends the span of a first check whose answer asks for the body.
#[cold]
pub(super) fn end_undecided(span: CheckSpan, details: &CheckDetails<'_>) {
    let check = CheckSummary {
        outcome: "needs_body",
        code: None,
        enforced: None,
        tier: details.provenance.tier.as_str(),
        operation: details.rule().map(|rule| rule.operation.as_str()),
        step: CheckStep::First.as_str(),
        error: None,
    };
    span.end(clock::now(), &check);
}

/// Returns what the request names. Parts of the request that the decision did not need are read only
/// now, so that only logged requests pay for it.
fn requested_access(
    details: CheckDetails<'_>,
    asked: Asked<'_>,
    decision: &Decision,
) -> RequestedAccess {
    let CheckDetails { api_path, request, context, .. } = details;
    let api_path = api_path.as_ref();
    let ReadRequest { domain, rule } = request.unwrap_or_else(|| ReadRequest {
        domain: api_path.and_then(|api_path| api_path.domain()),
        rule: api_path.and_then(|api_path| api_path.rule(asked.method)),
    });
    let proven = decision.denial().is_some_and(|denial| denial.subject.is_some());
    let about_models = |rule: &&MatchedRule<'_>| rule.entity_type == EntityType::Models;
    let model = rule.as_ref().filter(about_models).filter(|_| proven);
    let model = model.and_then(|rule| match rule.entity {
        Entity::Named(name) => Some(logged(name, MAX_MODEL).into()),
        Entity::Unread(_) => context.model,
        Entity::None => None,
    });
    // Without a verified token, anyone chooses the path, and it may be one of another service, with
    // that service's secrets. It is logged only where a rollout needs it: of a request that passes, in
    // the paths of an API.
    let shows_path = proven || !decision.is_enforced() && api_path.is_some();
    let unnamed = decision.denial().is_some() && rule.is_none() && shows_path;
    let unnamed = unnamed.then(|| UnnamedRequest::new(asked.method, asked.target));
    RequestedAccess { domain, operation: rule.map(|rule| rule.operation), model, unnamed }
}
