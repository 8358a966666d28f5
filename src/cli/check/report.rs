//! The result of `patgate check`, as text and as JSON.

use serde::Serialize;

use super::{super::output::aligned, caches::RedisEntries, replica::ReplicaAnswer};
use crate::{
    decision::Decision,
    explain::{Evidence, Verdict},
    wire::response::DecodedAnswer,
};

#[derive(Serialize)]
pub(super) struct CheckReport<'a> {
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    /// Whether the backend has a credential, and nothing else about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_credential: Option<&'static str>,
    /// How far the domain is enforced, unless it is enforced fully.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<String>,
    /// The tier that was asked, if anything had to be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisEntries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replica: Option<ReplicaAnswer>,
}

impl<'a> CheckReport<'a> {
    pub(super) fn new(
        evidence: &Evidence<'_>,
        decision: &'a Decision,
        redis: Option<RedisEntries>,
    ) -> Self {
        let permit = decision.permit();
        Self {
            verdict: evidence.verdict(decision),
            upstream: permit.map(|permit| permit.upstream()),
            backend_credential: permit.map(|permit| match permit.credential() {
                Some(_) => "set",
                None => "none",
            }),
            rollout: None,
            tier: evidence.request.is_ok().then_some("postgres"),
            redis,
            replica: None,
        }
    }

    /// Records the answer of a replica. If the replica does not enforce its verdict, the verdict is
    /// compared: the mode is in the replica's own configuration, which is not known here.
    pub(super) fn record_answer(&mut self, answer: DecodedAnswer) {
        let carried_out = answer.unenforced_by().is_none();
        let Verdict { outcome, status, code, .. } = self.verdict;
        let agrees = (answer.outcome(), &*answer.code) == (outcome, code)
            && (answer.status == status || !carried_out);
        self.replica = Some(ReplicaAnswer { answer, agrees });
    }

    pub(super) fn text(&self) -> String {
        let Verdict { method, path, outcome, status, code, message, explanation, .. } =
            &self.verdict;
        let mut rows = Vec::new();
        for step in &explanation.steps {
            let verdict = if step.passed { "ok" } else { "REFUSED" };
            rows.push(vec![step.step.to_owned(), verdict.to_owned(), step.detail.clone()]);
        }
        let by = if *outcome == "answered" { ", by patgate itself" } else { "" };
        let mut last = vec![format!("answer: {status} {code}{by}")];
        last.extend(message.as_ref().map(|message| format!("message to the client: {message}")));
        last.extend(self.upstream.map(|upstream| format!("upstream: {upstream}")));
        last.extend(self.backend_credential.map(|is| format!("backend credential: {is}")));
        last.extend(self.rollout.as_ref().map(|rollout| format!("rollout: {rollout}")));
        let nearest = explanation.nearest.as_ref();
        last.extend(nearest.map(|nearest| format!("nearest miss: {nearest}")));
        last.extend(self.tier.map(|tier| format!("known from: {tier}, as of this moment")));
        last.extend(self.redis.iter().flat_map(RedisEntries::lines));
        if let Some(ReplicaAnswer { answer, agrees }) = &self.replica {
            let verdict = match (agrees, answer.unenforced_by()) {
                (false, _) => "DIFFERS",
                (true, None) => "the same",
                (true, Some(_)) => "otherwise the same",
            };
            last.push(format!("replica: {answer}, {verdict}"));
            last.extend(answer.message.as_ref().map(|message| format!("  message: {message}")));
            last.extend(answer.metadata.iter().map(|(name, value)| format!("  {name}: {value}")));
        }
        let mut text = aligned(vec![vec![format!("{method} {path}")]]);
        text.push_str(&aligned(rows));
        text.push_str(&aligned(last.into_iter().map(|line| vec![line]).collect()));
        text
    }
}
