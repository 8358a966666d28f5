//! Counts a decision and records it in the decision log.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{
    Checker,
    details::{CheckDetails, ReadRequest},
};
use crate::{
    answer,
    api::{Action, Entity},
    check::decision_log::{MAX_MODEL, Record, RequestedAccess},
    clock::{self, Tick},
    decision::Decision,
    legible::logged,
    operation::EntityType,
    trace_context::TraceContext,
};

impl Checker {
    /// Counts a decision, and logs it if the log admits it.
    pub(super) fn record(
        &self,
        method: &str,
        decided: (Decision, CheckDetails<'_>),
        request_id: Cow<'_, str>,
        trace: Option<TraceContext>,
        started: Tick,
    ) {
        let decision = &decided.0;
        let ended = clock::now();
        let took = ended.since(started);
        let outcome = decision.outcome().as_str();
        let code = decision.code();
        self.metrics.decided(outcome, code, decision.is_enforced(), took);
        if self.log.admits(decision, ended) {
            let request_id = request_id.into_owned();
            let write = || {
                let record = self.record_of(method, decided, request_id, ended, took);
                self.log.write(Record { trace, ..record });
            };
            // A failure here must not change the answer.
            if catch_unwind(AssertUnwindSafe(write)).is_err() {
                self.metrics.panicked();
            }
        }
    }

    /// Makes the record of a decision about a request with this method, from what was read of it.
    pub(super) fn record_of(
        &self,
        method: &str,
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
            requested: requested_access(details, method, &decision),
            decision,
        }
    }
}

/// Returns what the request names. Parts of the request that the decision did not need are read only
/// now, so that only logged requests pay for it.
fn requested_access(
    details: CheckDetails<'_>,
    method: &str,
    decision: &Decision,
) -> RequestedAccess {
    let CheckDetails { api_path, request, context, .. } = details;
    let api_path = api_path.as_ref();
    let ReadRequest { domain, action } = request.unwrap_or_else(|| ReadRequest {
        domain: api_path.and_then(|api_path| api_path.domain()),
        action: api_path.and_then(|api_path| api_path.action(method)),
    });
    let proven = decision.denial().is_some_and(|denial| denial.subject.is_some());
    let about_models = |action: &&Action<'_>| action.entity_type == EntityType::Models;
    let model = action.as_ref().filter(about_models).filter(|_| proven);
    let model = model.and_then(|action| match action.entity {
        Entity::Named(name) => Some(logged(name, MAX_MODEL).into()),
        Entity::Unread(_) => context.model,
        Entity::None => None,
    });
    RequestedAccess { domain, operation: action.map(|action| action.operation), model }
}
