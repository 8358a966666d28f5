//! What is left of a check: its counts, and its record in the decision log.

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
    api::{Action, Entity},
    check::decision_log::{MAX_MODEL, Record, RequestedAccess},
    clock::{self, Tick},
    decision::Decision,
    legible::logged,
    operation::EntityType,
    wire::response,
};

impl Checker {
    /// Counts a decision, and logs it if the log admits it.
    pub(super) fn record(
        &self,
        method: &str,
        decided: (Decision, CheckDetails<'_>),
        request_id: Cow<'_, str>,
        started: Tick,
    ) {
        let decision = &decided.0;
        let ended = clock::now();
        let took = ended.since(started);
        let outcome = decision.outcome();
        let code = decision.code();
        self.metrics.decided(outcome, code, decision.is_enforced(), took);
        if self.log.admits(decision, ended) {
            let request_id = request_id.into_owned();
            let write = || self.log.write(self.record_of(method, decided, request_id, ended, took));
            // The answer stands, whatever becomes of its record.
            if catch_unwind(AssertUnwindSafe(write)).is_err() {
                self.metrics.panicked();
            }
        }
    }

    /// The record of a decision about a request with this method, out of what was read for it.
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
            status: response::status(&decision, details.manner),
            treatment,
            tier: details.grounds.tier,
            domain: details.context.domain.clone(),
            requested: requested_access(details, method, &decision),
            decision,
        }
    }
}

/// What a request with this method names. What the decision did not need is read now, so that only
/// requests that are logged pay for it.
fn requested_access(
    details: CheckDetails<'_>,
    method: &str,
    decision: &Decision,
) -> RequestedAccess {
    let CheckDetails { place, request, context, .. } = details;
    let place = place.as_ref();
    let ReadRequest { domain, action } = request.unwrap_or_else(|| ReadRequest {
        domain: place.and_then(|place| place.domain()),
        action: place.and_then(|place| place.action(method)),
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
