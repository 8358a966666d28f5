//! The answer to a check, as data: whether the request goes on, which of its headers are set and
//! removed, what the client gets otherwise, and what the proxy notes about it. An edge encodes it.
//!
//! An answer that lets a request on is hard to make. Its parts are private, and only two functions
//! make one: [`Answer::new`], from a [`Decision`] and what belongs to it ([`AnswerContext`]), and
//! [`Answer::awaiting`], from an [`AwaitsBody`].
//! A decision lets a request on only with a `Permit` or an `UnenforcedVerdict`, each of which is
//! made in one place.

mod allow;
mod context;
mod pass;
mod reply;
mod settings;

use std::{borrow::Cow, fmt, time::Duration};

pub use self::{
    allow::{AGE_MS, Allow, IdTexts},
    context::{AnswerContext, ClientHeaders},
    pass::Pass,
    reply::Reply,
    settings::{AnswerSettings, GUARD, credential_headers_except},
};
use crate::{
    api::ApiStyle,
    decide::{AwaitsBody, UnansweredList},
    decision::Decision,
    provenance::{Provenance, Tier},
    wording::ErrorStatus,
};

/// The answer to a check.
#[expect(clippy::large_enum_variant, reason = "nearly every answer is an allow, on the stack")]
pub enum Answer<'a> {
    /// The request goes to a backend, as what it is permitted as.
    Allow(Allow<'a>),
    /// The request goes on without an identity: nothing is enforced, or the proxy has to ask again.
    Pass(Pass<'a>),
    /// The client gets this answer, and the request goes nowhere.
    Reply(Reply<'a>),
}

/// It may hold a backend's credential.
impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(…)")
    }
}

/// A value in the metadata of an answer, for the proxy's access log, rate limits and guard.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue<'a> {
    /// A text, such as an id or a code.
    Text(Cow<'a, str>),
    /// A number, which Envoy holds as a double.
    Number(f64),
    /// A truth value.
    Flag(bool),
}

/// An entry of the metadata: its name and its value.
pub type Metadatum<'a> = (&'static str, MetadataValue<'a>);

impl<'a> Answer<'a> {
    /// Returns the answer that carries out the decision of `context`. `ids` is room for texts that it
    /// borrows.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub fn new(
        context: &'a AnswerContext<'_>,
        provenance: &Provenance,
        settings: &'a AnswerSettings,
        ids: &'a mut IdTexts,
    ) -> Self {
        let AnswerContext { decision, edits, .. } = context;
        match decision {
            Decision::Allow(permit) => {
                Self::Allow(Allow::new(permit, None, provenance, settings, edits, ids))
            }
            Decision::AnswerList(list) => {
                Self::Reply(Reply::of_list(list, metadata(decision, provenance), context))
            }
            Decision::Unenforced(unenforced) => {
                match unenforced.list().and_then(UnansweredList::permit) {
                    Some(permit) => {
                        let by = Some(unenforced.by());
                        Self::Allow(Allow::new(permit, by, provenance, settings, edits, ids))
                    }
                    None => {
                        let metadata = metadata(decision, provenance);
                        Self::Pass(Pass::unenforced(unenforced, metadata, settings, edits))
                    }
                }
            }
            Decision::Deny(denial) => {
                Self::Reply(Reply::of_denial(denial, metadata(decision, provenance), context))
            }
        }
    }

    /// Returns the answer that asks for the body. It permits nothing: it has no identity, no backend
    /// and no word for the guard.
    pub fn awaiting(awaits: &AwaitsBody, settings: &'a AnswerSettings) -> Self {
        Self::Pass(Pass::awaiting(awaits, settings))
    }
}

/// Returns the HTTP status of a verdict, enforced or not; 200 unless it is a denial.
pub fn status(decision: &Decision, api_style: ApiStyle) -> u16 {
    decision.denial().map_or(200, |denial| ErrorStatus::of(denial.refusal, api_style).code())
}

/// Returns what was decided, about whom, and on what grounds.
fn metadata<'a>(decision: &Decision, provenance: &Provenance) -> Vec<Metadatum<'a>> {
    let subject = decision.subject();
    let texts: [(_, Option<Cow<'a, str>>); 6] = [
        ("outcome", Some(decision.outcome().as_str().into())),
        ("code", Some(decision.code().into())),
        ("user_id", subject.map(|(_, owner)| owner.to_string().into())),
        ("pat_id", subject.map(|(token, _)| token.to_string().into())),
        ("operation", decision.operation().map(|operation| operation.as_str().into())),
        ("tier", Some(provenance.tier.as_str().into())),
    ];
    let texts = texts.into_iter();
    let known = texts.filter_map(|(name, text)| Some((name, MetadataValue::Text(text?))));
    let age = MetadataValue::Number(milliseconds(provenance.age));
    known.chain((provenance.tier != Tier::None).then_some((AGE_MS, age))).collect()
}

/// Whole milliseconds, as exactly as a number of the metadata can be.
fn milliseconds(age: Duration) -> f64 {
    age.as_millis() as f64
}

#[cfg(test)]
mod tests;
