//! A decision with its reasons, in the words that the client gets.

use serde::Serialize;

use super::{Arrival, Evidence, Explanation, Step};
use crate::{
    answer, body::ModelName, decide::AnsweredList, decision::Decision, request::without_query,
    wording,
};

/// What the service would answer when it enforces, and why. Names no backend and holds no secret.
#[derive(Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The method, as it was given.
    pub method: String,
    /// The path without the query, which may hold a secret.
    pub path: String,
    /// `allow`, `answered` or `deny`.
    pub outcome: &'static str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The code of the answer, such as `permission_denied`.
    pub code: &'static str,
    /// The message that the client sees, if the request is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The reasons.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The model for which the request is allowed, if anything depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Verdict {
    /// The shipped Envoy's own answer to a path that it refuses.
    pub fn of_a_refused_path(method: &str, target: &str) -> Self {
        let message = "The gateway refuses this path before it asks about the token. Send slashes as \
                       they are, also those in the name of a model, and no `#`.";
        Self {
            method: method.to_owned(),
            path: without_query(target).to_owned(),
            outcome: "deny",
            status: 400,
            code: "path_not_accepted",
            message: Some(message.to_owned()),
            explanation: Explanation {
                steps: Step::of_the_gateway(&Arrival::Refused).into_iter().collect(),
                nearest: None,
            },
            model: None,
        }
    }
}

impl Evidence<'_> {
    /// Words `decision`, which must be based on this evidence.
    pub fn verdict(&self, decision: &Decision) -> Verdict {
        let answered = match decision {
            Decision::AnswerList(answered) => Some(answered),
            Decision::Allow(_) | Decision::Unenforced(_) | Decision::Deny(_) => None,
        };
        let model = decision.permit().and_then(|permit| permit.model());
        let model = model.or(answered.and_then(AnsweredList::model));
        Verdict {
            method: self.method.to_owned(),
            path: without_query(self.target).to_owned(),
            outcome: decision.outcome().as_str(),
            status: answer::status(decision, self.api_style()),
            code: decision.code(),
            message: decision.denial().map(|denial| {
                let model = self.model();
                let model = model.as_ref().map(ModelName::as_str);
                wording::message(denial, &self.message_context(model))
            }),
            explanation: self.explain(decision),
            model: model.map(str::to_owned),
        }
    }
}
