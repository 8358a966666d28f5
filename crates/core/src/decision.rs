//! The outcome of a check: the verdict, and whether it is enforced.

use std::sync::Arc;

use crate::{
    decide::{AnsweredList, Permit, UnansweredList},
    domain::Domain,
    enforce::{UnenforcedVerdict, Verdict},
    operation::Operation,
    principal::UserId,
    refusal::{Denial, Refusal},
    token::TokenId,
};

/// The outcome of a check. Only [`Allow`](Self::Allow) and [`Unenforced`](Self::Unenforced) let the
/// request go on to a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The request is permitted, and a backend serves it.
    Allow(Permit),
    /// The request is permitted, and patgate answers it with a list of models, in place of a backend.
    AnswerList(AnsweredList),
    /// patgate would deny or answer the request, but the mode does not enforce that yet.
    Unenforced(UnenforcedVerdict),
    /// The request is denied.
    Deny(Denial),
}

impl Decision {
    /// Denies a request of which nothing is known but this reason.
    pub fn denied(refusal: Refusal) -> Self {
        Self::Deny(refusal.into())
    }

    /// Returns the verdict, enforced or not.
    pub fn outcome(&self) -> Verdict {
        match self {
            Self::Allow(_) => Verdict::Allow,
            Self::AnswerList(_) => Verdict::Answered,
            Self::Unenforced(unenforced) => unenforced.outcome(),
            Self::Deny(_) => Verdict::Deny,
        }
    }

    /// Returns the permit with which the request goes to a backend. `None` if it does not go there, or
    /// goes without an identity.
    pub fn permit(&self) -> Option<&Permit> {
        match self {
            Self::Allow(permit) => Some(permit),
            Self::Unenforced(unenforced) => unenforced.list()?.permit(),
            Self::AnswerList(_) | Self::Deny(_) => None,
        }
    }

    /// Returns the token and its owner, if possession of the token was proven.
    pub fn subject(&self) -> Option<(TokenId, UserId)> {
        match self {
            Self::Allow(permit) => Some((permit.token(), permit.owner())),
            Self::AnswerList(answered) => Some(answered.subject()),
            Self::Unenforced(unenforced) => unenforced.subject(),
            Self::Deny(denial) => denial.subject,
        }
    }

    /// Returns the operation of the request, if it is known.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Allow(permit) => Some(permit.operation()),
            Self::AnswerList(answered) => Some(answered.operation()),
            Self::Unenforced(unenforced) => unenforced.operation(),
            Self::Deny(denial) => denial.operation,
        }
    }

    /// Returns the domain that the request is for; `None` if the request is denied.
    pub fn domain(&self) -> Option<&Arc<Domain>> {
        match self {
            Self::Allow(permit) => Some(permit.domain()),
            Self::AnswerList(answered) => Some(answered.domain()),
            Self::Unenforced(unenforced) => unenforced.list().map(UnansweredList::domain),
            Self::Deny(_) => None,
        }
    }

    /// Returns whether the verdict is enforced.
    pub fn is_enforced(&self) -> bool {
        !matches!(self, Self::Unenforced(_))
    }

    /// Returns the denial, enforced or not.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Allow(_) | Self::AnswerList(_) => None,
            Self::Unenforced(unenforced) => unenforced.denial(),
            Self::Deny(denial) => Some(denial),
        }
    }

    /// Returns `ok`, or the code of the refusal, for metrics, logs and metadata.
    pub fn code(&self) -> &'static str {
        self.denial().map_or("ok", |denial| denial.refusal.code())
    }
}
