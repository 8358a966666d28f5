//! The result of `patgate check`, for people and for programs.

use serde::Serialize;

use super::{super::output::aligned, caches::Caches, replica::Opinion};
use crate::{
    body::ModelName,
    decide::Answered,
    decision::Decision,
    explain::{Evidence, Explanation},
    response::{self, Told},
};

#[derive(Serialize)]
pub(super) struct Report<'a> {
    method: &'a str,
    /// Without the query, which may hold anything.
    path: &'a str,
    outcome: &'static str,
    pub(super) status: u16,
    pub(super) code: &'static str,
    /// What the client is told, of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    explanation: Explanation,
    /// The model that an allow is for, where anything depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    /// Whether there is one, and nothing else about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_credential: Option<&'static str>,
    /// How far the domain is enforced, where that is not to the full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<String>,
    /// What the above is known from, where anything had to be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Caches>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replica: Option<Opinion>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        evidence: &Evidence<'a>,
        decision: &'a Decision,
        redis: Option<Caches>,
    ) -> Self {
        let permit = decision.permit();
        let answered = match decision {
            Decision::Answer(answered) => Some(answered),
            Decision::Allow(_) | Decision::Pass(_) | Decision::Deny(_) => None,
        };
        let model = permit.and_then(|permit| permit.model.as_deref());
        Self {
            method: evidence.method,
            path: evidence.target.split_once('?').map_or(evidence.target, |(path, _)| path),
            outcome: decision.outcome(),
            status: response::status(decision, evidence.manner()),
            code: decision.code(),
            message: decision.denial().map(|denial| {
                let model = evidence.model();
                response::message(denial, &evidence.facts(model.as_ref().map(ModelName::as_str)))
            }),
            explanation: evidence.explain(decision),
            model: model.or(answered.and_then(Answered::model)),
            upstream: permit.map(|permit| &*permit.upstream),
            backend_credential: permit.map(|permit| match permit.credential {
                Some(_) => "set",
                None => "none",
            }),
            rollout: None,
            tier: evidence.request.is_ok().then_some("postgres"),
            redis,
            replica: None,
        }
    }

    /// Takes down what a replica answered. Of one that does not carry its verdict out, the verdict
    /// is what is compared: its mode is in its own configuration, and not known here.
    pub(super) fn heard(&mut self, told: Told) {
        let carried_out = told.softened_by().is_none();
        let agrees = (told.outcome(), &*told.code) == (self.outcome, self.code)
            && (told.status == self.status || !carried_out);
        self.replica = Some(Opinion { told, agrees });
    }

    pub(super) fn text(&self) -> String {
        let mut rows = Vec::new();
        for step in &self.explanation.steps {
            let verdict = if step.passed { "ok" } else { "REFUSED" };
            rows.push(vec![step.step.to_owned(), verdict.to_owned(), step.detail.clone()]);
        }
        let by = if self.outcome == "answered" { ", by patgate itself" } else { "" };
        let mut last = vec![format!("answer: {} {}{by}", self.status, self.code)];
        last.extend(self.message.as_ref().map(|message| format!("the client is told: {message}")));
        last.extend(self.upstream.map(|upstream| format!("upstream: {upstream}")));
        last.extend(self.backend_credential.map(|is| format!("backend credential: {is}")));
        last.extend(self.rollout.as_ref().map(|rollout| format!("rollout: {rollout}")));
        let nearest = self.explanation.nearest.as_ref();
        last.extend(nearest.map(|nearest| format!("nearest miss: {nearest}")));
        last.extend(self.tier.map(|tier| format!("known from: {tier}, as of this moment")));
        last.extend(self.redis.iter().flat_map(Caches::lines));
        if let Some(Opinion { told, agrees }) = &self.replica {
            let verdict = match (agrees, told.softened_by()) {
                (false, _) => "DIFFERS",
                (true, None) => "the same",
                (true, Some(_)) => "otherwise the same",
            };
            last.push(format!("replica: {told}, {verdict}"));
            last.extend(told.message.as_ref().map(|message| format!("  message: {message}")));
            last.extend(told.metadata.iter().map(|(name, value)| format!("  {name}: {value}")));
        }
        let mut text = aligned(vec![vec![format!("{} {}", self.method, self.path)]]);
        text.push_str(&aligned(rows));
        text.push_str(&aligned(last.into_iter().map(|line| vec![line]).collect()));
        text
    }
}
