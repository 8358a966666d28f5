//! Examines the conditions in the order of the service, up to the one that failed.

mod request;
mod rights;

use super::{Evidence, Explanation, Step, words};
use crate::refusal::Refusal;

/// A walk through the conditions.
pub(super) struct Walk<'e> {
    evidence: &'e Evidence<'e>,
    /// Determines which step failed, if the refusal shows it. For the many reasons of
    /// `PermissionDenied`, the first one that applies is found here.
    refusal: Option<Refusal>,
    /// The one entity that the request is about, if it is known.
    entity: Option<&'e str>,
    /// Whether patgate answers instead of a backend.
    answered: bool,
    steps: Vec<Step>,
}

/// A step that failed.
struct Failed {
    step: &'static str,
    /// The facts that were examined.
    detail: String,
    /// What came closest to an allow.
    nearest: Option<String>,
}

fn failed<T>(
    step: &'static str,
    detail: impl Into<String>,
    nearest: Option<String>,
) -> Result<T, Failed> {
    Err(Failed { step, detail: detail.into(), nearest })
}

impl<'e> Walk<'e> {
    pub(super) fn new(
        evidence: &'e Evidence<'e>,
        refusal: Option<Refusal>,
        entity: Option<&'e str>,
        answered: bool,
    ) -> Self {
        Self { evidence, refusal, entity, answered, steps: Vec::new() }
    }

    /// Explains every condition that holds, and the first that does not.
    pub(super) fn explanation(mut self) -> Explanation {
        let refused = match (self.walk(), self.refusal) {
            (Err(failed), _) => Some(failed),
            (Ok(()), Some(refusal)) => {
                let detail = format!("{}; the reason cannot be shown here", refusal.code());
                Some(Failed { step: "decision", detail, nearest: None })
            }
            (Ok(()), None) => None,
        };
        let mut nearest = None;
        if let Some(Failed { step, detail, nearest: closest }) = refused {
            self.steps.push(Step { step, passed: false, detail });
            nearest = closest;
        }
        Explanation { steps: self.steps, nearest }
    }

    fn walk(&mut self) -> Result<(), Failed> {
        self.path()?;
        self.api();
        self.credential()?;
        let Evidence { request: Ok(request), principal: Some(principal), .. } = *self.evidence
        else {
            return Ok(());
        };
        self.proven(request);
        self.state(principal)?;
        let rule = self.rule(request)?;
        let (domain, grants) = self.domain(principal, rule)?;
        self.permission(domain, grants, rule)?;
        self.body(domain, grants, rule)?;
        self.scope(grants, rule)?;
        self.model(domain, rule)?;
        self.answer(domain, grants);
        Ok(())
    }

    fn passed(&mut self, step: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { step, passed: true, detail: detail.into() });
    }
}
