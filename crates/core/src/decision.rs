//! The outcome of a check: what was decided, and whether it is enforced.

use std::sync::Arc;

use crate::{
    decide::{AnsweredList, Permit, UnansweredList},
    domain::Domain,
    enforce::UnenforcedVerdict,
    operation::Operation,
    principal::UserId,
    refusal::Denial,
    token::TokenId,
};

/// May the request pass, and as what?
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Everything was checked.
    Allow(Permit),
    /// Everything was checked, and patgate answers in place of a backend.
    Answer(AnsweredList),
    /// Something was refused, or patgate would answer, and that is not enforced yet.
    Pass(UnenforcedVerdict),
    /// Something was refused.
    Deny(Denial),
}

impl Decision {
    /// The verdict, carried out or not: `allow`, `answered` or `deny`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Answer(_) => "answered",
            Self::Pass(unenforced) => unenforced.outcome(),
            Self::Deny(_) => "deny",
        }
    }

    /// As what the request passes, if it passes as anything.
    pub fn permit(&self) -> Option<&Permit> {
        match self {
            Self::Allow(permit) => Some(permit),
            Self::Pass(unenforced) => unenforced.list()?.permit(),
            Self::Answer(_) | Self::Deny(_) => None,
        }
    }

    /// The token and its owner, once possession of the token was proven.
    pub fn subject(&self) -> Option<(TokenId, UserId)> {
        match self {
            Self::Allow(permit) => Some((permit.token, permit.owner)),
            Self::Answer(answered) => Some(answered.subject()),
            Self::Pass(unenforced) => unenforced.subject(),
            Self::Deny(denial) => denial.subject,
        }
    }

    /// What the request does or would have done, as far as it is known.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Allow(permit) => Some(permit.operation),
            Self::Answer(answered) => Some(answered.operation()),
            Self::Pass(unenforced) => unenforced.operation(),
            Self::Deny(denial) => denial.operation,
        }
    }

    /// The domain that the request is for, unless it is denied.
    pub fn domain(&self) -> Option<&Arc<Domain>> {
        match self {
            Self::Allow(permit) => Some(&permit.domain),
            Self::Answer(answered) => Some(answered.domain()),
            Self::Pass(unenforced) => unenforced.list().map(UnansweredList::domain),
            Self::Deny(_) => None,
        }
    }

    /// Whether the verdict is carried out.
    pub fn is_enforced(&self) -> bool {
        !matches!(self, Self::Pass(_))
    }

    /// What is refused, carried out or not.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Allow(_) | Self::Answer(_) => None,
            Self::Pass(unenforced) => unenforced.denial(),
            Self::Deny(denial) => Some(denial),
        }
    }

    /// `ok`, or the code of the refusal.
    pub fn code(&self) -> &'static str {
        self.denial().map_or("ok", |denial| denial.refusal.code())
    }
}
